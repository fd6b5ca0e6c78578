"""Real files, where IONBED_DATA names their folder: what the readers count against a plain search of the text."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import ionbed
from ionbed.spectra.prepare import prepare
from ionbed.spectra.readers import read_records
from ionbed.spectra.store import Store

DATA = os.environ.get("IONBED_DATA", "")
FOLDER = Path(DATA)
FILES = sorted([*FOLDER.glob("raw/*"), *FOLDER.glob("libraries/*")]) if DATA else []

pytestmark = [
    pytest.mark.data,
    pytest.mark.timeout(900),  # the whole archive, on a machine that may be busy
    pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data"),
]


@dataclass
class Found:
    """What a search of a file's text finds: MS level ('' where none is stated) and number of peaks of each record."""

    levels: list[str] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def search(path: Path) -> Found:
    text = path.read_text(encoding="utf-8", errors="replace")
    found = {".mgf": in_mgf, ".msp": in_msp, ".mzml": in_mzml, ".mzxml": in_mzxml, ".json": in_gnps_json}[
        path.suffix.lower()
    ](text)
    levels, peaks = zip(*found, strict=True)
    return Found(list(levels), list(peaks))


def in_mgf(text: str) -> Iterator[tuple[str, int]]:
    for block in text.split("BEGIN IONS")[1:]:
        level = re.search(r"^MSLEVEL=(\d)", block, re.MULTILINE)
        yield level[1] if level else "", len(re.findall(r"^\d", block, re.MULTILINE))


def in_msp(text: str) -> Iterator[tuple[str, int]]:
    for block in re.split(r"^name:", text, flags=re.MULTILINE | re.IGNORECASE)[1:]:
        level = re.search(r"^spectrum_type: MS(\d)|ms level=MS(\d)", block, re.MULTILINE | re.IGNORECASE)
        peaks = re.search(r"^num peaks: (\d+)", block, re.MULTILINE | re.IGNORECASE)
        assert peaks is not None
        yield (level[1] or level[2]) if level else "", int(peaks[1])


def in_mzml(text: str) -> Iterator[tuple[str, int]]:
    for block in re.split(r"<spectrum(?=\s)", text)[1:]:
        level = re.search(r'name="ms level" value="(\d)"', block)
        peaks = re.search(r'defaultArrayLength="(\d+)"', block)
        assert level is not None
        assert peaks is not None
        yield level[1], int(peaks[1])


def in_gnps_json(text: str) -> Iterator[tuple[str, int]]:
    for entry in json.loads(text):
        yield entry["ms_level"], len(json.loads(entry["peaks_json"]))


def in_mzxml(text: str) -> Iterator[tuple[str, int]]:
    for block in re.split(r"<scan(?=\s)", text)[1:]:
        level, peaks = re.search(r'msLevel="(\d)"', block), re.search(r'peaksCount="(\d+)"', block)
        assert level is not None
        assert peaks is not None
        yield level[1], int(peaks[1])


