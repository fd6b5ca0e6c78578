"""What makes searches of large libraries fast must not change what they find."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.evaluation.metrics import comparable
from ionbed.evaluation.outcomes import tanimoto_pairs
from ionbed.evaluation.question import _first_with
from ionbed.evaluation.ranking import best_hits, score_molecules
from ionbed.evaluation.statistics import pair_weights


def test_the_best_spectrum_of_each_kept_molecule_is_the_first_that_has_its_score() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (20, 60)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = np.nan
    starts = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 60), 14, replace=False))])
    best = comparable(np.fmax.reduceat(scores, starts, axis=1))
    rows, columns = np.nonzero(~np.isneginf(best))
    found = _first_with(best[rows, columns], scores, rows, columns, starts)
    for row, column, place in zip(rows, columns, found, strict=True):
        molecule = comparable(scores[row, starts[column] : np.append(starts, 60)[column + 1]])
        assert place == starts[column] + np.argmax(molecule)
        assert scores[row, place] == best[row, column]
    assert (found > starts[columns]).any() and (found == starts[columns]).any()


def test_molecules_that_come_in_order_are_scored_as_in_any_other_order() -> None:
    rng = np.random.default_rng(1)
    both = np.unique(rng.integers(0, 30, (2, 200)), axis=1)
    scores = rng.integers(0, 5, both.shape[1]).astype(np.float64)
    plain = score_molecules(*both, scores)
    order = rng.permutation(len(scores))
    shuffled = score_molecules(*both[:, order], scores[order])
    for name in ("query", "molecule", "score"):
        assert np.array_equal(getattr(plain, name), getattr(shuffled, name))
    assert np.array_equal(plain.best, order[shuffled.best])
    twice = score_molecules(np.array([0, 0, 0]), np.array([1, 1, 2]), np.array([1.0, 3.0, 2.0]))
    assert twice.score.tolist() == [3.0, 2.0]


def test_best_hits_are_those_of_every_query_by_itself() -> None:
    rng = np.random.default_rng(4)
    both = np.unique(rng.integers(0, 40, (2, 300)), axis=1)
    both = both[:, both[0] % 7 != 0]  # queries without a candidate, the first and the last among them
    scores = rng.integers(0, 4, both.shape[1]).astype(np.float64)
    scores[rng.random(len(scores)) < 0.4] = -np.inf
    found = best_hits(score_molecules(*both, scores), 43)
    entries = np.split(found.entries, np.cumsum(found.num_tied)[:-1])
    for query in range(43):
        places = np.flatnonzero((both[0] == query) & ~np.isneginf(scores))
        ranked = [*sorted(scores[places], reverse=True), -np.inf, -np.inf]
        assert (found.score[query], found.second[query]) == tuple(ranked[:2])
        assert entries[query].tolist() == [place for place in places if scores[place] == ranked[0]]
    assert {0, 1, 2} <= set(found.num_tied.tolist())


@pytest.mark.parametrize("num_bytes", [3, 8, 256])
def test_tanimoto_counts_bits_whatever_the_width(num_bytes: int) -> None:
    rng = np.random.default_rng(2)
    packed = rng.integers(0, 256, (12, num_bytes), np.uint8) & rng.integers(0, 256, (12, num_bytes), np.uint8)
    packed[3] = 0
    first, second = rng.integers(0, 12, (2, 100))
    bits = np.unpackbits(packed, axis=1).astype(bool)
    shared = (bits[first] & bits[second]).sum(axis=1)
    united = (bits[first] | bits[second]).sum(axis=1)
    expected = np.where(united > 0, shared / np.maximum(united, 1), 0.0)
    assert tanimoto_pairs(packed, first, second) == pytest.approx(expected)
    assert tanimoto_pairs(packed[::2], first % 6, second % 6) == pytest.approx(
        tanimoto_pairs(packed, 2 * (first % 6), 2 * (second % 6))
    )


def test_groups_weigh_pairs_as_molecules_that_are_alone_do() -> None:
    weights = np.random.default_rng(3).integers(0, 4, (5, 4)).astype(np.float32)
    group = np.array([0, 1, 1, 3, 2])
    within = list(pair_weights(group, group, weights))
    # One more pair, of two groups, takes the general way.
    general = list(pair_weights(np.append(group, 0), np.append(group, 1), weights))
    assert all(np.array_equal(a, b[:-1]) for a, b in zip(within, general, strict=True))
    assert all(b[-1] == row[0] * row[1] for b, row in zip(general, weights, strict=True))
