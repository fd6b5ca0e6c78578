"""What a record says of its ion: adduct, charge and polarity, from every field that speaks of them, made to agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from .adducts import Adduct, charges_behind_brackets, normalise_adduct, parse_charge

_POLARITIES = {
    "positive": 1,
    "pos": 1,
    "p": 1,
    "+": 1,
    "1": 1,
    "+1": 1,
    "1+": 1,
    "negative": -1,
    "neg": -1,
    "n": -1,
    "-": -1,
    "-1": -1,
    "1-": -1,
}
_WORDS = r"(?P<word>positive|negative)"
_TEXT_POLARITY = re.compile(
    r"(?<![a-z])(?:n?esi|apci|appi|maldi|dart|fab)\s?\(?(?P<source>[-+])(?:ve)?\)?(?![\w+-])"  # ESI+, ESI(-)
    r"|(?<!\S)(?P<filter>[-+]) [pc] (?:nsi|esi|apci|appi|maldi)(?![a-z])"  # the scan filter FTMS + p ESI d Full ms2
    rf"|{_WORDS}[- ](?:ion[- ])?(?:mode|polarity|ionization|ionisation|electrospray|esi|scan)(?![a-z])"
    r"|(?:ion[ _-]?mode|polarity|mode of ionization)\W{1,3}(?P<stated>positive|negative)(?![a-z])",
    re.IGNORECASE,
)
_TEXT_FIELDS = ("instrument_type", "instrument", "spectrum_type", "activation", "comment")
_SEVERAL_CHARGES = re.compile(r"\s*\d*([-+])\d*(?:\s*(?:,|and|or)\s*\d*\1\d*)+\s*", re.IGNORECASE)
_LARGEST_CHARGE = 100


@dataclass(frozen=True, slots=True)
class Ion:
    """The ion of a record and what was noted on the way to it.

    Attributes
    ----------
    adduct : Adduct or None
        As stated.
    polarity : int or None
        +1 or -1.
    charge : int or None
        Signed as ``polarity``.
    stated_charge : int or None
        As the record's field of that name says, its sign as written.
    conflict : bool
        Whether ``adduct`` is of the other polarity.
    repairs, flags : frozenset of str
        Codes of `ionbed.spectra.harmonise`.
    """

    adduct: Adduct | None = None
    polarity: int | None = None
    charge: int | None = None
    stated_charge: int | None = None
    conflict: bool = False
    repairs: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()


def read_ion(fields: Mapping[str, str]) -> Ion:
    """Return the ion that ``fields`` state.

    The polarity is that of the ion mode; where none is stated that of the adduct, of a charge with a sign, or of a
    text that leaves no doubt (``ESI+``, a scan filter, ``positive ion mode``) in the instrument or the comment. The
    number of charges is that of the adduct, else the charge field's; its sign follows the polarity. Of an adduct that
    cannot be read, the charge behind its bracket counts where nothing else states polarity or charge.
    """
    adduct, charge, polarity = fields.get("adduct"), fields.get("charge"), fields.get("polarity")
    ion = _combine(adduct, charge, polarity, None)
    if ion.polarity is None and (in_text := _polarity_in_text(fields)) is not None:
        ion = _combine(adduct, charge, polarity, in_text)
    if ion.charge is None and adduct is not None and "adduct-unreadable" in ion.flags:
        return _with_written_charge(ion, adduct)
    return ion


@lru_cache(maxsize=4096)
def _combine(adduct_text: str | None, charge_text: str | None, polarity_text: str | None, in_text: int | None) -> Ion:
    repairs, flags = set(), set()
    adduct = normalise_adduct(adduct_text)
    if adduct is None and adduct_text is not None:
        flags.add("adduct-unreadable")
    stated = parse_charge(charge_text)
    if stated is not None and abs(stated) > _LARGEST_CHARGE:
        stated = None
    has_sign = stated is not None and (stated < 0 or any(sign in (charge_text or "") for sign in "+⁺"))
    polarity = _polarity(polarity_text) or in_text
    if polarity is None:
        if adduct:
            polarity = adduct.polarity
        elif stated and has_sign:
            polarity = 1 if stated > 0 else -1
        elif several := _SEVERAL_CHARGES.fullmatch(charge_text or ""):
            polarity = 1 if several[1] == "+" else -1
    conflict = adduct is not None and adduct.polarity != polarity
    if conflict:
        flags.add("polarity-conflict")
    if adduct and stated and abs(stated) != abs(adduct.charge):
        if abs(stated) == 1:  # what many programs write for any ion
            repairs.add("charge-from-adduct")
        else:
            flags.add("charge-conflict")
    elif stated and polarity and stated * polarity < 0 and has_sign:  # a number alone is a number of charges
        repairs.add("charge-sign")
    size = abs(adduct.charge) if adduct else abs(stated) if stated else None
    charge = polarity * size if polarity and size else None
    return Ion(adduct, polarity, charge, stated, conflict, frozenset(repairs), frozenset(flags))


@lru_cache(maxsize=4096)
def _with_written_charge(ion: Ion, adduct_text: str) -> Ion:
    """Return the ion with the polarity and the charge that its unreadable adduct states, as far as they are missing."""
    charges = {charge for charge in charges_behind_brackets(adduct_text) if abs(charge) <= _LARGEST_CHARGE}
    polarities = {1 if charge > 0 else -1 for charge in charges}
    if len(polarities) != 1 or ion.polarity not in (None, *polarities):
        return ion
    (polarity,) = polarities
    sizes = {abs(ion.stated_charge)} if ion.stated_charge else {abs(charge) for charge in charges}
    charge = polarity * sizes.pop() if len(sizes) == 1 else None
    if (polarity, charge) == (ion.polarity, ion.charge):
        return ion
    return replace(ion, polarity=polarity, charge=charge, repairs=ion.repairs | {"charge-from-adduct-sign"})


def _polarity(text: str | None) -> int | None:
    words = (text or "").strip().lower().split()
    return _POLARITIES.get(words[0]) if words else None


def _polarity_in_text(fields: Mapping[str, str]) -> int | None:
    """Return the polarity that instrument and comment name, or None where they name none, or both."""
    found = set()
    for name in _TEXT_FIELDS:
        for match in _TEXT_POLARITY.finditer(fields.get(name, "")):
            word = (match["source"] or match["filter"] or match["word"] or match["stated"]).lower()
            found.add(_POLARITIES[word])
    return found.pop() if len(found) == 1 else None
