"""What drawing at random could have got: a test against chance for outcomes that are rarely right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_CELLS_AT_ONCE = 2**21
_ROUNDING = 1e-9

Draw = Callable[[np.ndarray], np.ndarray]
"""From uniform numbers in [0, 1) of shape (n_draws, n_queries) to what a random order of each pool then gives."""


def drawn_hits(chance: np.ndarray) -> Draw:
    """Return the draw of hit@k, right with the chance of each query (array of shape (n_queries,))."""
    return lambda uniform: (uniform < chance).astype(np.float64)


def drawn_reciprocal_ranks(num_candidates: np.ndarray, answerable: np.ndarray) -> Draw:
    """Return the draw of 1 / rank, the rank uniform among each query's candidates; 0 where none is right.

    Both arrays have shape (n_queries,).
    """
    size = np.maximum(num_candidates, 1)
    return lambda uniform: np.where(answerable, 1.0 / (np.floor(uniform * size) + 1.0), 0.0)


def chance_deviations(
    draw: Draw, chance: np.ndarray, unit: np.ndarray, *, draws: int = 19_999, seed: int = 0
) -> np.ndarray:
    """Return by how much sums of outcomes drawn at random exceed their expectation, ascending, float64 (draws,).

    All queries of a unit share one uniform number: a tool that guesses guesses alike for spectra that are alike. No
    other way to depend on each other lets the sum vary more.

    Parameters
    ----------
    draw : Draw
    chance : float64 array of shape (n_queries,)
        What ``draw`` gives in expectation.
    unit : int64 array of shape (n_queries,)
        Molecule, or group of molecules, from 0.
    """
    rng = np.random.default_rng(seed)
    num_units, expected = int(unit.max(initial=-1)) + 1, float(chance.sum())
    sums = np.empty(draws)
    at_once = max(1, _CELLS_AT_ONCE // max(len(unit), 1))
    for begin in range(0, draws, at_once):
        uniform = rng.random((min(at_once, draws - begin), num_units))
        sums[begin : begin + at_once] = draw(uniform[:, unit]).sum(axis=1)
    return np.sort(sums - expected)


def chance_p(values: np.ndarray, chance: np.ndarray, deviations: np.ndarray) -> float:
    """Return the two-sided p-value of outcomes if they were drawn at random; see `chance_deviations`.

    Where chance is right once in hundreds of queries, drawing at random often has no hit at all, and all differences
    from chance then have one sign: a test that changes signs takes that for a certain loss. Twice the smaller tail,
    since such sums are skewed; the smallest p-value is 2 / (draws + 1).
    """
    observed = float(values.sum()) - float(chance.sum())
    # A tolerance, or equal sums that are added in another order would count as less extreme.
    tolerance = _ROUNDING * max(len(values), 1)
    above = len(deviations) - int(np.searchsorted(deviations, observed - tolerance, "left"))
    below = int(np.searchsorted(deviations, observed + tolerance, "right"))
    return min(1.0, 2 * (1 + min(above, below)) / (1 + len(deviations)))
