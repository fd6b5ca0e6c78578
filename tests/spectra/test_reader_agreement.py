"""What the readers of runs give against what pyteomics and pymzdata give, on files made here with every encoding."""

from __future__ import annotations

import base64
import os
import re
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ionbed.spectra.centroiding import centroid
from ionbed.spectra.readers import read_records

from .conftest import array, cv, run, spectrum

DATA = os.environ.get("IONBED_DATA", "")
RUNS = sorted(Path(DATA).glob("raw/*")) if DATA else []


def named(data, vocabulary):
    """Return the file with the names of all terms, as pyteomics needs them."""
    return re.sub(
        rb'accession="(MS:\d+)" name=""',
        lambda m: b'accession="%s" name="%s"' % (m[1], vocabulary[m[1].decode()].name.encode()),
        data,
    )


def encodings():
    """Yield a pair of arrays in every encoding: floats and integers of both sizes, plain, packed, MS-Numpress."""
    rng = np.random.default_rng(0)
    mz, intensity = np.sort(rng.uniform(50, 900, 40)), rng.integers(1, 10_000, 40)
    for dtype, term in (("<f8", "MS:1000523"), ("<f4", "MS:1000521"), ("<i8", "MS:1000522"), ("<i4", "MS:1000519")):
        for compress in (False, True):
            yield array("MS:1000514", mz, dtype, term, compress) + array("MS:1000515", intensity, dtype, term, compress)
    numpress_encoder = pytest.importorskip("pynumpress")
    linear = bytes(numpress_encoder.encode_linear(mz, 1e5))
    slof, pic = (
        bytes(numpress_encoder.encode_slof(intensity.astype(float), 3000.0)),
        bytes(numpress_encoder.encode_pic(intensity.astype(float))),
    )
    for linear_term, intensity_term, data, pack in (
        ("MS:1002312", "MS:1002314", slof, bytes),
        ("MS:1002746", "MS:1002748", slof, zlib.compress),
        ("MS:1002312", "MS:1002313", pic, bytes),
        ("MS:1002746", "MS:1002747", pic, zlib.compress),
    ):
        yield "".join(
            f"<binaryDataArray>{cv(kind)}{cv('MS:1000523')}{cv(term)}"
            f"<binary>{base64.b64encode(pack(values)).decode()}</binary></binaryDataArray>"
            for kind, term, values in (("MS:1000514", linear_term, linear), ("MS:1000515", intensity_term, data))
        )


def test_agreement_with_pyteomics_and_pymzdata(tmp_path, psi_ms_vocabulary):
    from pyteomics import mzml

    pymzdata = pytest.importorskip("pymzdata")
    spectra = [spectrum(n, level=1 + n % 3, arrays=arrays) for n, arrays in enumerate(encodings(), 1)]
    path, path_of_ten = tmp_path / "run.mzML", tmp_path / "ten.mzML"
    for file, members in ((path, spectra), (path_of_ten, spectra[:10])):
        file.write_bytes(named(run(*members), psi_ms_vocabulary))
    ours = list(read_records(path, ms_levels=range(9)))
    theirs = list(mzml.MzML(str(path), use_index=False, cv=psi_ms_vocabulary))
    assert len(ours) == len(theirs) == 12
    for own, other in zip(ours, theirs, strict=True):
        assert own.native_id == other["id"]
        assert own.fields["ms_level"] == str(other["ms level"])
        np.testing.assert_allclose(own.mz, other["m/z array"], rtol=1e-15)
        np.testing.assert_allclose(own.intensity, other["intensity array"], rtol=1e-15)
        assert own.fields["retention_time"] == f"{other['scanList']['scan'][0]['scan start time'] * 60:g} s"
        if own.fields["ms_level"] != "1":
            (ion,) = other["precursorList"]["precursor"][0]["selectedIonList"]["selectedIon"]
            assert float(own.fields["precursor_mz"]) == ion["selected ion m/z"]
            assert float(own.fields["charge"]) == ion["charge state"]
    ten = list(pymzdata.MZReader(str(path_of_ten)))  # which knows no positive integer compression
    for own, other in zip(ours[:10], ten, strict=True):
        assert own.native_id == other.id
        assert own.fields["ms_level"] == str(other.ms_level)
        np.testing.assert_allclose(own.mz, other.mz_array(), rtol=1e-15)
        np.testing.assert_allclose(own.intensity, other.intensity_array(), rtol=1e-7)  # float32
        if own.fields["ms_level"] != "1":
            assert float(own.fields["precursor_mz"]) == other.precursor.ions()[0].mz
            assert float(own.fields["charge"]) == other.precursor.ions()[0].charge


