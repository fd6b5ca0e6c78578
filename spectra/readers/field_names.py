"""What each field is called: one table of the spellings of all dialects, and the units that some of them imply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_SPELLINGS: dict[str, tuple[str, ...]] = {
    # In normal form (see `normal_key`). Sources: the Mascot generic format; GNPS libraries (MGF, JSON, cleaned table);
    # MassSpecGym; mzmine and SIRIUS (MGF); NIST (MSP); MoNA (MSP comments, JSON); MS-DIAL and RIKEN (MSP); MassBank
    # record format 2.6; matchms; the PSI-MS names that mzSpecLib uses.
    "precursor_mz": (
        "pepmass", "precursormz", "precursormass", "precursorion", "precursor", "selectedionmz",
        "experimentalprecursormonoisotopicmz",
    ),
    "isolation_width": ("isolationwidth", "isolationwindow", "isolationwindowwidth"),
    "charge": ("charge", "precursorcharge", "chargestate"),
    "polarity": ("ionmode", "polarity", "ionizationmode", "ionisationmode", "ionpolarity", "ionpol", "scanpolarity"),
    "adduct": ("adduct", "precursortype", "iontype", "adducttype", "adduction", "precursoradduct"),
    "ms_level": ("mslevel", "mstype"),
    "retention_time": ("rtinseconds", "rtinminutes", "retentiontime", "rt", "rettime", "rtquery"),
    "collision_energy": ("collisionenergy", "ce", "colenergy"),
    "activation": (
        "fragmentationmethod", "fragmentationmode", "activation", "activationmethod", "dissociationmethod",
        "msdissociationmethod", "specialfragmentation",
    ),
    "instrument": ("instrument", "sourceinstrument", "instrumentmodel"),
    "instrument_type": ("instrumenttype", "msmassanalyzer"),
    "smiles": ("smiles", "canonicalsmiles"),
    "inchi": ("inchi", "stdinchi"),
    "inchikey": ("inchikey", "stdinchikey", "inchiaux", "inchikeysmiles", "inchikeyinchi"),
    "formula": ("formula", "molecularformula", "formulasmiles", "formulainchi"),
    "name": ("name", "compoundname"),
    "chemical_class": ("chemicalclass", "compoundclass", "ontology"),
    "laboratory": ("laboratory", "pi", "principalinvestigator"),
    "license": ("license", "licence"),
    "usi": ("usi",),
    "spectrum_type": ("spectrumtype", "spectype"),
    "predicted": ("predicted",),
    "comment": ("comment", "comments"),
}  # fmt: skip

_EXCEPTIONS: dict[str, dict[str, str | None]] = {
    # What a word means in one dialect and not in the others.
    "MGF": {"ion": "adduct"},
    "SIRIUS": {"ion": "adduct", "ionization": "adduct"},  # elsewhere 'ionization' is ESI, APCI, ...
    "MassBank": {
        "chname": "name",
        "chsmiles": "smiles",
        "chiupac": "inchi",
        "chformula": "formula",
        "acinstrument": "instrument",
        "acinstrumenttype": "instrument_type",
        "chemont": "chemical_class",
        "name": None,  # CH$LINK and AC$CHROMATOGRAPHY name databases and columns
    },
}

_UNITS: dict[str, dict[str, str]] = {
    # The unit of a plain number, by the key as written in lower case: in MSP the one word RETENTIONTIME is of MS-DIAL
    # and RT of mzmine and AMDIS, both in minutes; retention_time is of matchms, in seconds.
    "": {"rtinminutes": "min", "rt_in_minutes": "min"},
    "MSP": {"retentiontime": "min", "rt": "min"},
    "MassSpecGym": {"collision_energy": "eV"},
}

ID_KEYS = (
    "spectrumid", "db", "accession", "identifier", "id", "nist", "nistno", "title", "featureid", "scans", "scan",
    "scannumber",
)  # fmt: skip
"""Normal forms of the keys that identify a spectrum, the surest first."""

_FIELD_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_IGNORED = str.maketrans("", "", " \t_-#./$()")
_PLAIN_NUMBER = re.compile(r"(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")


@lru_cache(maxsize=4096)
def normal_key(key: str) -> str:
    """Return ``key`` in lower case, without blanks and without the characters ``_ - # . / $ ( )``."""
    return key.lower().translate(_IGNORED)


@lru_cache(maxsize=4096)
def field_of(key: str, dialect: str = "") -> str | None:
    """Return the name in `ionbed.spectra.record.FIELDS` of what a file calls ``key``, or None.

    Parameters
    ----------
    key : str
        As written; only letters and digits count (`normal_key`), so that 'Precursor_type', 'PRECURSORTYPE' and
        'precursor type' are one.
    dialect : str
        'MGF', 'SIRIUS' or 'MassBank', where a word means something of its own; any other changes nothing.
    """
    normal = normal_key(key)
    exceptions = _EXCEPTIONS.get(dialect)
    if exceptions is not None and normal in exceptions:
        return exceptions[normal]
    return _FIELD_OF.get(normal)


@lru_cache(maxsize=4096)
def unit_of(key: str, dialect: str = "") -> str:
    """Return the unit that ``key`` implies for a plain number, '' where it implies none or that of a plain number.

    Parameters
    ----------
    key : str
        As written: RETENTIONTIME and retention_time differ.
    dialect : str
        'MSP' or 'MassSpecGym', where a word implies a unit of its own; any other changes nothing.
    """
    key = key.strip().lower()
    return _UNITS.get(dialect, {}).get(key) or _UNITS[""].get(key, "")


def with_unit(key: str, value: str, dialect: str = "") -> str:
    """Return ``value``, with the unit that ``key`` implies (see `unit_of`) where it is a plain number."""
    unit = unit_of(key, dialect)
    return f"{value} {unit}" if unit and _PLAIN_NUMBER.fullmatch(value) else value


def native_id_of(entries: Mapping[str, str]) -> str:
    """Return the spectrum's identifier from ``entries``, whose keys are in normal form; '' where there is none."""
    return next((entries[key] for key in ID_KEYS if key in entries), "")
