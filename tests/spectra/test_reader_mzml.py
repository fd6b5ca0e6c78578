"""mzML: terms by accession, arrays in each encoding, and damage that costs one spectrum or what lies behind the cut."""

from __future__ import annotations

import base64
import codecs
import gzip
import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.collision_energy import collision_energy_in_ev
from ionbed.spectra.harmonise import harmonise
from ionbed.spectra.readers import read_records
from ionbed.spectra.spectrum import Spectrum

from .conftest import ARRAYS, INTENSITY, MZ, PRECURSOR, TIME, array, cv, run, spectrum


def records_of(tmp_path, data, **options):
    path = tmp_path / "run.mzML"
    path.write_bytes(data)
    return list(read_records(path, **options))


def assert_good(parsed):
    assert parsed.problem is None
    np.testing.assert_array_equal(parsed.mz, MZ)
    np.testing.assert_array_equal(parsed.intensity, INTENSITY)


def test_every_field(tmp_path):
    (parsed,) = records_of(tmp_path, run(spectrum(7)))
    assert_good(parsed)
    assert (parsed.native_id, parsed.position) == ("scan=7", 1)
    assert parsed.fields == {
        "instrument": "Q Exactive", "ms_level": "2", "polarity": "positive", "spectrum_representation": "centroid",
        "retention_time": "90 s", "precursor_mz": "200.125", "charge": "2", "activation": "HCD",
        "collision_energy": "35.0 eV",
    }  # fmt: skip


def test_isolation_window_stands_in_for_a_missing_selected_ion(tmp_path):
    (parsed,) = records_of(tmp_path, run(spectrum(precursor=PRECURSOR.replace("MS:1000744", "MS:0"))))
    assert parsed.fields["precursor_mz"] == "200"


def test_seconds_stay_and_profile_is_said(tmp_path):
    text = spectrum(scan=cv("MS:1000016", "12.5", unit="UO:0000010")).replace("MS:1000127", "MS:1000128")
    (parsed,) = records_of(tmp_path, run(text.replace("MS:1000130", "MS:1000129")))
    assert parsed.fields["retention_time"] == "12.5 s"
    assert parsed.fields["spectrum_representation"] == "profile"


def test_an_energy_that_thermo_normalised_is_no_electronvolt(tmp_path):
    scan = cv("MS:1000512", "FTMS + p ESI d Full ms2 200.125@hcd35.00 [50.00-220.00]")
    (parsed,) = records_of(tmp_path, run(spectrum(scan=scan)))
    assert parsed.fields["collision_energy"] == "35.0 (NCE)"


def test_steps_of_normalised_energy_are_no_electronvolt(tmp_path):
    """The filter text names one of them."""
    scan = cv("MS:1000512", "FTMS + p ESI d Full ms2 200.125@hcd30.00 [50.00-220.00]")
    steps = "".join(cv("MS:1000045", energy, unit="UO:0000266") for energy in ("20.0", "30.0", "45.0"))
    precursor = PRECURSOR.replace(cv("MS:1000045", "35.0", unit="UO:0000266"), steps)
    (parsed,) = records_of(tmp_path, run(spectrum(scan=scan, precursor=precursor)))
    assert parsed.fields["collision_energy"] == "20.0, 30.0, 45.0 (NCE) (stepped)"


@pytest.mark.parametrize(("offsets", "width"), [(("12.5", "12.5"), "25"), (("0.5", "1.5"), "2"), (("0", "5"), None)])
def test_the_width_of_the_isolation_window(tmp_path, offsets, width):
    terms = cv("MS:1000828", offsets[0]) + cv("MS:1000829", offsets[1])
    precursor = PRECURSOR.replace("</isolationWindow>", terms + "</isolationWindow>")
    (parsed,) = records_of(tmp_path, run(spectrum(precursor=precursor)))
    assert parsed.fields.get("isolation_width") == width


def test_survey_scans_are_counted_without_peaks(tmp_path):
    data = run(spectrum(1, level=1), spectrum(2), spectrum(3, level=1))
    levels = [(p.fields["ms_level"], len(p), p.problem) for p in records_of(tmp_path, data)]
    assert levels == [("1", 0, None), ("2", 3, None), ("1", 0, None)]
    assert [len(p) for p in records_of(tmp_path, data, ms_levels=(1,))] == [3, 0, 3]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("dtype", "term"), [("<f8", "MS:1000523"), ("<f4", "MS:1000521")])
