"""The consensus of the hits: whose molecules are one, what their fingerprints are, and who comes first under it."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest

from ionbed.embeddings import consensus as module
from ionbed.embeddings.consensus import (
    Consensus,
    agreed,
    backed,
    best_of_molecules,
    library_structures,
    packed_fingerprint,
    similarities,
    supported,
)
from ionbed.evaluation.structure_cache import structures_of
from ionbed.spectra.molecules import morgan_fingerprints, standardise

SMILES = (
    "CCO",
    "C[C@H](N)C(=O)O",
    "C/C=C/C(=O)O",
    "[2H]C([2H])([2H])CO",
    "[13CH3]CO",
    "CC(=O)[O-].[Na+]",
    "C[N+](C)(C)CC(=O)[O-]",
    "C[N+](C)(C)CC(=O)O",
    "O=[N+]([O-])c1ccccc1",
    "Cl.CN(C)C(=N)NC(N)=N",
    "c1ccc(-c2ccccc2)cc1",
    "CC(=O)[O-]",
)
"""Stereochemistry, isotopes, salts, charges of protons and others."""

PLAIN = Consensus(temperature=0.3, depth=3, own=0.5, support=4.0, intercept=-2.0)


def column(values: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([values[:2], values[2:]], pa.string())


def made(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of two queries, of nine molecules and none, and the fingerprints of the molecules."""
    rng = np.random.default_rng(seed)
    fingerprint = np.packbits(rng.random((9, 2048)) < rng.uniform(0.01, 0.06, (9, 1)), axis=1)
    fingerprint[1:4] = fingerprint[0]
    fingerprint[2, :40] = rng.integers(0, 256, 40)
    query = np.sort(rng.integers(0, 2, count))
    return query, rng.normal(-1.5, 0.5, count), rng.integers(-1, 9, count), fingerprint


def test_the_fingerprints_of_an_index_are_those_of_an_evaluation() -> None:
    read = [standardise(smiles) for smiles in SMILES]
    assert all(read)
    stored = [molecule.smiles for molecule in read]
    expected = structures_of(stored, None, label="structures", workers=1)["fingerprint"].to_pylist()
    found = library_structures(column([molecule.inchikey for molecule in read]), column(stored))
    assert [row.tobytes() for row in found.fingerprints(found.molecule)] == expected
    plain = np.packbits(morgan_fingerprints(stored), axis=1)
    assert sum(row.tobytes() != of for row, of in zip(plain, expected, strict=True)) >= 4  # salts, isotopes, charges


def test_spectra_of_one_block_are_of_one_molecule(monkeypatch) -> None:
    keys = ["LFQSCWFLJHTTHZ-UHFFFAOYSA-N", "LFQSCWFLJHTTHZ-WFGJKAKNSA-N", None, None, "A" * 14 + "-BBBBBBBBBB-N", None]
    smiles = ["OCC", "CCO", "CCO", "CCN", None, "CCN"]
    found = library_structures(column(keys), column(smiles))
    assert found.molecule.dtype == np.int64
    first, second, by_smiles, amine, none, again = found.molecule
    assert first == second and amine == again and none == -1
    assert len({first, by_smiles, amine}) == 3 and min(first, by_smiles, amine) == 0
    asked = []
    plain = packed_fingerprint
    monkeypatch.setattr(module, "packed_fingerprint", lambda smiles: asked.append(smiles) or plain(smiles))
    for _ in range(2):
        np.testing.assert_array_equal(found.fingerprints(np.array([first, amine, first]))[1], plain("CCN"))
    assert asked == ["CCO", "CCN"]  # once each, and the first of the block in alphabetical order


def test_what_cannot_be_read_is_like_itself_alone() -> None:
    fingerprint = np.stack([packed_fingerprint(smiles) for smiles in ("CCO", "not a molecule", "", "CCO", "xyz")])
    assert not fingerprint[1].any() and not fingerprint[2].any()
    expected = np.eye(5, dtype=np.float32)
    expected[0, 3] = expected[3, 0] = 1
    np.testing.assert_array_equal(similarities(fingerprint), expected)


