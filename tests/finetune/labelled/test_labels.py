"""Labels: what a table and the structures say of the spectra of a store, and what does not match, counted."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ionbed.configs.loading import build, load_config
from ionbed.errors import InputError
from ionbed.finetune.labelled.computed import COMPUTED, PROPERTIES, has_substructures, properties_of
from ionbed.finetune.labelled.config import LabelledConfig, LabelsConfig, OwnSplitConfig
from ionbed.finetune.labelled.labels import TABLE_COLUMNS, describe_counts, read_labels, with_enough
from ionbed.finetune.labelled.own_split import PRECURSOR_GROUPS, make_own_split, molecules_of, precursor_groups
from ionbed.spectra.molecules import standardise
from ionbed.spectra.store import Store


@pytest.fixture(scope="module")
def table(store):
    return Store(store).table(TABLE_COLUMNS)


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_joined_by_spectrum_and_what_does_not_match_is_counted(table, tmp_path):
    path = write(tmp_path, "\ufeffSpectrum ID;active\nS00-0;yes\nS00-1;no\nS00-1;no\nS00-2;yes\nS00-2;no\n;yes\n"
                           "S99-9;no\nS00-3;\n")  # fmt: skip
    labels = read_labels("classification", LabelsConfig(file=path, columns=("active",)), table)
    assert labels.names == ("no", "yes")
    assert labels.values[:4, 0].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(labels.values[2:, 0]).all()  # contradicted, empty, absent
    assert labels.counts == {
        "rows": 8,
        "rows that repeat another": 1,
        "rows that contradict another of their key": 1,
        "rows without a key": 1,
        "rows that match no spectrum": 1,
        "spectra with a row": 3,
        "spectra without a row": 141,
        "spectra with a row but no label in it": 1,
    }
    assert labels.is_known.sum() == 2
    said = " ".join(describe_counts(labels))
    assert "line 6 contradicts line 5" in said and "'S99-9'" in said and "8 rows" in said


def test_an_id_of_the_source_file_will_do(table, tmp_path):
    position = table.column_names.index("native_id")
    titled = table.set_column(position, "native_id", [[f"scan {n}" for n in range(len(table))]])
    path = write(tmp_path, "spectrum_id\tclass\nscan 3\ta\nscan 4\tb\n", "labels.tsv")
    labels = read_labels("classification", LabelsConfig(file=path), titled)
    assert np.flatnonzero(labels.is_known).tolist() == [3, 4]


def test_an_id_that_records_of_several_files_have_is_not_guessed(table, tmp_path):
    changes = {"native_id": [f"scan {n % 72}" for n in range(144)],
               "source_file": ["a.mzML"] * 72 + ["b.mzML"] * 72}  # fmt: skip
    changes["native_id"][71] = changes["native_id"][70] = "twice in one file"
    twins = table
    for name, values in changes.items():
        twins = twins.set_column(twins.column_names.index(name), name, [values])
    path = write(tmp_path, "spectrum_id,class\nscan 3,a\ntwice in one file,b\nscan 71,c\nS00-5,d\n")
    labels = read_labels("classification", LabelsConfig(file=path), twins)
    assert np.flatnonzero(labels.is_known).tolist() == [5, 70, 71, 143]
    assert labels.counts["spectra whose id is that of records of several files"] == 2
    assert labels.counts["rows that match no spectrum"] == 1 and any("'scan 3'" in note for note in labels.notes)


@pytest.mark.parametrize("key", ["inchikey", "smiles", "name"])
def test_labels_of_molecules_reach_all_their_spectra(table, tmp_path, key):
    aspirin = "O=C(C)Oc1ccccc1C(O)=O"
    molecule = standardise(aspirin)
    text = {"inchikey": molecule.inchikey[:14], "smiles": aspirin, "name": "Molecule  3"}[key]
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(f"{key},logP,mass\n{text},1.2,180\n".encode()))
    labels = read_labels("regression", LabelsConfig(file=path, key=key), table)
    assert np.flatnonzero(labels.is_known).tolist() == list(range(18, 24))
    assert labels.names == ("logP", "mass")
    assert labels.values[18].tolist() == pytest.approx([1.2, 180])


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("regression", "spectrum_id,x\nS00-0,many\n", "line 2, column 'x' has 'many'; a column of a regression"),
        ("regression", "spectrum_id,x\nS00-0,1e999\n", "has '1e999'"),
        ("regression", "spectrum_id,x\nS00-0,1e38\n", "has '1e38'.* of at most 1e.15"),
        ("regression", "spectrum_id,x,x low\nS00-0,1,2\n", "the column 'x low' is named as .*; rename it"),
        ("multi-label", "spectrum_id,x\nS00-0,maybe\n", "line 2, column 'x' has 'maybe'; a multi-label column"),
        ("classification", "spectrum_id,a,b\nS00-0,1,2\n", "2 columns beside 'spectrum_id' .*labels.columns"),
        ("classification", "id,a\nS00-0,1\n", "has no column 'spectrum_id'; it has id, a"),
        ("classification", "spectrum_id\nS00-0\n", "no column but 'spectrum_id'"),
        ("classification", "spectrum_id,a,A\nS00-0,1,2\n", "the column 'a' twice"),
        ("classification", "spectrum_id,a\nS00-0\n", "line 2 has 1 cells, the header 2"),
        ("classification", "spectrum_id,a\n", "holds no rows"),
        ("classification", "spectrum_id,a\nX,1\nY,2\n", "none of its 2 rows matches .*'X'; in the store: 'S00-0'"),
    ],
)  # fmt: skip
def test_wrong_tables_are_refused_in_one_line(table, tmp_path, task, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_labels(task, LabelsConfig(file=write(tmp_path, text)), table)
    assert "\n" not in str(caught.value)


def test_columns_that_are_named_twice_or_as_those_of_predictions_are_refused(table, tmp_path):
    config = LabelsConfig(file=write(tmp_path, "spectrum_id,x\nS00-0,1\n"), columns=("x", "X"))
    with pytest.raises(InputError, match="names one column twice"):
        read_labels("regression", config, table)
    config = LabelsConfig(file=write(tmp_path, "name,spectrum_id\nmolecule 0,1\n"), key="name")
    with pytest.raises(InputError, match="the column 'spectrum_id' is named as"):
        read_labels("regression", config, table)


def test_wrong_files_are_refused(table, tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "damaged.csv.gz").write_bytes(b"no gzip")
    for name, message in (("binary.csv", "not UTF-8"), ("none.csv", "no such file"), ("damaged.csv.gz", "be read")):
        with pytest.raises(InputError, match=message):
            read_labels("regression", LabelsConfig(file=tmp_path / name), table)


def test_elements_substructures_and_properties_of_known_molecules():
    aspirin, halothane = "CC(=O)Oc1ccccc1C(=O)O", "FC(F)(F)C(Cl)Br"
    found = has_substructures([aspirin, halothane], ["contains_fluorine", "contains_oxygen"], {"ester": "C(=O)O[#6]"})
    assert found.tolist() == [[0, 1, 1], [1, 0, 0]]
    numbers = dict(zip(PROPERTIES, properties_of([aspirin], list(PROPERTIES))[0].tolist(), strict=True))
    assert numbers["exact_mass"] == pytest.approx(180.0423, abs=1e-3)
    assert numbers["tpsa"] == pytest.approx(63.6, abs=0.1)
    assert numbers["logp"] == pytest.approx(1.31, abs=0.01)
    assert (numbers["rings"], numbers["aromatic_rings"], numbers["heavy_atoms"]) == (1, 1, 13)
    with pytest.raises(ValueError, match="cannot read"):
        properties_of(["nonsense"], ["logp"])


def test_computed_labels_of_spectra_and_those_without_a_structure(table):
    smiles = table["smiles"].to_pylist()
    holes = table.set_column(table.column_names.index("smiles"), "smiles", [[None, *smiles[1:]]])
    labels = read_labels("classification", LabelsConfig(computed=("contains_sulfur",)), holes)
    assert labels.names == ("no contains_sulfur", "contains_sulfur")
    assert labels.counts["spectra without a structure"] == 1 and np.isnan(labels.values[0, 0])
    assert (labels.values[1:, 0] == ["S" in text for text in smiles[1:]]).all()


def test_classes_of_the_records_at_each_level(table):
    paths = ["Organic compounds; Benzenoids; Phenols; Cresols", None] * (len(table) // 2)
    named = table.set_column(table.column_names.index("chemical_class"), "chemical_class", [paths])
    for level, name in (("chemical_superclass", "Benzenoids"), ("chemical_subclass", "Cresols")):
        labels = read_labels("classification", LabelsConfig(computed=(level,)), named)
        assert labels.names == (name,) and labels.counts["spectra without a class"] == len(table) // 2
    with pytest.raises(InputError, match="no spectrum of the store names its chemical_class"):
        read_labels("classification", LabelsConfig(computed=("chemical_class",)), table)


def test_rare_classes_and_labels_are_left_out_and_counted(table, tmp_path):
    classes = {0: "a", 1: "a", 2: "b", 3: "b", 4: "rare"}
    lines = [f"molecule {number},{name}" for number, name in classes.items()]
    config = LabelsConfig(file=write(tmp_path, "\n".join(["name,class", *lines])), key="name", min_molecules=2)
    molecule, every = molecules_of(table)[1], np.arange(len(table))
    labels = with_enough(read_labels("classification", config, table), every, molecule, config)
    assert labels.names == ("a", "b") and labels.is_known.sum() == 24
    assert labels.counts["spectra of classes left out"] == 6
    few = np.arange(12)  # of class a alone
    with pytest.raises(InputError, match=r"there are a; lower it, or add labels"):
        with_enough(read_labels("classification", config, table), few, molecule, config)
    bits = LabelsConfig(computed=("fingerprint",), fingerprint_bits=5, min_molecules=3)
    found = with_enough(read_labels("multi-label", bits, table), every, molecule, bits)
    shares = found.values[::6].mean(axis=0)
    assert len(found.names) == 5 and ((shares > 0.35) & (shares < 0.65)).all()
    many = LabelsConfig(computed=("fingerprint",), fingerprint_bits=200, min_molecules=3)
    found = with_enough(read_labels("multi-label", many, table), every, molecule, many)
    assert len(np.unique(found.values.T, axis=0)) == len(found.names) > 5  # none repeats another


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_answers_are_counted_by_molecule_whichever_spectrum_has_them(table, tmp_path, task):
    """Of each molecule only the third spectrum has the second answer, or a number at all."""
    lines = ["spectrum_id,x,y"]
    for number, name in enumerate(table["spectrum_id"].to_pylist()):
        first, second = {"classification": "ab", "multi-label": "01", "regression": ("", str(number))}[task]
        lines.append(f"{name},{second if name.endswith('-2') else first},{number % 2}")
    columns = ("x",) if task == "classification" else ("x", "y")
    config = LabelsConfig(file=write(tmp_path, "\n".join(lines)), columns=columns, min_molecules=20)
    labels = with_enough(read_labels(task, config, table), np.arange(144), molecules_of(table)[1], config)
    assert len(labels.names) == 2
    with pytest.raises(InputError, match="min_molecules"):
        with_enough(read_labels(task, config, table), np.arange(144), molecules_of(table)[1],
                    replace(config, min_molecules=25))  # fmt: skip


def test_a_number_that_is_one_for_all_is_refused(table, tmp_path):
    lines = [f"molecule {number},7" for number in range(24)]
    config = LabelsConfig(file=write(tmp_path, "\n".join(["name,x", *lines])), key="name")
    labels = read_labels("regression", config, table)
    with pytest.raises(InputError, match="'x' is one number for all"):
        with_enough(labels, np.arange(len(table)), molecules_of(table)[1], config)


def test_own_split_by_structure_keeps_molecules_apart(table):
    split, said = make_own_split(table, np.ones(len(table), bool), OwnSplitConfig(test=0.2, validation=0.3))
    assert (split.kind, split.unit) == ("inchikey-block", "molecule") and "by structure" in said
    assert {"train", "validation", "test"} == set(split.folds.values())


def test_own_split_without_structures_keeps_precursors_apart(table):
    none = [None] * len(table)
    for name in ("inchikey", "smiles"):
        table = table.set_column(table.column_names.index(name), name, [none])
    known = np.ones(len(table), bool)
    known[:6] = False
    split, said = make_own_split(table, known, OwnSplitConfig(test=0.2, validation=0.3))
    assert (split.kind, split.unit) == (PRECURSOR_GROUPS, "spectrum") and "by precursor" in said
    fold = split.fold_of_rows(table)
    assert set(fold[:6]) == {"excluded"} and {"train", "validation", "test"} <= set(fold)
    groups = precursor_groups(table)
    for group in np.unique(groups[known]):
        assert len(set(fold[known & (groups == group)])) == 1
    # leucine and isoleucine have one precursor, and are taken for one molecule here
    assert len(np.unique(molecules_of(table)[1])) == len(np.unique(groups)) < 24


@pytest.mark.parametrize("column", ["inchikey", "precursor_mz"])
def test_one_molecule_or_precursor_cannot_be_split(table, column):
    alike = {"inchikey": "BSYNRYMUTXBXSQ-UHFFFAOYSA-N" if column == "inchikey" else None, "precursor_mz": 200.0}
    for name, value in alike.items():
        table = table.set_column(table.column_names.index(name), name, [[value] * len(table)])
    with pytest.raises(InputError, match=r"for a split: no fold .*test.*; change own_split.test") as caught:
        make_own_split(table, np.ones(len(table), bool), OwnSplitConfig())
    assert "kind" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_fold_without_a_label_is_no_split(table):
    config = OwnSplitConfig(test=0.2, validation=0.3)
    split, _ = make_own_split(table, np.ones(len(table), bool), config)
    known = split.fold_of_rows(table) != "validation"
    with pytest.raises(InputError, match=r"for a split: no fold validation; change own_split.test, .*own_split.seed"):
        make_own_split(table, known, config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["labels.computed=[logp]"], "which is a number, of task regression; task is classification"),
        (["labels.computed=[nonsense]"], "names 'nonsense'; known are"),
        (["labels.computed=[]"], "names no source"),
        (["labels.computed=[contains_fluorine, contains_oxygen]"], "names several; classification takes one"),
        (["labels.file=x.csv", "labels.columns=[a, b]"], "labels.columns names several"),
        (["labels.computed=[]", "labels.smarts={a: '((('}"], "cannot read the pattern of 'a'"),
        (["labels.file=x.csv", "labels.smarts={acid: 'C(=O)[OH]'}"], "labels come from file; leave one"),
        (["task=multi-label", "labels.computed=[contains_boron]", "labels.smarts={contains_boron: '[#6]'}"],
         "both name 'contains_boron'"),
        (["labels.computed=[fingerprint]"], "multi-label task of their own"),
        (["task=regression", "labels.computed=[chemical_class]"], "no number"),
        (["task=multi-label", "labels.computed=[chemical_class]"], "exclude each other"),
        (["task=regression", "labels.computed=[logp]", "head.imbalance=focal"], "regression has no classes"),
        (["init.train=lora", "training.parallelism=fsdp2"], "LoRA trains few weights"),
        (["head.patience=0"], "patience is 0"),
        (["head.interval=1"], "interval is 1"),
        (["data.folds=[train, test]", "data.split=s.json"], "must be \\[train\\]"),
        (["training.compile=true"], "compile is true"),
        (["own_split.test=0"], "both must be above 0"),
        (["task=clustering"], "must be one of classification, multi-label, regression"),
    ],
)  # fmt: skip
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(LabelledConfig, "label-classification", changes)
    assert "\n" not in str(caught.value)


def test_a_file_goes_before_what_is_computed(table, tmp_path):
    path = write(tmp_path, "spectrum_id,x\nS00-0,1\n")
    config = load_config(LabelledConfig, "label-regression", [f"labels.file={path}"])
    assert config.labels.computed and read_labels("regression", config.labels, table).names == ("x",)
    assert load_config(LabelledConfig, "label-regression", [f"labels.file={path}", "task=classification"]).labels.file


def test_columns_of_a_file_are_not_thinned_as_bits_are(table, tmp_path):
    lines = [f"molecule {number},{number % 2},{number % 2},{number % 3 == 0:d}" for number in range(24)]
    path = write(tmp_path, "\n".join(["name,a,same as a,b", *lines]))
    changes = [f"labels.file={path}", "labels.key=name", "labels.fingerprint_bits=1", "labels.min_molecules=2"]
    config = load_config(LabelledConfig, "label-multilabel", changes).labels
    labels = read_labels("multi-label", config, table)
    assert with_enough(labels, np.arange(len(table)), molecules_of(table)[1], config).names == ("a", "same as a", "b")


def test_every_computed_label_stands_in_a_configuration():
    from ionbed.configs.loading import config_text

    texts = "".join(config_text(f"label-{name}") for name in ("classification", "multilabel", "regression"))
    elements = texts.replace("contains_ELEMENT", "")
    for name in COMPUTED:
        assert name in texts or name.removeprefix("contains_") in elements, name
    assert build(LabelsConfig, {"computed": ["qed"]}, "test").computed == ("qed",)