def test_encodings_of_arrays(tmp_path, dtype, term, compress):
    arrays = array("MS:1000514", MZ, dtype, term, compress) + array("MS:1000515", INTENSITY, dtype, term, compress)
    (parsed,) = records_of(tmp_path, run(spectrum(arrays=arrays)))
    assert_good(parsed)


def test_numpress_arrays(tmp_path):
    # Made with pynumpress 0.1.5: encode_linear(mz, 1e4), encode_slof(intensity, 3000).
    encoded = {"MS:1000514": ("MS:1002312", LINEAR), "MS:1000515": ("MS:1002748", zlib.compress(SLOF))}
    arrays = "".join(
        f"<binaryDataArray>{cv(kind)}{cv('MS:1000523')}{cv(term)}<binary>{base64.b64encode(data).decode()}</binary>"
        "</binaryDataArray>"
        for kind, (term, data) in encoded.items()
    )
    (parsed,) = records_of(tmp_path, run(spectrum(arrays=arrays)))
    assert parsed.problem is None
    np.testing.assert_allclose(parsed.mz, [100.0, 150.5, 150.75, 300.25], atol=1e-9)
    np.testing.assert_allclose(parsed.intensity, [1, 1000, 50.5, 0], rtol=5e-4)


LINEAR = bytes.fromhex("40c388000000000040420f00e8f61600bc15582416c610")
SLOF = bytes.fromhex("40a77000000000001f08f650312e0000")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("<binary>", "<binary>!!", "bad-binary-array"),
        ("<binary>", "<binary>AAAA", "bad-binary-array"),
        (
            'accession="MS:1000576" name=""',
            'accession="MS:1003999" name="new compression"',
            "unsupported-binary-encoding",
        ),
        ("MS:1000523", "MS:0", "unsupported-binary-encoding"),
        ("MS:1000576", "MS:1000574", "bad-binary-array"),  # said to be zlib, is not
        ("<scanList", "<scanList <", "malformed-xml"),
        ("</scan>", "", "malformed-xml"),
        ("</spectrum>", "", "malformed-xml"),
        ("scan=2", "scan=\x00", "malformed-xml"),
        (ARRAYS, "", "no-peaks"),
        (array("MS:1000515", INTENSITY), array("MS:1000515", INTENSITY[:2]), "bad-binary-array"),
    ],
)
def test_a_damaged_spectrum_costs_only_itself(tmp_path, old, new, problem):
    assert old in spectrum(2)
    first, bad, last = records_of(tmp_path, run(spectrum(1), spectrum(2).replace(old, new), spectrum(3)))
    assert_good(first)
    assert_good(last)
    assert (bad.problem, len(bad)) == (problem, 0)
    assert [p.position for p in (first, bad, last)] == [1, 2, 3]


def test_a_cut_file_gives_what_is_whole_and_says_so(tmp_path):
    data = run(spectrum(1), spectrum(2), spectrum(3))
    border = data.index(b'<spectrum index="2"')
    for end in (border, border + 5, border + 30, border + 400, data.index(b"</spectrumList>") + 5):
        parsed = records_of(tmp_path, data[:end])
        whole = 3 if end > data.rindex(b"</spectrum>") else 2
        assert [p.problem for p in parsed] == [None] * whole + ["truncated"]
        for p in parsed[:-1]:
            assert_good(p)