def test_a_library_without_structures_has_none() -> None:
    found = library_structures(column([None] * 3), column([None] * 3))
    assert found.molecule.tolist() == [-1, -1, -1]


def test_the_best_spectrum_stands_for_its_molecule() -> None:
    total = np.array([0.1, 0.9, 0.8, 0.7, 2.0, 0.9])
    assert best_of_molecules(total, np.array([5, 5, 3, 4, -1, 3]), 2).tolist() == [1, 5]
    assert best_of_molecules(total, np.array([5, 5, 3, 4, -1, 3]), 9).tolist() == [1, 5, 3]
    total[5] += 1e-12
    assert best_of_molecules(total, np.array([5, 5, 3, 4, -1, 3]), 1).tolist() == [1]


def test_support_is_the_mean_similarity_to_the_hits() -> None:
    similarity = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 1.0]])
    weight = np.array([4.0, 2.0, 1.0]) / 7
    total = 0.3 * np.log(weight)
    np.testing.assert_allclose(supported(total, similarity, 0.3), similarity @ weight)
    both = supported(np.stack([total, total + 5]), np.stack([similarity, similarity]), 0.3)
    np.testing.assert_allclose(both, [similarity @ weight] * 2)
    np.testing.assert_allclose(supported(total, similarity, 1e6), similarity.mean(axis=0), atol=1e-5)


def by_hand(query, total, copy_total, molecule, fingerprint, consensus: Consensus) -> np.ndarray:
    """The same, one candidate at a time."""
    result = total.copy()
    for one in np.unique(query):
        rows = np.flatnonzero(query == one)
        best: dict[int, int] = {}
        for row in sorted(rows, key=lambda row: -total[row]):
            if molecule[row] >= 0 and len(best) < consensus.depth:
                best.setdefault(int(molecule[row]), int(row))
        if len(best) < consensus.depth:
            continue
        bits = {of: np.unpackbits(fingerprint[of]).astype(bool) for of in best}
        weight = {of: np.exp(total[row] / consensus.temperature) for of, row in best.items()}
        support = {
            a: sum(weight[b] * (bits[a] & bits[b]).sum() / (bits[a] | bits[b]).sum() for b in best)
            / sum(weight.values())
            for a in best
        }
        judged = {}
        for row in rows:
            if int(molecule[row]) in best:
                kept = np.exp(-(copy_total[one] - total[row]) / 0.1)
                backing = kept + (1 - kept) * support[int(molecule[row])]
                judged[row] = consensus.own * total[row] + consensus.support * backing + consensus.intercept
        last = min(total[row] for row in best.values())
        lowest = min(judged[row] for row in best.values())
        for row in rows:
            if row in judged:
                result[row] = judged[row]
            elif molecule[row] >= 0 or total[row] < last:
                result[row] = min(total[row], lowest - (last - total[row]))
            else:
                short = copy_total[one] - total[row]
                of_copy = consensus.own * copy_total[one] + consensus.support + consensus.intercept
                kept = np.exp(-short / 0.1)
                result[row] = kept * of_copy + (1 - kept) * min(total[row], of_copy - short)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_worked_out_by_hand(seed: int) -> None:
    query, total, molecule, fingerprint = made(seed)
    copy_total = np.array([total.max() + 0.05, total.max() + 1.0])
    found = agreed(PLAIN, query, total, copy_total, molecule, lambda of: fingerprint[of])
    np.testing.assert_allclose(found, by_hand(query, total, copy_total, molecule, fingerprint, PLAIN), rtol=1e-6)
    for one in (0, 1):  # a query's scores do not depend on those beside it
        rows = query == one
        alone = agreed(PLAIN, query[rows], total[rows], copy_total, molecule[rows], lambda of: fingerprint[of])
        np.testing.assert_array_equal(alone, found[rows])
    assert (molecule == -1).any() and (found != total).any()


