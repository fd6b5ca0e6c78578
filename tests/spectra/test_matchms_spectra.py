"""Spectra of matchms are read by the rules of files, and ours come back from matchms as they were."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.matchms_spectra import CLEANED, as_spectra, from_matchms, to_matchms
from ionbed.spectra.record import RawRecord
from ionbed.spectra.spectrum import METADATA_FIELDS
from ionbed.spectra.writers import write_mgf

matchms = pytest.importorskip("matchms")

NO_COUNTERPART = {"grade", "repairs", "flags"}
NO_IDS = {"source_file", "native_id", "spectrum_id"}

MGF = """\
BEGIN IONS
TITLE=first
PEPMASS=195.0877 1000
CHARGE=1+
IONMODE=Positive
ADDUCT=M+H
RTINSECONDS=73.5
COLLISION_ENERGY=35 eV
SMILES=Cn1cnc2c1c(=O)n(C)c(=O)n2C
NAME=Caffeine
138.0662 999
138.0668 100
110.0713 250.5
42.0338 0.5
END IONS

BEGIN IONS
TITLE=second
PEPMASS=179.0350
CHARGE=1-
IONMODE=Negative
PI=A laboratory
INSTRUMENT_TYPE=LC-ESI-QTOF
135.0450 0.7
179.0350 1.0
END IONS
"""


def assert_alike(found, expected, *, without=frozenset()):
    for name in METADATA_FIELDS:
        if name not in without:
            assert getattr(found, name) == getattr(expected, name), name
    assert found.mz.tobytes() == expected.mz.tobytes()
    assert found.intensity.tobytes() == expected.intensity.tobytes()


@pytest.fixture
def mgf(tmp_path):
    path = tmp_path / "two.mgf"
    path.write_text(MGF)
    return path


def test_what_matchms_reads_is_what_ionbed_reads(mgf):
    from matchms.importing import load_from_mgf

    ours, theirs = list(ionbed.read(mgf)), [from_matchms(s) for s in load_from_mgf(str(mgf))]
    assert [len(s) for s in ours] == [2, 2]  # two peaks within 0.001 Da are one, and 0.05% is noise
    assert ours[0].polarity == 1
    assert ours[1].polarity == -1
    for found, expected in zip(theirs, ours, strict=True):
        assert_alike(found, expected, without={"source_file", "repairs"})


def test_matchms_filters_may_run_before(mgf):
    from matchms import filtering
    from matchms.importing import load_from_mgf

    ours = list(ionbed.read(mgf))
    for spectrum, expected in zip(load_from_mgf(str(mgf)), ours, strict=True):
        cleaned = filtering.normalize_intensities(filtering.default_filters(spectrum))
        found = from_matchms(cleaned)
        np.testing.assert_array_equal(found.mz, expected.mz)
        np.testing.assert_allclose(found.intensity, expected.intensity, rtol=1e-6)
        assert (found.polarity, found.charge, found.adduct, found.inchikey) == (
            expected.polarity, expected.charge, expected.adduct, expected.inchikey,
        )  # fmt: skip


def test_they_come_back_through_a_file_of_matchms(mgf, tmp_path):
    from matchms.exporting import save_as_mgf
    from matchms.importing import load_from_mgf

    ours = list(ionbed.read(mgf))
    save_as_mgf([to_matchms(s) for s in ours], str(tmp_path / "saved.mgf"))
    for found, expected in zip(load_from_mgf(str(tmp_path / "saved.mgf")), ours, strict=True):
        assert_alike(from_matchms(found), expected, without=NO_COUNTERPART)


text = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=3, max_size=12).map(lambda t: f"x{t}")
molecules = st.sampled_from(
    [
        ("CC(=O)Nc1ccc(O)cc1", 152.0706, "[M+H]+", "positive"),
        ("CC(=O)Nc1ccc(O)cc1", 150.0561, "[M-H]-", "negative"),
        ("Cn1cnc2c1c(=O)n(C)c(=O)n2C", 217.0696, "[M+Na]+", "positive"),
        ("OC(=O)CCC(=O)O", 250.0, "[M+H]+", "positive"),  # which its mass is not
        ("nonsense", 300.25, "M+2H", "positive"),
    ]
)


@st.composite
def records(draw):
    smiles, precursor_mz, adduct, mode = draw(molecules)
    fields = {"precursor_mz": repr(precursor_mz)}
    optional = {
        "smiles": st.just(smiles), "adduct": st.just(adduct), "polarity": st.just(mode), "name": text,
        "charge": st.sampled_from(["1", "1+", "2+", "1-", "0"]),
        "retention_time": st.floats(0, 4000, width=32).map(str), "instrument": text, "instrument_type": text,
        "collision_energy": st.sampled_from(["35 eV", "20", "30(NCE)", "15 % (nominal)", "20,40,60 (stepped)", "high"]),
        "usi": text, "license": text, "laboratory": text, "chemical_class": text, "ms_level": st.just("2"),
        "predicted": st.just("true"), "formula": st.just("C8H9NO2"),
    }  # fmt: skip
    for name, strategy in optional.items():
        if draw(st.booleans()):
            fields[name] = draw(strategy)
    count = draw(st.integers(1, 8))
    mz = draw(st.lists(st.floats(30, 1200), min_size=count, max_size=count))
    mz += [m + draw(st.floats(0, 0.003)) for m in mz[: draw(st.integers(0, count))]]
    intensity = draw(st.lists(st.floats(1e-4, 1e6), min_size=len(mz), max_size=len(mz)))
    native_id = draw(st.one_of(st.just(""), text))
    return RawRecord("made.mgf", native_id, draw(st.integers(1, 9)), fields, np.array(mz), np.array(intensity))


@settings(max_examples=80)
@given(record=records())
def test_a_spectrum_comes_back_as_it_was(record):
    spectrum = harmonise(record)
    assert not isinstance(spectrum, Dropped)
    there = to_matchms(spectrum)
    assert there.get("precursor_mz") == spectrum.precursor_mz
    np.testing.assert_array_equal(there.peaks.mz, spectrum.mz)
    back = from_matchms(there)
    assert_alike(back, spectrum, without=NO_COUNTERPART | ({"native_id"} if spectrum.native_id is None else set()))
    again = from_matchms(to_matchms(back))
    assert_alike(again, back, without=NO_COUNTERPART)


@settings(max_examples=30)
@given(record=records())
def test_raw_spectra_of_matchms_are_cleaned_as_files_are(record):
    theirs = {
        "precursor_mz": "precursor_mz", "smiles": "smiles", "adduct": "adduct", "polarity": "ionmode",
        "name": "compound_name", "collision_energy": "collision_energy",
    }  # fmt: skip
    kept = {name: value for name, value in record.fields.items() if name in theirs}
    expected = harmonise(dataclasses.replace(record, fields=kept))
    order = np.argsort(record.mz, kind="stable")
    metadata = {theirs[name]: value for name, value in kept.items()} | {"spectrum_id": "x1"}
    found = from_matchms(matchms.Spectrum(record.mz[order], record.intensity[order], metadata))
    assert_alike(found, expected, without=NO_COUNTERPART | NO_IDS)


@pytest.mark.parametrize("harmonised", [True, False])
def test_entries_of_other_types_are_read(harmonised):
    metadata = {
        "pepmass": (195.0877, 12.0, "1+"),
        "ms_level": 2,
        "retention_time": np.float32(12.5),
        "charge": 0,
        "collision_energy": 20.0,
        "synonyms": ["a", "b"],
        "fingerprint": np.zeros(4),
        "scans": 17,
        "compound_name": None,
        "instrument": float("nan"),
    }
    spectrum = matchms.Spectrum(
        np.array([50.0, 60.0]), np.array([1.0, 2.0]), metadata, metadata_harmonization=harmonised
    )
    found = from_matchms(spectrum)
    assert found.precursor_mz == 195.0877
    assert found.retention_time == 12.5
    assert found.collision_energy_raw == "20.0"
    assert found.spectrum_id == "17"
    assert found.name is None
    assert found.instrument is None
    assert found.source_file == "matchms"


def test_a_bare_positive_charge_does_not_tell_the_polarity():
    def read(**metadata):
        return from_matchms(
            matchms.Spectrum(np.array([50.0]), np.array([1.0]), {"precursor_mz": 100.0, **metadata})
        ).polarity

    assert read(charge=1) is None
    assert read(charge=-1) == -1
    assert read(charge=1, ionmode="negative") == -1
    assert read(charge=1, adduct="[M+H]+") == 1


def test_cleaned_peaks_are_not_merged_again_and_others_are():
    mz, intensity = np.array([100.0, 100.0005, 200.0]), np.array([0.5, 0.5, 1.0])
    entries = {"precursor_mz": 300.0}
    assert len(from_matchms(matchms.Spectrum(mz, intensity, entries))) == 2
    assert len(from_matchms(matchms.Spectrum(mz, intensity, {**entries, CLEANED: True}))) == 3


@pytest.mark.parametrize(
    ("metadata", "mz", "reason"),
    [
        ({"spectrum_id": "a"}, [50.0], "a: is not usable: no-precursor-mz"),
        ({"spectrum_id": "b", "precursor_mz": 100.0}, [], "b: is not usable: too-few-peaks"),
        ({"spectrum_id": "c", "precursor_mz": 100.0, "ms_level": 1}, [50.0], "c: is not usable: ms-level"),
    ],
)
def test_what_cannot_be_used_is_named(metadata, mz, reason):
    with pytest.raises(InputError, match=reason):
        from_matchms(matchms.Spectrum(np.array(mz), np.ones(len(mz)), metadata))


def test_other_things_are_no_spectra(mgf):
    (first, _) = ionbed.read(mgf)
    assert list(as_spectra([first])) == [first]
    assert_alike(next(as_spectra([to_matchms(first)])), first, without=NO_COUNTERPART)
    with pytest.raises(InputError, match=r"a spectrum is a builtins.str; give those of ionbed.read"):
        list(as_spectra("text"))


def test_written_by_ionbed_and_read_by_matchms(mgf, tmp_path):
    from matchms.importing import load_from_mgf

    ours = list(ionbed.read(mgf))
    write_mgf(ours, tmp_path / "ours.mgf")
    for found, expected in zip(load_from_mgf(str(tmp_path / "ours.mgf")), ours, strict=True):
        assert_alike(from_matchms(found), expected, without=NO_COUNTERPART | {"source_file"})
