"""mzXML: big-endian pairs, nested scans, cut files."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

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
