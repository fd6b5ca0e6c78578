"""mzML: terms by accession, arrays in each encoding, and damage that costs one spectrum or what lies behind the cut."""

from __future__ import annotations

import base64
import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.readers import numpress, read_records
from ionbed.spectra.readers.runs import BadArrayError

MZ, INTENSITY = np.array([50.5, 60.25, 99.125]), np.array([10.0, 20.5, 7.0])

HEADER = """\
<?xml version="1.0" encoding="{encoding}"?>
<indexedmzML xmlns="http://psi.hupo.org/ms/mzml"><mzML id="run">
<referenceableParamGroupList count="2">
<referenceableParamGroup id="positive"><cvParam accession="MS:1000130" name="positive scan"/></referenceableParamGroup>
<referenceableParamGroup id="instrument"><cvParam accession="MS:1001911" name="Q Exactive"/>
<cvParam accession="MS:1000529" name="instrument serial number" value="7"/></referenceableParamGroup>
</referenceableParamGroupList>
<instrumentConfigurationList count="1"><instrumentConfiguration id="IC1"><referenceableParamGroupRef ref="instrument"/>
<componentList count="0"/></instrumentConfiguration></instrumentConfigurationList>
<run id="run"><spectrumList count="3">
"""
FOOTER = "</spectrumList></run></mzML></indexedmzML>\n"


def cv(accession, value="", name="", unit=""):
    return f'<cvParam cvRef="MS" accession="{accession}" name="{name}" value="{value}" unitAccession="{unit}"/>'


def array(kind, values, dtype="<f8", dtype_term="MS:1000523", compress=None):
    data = np.asarray(values).astype(dtype).tobytes()
    terms = cv(kind) + cv(dtype_term) + cv("MS:1000574" if compress else "MS:1000576")
    text = base64.b64encode(zlib.compress(data) if compress else data).decode()
    return f"<binaryDataArray>{terms}<binary>{text}</binary></binaryDataArray>"


TIME = cv("MS:1000016", "1.5", unit="UO:0000031")
ARRAYS = array("MS:1000514", MZ) + array("MS:1000515", INTENSITY)
PRECURSOR = (
    "<precursorList count='1'><precursor><isolationWindow>" + cv("MS:1000827", "200") + "</isolationWindow>"
    "<selectedIonList count='1'><selectedIon>" + cv("MS:1000744", "200.125") + cv("MS:1000041", "2") + "</selectedIon>"
    "</selectedIonList><activation>" + cv("MS:1000422") + cv("MS:1000045", "35.0", unit="UO:0000266") + "</activation>"
    "</precursor></precursorList>"
)


def spectrum(number=1, level=2, extra="", scan=TIME, precursor=PRECURSOR, arrays=ARRAYS):
    terms = cv("MS:1000511", level) + cv("MS:1000127") + '<referenceableParamGroupRef ref="positive"/>' + extra
    return (
        f'<spectrum index="{number - 1}" id="scan={number}" defaultArrayLength="3">{terms}'
        f'<scanList count="1"><scan>{scan}</scan></scanList>{precursor if level > 1 else ""}'
        f'<binaryDataArrayList count="2">{arrays}</binaryDataArrayList></spectrum>\n'
    )


def run(*spectra, encoding="utf-8", footer=FOOTER):
    return (HEADER.format(encoding=encoding) + "".join(spectra) + footer).encode(encoding)


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
PIC = bytes.fromhex("7158e36238")  # encode_pic([1, 1000, 50, 0])


def test_numpress_integers():
    np.testing.assert_array_equal(numpress.decode_pic(PIC), [1, 1000, 50, 0])


@pytest.mark.parametrize("decode", [numpress.decode_linear, numpress.decode_slof, numpress.decode_pic])
@given(st.binary(max_size=64))
def test_numpress_takes_any_bytes(decode, data):
    try:
        values = decode(data)
    except BadArrayError:
        return
    assert values.dtype == np.float64


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
