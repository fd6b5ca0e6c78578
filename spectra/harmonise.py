"""From a record as written to a `Spectrum`: normal forms, labels that agree, clean peaks; or the reason why not.

What was mended is named among the **repairs** of the spectrum (`Spectrum.repairs`); nothing wrong remains of it:

==============================  ========================================================================================
adduct-from-mass                the adduct was missing, or did not fit the mass, and exactly one common one does
centroided                      the peaks were points of a profile
charge-from-adduct              the charge was another than the adduct's: 1, as many write for any ion, or refuted by
                                the mass
charge-from-adduct-sign         the adduct names no ion; polarity and charge, as far as nothing else stated them, are
                                those of the charge written behind its bracket
charge-sign                     the charge had the other sign than the polarity
counter-ion-removed             the structure was a salt or hydrate, of which the ion is one part
decimal-comma                   numbers were written with one
inchikey-stereo-from-smiles     the InChIKey was of the same skeleton; its other blocks follow the structure
polarity-from-adduct            the ion mode was the other one, and the mass is that of the adduct
precursor-mz-from-adduct        the precursor m/z was missing; it is computed from structure and adduct
precursor-mz-from-neutral-mass  the precursor m/z was the mass of the neutral molecule
structure-from-inchi            the SMILES could not be read, or only the InChI fits the mass
==============================  ========================================================================================

and the reader's own (`RawRecord.repairs`). What does not add up and could not be mended is a **flag** of the spectrum
(`Spectrum.flags`). The statements stay as written, except that InChIKey and formula follow the structure:

==============================  ========================================================================================
adduct-unreadable               an adduct is written, and names no ion, or more than one; ``adduct`` is null
charge-conflict                 the charge is stated as 2 or more, and the adduct has another
formula-conflict                the formula written beside the structure counts other atoms
inchikey-conflict               the first block of the InChIKey written beside the structure is another skeleton's
isotope-precursor               the precursor is a heavier isotopic peak (37Cl, 81Br, 13C): true, but not the m/z that
                                the formula is looked up by
polarity-conflict               ion mode and adduct are of different polarity, and no mass decides
precursor-mass                  the precursor m/z is not that of the molecule as the adduct: another ion, a labelled or
                                derivatised compound, another molecule, or a bad number
structure-unreadable            a structure is written that RDKit cannot read; ``smiles`` is null
wide-isolation                  more than 9 Da were isolated (data-independent acquisition): the precursor m/z is that
                                of the window, not of an ion
==============================  ========================================================================================
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .centroiding import centroid
from .cleaning import DEFAULT_CLEANING, CleaningOptions, clean_peaks, looks_like_profile
from .collision_energy import collision_energy_in_ev
from .ion import read_ion
from .labels import read_labels
from .precursor import (
    DEFAULT_METADATA,
    LARGEST_MZ,
    MetadataOptions,
    Statement,
    computed_precursor,
    has_unit_resolution,
    reconcile,
)
from .record import RawRecord
from .spectrum import Spectrum

_PLACEHOLDERS = frozenset(
    {"", "n/a", "na", "n.a.", "nan", "none", "null", "unknown", "undefined", "not available", "-", "--", "?"}
)
_LONGEST_PLACEHOLDER = 20  # blanks around it included
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_TIME = re.compile(
    r"(?:PT)?((?:\d+(?:[.,]\d*)?|[.,]\d+)(?:E[+-]?\d+)?)(?:\s*-\s*(\d+(?:[.,]\d*)?))?"
    r"\s*(seconds?|sec|s|minutes?|min|m|hours?|h)?\.?\s*(?:\(.*\))?",
    re.IGNORECASE,
)
_PREDICTED = re.compile(r"predicted|in[- ]?silico|simulated|theoretical|cfm-?id|qcxms", re.IGNORECASE)
_PREDICTED_SPECTRUM = re.compile(
    r"(?:predicted|in[- ]silico|simulated|theoretical)\W+(?:\w+\W+){0,2}(?:spectr|ms/?ms|ms2|fragment)"
    r"|(?:spectrum|spectra)\W+(?:\w+\W+){0,2}(?:predicted|simulated)",
    re.IGNORECASE,
)  # 'CONFIDENCE Predicted' speaks of the identification, not of the spectrum
_WIDEST_FOR_AN_ION = 9.0
"""In Da: the wide setting of instruments that isolate one precursor after the other."""
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a record became no spectrum.

    Attributes
    ----------
    reason : str
        Short and fixed: a problem of the reader (`RawRecord.problem`), or 'ms-level', 'profile', 'no-precursor-mz',
        'too-few-peaks', 'precursor-mass' (by choice).
    detail : str
        What was found, for a person.
    """

    reason: str
    detail: str = ""


