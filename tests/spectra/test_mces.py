"""MCES distances: those of the reference implementation; bounds that hold; near molecules are in one cluster."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import ionbed
from ionbed.spectra import mces
from ionbed.spectra.mces import candidate_pairs, capped_distance, is_nearer, mces_clusters, mces_distance

from ..conftest import SMILES

REFERENCE = [
    ("CCCCCCCCCCCCCCCCCCCCC(=O)O", "CCCCCC(O)/C=C/C=C/C/C=C/CCCC(=O)O", 8.0),
    ("O=C(O)CCCCCCCCC(=O)O", "CC(=O)Nc1cc(N)cc(C(=O)O)c1", 10.0),
    ("Nc1cc(Cl)cc(Cl)c1", "NC(C(=O)O)c1ccccc1", 9.0),
    ("COC(=O)Nc1ccccc1", "CN(C)C(=O)Nc1ccc(Cl)c(Cl)c1", 7.0),
    ("OCC1OC(O)C(O)C1O", "CC(O)CCCCCC(=O)O", 9.0),
    ("COC(=O)c1ccc(C(=O)OC)cc1", "COc1ccc(C(=O)O)cc1", 6.0),
    ("CCOc1ccc(NC(N)=O)cc1", "CN(C)C(=O)Nc1ccccc1", 5.0),
    ("CCO", "CCO", 0.0),
    ("CCO", "OCC", 0.0),
    ("CC", "C=C", 1.0),
    ("C[Si](C)(C)C", "CC(C)(C)C", 8.0),
    ("[Na+].[Cl-]", "CC", 1.0),
]
"""Two molecules and their distance by myopic-mces 1.3.2 with the solver CBC, without a threshold."""


@pytest.mark.parametrize(("a", "b", "distance"), REFERENCE)
def test_distances_are_those_of_the_reference_implementation(a, b, distance):
    assert mces_distance(a, b) == mces_distance(b, a) == distance
    lower, upper = mces._assignment_bounds(mces._graph(a), mces._graph(b))
    assert lower <= distance <= upper
    assert is_nearer(a, b, distance, seconds=60) is False
    assert is_nearer(a, b, distance + 0.25, seconds=60) is True


def test_quick_bounds_leave_out_no_near_pair_and_clusters_are_the_components():
    smiles = [text for text in SMILES if len(text) < 16]
    assert len(smiles) >= 8
    exact = np.zeros((len(smiles), len(smiles)))
    for i, j in itertools.combinations(range(len(smiles)), 2):
        distance = mces_distance(smiles[i], smiles[j])
        assert distance is not None
        exact[i, j] = exact[j, i] = distance
    for limit in (2.0, 5.5, 7.0):
        first, second = candidate_pairs(smiles, limit)
        near = {(i, j) for i, j in zip(*np.nonzero(np.triu(exact < limit, 1)), strict=True)}
        assert near <= set(zip(first.tolist(), second.tolist(), strict=True))
        labels = mces_clusters(smiles, limit, workers=1, seconds=60)
        reached = exact < limit
        for _ in smiles:
            reached = (reached.astype(int) @ reached.astype(int)) > 0
        assert np.array_equal(labels[:, None] == labels[None], reached)
        assert 1 < len(set(labels.tolist())) < len(smiles)


def test_bounds_alone_make_clusters_that_are_whole_unions():
    exact, coarse = (mces_clusters(SMILES, 4.0, workers=1, seconds=s) for s in (60.0, 0.0))
    for label in set(exact.tolist()):
        assert len(set(coarse[exact == label].tolist())) == 1


def test_answers_are_kept_and_not_asked_for_again(tmp_path, monkeypatch):
    labels = mces_clusters(SMILES, 4.0, cache=tmp_path, workers=1, seconds=60)
    monkeypatch.setattr(mces, "is_nearer", None)
    assert np.array_equal(mces_clusters(SMILES, 4.0, cache=tmp_path, workers=1, seconds=60), labels)
    (tmp_path / "file").write_text("")
    with pytest.raises(ionbed.InputError, match="cannot be used as a cache"):
        mces_clusters(SMILES, 4.0, cache=tmp_path / "file", workers=1)


def test_two_processes_give_the_clusters_of_one():
    assert np.array_equal(
        mces_clusters(SMILES, 4.0, workers=2, seconds=60), mces_clusters(SMILES, 4.0, workers=1, seconds=60)
    )


def test_a_pair_that_takes_too_long_is_not_decided_and_counts_as_near():
    a, b = "CC(C)CC(NC(=O)C(N)CC(C)C)C(=O)NC(C)C(=O)O", "CC(C)CC(NC(=O)C(C)NC(=O)C(N)CO)C(=O)NCCC"
    assert is_nearer(a, b, 12.0, seconds=1e-6) is None
    assert len(set(mces_clusters([a, b], 12.0, workers=1, seconds=1e-6).tolist())) == 1


def test_what_is_no_molecule_is_told():
    with pytest.raises(ValueError, match="cannot read"):
        mces_distance("C1CC", "CC")


@pytest.mark.parametrize(("a", "b", "distance"), REFERENCE)
def test_a_distance_is_exact_up_to_the_limit(a, b, distance):
    for limit in (1.0, 5.0, 7.5, 15.0):
        assert capped_distance(a, b, limit, seconds=60) == (min(distance, limit), True)


def test_a_distance_that_takes_too_long_is_not_exact_and_never_too_small():
    a, b = "CC(C)CC(NC(=O)C(N)CC(C)C)C(=O)NC(C)C(=O)O", "CC(C)CC(NC(=O)C(C)NC(=O)C(N)CO)C(=O)NCCC"
    exact = mces_distance(a, b)
    assert exact is not None
    for seconds in (0.0, 1e-6):
        found, is_exact = capped_distance(a, b, 30.0, seconds=seconds)
        assert not is_exact and exact <= found <= 30.0
    assert capped_distance(a, b, exact - 1.0, seconds=60) == (exact - 1.0, True)


def test_lower_bounds_are_distances_that_there_are():
    for a, b in itertools.pairwise(SMILES):
        lower, upper = mces._assignment_bounds(mces._graph(a), mces._graph(b))
        assert lower * 2 == int(lower * 2) and lower <= upper