def test_centroids_agree_with_those_of_pymzdata(tmp_path, psi_ms_vocabulary):
    pymzdata = pytest.importorskip("pymzdata")
    rng = np.random.default_rng(0)
    centres, heights = np.arange(100.0, 600.0, 23.017), rng.uniform(1e3, 1e5, 22)
    mz = np.exp(np.arange(np.log(95), np.log(610), 1 / 20_000 / 6))
    intensity = sum(
        height * np.exp(-4 * np.log(2) * ((mz - centre) / (centre / 20_000)) ** 2)
        for centre, height in zip(centres, heights, strict=True)
    )
    intensity = np.where(intensity > 1.0, rng.poisson(intensity), 0.0)
    arrays = array("MS:1000514", mz) + array("MS:1000515", intensity, "<f4", "MS:1000521")
    path = tmp_path / "profile.mzML"
    text = spectrum(1, arrays=arrays).replace("MS:1000127", "MS:1000128")
    path.write_bytes(named(run(text), psi_ms_vocabulary))
    (record,) = read_records(path)
    assert record.fields["spectrum_representation"] == "profile"
    (other,) = pymzdata.MZReader(str(path))
    other.pick_peaks(1.0)
    theirs = np.array(other.centroid_peaks()[0], np.float64)
    ours, _ = centroid(record.mz, record.intensity)
    assert len(ours) == len(centres)
    for found in (ours, np.array([theirs[np.argmin(np.abs(theirs - centre))] for centre in centres])):
        assert (np.abs(found - centres) / centres * 1e6).max() < 5


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
def test_real_runs_are_as_pyteomics_and_pymzdata_read_them(psi_ms_vocabulary):
    from pyteomics import mzml, mzxml

    pymzdata = pytest.importorskip("pymzdata")
    assert {path.suffix.lower() for path in RUNS} == {".mzml", ".mzxml"}
    for path in RUNS:
        is_mzml = path.suffix.lower() == ".mzml"
        name, level = ("id", "ms level") if is_mzml else ("num", "msLevel")
        reader = mzml.MzML(str(path), cv=psi_ms_vocabulary) if is_mzml else mzxml.MzXML(str(path))
        theirs = {spectrum[name]: spectrum for spectrum in reader}
        ours = list(read_records(path, ms_levels=range(1, 10)))
        elements = re.findall(rb"<spectrum\s" if is_mzml else rb"<scan\s", path.read_bytes())
        assert len(ours) == len(theirs) == len(elements)
        for own in ours:
            other = theirs[own.native_id]
            assert (own.problem, own.repairs) == (None, ())
            assert own.fields["ms_level"] == str(other[level])
            np.testing.assert_array_equal(own.mz, other["m/z array"])
            np.testing.assert_array_equal(own.intensity, other["intensity array"])
        if is_mzml:  # pymzdata reads no mzXML
            third = list(pymzdata.MZReader(str(path)))
            assert Counter(str(s.ms_level) for s in third) == Counter(own.fields["ms_level"] for own in ours)
            for own, other in zip(ours, third, strict=True):
                assert own.native_id == other.id
                np.testing.assert_array_equal(own.mz, other.mz_array())
                np.testing.assert_allclose(own.intensity, other.intensity_array(), rtol=1e-7)
                if own.fields["ms_level"] == "2":
                    assert float(own.fields["precursor_mz"]) == other.precursor.ions()[0].mz