def harmonise(
    record: RawRecord,
    options: CleaningOptions = DEFAULT_CLEANING,
    repaired: Counter[str] | None = None,
    *,
    ms_levels: Container[int] = (2,),
    metadata: MetadataOptions = DEFAULT_METADATA,
) -> Spectrum | Dropped:
    """Return the spectrum of a record, or why there is none.

    Where statements disagree, the mass decides if precursor m/z, structure and adduct are given
    (`ionbed.spectra.precursor.reconcile`). Otherwise what was set on the instrument is believed before what was
    concluded from the data: the polarity before the adduct; the adduct's number of charges before a bare charge of 1;
    the structure (SMILES, else InChI) before the InChIKey and the formula written beside it. A precursor m/z that is
    not given is computed from structure and adduct. That of an MSn spectrum is the last of its path
    (``764.52/690.15``); its adduct is that of the first.

    Parameters
    ----------
    record : RawRecord
    options : CleaningOptions
        How the peaks are cleaned.
    repaired : Counter, optional
        Counts, for a spectrum that is returned, what was mended; the codes stand at the top of this module.
    ms_levels : container of int
        The levels that are wanted. A record that does not state its level is taken.
    metadata : MetadataOptions
        What is done where precursor m/z, structure and adduct do not agree.

    Returns
    -------
    Spectrum or Dropped
        ``spectrum_id`` is the native id, or file and position where the format gives none.
    """
    if record.problem:
        return Dropped(record.problem)
    if record.prepared is not None:
        return _hold_to(record.prepared, options, ms_levels, metadata)
    fields = {
        name: text
        for name, text in record.fields.items()
        if len(text) > _LONGEST_PLACEHOLDER or text.strip().lower() not in _PLACEHOLDERS or name == "polarity"
    }
    level_text = fields.get("ms_level", "")
    ms_level = int(level_text) if level_text.isdecimal() else None
    if level_text and (ms_level is None or ms_level not in ms_levels):
        return Dropped("ms-level", f"MS level {level_text}")
    notes = set(record.repairs)
    mz, intensity = record.mz, record.intensity
    said = fields.get("spectrum_representation") == "profile"
    if said or looks_like_profile(mz, intensity):
        if options.profile == "centroid":
            mz, intensity = centroid(mz, intensity)
            notes.add("centroided")
        if options.profile == "drop" or not len(mz):
            detail = "the file says that it is not centroided" if said else "evenly spaced points that form hills"
            return Dropped("profile", detail)

    ion, labels = read_ion(fields), read_labels(fields)
    flags: set[str] = set()
    precursor_mz = _number(fields.get("precursor_mz"), ms_level)
    if precursor_mz is not None:
        if "," in fields["precursor_mz"]:
            notes.add("decimal-comma")
        if (stated := _statement(fields, ms_level)) is not None:
            is_its_own = stated.mz == precursor_mz  # not that of an earlier step of MSn
            checked, ion, labels, found = reconcile(stated, ion, labels, mz if is_its_own else mz[:0], metadata)
            precursor_mz = checked if is_its_own else precursor_mz
            if metadata.mass_mismatch == "drop" and "precursor-mass" in found:
                name = ion.adduct.name if ion.adduct else "an unknown ion"
                return Dropped("precursor-mass", f"{stated.mz:.10g} is not that of {labels.formula} as {name}")
            flags |= found
    elif (computed := computed_precursor(labels, ion)) is not None:
        precursor_mz, labels = computed
        notes.add("precursor-mz-from-adduct")
    else:
        return Dropped("no-precursor-mz", record.fields.get("precursor_mz", "not given"))
    if (width := _number(fields.get("isolation_width"), None)) is not None and width > _WIDEST_FOR_AN_ION:
        flags.add("wide-isolation")
    notes |= ion.repairs | labels.repairs
    flags |= ion.flags | labels.flags
    mz, intensity = clean_peaks(mz, intensity, precursor_mz=precursor_mz, charge=ion.charge, options=options)
    if len(mz) < options.min_peaks:
        return Dropped("too-few-peaks", f"{len(mz)} of {len(record.mz)} peaks are left after cleaning")
    if repaired is not None:
        repaired.update(notes)
    energy = fields.get("collision_energy")
    return Spectrum(
        spectrum_id=record.native_id or f"{record.source_file}#{record.position}",
        precursor_mz=precursor_mz,
        mz=mz,
        intensity=intensity,
        source_file=record.source_file,
        native_id=record.native_id or None,
        usi=fields.get("usi"),
        charge=ion.charge,
        polarity=ion.polarity,
        adduct=ion.adduct.name if ion.adduct else None,
        ms_level=ms_level,
        retention_time=_seconds(fields.get("retention_time")),
        collision_energy=collision_energy_in_ev(
            energy,
            precursor_mz=precursor_mz,
            charge=ion.charge,
            instrument_type=fields.get("instrument_type"),
            instrument=fields.get("instrument"),
            activation=fields.get("activation"),
        ),
        collision_energy_raw=energy,
        instrument_type=fields.get("instrument_type"),
        instrument=fields.get("instrument"),
        smiles=labels.molecule.smiles if labels.molecule else None,
        inchikey=labels.inchikey,
        formula=labels.formula,
        name=fields.get("name"),
        chemical_class=fields.get("chemical_class"),
        laboratory=fields.get("laboratory"),
        license=fields.get("license"),
        predicted=_is_predicted(fields),
        repairs=tuple(sorted(notes)),
        flags=tuple(sorted(flags)),
    )


