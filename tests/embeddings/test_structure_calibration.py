"""Probabilities of structures: fitted to molecules new to the model, right as often as they say, kept for one index."""

from __future__ import annotations

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed import InputError, cli
from ionbed.embeddings import kinds, structure_calibration_fit
from ionbed.embeddings.annotation import LEVEL_3_STRUCTURE, LEVEL_5, UNLIKELY
from ionbed.embeddings.calibration import DEPTH, Calibration, Curve, best_of_molecules
from ionbed.embeddings.calibration_fit import quality
from ionbed.embeddings.hit_table import SearchSummary
from ionbed.embeddings.search_options import SearchOptions
from ionbed.embeddings.structure_calibration import (
    MOST_UNITS,
    OPEN,
    TERMS,
    UNITS,
    calibration_told,
    candidates_of,
    probabilities,
    ranked_as,
    structure_calibration,
    structure_curve,
    way_of,
)
from ionbed.embeddings.structure_calibration_fit import asked_of, calibrate_structures, found_structures
from ionbed.embeddings.structure_fusion import StructureFusion, StructureScore
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.embeddings.structure_search import find, format_hits
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.molecules import parent_molecule
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import Split
from ionbed.spectra.writers import write_mgf

from .test_structure_index import TowerModel

GROUPS = ("C", "CC", "OC", "F", "Cl", "C#N", "O", "N", "C(C)=O", "SC")
MOLECULES = [
    parent_molecule(template.format(a, b))
    for a, b in itertools.combinations(GROUPS, 2)
    for template in ("c1ccc({})c({})c1", "c1cc({})cc({})c1", "c1cc({})ccc1{}")
]
NAME = "cosine within a window"


class TaughtModel(TowerModel):
    """Sees of which of `MOLECULES` a spectrum is by its first peak, more or less clearly."""

    def __init__(self, **training) -> None:
        super().__init__(dim=24)
        self.config = types.SimpleNamespace(**training)

    def embed(self, spectra, *, progress=False):
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        first = columns.mz[columns.offsets[:-1]]
        number = np.round((first - 50) * 2).astype(int)
        vectors = self.embed_molecules([MOLECULES[n].smiles for n in number])
        noise = [
            np.random.default_rng(int(mz * 1e4)).normal(size=self.dim) for mz in columns.mz[columns.offsets[1:] - 1]
        ]
        vectors = vectors + 0.25 * np.stack(noise)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def spectrum(number: int, copy: int = 0, **fields) -> Spectrum:
    molecule = MOLECULES[number]
    mz = np.array([50 + number / 2, 118 + np.random.default_rng([number, copy]).uniform()], np.float32)
    known = {
        "precursor_mz": adduct_mz(molecule.exact_mass, normalise_adduct("[M+H]+")), "adduct": "[M+H]+", "polarity": 1,
        "charge": 1, "inchikey": molecule.inchikey, "smiles": molecule.smiles, "formula": molecule.formula,
    }  # fmt: skip
    return Spectrum(f"s{number}-{copy}", mz=mz, intensity=np.ones(2, np.float32), **{**known, **fields})


@pytest.fixture(scope="module")
def index() -> StructureIndex:
    """Of four molecules in five."""
    return StructureIndex.build(TaughtModel(), [m.smiles for n, m in enumerate(MOLECULES) if n % 5])


@pytest.fixture(scope="module")
def known() -> list[Spectrum]:
    return [spectrum(number, copy) for number in range(len(MOLECULES)) for copy in range(2)]


@pytest.fixture(scope="module")
def calibration(index, known) -> Calibration:
    return calibrate_structures(index, known, source="known.mgf")


@pytest.fixture
def saved(index, calibration, tmp_path):
    index.save(tmp_path / "index")
    opened = StructureIndex.open(tmp_path / "index", TaughtModel())
    opened.write_entry("calibration", calibration.to_tree())
    return opened


