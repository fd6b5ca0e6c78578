"""From a record as written to a `Spectrum`: normal forms, labels that agree, clean peaks; or the reason why not."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .adducts import Adduct, adduct_mz, normalise_adduct, parse_charge
from .centroiding import centroid
from .cleaning import DEFAULT_CLEANING, CleaningOptions, clean_peaks, looks_like_profile
from .collision_energy import collision_energy_in_ev
from .molecules import Molecule, is_formula, is_inchikey, same_formula, standardise
from .record import RawRecord
from .spectrum import Spectrum

_PLACEHOLDERS = frozenset(
    {"", "n/a", "na", "n.a.", "nan", "none", "null", "unknown", "undefined", "not available", "-", "--", "?"}
)
_DECIMAL = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_TIME = re.compile(
    r"(\d+(?:[.,]\d*)?|[.,]\d+)\s*(seconds?|sec|s|minutes?|min|m|hours?|h)?\.?\s*(?:\(.*\))?", re.IGNORECASE
)
_PREDICTED = re.compile(r"predicted|in[- ]?silico|simulated|theoretical", re.IGNORECASE)
_PREDICTED_SPECTRUM = re.compile(
    r"(?:predicted|in[- ]silico|simulated|theoretical)\W+(?:\w+\W+){0,2}(?:spectr|ms/?ms|ms2|fragment)"
    r"|(?:spectrum|spectra)\W+(?:\w+\W+){0,2}(?:predicted|simulated)",
    re.IGNORECASE,
)  # 'CONFIDENCE Predicted' speaks of the identification, not of the spectrum
_POLARITIES = {
    "positive": 1,
    "pos": 1,
    "p": 1,
    "+": 1,
    "1": 1,
    "+1": 1,
    "negative": -1,
    "neg": -1,
    "n": -1,
    "-": -1,
    "-1": -1,
}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LARGEST_MZ = 1e6


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a record became no spectrum.

    Attributes
    ----------
    reason : str
        Short and fixed: a problem of the reader (`RawRecord.problem`), or 'ms-level', 'profile', 'no-precursor-mz',
        'too-few-peaks'.
    detail : str
        What was found, for a person.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Labels:
    molecule: Molecule | None = None
    inchikey: str | None = None
    formula: str | None = None


def harmonise(
    record: RawRecord,
    options: CleaningOptions = DEFAULT_CLEANING,
    repaired: Counter[str] | None = None,
    *,
    ms_levels: Container[int] = (2,),
) -> Spectrum | Dropped:
    """Return the spectrum of a record, or why there is none.

    Where statements disagree, what was set on the instrument is believed before what was concluded from the data: the
    polarity before the adduct; the adduct's number of charges before a bare charge; the structure (SMILES, else InChI)
    before the InChIKey and the formula written beside it. A precursor m/z that is not given is computed from structure
    and adduct.

    Parameters
    ----------
    record : RawRecord
    options : CleaningOptions
        How the peaks are cleaned.
    repaired : Counter, optional
        Counts, for a spectrum that is returned, what was mended: 'adduct-against-polarity', 'adduct-unreadable',
        'centroided', 'charge-from-adduct', 'charge-sign', 'decimal-comma', 'formula-from-structure',
        'inchikey-from-smiles', 'inchikey-stereo-from-smiles', 'precursor-mz-from-adduct', 'structure-from-inchi',
        'structure-unreadable', and the repairs of the reader.
    ms_levels : container of int
        The levels that are wanted. A record that does not state its level is taken.

    Returns
    -------
    Spectrum or Dropped
        ``spectrum_id`` is the native id, or file and position where the format gives none.
    """
    if record.problem:
        return Dropped(record.problem)
    if record.prepared is not None:
        return _hold_to(record.prepared, options, ms_levels)
    fields = {
        name: text
        for name, text in record.fields.items()
        if text.strip().lower() not in _PLACEHOLDERS or name == "polarity"
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

    adduct, polarity, charge = _ion(fields, notes)
    labels = _labels(fields, notes)
    precursor_mz = _number(fields.get("precursor_mz"), notes) or _computed_precursor(labels.molecule, adduct, notes)
    if precursor_mz is None:
        return Dropped("no-precursor-mz", record.fields.get("precursor_mz", "not given"))
    mz, intensity = clean_peaks(mz, intensity, precursor_mz=precursor_mz, charge=charge, options=options)
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
        charge=charge,
        polarity=polarity,
        adduct=adduct.name if adduct else None,
        ms_level=ms_level,
        retention_time=_seconds(fields.get("retention_time")),
        collision_energy=collision_energy_in_ev(
            energy,
            precursor_mz=precursor_mz,
            charge=charge,
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
    )


def _hold_to(spectrum: Spectrum, options: CleaningOptions, ms_levels: Container[int]) -> Spectrum | Dropped:
    """Return a spectrum that was prepared before, held to these options; those it was made with change nothing.

    Peaks are not merged again: the means of two merged groups may lie closer to one another than the tolerance.
    """
    if spectrum.ms_level is not None and spectrum.ms_level not in ms_levels:
        return Dropped("ms-level", f"MS level {spectrum.ms_level}")
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


def _ion(fields: Mapping[str, str], notes: set[str]) -> tuple[Adduct | None, int | None, int | None]:
    """Return adduct, polarity and signed charge, made to agree."""
    adduct = normalise_adduct(fields.get("adduct"))
    if adduct is None and "adduct" in fields:
        notes.add("adduct-unreadable")
    stated = parse_charge(fields.get("charge"))
    if stated is not None and abs(stated) > 100:
        stated = None
    polarity = _polarity(fields.get("polarity"))
    if polarity is None:
        if adduct:
            polarity = adduct.polarity
        elif stated and ("+" in fields["charge"] or stated < 0):
            polarity = 1 if stated > 0 else -1
    elif adduct and adduct.polarity != polarity:
        notes.add("adduct-against-polarity")
        adduct = None
    if adduct and stated and abs(stated) != abs(adduct.charge):
        notes.add("charge-from-adduct")
    elif stated and polarity and stated * polarity < 0:
        notes.add("charge-sign")
    if adduct:
        return adduct, polarity, adduct.charge
    return None, polarity, polarity * abs(stated) if polarity and stated else None


def _polarity(text: str | None) -> int | None:
    words = (text or "").strip().lower().split()
    return _POLARITIES.get(words[0]) if words else None


def _labels(fields: Mapping[str, str], notes: set[str]) -> _Labels:
    """Return the structure and the identifiers that follow from it, or those written where there is no structure."""
    molecule = standardise(fields["smiles"]) if "smiles" in fields else None
    if molecule is None and "inchi" in fields:
        molecule = standardise(fields["inchi"])
        if molecule is not None and "smiles" in fields:
            notes.add("structure-from-inchi")
    if molecule is None and ("smiles" in fields or "inchi" in fields):
        notes.add("structure-unreadable")
    inchikey = fields.get("inchikey", "").strip().removeprefix("InChIKey=").upper()
    formula = fields.get("formula", "").strip()
    if molecule is None:
        return _Labels(None, inchikey if is_inchikey(inchikey) else None, formula if is_formula(formula) else None)
    if is_inchikey(inchikey) and inchikey != molecule.inchikey:
        same_skeleton = inchikey[:14] == molecule.inchikey[:14]
        notes.add("inchikey-stereo-from-smiles" if same_skeleton else "inchikey-from-smiles")
    if is_formula(formula) and not same_formula(formula, molecule.formula):
        notes.add("formula-from-structure")
    return _Labels(molecule, molecule.inchikey, molecule.formula)


def _number(text: str | None, notes: set[str]) -> float | None:
    """Return the one positive number that a text is, or None."""
    text = (text or "").strip()
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    if not 0.0 < value < _LARGEST_MZ:
        return None
    if "," in text:
        notes.add("decimal-comma")
    return value


def _computed_precursor(molecule: Molecule | None, adduct: Adduct | None, notes: set[str]) -> float | None:
    """Return the precursor m/z that structure and adduct imply, where the two fit together."""
    if molecule is None or adduct is None:
        return None
    is_the_ion_itself = adduct.name.startswith("[M]") and adduct.charge == molecule.charge
    if molecule.charge and not is_the_ion_itself:
        return None
    mz = adduct_mz(molecule.exact_mass, adduct)
    if not 0.0 < mz < _LARGEST_MZ:
        return None
    notes.add("precursor-mz-from-adduct")
    return mz


def _seconds(text: str | None) -> float | None:
    match = _TIME.fullmatch((text or "").strip())
    if not match:
        return None
    value = float(match[1].replace(",", ".")) * _SECONDS[(match[2] or "")[:1].lower()]
    return value if math.isfinite(value) else None


def _is_predicted(fields: Mapping[str, str]) -> bool:
    if fields.get("predicted", "").strip().lower() in {"true", "yes", "1"}:
        return True
    if _PREDICTED.search(fields.get("spectrum_type", "")):
        return True
    return _PREDICTED_SPECTRUM.search(fields.get("comment", "")) is not None
