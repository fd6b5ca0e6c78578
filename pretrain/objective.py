"""Masked-peak modelling: from the hidden states of masked peaks to their m/z (bin and offset) and intensity.

Shape suffixes: M masked peaks, D hidden size; the others as in `ionbed.encoder.modeling_ionbed`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..encoder.collator import EncoderBatch
from ..encoder.modeling_ionbed import IonbedModel
from .config import MaskingConfig


class MaskedPeakObjective(nn.Module):
    """The encoder with its pretraining heads.

    The m/z is predicted as one of ``max_mz / bin_width`` bins, through the chain rule: first the 1 Da block, then the
    bin within that block given the block. This is a distribution over all 20,000 bins at the cost of 1,020 outputs.
    The offset within the true bin is regressed given the bin, in units of its width.
    """

    def __init__(self, encoder: IonbedModel, config: MaskingConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        size = encoder.config.hidden_size
        self.num_blocks = int(-(-config.max_mz // 1))
        self.bins_per_block = round(1 / config.bin_width)
        self.transform = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.LayerNorm(size))
        self.block_out = nn.Linear(size, self.num_blocks)
        self.block_in = nn.Embedding(self.num_blocks, size)
        self.bin_out = nn.Linear(size, self.bins_per_block)
        self.bin_in = nn.Embedding(self.bins_per_block, size)
        self.offset_out = nn.Linear(size, 1)
        self.intensity_out = nn.Linear(size, 1)
        for table in (self.block_in, self.bin_in):
            nn.init.normal_(table.weight, std=encoder.config.initializer_range)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        return {"mz_bin": 1.0, "mz_offset": self.config.offset_weight, "intensity": self.config.intensity_weight}

    @staticmethod
    def counts(batch: EncoderBatch) -> dict[str, float]:
        """Return over how many masked peaks each term of `forward` is a sum."""
        assert batch.hidden_mz_BL is not None and batch.hidden_intensity_BL is not None
        mz = float(batch.hidden_mz_BL.sum())
        return {"mz_bin": mz, "mz_offset": mz, "intensity": float(batch.hidden_intensity_BL.sum())}

    def forward(self, batch: EncoderBatch) -> dict[str, torch.Tensor]:
        """Return the summed loss of each term, over the masked peaks of the batch.

        ``mz_bin`` is a cross-entropy in nats, ``mz_offset`` a smooth L1 loss in units of the bin's width (so that
        it does not vanish), ``intensity`` a squared error of the square root of the relative intensity.
        """
        hidden_BLD = self.encoder(batch)
        assert batch.hidden_mz_BL is not None and batch.hidden_intensity_BL is not None
        # Only masked positions reach the heads: nothing is computed for the others.
        at_mz_MD = self.transform(hidden_BLD[batch.hidden_mz_BL])
        block_M, bin_M, offset_M = self.targets(batch.mz_BL[batch.hidden_mz_BL])
        given_block_MD = at_mz_MD + self.block_in(block_M)
        given_bin_MD = F.silu(given_block_MD + self.bin_in(bin_M))
        bin_loss = F.cross_entropy(self.block_out(at_mz_MD).float(), block_M, reduction="sum")
        bin_loss = bin_loss + F.cross_entropy(self.bin_out(F.silu(given_block_MD)).float(), bin_M, reduction="sum")
        offset = self.offset_out(given_bin_MD).float().squeeze(-1)
        at_intensity_MD = self.transform(hidden_BLD[batch.hidden_intensity_BL])
        intensity = self.intensity_out(at_intensity_MD).float().squeeze(-1)
        true_intensity = batch.intensity_BL[batch.hidden_intensity_BL].sqrt()
        return {
            "mz_bin": bin_loss,
            "mz_offset": F.smooth_l1_loss(offset, offset_M, reduction="sum", beta=0.1),
            "intensity": F.mse_loss(intensity, true_intensity, reduction="sum"),
        }

    def targets(self, mz_M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return 1 Da block, bin within the block, and offset from the bin's middle (-0.5 to 0.5 bin widths)."""
        block_M = mz_M.floor()
        position_M = (mz_M - block_M) * self.bins_per_block
        bin_M = position_M.floor().clamp(max=self.bins_per_block - 1)
        return block_M.long(), bin_M.long(), (position_M - bin_M - 0.5).float()
