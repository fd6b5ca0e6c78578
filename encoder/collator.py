"""From spectra to tensors: the most intense peaks of each, padded to the longest of the batch, with a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..spectra.columns import SpectrumColumns
from .configuration_ionbed import IonbedConfig


@dataclass(frozen=True, eq=False)
class EncoderBatch:
    """Input of `IonbedModel`: B spectra of at most L - 1 peaks; token 0 is the precursor.

    Attributes
    ----------
    mz_BL : float64
        m/z of each token in Da, the precursor's first; 0 where padded.
    intensity_BL : float32
        Relative to the base peak; the precursor token has 0.
    mask_BL : bool
        True for real tokens.
    hidden_mz_BL, hidden_intensity_BL : bool or None
        Tokens whose m/z or intensity the model must not see.
    polarity_B, charge_B, adduct_B, instrument_B : int64
        Indices into the model's tables; 0 is unknown.
    collision_energy_B : float32
        In eV; NaN where unknown.
    num_empty : int
        How many of the last of the B spectra are none: they fill up a fixed shape and count nowhere. The precursor
        token of each is marked as real, at m/z 0, so that attention has a key; no token of it is hidden.
    """

    mz_BL: torch.Tensor
    intensity_BL: torch.Tensor
    mask_BL: torch.Tensor
    polarity_B: torch.Tensor
    charge_B: torch.Tensor
    collision_energy_B: torch.Tensor
    adduct_B: torch.Tensor
    instrument_B: torch.Tensor
    hidden_mz_BL: torch.Tensor | None = None
    hidden_intensity_BL: torch.Tensor | None = None
    num_empty: int = 0

    def __len__(self) -> int:
        """Return the number of spectra; empty ones do not count."""
        return len(self.mz_BL) - self.num_empty

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each spectrum without padding, int64 of shape (n_spectra,); empty ones are left out."""
        return self.mask_BL[: len(self)].sum(1).cpu().numpy()

    @property
    def num_tokens(self) -> int:
        """Number of real tokens; padding and empty spectra do not count."""
        return int(self.mask_BL.sum()) - self.num_empty

    @property
    def num_slots(self) -> int:
        """Number of tokens with those of padding."""
        return self.mask_BL.numel()

    def to(self, device: torch.device | str) -> EncoderBatch:
        """Return the batch on ``device``; from pinned memory, the copy goes on while the CPU does other things."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> EncoderBatch:
        """Return the batch in page-locked memory, from which a GPU copies on its own."""
        return self._mapped(torch.Tensor.pin_memory)

    def padded_to(self, num_spectra: int, length: int) -> EncoderBatch:
        """Return the batch filled up to a shape: with padding after each spectrum, and with empty spectra."""
        size, before = self.mask_BL.shape
        rows, tokens = num_spectra - size, length - before
        if rows < 0 or tokens < 0:
            raise ValueError(f"a batch of shape ({size}, {before}) does not fit into ({num_spectra}, {length})")
        batch = self._mapped(lambda tensor: F.pad(tensor, (0, tokens, 0, rows) if tensor.dim() == 2 else (0, rows)))
        batch.collision_energy_B[size:] = float("nan")
        batch.mask_BL[size:, 0] = True
        return replace(batch, num_empty=self.num_empty + rows)

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> EncoderBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **changed)


def select_peaks(columns: SpectrumColumns, config: IonbedConfig) -> tuple[SpectrumColumns, np.ndarray]:
    """Keep of each spectrum the peaks that the model reads.

    Returns
    -------
    columns : SpectrumColumns
    peaks : int64 array
        Where in the given columns each kept peak stood.
    """
    keep = columns.intensity >= config.min_intensity
    row, place = columns.peak_places()
    if (long := columns.num_peaks > config.max_peaks).any():
        of_long = np.flatnonzero(long[row])
        order = np.lexsort((-columns.intensity[of_long], row[of_long]))
        rank = np.empty(len(of_long), np.int64)
        rank[order] = place[of_long]
        keep[of_long[rank >= config.max_peaks]] = False
    peaks = np.flatnonzero(keep)
    counts = np.bincount(row[peaks], minlength=len(columns))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return replace(columns, offsets=offsets, mz=columns.mz[peaks], intensity=columns.intensity[peaks]), peaks


def collate(columns: SpectrumColumns, config: IonbedConfig, *, peaks_selected: bool = False) -> EncoderBatch:
    """Build the model's input from ``columns``; see `EncoderBatch`.

    ``peaks_selected`` says that `select_peaks` was applied already.
    """
    if not peaks_selected:
        columns, _ = select_peaks(columns, config)
    counts = columns.num_peaks
    shape = (len(columns), int(counts.max(initial=0)) + 1)
    row, place = columns.peak_places()
    slot = place + 1  # the precursor stands first
    mz, intensity = np.zeros(shape), np.zeros(shape, np.float32)
    mz[:, 0] = columns.precursor_mz
    mz[row, slot], intensity[row, slot] = columns.mz, columns.intensity
    mask = np.arange(shape[1]) <= counts[:, None]
    analysers = {text: analyser(text) for text in set(columns.instrument_type.tolist()) if text and config.instruments}
    return EncoderBatch(
        mz_BL=torch.from_numpy(mz),
        intensity_BL=torch.from_numpy(intensity),
        mask_BL=torch.from_numpy(mask),
        polarity_B=torch.from_numpy(np.where(columns.polarity > 0, 1, np.where(columns.polarity < 0, 2, 0))),
        charge_B=torch.from_numpy(np.minimum(np.abs(columns.charge.astype(np.int64)), MAX_CHARGE)),
        collision_energy_B=torch.from_numpy(np.array(columns.collision_energy, np.float32)),
        adduct_B=_indices(columns.adduct, {name: i for i, name in enumerate(config.adducts, 1)}),
        instrument_B=_indices(
            columns.instrument_type,
            {text: i for i, name in enumerate(config.instruments, 1) for text, of in analysers.items() if of == name},
        ),
    )


def _indices(texts: np.ndarray, indices: dict[str, int]) -> torch.Tensor:
    """Return the index of each text, 0 where it has none."""
    found = torch.zeros(len(texts), dtype=torch.int64)
    if indices:
        found.numpy()[:] = [indices.get(text, 0) for text in texts.tolist()]
    return found


MAX_CHARGE = 8


def analyser(instrument_type: str) -> str:
    """Return the mass analyser that an instrument type names: the last part of ``LC-ESI-QTOF`` is ``QTOF``."""
    return instrument_type.rsplit("-", 1)[-1].strip().upper()
