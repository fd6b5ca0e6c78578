"""Which molecule a record names: structure, InChIKey and formula, made to agree by RDKit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from .molecules import Molecule, is_formula, is_inchikey, same_formula, standardise

_PREFIX = re.compile(r"^InChIKey\s*=\s*", re.IGNORECASE)
_INCHI = re.compile(r"(?:InChI\s*=\s*)?(1S?/.*)", re.IGNORECASE)
_QUOTES = " \t\"'"


@dataclass(frozen=True, slots=True)
class Labels:
    """The molecule of a record and what was noted on the way to it.

    Attributes
    ----------
    molecule : Molecule or None
        Of the SMILES, else of the InChI.
    inchikey, formula : str or None
        Those of the structure; where there is none as written. An InChIKey as written may be its first block alone.
    stated_inchikey, stated_formula : str
        As written, if they have the form of one; '' otherwise.
    inchi : str or None
        As written, where the structure is that of the SMILES: another opinion, if the mass speaks against that one.
    repairs, flags : frozenset of str
        Codes of `ionbed.spectra.harmonise`.
    """

    molecule: Molecule | None = None
    inchikey: str | None = None
    formula: str | None = None
    stated_inchikey: str = ""
    stated_formula: str = ""
    inchi: str | None = None
    repairs: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()


def read_labels(fields: Mapping[str, str]) -> Labels:
    """Return the molecule that ``fields`` name.

    The structure (SMILES, else InChI) is believed before the InChIKey and the formula beside it, which follow from it.
    An InChIKey of another first block and a formula of other atoms name another molecule: they are flagged. One that
    differs behind the first block only (stereochemistry, isotopes, protons) is mended.
    """
    return _read(fields.get("smiles"), fields.get("inchi"), fields.get("inchikey"), fields.get("formula"))


def with_structure(labels: Labels, molecule: Molecule, repair: str) -> Labels:
    """Return the labels of ``molecule`` in place of the structure they had; a part may bear the name of the whole.

    ``repair`` is the code that says why.
    """
    relabelled = _labels(molecule, labels.stated_inchikey, labels.stated_formula, None, labels.repairs | {repair})
    if repair != "counter-ion-removed":
        return relabelled
    return replace(relabelled, flags=relabelled.flags & labels.flags)


@lru_cache(maxsize=8192)
def _read(smiles: str | None, inchi: str | None, inchikey: str | None, formula: str | None) -> Labels:
    smiles, inchi = (smiles or "").strip(_QUOTES), (inchi or "").strip(_QUOTES)  # GNPS: INCHI="InChI=1S/..."
    if stated := _INCHI.fullmatch(inchi):
        inchi = f"InChI={stated[1]}"
    key, inchi_as_key = (_PREFIX.sub("", text.strip(_QUOTES)).upper() for text in (inchikey or "", inchi))
    if is_inchikey(inchi_as_key) and "-" in inchi_as_key:
        key, inchi = key or inchi_as_key, ""
    key = key if is_inchikey(key) else ""
    formula = "".join((formula or "").split())
    formula = formula if is_formula(formula) else ""
    molecule = standardise(smiles) if smiles else None
    if molecule is not None:
        return _labels(molecule, key, formula, inchi or None, frozenset())
    molecule = standardise(inchi) if inchi else None
    if molecule is not None:
        return _labels(molecule, key, formula, None, frozenset({"structure-from-inchi"} if smiles else ()))
    flags = frozenset({"structure-unreadable"} if smiles or inchi else ())
    return Labels(None, key or None, formula or None, key, formula, flags=flags)


def _labels(molecule: Molecule, key: str, formula: str, inchi: str | None, repairs: frozenset[str]) -> Labels:
    flags = set()
    repairs -= {"inchikey-stereo-from-smiles"}
    if key and key[:14] != molecule.inchikey[:14]:
        flags.add("inchikey-conflict")
    elif len(key) > 14 and key != molecule.inchikey:
        repairs |= {"inchikey-stereo-from-smiles"}
    if formula and not same_formula(formula, molecule.formula):
        flags.add("formula-conflict")
    return Labels(molecule, molecule.inchikey, molecule.formula, key, formula, inchi, repairs, frozenset(flags))
