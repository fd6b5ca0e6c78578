"""The one table of field names: every dialect's spellings, the words that mean two things, and implied units."""

from __future__ import annotations

import pytest

from ionbed.spectra.readers.field_names import field_of, native_id_of, normal_key, unit_of, with_unit
from ionbed.spectra.record import FIELDS


@pytest.mark.parametrize(
    ("key", "dialect", "field"),
    [
        ("PEPMASS", "MGF", "precursor_mz"),
        ("PRECURSOR_MZ", "MassSpecGym", "precursor_mz"),
        ("Precursor_MZ", "GNPS", "precursor_mz"),
        ("precursor m/z", "MoNA", "precursor_mz"),
        ("PRECURSOR_M/Z", "MassBank", "precursor_mz"),
        ("PrecursorMZ", "NIST", "precursor_mz"),
        ("Precursor_type", "NIST", "adduct"),
        ("PRECURSORTYPE", "MS-DIAL", "adduct"),
        ("ion type", "MoNA", "adduct"),
        ("ION", "MGF", "adduct"),
        ("ION", "", None),
        ("ionization", "MoNA", None),
        ("ionization", "SIRIUS", "adduct"),
        ("Ion_Mode", "GNPS", "polarity"),
        ("IONMODE", "mzmine", "polarity"),
        ("ionization mode", "MoNA", "polarity"),
        ("MS_TYPE", "MassBank", "ms_level"),
        ("ms level", "MoNA", "ms_level"),
        ("Spectrum_type", "NIST", "spectrum_type"),
        ("Special_fragmentation", "NIST", "activation"),
        ("FRAGMENTATION_METHOD", "mzmine", "activation"),
        ("msDissociationMethod", "GNPS", "activation"),
        ("COLLISIONENERGY", "MS-DIAL", "collision_energy"),
        ("collision energy", "MoNA", "collision_energy"),
        ("INCHIAUX", "GNPS", "inchikey"),
        ("CH$IUPAC", "MassBank", "inchi"),
        ("CH$NAME", "MassBank", "name"),
        ("NAME", "MassBank", None),
        ("ChemOnt", "MassBank", "chemical_class"),
        ("ONTOLOGY", "MS-DIAL", "chemical_class"),
        ("parent_mass", "MassSpecGym", None),  # of the neutral molecule
        ("exact mass", "MoNA", None),
        ("", "", None),
        ("-_#", "MSP", None),
    ],
)
def test_spellings(key, dialect, field):
    assert field_of(key, dialect) == field


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_answers_to_its_own_name(name):
    known_by_other_means = {"spectrum_representation"}  # of mzML and mzXML alone
    assert field_of(name) == (None if name in known_by_other_means else name)
    assert field_of(name.upper().replace("_", " ")) == field_of(name)


@pytest.mark.parametrize(
    ("key", "value", "dialect", "text"),
    [
        ("RETENTIONTIME", "5.5", "MSP", "5.5 min"),
        ("RT", "5,5", "MSP", "5,5 min"),
        ("retention_time", "330", "MSP", "330"),
        ("RETENTIONTIME", "330 s", "MSP", "330 s"),
        ("RETENTIONTIME", "-1", "MSP", "-1"),
        ("RETENTIONTIME", "", "MSP", ""),
        ("RETENTIONTIME", "330", "MGF", "330"),
        ("RTINMINUTES", "2.5", "MGF", "2.5 min"),
        ("RTINSECONDS", "2.5", "MGF", "2.5"),
        ("collision_energy", "30.0", "MassSpecGym", "30.0 eV"),
        ("collision_energy", "30", "GNPS", "30"),
    ],
)
def test_units_that_a_key_implies(key, value, dialect, text):
    assert with_unit(key, value, dialect) == text


def test_the_surest_identifier_wins():
    entries = {normal_key(key): key for key in ("SCANS", "TITLE", "SPECTRUMID")}
    assert native_id_of(entries) == "SPECTRUMID"
    assert native_id_of({"scans": "7"}) == "7"
    assert native_id_of({}) == ""


def test_units_are_asked_by_the_key_as_written():
    assert unit_of(" RetentionTime ", "MSP") == "min"
    assert unit_of("Retention_Time", "MSP") == ""
