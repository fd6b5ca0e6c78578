"""Groups of spectra that the objectives beside masked peaks compare with each other: drawn, packed, collated.

A group is whole in one micro-batch of one process, and follows from the seed, the epoch and the batch that it belongs
to: neither the number of processes nor the size of a micro-batch changes what is compared with what.

Shape suffix: N spectra of a micro-batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch

from ..encoder.batching import ENOUGH_TOKENS, SHORTEST_SHARE
from ..encoder.collator import EncoderBatch, collate
from ..encoder.configuration_ionbed import IonbedConfig
from ..spectra.columns import SpectrumColumns
from .augmentation import augment, jitter_intensities, without_precursor
from .config import AugmentationConfig, MaskingConfig, ObjectivesConfig
from .masking import hide_metadata

POOL_GROUPS = 4
"""A group is cut from so many times its spectra, ordered by length: lengths alone tell little apart, and little is
padded."""


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """N spectra in groups, and how they are related; the base of the batches of each objective."""

    spectra: EncoderBatch

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.spectra)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""
        return self.spectra.num_tokens

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each spectrum without padding."""
        return self.spectra.lengths

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on ``device``."""
        return self._mapped(lambda part: part.to(device, non_blocking=True), self.spectra.to(device))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return self._mapped(torch.Tensor.pin_memory, self.spectra.pin_memory())

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], spectra: EncoderBatch) -> Self:
        relations: dict[str, Any] = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "spectra"}
        return replace(self, spectra=spectra, **relations)


class GroupSource(ABC):
    """Draws the groups of one objective."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of a group; raises `InputError` if there is nothing to compare."""

    @abstractmethod
    def batch(self, groups: Sequence[np.ndarray], spectra: EncoderBatch) -> GroupBatch:
        """Say how the spectra of ``groups``, collated in that order, are related."""

    @staticmethod
    def draws(rows: np.ndarray) -> np.ndarray:
        """Return numbers that decide how each spectrum of groups is changed."""
        return rows


def is_next_precursor(precursor_mz: np.ndarray, ppm: float) -> np.ndarray:
    """Return which of ascending m/z lie more than ``ppm`` above the one before; the first does."""
    return np.r_[True, np.diff(precursor_mz) > precursor_mz[1:] * (ppm * 1e-6)]


def other_precursors(precursor_mz: np.ndarray, ppm: float) -> np.ndarray:
    """Return which m/z lie more than ``ppm`` from which, a bool array (N, N)."""
    mz = precursor_mz
    result: np.ndarray = np.abs(mz[:, None] - mz) > np.maximum(mz[:, None], mz) * (ppm * 1e-6)
    return result


def similar_lengths(rng: np.random.Generator, length: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of ``count`` of the items, neighbours in the order of ``length``."""
    order = np.argsort(length, kind="stable")
    start = rng.integers(0, max(1, len(order) - count + 1))
    return order[start : start + count]


def group_rng(seed: int, epoch: int, stream: int, batch: np.ndarray, group: int) -> np.random.Generator:
    """Return the random numbers of one group of a batch; no two batches of an epoch share their lowest row."""
    return np.random.default_rng([seed, epoch, stream, int(batch.min()), group])


def pack_groups(
    groups: Sequence[np.ndarray], num_tokens: np.ndarray, most_spectra: Callable[[int], int]
) -> list[list[np.ndarray]]:
    """Put whole groups into micro-batches, those of longest spectra first.

    ``most_spectra`` says how many spectra a micro-batch may hold whose longest has so many tokens; a group of more
    gets one of its own. One with enough tokens is closed where spectra get shorter, so that little is padded.
    """
    longest = [int(num_tokens[group].max()) for group in groups]
    packed: list[list[np.ndarray]] = []
    width = most = size = 0
    for place in sorted(range(len(groups)), key=lambda g: -longest[g]):
        shorter = longest[place] < SHORTEST_SHARE * width and size * width >= ENOUGH_TOKENS
        if not packed or shorter or size + len(groups[place]) > most:
            packed.append([])
            width, most, size = longest[place], most_spectra(longest[place]), 0
        packed[-1].append(groups[place])
        size += len(groups[place])
    return packed


def collate_group(
    columns: SpectrumColumns,
    draws: np.ndarray,
    encoder: IonbedConfig,
    objectives: ObjectivesConfig,
    masking: MaskingConfig,
    seed: int,
    epoch: int,
    *,
    intensity_jitter: float = 0.0,
) -> EncoderBatch:
    """Collate spectra that are to be compared.

    Some lose their precursor, m/z and surviving peak alike: it is a shortcut that tells most of them apart. Peaks and
    metadata are dropped too, by a hash of seed, epoch and ``draws``, the row of a spectrum or what stands for it.
    """
    change = AugmentationConfig(objectives.hide_precursor, objectives.drop_peaks, mz_jitter_ppm=0.0)
    changed = augment(columns, draws, change, seed, epoch)
    if intensity_jitter:
        changed = jitter_intensities(changed, draws, intensity_jitter, seed, epoch)
    batch = collate(changed, encoder)
    hidden = torch.zeros_like(batch.mask_BL)
    hidden[:, 0] = torch.from_numpy(without_precursor(draws, change, seed, epoch))
    # No intensity is hidden, but what the encoder puts in place of one stays part of the graph.
    batch = replace(batch, hidden_mz_BL=hidden, hidden_intensity_BL=torch.zeros_like(hidden))
    return hide_metadata(batch, draws, masking.metadata_dropout, seed, epoch)