def test_probabilities_hold_on_queries_that_they_were_not_fitted_to(index, calibration):
    assert set(calibration.curves) == {NAME, "cosine by formula"}
    assert calibration.record["held"] == 0.8 and calibration.record["structures"] == 108
    curve = calibration.curves[NAME]
    best = curve.record["held_out_best"]
    assert best["brier"] < 0.7 * best["brier_of_base_rate"] and best["ece"] < 0.12
    asked = asked_of(index, [spectrum(number, 7) for number in range(len(MOLECULES))])
    found, is_right = found_structures(index, asked, "cosine", 10.0, None)
    is_best = found.rank == 0
    again = quality(curve(found.terms)[is_best], is_right[is_best], asked.weight[found.query][is_best])
    assert again["ece"] < 0.12 and again["brier"] < 0.7 * again["brier_of_base_rate"]


def test_half_of_what_is_asked_has_its_molecule_left_out(index, known):
    asked = asked_of(index, known)
    assert len(asked.molecule) == 270 + 216 and asked.is_present.sum() == 216
    assert asked.weight[asked.is_present].sum() == pytest.approx(0.5)
    assert asked.weight[~asked.is_present].sum() == pytest.approx(0.5)
    found, is_right = found_structures(index, asked, "cosine", 10.0, None)
    assert not is_right[~asked.is_present[found.query]].any()
    assert is_right[asked.is_present[found.query]].sum() == 216
    candidates = np.expm1(found.terms[:, TERMS.names.index("candidates")])
    assert candidates == pytest.approx(np.bincount(found.query)[found.query])  # without the one that is left out


def test_each_molecule_counts_for_as_much_however_many_spectra_it_has(index):
    asked = asked_of(index, [spectrum(1, 0), spectrum(1, 1), spectrum(1, 2), spectrum(2)])
    weight = dict.fromkeys(asked.molecule, 0.0)
    for key, value in zip(asked.molecule, asked.weight, strict=True):
        weight[key] += value
    assert list(weight.values()) == pytest.approx([0.5, 0.5])


def test_a_search_tells_probabilities_whatever_number_of_hits_is_asked_for(saved, known, tmp_path):
    write_mgf(known[::2], tmp_path / "queries.mgf")
    rows = list(find(saved, tmp_path / "queries.mgf", SearchOptions(k=10)))
    hits = [row for row in rows if row.rank]
    assert len(hits) > 200 and all(0 <= row.probability <= 1 for row in hits)
    for row in hits:
        assert row.confidence == (LEVEL_5 if row.probability < UNLIKELY else LEVEL_3_STRUCTURE)
    assert {row.confidence for row in hits} == {LEVEL_5, LEVEL_3_STRUCTURE}
    first = [row.probability for row in find(saved, tmp_path / "queries.mgf", SearchOptions(k=1)) if row.rank]
    assert first == [row.probability for row in hits if row.rank == 1]
    by_query: dict[str, float] = {}
    for row in hits:
        by_query[row.query_id] = by_query.get(row.query_id, 0.0) + row.probability
    assert max(by_query.values()) <= 1 + 1e-9
    assert all(
        row.probability for row in find(saved, tmp_path / "queries.mgf", SearchOptions(formula="query")) if row.rank
    )
    assert not any(row.probability for row in find(saved, tmp_path / "queries.mgf", SearchOptions(precursor_ppm=None)))
    summary = SearchSummary()
    for row in rows:
        summary.count(row)
    assert f"about {sum(first):,.0f} first hits right" in str(summary) and "2a" not in str(summary)


def test_who_has_no_probabilities_is_told_how_to_get_them(index, saved, known, tmp_path, caplog):
    from rich.console import Console

    write_mgf(known[2:3], tmp_path / "queries.mgf")
    caplog.set_level("INFO", logger="ionbed")
    assert not any(row.probability for row in find(index, tmp_path / "queries.mgf"))
    assert "the index: hits have no probability" in caplog.text and "ionbed index calibrate" in caplog.text
    caplog.clear()
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    [best, *_] = rows = list(find(saved, tmp_path / "queries.mgf"))
    console.print(format_hits(rows))
    text = console.export_text()
    assert not caplog.text and "prob." in text and f" {best.probability:.2f} " in text
    list(find(saved, tmp_path / "queries.mgf", SearchOptions(precursor_ppm=None)))
    assert OPEN in caplog.text


