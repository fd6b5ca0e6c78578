"""A split with MassSpecGym's own folds: read from its table, by its identifiers, and audited like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ionbed.cli import main
from ionbed.errors import InputError
from ionbed.finetune.splits import SplitOptions, audit_path, split_store
from ionbed.spectra.molecules import standardise
from ionbed.spectra.split import EXCLUDED, Split
from ionbed.spectra.store import Store

COLUMNS = ("identifier", "mzs", "intensities", "smiles", "precursor_mz", "adduct", "instrument_type", "fold")
MOLECULES = ("CCCCCCO", "CCCCCCN", "CCOC(=O)CCO", "Nc1ccccc1C", "OC(=O)c1ccncc1", "CSCCC(N)C(=O)O")
FOLDS = ("train", "train", "val", "test", "test", "train")


def identifier(number: int) -> str:
    return f"MassSpecGymID{number:07d}"


def inchikey_block(smiles: str) -> str:
    molecule = standardise(smiles)
    assert molecule is not None
    return molecule.inchikey[:14]


def write_table(path: Path, folds: dict[int, str], *, of: tuple[str, ...] = MOLECULES) -> Path:
    """Write a table with two spectra of each molecule, 2 n and 2 n + 1, and the folds of these numbers."""
    lines = ["\t".join(COLUMNS)]
    for number, fold in folds.items():
        molecule = standardise(of[number // 2])
        assert molecule is not None
        peaks = [50.05 + 3.1 * number, 61.02 + 2.3 * number, 75.5 + number]
        lines.append(
            "\t".join(
                [
                    identifier(number), ",".join(f"{mz:.4f}" for mz in peaks), "0.4,1.0,0.7", of[number // 2],
                    f"{molecule.exact_mass + 1.007276:.4f}", "[M+H]+", "Orbitrap", fold,
                ]
            )
        )  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def by_molecule(*folds: str) -> dict[int, str]:
    return {2 * number + copy: fold for number, fold in enumerate(folds) for copy in range(2)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    table = write_table(folder / "MassSpecGym.tsv", by_molecule(*FOLDS))
    assert main(["prepare", str(table), "--out", str(folder / "store"), "--workers", "1"]) == 0
    assert len(Store(folder / "store").table(["spectrum_id"])) == 2 * len(MOLECULES)
    return folder / "store"


def split_with(store: Path, table: Path, out: Path) -> Split:
    split_store(store, out, SplitOptions("massspecgym", folds_from=table))
    return Split.load(out)


def test_every_molecule_is_in_the_fold_that_the_benchmark_puts_it_in(store, tmp_path):
    table = write_table(tmp_path / "folds.tsv", by_molecule(*FOLDS))
    split = split_with(store, table, tmp_path / "split.json")
    expected = {"train": "train", "val": "validation", "test": "test"}
    assert split.folds == {
        inchikey_block(smiles): expected[fold] for smiles, fold in zip(MOLECULES, FOLDS, strict=True)
    }
    assert (split.kind, split.unit, split.shares) == ("massspecgym", "molecule", ())
    assert split.options["file"] == "folds.tsv"
    assert audit_path(tmp_path / "split.json").is_file()

    other = write_table(tmp_path / "other.tsv", by_molecule(*FOLDS[:-1], "val"))
    assert split_with(store, other, tmp_path / "other.json").hash != split.hash


def test_test_spectra_that_the_store_does_not_have_are_told(store, tmp_path, caplog):
    caplog.set_level("INFO", logger="ionbed")
    folds = by_molecule(*FOLDS)
    split = split_with(store, write_table(tmp_path / "folds.tsv", folds), tmp_path / "split.json")
    assert (split.options["test_spectra"], split.options["test_spectra_in_store"]) == (4, 4)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]

    lost = write_table(tmp_path / "more.tsv", folds)
    row = lost.read_text().splitlines()[7].split("\t")
    assert row[-1] == "test"
    lost.write_text(lost.read_text() + "\t".join(["MassSpecGymID9999999", *row[1:]]) + "\n")
    split = split_with(store, lost, tmp_path / "lost.json")
    assert (split.options["test_spectra"], split.options["test_spectra_in_store"]) == (5, 4)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"{lost}: 4 of its 5 test spectra are in the store"
    ]


def test_the_command_makes_the_same_split(store, tmp_path):
    table = write_table(tmp_path / "folds.tsv", by_molecule(*FOLDS))
    out = tmp_path / "split.json"
    assert main(["split", str(store), "--out", str(out), "--kind", "massspecgym", "--folds-from", str(table)]) == 0
    assert Split.load(out).hash == split_with(store, table, tmp_path / "again.json").hash


def test_what_the_benchmark_does_not_hold_or_tears_apart_is_excluded(store, tmp_path, caplog):
    caplog.set_level("INFO", logger="ionbed")
    folds = by_molecule(*FOLDS[:-1])  # without the last molecule
    folds[1] = "test"  # the second spectrum of the first molecule
    del folds[3]  # one spectrum of the second molecule: the other says where it belongs
    split = split_with(store, write_table(tmp_path / "folds.tsv", folds), tmp_path / "split.json")
    blocks = [inchikey_block(smiles) for smiles in MOLECULES]
    assert [split.folds[block] for block in blocks] == [EXCLUDED, "train", "validation", "test", "test", EXCLUDED]
    assert split.options["molecules_in_two_folds"] == 1
    # Of the five test spectra of the file, that of the torn molecule is not asked about.
    assert (split.options["test_spectra"], split.options["test_spectra_in_store"]) == (5, 4)
    assert "4 of its 5 test spectra are in the store" in caplog.text
    assert (
        "9 of the store's 12 spectra are in it; excluded are 1 molecules that are not in it, and 1 that it has in"
        in (caplog.text)
    )


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        (by_molecule(*["train"] * 6), "6 molecules to train and 0 to test"),
        (by_molecule(*FOLDS[:-1], "holdout"), "the fold of 'MassSpecGymID0000010' is 'holdout'"),
    ],
)
def test_folds_that_make_no_split_are_refused(store, tmp_path, folds, said):
    table = write_table(tmp_path / "folds.tsv", folds)
    with pytest.raises(InputError, match=said):
        split_with(store, table, tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


def test_a_store_of_other_spectra_is_refused(store, tmp_path):
    table = write_table(tmp_path / "folds.tsv", {2: "train", 3: "test"})
    text = table.read_text().replace("MassSpecGymID", "Another")
    table.write_text(text)
    with pytest.raises(InputError, match="0 of the store's 12 spectra are in it"):
        split_with(store, table, tmp_path / "split.json")


def test_the_kind_and_the_file_belong_together():
    with pytest.raises(InputError, match="name it with --folds-from"):
        SplitOptions("massspecgym")
    with pytest.raises(InputError, match="leave out --folds-from"):
        SplitOptions("scaffold", folds_from=Path("folds.tsv"))
