"""MassBank records: their fields, and what breaks in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.readers import read_records

RECORD = """\
ACCESSION: MSBNK-Some_Lab-XY000001
RECORD_TITLE: Alanine; LC-ESI-QFT; MS2; CE: 15; R=17500; [M+H]+
DATE: 2016.03.17
LICENSE: CC BY
COMMENT: CONFIDENCE Standard
COMMENT: INTERNAL_ID 7
CH$NAME: Alanine
CH$NAME: 2-aminopropanoic acid
CH$FORMULA: C3H7NO2
CH$SMILES: CC(N)C(=O)O
CH$IUPAC: InChI=1S/C3H7NO2/c1-2(4)3(5)6/h2H,4H2,1H3,(H,5,6)
CH$LINK: CAS 56-41-7
CH$LINK: INCHIKEY QNAYBMKLOCPYGJ-UHFFFAOYSA-N
CH$LINK: ChemOnt CHEMONTID:0000278; Organic compounds; Organic acids and derivatives; Carboxylic acids
AC$INSTRUMENT: Q Exactive
AC$INSTRUMENT_TYPE: LC-ESI-QFT
AC$MASS_SPECTROMETRY: MS_TYPE MS2
AC$MASS_SPECTROMETRY: ION_MODE POSITIVE
AC$MASS_SPECTROMETRY: FRAGMENTATION_MODE HCD
AC$MASS_SPECTROMETRY: COLLISION_ENERGY 15 % (nominal)
AC$CHROMATOGRAPHY: RETENTION_TIME 13.2 min
MS$FOCUSED_ION: BASE_PEAK 44.05
MS$FOCUSED_ION: PRECURSOR_M/Z 90.055
MS$FOCUSED_ION: PRECURSOR_TYPE [M+H]+
PK$SPLASH: splash10-0006-9000000000-0000000000000000000a
PK$ANNOTATION: m/z tentative_formula formula_count mass error(ppm)
  44.05 C2H6N+ 1 44.0495 11
PK$NUM_PEAK: 2
PK$PEAK: m/z int. rel.int.
  44.05 1000.5 999
  90.055 250 249