def test_a_cut_gzip_stream_gives_what_is_whole_and_says_so(tmp_path):
    data = run(*(spectrum(n, arrays=array("MS:1000514", np.random.default_rng(n).random(3000))) for n in range(1, 40)))
    packed = gzip.compress(data)
    path = tmp_path / "run.mzML.gz"
    path.write_bytes(packed)
    assert len(list(read_records(path))) == 39
    path.write_bytes(packed[: len(packed) // 2])
    parsed = list(read_records(path))
    assert 10 < len(parsed) < 30
    assert [p.problem for p in parsed[:-1]] == ["bad-binary-array"] * (len(parsed) - 1)  # an m/z array alone
    assert parsed[-1].problem == "truncated"


def test_fewer_spectra_than_stated_in_a_closed_list_are_no_damage(tmp_path):
    assert [p.problem for p in records_of(tmp_path, run(spectrum()))] == [None]


def test_spectra_that_cannot_be_found_are_not_silently_none(tmp_path):
    data = run(spectrum()).replace(b"<spectrum ", b"<spektrum ")
    assert [p.problem for p in records_of(tmp_path, data)] == ["truncated"]
    assert records_of(tmp_path, run().replace(b'count="3"', b'count="0"')) == []


def test_declared_encoding_and_windows_line_ends(tmp_path):
    data = run(spectrum(1).replace("scan=1", "scan=\xb5"), encoding="iso-8859-1").replace(b"\n", b"\r\n")
    (parsed,) = records_of(tmp_path, data)
    assert_good(parsed)
    assert parsed.native_id == "scan=\xb5"


def test_entities_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("42")
    data = run(spectrum()).replace(
        b"<indexedmzML", f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret}">]><indexedmzML'.encode()
    )
    data = data.replace(b'name="Q Exactive"', b'name="&e;"')
    assert "42" not in str([p.fields for p in records_of(tmp_path, data)])


@given(st.integers(0, 3000), st.integers(0, 60), st.binary(max_size=20))
def test_damage_anywhere_in_a_spectrum_leaves_the_others(tmp_path_factory, start, length, noise):
    middle = spectrum(2).encode()
    start = min(start, len(middle))
    damaged = middle[:start] + noise + middle[start + length :]
    data = run(spectrum(1), "@", spectrum(3)).replace(b"@", damaged + b"\n")
    parsed = records_of(tmp_path_factory.mktemp("mzml"), data)
    assert_good(parsed[0])
    assert_good(parsed[-1])
    assert (parsed[0].native_id, parsed[-1].native_id) == ("scan=1", "scan=3")


def test_comments_an_unknown_encoding_and_a_level_by_its_term_only(tmp_path):
    data = run(spectrum(1).replace("MS:1000511", "MS:1000579"), spectrum(2)).replace(
        b"<run ", b"<!-- a --><?b c?><run "
    )
    data = data.replace(b"<scanList", b"<!-- d --><scanList")
    first, second = records_of(tmp_path, data)
    assert (first.fields["ms_level"], len(first)) == ("1", 0)
    assert_good(second)
    parsed = records_of(tmp_path, data.replace(b'encoding="utf-8"', b'encoding="no-such"'))
    assert [p.problem for p in parsed] == ["malformed-xml", "malformed-xml"]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("utf-8", gzip.compress),
        ("utf-8", lambda data: codecs.BOM_UTF8 + data),
        ("iso-8859-1", bytes),
        ("iso-8859-1", gzip.compress),
        ("utf-16", bytes),
    ],
)
def test_packed_marked_and_otherwise_encoded_files(tmp_path, encoding, pack):
    (parsed,) = records_of(tmp_path, pack(run(spectrum(7).replace("scan=7", "scan=7 \xb5"), encoding=encoding)))
    assert_good(parsed)
    assert parsed.native_id == "scan=7 \xb5"


def test_an_index_that_is_cut_wrong_or_missing_does_not_matter(tmp_path):
    index = '<indexList count="1"><index name="spectrum"><offset idRef="scan=1">99</offset></index></indexList>'
    end = f"</spectrumList></run></mzML>{index}<indexListOffset>1</indexListOffset></indexedmzML>"
    spectra = spectrum(1), spectrum(2), spectrum(3)
    expected = [(f"scan={n}", n, None) for n in (1, 2, 3)]
    indexed = run(*spectra, footer=end)
    bare = run(*spectra, footer="</spectrumList></run></mzML>").replace(b"<indexedmzML>", b"")
    for data in (indexed, indexed[: indexed.index(b"<offset") + 9], indexed.replace(b'idRef="scan=1"', b""), bare):
        parsed = records_of(tmp_path, data)
        assert [(p.native_id, p.position, p.problem) for p in parsed] == expected
        for p in parsed:
            assert_good(p)


def test_a_run_of_chromatograms_only_is_whole_and_empty(tmp_path):
    data = run().replace(b'<spectrumList count="3">', b"<chromatogramList>")
    assert records_of(tmp_path, data.replace(b"</spectrumList>", b"</chromatogramList>")) == []


def test_namespace_prefixes(tmp_path):
    data = run(spectrum(1), spectrum(2, level=1, extra="<userParam name='a'/>"))
    prefixed = re.sub(rb"(</?)(?=[A-Za-z])", rb"\1ms:", data).replace(b" xmlns=", b" xmlns:ms=")
    assert b"<ms:cvParam" in prefixed
    plain, parsed = records_of(tmp_path, data), records_of(tmp_path, prefixed)
    assert [p.fields for p in parsed] == [p.fields for p in plain]
    assert_good(parsed[0])
    own = data.replace(b"<spectrum ", b'<spectrum xmlns="http://psi.hupo.org/ms/mzml" xmlns:x="y" ')
    assert [p.fields for p in records_of(tmp_path, own)] == [p.fields for p in plain]
    assert [p.problem for p in records_of(tmp_path, prefixed[: prefixed.rindex(b"</ms:binary>")])] == [
        None,
        "truncated",
    ]


