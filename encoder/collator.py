"""From spectra to tensors: the most intense peaks of each, padded to the longest of the batch, with a mask."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

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

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.mz_BL)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens, padding not counted."""
        return int(self.mask_BL.sum())

    def to(self, device: torch.device | str) -> EncoderBatch:
        """Return the batch on ``device``."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in moved.items() if v is not None})


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
    if columns.num_peaks.max(initial=0) > config.max_peaks:
        order = np.lexsort((-columns.intensity, row))
        rank = np.empty(len(row), np.int64)
        rank[order] = place
        keep &= rank < config.max_peaks
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
    adducts = {name: i for i, name in enumerate(config.adducts, 1)}
    instruments = {name: i for i, name in enumerate(config.instruments, 1)}
    return EncoderBatch(
        mz_BL=torch.from_numpy(mz),
        intensity_BL=torch.from_numpy(intensity),
        mask_BL=torch.from_numpy(mask),
        polarity_B=torch.from_numpy(np.where(columns.polarity > 0, 1, np.where(columns.polarity < 0, 2, 0))),
        charge_B=torch.from_numpy(np.minimum(np.abs(columns.charge.astype(np.int64)), MAX_CHARGE)),
        collision_energy_B=torch.from_numpy(np.array(columns.collision_energy, np.float32)),
        adduct_B=torch.tensor([adducts.get(a, 0) for a in columns.adduct], dtype=torch.int64),
        instrument_B=torch.tensor(
            [instruments.get(analyser(i), 0) if i else 0 for i in columns.instrument_type], dtype=torch.int64
        ),
    )


MAX_CHARGE = 8


def analyser(instrument_type: str) -> str:
    """Return the mass analyser that an instrument type names: the last part of ``LC-ESI-QTOF`` is ``QTOF``."""
    return instrument_type.rsplit("-", 1)[-1].strip().upper()
