"""MGF as it is found in the wild: every trap that ends the file, or loses a record silently, in other readers."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.readers import read_records
from ionbed.spectra.readers.text import parse_peak_lists, parse_peaks

GOOD = "BEGIN IONS\nTITLE=good\nPEPMASS=200.1\nCHARGE=1+\n50.5 10\n60.25 20.5\nEND IONS\n"


def records_of(tmp_path, text, name="library.mgf"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path))


def record(*lines, peaks=("50.5 10", "60.25 20.5")):
    return "\n".join(["BEGIN IONS", *lines, *peaks, "END IONS", ""])


def assert_good(parsed):
    assert parsed.problem is None
    np.testing.assert_array_equal(parsed.mz, [50.5, 60.25])
    np.testing.assert_array_equal(parsed.intensity, [10, 20.5])


def test_a_plain_record(tmp_path):
    (parsed,) = records_of(tmp_path, GOOD)
    assert_good(parsed)
    assert (parsed.native_id, parsed.position, parsed.source_file) == ("good", 1, "library.mgf")
    assert parsed.fields == {"precursor_mz": "200.1", "charge": "1+"}
    assert parsed.mz.dtype == parsed.intensity.dtype == np.float64


def test_records_without_title_or_with_the_same_title_are_all_read(tmp_path):
    text = record("PEPMASS=100") + record("PEPMASS=101") + record("TITLE=a") + record("TITLE=a")
    parsed = records_of(tmp_path, text)
    assert [p.native_id for p in parsed] == ["", "", "a", "a"]
    assert [p.position for p in parsed] == [1, 2, 3, 4]
    for p in parsed:
        assert_good(p)


@pytest.mark.parametrize("line", ["CHARGE=N/A", "PEPMASS=N/A", "RTINSECONDS=N/A", "CHARGE=", "nonsense without a sign"])
def test_a_value_that_is_no_number_costs_nothing_here(tmp_path, line):
    parsed = records_of(tmp_path, record(line) + GOOD)
    assert len(parsed) == 2
    for p in parsed:
        assert_good(p)
    key, _, value = line.partition("=")
    name = {"CHARGE": "charge", "PEPMASS": "precursor_mz", "RTINSECONDS": "retention_time"}.get(key)
    if name and value:
        assert parsed[0].fields[name] == "N/A"


@pytest.mark.parametrize(
    "peaks",
    [
        ("50,5 10", "60,25 20,5"),
        ("50,5\t10", "60,25\t20,5"),
        ("50,5;10", "60,25;20,5"),
    ],
)
def test_decimal_commas_are_read_and_reported(tmp_path, peaks):
    first, second = records_of(tmp_path, record("PEPMASS=200,1", peaks=peaks) + GOOD)
    assert_good(first)
    assert first.repairs == ("decimal-comma",)
    assert first.fields["precursor_mz"] == "200,1"
    assert_good(second)
    assert second.repairs == ()


@pytest.mark.parametrize(
    "peaks",
    [
        ("50.5 10 1+", "60.25 20.5 2+"),
        ("50.5 10 C3H5+ 0.1", "60.25 20.5 ? 0.3"),
        ('50.5 10 "y2/0.5; b3"', "60.25 20.5"),
        ("50.5 10 7", "60.25 20.5 8"),  # six numbers on two lines are not three peaks
        ("50.5\t10\t7", "60.25\t20.5"),
        ("  50.5   10  ", "\t60.25 20.5\t"),
        ("", "50.5 10", "", "60.25 20.5", ""),
        ("# a comment", "50.5 10", "; another", "60.25 20.5"),
        ("50.5,10", "60.25,20.5"),
        ("50.5, 10", "60.25, 20.5"),
        ("5.05e1 1E+01", "+60.25 20.5"),
    ],
)
def test_shapes_of_peak_lines(tmp_path, peaks):
    first, second = records_of(tmp_path, record("TITLE=a", peaks=peaks) + GOOD)
    assert_good(first)
    assert_good(second)


@pytest.mark.parametrize(
    "line", ["60.25", "60.25 abc", "60.25 N/A", "1_0 20", "6x 20", "1,000.5 20", "60.25 0x1p3", "1.2.3 5", "60.25 --5"]
)
def test_a_bad_peak_line_costs_its_record_only(tmp_path, line):
    first, bad, last = records_of(tmp_path, GOOD + record("TITLE=bad", peaks=("50.5 10", line)) + GOOD)
    assert_good(first)
    assert_good(last)
    assert (bad.problem, bad.native_id, len(bad)) == ("bad-peak-line", "bad", 0)


@pytest.mark.parametrize(
    "line", ["70 nan", "NaN 5", "70 inf", "-Infinity 5", "70 1.#QNAN", "70 -1.#IND", "1e999 5", "70 1e999"]
)
def test_a_peak_that_is_not_finite_costs_itself_only(tmp_path, line):
    first, second = records_of(
        tmp_path, record("TITLE=a", "PEPMASS=100", peaks=("50.5 10", line, "60.25 20.5")) + GOOD.replace("PEPMASS", "X")
    )
    assert (len(first), first.problem, first.repairs) == (3, None, ("bad-peak",))
    assert np.isnan(first.mz[1]) != np.isnan(first.intensity[1])
    assert_good(second)
    reader = ionbed.read(tmp_path / "library.mgf")
    (spectrum,) = reader
    assert spectrum.spectrum_id == "a"
    np.testing.assert_array_equal(spectrum.mz, [50.5, 60.25])
    assert dict(reader.report.dropped) == {"no-precursor-mz": 1}
    assert dict(reader.report.repaired) == {"bad-peak": 1}


def test_columns_that_only_add_up_over_the_lines_are_not_peaks(tmp_path):
    bad, good = records_of(tmp_path, record(peaks=("50.5 10 7", "60.25")) + GOOD)
    assert bad.problem == "bad-peak-line"
    assert_good(good)


def test_no_peaks_and_missing_end(tmp_path):
    text = record("TITLE=empty", peaks=()) + GOOD.replace("END IONS\n", "") + GOOD
    assert [p.problem for p in records_of(tmp_path, text)] == ["no-peaks", "truncated", None]


def test_a_cut_last_record_is_told_and_the_others_stay(tmp_path):
    parsed = records_of(tmp_path, GOOD + GOOD[: GOOD.index("60.25") + 3])
    assert_good(parsed[0])
    assert [p.problem for p in parsed] == [None, "truncated"]


@pytest.mark.parametrize("value", ["BEGIN IONS", "Begin Ions", "BEGIN IONS x", "a name: BEGIN IONS", "x BEGIN IONS y"])
@pytest.mark.parametrize("key", ["TITLE", "NAME"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_value_that_reads_like_the_start_of_a_record_starts_none(tmp_path, key, value, place):
    lines = ["PEPMASS=200.1", "CHARGE=1+"]
    lines.insert(place, f"{key}={value}")
    first, named, last = records_of(tmp_path, GOOD + record(*lines) + GOOD)
    for parsed in (first, named, last):
        assert_good(parsed)
    assert (named.native_id if key == "TITLE" else named.fields["name"]) == value
    assert named.fields["precursor_mz"] == "200.1"
    assert (first.native_id, last.native_id) == ("good", "good")


@pytest.mark.parametrize("value", ["BEGIN IONS", "BEGIN IONS x"])
def test_the_first_value_of_a_file_may_read_like_the_start_of_a_record(tmp_path, value):
    (only,) = records_of(tmp_path, record(f"TITLE={value}", "PEPMASS=200.1"))
    assert_good(only)
    assert only.native_id == value
    text = record(f"TITLE={value}", "PEPMASS=200.1").removeprefix("BEGIN IONS\n")
    lost, good = records_of(tmp_path, text + GOOD)
    assert_good(good)
    assert (lost.native_id, lost.repairs) == (value, ("record-start",))


@pytest.mark.parametrize("cut", range(len("BEGIN IONS\n"), GOOD.index("END")))
def test_a_record_cut_anywhere_does_not_take_the_next_one_with_it(tmp_path, cut):
    text = GOOD[:cut].replace("good", "damaged"[: max(0, cut - len("BEGIN IONS\nTITLE="))])
    parsed = records_of(tmp_path, GOOD + text + GOOD + GOOD)
    assert [p.native_id for p in parsed if p.problem is None] == ["good"] * 3
    assert all(p.problem == "truncated" for p in parsed if p.problem)
    for p in parsed:
        if p.problem is None:
            assert_good(p)


def test_latin_1_bytes_cost_neither_their_record_nor_the_file(tmp_path):
    bad = record("TITLE=1 \xb5M caf\xe9").encode("latin-1")
    first, second = records_of(tmp_path, bad + GOOD.encode())
    assert_good(first)
    assert (first.native_id, first.repairs) == ("1 \xb5M caf\xe9", ("not-utf-8",))
    assert (second.native_id, second.repairs) == ("good", ())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"BEGIN IONS", b" Begin Ions ").replace(b"END IONS", b"end ions"),
        lambda text: text.removesuffix(b"\n"),
        lambda text: b"# written by hand\n\n" + text.replace(b"BEGIN", b"\n\nBEGIN"),
        gzip.compress,
    ],
)
def test_encodings_of_the_file(tmp_path, change):
    parsed = records_of(tmp_path, change((GOOD + GOOD).encode()))
    assert len(parsed) == 2
    for p in parsed:
        assert_good(p)
        assert (p.native_id, p.repairs) == ("good", ())


def test_parameters_before_the_first_record_hold_for_all(tmp_path):
    parsed = records_of(tmp_path, "COM=a run\nCHARGE=2+\n" + record("PEPMASS=1") + record("PEPMASS=2", "CHARGE=3+"))
    assert [p.fields["charge"] for p in parsed] == ["2+", "3+"]


def test_parameters_after_the_peaks_are_parameters(tmp_path):
    (parsed,) = records_of(tmp_path, record(peaks=("50.5 10", "60.25 20.5", "CHARGE=2+")))
    assert_good(parsed)
    assert parsed.fields["charge"] == "2+"


def test_precursor_with_intensity_and_charge(tmp_path):
    (parsed,) = records_of(tmp_path, record("PEPMASS=200.1 35000 2+"))
    assert parsed.fields == {"precursor_mz": "200.1", "charge": "2+"}


def test_a_library_record_of_gnps(tmp_path):
    lines = (
        "PEPMASS=183.057", "CHARGE=1", "MSLEVEL=2", "SOURCE_INSTRUMENT=Orbitrap", "IONMODE=negative",
        "NAME=Fuberidazole M-H", "PI=Somebody", "SMILES=CC=O", "INCHI=InChI=1S/C2H4O/c1-2-3/h2H,1H3", "INCHIAUX=N/A",
        "SPECTRUMID=CCMSLIB00001058235", "TITLE=other", "SCANS=675", "RTINSECONDS=12.5", "TAGS=",
    )  # fmt: skip
    (parsed,) = records_of(tmp_path, record(*lines))
    assert parsed.native_id == "CCMSLIB00001058235"
    assert parsed.fields == {
        "precursor_mz": "183.057", "charge": "1", "ms_level": "2", "instrument": "Orbitrap", "polarity": "negative",
        "name": "Fuberidazole", "adduct": "M-H", "laboratory": "Somebody", "smiles": "CC=O",
        "inchi": "InChI=1S/C2H4O/c1-2-3/h2H,1H3", "retention_time": "12.5",
    }  # fmt: skip


def test_a_record_of_massspecgym(tmp_path):
    lines = (
        "IDENTIFIER=MassSpecGymID0000001", "SMILES=CC=O", "INCHIKEY=IKHGUXGNUITLKF", "FORMULA=C2H4O",
        "PRECURSOR_FORMULA=C2H5O", "PARENT_MASS=44.026", "PRECURSOR_MZ=45.0335", "ADDUCT=[M+H]+",
        "INSTRUMENT_TYPE=Orbitrap", "COLLISION_ENERGY=30.0", "FOLD=train", "SIMULATION_CHALLENGE=True",
    )  # fmt: skip
    (parsed,) = records_of(tmp_path, record(*lines))
    assert parsed.native_id == "MassSpecGymID0000001"
    assert parsed.fields == {
        "smiles": "CC=O", "inchikey": "IKHGUXGNUITLKF", "formula": "C2H4O", "precursor_mz": "45.0335",
        "adduct": "[M+H]+", "instrument_type": "Orbitrap", "collision_energy": "30.0 eV",
    }  # fmt: skip


def test_the_isotope_pattern_that_sirius_wants_is_no_fragment_spectrum(tmp_path):
    head = ("FEATURE_ID=12", "PEPMASS=200.1", "CHARGE=1+", "RTINSECONDS=60", "ION=[M+H]+")
    text = record(*head, "SPECTYPE=CORRELATED MS") + record(*head, "MSLEVEL=1") + record(*head, "MSLEVEL=2")
    parsed = records_of(tmp_path, text)
    assert [(p.native_id, p.fields["ms_level"], len(p)) for p in parsed] == [
        ("12", "1", 0),
        ("12", "1", 0),
        ("12", "2", 2),
    ]
    assert parsed[2].fields["adduct"] == "[M+H]+"


@pytest.mark.parametrize("name", ["Vitamin M", "M+H", "C5-M-ether", "2-M"])
def test_a_name_that_ends_like_an_adduct_but_is_none_stays(tmp_path, name):
    (parsed,) = records_of(tmp_path, record(f"NAME={name}"))
    assert parsed.fields["name"] == name
    assert "adduct" not in parsed.fields


def test_minutes_are_marked(tmp_path):
    (parsed,) = records_of(tmp_path, record("RTINMINUTES=2.5"))
    assert parsed.fields["retention_time"] == "2.5 min"


def test_survey_scans_have_their_level_and_no_peaks(tmp_path):
    path = tmp_path / "a.mgf"
    path.write_text(record("MSLEVEL=1") + record("MSLEVEL=2"))
    assert [(p.fields["ms_level"], len(p), p.problem) for p in read_records(path)] == [("1", 0, None), ("2", 2, None)]
    assert [len(p) for p in read_records(path, ms_levels=(1,))] == [2, 0]


NUMBERS = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=20), min_size=1, max_size=10))
def test_what_is_written_is_read(tmp_path_factory, spectra):
    path = tmp_path_factory.mktemp("mgf") / "a.mgf"
    path.write_text("".join(record(peaks=[f"{mz!r} {i!r}" for mz, i in peaks]) for peaks in spectra))
    parsed = list(read_records(path))
    assert len(parsed) == len(spectra)
    for p, peaks in zip(parsed, spectra, strict=True):
        assert p.problem is None
        np.testing.assert_array_equal(np.column_stack([p.mz, p.intensity]), peaks)


@given(
    st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4), min_size=40, max_size=40),
    st.sampled_from([" ", "\t"]),
    st.sampled_from(["", "  "]),
    st.sampled_from(["", " 1+", " 7"]),
)
def test_many_peak_lists_give_the_same_numbers_as_each_by_itself(spectra, separator, indent, more):
    bodies = ["\n".join(f"{indent}{mz!r}{separator}{i!r}{more}" for mz, i in peaks) for peaks in spectra]
    together = parse_peak_lists(bodies)
    for body, peaks in zip(bodies, together, strict=True):
        assert peaks is not None or (separator == "\t" and more)
        if peaks is not None:
            mz, intensity, repairs = parse_peaks(body)
            assert repairs == ()
            assert (mz.tobytes(), intensity.tobytes()) == (peaks[0].tobytes(), peaks[1].tobytes())


@pytest.mark.parametrize(
    "line", ["50.5", "50.5  10", "50.5 nan", "inf 5", "1e999 5", "", "50,5 10", "a 5", "50.5 10 7"]
)
def test_one_peak_list_that_differs_has_each_parsed_by_itself(line):
    assert parse_peak_lists(["1 2\n3 4"] * 40 + [f"1 2\n{line}\n3 4"]) == [None] * 41


@given(st.binary(max_size=200))
def test_any_bytes_between_two_records_leave_them_whole(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("mgf") / "a.mgf"
    path.write_bytes(GOOD.encode() + b"BEGIN IONS\nTITLE=noise\n" + noise + b"\nEND IONS\n" + GOOD.encode())
    parsed = list(read_records(path))
    assert_good(parsed[0])
    assert_good(parsed[-1])
    assert parsed[0].native_id == parsed[-1].native_id == "good"