def test_molecules_that_the_model_was_trained_on_are_left_out(index, known, caplog):
    keys = [molecule.inchikey[:14] for molecule in MOLECULES]

    def of(num_trained):
        return Split("inchikey-block", 0, {key: "train" if n < num_trained else "test" for n, key in enumerate(keys)})

    def calibrated(split, trained_with):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                index.model.config, "training", [{"split": trained_with.hash, "folds": ["train"]}], raising=False
            )
            return calibrate_structures(index, known, source="known.mgf", split=split)

    some = calibrated(of(50), of(50))
    assert some.record["trained_on"] == "no" and some.curves[NAME].record["molecules"] == 85
    with pytest.raises(InputError, match=r"known\.mgf: holds 28 molecules .*\(besides 200 spectra of molecules"):
        calibrated(of(100), of(100))
    assert not caplog.text
    other = calibrated(of(50), of(60))
    assert other.record["trained_on"] == "not known" and other.curves[NAME].record["molecules"] == 135
    assert "is not known" in caplog.text


def test_too_few_molecules_give_no_calibration(index, known, saved, tmp_path, capsys):
    with pytest.raises(InputError, match=r"holds 24 molecules .*50 are needed"):
        calibrate_structures(index, known[:60], source="few.mgf")
    unlabelled = [dataclasses.replace(s, inchikey=None, smiles=None) for s in known]
    with pytest.raises(InputError, match="holds 0 molecules"):
        calibrate_structures(index, unlabelled)
    elsewhere = [dataclasses.replace(s, precursor_mz=900.0, formula=None) for s in known]
    with pytest.raises(InputError, match="fewer than 50 are found"):
        calibrate_structures(index, elsewhere)
    nameless = calibrate_structures(index, [dataclasses.replace(s, formula=None) for s in known])
    assert set(nameless.curves) == {NAME} and nameless.record["without"] == ["cosine by formula"]
    before = (saved.folder / "manifest.json").read_bytes()
    assert cli.main(["index", "calibrate", str(saved.folder)]) == 2
    assert "name a file of spectra" in capsys.readouterr().err
    write_mgf(known[:60], tmp_path / "few.mgf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StructureIndex, "open", lambda folder: saved)
        assert cli.main(["index", "calibrate", str(saved.folder), str(tmp_path / "few.mgf")]) == 2
    assert "few.mgf: holds 24 molecules" in capsys.readouterr().err
    assert (saved.folder / "manifest.json").read_bytes() == before


def test_a_database_in_which_nothing_else_has_the_mass_of_a_molecule_gives_no_calibration(known, monkeypatch):
    """With the molecule left out nothing is found, so every hit was right, and would be called sure."""
    monkeypatch.setattr(structure_calibration_fit, "FEWEST_MOLECULES", 10)
    masses = {round(molecule.exact_mass, 3): molecule for molecule in MOLECULES}
    lone = StructureIndex.build(TaughtModel(), [molecule.smiles for molecule in masses.values()])
    assert len(masses) > 20
    held = {molecule.inchikey[:14] for molecule in masses.values()}
    with pytest.raises(InputError, match=r"fewer than 10 are found .*, or would have another found in their place"):
        calibrate_structures(lone, [s for s in known if s.inchikey[:14] in held])
    assert calibrate_structures(lone, known).curves  # of isomers that it has not: what is found for these is wrong


def test_a_saved_index_is_calibrated_and_one_built_in_its_place_is_not(saved, known, tmp_path, monkeypatch, capsys):
    write_mgf(known, tmp_path / "known.mgf")
    (tmp_path / "m.smi").write_text("".join(f"{m.smiles} {n}\n" for n, m in enumerate(MOLECULES)))
    opened = StructureIndex.open
    monkeypatch.setattr(StructureIndex, "open", lambda folder, model=None: opened(folder, model or TaughtModel()))
    assert cli.main(["index", "calibrate", str(saved.folder), str(tmp_path / "known.mgf")]) == 0
    assert "fitted" in (said := capsys.readouterr().out) and "known.mgf, 80% of whose" in said and NAME in said
    now = StructureIndex.open(saved.folder)
    assert structure_calibration(now.manifest).record["from"] == "known.mgf"
    told = now.info()
    assert "80% of whose molecules" in told["probabilities"] and "not known" in told["probabilities"]
    assert "135 molecules; first hits" in told[NAME] and told["open"] == OPEN
    kinds.build(tmp_path / "m.smi", saved.folder, TaughtModel(), overwrite=True)
    new = StructureIndex.open(saved.folder)
    assert len(new) == 135 and structure_calibration(new.manifest) is None
    assert new.info()["probabilities"].startswith("none: ionbed index calibrate")


def test_a_calibration_of_another_index_or_score_is_not_used(saved):
    manifest = saved.manifest
    assert structure_curve(manifest, "cosine", 10.0, None, None) is not None
    assert structure_curve({**manifest, "model_hash": "other"}, "cosine", 10.0, None, None) is None
    fewer = {**manifest, "counts": {**manifest["counts"], "kept": 1}}
    assert structure_curve(fewer, "cosine", 10.0, None, None) is None
    assert calibration_told(fewer)["probabilities"].startswith("none")
    score = StructureScore(("predicted spectra",), (1.0,), (0.0,), (1.0,))
    fusion = StructureFusion("m", LookupOptions(), score)
    tree = json.loads(json.dumps(manifest["calibration"]))
    tree["curves"] = {"fused within a window": tree["curves"][NAME]}
    tree["curves"]["fused within a window"]["record"]["ranked_as"] = ranked_as("fused", fusion)
    fused = {**manifest, "calibration": tree}
    assert structure_curve(fused, "fused", 10.0, None, fusion) is not None
    heavier = dataclasses.replace(fusion, score=dataclasses.replace(score, weights=(2.0,)))
    assert structure_curve(fused, "fused", 10.0, None, heavier) is None


def test_a_damaged_calibration_is_told(saved):
    for broken in ({"format": 9}, {**saved.manifest["calibration"], "curves": [1]}):
        with pytest.raises(InputError, match="ionbed index calibrate"):
            structure_calibration({**saved.manifest, "calibration": broken})
    tree = json.loads(json.dumps(saved.manifest["calibration"]))
    tree["curves"][NAME]["terms"][0] = "other"
    with pytest.raises(InputError, match="its terms"):
        structure_calibration({**saved.manifest, "calibration": tree})
    with pytest.raises(InputError, match="its terms"):
        Calibration.from_tree(saved.manifest["calibration"])  # as of an index of spectra


def test_terms_of_the_candidates_of_a_query():
    molecule = np.array([0, 1, 2, 0])
    rows, scores = np.array([[1, 0, 3, 2], [2, -1, -1, -1]]), np.array([[0.9, 0.7, 0.6, 0.1], [0.4, *[np.nan] * 3]])
    found = candidates_of(molecule, rows, scores, np.array([30, 1]), np.array([7, 9]), "cosine")
    assert found.query.tolist() == [0, 0, 0, 1] and found.rank.tolist() == [0, 1, 3, 0]
    assert found.of_hit.tolist() == [[0, 1, 1, 2], [3, -1, -1, -1]]
    terms = dict(zip(TERMS.names, found.terms.T, strict=True))
    assert terms["score"].tolist() == [0.9, 0.7, 0.1, 0.4]
    most = MOST_UNITS * UNITS["cosine"]
    assert terms["lead"] == pytest.approx([most * np.tanh(0.2 / most), 0, 0, 0])
    assert terms["arrears"] == pytest.approx([0, most * np.tanh(-0.2 / most), most * np.tanh(-0.8 / most), 0])
    odds = np.exp(np.array([0.9, 0.7, 0.1]) / UNITS["cosine"])
    assert np.exp(terms["share"]) == pytest.approx([*(odds / odds.sum()), 1])
    assert terms["only candidate"].tolist() == [0, 0, 0, 1]
    assert np.expm1(terms["candidates"]) == pytest.approx([30, 30, 30, 1])
    curve = Curve((1.0,) * len(TERMS.names), -1.0, terms=TERMS)
    shares = probabilities(curve, molecule, rows, scores, np.array([30, 1]), np.array([7, 9]), "cosine")
    assert shares[0, 1] == shares[0, 2] < shares[0, 0] and np.isnan(shares[1, 1:]).all()
    assert shares[0, [0, 1, 3]].sum() <= 1 + 1e-12


def test_more_hits_than_it_was_fitted_to_change_no_terms():
    rows = np.arange(DEPTH + 3)[None]
    scores, count = np.linspace(0.9, 0.8, DEPTH + 3)[None], np.array([50])
    of_all, of_best = (
        candidates_of(np.arange(DEPTH + 3), rows[:, :k], scores[:, :k], count, count, "cosine")
        for k in (DEPTH + 3, DEPTH)
    )
    assert of_all.terms[:DEPTH] == pytest.approx(of_best.terms)


@pytest.mark.parametrize("intercept", [0.0, -3.0])
def test_a_hit_is_as_probable_however_many_are_asked_for(intercept):
    curve, count = Curve((0.0,) * len(TERMS.names), intercept, terms=TERMS), np.array([50])
    rows, scores = np.arange(50)[None], np.linspace(0.9, 0.1, 50)[None]
    of_all, of_best = (
        probabilities(curve, np.arange(50), rows[:, :k], scores[:, :k], count, count, "cosine")[0] for k in (50, DEPTH)
    )
    assert of_all[:DEPTH].tolist() == of_best.tolist()
    assert of_all.min() >= 0 and of_all.sum() == pytest.approx(1.0)
    alone = 1 / (1 + np.exp(-intercept))
    assert of_best == pytest.approx(np.full(DEPTH, min(alone, 1 / DEPTH)))


@given(st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=8))
def test_the_best_hit_of_each_molecule(rows):
    molecule = np.array(rows)
    query, rank, of_hit = best_of_molecules(molecule)
    expected = [(q, row.index(m)) for q, row in enumerate(rows) for m in dict.fromkeys(row) if m >= 0]
    assert list(zip(query.tolist(), rank.tolist(), strict=True)) == sorted(expected)
    for q, row in enumerate(rows):
        for place, value in enumerate(row):
            number = of_hit[q, place]
            assert number == -1 if value < 0 else (query[number], molecule[q, rank[number]]) == (q, value)


