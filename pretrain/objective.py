"""Masked-peak modelling: from the hidden states of masked peaks to their m/z and intensity.

Shape suffixes: M masked peaks, D hidden size; the others as in `ionbed.encoder.modeling_ionbed`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..encoder.collator import EncoderBatch
from ..encoder.modeling_ionbed import IonbedModel
from .config import MaskingConfig

REGRESSION_UNIT = 100.0
"""Da; in it the m/z of peaks and its errors are of order 1."""


class MaskedPeakObjective(nn.Module):
    """The encoder with its pretraining heads: for the m/z of a peak, and (where it is ever hidden) its intensity."""

    def __init__(self, encoder: IonbedModel, config: MaskingConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        size = encoder.config.hidden_size
        self.transform = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.LayerNorm(size))
        self.mz = (
            MzBins(size, config, encoder.config.initializer_range) if config.mz_target == "bins" else MzValue(size)
        )
        self.intensity_out = nn.Linear(size, 1) if config.hide_intensity_share else None

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        intensity = {} if self.intensity_out is None else {"intensity": self.config.intensity_weight}
        return {**self.mz.weights, **intensity}

    def counts(self, batch: EncoderBatch) -> dict[str, float]:
        """Return over how many masked peaks each term of `forward` is a sum."""
        assert batch.hidden_mz_BL is not None and batch.hidden_intensity_BL is not None
        counts = dict.fromkeys(self.mz.weights, float(batch.hidden_mz_BL.sum()))
        return counts if self.intensity_out is None else counts | {"intensity": float(batch.hidden_intensity_BL.sum())}

    def forward(self, batch: EncoderBatch) -> dict[str, torch.Tensor]:
        """Return the summed loss of each term, over the masked peaks of the batch."""
        return self.losses(self.encoder(batch), batch)

    def losses(self, hidden_BLD: torch.Tensor, batch: EncoderBatch) -> dict[str, torch.Tensor]:
        """Return the terms of `forward` for hidden states that the encoder gave.

        Those of the m/z are its head's; ``intensity`` is a squared error of the square root of the relative intensity.
        """
        assert batch.hidden_mz_BL is not None and batch.hidden_intensity_BL is not None
        # Only masked positions reach the heads: nothing is computed for the others.
        at_mz_MD = self.transform(hidden_BLD[batch.hidden_mz_BL])
        losses = self.mz.losses(at_mz_MD, batch.mz_BL[batch.hidden_mz_BL])
        if self.intensity_out is not None:
            at_intensity_MD = self.transform(hidden_BLD[batch.hidden_intensity_BL])
            intensity_M = self.intensity_out(at_intensity_MD).float().squeeze(-1)
            true_intensity_M = batch.intensity_BL[batch.hidden_intensity_BL].sqrt()
            losses["intensity"] = F.mse_loss(intensity_M, true_intensity_M, reduction="sum")
        return losses

    @torch.no_grad()
    def predict_mz(self, batch: EncoderBatch) -> torch.Tensor:
        """Return the most probable m/z (Da, float64) of each peak whose m/z is hidden, in the order of the batch."""
        assert batch.hidden_mz_BL is not None
        return self.mz.predict(self.transform(self.encoder(batch)[batch.hidden_mz_BL]))


class MzBins(nn.Module):
    """The m/z as one of ``max_mz / bin_width`` bins and an offset in it.

    The bin is predicted through the chain rule: first the 1 Da block, then the bin within that block given the block.
    This is a distribution over all 20,000 bins at the cost of 1,020 outputs. The offset within the true bin is
    regressed given the bin, in units of its width.
    """

    def __init__(self, size: int, config: MaskingConfig, initializer_range: float) -> None:
        super().__init__()
        self.weights = {"mz_bin": 1.0, "mz_offset": config.offset_weight}
        self.num_blocks = int(-(-config.max_mz // 1))
        self.bins_per_block = round(1 / config.bin_width)
        self.block_out = nn.Linear(size, self.num_blocks)
        self.block_in = nn.Embedding(self.num_blocks, size)
        self.bin_out = nn.Linear(size, self.bins_per_block)
        self.bin_in = nn.Embedding(self.bins_per_block, size)
        self.offset_out = nn.Linear(size, 1)
        for table in (self.block_in, self.bin_in):
            nn.init.normal_(table.weight, std=initializer_range)

    def losses(self, at_mz_MD: torch.Tensor, mz_M: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the summed losses: ``mz_bin`` in nats, ``mz_offset`` in units of the bin's width.

        The first is a cross-entropy; the second a smooth L1 loss, whose unit keeps it from vanishing.
        """
        block_M, bin_M, offset_M = self.targets(mz_M)
        given_block_MD = at_mz_MD + self.block_in(block_M)
        bin_loss = F.cross_entropy(self.block_out(at_mz_MD).float(), block_M, reduction="sum")
        bin_loss = bin_loss + F.cross_entropy(self.bin_out(F.silu(given_block_MD)).float(), bin_M, reduction="sum")
        offset = self._offset(given_block_MD, bin_M)
        return {"mz_bin": bin_loss, "mz_offset": F.smooth_l1_loss(offset, offset_M, reduction="sum", beta=0.1)}

    def predict(self, at_mz_MD: torch.Tensor) -> torch.Tensor:
        """Return the m/z of the most probable block, of its most probable bin, and of the offset given both."""
        block_M = self.block_out(at_mz_MD).argmax(-1)
        given_block_MD = at_mz_MD + self.block_in(block_M)
        bin_M = self.bin_out(F.silu(given_block_MD)).argmax(-1)
        position_M = bin_M.double() + 0.5 + self._offset(given_block_MD, bin_M).double()
        return block_M + position_M / self.bins_per_block

    def _offset(self, given_block_MD: torch.Tensor, bin_M: torch.Tensor) -> torch.Tensor:
        given_bin_MD = F.silu(given_block_MD + self.bin_in(bin_M))
        return torch.Tensor(self.offset_out(given_bin_MD).float().squeeze(-1))

    def targets(self, mz_M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return 1 Da block, bin within the block, and offset from the bin's middle (-0.5 to 0.5 bin widths)."""
        block_M = mz_M.floor()
        position_M = (mz_M - block_M) * self.bins_per_block
        bin_M = position_M.floor().clamp(max=self.bins_per_block - 1)
        return block_M.long(), bin_M.long(), (position_M - bin_M - 0.5).float()


class MzValue(nn.Module):
    """The m/z as one number; the usual alternative to bins."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weights = {"mz_value": 1.0}
        self.value_out = nn.Linear(size, 1)

    def losses(self, at_mz_MD: torch.Tensor, mz_M: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the summed absolute error ``mz_value``, in units of `REGRESSION_UNIT`: that of a Laplace density."""
        value_M = self.value_out(at_mz_MD).float().squeeze(-1)
        return {"mz_value": F.l1_loss(value_M, (mz_M / REGRESSION_UNIT).float(), reduction="sum")}

    def predict(self, at_mz_MD: torch.Tensor) -> torch.Tensor:
        """Return the predicted m/z, the median of the density."""
        return torch.Tensor(self.value_out(at_mz_MD).squeeze(-1)).double() * REGRESSION_UNIT