@pytest.mark.parametrize(
    "native_id",
    [
        "controllerType=0 controllerNumber=1 scan=15",  # Thermo
        "function=2 process=0 scan=15",  # Waters
        "sample=1 period=1 cycle=15 experiment=2",  # Sciex
        "scanId=151717",  # Agilent
        "frame=3 scan=15",  # Bruker timsTOF
        "scan=15",
        "index=14",
        "merged=1 frame=3 scanStart=4 scanEnd=9",
        "spectrum=15 &quot;a&quot; &amp; b",
    ],
)
def test_ids_of_every_vendor(tmp_path, native_id):
    text = spectrum(1).replace("scan=1", native_id).replace("<precursor>", f'<precursor spectrumRef="{native_id}">')
    (parsed,) = records_of(tmp_path, run(text))
    assert_good(parsed)
    assert parsed.native_id == native_id.replace("&quot;", '"').replace("&amp;", "&")


def precursor(selected="", isolated="", activation="", level=""):
    level = f'<userParam name="ms level" value="{level}"/>' if level else ""
    ions = "".join(f"<selectedIon>{cv('MS:1000744', mz)}</selectedIon>" for mz in selected.split())
    target = cv("MS:1000827", isolated) if isolated else ""
    return (
        f"<precursor><isolationWindow>{target}{level}</isolationWindow>"
        f"<selectedIonList>{ions}</selectedIonList><activation>{activation}</activation></precursor>"
    )


@pytest.mark.parametrize(
    ("precursors", "expected", "repairs"),
    [
        ([precursor("200.1", "200")], "200.1", ()),
        ([precursor("", "200")], "200", ()),
        ([precursor("0", "200")], "200", ()),  # Waters writes 0 where nothing was selected
        ([precursor("N/A", "200")], "200", ()),
        ([precursor("0", "")], "0", ()),  # left to be judged as written
        ([precursor("", "")], None, ()),
        ([precursor("200.1 300.2", "250")], "200.1", ("several-precursors",)),
        ([precursor("200.1 200.1", "200")], "200.1", ()),  # one ion, listed with each charge it may have
        ([precursor("200.1", "200"), precursor("300.2", "300")], "200.1", ("several-precursors",)),
        ([precursor("", "200"), precursor("", "300")], "200", ("several-precursors",)),
        ([precursor("800.4", "800", level="1"), precursor("200.1", "200", level="2")], "200.1", ()),
        ([precursor("200.1", "200", level="2"), precursor("800.4", "800", level="1")], "200.1", ()),
        (
            [precursor("800.4", level="1"), precursor("200.1", level="2"), precursor("300.2", level="2")],
            "200.1",
            ("several-precursors",),
        ),
    ],
)
def test_which_precursor_is_meant(tmp_path, precursors, expected, repairs):
    text = f"<precursorList>{''.join(precursors)}</precursorList>"
    (parsed,) = records_of(tmp_path, run(spectrum(level=3, precursor=text)))
    assert_good(parsed)
    assert (parsed.fields.get("precursor_mz"), parsed.repairs) == (expected, repairs)


def test_what_becomes_of_missing_precursors_and_higher_levels(tmp_path):
    path = tmp_path / "run.mzML"
    nothing = f"<precursorList>{precursor()}</precursorList>"
    path.write_bytes(run(spectrum(1, precursor=nothing), spectrum(2, precursor=""), spectrum(3), spectrum(4, level=3)))
    reader = ionbed.read(path)
    assert [s.spectrum_id for s in reader] == ["scan=3"]
    assert reader.report.dropped == {"no-precursor-mz": 2, "ms-level": 1}
    records = list(read_records(path))
    third = [harmonise(record, ms_levels=(3,)) for record in records][3]
    assert isinstance(third, Spectrum)
    assert (third.ms_level, third.precursor_mz) == (3, 200.125)
    assert [len(r) for r in read_records(path, ms_levels=(3,))] == [0, 0, 0, 3]


