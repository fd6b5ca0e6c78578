"""Collision energies as people write them, brought to eV where the text and the instrument allow it."""

from __future__ import annotations

import re
from functools import lru_cache

CHARGE_FACTORS = (1.0, 0.9, 0.85, 0.8, 0.75)
"""Factor of normalised collision energy for 1 to 5 charges; from 5 on the last one (Thermo, PSB 104)."""

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_TOKEN = re.compile(
    rf"(?P<spread>(?:±|\+/?-|ces\s*[:=]?)\s*(?:{_NUMBER}))"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<unit>%|ke?v|ev|v(?:olts?)?|nce|normali[sz]ed)(?![a-z])"
    r"|(?P<noise>\(|\)|\[|\]|:|=|nominal|collision|energy|energies|stepped|steps?|ramped|ramp|hcd|cid|ce|units?)"
    r"|(?P<separator>->|to(?![a-z])|and(?![a-z])|[-–—/,;+])"
    r"|(?P<space>\s+)"
    r"|(?P<unknown>.)"
)
_UNIT_KIND = {"%": "nce", "nce": "nce", "normalized": "nce", "normalised": "nce", "kv": "kv", "kev": "kv"}
_RESONANT_TRAP = re.compile(r"(?<![a-z])(?:[lq]?it|itft|q?ittof|ion[ -]?trap|ltq)(?![a-z])", re.IGNORECASE)
_BEAM_TYPE = re.compile(r"hcd|beam[- ]type|higher[- ]energy", re.IGNORECASE)
_TRAP_BESIDE_ORBITRAP = re.compile(r"fusion|lumos|eclipse|ascend|tribrid|id-?x|elite|velos", re.IGNORECASE)
_TRAP_TYPE = re.compile(r"(?<![a-z-])cid(?![a-z])|trap-type", re.IGNORECASE)
_TIME_OF_FLIGHT_OR_QUADRUPOLE = re.compile(
    r"tof|(?<![a-z])(?:q{2,3}|qqq|triple|tq)(?![a-z])|triple|quadrupole", re.IGNORECASE
)
_ORBITRAP = re.compile(r"orbitrap|exactive|exploris|astral|(?<![a-z])(?:q?ft|itft|hcd)(?![a-z])", re.IGNORECASE)


def collision_energy_in_ev(
    text: str | None,
    *,
    precursor_mz: float,
    charge: int | None = None,
    instrument_type: str | None = None,
    instrument: str | None = None,
    activation: str | None = None,
) -> float | None:
    """Return the collision energy in eV, or None where the text does not give one.

    The rule, in this order:

    1. *Which number.* One number is itself. Steps (``20,40,60 (stepped)``, ``20/40 eV``, ``10 20 40``) and ramps
       (``Ramp 5-60 V``) are their mean, so a ramp of two ends its midpoint: the energy of the merged spectrum on
       average. A spread (``35±15 eV``, ``CE 35 CES 15``) is left aside, and so is a sign (the offset ``-20``). Of an
       energy given in both units (``NCE=35% 28eV``, as NIST writes) the one in eV counts. A choice left open
       (``15, 30 or 45``), two statements of one unit, a formula (``160-0.41mz``) or any word not known here gives None.
    2. *Resonant traps have none.* In an ion trap (IT, QIT, LTQ; also the trap of ITFT and ITTOF) ions are heated by
       resonance, and neither volts nor per cent are a laboratory-frame energy: None, unless the activation is HCD. On
       Orbitraps that have a trap beside them (Fusion, Lumos, ID-X, Elite, ...) that is what CID means.
    3. *A stated unit wins.* eV is eV, and V counts as eV, as contributors use it. kV and keV give None: the high-energy
       regime of sector instruments is another scale. ``%`` and NCE are normalised collision energy, which gives None on
       time-of-flight instruments and triple quadrupoles, which have no such setting.
    4. *No unit* (``35``, ``30 (nominal)``): as MassBank contributors use it, NCE on Orbitraps and eV on time-of-flight
       instruments and quadrupoles; None where the instrument is not stated.

    Normalised collision energy becomes eV = NCE * m/z / 500 * factor (one of `CHARGE_FACTORS`); a precursor of unknown
    charge counts as singly charged, as instruments take it. 0 is an energy; None is 'not known'.

    Parameters
    ----------
    text : str or None
        As written.
    precursor_mz : float
        In Da per charge.
    instrument_type, instrument, activation : str or None
        As written; for example ``LC-ESI-QFT``, ``Q Exactive Plus``, ``HCD``.
    """
    parsed = _parse((text or "").strip().lower())
    if parsed is None:
        return None
    value, unit = parsed
    where = f"{instrument_type or ''} {instrument or ''}"
    beam_type = _BEAM_TYPE.search(f"{activation or ''} {text or ''}") is not None
    in_trap = _RESONANT_TRAP.search(instrument_type or where) or (
        _TRAP_TYPE.search(activation or "") and _TRAP_BESIDE_ORBITRAP.search(where)
    )
    if unit == "kv" or (in_trap and not beam_type):
        return None
    kind = _analyser(instrument_type) or _analyser(instrument) or ("orbitrap" if beam_type else None)
    if unit == "nce" and kind == "tof":
        return None
    if unit == "ev" or (unit is None and kind == "tof"):
        return value
    if unit is None and kind is None:
        return None
    factor = CHARGE_FACTORS[min(max(abs(charge or 1), 1), len(CHARGE_FACTORS)) - 1]
    return value * precursor_mz / 500.0 * factor


def _analyser(text: str | None) -> str | None:
    """Return 'orbitrap', 'tof' (time-of-flight or quadrupole) or None."""
    if not text:
        return None
    if _ORBITRAP.search(text):
        return "orbitrap"
    return "tof" if _TIME_OF_FLIGHT_OR_QUADRUPOLE.search(text) else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[float, str | None] | None:
    """Return the mean of the numbers and the unit ('ev', 'nce', 'kv' or None); None for a text not understood."""
    # '42% (nominal) with stepped collision energies 30% and 55%': the mean stands first
    text = text.partition("with stepped")[0]
    text = re.sub(r"(?<![\d,.])(\d+),(\d)(?![\d,])", r"\1.\2", text)  # a decimal comma: one digit behind it
    statements: list[tuple[list[float], set[str]]] = [([], set())]
    closed = False  # a unit stands behind the numbers: what follows without a separator is another statement
    for token in _TOKEN.finditer(text):
        if token["unknown"]:
            return None
        if token["separator"]:
            closed = False
        elif token["number"]:
            if closed:
                statements.append(([], set()))
                closed = False
            statements[-1][0].append(float(token["number"]))
        elif token["unit"]:
            kind = _UNIT_KIND.get(token["unit"], "ev")
            if closed and kind not in statements[-1][1]:
                statements.append(([], set()))
            statements[-1][1].add(kind)
            closed = bool(statements[-1][0])
    in_ev = [numbers for numbers, units in statements if units == {"ev"}]
    if (
        len(statements) == 2
        and len(in_ev) == 1
        and statements[1][0]
        and statements[0][1] | statements[1][1] == {"ev", "nce"}
    ):
        statements = [(in_ev[0], {"ev"})]
    numbers, units = statements[0]
    if len(statements) > 1 or not numbers or len(units) > 1:
        return None
    return sum(numbers) / len(numbers), units.pop() if units else None
