"""mzXML: big-endian pairs, nested scans, cut files."""

from __future__ import annotations

import base64
import gzip
import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.readers import read_records

PEAKS = np.array([50.5, 10.0, 60.25, 20.5])

HEADER = """\
<?xml version="1.0" encoding="ISO-8859-1"?>
<mzXML xmlns="http://sashimi.sourceforge.net/schema_revision/mzXML_3.2">
<msRun scanCount="3" startTime="PT1S" endTime="PT2S">
<msInstrument msInstrumentID="1"><msModel category="msModel" value="Q Exactive"/></msInstrument>
<dataProcessing centroided="1"/>
"""
FOOTER = "</msRun><index name='scan'/></mzXML>\n"


def peaks(values=PEAKS, precision=32, compress=False, order="m/z-int"):
    data = values.astype(">f4" if precision == 32 else ">f8").tobytes()
    text = base64.b64encode(zlib.compress(data) if compress else data).decode()
    kind = "zlib" if compress else "none"
    attributes = f'compressionType="{kind}" precision="{precision}" byteOrder="network" contentType="{order}"'
    return f"<peaks {attributes}>{text}</peaks>"


def scan(
    number, level=2, inner="", body=None, attributes='polarity="-" retentionTime="PT1M30.5S" collisionEnergy="30.0"'
):
    precursor = '<precursorMz precursorCharge="2" activationMethod="HCD">200.125</precursorMz>' if level > 1 else ""
    body = peaks() if body is None else body
    return f'<scan num="{number}" msLevel="{level}" peaksCount="2" {attributes}>{precursor}{body}{inner}</scan>\n'


def records_of(tmp_path, text):
    path = tmp_path / "run.mzXML"
    path.write_bytes(text.encode("latin-1"))
    return list(read_records(path))


def assert_good(parsed):
    assert parsed.problem is None
    np.testing.assert_array_equal(parsed.mz, PEAKS[::2])
    np.testing.assert_array_equal(parsed.intensity, PEAKS[1::2])


def test_every_field(tmp_path):
    (parsed,) = records_of(tmp_path, HEADER + scan(12) + FOOTER)
    assert_good(parsed)
    assert parsed.native_id == "12"
    assert parsed.fields == {
        "instrument": "Q Exactive", "ms_level": "2", "polarity": "negative", "spectrum_representation": "centroid",
        "retention_time": "90.5 s", "precursor_mz": "200.125", "charge": "2", "activation": "HCD",
        "collision_energy": "30.0",
    }  # fmt: skip


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("compress", [False, True])
def test_encodings_of_peaks(tmp_path, precision, compress):
    (parsed,) = records_of(tmp_path, HEADER + scan(1, body=peaks(precision=precision, compress=compress)) + FOOTER)
    assert_good(parsed)


def test_scans_nested_in_a_survey_scan(tmp_path):
    text = HEADER + scan(1, level=1, inner="\n" + scan(2) + scan(3)) + scan(4, level=1) + FOOTER
    parsed = records_of(tmp_path, text)
    assert [(p.native_id, p.fields["ms_level"], len(p)) for p in parsed] == [
        ("1", "1", 0),
        ("2", "2", 2),
        ("3", "2", 2),
        ("4", "1", 0),
    ]
    assert "precursor_mz" not in parsed[0].fields


@pytest.mark.parametrize(("attribute", "expected"), [('centroided="0"', "profile"), ('centroided="1"', "centroid")])
def test_representation_of_a_scan_goes_before_that_of_the_run(tmp_path, attribute, expected):
    (parsed,) = records_of(tmp_path, HEADER + scan(1, attributes=attribute) + FOOTER)
    assert parsed.fields["spectrum_representation"] == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (peaks(order="intensity"), "unsupported-binary-encoding"),
        (peaks(PEAKS[:3]), "bad-binary-array"),
        (peaks(compress=True).replace("zlib", "none"), "bad-binary-array"),
        (peaks().replace("</peaks>", "<</peaks>"), "malformed-xml"),
        ("<peaks precision='32'/>", "no-peaks"),
        ("", "no-peaks"),
    ],
)
def test_a_damaged_scan_costs_only_itself(tmp_path, body, problem):
    first, bad, last = records_of(tmp_path, HEADER + scan(1) + scan(2, body=body) + scan(3) + FOOTER)
    assert_good(first)
    assert_good(last)
    assert (bad.native_id, bad.problem, len(bad)) == ("2", problem, 0)