@pytest.mark.parametrize(
    ("activation", "filter_text", "expected"),
    [
        (cv("MS:1000045", "35"), "", "35 eV"),
        (cv("MS:1000045", "0"), "", "0 eV"),
        (cv("MS:1000138", "30"), "", "30 (NCE)"),
        (cv("MS:1000045", "20") + cv("MS:1000045", "40"), "", "20, 40 eV (stepped)"),
        (cv("MS:1000138", "20") + cv("MS:1000138", "40"), "", "20, 40 (NCE) (stepped)"),
        (cv("MS:1002013", "10") + cv("MS:1002014", "45"), "", "Ramp 10-45 eV"),
        (cv("MS:1002218", "10") + cv("MS:1002219", "45"), "", "Ramp 10-45 (NCE)"),
        (cv("MS:1002013", "10"), "", None),
        (cv("MS:1000422"), "", None),
        (cv("MS:1000422"), "FTMS + c ESI d Full ms2 167.0134@hcd30.00 [50-190]", "30.00 (NCE)"),
        (cv("MS:1000045", "65"), "FTMS ms3 608.87@cid30.00 430.78@hcd65.00 [100-500]", "65 (NCE)"),
        (cv("MS:1000045", "25"), "FTMS ms2 200.1@hcd30.00 [50-220]", "25 eV"),
    ],
)
def test_collision_energies(tmp_path, activation, filter_text, expected):
    scan = TIME + (cv("MS:1000512", filter_text) if filter_text else "")
    text = f"<precursorList>{precursor('200.1', activation=activation)}</precursorList>"
    (parsed,) = records_of(tmp_path, run(spectrum(precursor=text, scan=scan)))
    energy = parsed.fields.get("collision_energy")
    assert energy == expected
    if energy:
        assert collision_energy_in_ev(energy, precursor_mz=500.0, charge=1) is not None


def test_terms_that_are_missing_are_absent_and_user_parameters_are_not_terms(tmp_path):
    text = spectrum(extra='<userParam name="ms level" value="1"/><userParam name="positive scan"/>')
    for gone in (cv("MS:1000511", 2), cv("MS:1000127"), '<referenceableParamGroupRef ref="positive"/>', TIME):
        assert gone in text
        text = text.replace(gone, "")
    (parsed,) = records_of(tmp_path, run(text))
    assert_good(parsed)
    assert set(parsed.fields) == {"instrument", "precursor_mz", "charge", "activation", "collision_energy"}


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("UO:0000031", "750 s"),
        ("UO:0000010", "12.5 s"),
        ("UO:0000028", "0.0125 s"),
        ("UO:0000032", "45000 s"),
        ("", None),
    ],
)
def test_units_of_time(tmp_path, unit, expected):
    (parsed,) = records_of(tmp_path, run(spectrum(scan=cv("MS:1000016", "12.5", unit=unit))))
    assert parsed.fields.get("retention_time") == expected
    assert parsed.repairs == (() if unit else ("retention-time-without-unit",))


def test_peaks_that_are_no_numbers_cost_only_themselves(tmp_path):
    arrays = array("MS:1000514", [50.0, np.nan, 70.0, 80.0, 90.0]) + array("MS:1000515", [1.0, 2.0, np.inf, -4.0, 5.0])
    path = tmp_path / "run.mzML"
    path.write_bytes(run(spectrum(arrays=arrays)))
    (record,) = read_records(path)
    assert record.repairs == ("bad-peak", "peak-count")  # it says that it has 3
    (kept,) = ionbed.read(path)
    assert kept.mz.tolist() == [50.0, 90.0]


def test_empty_arrays_and_arrays_of_no_interest(tmp_path):
    empty = array("MS:1000514", []) + array("MS:1000515", [])
    charges = array("MS:1000516", [1, 2, 3], "<i4", "MS:1000519")
    first, second = records_of(tmp_path, run(spectrum(1, arrays=empty), spectrum(2, arrays=charges + ARRAYS)))
    assert (first.problem, len(first)) == ("no-peaks", 0)
    assert_good(second)


def test_a_survey_scan_whose_peaks_are_damaged_is_still_a_survey_scan(tmp_path):
    data = run(spectrum(1, level=1).replace("<binary>", "<binary><"), spectrum(2))
    assert [(p.fields["ms_level"], p.problem) for p in records_of(tmp_path, data)] == [("1", None), ("2", None)]
    assert records_of(tmp_path, data, ms_levels=(1,))[0].problem == "malformed-xml"
