"""Retrieval: who may ask, which structures are candidates, and that nothing but the spectrum tells the true one."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ionbed.errors import InputError
from ionbed.evaluation import retrieval
from ionbed.evaluation.candidate_lists import read_candidate_lists
from ionbed.evaluation.candidates import candidate_molecules
from ionbed.evaluation.make_task import make_task
from ionbed.evaluation.predictions import PredictionManifest, write_predictions
from ionbed.evaluation.retrieval import RetrievalOptions, neutral_masses, plain_formula, retrieval_comparisons
from ionbed.evaluation.run import EvaluationConfig
from ionbed.evaluation.score import score
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.molecules import standardise

C4H10O = ["CCCCO", "CCOCC", "CC(C)CO"]
ALONE = "c1ccncc1"


def precursor_of(smiles: str, adduct: str = "[M+H]+", ppm: float = 0.0) -> float:
    molecule, ion = standardise(smiles), normalise_adduct(adduct)
    assert molecule is not None and ion is not None
    return adduct_mz(molecule.exact_mass, ion) * (1 + ppm * 1e-6)


@pytest.fixture
def make(build, make_data):
    """Makes data from (SMILES, adduct, error of the precursor in ppm) per spectrum; a molecule per SMILES, 'test'."""

    def made(*spectra: tuple[str, str | None, float]):
        numbers = {smiles: number for number, smiles in enumerate(dict.fromkeys(smiles for smiles, *_ in spectra))}
        return make_data(
            [
                replace(
                    build.spectrum(numbers[smiles], place, smiles=smiles, mz=(50.0 + place,), intensity=(1.0,)),
                    precursor_mz=precursor_of(smiles, adduct or "[M+H]+", ppm),
                    adduct=adduct,
                )
                for place, (smiles, adduct, ppm) in enumerate(spectra)
            ],
            dict.fromkeys(numbers.values(), "test"),
        )

    return made


def pools_of(found, candidates) -> list[set[str]]:
    return [set(candidates.smiles[found.candidate[found.pool == pool]]) for pool in found.pool_of_query]


def test_by_mass_the_window_is_around_what_was_measured(make):
    """Of four adducts; one precursor is 12 ppm off, so that its molecule lies outside the window of 10 ppm."""
    data = make(
        ("CCCCO", "[M+H]+", 0.0),
        ("CCOCC", "[M+Na]+", 8.0),
        ("CC(C)CO", "[2M+H]+", 0.0),
        ("CCCCO", "[M+H]+", 12.0),
        ("CCCCO", None, 0.0),
        (ALONE, "[M+H]+", 0.0),
    )
    candidates = candidate_molecules(data)
    found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(by="mass"), 0)
    assert found.queries.tolist() == [0, 1, 2]
    assert pools_of(found, candidates) == [set(C4H10O)] * 3
    assert found.counts["spectra without a known adduct, left out"] == 1
    assert found.counts["spectra whose molecule lies outside the window, left out"] == 1
    assert found.counts["spectra with one candidate only, left out"] == 1
    assert (found.counts["queries"], found.counts["molecules"], found.counts["mean candidates"]) == (3, 3, 3.0)


def test_the_window_is_as_wide_as_it_says(make):
    """[M+H]+ of C7H16 (101.1325) and of C6H12O (101.0961) are 359.8 ppm apart."""
    data = make(("CCCCCCC", "[M+H]+", 0.0), ("CC(=O)CCCC", "[M+H]+", 0.0), ("CCCCC(C)C", "[M+H]+", 0.0))
    candidates = candidate_molecules(data)
    for ppm, is_wide in ((359.0, False), (361.0, True)):
        found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(precursor_ppm=ppm), 0)
        hydrocarbons, ketone = {"CCCCCCC", "CCCCC(C)C"}, {"CCCCC(C)=O"}
        pools = dict(zip(data.smiles[data.molecule[found.queries]], pools_of(found, candidates), strict=True))
        assert pools["CCCCCCC"] == hydrocarbons | (ketone if is_wide else set())
        assert pools.get("CC(=O)CCCC", ketone) == ketone | (hydrocarbons if is_wide else set())


def test_by_formula_other_formulas_of_nearly_the_same_mass_are_no_candidates(make, tmp_path):
    data = make(("CCCCO", None, 0.0), ("CCOCC", "[M+H]+", 30.0), (ALONE, "[M+H]+", 0.0))
    (tmp_path / "pool.smi").write_text("CC(C)CO isobutanol\nCCC(=O)O acid\n")  # C3H6O2 is 490 ppm lighter
    candidates = candidate_molecules(data, [tmp_path / "pool.smi"])
    found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(by="formula"), 0)
    assert found.queries.tolist() == [0, 1], "neither adduct nor precursor matters"
    assert pools_of(found, candidates) == [set(C4H10O)] * 2


def test_every_query_has_its_own_molecule_among_its_candidates_once(make):
    data = make(*[(smiles, "[M+H]+", 0.0) for smiles in C4H10O for _ in range(7)])
    candidates = candidate_molecules(data)
    found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(max_queries_per_molecule=2), 0)
    assert len(found.queries) == 6
    for query, pool in zip(found.queries, found.pool_of_query, strict=True):
        assert np.count_nonzero(found.candidate[found.pool == pool] == data.molecule[query]) == 1


def test_the_cap_draws_with_the_seed_and_keeps_the_true_one(make, tmp_path):
    data = make(*[("CCCCO", "[M+H]+", 0.0)] * 60)
    names = [f"{smiles} x" for smiles in ("CCOCC", "CC(C)CO", "CCC(C)O", "CC(C)(C)O", "COCCC", "COC(C)C")]
    (tmp_path / "pool.smi").write_text("\n".join(names) + "\n")
    candidates = candidate_molecules(data, [tmp_path / "pool.smi"])
    options = RetrievalOptions(max_candidates=3, max_queries_per_molecule=60)
    found = retrieval_comparisons(data, candidates, "test", options, 0)
    assert np.bincount(found.pool).tolist() == [3] * 60
    assert found.counts["queries with more candidates, reduced by a draw"] == 60
    assert np.count_nonzero(found.candidate == 0) == 60, "the true one is kept"
    decoys = np.bincount(found.candidate, minlength=7)[1:]
    # Each of six decoys is drawn with a chance of 1/3 in 60 pools: 20, with a standard deviation of 3.7.
    assert decoys.sum() == 120 and decoys.min() >= 6 and decoys.max() <= 35

    again = retrieval_comparisons(data, candidates, "test", options, 0)
    assert np.array_equal(found.candidate, again.candidate)
    other = retrieval_comparisons(data, candidates, "test", options, 1)
    assert not np.array_equal(found.candidate, other.candidate)
    whole = retrieval_comparisons(data, candidates, "test", replace(options, max_candidates=None), 0)
    assert np.bincount(whole.pool).tolist() == [7] * 60


def test_the_place_in_the_pool_says_nothing(make):
    """The true one, of 3 candidates in 300 pools, is as often at each place: 100, standard deviation 8.2."""
    data = make(*[("CCCCO", "[M+H]+", 0.0)] * 300, ("CCOCC", "[M+Na]+", 0.0), ("CC(C)CO", "[M+Na]+", 0.0))
    candidates = candidate_molecules(data)
    found = retrieval_comparisons(data, candidates, "test", RetrievalOptions(max_queries_per_molecule=300), 0)
    first = np.flatnonzero(np.diff(found.pool, prepend=-1))
    true = data.molecule[found.queries]
    place = (found.candidate.reshape(-1, 3) == true[:, None]).argmax(axis=1)
    assert len(first) == 302
    assert all(60 <= count <= 140 for count in np.bincount(place, minlength=3))


def test_what_is_drawn_does_not_depend_on_how_much_is_worked_on_at_a_time(make, tmp_path, monkeypatch):
    data = make(*[(smiles, "[M+H]+", 0.0) for smiles in C4H10O for _ in range(5)])
    (tmp_path / "pool.smi").write_text("CCC(C)O x\nCC(C)(C)O x\nCOCCC x\n")
    candidates = candidate_molecules(data, [tmp_path / "pool.smi"])
    found = []
    for pairs in (4_000_000, 1, 13):
        monkeypatch.setattr(retrieval, "PAIRS_PER_CHUNK", pairs)
        found.append(retrieval_comparisons(data, candidates, "test", RetrievalOptions(max_candidates=4), 3))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].pool, other.pool)
        np.testing.assert_array_equal(found[0].candidate, other.candidate)
    assert np.bincount(found[0].pool).tolist() == [4] * 15


def write_lists(path, lists) -> None:
    path.write_text(json.dumps(lists))


def test_lists_become_pools_and_everything_left_out_is_counted(make, tmp_path):
    data = make(
        ("CCCCO", None, 0.0),
        ("CCOCC", None, 0.0),
        ("CC(C)CO", None, 0.0),
        (ALONE, None, 0.0),
        ("CCO", None, 0.0),
    )
    write_lists(
        tmp_path / "lists.json",
        {
            "C(O)CCC": ["OCCCC", "CCCC", "C((", "CC[C@H](C)O", "CC[C@@H](C)O", "N"],  # written in other ways
            "CCOCC": ["CCC", "CCOC"],  # without the true one
            ALONE: ["c1ccncc1"],  # alone
            "CCO": ["COC", "CCO"],
            "OCC": ["COC", "CCO"],  # the same molecule once more
            "CCCCCCCCCC": ["CCCCCCCCCC", "C"],  # not in the data
        },
    )
    candidates = candidate_molecules(data, lists=tmp_path / "lists.json")
    assert candidates.source_names == ("store", "lists.json")
    assert len(set(candidates.block)) == len(candidates)
    listed = candidates.smiles[candidates.source == 1]
    assert listed.tolist() == ["CCC", "CCCC", "CCOC", "CCC(C)O", "COC", "N"], "alphabetical as written, not as listed"
    options = RetrievalOptions(by="lists", lists=tmp_path / "lists.json")
    found = retrieval_comparisons(data, candidates, "test", options, 0)
    assert data.smiles[data.molecule[found.queries]].tolist() == ["CCCCO", "CCO"]
    assert pools_of(found, candidates) == [{"CCCCO", "CCCC", "CCC(C)O", "N"}, {"COC", "CCO"}]
    assert candidates.list_counts == {
        "lists": 6,
        "lists of molecules that have no spectrum in the fold": 1,
        "second lists of a molecule, left out": 1,
        "molecules of the fold without a list": 1,
        "lists without the true molecule, left out": 1,
        "lists with the true molecule in the first place": 2,
        "entries that RDKit cannot read": 1,
        "entries that are twice in a list": 1,
    }
    assert found.counts["spectra of molecules without a list, left out"] == 2
    assert found.counts["spectra with one candidate only, left out"] == 1
    assert found.counts["lists without the true molecule, left out"] == 1


def test_lists_are_taken_whole_and_those_of_one_candidate_count_where_that_is_asked_for(make, tmp_path):
    data = make(("CCCCO", None, 0.0), (ALONE, None, 0.0))
    write_lists(tmp_path / "lists.json", {"CCCCO": ["CCCCO", "CCOCC", "CC(C)CO"], ALONE: [ALONE]})
    candidates = candidate_molecules(data, lists=tmp_path / "lists.json")
    options = RetrievalOptions(by="lists", lists=tmp_path / "lists.json", max_candidates=2)
    found = retrieval_comparisons(data, candidates, "test", options, 0)
    assert pools_of(found, candidates) == [set(C4H10O)]
    assert found.counts["queries with more candidates, reduced by a draw"] == 0
    assert found.counts["spectra with one candidate only, left out"] == 1

    found = retrieval_comparisons(data, candidates, "test", replace(options, single_candidates=True), 0)
    assert pools_of(found, candidates) == [set(C4H10O), {ALONE}]
    assert found.counts["spectra with one candidate only, counted"] == 1
    assert found.counts["queries"] == 2


def test_what_only_a_list_names_is_a_candidate_of_that_list_only(make, tmp_path):
    data = make(("CCCCO", "[M+H]+", 0.0), ("CCOCC", "[M+H]+", 0.0))
    write_lists(tmp_path / "lists.json", {"CCCCO": ["CCCCO", "CC(C)CO"]})
    candidates = candidate_molecules(data, lists=tmp_path / "lists.json")
    assert candidates.is_only_listed.tolist() == [False, False, True]
    options = RetrievalOptions(lists=tmp_path / "lists.json")
    for by, expected in (("mass", [{"CCCCO", "CCOCC"}] * 2), ("formula", [{"CCCCO", "CCOCC"}] * 2),
                         ("lists", [{"CCCCO", "CC(C)CO"}])):  # fmt: skip
        found = retrieval_comparisons(data, candidates, "test", replace(options, by=by), 0)
        assert pools_of(found, candidates) == expected, by


def test_where_nothing_can_be_asked_there_are_no_queries(make):
    data = make((ALONE, "[M+H]+", 0.0), ("CCO", None, 0.0))
    for fold in ("test", "validation"):
        found = retrieval_comparisons(data, candidate_molecules(data), fold, RetrievalOptions(), 0)
        assert len(found.queries) == len(found.pool) == len(found.candidate) == 0
        assert found.counts["mean candidates"] == 0.0


def test_lists_are_asked_of_the_fold_only_and_need_their_candidates(make, tmp_path):
    data = make(("CCCCO", None, 0.0))
    write_lists(tmp_path / "lists.json", {"CCCCO": ["CCCCO", "CCOCC"]})
    other = candidate_molecules(data, lists=tmp_path / "lists.json", fold="validation")
    assert not other.lists and len(other) == 1
    with pytest.raises(ValueError, match="without lists"):
        options = RetrievalOptions(by="lists", lists=tmp_path / "lists.json")
        retrieval_comparisons(data, candidate_molecules(data), "test", options, 0)


def test_a_benchmarks_lists_become_a_task_that_any_tool_can_answer(build, tmp_path):
    """A tool that reads the folder alone and likes the shortest SMILES finds the truth of one query of two."""
    spectra = [
        replace(build.spectrum(number, 0, smiles=smiles, mz=(60.0 + number,), intensity=(1.0,)), adduct=None)
        for number, smiles in enumerate(("CCO", "CC(C)CO"))
    ]
    split = build.split_of({0: "test", 1: "test"})
    split.save(tmp_path / "split.json")
    write_lists(tmp_path / "lists.json", {"OCC": ["CCO", "CC(C)=O", "CCCO"], "CC(C)CO": ["CCC", "CC(C)CO", "CC"]})
    config = EvaluationConfig(
        dataset=build.write_store(tmp_path / "store", spectra),
        split=tmp_path / "split.json",
        retrieval=RetrievalOptions(by="lists", lists=tmp_path / "lists.json"),
    )
    header = make_task(config, "retrieval", tmp_path / "task")
    assert header["counts"]["lists with the true molecule in the first place"] == 1
    assert json.loads((tmp_path / "task" / "manifest.json").read_text())["config"]["retrieval"]["by"] == "lists"

    tables = {
        name: pq.read_table(tmp_path / "task" / f"{name}.parquet") for name in ("queries", "candidates", "molecules")
    }
    smiles_of = dict(
        zip(tables["molecules"]["molecule"].to_pylist(), tables["molecules"]["smiles"].to_pylist(), strict=True)
    )
    pool_of = {row["pool"]: row["query_id"] for row in tables["queries"].to_pylist()}
    rows = [
        {
            "query_id": pool_of[row["pool"]],
            "candidate_id": row["candidate_id"],
            "score": -float(len(smiles_of[row["molecule"]])),
        }
        for row in tables["candidates"].to_pylist()
    ]
    assert len(rows) == 6
    manifest = PredictionManifest("shortest", (), (), task=header["hash"])
    write_predictions(tmp_path / "own.parquet", pa.Table.from_pylist(rows), manifest)
    score(tmp_path / "own.parquet", tmp_path / "task", tmp_path / "out", bootstrap=BootstrapOptions(resamples=100))
    hits = pq.read_table(tmp_path / "out" / "per-query.parquet")
    assert dict(zip(hits["query_id"].to_pylist(), hits["hit@1"].to_pylist(), strict=True)) == {"0-0": 1.0, "1-0": 0.0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no lists"),
        ("{}", "holds no lists"),
        ('{"CCO": "COC"}', "no list of SMILES"),
        ('{"CCO": ["COC", 7]}', "no list of SMILES"),
        ('{"CCO": []}', "is empty"),
        ('{"CCO": ["CCO", "COC"], "CCO": ["CCO"]}', "'CCO' is there twice"),
    ],
)
def test_malformed_lists_are_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "lists.json"
    path.write_text(content)
    with pytest.raises(InputError, match=said) as refused:
        read_candidate_lists(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_lists_may_be_gzipped_and_may_not_be_missing(tmp_path):
    path = tmp_path / "lists.json.gz"
    path.write_bytes(gzip.compress(b'{"CCO": ["CCO", "COC"]}'))
    assert read_candidate_lists(path) == {"CCO": ["CCO", "COC"]}
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(InputError, match="cannot be read"):
        read_candidate_lists(path)
    with pytest.raises(InputError, match="no such file"):
        read_candidate_lists(tmp_path / "missing.json")


def test_neutral_masses_invert_the_adducts():
    adducts = np.array(["[M+H]+", "[M-2H]2-", "[3M-H]-", "[M]+", "no adduct", None], object)
    ions = [normalise_adduct(text) for text in adducts]
    mz = np.array([100.0 if ion is None else adduct_mz(123.456, ion) for ion in ions])
    masses = neutral_masses(mz, adducts)
    np.testing.assert_allclose(masses[:4], 123.456, rtol=1e-12)
    assert np.isnan(masses[4:]).all()
    assert neutral_masses(np.empty(0), np.empty(0, object)).shape == (0,)


def test_formulas_are_the_same_whatever_their_charge_and_order():
    assert (
        plain_formula("C5H14NO+") == plain_formula("[C5H14NO]+") == plain_formula("NOH14C5") != plain_formula("C5H13NO")
    )
    assert plain_formula("") == ""


@pytest.mark.parametrize(
    "wrong",
    [{"precursor_ppm": 0.0}, {"max_candidates": 1}, {"max_queries_per_molecule": 0}, {"by": "lists"}],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError, match=f"'{next(iter(wrong))}'"):
        RetrievalOptions(**wrong)