def test_open_searches_have_no_name():
    assert way_of("fused", None, None) is None
    assert (
        way_of("fused", 5.0, None) == "fused within a window"
        and way_of("predicted", 5.0, "CH4") == "predicted by formula"
    )


def test_molecules_that_the_fused_score_was_fitted_to_are_told_of(saved):
    keys = [molecule.inchikey[:14] for molecule in MOLECULES]
    split = Split("inchikey-block", 0, {key: "validation" if n < 9 else "test" for n, key in enumerate(keys)})
    fitted = {"split": split.hash, "fold": "validation"}
    fusion = StructureFusion("m", LookupOptions(), StructureScore((), (), (), ()), fitted)
    count = structure_calibration_fit._of_fusion
    assert count(fusion, keys[5:] + keys[5:], split) == 4
    assert count(fusion, keys, None) == count(None, keys, split) == 0
    assert count(fusion, keys, Split("inchikey-block", 1, split.folds)) == 0
    name = "weights of the fused score"
    assert name not in calibration_told(saved.manifest)
    tree = {**saved.manifest["calibration"], "fused_on": 4}
    assert "of 4 of these molecules" in calibration_told({**saved.manifest, "calibration": tree})[name]


def test_no_molecule_is_all_that_is_fitted_to():
    rng, fit = np.random.default_rng(0), structure_calibration_fit
    spectra = [spectrum(0, copy) for copy in range(200)] + [spectrum(1), spectrum(2), spectrum(3, predicted=True)]
    known, trained = fit._some_of_each(spectra, {MOLECULES[2].inchikey[:14]}, rng)
    assert [len(of) for of in known.values()] == [4, 1] and trained == 1
    places = [int(s.spectrum_id.split("-")[1]) for s in known[MOLECULES[0].inchikey[:14]]]
    assert len(set(places)) == 4 and max(places) > 20  # not the first four
    drawn = fit._drawn(known, (), rng)
    assert sorted(s.spectrum_id[:2] for s in drawn) == ["s0"] * 4 + ["s1"]


def test_molecules_of_the_database_are_not_lost_among_many_others(monkeypatch, known):
    fit = structure_calibration_fit
    monkeypatch.setattr(fit, "MOST_QUERIES", 20)
    by_molecule, _ = fit._some_of_each(known, (), np.random.default_rng(0))
    keys = sorted(by_molecule)

    def drawn(held):
        found = [s.inchikey[:14] for s in fit._drawn(by_molecule, held, np.random.default_rng(0))]
        assert len(found) == len(set(found)) == 20
        return len(set(found) & set(held))

    assert drawn(keys[:6]) == 6 and drawn(keys[:60]) == 10 and drawn(keys[3:]) == 17 and drawn(keys) == 20
