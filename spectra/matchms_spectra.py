"""Spectra of matchms as our own and the other way round, by the rules that files are read by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .cleaning import DEFAULT_CLEANING, CleaningOptions
from .record import RawRecord
from .spectrum import Spectrum

if TYPE_CHECKING:
    import matchms

CLEANED = "ionbed_cleaned"
"""The entry by which `to_matchms` says that peaks are merged: the means of two merged groups may lie closer to one
another than the tolerance, and are not to be merged again."""

_NAMES = {
    "usi": "usi",
    "adduct": "adduct",
    "ms_level": "ms_level",
    "instrument_type": "instrument_type",
    "instrument": "instrument",
    "smiles": "smiles",
    "inchikey": "inchikey",
    "formula": "formula",
    "name": "compound_name",
    "chemical_class": "compound_class",
    "laboratory": "principal_investigator",
    "license": "license",
    "source_file": "file_name",
    "native_id": "native_id",
}
"""What matchms calls the fields that both write alike."""
_ION_MODES = {1: "positive", -1: "negative"}
_POSITION = 1  # in its file, of which matchms tells nothing


def from_matchms(spectrum: matchms.Spectrum, *, options: CleaningOptions = DEFAULT_CLEANING) -> Spectrum:
    """Return a spectrum of matchms as `ionbed.read` would give it: metadata in normal form, peaks cleaned.

    What `to_matchms` wrote comes back the same. What matchms has dropped on the way is lost: it keeps the charge of
    ``CHARGE=1+`` as the number 1, which does not tell the polarity; ``ionmode`` or an adduct does
    (`matchms.filtering.derive_ionmode` sets it).

    Parameters
    ----------
    spectrum : matchms.Spectrum
    options : CleaningOptions
        How peaks are cleaned.

    Raises
    ------
    InputError
        It cannot be used: it has no precursor m/z, say, or no peaks are left.
    """
    from .harmonise import Dropped, harmonise

    metadata = spectrum.metadata
    record = _record(metadata, spectrum.peaks.mz, spectrum.peaks.intensities)
    if metadata.get(CLEANED) is not None:
        least = min(options.min_relative_intensity, float(np.float32(options.min_relative_intensity)))
        options = replace(options, merge_tolerance=0.0, min_relative_intensity=least)
    result = harmonise(record, options)
    if isinstance(result, Dropped):
        detail = f" ({result.detail})" if result.detail else ""
        raise InputError(
            f"matchms spectrum {record.native_id or repr(spectrum)}: is not usable: {result.reason}{detail}; "
            "mend it or leave it out"
        )
    return replace(result, native_id=_text(metadata.get("native_id")) or result.native_id)


def to_matchms(spectrum: Spectrum) -> matchms.Spectrum:
    """Return a spectrum as one of matchms, in matchms' words; a field that is not known has no entry.

    ``grade``, ``repairs`` and ``flags`` have no counterpart and are left out. The collision energy is the text it came
    from, or the energy in eV.

    Raises
    ------
    InputError
        matchms is not installed.
    """
    matchms = import_matchms()
    entries: dict[str, Any] = {
        "spectrum_id": spectrum.spectrum_id,
        "precursor_mz": float(spectrum.precursor_mz),
        "charge": spectrum.charge,
        "ionmode": _ION_MODES.get(spectrum.polarity or 0),
        "retention_time": None if spectrum.retention_time is None else float(spectrum.retention_time),
        "collision_energy": _energy(spectrum),
        "predicted": True if spectrum.predicted else None,
        **{theirs: getattr(spectrum, ours) for ours, theirs in _NAMES.items()},
        CLEANED: True,
    }
    return matchms.Spectrum(
        mz=spectrum.mz.astype(np.float64),
        intensities=spectrum.intensity.astype(np.float64),
        metadata={name: value for name, value in entries.items() if value is not None},
        metadata_harmonization=False,  # which drops a compound called NA
    )


def as_spectra(spectra: Iterable[Spectrum | matchms.Spectrum]) -> Iterator[Spectrum]:
    """Yield spectra, those of matchms through `from_matchms`.

    Raises
    ------
    InputError
        There is something else among them, or a spectrum of matchms cannot be used.
    """
    for spectrum in spectra:
        yield spectrum if isinstance(spectrum, Spectrum) else _converted(spectrum)


def import_matchms() -> Any:
    """Return the module matchms.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import matchms
    except ImportError:
        raise InputError("matchms is not installed; pip install 'ionbed[evaluate]'") from None
    return matchms


def _converted(spectrum: object) -> Spectrum:
    loaded = sys.modules.get("matchms")
    if loaded is not None and isinstance(spectrum, loaded.Spectrum):
        return from_matchms(spectrum)
    kind = f"{type(spectrum).__module__}.{type(spectrum).__qualname__}"
    raise InputError(f"a spectrum is a {kind}; give those of ionbed.read, or matchms.Spectrum objects")


def _record(metadata: Mapping[str, Any], mz: np.ndarray, intensity: np.ndarray) -> RawRecord:
    from .readers.field_names import normal_key
    from .readers.mgf import interpret_parameters

    entries = {key: text for key, value in metadata.items() if (text := _text(value))}
    if not entries.get("precursor_mz") and (stated := metadata.get("pepmass")) is not None:
        values = stated if isinstance(stated, list | tuple) else [stated]  # m/z, intensity, charge
        entries["pepmass"] = " ".join(_text(value) for value in values)
    parameters = {normal_key(key): text for key, text in entries.items() if key != "native_id"}
    native_id, fields = interpret_parameters(parameters)
    return RawRecord(entries.get("file_name", "matchms"), native_id, _POSITION, fields, mz, intensity)


def _text(value: object) -> str:
    """Return a string or a number as text, '' for anything else (an array, a table of comments, NaN)."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return str(value) if isinstance(value, int | float | np.number) and value == value else ""


def _energy(spectrum: Spectrum) -> str | None:
    if spectrum.collision_energy_raw:
        return spectrum.collision_energy_raw
    return None if spectrum.collision_energy is None else f"{float(spectrum.collision_energy)} eV"