def _hold_to(
    spectrum: Spectrum, options: CleaningOptions, ms_levels: Container[int], metadata: MetadataOptions
) -> Spectrum | Dropped:
    """Return a spectrum that was prepared before, held to these options; those it was made with change nothing.

    Peaks are not merged again: the means of two merged groups may lie closer to one another than the tolerance.
    """
    if spectrum.ms_level is not None and spectrum.ms_level not in ms_levels:
        return Dropped("ms-level", f"MS level {spectrum.ms_level}")
    if metadata.mass_mismatch == "drop" and "precursor-mass" in spectrum.flags:
        return Dropped(
            "precursor-mass", f"{spectrum.precursor_mz:.10g} is not that of {spectrum.formula} as {spectrum.adduct}"
        )
    threshold = min(options.min_relative_intensity, float(np.float32(options.min_relative_intensity)))
    mz, intensity = clean_peaks(
        spectrum.mz,
        spectrum.intensity,
        precursor_mz=spectrum.precursor_mz,
        charge=spectrum.charge,
        options=replace(options, merge_tolerance=0.0, min_relative_intensity=threshold),
    )
    if len(mz) < options.min_peaks:
        return Dropped("too-few-peaks", f"{len(mz)} of {len(spectrum)} peaks are left after cleaning")
    return replace(spectrum, mz=mz, intensity=intensity)


def _number(text: str | None, ms_level: int | None) -> float | None:
    """Return the m/z that a text gives, the last where it is the path of an MSn spectrum ('764.52/690.15'), or None."""
    parts = (text or "").split("/") if ms_level is not None and ms_level > 2 else [text or ""]
    value = 0.0
    for part in parts:
        part = part.strip()
        if not _DECIMAL.fullmatch(part):
            return None
        value = float(part.replace(",", "."))
        if not 0.0 < value < LARGEST_MZ:
            return None
    return value


def _statement(fields: Mapping[str, str], ms_level: int | None) -> Statement | None:
    """Return the m/z that the adduct speaks of: of an MSn spectrum the first of its path, None where none is given."""
    text, slash, _ = fields["precursor_mz"].strip().partition("/")
    if ms_level is not None and ms_level > 2 and not slash:
        return None
    text = text.strip().replace(",", ".")
    decimals = text.partition(".")[2].rstrip("0")
    unit_resolution = has_unit_resolution(fields.get("instrument_type"), fields.get("instrument"))
    return Statement(float(text), len(decimals), unit_resolution)


def _seconds(text: str | None) -> float | None:
    """Return a retention time in seconds; of a range ('738-742', of scans that were added up) the middle."""
    match = _TIME.fullmatch((text or "").strip())
    if not match:
        return None
    ends = [float(end.replace(",", ".")) for end in match.group(1, 2) if end]
    value = sum(ends) / len(ends) * _SECONDS[(match[3] or "")[:1].lower()]
    return value if math.isfinite(value) else None


@lru_cache(maxsize=4096)
def _is_program(*texts: str | None) -> bool:
    return any(text and _PREDICTED.search(text) for text in texts)


def _is_predicted(fields: Mapping[str, str]) -> bool:
    if fields.get("predicted", "").strip().lower() in {"true", "yes", "1"}:
        return True
    if _is_program(fields.get("spectrum_type"), fields.get("instrument_type"), fields.get("instrument")):
        return True
    return _PREDICTED_SPECTRUM.search(fields.get("comment", "")) is not None
