"""A consensus of hits is fitted where it helps, says what to expect, and never sees the molecule it is tried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ionbed.embeddings.consensus import similarities
from ionbed.embeddings.fusion import FusedScore, sigmoid
from ionbed.evaluation import consensus_fit as module
from ionbed.evaluation.consensus_fit import OpenCandidates, best_hits, fit_consensus, pays
from ionbed.evaluation.fusion_fit import FitPairs, fit_expected, fold_scores

TERMS = ("hybrid entropy", "cosine")
FAMILIES, MEMBERS, QUERIES = 6, 8, 60


def made(seed: int, alike: bool) -> tuple[FitPairs, OpenCandidates]:
    """Queries of six families of molecules, compared with all molecules by a noisy look-up.

    The unknown is a further member of a family, whose members are alike; where not ``alike`` no fingerprint tells so.
    """
    rng = np.random.default_rng(seed)
    bits = rng.random((FAMILIES, 2048)) < 0.03
    family = np.append(np.repeat(np.arange(FAMILIES), MEMBERS), rng.integers(0, FAMILIES, QUERIES))
    own = np.stack([bits[of] ^ (rng.random(2048) < 0.01) for of in family])
    num = FAMILIES * MEMBERS
    query, candidate = (part.ravel() for part in np.indices((QUERIES, num)))
    target = similarities(np.packbits(own, axis=1))[num + query, candidate]
    look = target + rng.normal(0, 0.6, len(target))
    values = np.column_stack([look, rng.uniform(0, 1, len(target))])
    shown = own[:num] if alike else rng.permuted(own[:num], axis=1)
    group = query // 2
    energy = np.zeros((len(query), 2))
    one = np.arange(QUERIES)
    copies = FitPairs(TERMS, np.full((QUERIES, 2), 3.0), np.ones(QUERIES), one, one // 2, energy[:QUERIES])
    pairs = FitPairs(TERMS, values, target, query, group, energy)
    return pairs, OpenCandidates(candidate, np.packbits(shown, axis=1), copies)


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(module, "DEPTHS", (5, 20))


def test_where_relatives_tell_more_than_one_score_a_consensus_is_fitted() -> None:
    pairs, candidates = made(0, alike=True)
    fold, scores = fold_scores(pairs, fit_expected, 1e-3, 5, 0)
    found = fit_consensus(pairs, candidates, fold, scores)
    assert found.consensus is not None and found.consensus.depth in (5, 20)
    assert found.consensus.own > 0 and found.consensus.support > 10 * found.consensus.own
    assert len(found.target) == len(found.without) == QUERIES
    assert found.target.mean() > found.without.mean() + 0.02
    # What the score says of the first hit is what there is in the mean, of these queries and of new ones.
    for seed, within in ((0, 0.003), (1, 0.1)):
        pairs, candidates = made(seed, alike=True)
        fold = fold if seed == 0 else np.zeros(len(pairs.target), int)
        hits = best_hits(pairs, candidates, fold, scores, found.consensus.depth)
        backing = module._backing(hits, found.consensus.depth, found.consensus.temperature)
        total = found.consensus.total(hits.own, backing)
        first = total.argmax(axis=1)[:, None]
        real = np.take_along_axis(hits.target, first, axis=1)
        assert sigmoid(total.max(axis=1)).mean() == pytest.approx(real.mean(), abs=within)
        assert real.mean() > hits.target[:, 0].mean() + 0.02


def test_a_consensus_pays_where_structures_tell_something_and_only_there() -> None:
    for alike in (True, False):
        found = []
        for seed in range(3):
            pairs, candidates = made(seed, alike)
            found.append(fit_consensus(pairs, candidates, *fold_scores(pairs, fit_expected, 1e-3, 5, 0)))
        gain = np.concatenate([of.target - of.without for of in found])
        assert pays(gain, np.arange(len(gain)) // 2) == alike
        off = found[0].off()
        assert off.consensus is None and (off.target == off.without).all() and (off.without == found[0].without).all()


def test_a_gain_counts_once_for_each_molecule() -> None:
    lucky = np.append(1.0, np.zeros(59))
    assert not pays(lucky, np.arange(60))
    gain = np.tile([0.3, 0.3, 0.3, -0.1, -0.1, -0.1], 6)
    assert pays(gain, np.arange(36))
    assert pays(np.sort(gain), np.arange(36)) and not pays(np.sort(gain), np.arange(36) // 9)
    assert not pays(-gain, np.arange(36)) and not pays(np.zeros(5), np.arange(5))


def test_too_few_molecules_are_no_consensus(monkeypatch) -> None:
    monkeypatch.setattr(module, "DEPTHS", (49, 60))
    pairs, candidates = made(0, alike=True)
    found = fit_consensus(pairs, candidates, *fold_scores(pairs, fit_expected, 1e-3, 5, 0))
    assert found.consensus is None and (found.target == found.without).all()


def test_what_is_said_of_a_query_does_not_depend_on_its_own_target() -> None:
    """The best hits of one part are chosen alike, whatever that part's targets are."""
    pairs, candidates = made(0, alike=True)
    fold, scores = fold_scores(pairs, fit_expected, 1e-3, 5, 0)
    changed = replace(pairs, target=np.where(fold == 0, 1 - pairs.target, pairs.target))
    chosen = []
    for of in (pairs, changed):
        hits = best_hits(of, candidates, fold, scores, 20)
        of_query = fold.reshape(QUERIES, -1)[:, 0]
        marked = replace(hits, target=np.where(of_query[:, None] == 0, np.arange(20)[None], hits.target))
        chosen.append(module._held_out(marked, of_query, 20, 0.3)[of_query == 0])
    np.testing.assert_array_equal(*chosen)
    assert len(set(chosen[0].tolist())) > 1


def test_the_best_hits_are_those_of_the_scores_without_the_query() -> None:
    pairs, candidates = made(0, alike=True)
    fold = pairs.group % 2
    scores = [FusedScore(TERMS, (1.0, 0.0), 0.5), FusedScore(TERMS, (0.0, 2.0), 0.0)]
    hits = best_hits(pairs, candidates, fold, scores, 3)
    for query in (0, 3, 17, 59):
        rows = np.flatnonzero(pairs.query == query)
        total = pairs.values[rows, fold[rows[0]]] * (1, 2)[fold[rows[0]]] + (0.5, 0)[fold[rows[0]]]
        order = np.argsort(-total.astype(np.float32), kind="stable")[:3]
        np.testing.assert_allclose(hits.own[query], total[order])
        np.testing.assert_allclose(hits.short_of_copy[query], (3.5, 6.0)[fold[rows[0]]] - total[order])
        np.testing.assert_allclose(hits.target[query], pairs.target[rows][order])
        molecules = candidates.molecule[rows][order]
        np.testing.assert_array_equal(hits.similarity[query], similarities(candidates.fingerprint[molecules]))
    assert (hits.number == 3).all()


def test_temperature_and_depth_are_chosen_without_the_query(monkeypatch) -> None:
    """Each choice is the best there is in one part, and worth nothing elsewhere."""
    pairs, candidates = made(0, alike=True)
    fold, scores = fold_scores(pairs, fit_expected, 1e-3, 5, 0)
    options = [(depth, temperature) for depth in module.DEPTHS for temperature in module.TEMPERATURES]
    monkeypatch.setattr(module, "_held_out", lambda hits, fold, *option: 1.0 * (fold == options.index(option)))
    found = fit_consensus(pairs, candidates, fold, scores)
    assert len(options) < 5 and not found.target.any() and found.without.any()
