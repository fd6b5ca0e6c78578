"""Files of molecules: identifiers beside names, and how such a file is told from one of spectra."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from rdkit import Chem

from ionbed.spectra.molecule_files import holds_molecules, read_molecules

SPECTRA = "BEGIN IONS\nTITLE=a\nPEPMASS=100.0\n50.0 1\nEND IONS\n"


@pytest.mark.parametrize(
    ("name", "text", "identifier", "called"),
    [
        ("a.tsv", "id\tname\tsmiles\nH1\tAlanine\tCC(N)C(=O)O\n", "H1", "Alanine"),
        ("b.csv", "Name,SMILES,HMDB_ID\nAlanine,CC(N)C(=O)O,H1\n", "H1", "Alanine"),
        ("c.tsv", "H1\tAlanine\tCC(N)C(=O)O\tInChI=1S/C3H7NO2\n", "H1", "Alanine"),
        ("d.tsv", "H1\tQNAYBMKLOCPYGJ-UHFFFAOYSA-N\tCC(N)C(=O)O\n", "", "H1"),
        ("e.tsv", "H1\tC3H7NO2\tCC(N)C(=O)O\n", "", "H1"),
        ("f.tsv", "id\tsmiles\nH1\tCC(N)C(=O)O\n", "", "H1"),
        ("g.smi", "CC(N)C(=O)O L alanine\n", "", "L alanine"),
        ("h.tsv", "id\tname\tsmiles\nH1\t\tCC(N)C(=O)O\n", "H1", ""),
    ],
)
def test_identifiers_are_read_beside_names(tmp_path: Path, name: str, text: str, identifier: str, called: str) -> None:
    (tmp_path / name).write_text(text)
    [entry] = read_molecules(tmp_path / name)
    assert (entry.identifier, entry.name, entry.smiles) == (identifier, called, "CC(N)C(=O)O")


def test_identifiers_of_an_sdf(tmp_path: Path) -> None:
    mol = Chem.MolFromSmiles("CC(N)C(=O)O")
    for key, value in {"DATABASE_ID": "H1", "GENERIC_NAME": "Alanine"}.items():
        mol.SetProp(key, value)
    with Chem.SDWriter(str(tmp_path / "m.sdf")) as writer:
        writer.write(mol)
    [entry] = read_molecules(tmp_path / "m.sdf")
    assert (entry.identifier, entry.name) == ("H1", "Alanine")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.smi", b"CCO ethanol\n", True),
        ("a.SDF", b"", True),
        ("a.smi.gz", gzip.compress(b"CCO ethanol\n", mtime=0), True),
        ("a.tsv", b"name\tsmiles\nethanol\tCCO\n", True),
        ("a.tsv.gz", gzip.compress(b"name\tsmiles\nethanol\tCCO\n", mtime=0), True),
        ("a.tsv", b"identifier\tmzs\tintensities\tsmiles\nx\t50.0\t1.0\tCCO\n", False),
        ("a.tsv.gz", gzip.compress(b"identifier\tmzs\tintensities\tsmiles\nx\t50.0\t1.0\tCCO\n", mtime=0), False),
        ("a.txt", SPECTRA.encode(), False),
        ("a.mgf", SPECTRA.encode(), False),
        ("a.unknown", b"CCO ethanol\n", False),
    ],
)
def test_a_file_of_molecules_is_told_from_one_of_spectra(
    tmp_path: Path, name: str, content: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert holds_molecules(tmp_path / name) is expected


def test_a_folder_holds_spectra_and_what_is_not_there_is_as_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "x.smi").mkdir()
    assert not holds_molecules(tmp_path / "x.smi")
    assert holds_molecules(tmp_path / "nowhere.smi")
    assert holds_molecules(tmp_path / "nowhere.csv")
    assert not holds_molecules(tmp_path / "nowhere.mgf")
