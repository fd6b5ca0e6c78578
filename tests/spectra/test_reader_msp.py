"""MSP as NIST, MoNA, MassBank, MS-DIAL and careless editors write it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.readers import read_records

GOOD = "Name: good\nPrecursorMZ: 200.1\nNum Peaks: 2\n50.5 10\n60.25 20.5\n\n"


def records_of(tmp_path, text):
    path = tmp_path / "library.msp"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_records(path))


def assert_good(parsed):
    assert parsed.problem is None
    np.testing.assert_array_equal(parsed.mz, [50.5, 60.25])
    np.testing.assert_array_equal(parsed.intensity, [10, 20.5])


def test_num_peaks_0_does_not_leak_into_the_next_record(tmp_path):
    empty = "Name: empty\nSMILES: CC\nPrecursorMZ: 100\nNum Peaks: 0\n"
    for gap in ("", "\n", "\n\n"):
        first, bad, last = records_of(tmp_path, GOOD + empty + gap + GOOD)
        assert_good(first)
        assert (bad.problem, bad.fields["smiles"]) == ("no-peaks", "CC")
        assert_good(last)
        assert last.fields == {"name": "good", "precursor_mz": "200.1"}


@pytest.mark.parametrize("stated", ["1", "3", "99"])
@pytest.mark.parametrize("gap", ["", "\n"])
def test_a_wrong_number_of_peaks_swallows_nothing(tmp_path, stated, gap):
    wrong = GOOD.replace("Num Peaks: 2", f"Num Peaks: {stated}").rstrip("\n") + "\n" + gap
    first, second = records_of(tmp_path, wrong + GOOD)
    assert_good(first)
    assert first.repairs == ("peak-count",)
    assert_good(second)
    assert second.repairs == ()


@pytest.mark.parametrize("stated", ["many", "-1", "2.0", "", pytest.param("9" * 5000, id="5000 digits")])
def test_a_number_of_peaks_that_is_no_number_is_not_needed(tmp_path, stated):
    first, second = records_of(tmp_path, GOOD.replace("Peaks: 2", f"Peaks: {stated}") + GOOD)
    assert_good(first)
    assert_good(second)


def test_a_record_without_num_peaks_keeps_to_itself(tmp_path):
    headless = "Name: a\n50.5 10\n60.25 20.5\n"
    first, bare, last = records_of(tmp_path, headless + GOOD.replace("Num Peaks: 2\n50.5 10\n60.25 20.5\n", "") + GOOD)
    assert_good(first)
    assert (bare.problem, bare.fields["name"]) == ("no-peaks", "good")
    assert_good(last)


@pytest.mark.parametrize(
    "peaks",
    [
        "50.5\t10\n60.25\t20.5",
        '50.5 10 "C4H2+; 0.1 ppm"\n60.25 20.5 "?"',
        "50.5\t10\tC4H2\n60.25\t20.5\tC5",
        "50.5 10; 60.25 20.5;",
        "50.5 10; 60.25 20.5",
        "50.5 10;\n60.25 20.5;",
        "(50.5,10) (60.25,20.5)",
        "50.5 10 60.25 20.5",
        "\n50.5 10\n60.25 20.5",
    ],
)
def test_shapes_of_peak_lists(tmp_path, peaks):
    first, second = records_of(tmp_path, f"NAME: a\nNUM PEAKS: 2\n{peaks}\n\n" + GOOD)
    assert_good(first)
    assert first.repairs == ()
    assert_good(second)


def test_decimal_commas(tmp_path):
    (parsed,) = records_of(tmp_path, "Name: a\nNum Peaks: 2\n50,5 10\n60,25 20,5\n")
    assert_good(parsed)
    assert parsed.repairs == ("decimal-comma",)


def test_a_bad_peak_costs_its_record_only(tmp_path):
    first, bad, last = records_of(tmp_path, GOOD + "Name: bad\nNum Peaks: 2\n50 1\n60 x\n\n" + GOOD)
    assert bad.problem == "bad-peak-line"
    assert_good(first)
    assert_good(last)


@pytest.mark.parametrize("end", ["Num Peaks: 2\n", "50.5 10\n", "50.5 10\n60.25", "Num Peaks: 2"])
def test_a_cut_last_record_is_told(tmp_path, end):
    cut = GOOD[: GOOD.index(end) + len(end)]
    first, last = records_of(tmp_path, GOOD + cut)
    assert_good(first)
    assert (last.problem, last.fields["name"], len(last)) == ("truncated", "good", 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"\n\n" + text.upper(),
        lambda text: text.replace(b"\n\n", b"\n"),
        lambda text: text.replace(b"Num Peaks: 2", b"num_peaks:2"),
    ],
)
def test_encodings_of_the_file(tmp_path, change):
    parsed = records_of(tmp_path, change((GOOD * 3).encode()))
    assert [p.fields["name"].lower() for p in parsed] == ["good"] * 3
    for p in parsed:
        assert_good(p)


def test_latin_1(tmp_path):
    first, second = records_of(tmp_path, GOOD.replace("good", "\xb5").encode("latin-1") + GOOD.encode())
    assert (first.fields["name"], first.repairs) == ("\xb5", ("not-utf-8",))
    assert second.repairs == ()


def test_fields_of_massbank_and_riken(tmp_path):
    text = (
        "NAME: Kojic acid\nSynon: x\nDB#: MSBNK-Eawag-HB003316\nINCHIKEY: BEJNERDRQOWKJM-UHFFFAOYSA-N\n"
        "Precursor_type: [M-H]-\nSpectrum_type: MS2\nPRECURSORMZ: 141.0193\nInstrument_type: LC-ESI-ITFT\n"
        "Ion_mode: NEGATIVE\nCollision_energy: 60 % (nominal)\nRETENTIONTIME: 5.5\nOntology: Pyranones\n"
        "Comments: Parent=141.0193\nNum Peaks: 1\n141.0194 999\n"
    )
    (parsed,) = records_of(tmp_path, text)
    assert parsed.native_id == "MSBNK-Eawag-HB003316"
    assert parsed.fields == {
        "name": "Kojic acid", "inchikey": "BEJNERDRQOWKJM-UHFFFAOYSA-N", "adduct": "[M-H]-", "ms_level": "2",
        "spectrum_type": "MS2", "precursor_mz": "141.0193", "instrument_type": "LC-ESI-ITFT", "polarity": "NEGATIVE",
        "collision_energy": "60 % (nominal)", "retention_time": "5.5 min", "chemical_class": "Pyranones",
        "comment": "Parent=141.0193", "laboratory": "Eawag",
    }  # fmt: skip


def test_mona_hides_fields_in_its_comment(tmp_path):
    comment = '"accession=JP1" "license=CC BY" "ms level=MS1" "ion type=[M]+*" "SMILES=CC" "ionization mode=positive"'
    (parsed,) = records_of(tmp_path, f"Name: a\nSMILES: C\nComments: {comment}\nNum Peaks: 1\n50 1\n")
    assert parsed.native_id == "JP1"
    assert (len(parsed), parsed.problem) == (0, None)  # a survey spectrum: counted, not read
    expected = {
        "name": "a",
        "smiles": "C",
        "license": "CC BY",
        "ms_level": "1",
        "adduct": "[M]+*",
        "polarity": "positive",
    }
    assert {**parsed.fields, "comment": ""} == {**expected, "comment": ""}


@pytest.mark.parametrize(
    ("written", "time", "repairs"),
    [
        ("7.027 min", "7.027 min", ()),
        ("421.6 sec", "421.6 sec", ()),
        ("N/A", "N/A", ()),
        ("7.027", None, ("retention-time-without-unit",)),
    ],
)
def test_a_retention_time_of_mona_without_unit_is_left_out(tmp_path, written, time, repairs):
    """As from the JSON of the same records: some contributors mean minutes, some seconds."""
    text = f'Name: a\nComments: "retention time={written}"\nNum Peaks: 2\n50.5 10\n60.25 20.5\n'
    (parsed,) = records_of(tmp_path, text)
    assert (parsed.fields.get("retention_time"), parsed.repairs) == (time, repairs)


def test_several_peaks_on_a_line_in_every_record(tmp_path):
    parsed = records_of(tmp_path, 50 * "Name: a\nNum Peaks: 2\n50.5 10 60.25 20.5\n\n")
    assert len(parsed) == 50
    for p in parsed:
        assert_good(p)
        assert p.repairs == ()


def test_minutes_and_seconds(tmp_path):
    text = "".join(
        GOOD.replace("Num", f"{line}\nNum") for line in ("RT: 5.5", "RETENTIONTIME: 5.5", "retention_time: 9")
    )
    assert [p.fields["retention_time"] for p in records_of(tmp_path, text)] == ["5.5 min", "5.5 min", "9"]


def test_a_library_record_of_nist(tmp_path):
    text = (
        "Name: Glutathione\nSynon: GSH\nSynon: $:00in-source\nPrecursor_type: [M+H]+\nSpectrum_type: MS2\n"
        "PrecursorMZ: 308.0911\nInstrument_type: HCD\nInstrument: Orbitrap\nIon_mode: P\nSpecial_fragmentation: wide\n"
        "Collision_energy: NCE=35% 30eV\nFormula: C10H17N3O6S\nMW: 307\nExactMass: 307.083806\nNIST#: 1036934\n"
        'Comments: Parent=308.1 Consensus "x"\nNum Peaks: 2\n50.5 10 "a=p-NH3/0.2ppm"\n60.25 20.5 "?"\n\n'
    )
    for parsed in records_of(tmp_path, 40 * text):
        assert_good(parsed)
        assert (parsed.native_id, parsed.repairs) == ("1036934", ())
        wanted = {
            "precursor_mz": "308.0911",
            "adduct": "[M+H]+",
            "ms_level": "2",
            "polarity": "P",
            "activation": "wide",
        }
        assert {key: parsed.fields[key] for key in wanted} == wanted


def test_the_precursor_may_stand_in_the_comment_alone(tmp_path):
    (parsed,) = records_of(tmp_path, "Name: a\nComment: Mods=0 Parent=414.7 X\nNum Peaks: 1\n50 1\n")
    assert parsed.fields["precursor_mz"] == "414.7"


@pytest.mark.parametrize(
    "cut",
    ["Name: ba", "Name: bad\nPrecursorMZ: 9", "Name: bad\nPrecursorMZ: 9\nNum Pea", "Name: bad\nNum Peaks: 1\n70"],
)
def test_a_record_cut_within_a_line_takes_nothing_from_the_next(tmp_path, cut):
    first, *_, last = records_of(tmp_path, GOOD + cut + GOOD)
    for p in (first, last):
        assert_good(p)
        assert p.fields == {"name": "good", "precursor_mz": "200.1"}


def test_a_name_within_a_comment_starts_no_record(tmp_path):
    parsed = records_of(tmp_path, 3 * GOOD.replace("Num", "Comments: Common Name: x\nCOMPOUNDNAME: y\nNum"))
    assert [p.fields["comment"] for p in parsed] == ["Common Name: x"] * 3


LINES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), max_size=40)


@given(st.lists(LINES, max_size=8))
def test_any_lines_between_two_records_leave_their_peaks(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("msp") / "a.msp"
    noise = "\n".join(["", "", "Name: noise", *lines, "", ""])
    path.write_bytes((GOOD + noise + GOOD).encode())
    parsed = list(read_records(path))
    assert_good(parsed[0])
    assert_good(parsed[-1])
    assert parsed[0].fields == parsed[-1].fields == {"name": "good", "precursor_mz": "200.1"}
