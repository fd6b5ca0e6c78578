"""Ten thousand damaged records of each text format, each between two good ones, which must come out as they went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ionbed
from ionbed.spectra.readers import blocks, read_records
from ionbed.spectra.record import RawRecord

from .mutation import mutate

NUM_FILES, MUTATED_PER_FILE = 50, 200
STRUCTURES = [("CC(N)C(=O)O", "C3H7NO2", 90.055), ("c1ccccc1O", "C6H6O", 95.0491), ("CCO", "C2H6O", 47.0491)]


def peak_lines(rng: np.random.Generator, columns: int) -> list[str]:
    peaks = np.round(np.sort(rng.uniform(50, 900, (int(rng.integers(1, 12)), columns)), axis=0), 4)
    return [" ".join(map(str, peak)) for peak in peaks.tolist()]


def mgf(name: str, rng: np.random.Generator, gap: str) -> str:
    smiles, formula, mz = STRUCTURES[rng.integers(3)]
    head = [f"TITLE={name}", f"PEPMASS={mz} 1000", "CHARGE=1+", "IONMODE=positive", f"SMILES={smiles}"]
    return "\n".join(["BEGIN IONS", *head, f"FORMULA={formula}", *peak_lines(rng, 2), "END IONS", gap])


def msp(name: str, rng: np.random.Generator, gap: str) -> str:
    smiles, formula, mz = STRUCTURES[rng.integers(3)]
    head = [f"Name: {name}", f"Synon: {smiles} as it is", "Synon: other", f"DB#: {name}", f"SMILES: {smiles}"]
    peaks = peak_lines(rng, 2)
    rest = [f"PrecursorMZ: {mz}", f"Formula: {formula}", "Comments: a: b", f"Num Peaks: {len(peaks)}", *peaks, gap]
    return "\n".join([*head, *rest])


def riken(name: str, rng: np.random.Generator, gap: str) -> str:
    smiles, formula, mz = STRUCTURES[rng.integers(3)]
    peaks = peak_lines(rng, 2)
    head = [f"SPECTRUMID: {name}", f"SMILES: {smiles}", f"FORMULA: {formula}", f"NAME: {name}", f"PRECURSORMZ: {mz}"]
    return "\n".join([*head, "IONMODE: Positive", f"NUM PEAKS: {len(peaks)}", *peaks, gap])


def massbank(name: str, rng: np.random.Generator, gap: str) -> str:
    smiles, formula, mz = STRUCTURES[rng.integers(3)]
    peaks = peak_lines(rng, 3)
    lines = (
        f"ACCESSION: {name}", f"RECORD_TITLE: {name}; LC-ESI; MS2", "DATE: 2020.01.01", "LICENSE: CC BY",
        f"CH$NAME: {name}", f"CH$FORMULA: {formula}", f"CH$SMILES: {smiles}", "AC$INSTRUMENT_TYPE: LC-ESI-QFT",
        "AC$MASS_SPECTROMETRY: MS_TYPE MS2", "AC$MASS_SPECTROMETRY: ION_MODE POSITIVE",
        f"MS$FOCUSED_ION: PRECURSOR_M/Z {mz}", f"PK$NUM_PEAK: {len(peaks)}", "PK$PEAK: m/z int. rel.int.",
        *("  " + peak for peak in peaks), "//", gap,
    )  # fmt: skip
    return "\n".join(lines)


def content(record: RawRecord) -> tuple[bytes, bytes, str]:
    return record.mz.tobytes(), record.intensity.tobytes(), record.fields["precursor_mz"]


@pytest.mark.parametrize(
    ("write", "extension", "gap", "share_told_apart"),
    [
        (mgf, "mgf", "", 1.0),
        # Nothing marks the start of an MSP record: of one that was cut in its first lines, a line that the next one
        # does not have can end up in that.
        (msp, "msp", "\n", 0.95),
        (riken, "msp", "\n", 0.98),
        (massbank, "txt", "", 1.0),
    ],
    ids=["MGF", "MSP", "MSP of RIKEN", "MassBank"],
)
def test_ten_thousand_mutated_records_cost_no_good_one(
    write: Callable[[str, np.random.Generator, str], str],
    extension: str,
    gap: str,
    share_told_apart: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / f"library.{extension}"
    num_records = num_kept = num_told_apart = 0
    for seed in range(NUM_FILES):
        rng = np.random.default_rng(seed)
        names = [f"good-{seed}-{number}" for number in range(MUTATED_PER_FILE)]
        good = [write(name, rng, gap).encode() for name in names]
        bad = [mutate(write(name.replace("good", "bad"), rng, gap).encode(), rng) for name in names]
        path.write_bytes(b"".join(good))
        expected = list(read_records(path))
        assert [record.native_id for record in expected] == names

        path.write_bytes(b"".join(part for pair in zip(good, bad, strict=True) for part in pair) + good[0])
        with monkeypatch.context() as patch:  # block borders anywhere
            patch.setattr(blocks, "BLOCK_BYTES", int(rng.integers(300, 60_000)))
            records = list(read_records(path))
        assert [record.position for record in records] == list(range(1, len(records) + 1)), f"seed {seed}"
        found = {
            content(record): record for record in records if not record.problem and "precursor_mz" in record.fields
        }
        lost = [record.native_id for record in expected if content(record) not in found]
        assert not lost, f"seed {seed}"
        same = [(record, found[content(record)]) for record in expected]
        num_told_apart += sum((a.native_id, a.fields) == (b.native_id, b.fields) for a, b in same)

        reader = ionbed.read(path)
        assert sum(1 for _ in reader) == reader.report.kept
        assert reader.report.read == reader.report.kept + sum(reader.report.dropped.values())
        assert abs(reader.report.read - len(records)) <= 2, f"seed {seed}"
        num_records += len(records)
        num_kept += reader.report.kept
    num_mutated = NUM_FILES * MUTATED_PER_FILE
    assert num_told_apart >= share_told_apart * num_mutated
    assert abs(num_records - 2 * num_mutated - NUM_FILES) < 0.4 * num_mutated  # some fall into two, or vanish
    assert num_kept > 1.2 * num_mutated  # what is little damaged is still read
