"""Every trap that text files are known to set, for each format in which it can occur, from the file to the spectrum."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ionbed
from ionbed.spectra.readers import Piece, read_records
from ionbed.spectra.readers.blocks import RecordFormat, parse_piece
from ionbed.spectra.readers.massbank import MASSBANK
from ionbed.spectra.readers.mgf import MGF
from ionbed.spectra.readers.msp import MSP
from ionbed.spectra.spectrum import Spectrum

PEAKS = ("50.5 10", "60.25 20.5")
Write = Callable[..., str]


def mgf(*peaks: str, name: str = "a", charge: str = "1+", mz: str = "200.1", mode: str = "Positive") -> str:
    head = (f"TITLE={name}", f"PEPMASS={mz}", f"CHARGE={charge}", f"IONMODE={mode}")
    return "\n".join(("BEGIN IONS", *head, *peaks, "END IONS", "", ""))


def msp(
    *peaks: str, name: str = "a", charge: str = "1+", mz: str = "200.1", mode: str = "Positive", stated: str = ""
) -> str:
    head = (f"Name: {name}", f"DB#: {name}", f"PrecursorMZ: {mz}", f"Charge: {charge}", f"Ion_mode: {mode}")
    return "\n".join((*head, f"Num Peaks: {stated or len(peaks)}", *peaks, "", ""))


def massbank(
    *peaks: str, name: str = "a", charge: str = "1+", mz: str = "200.1", mode: str = "POSITIVE", stated: str = ""
) -> str:
    adduct = {"1+": "[M+H]+"}.get(charge, charge)
    return "\n".join(
        (
            f"ACCESSION: {name}", "RECORD_TITLE: x", f"CH$NAME: {name}", "AC$MASS_SPECTROMETRY: MS_TYPE MS2",
            f"AC$MASS_SPECTROMETRY: ION_MODE {mode}", f"MS$FOCUSED_ION: PRECURSOR_M/Z {mz}",
            f"MS$FOCUSED_ION: PRECURSOR_TYPE {adduct}", f"PK$NUM_PEAK: {stated or len(peaks)}",
            "PK$PEAK: m/z int. rel.int.", *("  " + peak for peak in peaks), "//", "",
        )
    )  # fmt: skip


FORMATS = pytest.mark.parametrize("write", [mgf, msp, massbank])
EXTENSIONS = {"mgf": "mgf", "msp": "msp", "massbank": "txt"}


def read(folder: Path, write: Write, text: str | bytes) -> tuple[list[Spectrum], ionbed.spectra.readers.ReadReport]:
    path = folder / f"library.{EXTENSIONS[write.__name__]}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    reader = ionbed.read(path)
    spectra = list(reader)
    assert reader.report.read == reader.report.kept + sum(reader.report.dropped.values())
    return spectra, reader.report


def assert_good(spectrum: Spectrum) -> None:
    assert (spectrum.precursor_mz, spectrum.charge, spectrum.polarity) == (200.1, 1, 1)
    np.testing.assert_array_equal(spectrum.mz, np.float32([50.5, 60.25]))
    np.testing.assert_array_equal(spectrum.intensity, np.float32([10 / 20.5, 1]))


@FORMATS
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b" \n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text.replace(b" 10", b"\t10").replace(b" 20.5", b"\t20.5"),
        gzip.compress,
    ],
    ids=["CRLF", "CR", "BOM", "BOM and CRLF", "trailing blanks", "no last line end", "tabs", "gzip"],
)
def test_line_ends_and_encodings_of_the_file(write: Write, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    text = write(*PEAKS, name="a") + write(*PEAKS, name="b")
    spectra, report = read(tmp_path, write, change(text.encode()))
    assert [s.spectrum_id for s in spectra] == ["a", "b"]
    assert not report.repaired
    for spectrum in spectra:
        assert_good(spectrum)


@FORMATS
def test_latin_1(write: Write, tmp_path: Path) -> None:
    text = write(*PEAKS, name="caf\xe9").encode("latin-1") + write(*PEAKS, name="\u03b1").encode()
    spectra, report = read(tmp_path, write, text)
    assert [s.spectrum_id for s in spectra] == ["caf\xe9", "\u03b1"]
    assert dict(report.repaired) == {"not-utf-8": 1}
    for spectrum in spectra:
        assert_good(spectrum)


@FORMATS
@pytest.mark.parametrize(
    ("peaks", "repairs"),
    [
        (("60.25 20.5", "50.5 10"), ()),
        ((*PEAKS, "70.5 0", "71.5 0.0"), ()),
        ((*PEAKS, "70.5 -3"), ()),
        (("-40.5 7", "0 7", *PEAKS), ()),
        (("50.5 4", "50.5 6", "60.25 20.5"), ()),
        ((*PEAKS, "70.5 nan"), ("bad-peak",)),
        ((*PEAKS, "NaN 5"), ("bad-peak",)),
        (("inf 5", "70 -inf", *PEAKS), ("bad-peak",)),
        ((*PEAKS, "70.5 1e999"), ("bad-peak",)),
        ((*PEAKS, "70.5 1.#QNAN"), ("bad-peak",)),
        (("50,5 10", "60,25 20,5"), ("decimal-comma",)),
        (("50.5 10 C4H2+ 0.3 ppm", "60.25 20.5"), ()),
        (("50.5 10 1+", "60.25 20.5 2+"), ()),
        (('50.5 10 "y2/0.1, b3"', '60.25 20.5 "?"'), ()),
        (("5.05E1 1.0e+1", "+6.025e+01 2.05E1"), ()),
        (("", "50.5 10", "", "60.25 20.5"), ()),
    ],
    ids=lambda value: "; ".join(value),
)
def test_peaks(write: Write, peaks: tuple[str, ...], repairs: tuple[str, ...], tmp_path: Path) -> None:
    stated = {} if write is mgf else {"stated": str(sum(map(bool, peaks)))}
    spectra, report = read(tmp_path, write, write(*peaks, **stated) + write(*PEAKS))
    assert len(spectra) == 2
    for spectrum in spectra:
        assert_good(spectrum)
    assert dict(report.repaired) == dict.fromkeys(repairs, 1)


@FORMATS
@pytest.mark.parametrize(
    ("peaks", "reason"),
    [
        ((), "no-peaks"),
        (("50.5", "60.25"), "bad-peak-line"),
        (("50.5 10", "60.25"), "bad-peak-line"),
        (("50.5 10", "60.25 abc"), "bad-peak-line"),
        (("50.5 10", "60.25 20.5.1"), "bad-peak-line"),
        (("50.5 10", "60.25 1_0"), "bad-peak-line"),
        (("50.5 nan", "60.25 inf"), "too-few-peaks"),
        (("50.5 0", "60.25 -1"), "too-few-peaks"),
    ],
    ids=lambda value: "; ".join(value) if isinstance(value, tuple) else value,
)
def test_peaks_that_cost_their_record_only(write: Write, peaks: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    text = write(*PEAKS, name="a") + write(*peaks, name="bad") + write(*PEAKS, name="b")
    spectra, report = read(tmp_path, write, text)
    assert [s.spectrum_id for s in spectra] == ["a", "b"]
    assert dict(report.dropped) == {reason: 1}
    for spectrum in spectra:
        assert_good(spectrum)


@pytest.mark.parametrize("write", [mgf, msp])
@pytest.mark.parametrize(
    ("written", "mode", "charge", "polarity"),
    [
        ("1+", "", 1, 1),
        ("+1", "", 1, 1),
        ("1-", "", -1, -1),
        ("-1", "", -1, -1),
        ("-1-", "", -1, -1),
        ("2+", "", 2, 1),
        ("++", "", 2, 1),
        ("1", "Positive", 1, 1),
        ("1", "Negative", -1, -1),
        ("1", "", None, None),  # its sign is not known
        ("2+ and 3+", "Positive", None, 1),  # it is one of them: which is not known
        ("2+,3+", "Positive", None, 1),
        ("0", "Positive", None, 1),
        ("N/A", "Positive", None, 1),
        ("N/A", "N/A", None, None),
        ("999999999999999999999", "Positive", None, 1),
    ],
)
def test_charges(
    write: Write, written: str, mode: str, charge: int | None, polarity: int | None, tmp_path: Path
) -> None:
    spectra, _ = read(tmp_path, write, write(*PEAKS, charge=written, mode=mode) + write(*PEAKS))
    assert [(s.charge, s.polarity) for s in spectra] == [(charge, polarity), (1, 1)]


@FORMATS
@pytest.mark.parametrize("mz", ["N/A", "0", "-1", "", "unknown", "nan", "inf", "1e999"])
def test_a_precursor_that_is_none_costs_its_record_only(write: Write, mz: str, tmp_path: Path) -> None:
    spectra, report = read(tmp_path, write, write(*PEAKS, mz=mz) + write(*PEAKS))
    assert len(spectra) == 1
    assert dict(report.dropped) == {"no-precursor-mz": 1}
    assert_good(spectra[0])


@FORMATS
@pytest.mark.parametrize("name", ["", "same"])
def test_missing_and_duplicate_identifiers(write: Write, name: str, tmp_path: Path) -> None:
    spectra, report = read(tmp_path, write, 3 * write(*PEAKS, name=name))
    assert report.kept == 3
    expected = [name] * 3 if name else [f"library.{EXTENSIONS[write.__name__]}#{n}" for n in (1, 2, 3)]
    assert [s.spectrum_id for s in spectra] == expected
    for spectrum in spectra:
        assert_good(spectrum)


@pytest.mark.parametrize("write", [msp, massbank])
@pytest.mark.parametrize("stated", ["0", "1", "3", "99", "many", "-2"])
def test_a_wrong_number_of_peaks(write: Write, stated: str, tmp_path: Path) -> None:
    spectra, report = read(tmp_path, write, write(*PEAKS, stated=stated) + write(*PEAKS))
    assert len(spectra) == 2
    assert dict(report.repaired) == ({"peak-count": 1} if stated.isdigit() else {})
    for spectrum in spectra:
        assert_good(spectrum)


@FORMATS
def test_a_last_record_cut_anywhere_leaves_those_before_it(write: Write, tmp_path: Path) -> None:
    whole, last = 2 * write(*PEAKS), write(*PEAKS, name="last")
    # The end that shows a record to be whole: its last line, or in MSP the stated number of peaks.
    end = last.rindex("END IONS") + 8 if write is mgf else last.rindex("//") + 2 if write is massbank else len(last) - 2
    for stop in range(1, end):
        spectra, report = read(tmp_path, write, whole + last[:stop])
        assert report.kept == 2 or (write is msp and stop >= end - 3), stop  # '20.' and '20' for 20.5 cannot be told
        for spectrum in spectra[:2]:
            assert_good(spectrum)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (mgf(*PEAKS, name="x").replace("END IONS\n", ""), {"x": "truncated"}),
        (mgf(*PEAKS, name="x").replace("BEGIN IONS\n", ""), {"x": None}),
        (mgf(*PEAKS, name="x").replace("BEGIN IONS\n", "BEGIN IOXS\n"), {"x": None}),
        (mgf(*PEAKS, name="x").replace("END IONS\n", "").rstrip("\n"), {"x": "truncated"}),
        ("BEGIN IONS\nTITLE=outer\n" + mgf(*PEAKS, name="x"), {"outer": "truncated", "x": None}),
        (mgf(*PEAKS, name="x") + "END IONS\nEND IONS\n", {"x": None}),
        (mgf(*PEAKS, name="x").replace("\n", "\n\n"), {"x": None}),
        ("# a comment\n; another\n\n" + mgf("# in", *PEAKS, "! it", name="x") + "### end\n", {"x": None}),
        ("# BEGIN IONS\n# TITLE=out\n# 10 10\n# END IONS\n" + mgf(*PEAKS, name="x"), {"x": None}),
    ],
    ids=[
        "no END", "no BEGIN", "damaged BEGIN", "cut line", "nested BEGIN", "END again", "empty lines", "comments",
        "commented out",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_begin_and_end_of_mgf(text: str, expected: dict[str, str | None], place: str, tmp_path: Path) -> None:
    good = mgf(*PEAKS, name="a")
    path = tmp_path / "a.mgf"
    path.write_text((good if place != "first" else "") + text + (good if place != "last" else ""))
    records = list(read_records(path))
    assert {r.native_id: r.problem for r in records} == {"a": None, **expected}
    for record in records:
        if record.problem is None:
            np.testing.assert_array_equal([record.mz, record.intensity], [[50.5, 60.25], [10, 20.5]])


@pytest.mark.parametrize("gap", ["\n", "\n\n", "\n \n\n"])
def test_an_empty_line_in_an_msp_header_is_no_border(gap: str, tmp_path: Path) -> None:
    parts = msp(*PEAKS, name="x").split("\n", 2)
    spectra, report = read(tmp_path, msp, msp(*PEAKS) + "\n".join(parts[:2]) + gap + parts[2] + msp(*PEAKS, name="b"))
    assert ([s.spectrum_id for s in spectra], report.read) == (["a", "x", "b"], 3)
    for spectrum in spectra:
        assert_good(spectrum)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("record_format", "data"),
    [
        (MGF, b"BEGIN IONS x"),
        (MGF, b"BEGIN IONS\n"),
        (MGF, b"BEGIN IONS\nEND IONS\n1 1\n"),
        (MGF, b"END IONS "),
        (MSP, b"a: b\n"),
        (MSP, b"x\n\n"),
        (MSP, b"Name: "),
        (MSP, b"Name: b\nSMILES: c\n"),
        (MSP, b"Name: a\n\nFoo: 1\nSMILES: c\n\n"),
        (MASSBANK, b"ACCESSION: 1"),
        (MASSBANK, b"ACCESSION: 1\n"),
        (MASSBANK, b"\n//\nPK$PEAK:\n1 1\n"),
    ],
)
def test_the_time_grows_with_the_length_only(record_format: RecordFormat, data: bytes) -> None:
    """A megabyte of the same: minutes, where a line or a record were looked through again for each of its parts."""
    piece = Piece("a", 1, (data * (1 << 20))[: 1 << 20])
    records = list(parse_piece(record_format, piece))
    assert [record.position for record in records] == list(range(1, len(records) + 1))
