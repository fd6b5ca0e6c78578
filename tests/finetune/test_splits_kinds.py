"""Every kind of split keeps its promise, and the audit finds each way of breaking it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import ionbed
from ionbed.finetune.split_audit import audit_split, describe_audit, near_duplicates_across, refuse_leaks
from ionbed.finetune.splits import (
    KINDS,
    SplitOptions,
    assign_groups,
    audit_path,
    connected_groups,
    make_split,
    split_store,
)
from ionbed.pretrain.config import DataConfig
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecules import element_formula, standardise
from ionbed.spectra.near_duplicates import NearDuplicateOptions, similarities, similarities_of_pairs, unit_vectors
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.split import EXCLUDED, FOLDS, Split
from ionbed.spectra.store import table_from_spectra

RINGS = ("c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccoc1", "c1ccsc1", "C1CCNCC1", "c1ccc2ccccc2c1", "c1ccc2[nH]ccc2c1", "",
         "C1CCOC1", "c1cnccn1", "c1ccc(-c2ccccc2)cc1")  # fmt: skip
CHAINS = ("CC", "CCO", "NCC", "OC(=O)CC", "CC(C)CCCCCC")
LABORATORIES = tuple(f"laboratory {letter}" for letter in "ABCDEFGHIJ")
INSTRUMENTS = tuple(f"type {number}" for number in range(12))


def made_up_spectra() -> list[Spectrum]:
    """Return six spectra of each of 60 molecules, by several laboratories, and some without a structure."""
    rng = np.random.default_rng(0)
    spectra = []
    for number, (ring, chain) in enumerate(itertools.product(RINGS, CHAINS)):
        molecule = standardise(f"{chain}{ring}" if ring else f"{chain}CCCC")
        assert molecule is not None
        for copy, energy in enumerate((10.0, 12.0, 20.0, 30.0, 50.0, None)):
            mz = np.sort(rng.uniform(40, 300, 12)).astype(np.float32)
            intensity = rng.uniform(0.05, 1, 12).astype(np.float32)
            laboratory = number % 10 if copy else int(rng.integers(10))
            spectra.append(
                Spectrum(
                    spectrum_id=f"S{number:02d}-{copy}", precursor_mz=molecule.exact_mass + 1.00728, mz=mz,
                    intensity=intensity / intensity.max(), polarity=1, charge=1, adduct="[M+H]+",
                    collision_energy=energy, smiles=molecule.smiles, inchikey=molecule.inchikey,
                    formula=molecule.formula,
                    laboratory=LABORATORIES[laboratory], instrument_type=INSTRUMENTS[laboratory],
                    chemical_class=f"Organic compounds; Superclass {number // 10}; Class {number // 3}",
                )
            )  # fmt: skip
    unlabelled = {"smiles": None, "inchikey": None, "formula": None, "chemical_class": None}
    return spectra + [replace(s, spectrum_id=f"U{i}", mz=s.mz + 1, **unlabelled) for i, s in enumerate(spectra[:5])]


SPECTRA = made_up_spectra()


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return table_from_spectra(SPECTRA)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def options_for(kind: str, seed: int = 0, **more) -> SplitOptions:
    distance = {"mces_distance": 4.0} if kind == "mces" else {}
    return SplitOptions(kind, seed=seed, test=0.2, validation=0.2, workers=1, **distance, **more)


def block(spectrum: Spectrum) -> str:
    assert spectrum.inchikey
    return spectrum.inchikey[:14]


def fold_of(split: Split, table: pa.Table) -> dict[str, str]:
    return dict(zip(table["spectrum_id"].to_pylist(), split.fold_of_rows(table).tolist(), strict=True))


def moved(split: Split, *keys: str, to: str = "train") -> Split:
    return replace(split, folds={**split.folds, **dict.fromkeys(keys, to)})


def leaks(split: Split, table: pa.Table) -> list[str]:
    return [leak["what"] for leak in audit_split(split, table)["leaks"]]


@pytest.mark.parametrize("kind", KINDS)
def test_ten_clean_splits_are_not_refused_and_have_about_the_shares_asked_for(kind, table, cache):
    distinct = set()
    for seed in range(10):
        split = make_split(table, options_for(kind, seed), cache=cache)
        audit = audit_split(split, table)
        assert audit["leaks"] == []
        refuse_leaks(audit)
        distinct.add(split.hash)
        counts = audit["folds"]
        assert sum(fold["spectra"] for fold in counts.values()) == len(table)
        assert counts["test"]["molecules"] and counts["train"]["molecules"]
        if kind in ("formula", "scaffold", "mces"):
            assert 0.1 <= counts["test"]["molecules"] / 60 <= 0.2
    assert len(distinct) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_is_the_same_again_in_any_order_and_after_a_file(kind, table, cache, tmp_path):
    split = make_split(table, options_for(kind), cache=cache)
    order = np.random.default_rng(1).permutation(len(table))
    again = make_split(table.take(pa.array(order)), options_for(kind), cache=cache)
    assert again.hash == split.hash
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json")
    assert loaded == replace(split, folds=dict(split.folds))
    assert loaded.fold_of_rows(table).tolist() == split.fold_of_rows(table).tolist()
    content = json.loads((tmp_path / "split.json").read_text())
    content["shares"] = [] if content["shares"] else ["molecules"]
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(ionbed.InputError, match="was changed"):
        Split.load(tmp_path / "split.json")


def test_a_file_of_version_1_loads_and_hashes_as_before(tmp_path):
    digest = "7ed4010b71e5bc6f59a47a6a30ae8fbdff9d00f81ee58f6f2913404789666739"
    old = {"kind": "inchikey-block", "seed": 3, "folds": {"A" * 14: "train", "B" * 14: "test"}, "hash": digest}
    (tmp_path / "split.json").write_text(json.dumps(old))
    split = Split.load(tmp_path / "split.json")
    assert split.hash == digest
    assert split.fold_of(["B" * 14, None]).tolist() == ["test", "train"]
    (tmp_path / "later.json").write_text(json.dumps({**old, "version": 3}))
    with pytest.raises(ionbed.InputError, match="version 3 is unknown"):
        Split.load(tmp_path / "later.json")


@pytest.mark.parametrize("kind", ["inchikey-block", "laboratory", "instrument-type", "low-energy", "chemical-class"])
def test_a_molecule_in_two_folds_is_found(kind, table, cache):
    """A planted leak: one spectrum of a tested molecule, under another key, trains."""
    split = make_split(table, options_for(kind), cache=cache)
    folds = fold_of(split, table)
    planted = next(s for s in SPECTRA if folds[s.spectrum_id] == "test" and s.inchikey)
    as_spectra = replace(split, unit="spectrum", folds={**folds, planted.spectrum_id: "test"})
    other = next(s for s in SPECTRA if s.inchikey == planted.inchikey and s is not planted)
    found = leaks(moved(as_spectra, other.spectrum_id), table)
    assert "molecules in train and test" in found
    with pytest.raises(ionbed.InputError, match=rf"leaks: .*{block(planted)}"):
        refuse_leaks(audit_split(moved(as_spectra, other.spectrum_id), table))


@pytest.mark.parametrize("kind", ["formula", "scaffold", "mces"])
def test_a_shared_formula_scaffold_or_cluster_is_found(kind, cache):
    """A planted leak: an isomer, or a neighbour, of a tested molecule trains."""
    extra = standardise({"formula": "CCc1ccccn1", "scaffold": "CCCc1ccncc1", "mces": "CCCc1ccncc1"}[kind])
    assert extra is not None
    added = replace(SPECTRA[0], spectrum_id="extra", smiles=extra.smiles, inchikey=extra.inchikey, mz=SPECTRA[0].mz + 2)
    table = table_from_spectra([*SPECTRA, added])
    split = make_split(table, options_for(kind), cache=cache)
    neighbour = standardise("CCc1ccncc1")
    assert neighbour is not None
    assert split.folds[extra.inchikey[:14]] == split.folds[neighbour.inchikey[:14]]
    planted = moved(moved(split, neighbour.inchikey[:14], to="test"), extra.inchikey[:14])
    words = {"formula": "formulas in train and test", "scaffold": "scaffolds in train and test",
             "mces": "test molecules too near to one of train"}[kind]  # fmt: skip
    assert words in leaks(planted, table)


def test_a_held_out_laboratory_class_or_energy_in_train_is_found(table):
    lab = make_split(table, options_for("laboratory", hold_out=("laboratory A",), molecules="shared"))
    spectrum = next(s for s in SPECTRA if s.laboratory == "laboratory A")
    assert lab.folds[spectrum.spectrum_id] == "test"
    assert leaks(lab, table) == []
    assert "spectra of a held-out or unknown laboratory in train or validation" in leaks(
        moved(lab, spectrum.spectrum_id), table
    )
    classes = make_split(table, options_for("chemical-class", hold_out=("Class 4",)))
    tested = [key for key, fold in classes.folds.items() if fold == "test"]
    assert len(tested) == 3
    assert "spectra of a held-out class in train or validation" in leaks(moved(classes, tested[0]), table)
    energy = make_split(table, options_for("low-energy", molecules="shared"))
    low = next(s for s in SPECTRA if s.collision_energy == 10.0)
    assert "spectra of low or unknown energy in train or validation" in leaks(moved(energy, low.spectrum_id), table)
    unknown = next(s for s in SPECTRA if s.collision_energy is None)
    assert energy.folds[unknown.spectrum_id] == EXCLUDED


@pytest.mark.parametrize("kind", ["random-spectrum", "laboratory"])
def test_a_copy_across_the_border_is_excluded_by_the_maker_and_found_by_the_audit(kind):
    copies = [replace(s, spectrum_id=f"copy of {s.spectrum_id}", laboratory=LABORATORIES[i % 10])
              for i, s in enumerate(SPECTRA)]  # fmt: skip
    table = table_from_spectra([*SPECTRA, *copies])
    options = options_for(kind, **({"molecules": "shared"} if kind == "laboratory" else {}))
    split = make_split(table, options)
    folds = fold_of(split, table)
    assert EXCLUDED in folds.values()
    assert leaks(split, table) == []
    excluded = next(
        s for s in SPECTRA if {folds[s.spectrum_id], folds[f"copy of {s.spectrum_id}"]} == {"test", EXCLUDED}
    )
    keys = [key for key in (excluded.spectrum_id, f"copy of {excluded.spectrum_id}") if folds[key] == EXCLUDED]
    assert "spectra of test with a copy in train" in leaks(moved(split, *keys), table)


def test_near_duplicates_of_one_molecule_are_found_and_those_without_a_structure_counted():
    tested, jitter = SPECTRA[0], np.float32(1 + 2e-6)
    again = replace(tested, spectrum_id="again", mz=tested.mz * jitter, laboratory="another")
    unlabelled = replace(again, spectrum_id="unlabelled", inchikey=None, smiles=None)
    table = table_from_spectra([*SPECTRA, again, unlabelled])
    split = make_split(table_from_spectra(SPECTRA), options_for("laboratory", molecules="shared"))
    planted = moved(replace(split, shares=(), kind="planted", options={}), "again", "unlabelled")
    planted = moved(planted, tested.spectrum_id, to="test")
    audit = audit_split(planted, table)
    assert audit["near_duplicates"]["of one molecule"]["test spectra"] == 1
    assert audit["near_duplicates"]["without a structure"]["examples"][0][:2] == [tested.spectrum_id, "unlabelled"]
    found = {leak["what"]: leak["examples"] for leak in audit["leaks"]}
    assert found["test spectra with a near-duplicate of the same molecule in train"] == [
        f"{tested.spectrum_id} ~ again"
    ]


def test_near_duplicates_are_those_of_all_pairs():
    rng = np.random.default_rng(3)
    near = [replace(s, spectrum_id=f"n{i}", intensity=np.clip(s.intensity * rng.uniform(0.8, 1.2, 12), 0.01, 1).astype(
        np.float32)) for i, s in enumerate(SPECTRA[:100])]  # fmt: skip
    columns = SpectrumColumns.from_spectra([*SPECTRA[:100], *near])
    vectors, options = unit_vectors(columns, 0.01), NearDuplicateOptions(tables=16)
    first, second = np.arange(100), np.arange(100, 200)
    exact = similarities(vectors.take(first), vectors.take(second), 0.01)
    by_pair = similarities_of_pairs(vectors.take(first), vectors.take(second), 0.01)
    np.testing.assert_allclose(by_pair, np.diagonal(exact), rtol=1e-12)
    a, b, similarity = near_duplicates_across(columns, first, second, options)
    mz = columns.precursor_mz
    close = np.abs(mz[first][:, None] - mz[second]) <= 1e-5 * mz[second]
    expected = set(zip(*(part.tolist() for part in np.nonzero((exact >= 0.95) & close)), strict=True))
    assert len(expected) > 50
    assert set(zip(a.tolist(), (b - 100).tolist(), strict=True)) == expected
    np.testing.assert_allclose(similarity, exact[a, b - 100], rtol=1e-12)


def test_held_out_laboratories_keep_their_molecules_out_of_training(table):
    held_out = make_split(table, options_for("laboratory", hold_out=("laboratory B",)))
    shared = make_split(table, options_for("laboratory", hold_out=("laboratory B",), molecules="shared"))
    of_b = {s.spectrum_id for s in SPECTRA if s.laboratory == "laboratory B"}
    assert {key for key, fold in held_out.folds.items() if fold == "test"} == of_b
    assert {key for key, fold in shared.folds.items() if fold == "test"} == of_b
    assert (held_out.shares, shared.shares) == ((), ("molecules",))
    audits = [audit_split(split, table) for split in (held_out, shared)]
    assert audits[0]["shared"]["molecules"] == 0 < audits[1]["shared"]["molecules"]
    assert audits[0]["folds"]["excluded"]["spectra"] > 0
    assert audits[0]["strata"]["laboratory"]["laboratory B"]["train"] == 0
    assert "train and test share 0 molecules" in "\n".join(describe_audit(audits[0]))


def test_a_group_too_large_for_a_fold_trains_and_the_share_is_met():
    sizes = {"": 600, **{f"group {i}": 1 + i % 4 for i in range(160)}}
    for seed in range(10):
        folds = assign_groups(sizes, SplitOptions("scaffold", seed=seed, test=0.2, validation=0.1))
        assert folds[""] == "train"
        share = {fold: sum(sizes[g] for g, f in folds.items() if f == fold) / sum(sizes.values()) for fold in FOLDS}
        assert share["test"] == pytest.approx(0.2, abs=0.005)
        assert share["validation"] == pytest.approx(0.1, abs=0.005)
    with pytest.raises(ionbed.InputError, match="no group fits"):
        assign_groups({"a": 5, "b": 5}, SplitOptions("scaffold", test=0.1))


def test_what_has_any_property_in_common_is_one_group():
    groups = connected_groups({"a": ["1"], "b": ["2", "1"], "c": ["3", "2"], "d": ["4"], "e": []})
    assert groups == {"a": "1", "b": "1", "c": "1", "d": "4"}
    assert element_formula("[NH3+]CC") == "C2H8N"
    assert element_formula("[13CH4]") == "CH4"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "nothing"}, "it must be one of"),
        ({"kind": "scaffold", "hold_out": ("x",)}, "holds out no named values"),
        ({"kind": "scaffold", "molecules": "shared"}, "has no choice of molecules"),
        ({"kind": "laboratory", "molecules": "perhaps"}, "must be held-out or shared"),
        ({"kind": "low-energy", "max_energy": -1.0}, "above 0 eV"),
        ({"kind": "laboratory", "hold_out": ("laboratory Z",)}, "no spectrum has the laboratory 'laboratory Z'"),
        ({"kind": "low-energy", "max_energy": 1.0}, "raise --max-energy"),
        ({"kind": "laboratory", "hold_out": LABORATORIES}, "no spectrum is left for the fold 'train'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(options, words, table):
    with pytest.raises(ionbed.InputError, match=words) as caught:
        make_split(table, SplitOptions(**options))
    assert "\n" not in str(caught.value)


def test_a_leaking_split_is_not_saved_and_a_clean_one_has_its_audit_beside_it(store, tmp_path, monkeypatch):
    from ionbed.finetune import splits

    out = tmp_path / "split.json"
    audit = split_store(store, out, SplitOptions("laboratory", hold_out=("B",), validation=0.0, molecules="shared"))
    assert json.loads(audit_path(out).read_text()) == json.loads(json.dumps(audit))
    assert audit["split"]["hash"] == Split.load(out).hash
    whole = splits.make_split
    monkeypatch.setattr(splits, "make_split", lambda *a, **k: replace(whole(*a, **k), shares=()))
    with pytest.raises(ionbed.InputError, match="molecules in train and test"):
        split_store(store, tmp_path / "leaky.json", SplitOptions("random-spectrum"))
    assert not (tmp_path / "leaky.json").exists()


def test_training_and_evaluation_take_a_split_of_spectra(store, tmp_path):
    from ionbed.evaluation.dataset import load_evaluation_data
    from ionbed.evaluation.run import EvaluationConfig, evaluate
    from ionbed.pretrain.data import TrainingSpectra
    from ionbed.spectra.store import Store

    path = tmp_path / "split.json"
    split_store(store, path, SplitOptions("laboratory", hold_out=("B",), molecules="shared"))
    spectra = TrainingSpectra(DataConfig(store, path), tmp_path / "columns")
    laboratory = np.array(Store(store).table(["laboratory"])["laboratory"].to_pylist())
    assert set(laboratory[spectra.rows]) == set(laboratory[spectra.validation_rows]) == {"A"}
    data = load_evaluation_data(Store(store), Split.load(path))
    assert data.rows_in("test").tolist() == np.flatnonzero(laboratory == "B").tolist()
    with pytest.raises(ionbed.InputError, match="its folds share molecules"):
        evaluate(EvaluationConfig(store, path, tasks=("analogue search",)), tmp_path / "report")
    other = table_from_spectra([replace(SPECTRA[0], spectrum_id="another")])
    with pytest.raises(ionbed.InputError, match="is not in the split"):
        Split.load(path).fold_of_rows(other)
    with pytest.raises(ionbed.InputError, match="divides spectra"):
        Split.load(path).fold_of(["A" * 14])
