"""The commands that keep an index: what they say, what they refuse, and what is on disk afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from ionbed import cli
from ionbed.embeddings.index import Index
from ionbed.spectra.writers import write_mgf


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    from ionbed.encoder.configuration_ionbed import IonbedConfig
    from ionbed.encoder.modeling_ionbed import IonbedModel

    folder = tmp_path_factory.mktemp("encoder")
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4)).save_pretrained(folder)
    return folder


@pytest.fixture
def files(library, tmp_path) -> Path:
    for name, part in (("first", library[:40]), ("second", library[40:]), ("again", library[38:42])):
        write_mgf(part, tmp_path / f"{name}.mgf")
    return tmp_path


def run(capsys, caplog, *words: object) -> tuple[int, str, str]:
    """Run a command; return its exit code, what it said and the last line of stderr."""
    caplog.clear()
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out + caplog.text, err.strip().splitlines()[-1] if err.strip() else ""


def test_an_index_is_built_appended_to_deleted_from_compacted_and_verified(capsys, caplog, files, encoder):
    caplog.set_level("INFO", logger="ionbed")
    folder = files / "index"
    build = ("index", "build", files / "first.mgf", "--out", folder, "--model", encoder)
    code, said, _ = run(capsys, caplog, *build, "--dry-run")
    assert code == 0 and "40 spectra, searched as flat: " in said and not folder.exists()
    assert run(capsys, caplog, *build)[0] == 0
    code, said, _ = run(capsys, caplog, "index", "append", folder, files / "second.mgf")
    assert code == 0 and "20 spectra appended" in said
    code, _, error = run(capsys, caplog, "index", "append", folder, files / "again.mgf")
    assert code == 2 and "already, and 3 more of the new; pass --replace" in error
    code, said, _ = run(capsys, caplog, "index", "append", folder, files / "again.mgf", "--replace")
    assert code == 0 and "4 spectra appended, 4 replaced" in said
    (files / "ids.txt").write_text("lib-1-1\n\nlib-2-2\n")
    code, said, _ = run(capsys, caplog, "index", "delete", folder, "--ids", files / "ids.txt", "--dry-run")
    assert code == 0 and "2 spectra would be deleted" in said and len(Index.open(folder)) == 60
    code, said, _ = run(capsys, caplog, "index", "delete", folder, "--ids", files / "ids.txt")
    assert code == 0 and "2 spectra deleted" in said
    code, said, _ = run(
        capsys, caplog, "index", "delete", folder, "--where", "polarity=-1", "--where", "retention_time="
    )
    assert code == 0 and f"{len_of(said)} spectra deleted" in said
    code, said, _ = run(capsys, caplog, "index", "info", folder)
    assert code == 0 and "segments " in said and "deleted rows" in said and "kind: flat, recall_at_10: 1.0000" in said
    left = len(Index.open(folder))
    code, said, _ = run(capsys, caplog, "index", "compact", folder)
    assert code == 0 and f"{left} spectra in one segment, {64 - left} rows dropped" in said
    code, said, _ = run(capsys, caplog, "index", "verify", folder)
    assert code == 0 and "files as written" in said
    opened = Index.open(folder)
    assert len(opened) == opened.num_rows == left
    assert [Path(entry["path"]).name for entry in opened.manifest["inputs"]] == ["first.mgf", "second.mgf", "again.mgf"]
    path = folder / "segments/4/vectors.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    code, _, error = run(capsys, caplog, "index", "verify", folder)
    assert code == 2 and f"{path}: " in error


def len_of(said: str) -> str:
    return said.split(" spectra deleted")[0].split()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delete", "INDEX"], "by --ids or by --where"),
        (["delete", "INDEX", "--ids", "none.txt"], "none.txt: cannot be read"),
        (["delete", "INDEX", "--ids", "empty.txt"], "holds no spectrum id"),
        (["delete", "INDEX", "--where", "license"], "should be COLUMN=VALUE"),
        (["delete", "INDEX", "--where", "colour=red"], "no column 'colour'"),
        (["append", "INDEX", "none.mgf"], "no such file"),
        (["append", "INDEX", "INDEX"], "is the input itself"),
        (["append", "none", "first.mgf"], "no such folder"),
        (["compact", "first.mgf"], "is a file"),
        (["build", "first.mgf", "--out", "other", "--kind", "hnsw"], "hnsw needs at least"),
        (["build", "molecules.smi", "--out", "other", "--kind", "hnsw"], "leave --kind hnsw out"),
        (["build", "molecules.smi", "--out", "other", "--dry-run"], "leave --dry-run out"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(capsys, caplog, files, library, model, encoder, words, message):
    Index.build(model, library[:5]).save(files / "INDEX")
    (files / "empty.txt").write_text("\n")
    (files / "molecules.smi").write_text("CCO ethanol\n")
    given = [files / word if "." in word or word in ("INDEX", "none", "other") else word for word in words]
    named = ["--model", encoder] if words[0] == "build" else []
    code, _, error = run(capsys, caplog, "index", *given, *named)
    assert code == 2 and message in error
    assert not (files / "other").exists()


def test_words_that_exclude_each_other_are_told_without_ceremony(capsys, caplog, files):
    code, _, error = run(capsys, caplog, "index", "delete", files / "library")
    assert code == 2 and error.startswith("ionbed: name the spectra by --ids or by --where, and not by both")


def test_an_index_of_structures_is_not_changed_in_place(capsys, caplog, files, monkeypatch):
    from ionbed.embeddings.structure_index import StructureIndex

    from .test_structure_index import SMILES, TowerModel

    StructureIndex.build(TowerModel(), SMILES).save(files / "structures")
    for words in (["compact"], ["delete", "--where", "license=CC0"]):
        code, _, error = run(capsys, caplog, "index", words[0], files / "structures", *words[1:])
        assert code == 2 and "is an index of structures, which is not changed; build it again" in error
    code, _, error = run(capsys, caplog, "index", "append", files / "structures", files / "first.mgf")
    assert code == 2 and "is an index of structures" in error
    assert run(capsys, caplog, "index", "verify", files / "structures")[0] == 0
