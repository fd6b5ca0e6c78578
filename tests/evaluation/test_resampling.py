"""Groups of alike molecules: who is in one, and intervals that cover where alike molecules are right together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import ionbed
from ionbed.evaluation.judged import Comparison
from ionbed.evaluation.judgement import Judge, averages_of
from ionbed.evaluation.outcomes import PerQuery
from ionbed.evaluation.predictions import PredictionManifest, Predictions
from ionbed.evaluation.resampling import resampling_clusters, with_units
from ionbed.evaluation.statistics import BootstrapOptions, estimate, resamples_of
from ionbed.evaluation.task_files import Task

SMILES = ["CCO", "CCCO", "c1ccccc1O", "c1ccccc1N", "C1CCCCC1CC(=O)O", "CCCCCCCCCCCCCCCC(=O)O"]


def make_task(smiles: list[str], *, kind: str = "library", per_molecule: int = 2) -> Task:
    """Every molecule has queries whose two candidates are it and another."""
    number = np.arange(len(smiles))
    query = np.repeat(number, per_molecule)
    return Task(
        header={"kind": kind, "hits": [1], "hash": "", "counts": {}, "strata": []},
        query_id=pa.array([f"query {place}" for place in range(len(query))]),
        query_pool=np.arange(len(query)),
        query_molecule=query,
        candidate_id=pa.array([f"candidate {place}" for place in range(2 * len(query))]),
        candidate_pool=np.repeat(np.arange(len(query)), 2),
        candidate_molecule=np.stack([query, (query + 1) % len(smiles)], axis=1).reshape(-1),
        molecule=np.array([f"molecule {place}" for place in number], object),
        fingerprint=None,
        strata={},
        smiles=np.array(smiles, object),
    )


def answer(task: Task, right: np.ndarray) -> Predictions:
    """Scores that put the true molecule first where ``right`` says so."""
    score = np.stack([right, ~right], axis=1).reshape(-1).astype(float)
    return Predictions(PredictionManifest("tool", (), ()), task.candidate_pool, np.arange(len(score)), score, {})


def test_groups_are_of_alike_molecules(tmp_path: Path) -> None:
    assert resampling_clusters(SMILES, "molecule").tolist() == list(range(6))
    by_scaffold = resampling_clusters(SMILES, "scaffold")
    assert by_scaffold[2] == by_scaffold[3]
    assert len(set(by_scaffold.tolist())) == 5  # molecules without rings are alone
    near, far = (
        resampling_clusters(SMILES, "mces-cluster", distance=distance, cache=tmp_path, workers=1)
        for distance in (1.5, 3.0)
    )
    assert near[0] == near[1] and len(set(near.tolist())) == 5
    assert far[2] == far[3] and far[0] == far[1] and far[0] != far[2]
    assert list(tmp_path.glob("*.sqlite"))


def test_what_is_too_few_or_too_unequal_is_refused() -> None:
    task = make_task(SMILES)
    assert with_units(task, BootstrapOptions()) is task
    with pytest.raises(ionbed.InputError, match=r"6 molecules are in 5 groups.*take 'molecule'$"):
        with_units(task, BootstrapOptions(unit="scaffold"))
    unequal = [*paired_scaffolds(), *(f"c1ccccc1{'C' * length}" for length in range(1, 12))]
    with pytest.raises(
        ionbed.InputError, match=r"91 molecules are in 41 groups, the largest with 11, which count as 29\.5"
    ):
        with_units(make_task(unequal), BootstrapOptions(unit="scaffold"))
    with pytest.raises(ionbed.InputError, match="no structures"):
        with_units(replace(task, smiles=None), BootstrapOptions(unit="scaffold"))
    with pytest.raises(ValueError, match="cluster_distance"):
        BootstrapOptions(cluster_distance=0)


def paired_scaffolds() -> list[str]:
    """Forty scaffolds of two molecules each."""
    return [f"C1{'C' * length}C1{end}" for length in range(1, 41) for end in ("O", "N")]


def test_the_table_counts_molecules_and_draws_groups() -> None:
    task = with_units(make_task(paired_scaffolds()), BootstrapOptions(unit="scaffold"))
    assert task.unit is not None and len(np.unique(task.unit)) == 40
    of_scaffold = np.random.default_rng(0).permutation(40) < 20
    right = np.repeat(of_scaffold, 4)  # both molecules, in both of their queries
    judge = Judge(task, BootstrapOptions(), seed=0)
    metric = judge([answer(task, right)]).metrics["hit@1"]
    assert (metric["molecules"], metric["resampled units"], metric["queries"]) == (80, 40, 160)
    alone = Judge(replace(task, unit=None), BootstrapOptions(), seed=0)([answer(task, right)]).metrics["hit@1"]
    for average in ("micro", "macro"):
        assert metric[average]["value"] == alone[average]["value"] == 0.5
        widths = [of[average]["high"] - of[average]["low"] for of in (metric, alone)]
        assert widths[0] == pytest.approx(np.sqrt(2) * widths[1], rel=0.15)  # two molecules are right together


def test_permutation_exchanges_groups() -> None:
    """Eight scaffolds of ten molecules on which the row is always right: 2 of 2^8 exchanges are as extreme."""
    smiles = [f"C1{'C' * ring}C1{'C' * chain}O" for ring in range(1, 9) for chain in range(1, 11)]
    task = make_task(smiles, per_molecule=1)
    task = replace(task, unit=resampling_clusters(smiles, "scaffold"))
    rows = [(judge := Judge(task, BootstrapOptions(), seed=0))([answer(task, np.ones(80, bool))])]
    found = judge.compare(rows, [Comparison(0, None, ("hit@1",))])
    assert found[0]["p"] == pytest.approx(2 / 256, abs=0.003)


def test_pairs_are_resampled_by_groups_too() -> None:
    task = make_task(paired_scaffolds(), kind="pairs", per_molecule=1)
    score = np.random.default_rng(0).normal(task.candidate_molecule == np.repeat(np.arange(80), 2), 1.0)
    predictions = Predictions(PredictionManifest("tool", (), ()), task.candidate_pool, np.arange(160), score, {})
    grouped = with_units(task, BootstrapOptions(unit="scaffold"))
    found = Judge(grouped, BootstrapOptions(resamples=100), seed=0)([predictions]).metrics["ROC AUC"]
    alone = Judge(task, BootstrapOptions(resamples=100), seed=0)([predictions]).metrics["ROC AUC"]
    assert (found["molecules"], found["resampled units"]) == (80, 40)
    assert (alone["molecules"], alone["resampled units"]) == (80, 80)
    assert found["micro"]["value"] == alone["micro"]["value"]


@pytest.mark.parametrize(("by_group", "least", "most"), [(True, 0.93, 0.97), (False, 0.0, 0.88)])
def test_intervals_over_groups_cover_where_alike_molecules_are_right_together(
    by_group: bool, least: float, most: float
) -> None:
    """Sixty groups of one to seven molecules, right as often as their group is able to."""
    options = BootstrapOptions()
    group = np.repeat(np.arange(60), 1 + np.arange(60) % 7)
    molecule = np.repeat(np.arange(len(group)), 1 + np.arange(len(group)) % 3)
    drawn = resamples_of(molecule, group if by_group else None, options, seed=0)
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1200):
        ability = rng.beta(1, 1, 60)
        values = (rng.random(len(molecule)) < ability[group[molecule]]).astype(float)
        zeros = np.zeros(len(values))
        found = estimate(averages_of(PerQuery(values, zeros, values, values), drawn).micro)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert least <= covered / 1200 <= most
