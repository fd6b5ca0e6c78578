"""Retention order: which of two spectra of a run elutes first, predicted from the embedding of each.

Shape suffixes: N spectra of a micro-batch, E embedding dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..encoder.collator import EncoderBatch
from ..errors import InputError
from ..spectra.pairs import retention_order_pairs
from .config import ObjectivesConfig
from .groups import POOL_GROUPS, GroupBatch, GroupSource, other_precursors, similar_lengths
from .store_runs import StoreRuns

PLACE_SCALE = 10.0
"""Places are so many times what the head puts out: the vectors of an untrained encoder hardly differ, and without it
their order is learned slowly."""

_MOST_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class OrderBatch(GroupBatch):
    """Spectra of runs.

    Attributes
    ----------
    before_NN : bool
        The first spectrum elutes before the second, in the same run and by enough to say so.
    """

    before_NN: torch.Tensor


class RetentionOrder(GroupSource):
    """Draws groups of spectra of one run, to be put into the order of their elution.

    Parameters
    ----------
    runs : StoreRuns
    config : ObjectivesConfig
    held_out : bool
        Draw from the runs for validation, else from the others.
    """

    def __init__(self, runs: StoreRuns, config: ObjectivesConfig, *, held_out: bool) -> None:
        self.runs, self.config = runs, config
        span = runs.table["retention_time_max"].to_numpy() - runs.table["retention_time_min"].to_numpy()
        before = np.concatenate([[0], np.cumsum(runs.allowed)])
        num_allowed = before[runs.first_row + runs.num_rows] - before[runs.first_row]
        usable = (runs.held_out == held_out) & (span >= config.min_time_difference) & (num_allowed > 1)
        self.places = np.flatnonzero(usable)
        self.ends = np.cumsum(runs.num_rows[usable])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of a group."""
        size, runs = self.config.group_spectra, self.runs
        for _ in range(_MOST_DRAWS if len(self.places) else 0):
            place = self.places[np.searchsorted(self.ends, rng.integers(0, self.ends[-1]), "right")]
            try:
                pairs = retention_order_pairs(
                    rng,
                    runs.table.slice(place, 1),
                    runs.retention_time,
                    runs.precursor_mz,
                    POOL_GROUPS * size // 2,
                    min_difference=self.config.min_time_difference,
                    min_precursor_ppm=self.config.min_precursor_ppm,
                )
            except ValueError:  # this run has none
                continue
            pool = np.unique(pairs[runs.allowed[pairs].all(axis=1)])
            if len(pool) > 1:
                rows = pool[similar_lengths(rng, runs.num_tokens[pool], size)]
                if self._before(rows).any():
                    return rows
        raise InputError(
            f"objectives.retention_order: the runs of the store have no spectra {self.config.min_time_difference:g} s "
            "apart; lower objectives.min_time_difference"
        )

    def batch(self, groups: Sequence[np.ndarray], spectra: EncoderBatch) -> OrderBatch:
        """Say how the spectra of ``groups``, collated in that order, are related."""
        before = np.zeros((len(spectra), len(spectra)), bool)
        start = 0
        for rows in groups:
            stop = start + len(rows)
            before[start:stop, start:stop] = self._before(rows)
            start = stop
        return OrderBatch(spectra=spectra, before_NN=torch.from_numpy(before))

    def _before(self, rows: np.ndarray) -> np.ndarray:
        """Return which spectra of a run elute before which; none of the same precursor, whose order says nothing."""
        time = self.runs.retention_time[rows].astype(np.float64)
        other = other_precursors(self.runs.precursor_mz[rows], self.config.min_precursor_ppm)
        result: np.ndarray = other & (time[None, :] - time[:, None] >= self.config.min_time_difference)
        return result


class RetentionOrderHead(nn.Module):
    """From an embedding to a place in the order of elution, on a scale of its own.

    The probability that one spectrum elutes before another is the logistic function of the difference of their places
    (Bradley and Terry 1952; as a loss, RankNet, Burges et al. 2005): consistent for both orders of a pair, and for
    three spectra.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, 1))

    def forward(self, embedded_NE: torch.Tensor) -> torch.Tensor:
        """Return the places, (N,), of unit vectors."""
        # A unit vector has elements of about size ** -0.5; layers are made for elements of about 1.
        places: torch.Tensor = self.layers(embedded_NE * self.size**0.5).float().squeeze(-1)
        return PLACE_SCALE * places


def order_count(batch: OrderBatch) -> float:
    """Return over how many pairs `order_loss` is a sum."""
    return float(batch.before_NN.sum())


def order_loss(place_N: torch.Tensor, batch: OrderBatch) -> torch.Tensor:
    """Return the cross-entropy in nats of which spectrum elutes first, summed over pairs; log 2 is chance."""
    later_by_NN = place_N[None, :] - place_N[:, None]
    return F.softplus(-later_by_NN[batch.before_NN]).sum()