def test_a_cut_file_gives_what_is_whole_and_says_so(tmp_path):
    text = HEADER + scan(1) + scan(2) + scan(3) + FOOTER
    border = text.index('<scan num="3"')
    for end in (border, border + 4, border + 40, border + 250):
        parsed = records_of(tmp_path, text[:end])
        assert [p.problem for p in parsed] == [None, None, "truncated"]
        assert_good(parsed[1])


def test_a_scan_without_peaks_around_others_is_an_empty_scan(tmp_path):
    inner = scan(2) + scan(3)
    for own in ("", "<peaks precision='32'/>"):
        parsed = records_of(tmp_path, HEADER + scan(1, level=1, body=own, inner=inner) + scan(4) + FOOTER)
        assert [(p.native_id, p.problem, len(p)) for p in parsed] == [
            ("1", None, 0), ("2", None, 2), ("3", None, 2), ("4", None, 2)
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "expected"),
    [("PT60.5S", "60.5 s"), ("PT1M0.5S", "60.5 s"), ("P0Y0M0DT0H1M0.5S", "60.5 s"), ("60.5", None), ("", None)],
)
def test_retention_times(tmp_path, written, expected):
    (parsed,) = records_of(tmp_path, HEADER + scan(1, attributes=f'retentionTime="{written}"') + FOOTER)
    assert parsed.fields.get("retention_time") == expected


@pytest.mark.parametrize(("written", "expected"), [("25.0", "25.0"), ("0", None), ("wide", None)])
def test_the_width_of_the_isolation_window(tmp_path, written, expected):
    text = scan(1).replace("<precursorMz ", f'<precursorMz windowWideness="{written}" ')
    (parsed,) = records_of(tmp_path, HEADER + text + FOOTER)
    assert parsed.fields.get("isolation_width") == expected


def test_a_representation_that_nobody_states_is_not_known(tmp_path):
    for run, expected in (('centroided="1"', "centroid"), ('centroided="0"', "profile"), ("", None)):
        (parsed,) = records_of(tmp_path, HEADER.replace('centroided="1"', run) + scan(1) + FOOTER)
        assert parsed.fields.get("spectrum_representation") == expected


@pytest.mark.parametrize(
    ("precursors", "expected", "repairs"),
    [
        ("<precursorMz>200.125</precursorMz>", "200.125", ()),
        ("<precursorMz>0.0</precursorMz><precursorMz>300.5</precursorMz>", "300.5", ("several-precursors",)),
        ("<precursorMz>200.125</precursorMz><precursorMz>300.5</precursorMz>", "200.125", ("several-precursors",)),
        ("<precursorMz precursorCharge='2'/>", None, ()),
        ("", None, ()),
    ],
)
def test_which_precursor_is_meant(tmp_path, precursors, expected, repairs):
    text = re.sub("<precursorMz.*</precursorMz>", precursors, scan(1, level=3))
    (parsed,) = records_of(tmp_path, HEADER + text + FOOTER)
    assert_good(parsed)
    assert (parsed.fields.get("precursor_mz"), parsed.repairs) == (expected, repairs)


def test_a_precursor_that_is_missing_drops_the_spectrum_and_says_so(tmp_path):
    path = tmp_path / "run.mzXML"
    path.write_text(HEADER + re.sub("<precursorMz.*</precursorMz>", "", scan(1)) + scan(2) + scan(3, level=3) + FOOTER)
    reader = ionbed.read(path)
    assert [s.spectrum_id for s in reader] == ["2"]
    assert reader.report.dropped == {"no-precursor-mz": 1, "ms-level": 1}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('collisionEnergy="30.0"', "30.0"),
        ('collisionEnergy="30.0" filterLine="FTMS + p ESI d Full ms2 200.125@hcd30.00 [50-220]"', "30.0 (NCE)"),
        ('filterLine="FTMS + p ESI d Full ms2 200.125@hcd30.00 [50-220]"', "30.00 (NCE)"),
        ("", None),
    ],
)
def test_collision_energies(tmp_path, attributes, expected):
    (parsed,) = records_of(tmp_path, HEADER + scan(1, attributes=attributes) + FOOTER)
    assert parsed.fields.get("collision_energy") == expected


