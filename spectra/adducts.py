"""Adducts: one normal form for the many spellings, and the arithmetic between neutral mass and m/z."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

ELECTRON_MASS = 5.485799090e-4
"""In Da (CODATA 2018)."""

ELEMENT_MASSES = {
    "H": 1.00782503223, "D": 2.01410177812, "Li": 7.0160034366, "B": 11.00930536, "C": 12.0, "N": 14.00307400443,
    "O": 15.99491461957, "F": 18.99840316273, "Na": 22.9897692820, "Mg": 23.985041697, "Al": 26.98153853,
    "Si": 27.97692653465, "P": 30.97376199842, "S": 31.9720711744, "Cl": 34.968852682, "K": 38.9637064864,
    "Ca": 39.962590863, "Cr": 51.94050623, "Mn": 54.93804391, "Fe": 55.93493633, "Co": 58.93319429, "Ni": 57.93534241,
    "Cu": 62.92959772, "Zn": 63.92914201, "As": 74.92159457, "Se": 79.9165218, "Br": 78.9183376, "Rb": 84.9117897379,
    "Ag": 106.9050916, "I": 126.9044719, "Cs": 132.905451961,
}  # fmt: skip
"""Mass in Da of the most abundant isotope of the elements that occur in adducts (NIST, after AME2012)."""

_CARRIER_CHARGES = {
    "H": 1, "D": 1, "Li": 1, "Na": 1, "K": 1, "Rb": 1, "Cs": 1, "Ag": 1, "NH4": 1, "Mg": 2, "Ca": 2, "Cu": 2, "Zn": 2,
    "Fe": 2, "F": -1, "Cl": -1, "Br": -1, "I": -1, "NO3": -1, "HSO4": -1, "H2PO4": -1, "HCO3": -1, "HCOO": -1,
    "CH3COO": -1, "CF3COO": -1,
}  # fmt: skip
"""Charge that each ion brings; used only where a text leaves the charge out (``M+H``)."""

_SPELLINGS = {
    "HCO2": "HCOO", "CHO2": "HCOO", "CHOO": "HCOO", "FORMATE": "HCOO",
    "FA": "HCOOH", "H2CO2": "HCOOH", "CH2O2": "HCOOH", "HCO2H": "HCOOH",
    "C2H3O2": "CH3COO", "CH3CO2": "CH3COO", "OAC": "CH3COO", "AC": "CH3COO", "ACETATE": "CH3COO",
    "HAC": "CH3COOH", "HOAC": "CH3COOH", "C2H4O2": "CH3COOH", "CH3CO2H": "CH3COOH",
    "TFA": "CF3COOH", "C2HF3O2": "CF3COOH", "CF3CO2H": "CF3COOH", "C2F3O2": "CF3COO", "CF3CO2": "CF3COO",
    "ACN": "CH3CN", "C2H3N": "CH3CN", "MEOH": "CH3OH", "CH4O": "CH3OH", "ETOH": "C2H5OH", "C2H6O": "C2H5OH",
    "DMSO": "C2H6OS", "ISOPROP": "C3H8O", "IPA": "C3H8O", "H3N": "NH3", "H4N": "NH4", "OH2": "H2O", "HO": "OH",
    "FH": "HF", "CLH": "HCl", "HCL": "HCl", "BRH": "HBr", "HBR": "HBr", "NA": "Na", "CL": "Cl", "BR": "Br",
    "LI": "Li", "HEX": "C6H10O5", "GLCUA": "C6H8O6",
}  # fmt: skip
"""Other names of the parts of an adduct, in capitals, and the one used here."""

_CHARGE_SIGNS = str.maketrans({"⁺": "+", "⁻": "-", "−": "-", "–": "-", "•": ".", "²": "2", "³": "3"})
_BRACKETED = re.compile(r"[\[(](?P<body>[^\[\]()]+)[\])](?P<charge>[-+.*\d]*)$")
_BARE = re.compile(r"(?P<body>\d*M(?:[-+]\d*[A-Za-z][A-Za-z0-9]*)*)(?P<charge>(?:\d*[-+][-+]*|[-+]\d+)?[.*]?)$")
_BODY = re.compile(r"(?P<count>\d*)M(?P<terms>(?:[-+]\d*[A-Za-z][A-Za-z0-9]*)*)$")
_UNCLEAR_CHARGE = re.compile(r"[-+]\d*H\d[-+]+$")  # M+2H2+: is the 2 a count or a charge?
_TERM = re.compile(r"(?P<sign>[-+])(?P<count>\d*)(?P<part>[A-Za-z][A-Za-z0-9]*)")
_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d*)")


@dataclass(frozen=True)
class Adduct:
    """An ion species of a molecule M.

    Attributes
    ----------
    name : str
        In normal form, for example ``[M+H]+``.
    num_molecules : int
        The 2 of ``[2M+H]+``.
    charge : int
        Signed, never 0.
    mass_shift : float
        Mass in Da of all that is added to and taken from the molecules, as neutral atoms.
    """

    name: str
    num_molecules: int
    charge: int
    mass_shift: float

    @property
    def polarity(self) -> int:
        """+1 or -1."""
        return 1 if self.charge > 0 else -1


@lru_cache(maxsize=4096)
def normalise_adduct(text: str | None) -> Adduct | None:
    """Return the adduct that ``text`` names, or None where it names none or more than one.

    The normal form is ``[nM+terms]z``: the net count of H first, then what is added, then what is lost, each in
    alphabetical order; a charge above 1 as ``2+``. One ion has one form, whatever the spelling:
    ``[M+2H]++`` and ``M+2H`` are ``[M+2H]2+``; ``[M-H2O+H]+`` and ``[M-OH]+`` are ``[M+H-H2O]+``;
    ``[M+FA-H]-`` and ``[M+HCO2]-`` are ``[M+HCOO]-``; ``[M]+*`` and ``[Cat]+`` are ``[M]+``.
    An alternative (``[M-H]-/[M-Ser]-``), an unknown part or a charge that cannot be inferred gives None.
    """
    if not text:
        return None
    text = re.sub(r"\s+", "", text.translate(_CHARGE_SIGNS)).replace("Cat", "M")
    text = re.sub(r"\+?[.*](?=\])", "", text)  # the radical of [M+.]+
    match = _BRACKETED.match(text) or _BARE.match(text)
    if not match or _UNCLEAR_CHARGE.search(text):
        return None
    body = _BODY.match(match["body"])
    if not body:
        return None
    num_molecules = int(body["count"] or 1)
    terms = _net_terms(body["terms"])
    if terms is None or num_molecules == 0:
        return None
    charge = _parse_charge(match["charge"]) if match["charge"].strip(".*") else _implied_charge(terms)
    if not charge:
        return None
    _rewrite(terms, charge)
    shift = sum(count * _part_mass(part) for part, count in terms.items())
    return Adduct(_name(num_molecules, terms, charge), num_molecules, charge, shift)


def adduct_mz(neutral_mass: float, adduct: Adduct) -> float:
    """Return the m/z of ``adduct`` of a molecule of monoisotopic mass ``neutral_mass`` (Da)."""
    ion_mass = adduct.num_molecules * neutral_mass + adduct.mass_shift - adduct.charge * ELECTRON_MASS
    return ion_mass / abs(adduct.charge)


def neutral_mass(mz: float, adduct: Adduct) -> float:
    """Return the monoisotopic mass (Da) of the molecule whose ``adduct`` has this m/z; the inverse of `adduct_mz`."""
    ion_mass = mz * abs(adduct.charge) + adduct.charge * ELECTRON_MASS
    return (ion_mass - adduct.mass_shift) / adduct.num_molecules


def parse_charge(text: str | None) -> int | None:
    """Return the charge that ``2+``, ``+2``, ``-1``, ``--`` or ``1`` names; None for 0 or what is no charge.

    A number without a sign is returned as it stands: its sign has to come from the polarity.
    """
    return _parse_charge(re.sub(r"\s+", "", (text or "").translate(_CHARGE_SIGNS)))


def _parse_charge(text: str) -> int | None:
    text = text.strip(".*")
    if re.fullmatch(r"\++|-+", text):
        return len(text) if text[0] == "+" else -len(text)
    match = re.fullmatch(r"([-+]?)(\d{1,3})([-+]?)(?:\.0+)?", text)
    if not match or (match[1] and match[3]):
        return None
    return int(match[2]) * (-1 if "-" in (match[1], match[3]) else 1) or None


def _net_terms(text: str) -> dict[str, int] | None:
    """Return the net count of each part, or None where a part is no formula."""
    terms: dict[str, int] = {}
    for term in _TERM.finditer(text):
        part = _SPELLINGS.get(term["part"].upper(), term["part"])
        if not _is_formula(part):
            return None
        count = int(term["count"] or 1) * (1 if term["sign"] == "+" else -1)
        if hydrogens := re.fullmatch(r"H(\d+)", part):
            part, count = "H", count * int(hydrogens[1])
        terms[part] = terms.get(part, 0) + count
    return {part: count for part, count in terms.items() if count}


def _implied_charge(terms: dict[str, int]) -> int:
    """Return the charge the ions among ``terms`` bring; 0 where nothing says."""
    return sum(_CARRIER_CHARGES.get(part, 0) * count for part, count in terms.items())


def _rewrite(terms: dict[str, int], charge: int) -> None:
    """Bring equal compositions to equal terms: an acid less its proton is its anion, MH less H2O is M less OH."""
    for acid, anion in (("HCOOH", "HCOO"), ("CH3COOH", "CH3COO"), ("CF3COOH", "CF3COO")):
        pairs = min(terms.get(acid, 0), -terms.get("H", 0))
        if charge < 0 and pairs > 0:
            _shift(terms, {acid: -pairs, "H": pairs, anion: pairs})
    if (lost := -terms.get("OH", 0)) > 0 and charge > 0:
        _shift(terms, {"OH": lost, "H": lost, "H2O": -lost})
    if (pairs := min(terms.get("NH3", 0), terms.get("H", 0))) > 0:
        _shift(terms, {"NH3": -pairs, "H": -pairs, "NH4": pairs})


def _shift(terms: dict[str, int], change: dict[str, int]) -> None:
    for part, count in change.items():
        terms[part] = terms.get(part, 0) + count
        if not terms[part]:
            del terms[part]


def _name(num_molecules: int, terms: dict[str, int], charge: int) -> str:
    order = sorted(terms, key=lambda part: (part != "H", terms[part] < 0, part))
    body = "".join(
        f"{'+' if terms[p] > 0 else '-'}{abs(terms[p]) if abs(terms[p]) > 1 else ''}{p}" for p in order
    )  # fmt: skip
    size, sign = abs(charge), "+" if charge > 0 else "-"
    return f"[{num_molecules if num_molecules > 1 else ''}M{body}]{size if size > 1 else ''}{sign}"


def _is_formula(part: str) -> bool:
    atoms = _ELEMENT.findall(part)
    return "".join(map("".join, atoms)) == part and all(symbol in ELEMENT_MASSES for symbol, _ in atoms)


def _part_mass(part: str) -> float:
    """Return the mass in Da of a formula such as ``CH3COO``."""
    return sum(ELEMENT_MASSES[symbol] * int(count or 1) for symbol, count in _ELEMENT.findall(part))
