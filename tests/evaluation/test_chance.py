"""The test against chance: a tool that draws at random is seldom told from chance, however rarely chance is right."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from ionbed.evaluation.chance import chance_deviations, chance_p, drawn_hits, drawn_reciprocal_ranks
from ionbed.evaluation.judged import Comparison, Judged
from ionbed.evaluation.judgement import Judge
from ionbed.evaluation.outcomes import PerQuery
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.trust import trust_tree

from .test_truths import made_task


@pytest.mark.parametrize("num_hits", [0, 1, 4, 9])
def test_the_p_value_of_hits_is_that_of_the_binomial(num_hits: int) -> None:
    chance = np.full(200, 0.02)
    values = np.arange(200) < num_hits
    exact = min(1.0, 2 * min(binom.cdf(num_hits, 200, 0.02), binom.sf(num_hits - 1, 200, 0.02)))
    found = chance_p(values, chance, chance_deviations(drawn_hits(chance), chance, np.arange(200)))
    assert found == pytest.approx(exact, abs=0.02)


def test_queries_of_one_molecule_are_guessed_together() -> None:
    """Ten molecules of twenty queries: no hit at all is what guessing gives in 0.9^10 of the cases."""
    chance, unit = np.full(200, 0.1), np.repeat(np.arange(10), 20)
    assert chance_p(np.zeros(200), chance, chance_deviations(drawn_hits(chance), chance, unit)) > 0.3
    assert chance_p(np.zeros(200), chance, chance_deviations(drawn_hits(chance), chance, np.arange(200))) < 0.001


def test_reciprocal_ranks_are_drawn_with_their_expectation() -> None:
    size, answerable = np.array([1, 2, 5, 256]), np.array([True, True, True, False])
    draw = drawn_reciprocal_ranks(size, answerable)
    values = draw(np.repeat((np.arange(100_000)[:, None] + 0.5) / 100_000, 4, axis=1))
    expected = [1.0, 0.75, np.mean(1 / np.arange(1, 6)), 0.0]
    np.testing.assert_allclose(values.mean(axis=0), expected, atol=1e-4)


def test_guessing_is_seldom_called_better_or_worse_than_chance() -> None:
    """Pools of fifty and a hundred molecules: in a third of the trials there is no hit@1 at all."""
    task = made_task(100, 50)
    judge = Judge(task, BootstrapOptions(resamples=100), seed=0)
    rng = np.random.default_rng(0)
    called = {"hit@1": 0, "MRR": 0}
    trials = 100
    for _ in range(trials):
        of_molecules = rng.random((100, 50))  # spectra of one molecule are scored alike
        scores = of_molecules[task.query_molecule].reshape(-1)
        manifest = PredictionManifest("guesses", (), ())
        judged = judge([Predictions(manifest, task.candidate_pool, np.arange(scores.size), scores, {})])
        for metric in called:
            called[metric] += judge.compare([judged], [Comparison(0, None, (metric,))])[0]["verdict"] != "unresolved"
    assert max(called.values()) <= 0.08 * trials, called


def test_no_range_is_below_chance_for_want_of_a_hit() -> None:
    """Chance is right once in 200 queries: a bin without a hit says nothing."""
    size = 600
    chance, molecule = np.full(size, 1 / 200), np.repeat(np.arange(150), 4)
    own = Judged(
        "guesses", {}, {}, {}, {"hit@1": PerQuery(np.zeros(size), chance, chance, chance)}, {"hit@1": np.arange(size)},
        pa.table({}), None, None,
    )  # fmt: skip
    energy = np.random.default_rng(0).uniform(10, 60, size)
    tree = trust_tree("hit@1", own, None, {"collision_energy": energy}, molecule, BootstrapOptions(), seed=0)
    bins = tree["by"]["collision_energy"]["bins"]
    assert len(bins) > 3
    assert {one["above"]["random"]["verdict"] for one in bins} == {"unresolved"}