def test_of_candidates_with_like_scores_the_one_that_the_others_are_like_comes_first() -> None:
    fingerprint = np.zeros((4, 256), np.uint8)
    fingerprint[0, :10], fingerprint[1, 100:110], fingerprint[2, 100:112], fingerprint[3, 98:110] = 255, 255, 255, 255
    total = np.array([-1.0, -1.05, -1.1, -1.1])
    consensus = replace(PLAIN, depth=4)
    found = agreed(consensus, np.zeros(4, int), total, np.zeros(1), np.arange(4), lambda of: fingerprint[of])
    assert found.argmax() == 1 and found[0] == found.min()
    off = replace(consensus, support=0.0)
    found = agreed(off, np.zeros(4, int), total, np.zeros(1), np.arange(4), lambda of: fingerprint[of])
    assert found.argmax() == 0


def test_with_too_few_molecules_every_candidate_keeps_its_own_score() -> None:
    query, total, molecule, fingerprint = made(0)
    found = agreed(replace(PLAIN, depth=10), query, total, total[:2] + 9, molecule, lambda of: fingerprint[of])
    np.testing.assert_array_equal(found, total)


@pytest.mark.parametrize("above", [0.0, 1e-12])
def test_a_molecule_that_ties_with_the_last_of_the_best_stays_behind_them(above: float) -> None:
    """Of isomers with spectra alike the depth takes some; the score of the others is on another scale than theirs."""
    fingerprint = np.zeros((6, 256), np.uint8)
    fingerprint[[0, 1, 2]] = np.eye(3, 256, dtype=np.uint8) * 255
    fingerprint[[3, 4, 5]] = fingerprint[2]
    total = np.array([-1.0, -1.1, -1.2, -1.2 + above, -1.2, -1.2])
    molecule = np.array([0, 1, 2, 3, 4, -1])
    found = agreed(PLAIN, np.zeros(6, int), total, np.zeros(1), molecule, lambda of: fingerprint[of])
    assert found[1:3].max() < total[2], "judged scores are lower here than own ones"
    np.testing.assert_allclose(found[3:5], found[:3].min(), rtol=1e-9)
    assert found[5] == pytest.approx(total[5], abs=1e-4)  # without a structure it keeps its own


def test_no_weights_rank_anything_before_a_copy() -> None:
    """Not even where all other hits are alike and the copy is like none of them."""
    rng, answered = np.random.default_rng(0), set()
    for _ in range(300):
        count = int(rng.integers(3, 12))
        fingerprint = np.zeros((count, 256), np.uint8)
        fingerprint[1:, :32], fingerprint[0, 100:130] = 255, 255
        consensus = Consensus(
            temperature=float(rng.choice([0.01, 0.3, 100])), depth=int(rng.integers(2, count)),
            own=float(rng.choice([1e-6, 0.1, 3])), support=float(rng.choice([0, 1, 50])), intercept=-3.0,
        )  # fmt: skip
        copy_total = rng.normal(size=1)
        total = copy_total - np.append(0.0, rng.exponential(rng.choice([0.01, 0.1, 1.0]), count - 1) + 1e-3)
        molecule = np.where(rng.random(count) < 0.8, np.arange(count), -1)
        found = agreed(consensus, np.zeros(count, int), total, copy_total, molecule, lambda of, f=fingerprint: f[of])
        assert found[0] > found[1:].max(), consensus
        if np.count_nonzero(molecule >= 0) >= consensus.depth:
            answered.add((molecule[0] >= 0, consensus.own < 1))
    assert len(answered) == 4  # copies with a structure and without, and weights of either kind
    support, short = rng.uniform(0, 1, 1000), rng.exponential(0.2, 1000)
    assert (backed(support, np.zeros(1000)) == 1).all()
    assert ((backed(support, short) <= 1) & (backed(support, short) >= support - 1e-12)).all()
    assert (backed(support, short + 0.1) <= backed(support, short)).all()  # never against a better score of its own


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperature": 0.0}, "must be above 0"),
        ({"depth": 1}, "at least 2"),
        ({"own": 0.0}, "must be above 0"),
        ({"support": -1.0}, "at least 0"),
        ({"intercept": float("nan")}, "not finite"),
    ],
)
def test_a_consensus_that_is_none_is_refused(changes, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(PLAIN, **changes)
    assert Consensus(**asdict(PLAIN)) == PLAIN
