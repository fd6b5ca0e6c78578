"""Contrast of two views of one spectrum, for stores without runs: what is left of it twice, against other spectra.

Each view loses peaks, perhaps its precursor, and has its intensities changed as another collision energy or instrument
would (Chen et al. 2020, SimCLR; for spectra without a label).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..encoder.collator import EncoderBatch
from ..errors import InputError
from .config import ObjectivesConfig
from .groups import POOL_GROUPS, GroupSource, is_next_precursor, other_precursors, similar_lengths
from .neighbours import NeighbourBatch

_MOST_DRAWS = 100
NEAR = 25.0
"""Every other group is of spectra whose precursor m/z lie within so many Da of one: others are told apart by mass."""


@dataclass(frozen=True, eq=False)
class ViewBatch(NeighbourBatch):
    """Spectra twice, view beside view."""

    TERM: ClassVar[str] = "views"


class Views(GroupSource):
    """Draws groups of spectra of one polarity.

    Parameters
    ----------
    rows : int array of shape (n,)
        Rows of the store to draw from.
    precursor_mz, polarity, num_tokens : arrays, one value for each row of the store
        In Da; +1, -1 or 0; tokens.
    config : ObjectivesConfig
    """

    def __init__(
        self,
        rows: np.ndarray,
        precursor_mz: np.ndarray,
        polarity: np.ndarray,
        num_tokens: np.ndarray,
        config: ObjectivesConfig,
    ) -> None:
        self.precursor_mz, self.polarity, self.num_tokens, self.config = precursor_mz, polarity, num_tokens, config
        order = np.lexsort((precursor_mz[rows], polarity[rows]))
        self.rows = rows[order]  # of one polarity after the other, each in the order of m/z
        self._mz, self._polarity = precursor_mz[self.rows], polarity[self.rows]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of a group, each twice, view after view."""
        size = self.config.group_spectra // 2
        for _ in range(_MOST_DRAWS if len(self.rows) else 0):
            centre = int(rng.integers(0, len(self.rows)))
            start, stop = np.searchsorted(self._polarity, self._polarity[centre], "left"), np.searchsorted(
                self._polarity, self._polarity[centre], "right")  # fmt: skip
            if rng.random() < 0.5:
                mz = self._mz[start:stop]
                near = np.searchsorted(mz, [self._mz[centre] - NEAR, self._mz[centre] + NEAR])
                start, stop = start + near[0], start + near[1]
            places = rng.integers(start, stop, POOL_GROUPS * size)
            pool = self.rows[np.unique(places)]
            pool = pool[is_next_precursor(self.precursor_mz[pool], self.config.min_precursor_ppm)]
            if len(pool) > 1:
                return np.repeat(pool[similar_lengths(rng, self.num_tokens[pool], size)], 2)
        raise InputError(
            "objectives.views: there are no spectra of more than one precursor to compare; prepare more of them"
        )

    @staticmethod
    def draws(rows: np.ndarray) -> np.ndarray:
        """Return numbers that decide how each spectrum of groups is changed: others for its second view."""
        second: np.ndarray = np.arange(len(rows)) % 2
        return rows.astype(np.int64) + (second << 48)

    def batch(self, groups: Sequence[np.ndarray], spectra: EncoderBatch) -> ViewBatch:
        """Say how the views of ``groups``, collated in that order, are related."""
        rows = np.concatenate(groups)
        group = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
        same = rows[:, None] == rows
        in_group = group[:, None] == group
        other, polarity = other_precursors(self.precursor_mz[rows], self.config.min_precursor_ppm), self.polarity[rows]
        return ViewBatch(
            spectra=spectra,
            positive_NN=torch.from_numpy(in_group & same & ~np.eye(len(rows), dtype=bool)),
            negative_NN=torch.from_numpy(in_group & other & (polarity[:, None] == polarity)),
        )