def test_the_folder_holds_what_it_should() -> None:
    assert (FOLDER / "massbank-records.tar.gz").is_file(), f"IONBED_DATA names {FOLDER}"
    assert {path.suffix.lower() for path in FILES} == {".json", ".mgf", ".msp", ".mzml", ".mzxml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_record_and_every_peak_is_read(path: Path) -> None:
    found = search(path)
    records = list(read_records(path))
    assert [record.problem for record in records] == [None] * len(found.levels)
    assert [record.fields.get("ms_level", "") for record in records] == found.levels
    wanted = [peaks if level in ("", "2") else 0 for level, peaks in zip(found.levels, found.peaks, strict=True)]
    assert [len(record) for record in records] == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_spectrum_of_the_second_level_is_kept(path: Path) -> None:
    levels = search(path).levels
    reader = ionbed.read(path)
    kept = len(list(reader))
    others = sum(level not in ("", "2") for level in levels)
    assert (reader.report.read, kept) == (len(levels), len(levels) - others)
    assert dict(reader.report.dropped) == ({"ms-level": others} if others else {})


def test_gnps_json_is_as_a_json_parser_and_as_matchms_read_it() -> None:
    """matchms sorts by m/z; the peaks are the same."""
    path = FOLDER / "libraries" / "gnps_spectra.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    records = list(read_records(path))
    assert [record.native_id for record in records] == [entry["spectrum_id"] for entry in entries]
    for record, entry in zip(records, entries, strict=True):
        assert np.stack([record.mz, record.intensity], axis=1).tolist() == json.loads(entry["peaks_json"])
    importing = pytest.importorskip("matchms.importing")
    for record, spectrum in zip(records, importing.load_from_json(str(path)), strict=True):
        order = np.argsort(record.mz, kind="stable")
        assert np.array_equal(record.mz[order], spectrum.peaks.mz)
        assert np.array_equal(record.intensity[order], spectrum.peaks.intensities)
        assert float(record.fields["precursor_mz"]) == spectrum.get("precursor_mz")
        assert record.fields["name"] == spectrum.get("compound_name")


@pytest.fixture(scope="module")
def massbank(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of the whole archive, made once: some 40 s on two cores."""
    out = tmp_path_factory.mktemp("massbank") / "store"
    prepare([FOLDER / "massbank-records.tar.gz"], out)
    return Store(out)


@pytest.fixture(scope="module")
def archive() -> dict[str, Any]:
    """Return what a search of the records' text finds."""
    found: dict[str, Any] = {"records": 0, "deprecated": 0, "other level": 0, "no unit": set(), "structure": set()}
    with tarfile.open(FOLDER / "massbank-records.tar.gz", "r|gz") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            text = stream.read() if stream and member.name.endswith(".txt") else b""
            accession = re.match(rb"ACCESSION: (\S+)", text)
            if accession is None:
                continue
            found["records"] += 1
            if b"\nDEPRECATED:" in text:
                found["deprecated"] += 1
            elif b"MS_TYPE MS2\n" not in text:
                found["other level"] += 1
            if re.search(rb"\nAC\$CHROMATOGRAPHY: RETENTION_TIME +[\d.]+\n", text):
                found["no unit"].add(accession[1].decode())
            if key := re.search(rb"\nCH\$LINK: INCHIKEY ([A-Z]{14})-", text):
                found["structure"].add(key[1].decode())
    return found


def test_massbank_counts_add_up(massbank: Store, archive: dict[str, Any]) -> None:
    counts = massbank.manifest["counts"]
    assert counts["read"] == archive["records"] == 116_693
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"]["deprecated"] == archive["deprecated"]
    assert counts["dropped"]["ms-level"] == archive["other level"]
    assert set(counts["dropped"]) == {
        "deprecated", "duplicate", "ms-level", "near-duplicate", "no-precursor-mz", "profile",
    }  # fmt: skip
    with open(massbank.folder / "dropped.tsv", encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == 1 + sum(counts["dropped"].values())


def test_massbank_spectra_are_kept(massbank: Store) -> None:
    counts = massbank.manifest["counts"]
    assert counts["kept"] == sum(shard["spectra"] for shard in massbank.manifest["shards"])
    assert counts["kept"] + counts["dropped"]["duplicate"] + counts["dropped"]["near-duplicate"] == 92_546
    assert counts["dropped"]["near-duplicate"] < 100  # a library is little repeated
    table = massbank.table(["spectrum_id", "precursor_mz", "ms_level"])
    assert len(set(table["spectrum_id"].to_pylist())) == len(table) == counts["kept"]
    assert pc.min(table["precursor_mz"]).as_py() > 0
    assert set(table["ms_level"].to_pylist()) == {2}


def test_massbank_retention_times_without_unit_are_null(massbank: Store, archive: dict[str, Any]) -> None:
    table = massbank.table(["native_id", "retention_time"])
    unclear = pc.is_in(table["native_id"], value_set=pa.array(sorted(archive["no unit"])))
    times = table.filter(unclear)["retention_time"]
    assert massbank.manifest["counts"]["repaired"]["retention-time-without-unit"] == len(times) > 10_000
    assert times.null_count == len(times)


def test_massbank_structures_are_those_written(massbank: Store, archive: dict[str, Any]) -> None:
    """Nearly every first InChIKey block stands so in the records; the others are written beside another structure."""
    blocks = {key[:14] for key in massbank.table(["inchikey"])["inchikey"].to_pylist() if key}
    assert len(blocks) > 6_700
    assert len(blocks - archive["structure"]) < 0.02 * len(blocks)
