"""Structures from a table of the user's, laid over the records of a file while it is prepared."""

from __future__ import annotations

import gzip
import json

import pytest

from ionbed import cli
from ionbed.artifacts import sha256_of_file
from ionbed.configs.loading import load_config
from ionbed.errors import InputError
from ionbed.spectra.prepare import PrepareOptions, prepare
from ionbed.spectra.store import Store

CAFFEINE, ASPIRIN = "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(=O)Oc1ccccc1C(=O)O"


def record(title: str, mz: float, more: str = "") -> str:
    title = f"TITLE={title}\n" if title else ""
    return f"BEGIN IONS\n{title}PEPMASS={mz}\nCHARGE=1+\n{more}60.1 10\n{mz / 2:.4f} 100\nEND IONS\n\n"


@pytest.fixture
def mgf(tmp_path):
    path = tmp_path / "mine.mgf"
    path.write_text(
        record("a", 195.0877) + record("b", 181.0495, "SMILES=CCO\n") + record("", 300.1) + record("d", 310.2)
    )
    return path


def test_structures_reach_their_records_and_what_matches_none_is_counted(tmp_path, mgf):
    path = tmp_path / "labels.tsv.gz"
    rows = [(CAFFEINE, "a", "[M+H]+", "x"), (ASPIRIN, "b", "", ""), ("CCCO", "mine.mgf#3", "", ""),
            ("CCN", "nobody", "", ""), (CAFFEINE, "a", "[M+H]+", "says the same")]  # fmt: skip
    lines = ["SMILES\tTitle\tadduct\tmy notes", *map("\t".join, rows)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    manifest = prepare([mgf], tmp_path / "store", options=PrepareOptions(labels=path), workers=1)
    assert (manifest["labels"]["ids"], manifest["labels"]["matched"]) == (4, 3)
    assert manifest["labels"]["sha256"] == manifest["options"]["labels"] == sha256_of_file(path)
    found = {s.spectrum_id: s for s in Store(tmp_path / "store")}
    assert found["a"].inchikey.startswith("RYYVLZVUVIJVGH") and found["a"].adduct == "[M+H]+"
    assert found["b"].inchikey.startswith("BSYNRYMUTXBXSQ")  # the table is believed before the file
    assert found["mine.mgf#3"].formula == "C3H8O" and found["d"].smiles is None


def test_a_structure_of_the_table_leaves_nothing_of_that_of_the_file(tmp_path):
    wrong = "SMILES=CCO\nINCHIKEY=LFQSCWFLJHTTHZ-UHFFFAOYSA-N\nFORMULA=C2H6O\nNAME=mine\n"
    (tmp_path / "x.mgf").write_text(record("a", 195.0877, wrong) + record("b", 181.0495, wrong))
    (tmp_path / "labels.csv").write_text(f"id,smiles,inchikey\na,{CAFFEINE},\nb,,BSYNRYMUTXBXSQ-UHFFFAOYSA-N\n")
    prepare([tmp_path / "x.mgf"], tmp_path / "store", options=PrepareOptions(labels=tmp_path / "labels.csv"), workers=1)
    a, b = Store(tmp_path / "store")
    assert (a.inchikey[:14], a.formula, a.name) == ("RYYVLZVUVIJVGH", "C8H10N4O2", "mine")
    assert (b.inchikey[:14], b.smiles, b.formula) == ("BSYNRYMUTXBXSQ", None, None)
    assert not {*a.flags, *b.flags} & {"inchikey-conflict", "formula-conflict"}


def test_an_id_of_several_files_is_not_guessed_and_their_stores_go_together(tmp_path):
    for name, mz in (("one", 195.0877), ("two", 310.2)):
        (tmp_path / f"{name}.mgf").write_text(record("1", mz) + record(f"{name} 2", mz + 10))
    (tmp_path / "labels.csv").write_text(f"id,smiles\n1,{CAFFEINE}\n")
    files, options = [tmp_path / "one.mgf", tmp_path / "two.mgf"], PrepareOptions(labels=tmp_path / "labels.csv")
    with pytest.raises(
        InputError, match=r"records of several files have the id '1' .of .*one.mgf and .*two.mgf"
    ) as caught:
        prepare(files, tmp_path / "store", options=options, workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "store").exists()
    prepare(files[:1], tmp_path / "first", options=options, workers=1)
    prepare(files[1:], tmp_path / "second", options=PrepareOptions(), workers=1)
    prepare([tmp_path / "first", tmp_path / "second"], tmp_path / "both", options=PrepareOptions(), workers=1)
    assert [s.precursor_mz for s in Store(tmp_path / "both") if s.smiles] == [195.0877]


def test_more_labels_are_another_store(tmp_path, mgf):
    path = tmp_path / "labels.csv"
    path.write_text(f"id,smiles\na,{CAFFEINE}\n")
    without = prepare([mgf], tmp_path / "without", options=PrepareOptions(), workers=1)
    assert "labels" not in without and "labels" not in without["options"]
    first = prepare([mgf], tmp_path / "one", options=PrepareOptions(labels=path), workers=1)
    path.write_text(f"id,smiles\na,{ASPIRIN}\n")
    second = prepare([mgf], tmp_path / "two", options=PrepareOptions(labels=path), workers=1)
    assert len({json.dumps(m["shards"]) for m in (without, first, second)}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,smiles\nx,CCO\n", "none of its 1 ids is that of a record .'x'"),
        ("name,smiles\na,CCO\n", "has no column 'spectrum_id'"),
        ("id,mass\na,7\n", "says nothing of molecules"),
        ("id,smiles\na,CCO\na,CCN\n", "lines 2 and 3 say different things of 'a'"),
        ("id,smiles\n,CCO\n", "line 2 has no id"),
    ],
)
def test_wrong_tables_are_refused_and_nothing_is_written(tmp_path, mgf, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        prepare([mgf], tmp_path / "store", options=PrepareOptions(labels=tmp_path / "labels.csv"), workers=1)
    assert "\n" not in str(caught.value) and not (tmp_path / "store").exists()


def test_labels_of_a_store_that_is_prepared_already_are_refused(tmp_path, mgf):
    (tmp_path / "labels.csv").write_text(f"id,smiles\na,{CAFFEINE}\n")
    prepare([mgf], tmp_path / "store", workers=1)
    with pytest.raises(InputError, match="is prepared already"):
        prepare(
            [tmp_path / "store"], tmp_path / "again", options=PrepareOptions(labels=tmp_path / "labels.csv"), workers=1
        )


def test_from_the_command_line(tmp_path, mgf):
    (tmp_path / "my labels.csv").write_text(f"id,smiles\na,{CAFFEINE}\n")
    words = ["prepare", str(mgf), "--out", str(tmp_path / "store"), "--workers", "1", "--labels"]
    assert cli.main([*words, str(tmp_path / "my labels.csv")]) == 0
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["labels"]["matched"] == 1
    assert load_config(PrepareOptions, "prepare").labels is None