def test_peaks_that_are_no_numbers_and_counts_that_are_wrong(tmp_path):
    values = np.array([50.5, 10.0, np.nan, 5.0, 60.25, np.inf])
    bad, wrong = records_of(tmp_path, HEADER + scan(1, body=peaks(values)) + scan(2, body=peaks(PEAKS[:2])) + FOOTER)
    assert (bad.problem, bad.repairs, len(bad)) == (None, ("bad-peak", "peak-count"), 3)
    assert (wrong.problem, wrong.repairs, len(wrong)) == (None, ("peak-count",), 1)


def test_namespace_prefixes_and_survey_scans_whose_peaks_are_damaged(tmp_path):
    text = HEADER + scan(1, level=1, inner=scan(2)) + FOOTER
    prefixed = re.sub(r"(</?)(?=[A-Za-z])", r"\1x:", text).replace(" xmlns=", " xmlns:x=")
    plain, parsed = records_of(tmp_path, text), records_of(tmp_path, prefixed)
    assert [p.fields for p in parsed] == [p.fields for p in plain]
    assert_good(parsed[1])
    damaged = text.replace('contentType="m/z-int">', 'contentType="m/z-int"><', 1)
    assert [(p.fields["ms_level"], p.problem) for p in records_of(tmp_path, damaged)] == [("1", None), ("2", None)]


def test_packed_and_without_index(tmp_path):
    text = HEADER + scan(1) + scan(2) + "</msRun></mzXML>"
    path = tmp_path / "run.mzXML.gz"
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    first, second = read_records(path)
    assert_good(first)
    assert_good(second)


def test_agreement_with_pyteomics(tmp_path):
    from pyteomics import mzxml

    rng = np.random.default_rng(0)
    text, number = "", 0
    for precision in (32, 64):
        for compress in (False, True):
            number += 2
            values = rng.uniform(50, 900, 40)
            inner = scan(number, body=peaks(values, precision, compress), attributes='retentionTime="PT0.5S"')
            text += scan(number - 1, level=1, inner=inner).replace('peaksCount="2"', 'peaksCount="20"')
    path = tmp_path / "run.mzXML"
    path.write_text(HEADER + text + FOOTER, encoding="latin-1")
    ours = list(read_records(path, ms_levels=(1, 2)))
    theirs = {other["num"]: other for other in mzxml.MzXML(str(path), use_index=False)}
    assert [own.native_id for own in ours] == [str(n) for n in range(1, 9)]
    assert sorted(theirs) == [own.native_id for own in ours]
    for own in ours:
        other = theirs[own.native_id]
        assert own.fields["ms_level"] == str(other["msLevel"])
        np.testing.assert_array_equal(own.mz, other["m/z array"])
        np.testing.assert_array_equal(own.intensity, other["intensity array"])
        assert float(own.fields["retention_time"].split()[0]) == pytest.approx(other["retentionTime"] * 60)
        if own.fields["ms_level"] == "2":
            assert float(own.fields["precursor_mz"]) == other["precursorMz"][0]["precursorMz"]
            assert int(own.fields["charge"]) == other["precursorMz"][0]["precursorCharge"]


@given(st.integers(0, 600), st.integers(0, 60), st.text(st.characters(max_codepoint=255), max_size=20))
def test_damage_anywhere_in_a_scan_leaves_the_others(tmp_path_factory, start, length, noise):
    middle = scan(2)
    damaged = middle[:start] + noise + middle[start + length :]
    parsed = records_of(tmp_path_factory.mktemp("mzxml"), HEADER + scan(1) + damaged + "\n" + scan(3) + FOOTER)
    assert_good(parsed[0])
    assert_good(parsed[-1])
    assert (parsed[0].native_id, parsed[-1].native_id) == ("1", "3")
