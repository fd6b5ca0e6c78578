"""Contrast of neighbouring scans: two of one precursor of a run, against others of the run.

Shape suffixes: N spectra of a micro-batch, E embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ..encoder.collator import EncoderBatch
from ..errors import InputError
from ..spectra.pairs import read_pairs
from .config import ObjectivesConfig
from .contrast import contrast_anchors, contrastive_loss
from .groups import POOL_GROUPS, GroupBatch, GroupSource, is_next_precursor, similar_lengths
from .store_runs import StoreRuns, check_unchanged

_MOST_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class NeighbourBatch(GroupBatch):
    """Spectra in pairs of one precursor.

    Attributes
    ----------
    positive_NN : bool
        The other spectrum of the pair.
    negative_NN : bool
        Spectra of the same group with another precursor, that elute at another time.
    """

    TERM: ClassVar[str] = "neighbours"
    positive_NN: torch.Tensor
    negative_NN: torch.Tensor


def pairs_of_store(store: Path, manifest: Mapping[str, Any]) -> np.ndarray:
    """Read the pairs of a store, an int64 array of shape (n, 2); raises `InputError` if it has none as it should."""
    check_unchanged(store, "pairs", manifest)
    table = read_pairs(store, ["row_a", "row_b"])
    return np.stack([table["row_a"].to_numpy(), table["row_b"].to_numpy()], axis=1)


class Neighbours(GroupSource):
    """Draws groups of pairs of one run, each pair of another precursor.

    Parameters
    ----------
    runs : StoreRuns
    pairs : int64 array of shape (n, 2)
        Rows of the store, in the order of its runs; see `pairs_of_store`.
    config : ObjectivesConfig
    held_out : bool
        Draw from the runs for validation, else from the others.
    """

    def __init__(self, runs: StoreRuns, pairs: np.ndarray, config: ObjectivesConfig, *, held_out: bool) -> None:
        self.runs, self.config = runs, config
        a, b = pairs[:, 0], pairs[:, 1]
        run = np.searchsorted(runs.first_row, a, "right") - 1
        keep = (runs.held_out[run] == held_out) & runs.allowed[a] & runs.allowed[b]
        keep &= _several_precursors(run, runs.precursor_mz[a], config.min_precursor_ppm)
        dtype = np.uint32 if len(runs.allowed) < 2**32 else np.int64  # there may be several pairs for each spectrum
        self.pairs = pairs[keep].astype(dtype)
        count = np.bincount(run[keep], minlength=len(runs.held_out))
        self.ends = np.cumsum(count)
        self.starts = self.ends - count

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of a group, pair after pair."""
        size = self.config.group_spectra // 2
        for _ in range(_MOST_DRAWS if len(self.pairs) else 0):
            run = np.searchsorted(self.ends, rng.integers(0, len(self.pairs)), "right")
            start, stop = self.starts[run], self.ends[run]
            places = start + rng.choice(stop - start, min(stop - start, POOL_GROUPS * size), replace=False)
            pool = self.pairs[places].astype(np.int64)
            mz = self.runs.precursor_mz[pool[:, 0]]
            order = np.argsort(mz, kind="stable")
            pool = pool[order[is_next_precursor(mz[order], self.config.min_precursor_ppm)]]
            if len(pool) > 1:
                length = self.runs.num_tokens[pool].max(axis=1)
                return pool[similar_lengths(rng, length, size)].reshape(-1)
        raise InputError(
            "objectives.neighbours: the runs of the store have no pairs of more than one precursor; "
            "set objectives.neighbours to 0"
        )

    def batch(self, groups: Sequence[np.ndarray], spectra: EncoderBatch) -> NeighbourBatch:
        """Say how the spectra of ``groups``, collated in that order, are related."""
        rows = np.concatenate(groups)
        group = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
        pair = np.arange(len(rows)) // 2
        time = self.runs.retention_time[rows]
        same_pair = pair[:, None] == pair
        apart = np.abs(time[:, None] - time) > self.config.coelution_time
        return NeighbourBatch(
            spectra=spectra,
            positive_NN=torch.from_numpy(same_pair & ~np.eye(len(rows), dtype=bool)),
            negative_NN=torch.from_numpy((group[:, None] == group) & ~same_pair & apart),
        )


def _several_precursors(run: np.ndarray, mz: np.ndarray, ppm: float) -> np.ndarray:
    """Return for each pair whether its run has pairs of another precursor too; ``run`` is ascending."""
    if not len(run):
        return np.empty(0, bool)
    starts = np.flatnonzero(np.r_[True, np.diff(run) != 0])
    lowest, highest = np.minimum.reduceat(mz, starts), np.maximum.reduceat(mz, starts)
    return np.repeat(highest - lowest > highest * (ppm * 1e-6), np.diff(np.r_[starts, len(run)]))


def neighbour_count(batch: NeighbourBatch) -> float:
    """Return over how many spectra `neighbour_loss` is a sum."""
    return float(contrast_anchors(batch.positive_NN, batch.negative_NN).sum())


def neighbour_loss(embedded_NE: torch.Tensor, batch: NeighbourBatch, temperature: float) -> torch.Tensor:
    """Return the contrast of unit vectors, summed over spectra; see `contrastive_loss`."""
    return contrastive_loss(embedded_NE @ embedded_NE.T, batch.positive_NN, batch.negative_NN, temperature)
