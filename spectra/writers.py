"""Write spectra as MSP and MGF that `ionbed.read` and other tools read back; a predicted one says so in its record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..artifacts import atomic_file
from .spectrum import Spectrum

_ION_MODES = {1: "positive", -1: "negative"}
_BEGIN = re.compile(r"(BEGIN) (IONS)", re.IGNORECASE)


def write_msp(spectra: Iterable[Spectrum], path: str | os.PathLike[str]) -> int:
    """Write spectra as an MSP library (NIST's format, with the keys of MoNA); return their number."""
    return _write(spectra, path, format_msp)


def write_mgf(spectra: Iterable[Spectrum], path: str | os.PathLike[str]) -> int:
    """Write spectra as MGF (Mascot's format, with the keys of GNPS and matchms); return their number."""
    return _write(spectra, path, format_mgf)


Entries = Sequence[tuple[str, object]]
"""Keys of a record and their values; those that are None are not written."""


def format_msp(
    spectrum: Spectrum, *, annotations: Sequence[str] = (), comment: str | None = None, more: Entries = ()
) -> str:
    """Return one MSP record, an empty line at its end.

    Parameters
    ----------
    annotations : sequence of str
        One text per peak, written in quotes after it; or none.
    comment : str, optional
        For a predicted spectrum a sentence that says so is written in any case.
    more : sequence of (str, object)
        Further keys and their values.
    """
    entries = (
        ("Name", spectrum.name or spectrum.spectrum_id),
        ("DB#", spectrum.native_id or spectrum.spectrum_id),
        ("InChIKey", spectrum.inchikey),
        ("SMILES", spectrum.smiles),
        ("Formula", spectrum.formula),
        ("Ontology", spectrum.chemical_class),
        ("PrecursorMZ", repr(float(spectrum.precursor_mz))),
        ("Precursor_type", spectrum.adduct),
        ("Charge", spectrum.charge),
        ("Ion_mode", _ION_MODES.get(spectrum.polarity or 0)),
        ("Spectrum_type", f"MS{spectrum.ms_level}" if spectrum.ms_level else None),
        ("Collision_energy", _energy(spectrum)),
        ("RTINSECONDS", None if spectrum.retention_time is None else _shortest(spectrum.retention_time)),
        ("Instrument_type", spectrum.instrument_type),
        ("Instrument", spectrum.instrument),
        ("Laboratory", spectrum.laboratory),
        ("License", spectrum.license),
        ("USI", spectrum.usi),
        ("Predicted", "true" if spectrum.predicted else None),
        *more,
        ("Comment", comment or _comment(spectrum)),
        ("Num Peaks", len(spectrum)),
    )
    lines = [f"{key}: {_one_line(value)}" for key, value in entries if value is not None]
    lines += _peak_lines(spectrum, annotations)
    return "\n".join(lines) + "\n\n"


def format_mgf(spectrum: Spectrum, *, more: Entries = ()) -> str:
    """Return one MGF record, an empty line at its end, with ``more`` keys and their values."""
    charge = None if spectrum.charge is None else f"{abs(spectrum.charge)}{'+' if spectrum.charge > 0 else '-'}"
    entries = (
        ("TITLE", spectrum.native_id or spectrum.spectrum_id),
        ("PEPMASS", repr(float(spectrum.precursor_mz))),
        ("CHARGE", charge),
        ("IONMODE", _ION_MODES.get(spectrum.polarity or 0)),
        ("ADDUCT", spectrum.adduct),
        ("MSLEVEL", spectrum.ms_level),
        ("RTINSECONDS", None if spectrum.retention_time is None else _shortest(spectrum.retention_time)),
        ("COLLISION_ENERGY", _energy(spectrum)),
        ("INSTRUMENT_TYPE", spectrum.instrument_type),
        ("INSTRUMENT", spectrum.instrument),
        ("NAME", spectrum.name),
        ("SMILES", spectrum.smiles),
        ("INCHIKEY", spectrum.inchikey),
        ("FORMULA", spectrum.formula),
        ("PI", spectrum.laboratory),
        ("LICENSE", spectrum.license),
        ("USI", spectrum.usi),
        ("PREDICTED", "true" if spectrum.predicted else None),
        *more,
        ("COMMENT", _comment(spectrum)),
    )
    lines = [f"{key}={_one_line(value)}" for key, value in entries if value is not None]
    return "\n".join(["BEGIN IONS", *lines, *_peak_lines(spectrum, ()), "END IONS"]) + "\n\n"


def _write(spectra: Iterable[Spectrum], path: str | os.PathLike[str], text_of: Callable[[Spectrum], str]) -> int:
    count = 0
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as handle:
        for spectrum in spectra:
            handle.write(text_of(spectrum))
            count += 1
    return count


def _peak_lines(spectrum: Spectrum, annotations: Sequence[str]) -> list[str]:
    pairs = [f"{_shortest(mz)} {_shortest(i)}" for mz, i in zip(spectrum.mz, spectrum.intensity, strict=True)]
    if not annotations:
        return pairs
    return [f'{pair} "{text}"' for pair, text in zip(pairs, annotations, strict=True)]


def _shortest(value: float) -> str:
    """Return the shortest decimal text that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def _energy(spectrum: Spectrum) -> str | None:
    if spectrum.collision_energy_raw:
        return spectrum.collision_energy_raw
    return None if spectrum.collision_energy is None else f"{_shortest(spectrum.collision_energy)} eV"


def _comment(spectrum: Spectrum) -> str | None:
    return "predicted spectrum, measured by no instrument" if spectrum.predicted else None


def _one_line(value: object) -> str:
    """Return a value without line ends, and without the words that start a record of MGF wherever they stand."""
    return _BEGIN.sub(r"\1-\2", " ".join(str(value).split()))
