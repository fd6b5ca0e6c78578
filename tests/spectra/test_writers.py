"""What is written as MSP or MGF reads back the same."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ionbed
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.writers import format_msp, write_mgf, write_msp

SPECTRUM = Spectrum(
    spectrum_id="lib-1",
    native_id="lib-1",
    precursor_mz=166.086254886,
    mz=np.array([103.05423, 120.08078, 166.08626], np.float32),
    intensity=np.array([0.25, 1.0, 0.123456], np.float32),
    charge=1,
    polarity=1,
    adduct="[M+H]+",
    retention_time=61.5,
    collision_energy=20.0,
    collision_energy_raw="20 eV",
    instrument_type="LC-ESI-QFT",
    instrument="Q Exactive",
    smiles="NC(Cc1ccccc1)C(=O)O",
    inchikey="COLNVLDHVKWLRT-UHFFFAOYSA-N",
    formula="C9H11NO2",
    name="Phenylalanine",
    laboratory="Somewhere",
    license="CC0",
)
SAME = ("native_id", "precursor_mz", "charge", "polarity", "adduct", "ms_level", "retention_time", "collision_energy",
        "collision_energy_raw", "instrument_type", "instrument", "smiles", "inchikey", "formula", "name", "laboratory",
        "license", "predicted")  # fmt: skip


@pytest.mark.parametrize(("write", "name"), [(write_msp, "s.msp"), (write_mgf, "s.mgf")])
@pytest.mark.parametrize("predicted", [True, False])
def test_round_trip(tmp_path: Path, write, name: str, predicted: bool) -> None:
    spectra = [dataclasses.replace(SPECTRUM, predicted=predicted)] * 2
    assert write(spectra, tmp_path / name) == 2
    for found in ionbed.read(tmp_path / name):
        assert found.mz.tolist() == SPECTRUM.mz.tolist()
        assert found.intensity.tolist() == SPECTRUM.intensity.tolist()
        for field in SAME:
            assert getattr(found, field) == getattr(spectra[0], field), field


@pytest.mark.parametrize(("write", "name"), [(write_msp, "s.msp"), (write_mgf, "s.mgf")])
def test_unknown_stays_unknown(tmp_path: Path, write, name: str) -> None:
    bare = Spectrum(spectrum_id="x", precursor_mz=100.5, mz=SPECTRUM.mz[:2] - 50, intensity=SPECTRUM.intensity[:2])
    write([dataclasses.replace(bare, ms_level=None)], tmp_path / name)
    [found] = ionbed.read(tmp_path / name)
    for field in ("charge", "polarity", "adduct", "collision_energy", "smiles", "retention_time", "ms_level"):
        assert getattr(found, field) is None, field
    assert not found.predicted


def test_annotations_are_read_over(tmp_path: Path) -> None:
    text = format_msp(SPECTRUM, annotations=("C8H7+", "C8H10N+", "C9H12NO2+"))
    assert '120.08078 1.0 "C8H10N+"' in text
    (tmp_path / "s.msp").write_text(text)
    [found] = ionbed.read(tmp_path / "s.msp")
    assert found.mz.tolist() == SPECTRUM.mz.tolist()


@example(name="END IONS", peaks=[(50.0, 1.0), (51.0, 1.0)], extension="mgf")
@example(name="see END IONS 2", peaks=[(50.0, 1.0), (51.0, 1.0)], extension="mgf")
@example(name="Num Peaks: 1", peaks=[(50.0, 1.0), (51.0, 1.0)], extension="msp")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(string.ascii_letters + string.digits + " =:;#\"'()[]{}-+,.\n\téß", min_size=1).filter(
        lambda text: text.strip() and text.strip()[0].isalpha()
    ),
    peaks=st.lists(
        st.tuples(st.floats(50, 150, width=32), st.floats(0.015625, 1, width=32)),
        min_size=2, max_size=20, unique_by=lambda peak: round(peak[0], 1),
    ),
    extension=st.sampled_from(["msp", "mgf"]),
)  # fmt: skip
def test_any_name_and_peaks(tmp_path: Path, name: str, peaks: list[tuple[float, float]], extension: str) -> None:
    mz, intensity = np.array(sorted(peaks), np.float32).T
    spectrum = dataclasses.replace(
        SPECTRUM, name=name, mz=mz, intensity=(intensity / intensity.max()).astype(np.float32)
    )
    path = tmp_path / f"s.{extension}"
    (write_msp if extension == "msp" else write_mgf)([spectrum, SPECTRUM], path)
    found, after = ionbed.read(path)
    assert after.name == SPECTRUM.name
    assert found.mz.tolist() == mz.tolist()
    assert np.allclose(found.intensity, spectrum.intensity, rtol=1e-6)