//
"""


def records_of(tmp_path, text):
    path = tmp_path / "record.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path))


def test_every_field(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD)
    assert (parsed.native_id, parsed.position, parsed.problem) == ("MSBNK-Some_Lab-XY000001", 1, None)
    np.testing.assert_array_equal(parsed.mz, [44.05, 90.055])
    np.testing.assert_array_equal(parsed.intensity, [1000.5, 250])
    assert parsed.fields == {
        "license": "CC BY", "comment": "CONFIDENCE Standard; INTERNAL_ID 7", "name": "Alanine", "formula": "C3H7NO2",
        "smiles": "CC(N)C(=O)O", "inchi": "InChI=1S/C3H7NO2/c1-2(4)3(5)6/h2H,4H2,1H3,(H,5,6)",
        "inchikey": "QNAYBMKLOCPYGJ-UHFFFAOYSA-N", "instrument": "Q Exactive", "instrument_type": "LC-ESI-QFT",
        "chemical_class": "Organic compounds; Organic acids and derivatives; Carboxylic acids",
        "ms_level": "2", "polarity": "POSITIVE", "activation": "HCD", "collision_energy": "15 % (nominal)",
        "retention_time": "13.2 min", "precursor_mz": "90.055", "adduct": "[M+H]+", "laboratory": "Some_Lab",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "kept", "repairs"),
    [
        ("13.2 min", "13.2 min", ()),
        ("792.0 sec", "792.0 sec", ()),
        ("N/A min", "N/A min", ()),
        ("-", "-", ()),
        ("13.2", None, ("retention-time-without-unit",)),
        (" 13,2", None, ("retention-time-without-unit",)),
        ("1.0, 2.0", None, ("retention-time-without-unit",)),
    ],
)
def test_a_retention_time_without_unit_is_unknown(tmp_path, written, kept, repairs):
    (parsed,) = records_of(tmp_path, RECORD.replace("RETENTION_TIME 13.2 min", f"RETENTION_TIME {written}"))
    assert parsed.fields.get("retention_time") == kept
    assert parsed.repairs == repairs
    reader = ionbed.read(tmp_path / "record.txt")
    (spectrum,) = reader
    assert (spectrum.retention_time is None) == (kept in (None, "N/A min", "-"))
    assert dict(reader.report.repaired) == dict.fromkeys(repairs, 1)


def test_older_accessions_name_no_laboratory(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD.replace("MSBNK-Some_Lab-XY000001", "XY000001"))
    assert parsed.native_id == "XY000001"
    assert "laboratory" not in parsed.fields


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("//\n", "", "truncated"),
        ("  90.055 250 249\n//\n", "  90.0", "truncated"),
        ("PK$NUM_PEAK: 2\nPK$PEAK: m/z int. rel.int.\n  44.05 1000.5 999\n  90.055 250 249\n//\n", "", "truncated"),
        ("  44.05 1000.5 999\n  90.055 250 249\n", "", "no-peaks"),
        ("90.055 250", "90.055 n/a", "bad-peak-line"),
        ("RECORD_TITLE", "DEPRECATED: 2019-05-06 wrong compound\nRECORD_TITLE", "deprecated"),
    ],
)
def test_broken_records_are_told_and_cost_no_neighbour(tmp_path, old, new, problem):
    first, bad, last = records_of(tmp_path, RECORD + RECORD.replace(old, new) + "\n" + RECORD)
    assert bad.problem == problem
    assert (len(bad), bad.fields["name"]) == (0, "Alanine")
    assert first.problem is None
    assert last.problem is None
    assert len(first) == len(last) == 2
    assert [r.position for r in (first, bad, last)] == [1, 2, 3]


def test_a_wrong_number_of_peaks_is_mended(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD.replace("NUM_PEAK: 2", "NUM_PEAK: 3"))
    assert (len(parsed), parsed.repairs) == (2, ("peak-count",))


def test_two_columns_of_peaks(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD.replace(" 999\n  90.055 250 249", "\n  90.055 250"))
    np.testing.assert_array_equal(parsed.intensity, [1000.5, 250])


@pytest.mark.parametrize(("written", "level"), [("MS", "1"), ("MS3", "3"), ("MSn", "MSn")])
def test_ms_levels(tmp_path, written, level):
    (parsed,) = records_of(tmp_path, RECORD.replace("MS_TYPE MS2", f"MS_TYPE {written}"))
    assert (parsed.fields["ms_level"], parsed.problem) == (level, None)
    assert len(parsed) == (0 if level == "1" else 2)


def test_ion_type_stands_in_for_a_missing_precursor_type(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD.replace("PRECURSOR_TYPE [M+H]+", "ION_TYPE [M+H]+"))
    assert parsed.fields["adduct"] == "[M+H]+"
    (parsed,) = records_of(tmp_path, RECORD.replace("PK$SPLASH", "MS$FOCUSED_ION: ION_TYPE [M]+\nPK$SPLASH"))
    assert parsed.fields["adduct"] == "[M+H]+"


def test_windows_line_ends_byte_order_mark_and_latin_1(tmp_path):
    text = b"\xef\xbb\xbf" + RECORD.replace("\n", "\r\n").replace("Alanine\r", "\xb5lanine\r").encode("latin-1")
    (parsed,) = records_of(tmp_path, text)
    assert (len(parsed), parsed.fields["name"], parsed.repairs) == (2, "\xb5lanine", ("not-utf-8",))


@given(st.integers(0, len(RECORD)), st.integers(0, 30), st.binary(max_size=20))
def test_damage_anywhere_in_a_record_leaves_the_next_one(tmp_path_factory, start, length, noise):
    path = tmp_path_factory.mktemp("massbank") / "a.txt"
    data = RECORD.encode()
    path.write_bytes(data + data[:start] + noise + data[start + length :] + b"\n" + data)
    parsed = list(read_records(path))
    for p in (parsed[0], parsed[-1]):
        assert (p.problem, p.native_id, len(p)) == (None, "MSBNK-Some_Lab-XY000001", 2)


def test_a_first_record_without_accession_costs_no_other(tmp_path):
    first, second = records_of(tmp_path, RECORD.replace("ACCESSION: MSBNK", "ACCXSSION: MSBNK") + RECORD)
    assert (first.native_id, first.problem, len(first), first.repairs) == ("", None, 2, ("record-start",))
    assert (second.native_id, second.problem, len(second)) == ("MSBNK-Some_Lab-XY000001", None, 2)


def test_an_accession_in_a_comment_starts_no_record(tmp_path):
    (parsed,) = records_of(tmp_path, RECORD.replace("COMMENT: INTERNAL_ID 7", "COMMENT: see ACCESSION: XY7"))
    assert (parsed.native_id, len(parsed)) == ("MSBNK-Some_Lab-XY000001", 2)
    assert parsed.fields["comment"] == "CONFIDENCE Standard; see ACCESSION: XY7"


@pytest.mark.parametrize("cut", [b"CH$FORMULA: C3H", b"PK$NUM_PEAK: 2", b"  44.05 10", b"//"])
def test_a_record_cut_within_a_line_does_not_take_the_next(tmp_path, cut):
    data = RECORD.encode()
    whole = data[: data.rindex(cut) + len(cut)]
    _, bad, good = records_of(tmp_path, data + whole + data)
    assert bad.problem == (None if cut == b"//" else "truncated")
    assert (good.native_id, good.problem, len(good)) == ("MSBNK-Some_Lab-XY000001", None, 2)
