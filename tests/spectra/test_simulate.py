"""`ionbed simulate`: files of molecules in, predicted spectra out, everything skipped counted and everything marked."""

from __future__ import annotations

from pathlib import Path

import pytest
from rdkit import Chem

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.molecule_files import read_molecules
from ionbed.spectra.simulate import simulate, simulate_spectra


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_one_spectrum_per_ion_and_energy() -> None:
    spectra = list(simulate_spectra([("Tyrosine", "NC(Cc1ccc(O)cc1)C(=O)O")], energies=(10, 30)))
    assert [(s.adduct, s.collision_energy) for s in spectra] == [
        ("[M+H]+", 10), ("[M+H]+", 30), ("[M-H]-", 10), ("[M-H]-", 30),
    ]  # fmt: skip
    assert all(s.predicted and s.name == "Tyrosine" and s.formula == "C9H11NO3" for s in spectra)
    assert len({s.spectrum_id for s in spectra}) == 4


def test_the_writing_of_a_structure_does_not_matter() -> None:
    one, other = (
        list(simulate_spectra([("", smiles)], energies=(20,)))
        for smiles in ("Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1", "Nc1ccc(cc1)S(=O)(=O)Nc1noc(C)c1")
    )
    for a, b in zip(one, other, strict=True):
        assert a.mz.tolist() == b.mz.tolist() and a.intensity.tolist() == b.intensity.tolist()


@pytest.mark.parametrize(
    ("smiles", "adducts"),
    [
        ("C[N+](C)(C)CCO", {"[M]+"}),  # a permanent charge
        ("CCCCCCCC(=O)O", {"[M+H]+", "[M-H]-"}),
        ("CCN(CC)CC", {"[M+H]+"}),  # no acid
        ("CCCCCC", set()),  # nothing that holds a charge
        ("C[N+](C)(C)CC(=O)[O-]", {"[M+H]+"}),  # a zwitterion has given its proton already
    ],
)
def test_only_sensible_ions(smiles: str, adducts: set[str]) -> None:
    assert {s.adduct for s in simulate_spectra([("x", smiles)], energies=(20,))} == adducts


def test_file_to_library_and_back(tmp_path: Path) -> None:
    molecules = written(
        tmp_path / "m.smi", "CC(N)C(=O)O Alanine\nnot-a-molecule odd\nOC(=O)c1ccccc1 benzoic acid\n"
        "C(C)(N)C(O)=O again\nCC(=O)O.CCN salt\n[13CH3]C(=O)O labelled\nCCCCCC hexane\n",
    )  # fmt: skip
    counts = simulate(molecules, tmp_path / "out.msp", energies=(20,))
    assert counts["read"] == 7 == counts["predicted"] + sum(counts["skipped"].values())
    assert counts["skipped"] == {
        "unreadable-structure": 1, "duplicate": 1, "several-parts": 1, "isotope-label": 1, "no-such-ion": 1,
    }  # fmt: skip
    read = ionbed.read(tmp_path / "out.msp")
    spectra = list(read)
    assert len(spectra) == counts["spectra"] == read.report.kept
    assert {s.name for s in spectra} == {"Alanine", "benzoic acid"}
    expected = {
        s.spectrum_id: s for s in simulate_spectra([("", "CC(N)C(=O)O"), ("", "OC(=O)c1ccccc1")], energies=(20,))
    }
    for spectrum in spectra:
        assert spectrum.predicted and spectrum.polarity in (1, -1)
        assert spectrum.precursor_mz == pytest.approx(expected[spectrum.spectrum_id].precursor_mz, abs=1e-9)
        assert set(spectrum.mz.tolist()) <= set(expected[spectrum.spectrum_id].mz.tolist())
    text = (tmp_path / "out.msp").read_text()
    assert text.count("Predicted: true") == text.count("predicted spectrum, by ionbed") == len(spectra)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "name\tsmiles\nAlanine\tCC(N)C(=O)O\n"),
        ("b.csv", "SMILES,id,Name\nCC(N)C(=O)O,7,Alanine\n"),
        ("c.csv", "Name;SMILES\nAlanine;CC(N)C(=O)O\n"),
        ("d.tsv", "Alanine\tCC(N)C(=O)O\n"),
        ("e.smi", "\ufeffCC(N)C(=O)O\tAlanine\n"),
        ("f.smi", "# a comment\nCC(N)C(=O)O  Alanine\n\n"),
        ("g.csv", 'smiles,name\nCC(N)C(=O)O,"Alanine"\n'),
    ],
)
def test_columns_are_found_by_header_or_content(tmp_path: Path, name: str, text: str) -> None:
    [entry] = read_molecules(written(tmp_path / name, text))
    assert (entry.name, entry.smiles) == ("Alanine", "CC(N)C(=O)O")


def test_sdf_with_a_broken_record(tmp_path: Path) -> None:
    path = tmp_path / "m.sdf"
    writer = Chem.SDWriter(str(path))
    for name, smiles in (("Alanine", "CC(N)C(=O)O"), ("Glycine", "NCC(=O)O")):
        mol = Chem.MolFromSmiles(smiles)
        mol.SetProp("_Name", name)
        writer.write(mol)
    writer.close()
    first, second = path.read_text().split("$$$$\n")[:2]
    path.write_text(first + "$$$$\nbroken\n\n\nno counts line\n$$$$\n" + second + "$$$$\n")
    entries = read_molecules(path)
    assert [(e.name, e.smiles is None) for e in entries] == [("Alanine", False), ("", True), ("Glycine", False)]
    assert simulate(path, tmp_path / "o.msp", energies=(20,))["skipped"] == {"unreadable-structure": 1}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.smi", "", "is empty"),
        ("b.tsv", "name\tvalue\nhello\t7?\n", "no column holds SMILES"),
        ("c.smi", "zzz one\nyyy two\n", "no column holds SMILES"),
        ("d.tsv", "smiles\tname\nzzz\tone\n", "none of 1 molecules"),
        ("e.smi", "CC\0O", "not a text file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        simulate(written(tmp_path / name, text), tmp_path / "o.msp")
    assert not (tmp_path / "o.msp").exists()


def test_bad_words(tmp_path: Path) -> None:
    molecules = written(tmp_path / "m.smi", "CCN amine\n")
    with pytest.raises(InputError, match="no such file"):
        simulate(tmp_path / "missing.smi", tmp_path / "o.msp")
    with pytest.raises(InputError, match=r"\[M\+Na\]\+"):
        simulate(molecules, tmp_path / "o.msp", adducts=("[M+Na]+",))
    with pytest.raises(InputError, match="collision energy"):
        simulate(molecules, tmp_path / "o.msp", energies=(0.0,))


def test_the_molecules_are_not_written_over(tmp_path: Path) -> None:
    molecules = written(tmp_path / "m.smi", "CCCCCCCC(=O)O octanoic acid\n")
    with pytest.raises(InputError, match="is the input itself"):
        simulate(molecules, molecules)
    assert "octanoic" in molecules.read_text()
