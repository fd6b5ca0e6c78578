"""``ionbed simulate``: predicted spectra of molecules as an MSP library, every record marked as predicted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..progress import counted, progress
from .adducts import normalise_adduct
from .fragmentation_energies import acidity, basicity
from .fragmenter import fragmentation_graph
from .molecule_files import read_molecules
from .molecules import standardise
from .spectrum import Spectrum
from .writers import format_msp

logger = logging.getLogger("ionbed")

ENERGIES = (10.0, 20.0, 40.0)
"""Collision energies in eV."""

ADDUCTS = {"[M+H]+": 1, "[M-H]-": -1}
"""The ions that can be predicted, and their polarity; a molecule with a permanent charge gives [M]+ or [M]- instead."""

WEAKEST_SITE = 0.4
"""In eV, see `fragmentation_energies`: a molecule none of whose groups holds the charge this well gives no such ion."""


@dataclass(frozen=True)
class Predicted:
    """A predicted spectrum, and the ion formula of each of its peaks."""

    spectrum: Spectrum
    formulas: tuple[str, ...]


@dataclass(frozen=True)
class NotPredicted:
    """Why there is no spectrum of a molecule, or of one of its ions: a short reason, and what it is about."""

    reason: str
    detail: str


def simulate_spectra(
    molecules: Iterable[tuple[str, str]],
    *,
    energies: Sequence[float] = ENERGIES,
    adducts: Sequence[str] = tuple(ADDUCTS),
) -> Iterator[Spectrum]:
    """Yield the predicted spectra of (name, SMILES); a molecule or ion that cannot be predicted is left out.

    Parameters
    ----------
    molecules : iterable of (str, str)
        Name and SMILES.
    energies : sequence of float
        Collision energies in eV.
    adducts : sequence of str
        Of `ADDUCTS`.

    Raises
    ------
    InputError
        An adduct is not one of `ADDUCTS`, or an energy is not above 0.
    """
    chosen = _chosen(energies, adducts)
    for name, smiles in molecules:
        for result in _predict(name, smiles, energies, chosen):
            if isinstance(result, Predicted):
                yield result.spectrum


def simulate(
    molecules: Path,
    out: Path,
    *,
    energies: Sequence[float] = ENERGIES,
    adducts: Sequence[str] = tuple(ADDUCTS),
) -> dict[str, Any]:
    """Write the predicted spectra of a file of molecules as MSP, each peak with the formula of its ion.

    Parameters
    ----------
    molecules : path
        A .smi, .tsv, .csv or .sdf file; see `ionbed.spectra.molecule_files.read_molecules`.
    out : path
        The MSP file to write.

    Returns
    -------
    dict
        Counts: ``read`` molecules = ``predicted`` + the sum of ``skipped`` (by reason); ``spectra``; ``no_such_ion``
        (by adduct).

    Raises
    ------
    InputError
        The file is missing or holds no molecule that can be used, or is ``out``; or as `simulate_spectra`.
    """
    from .. import __version__

    chosen = _chosen(energies, adducts)
    refuse_input_as_output(out, molecules)
    entries = read_molecules(molecules)
    seen: set[str] = set()
    skipped: Counter[str] = Counter()
    no_such_ion: Counter[str] = Counter()
    first_skipped = ""
    spectra = predicted = 0
    comment = f"predicted spectrum, by ionbed {__version__} (rule-based fragmentation), measured by no instrument"
    with (
        atomic_file(out) as partial,
        open(partial, "w", encoding="utf-8", newline="\n") as handle,
        progress("simulate", len(entries), unit="molecules") as advance,
    ):
        for entry in entries:
            reason, written = "", 0
            for result in _predict(entry.name, entry.smiles or "", energies, chosen, seen):
                if isinstance(result, Predicted):
                    handle.write(format_msp(result.spectrum, annotations=result.formulas, comment=comment))
                    written += 1
                elif result.reason == "no-such-ion":
                    no_such_ion[result.detail] += 1
                else:
                    reason = result.reason
            if not written:
                skipped[reason or "no-such-ion"] += 1
                first_skipped = (
                    first_skipped or f"{reason or 'no-such-ion'} at {molecules.name}:{entry.position} ({entry.smiles})"
                )
            predicted += written > 0
            spectra += written
            advance(1, counted(spectra, "spectra"))
        if not spectra:
            raise InputError(f"{molecules}: none of {len(entries):,} molecules can be used (first: {first_skipped})")
    if skipped:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in skipped.most_common())
        logger.warning(
            "simulate: %s skipped (%s); first: %s", counted(skipped.total(), "molecules"), reasons, first_skipped
        )
    return {
        "read": len(entries),
        "predicted": predicted,
        "skipped": dict(skipped.most_common()),
        "spectra": spectra,
        "no_such_ion": dict(no_such_ion.most_common()),
    }


def _chosen(energies: Sequence[float], adducts: Sequence[str]) -> list[int]:
    """Return the polarities of the adducts, checked."""
    for energy in energies:
        if not 0 < energy <= 1000:
            raise InputError(f"collision energy {energy:g}: must be above 0 and at most 1000 eV")
    polarities = []
    for text in adducts:
        adduct = normalise_adduct(text)
        if adduct is None or adduct.name not in ADDUCTS:
            raise InputError(f"adduct {text!r}: cannot be predicted; choose from {', '.join(ADDUCTS)}")
        polarities.append(ADDUCTS[adduct.name])
    if not energies or not polarities:
        raise InputError("simulate: at least one collision energy and one adduct are needed")
    return list(dict.fromkeys(polarities))


def _predict(
    name: str, smiles: str, energies: Sequence[float], polarities: Sequence[int], seen: set[str] | None = None
) -> Iterator[Predicted | NotPredicted]:
    """Yield the spectra of one molecule, polarity by polarity, or why there are none."""
    from rdkit import Chem

    molecule = standardise(smiles)
    if molecule is None:
        yield NotPredicted("unreadable-structure", smiles)
        return
    if seen is not None:
        if molecule.inchikey in seen:
            yield NotPredicted("duplicate", molecule.inchikey)
            return
        seen.add(molecule.inchikey)
    if "." in molecule.smiles:
        yield NotPredicted("several-parts", molecule.smiles)  # which part of a salt was meant is not ours to guess
        return
    mol = Chem.MolFromSmiles(molecule.smiles)
    if any(atom.GetIsotope() for atom in mol.GetAtoms()):
        yield NotPredicted("isotope-label", molecule.smiles)
        return
    if abs(molecule.charge) > 1:
        yield NotPredicted("several-charges", molecule.smiles)
        return
    for polarity in polarities:
        adduct = "[M+H]+" if polarity > 0 else "[M-H]-"
        if molecule.charge == polarity:
            adduct = "[M]+" if polarity > 0 else "[M]-"
        elif molecule.charge or not _holds_charge(mol, polarity):
            yield NotPredicted("no-such-ion", adduct)
            continue
        graph = fragmentation_graph(mol, polarity)
        for energy in energies:
            peaks = graph.peaks(energy)
            if not peaks:  # everything lies below the scan
                yield NotPredicted("no-such-ion", adduct)
                continue
            spectrum = Spectrum(
                spectrum_id=f"ionbed-{molecule.inchikey}-{adduct}-{energy:g}eV",
                precursor_mz=graph.precursor_mz,
                mz=np.array([peak.mz for peak in peaks], np.float32),
                intensity=np.array([peak.intensity for peak in peaks], np.float32),
                charge=polarity,
                polarity=polarity,
                adduct=adduct,
                collision_energy=float(energy),
                collision_energy_raw=f"{energy:g} eV",
                smiles=molecule.smiles,
                inchikey=molecule.inchikey,
                formula=molecule.formula,
                name=name or None,
                predicted=True,
            )
            yield Predicted(spectrum, tuple(peak.formula for peak in peaks))


def _holds_charge(mol: Any, polarity: int) -> bool:
    """Whether some group takes a proton (or gives one: it must have one) readily enough for electrospray."""
    if polarity > 0:
        return bool(basicity(mol).max(initial=-np.inf) >= WEAKEST_SITE)
    has_hydrogen = np.array([atom.GetTotalNumHs() > 0 for atom in mol.GetAtoms()])
    return bool((acidity(mol)[has_hydrogen]).max(initial=-np.inf) >= WEAKEST_SITE)
