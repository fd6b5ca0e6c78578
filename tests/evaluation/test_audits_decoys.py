"""Lists of candidates: planted signs of the truth are found, and lists without any pass on ten seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import kstest

from ionbed.evaluation.audits.decoys import (
    _style,
    kolmogorov_smirnov,
    place_of_truth,
    smiles_style,
    structures_alone,
)
from ionbed.evaluation.task_files import Task
from ionbed.spectra.molecules import morgan_fingerprints

PARTS = ["C", "CC", "CCC", "C(C)C", "CCN", "CCO", "c1ccccc1", "C(=O)C", "CC(=O)O", "Cc1ccncc1", "CS", "C1CCCC1"]


@lru_cache(maxsize=1)
def molecules() -> list[str]:
    """300 distinct made-up structures of a few parts each."""
    from rdkit import Chem

    rng = np.random.default_rng(0)
    found: dict[str, None] = {}
    while len(found) < 300:
        found[Chem.CanonSmiles("N(" + ")C(".join(rng.choice(PARTS, 4)) + ")")] = None
    return list(found)


@lru_cache(maxsize=2000)
def fingerprint(smiles: str) -> np.ndarray:
    return np.packbits(morgan_fingerprints([smiles]), axis=1)[0]


def retrieval(
    seed: int,
    *,
    kind: str = "retrieval",
    queries: int = 60,
    size: int = 12,
    smiles: Sequence[str] | None = None,
    place: int | None = None,
) -> Task:
    """The first ``queries`` molecules are asked about; each list draws the others from those behind them."""
    rng = np.random.default_rng(seed)
    num = 5 * queries
    texts = rng.permutation(molecules())[:num].tolist() if smiles is None else list(smiles)
    pools, candidates = [], []
    for query in range(queries):
        wrong = rng.choice(np.arange(queries, num), size - 1, replace=False)
        at = rng.integers(size) if place is None else place
        candidates.append(np.insert(wrong, at, query))
        pools.append(np.full(size, query))
    pool, candidate = np.concatenate(pools), np.concatenate(candidates)
    return Task(
        header={"kind": kind, "hits": [1], "hash": "", "counts": {}, "strata": []},
        query_id=pa.array([f"q{i}" for i in range(queries)]),
        query_pool=np.arange(queries),
        query_molecule=np.arange(queries),
        candidate_id=pa.array([f"c{i}" for i in range(len(candidate))]),
        candidate_pool=pool,
        candidate_molecule=candidate,
        molecule=np.array([f"M{i:05d}" for i in range(num)], object),
        fingerprint=np.stack([fingerprint(text) for text in texts]),
        strata={},
        smiles=np.array(texts, object),
    )


@pytest.mark.parametrize("seed", range(10))
def test_clean_lists_pass(seed):
    task = retrieval(seed)
    found = [
        place_of_truth("q", task, seed=seed),
        smiles_style("q", task, seed=seed),
        structures_alone("q", task, seed=seed),
    ]
    assert [finding.passed for finding in found] == [True] * 3, found
    assert found[1].evidence["share of wrong candidates below the truth"] == 0.5


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_true_candidate_that_always_stands_at_one_place_is_found(place):
    assert place_of_truth("q", retrieval(0, place=place)).passed is False


def test_a_true_candidate_that_stands_early_more_often_than_not_is_found():
    task = retrieval(0)
    half = retrieval(0, place=1)
    mixed = np.where(np.repeat(np.arange(60) % 2 == 0, 12), task.candidate_molecule, half.candidate_molecule)

    assert place_of_truth("q", replace(task, candidate_molecule=mixed)).passed is False


def test_places_are_not_asked_for_where_no_list_is_ranked():
    assert place_of_truth("q", retrieval(0, kind="pairs")).passed is None
    assert place_of_truth("q", retrieval(0, kind="analogue")).passed is None
    assert place_of_truth("q", retrieval(0, queries=19)).passed is None


def test_kolmogorov_smirnov_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for n in (30, 200):
        for power in (1.0, 1.2, 2.0):
            places = rng.random(n) ** power
            expected = kstest(places, "uniform")
            distance, p = kolmogorov_smirnov(places)
            assert distance == pytest.approx(expected.statistic)
            assert p == pytest.approx(expected.pvalue, abs=0.01)


def rewritten(texts: list[str], chosen: range, how: str) -> list[str]:
    from rdkit import Chem

    result = list(texts)
    for row in chosen:
        mol = Chem.MolFromSmiles(texts[row])
        if how == "kekule":
            Chem.Kekulize(mol, clearAromaticFlags=True)
            result[row] = Chem.MolToSmiles(mol, kekuleSmiles=True)
        else:
            result[row] = Chem.MolToSmiles(mol, canonical=False, rootedAtAtom=mol.GetNumAtoms() - 1)
    return result


@pytest.mark.parametrize("how", ["kekule", "another order"])
def test_truths_that_are_written_in_another_style_are_found_and_structures_do_not_matter(how):
    texts = molecules()
    task = retrieval(0, smiles=rewritten(texts, range(60), how))
    assert smiles_style("q", task).passed is False
    assert smiles_style("q", retrieval(0, smiles=rewritten(texts, range(300), how))).passed is True
    if how == "another order":
        assert any(_style(text).any() for text in rewritten(texts, range(60), how))
        assert not any(_style(text).any() for text in texts)


def test_truths_that_have_what_others_lack_are_found():
    from rdkit import Chem

    texts = molecules()
    odd = [Chem.CanonSmiles("F" + text) if row < 60 and text[0] == "C" else text for row, text in enumerate(texts)]
    assert sum(text not in texts for text in odd) > 20
    task = retrieval(0, smiles=odd)
    found = structures_alone("q", task)
    assert found.passed is False, found
    assert smiles_style("q", task).passed is True
    assert "best blind" in found.sentence


def test_decoys_that_are_known_from_other_lists_do_not_make_a_clean_task_fail():
    """All lists share few wrong candidates: whoever learns them by heart would find the truth by elimination."""
    for seed in range(5):
        task = retrieval(seed, queries=60, size=12)
        few = 60 + task.candidate_molecule % 30

        shared = np.where(task.candidate_molecule < 60, task.candidate_molecule, few)
        assert structures_alone("q", replace(task, candidate_molecule=shared), seed=seed).passed is not False


def test_lists_of_truths_alone_cannot_be_audited():

    task = retrieval(0, queries=60)
    alike = replace(task, candidate_molecule=task.candidate_molecule % 60)
    assert structures_alone("q", alike).passed is None
    assert smiles_style("q", replace(task, smiles=None)).passed is None


@pytest.mark.parametrize("seed", range(10))
def test_many_spectra_of_few_molecules_are_no_proof_of_an_order(seed):
    task = retrieval(seed, queries=25)
    often = np.repeat(np.arange(25), 20)
    names = pa.array([f"q{number}" for number in range(len(often))])
    many = replace(task, query_id=names, query_pool=task.query_pool[often], query_molecule=task.query_molecule[often])
    found = place_of_truth("q", many, seed=seed)
    assert found.passed is True
    assert found.evidence["molecules"] == 25
