"""Adducts: one normal form for the many spellings, and the arithmetic between neutral mass and m/z."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

ELECTRON_MASS = 5.485799090e-4
"""In Da (CODATA 2018)."""

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
    "LI": "Li", "HEX": "C6H10O5", "GLCUA": "C6H8O6", "ACO": "CH3COO", "ACOH": "CH3COOH", "MECN": "CH3CN",
    "HFA": "HCOOH",
}  # fmt: skip
"""Other names of the parts of an adduct, in capitals, and the one used here."""

_CHARGE_SIGNS = str.maketrans({"⁺": "+", "⁻": "-", "−": "-", "–": "-", "•": ".", "²": "2", "³": "3"})
_BRACKETED = re.compile(r"[\[(](?P<body>[^\[\]()]+)[\])](?P<charge>[-+.*\d]*)$")
_BARE = re.compile(r"(?P<body>\d*M(?:[-+]\d*[A-Za-z][A-Za-z0-9]*)*)(?P<charge>(?:\d*[-+][-+]*|[-+]\d+)?[.*]?)$")
_BODY = re.compile(r"(?P<count>\d*)M(?P<terms>(?:[-+]\d*[A-Za-z][A-Za-z0-9]*)*)$")
_BEHIND_BRACKET = re.compile(r"[\])]\s*(\d{0,3}[-+]+|[-+]\d{1,3})[.*]?(?=$|[\s/,;|])")
_UNCLEAR_CHARGE = re.compile(r"[-+]\d*H\d[-+]+$")  # M+2H2+: is the 2 a count or a charge?
_TERM = re.compile(r"(?P<sign>[-+])(?P<count>\d*)(?P<part>[A-Za-z][A-Za-z0-9]*)")
_ATOMS = re.compile(r"([A-Z][a-z]?)(\d*)")
_CHARGED_ATOMS = re.compile(r"(H|Li|Na|K|Rb|Cs|Ag)(\d+)")
_DEUTERIUM = re.compile(r"D(?![a-z])")
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s+"), ""),
    (re.compile(r"Cat(?![a-z])"), "M"),
    (re.compile(r"\+?[.*](?=\])"), ""),  # the radical of [M+.]+
    (re.compile(r"^\(([^()\[\]]+)\)([-+])\[([-+][A-Za-z0-9]+)\]$"), r"[\1\3]\2"),  # MassHunter: (M+H)+[-H2O]
    (re.compile(r"(?<=[-+])(\d*)\(([A-Za-z0-9]+)\)"), r"\1\2"),  # M-2(H2O)+H
    (re.compile(r"^([^;()\[\]]+);(\d?[-+])$"), r"[\1]\2"),  # OpenMS: M+H;1+
    (re.compile(r"(?<=[-+])(\d*)H20(?=[-+\])]|$)"), r"\1H2O"),  # a nought for an O
    (re.compile(r"(?<![A-Za-z0-9])M([2-9])(?=[-+]\d*[A-Za-z])"), r"\1M"),  # GNPS: M2+H
    (re.compile(r"^([^\[\]]*)\](?=[-+.*\d]*$)|^\[([^\[\]]*)$"), r"\1\2"),  # one bracket is missing
)
"""What is mended before a text is taken apart: pattern and replacement, in this order."""


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
    ``[M+FA-H]-`` and ``[M+HCO2]-`` are ``[M+HCOO]-``; ``[M]+*``, ``[Cat]+`` and ``M-e`` are ``[M]+``.
    An alternative (``[M-H]-/[M-Ser]-``), an unknown part or a charge that cannot be inferred gives None.
    """
    if not text:
        return None
    text = text.translate(_CHARGE_SIGNS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
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
    electrons = terms.pop("e", 0)
    implied = _implied_charge(terms) - electrons
    charge = _parse_charge(match["charge"]) if match["charge"].strip(".*") else implied
    if not charge or charge * electrons > 0:  # M less an electron is no anion
        return None
    if not text.startswith(("[", "(")) and re.search(r"[-+]\d+$", text) and charge != implied:
        return None  # M+23, M+H-99: a mass, not a charge
    _rewrite(terms, charge)
    shift = 0.0
    for part, count in terms.items():
        mass = _formula_mass(part)
        assert mass is not None, part  # _net_terms has refused what is no formula
        shift += count * mass
    return Adduct(_name(num_molecules, terms, charge), num_molecules, charge, shift)


def adduct_mz(neutral_mass: float, adduct: Adduct) -> float:
    """Return the m/z of ``adduct`` of a molecule of monoisotopic mass ``neutral_mass`` (Da)."""
    ion_mass = adduct.num_molecules * neutral_mass + adduct.mass_shift - adduct.charge * ELECTRON_MASS
    return ion_mass / abs(adduct.charge)


def neutral_mass(mz: float, adduct: Adduct) -> float:
    """Return the monoisotopic mass (Da) of the molecule whose ``adduct`` has this m/z; the inverse of `adduct_mz`."""
    ion_mass = mz * abs(adduct.charge) + adduct.charge * ELECTRON_MASS
    return (ion_mass - adduct.mass_shift) / adduct.num_molecules


def atoms_lost(adduct: Adduct) -> dict[str, int]:
    """Return how many atoms of each element ``adduct`` takes from its molecules: those of ``[M+H-2H2O]+`` are H4O2."""
    lost: dict[str, int] = {}
    for term in _TERM.finditer(adduct.name.partition("M")[2].partition("]")[0]):
        if term["sign"] == "-":
            for symbol, count in _ATOMS.findall(term["part"]):
                lost[symbol] = lost.get(symbol, 0) + int(term["count"] or 1) * int(count or 1)
    return lost


def molecule_charge(adduct: Adduct) -> float:
    """Return the formal charge that each molecule of ``adduct`` has: 0 for ``[M+H]+``, 1 for ``[M]+`` and ``[M+H]2+``.

    No whole number where the molecules cannot share the charge that is left.
    """
    terms = _TERM.finditer(adduct.name.partition("M")[2].partition("]")[0])
    brought = sum(
        _CARRIER_CHARGES.get(term["part"], 0) * int(term["count"] or 1) * (1 if term["sign"] == "+" else -1)
        for term in terms
    )
    return (adduct.charge - brought) / adduct.num_molecules


def parse_charge(text: str | None) -> int | None:
    """Return the charge that ``2+``, ``+2``, ``-1``, ``-1-``, ``--`` or ``1`` names; None for 0 or what is no charge.

    A number without a sign is returned as it stands: its sign has to come from the polarity. Several charges
    (``2+ and 3+``) are not known to be one of them: None.
    """
    return _parse_charge(re.sub(r"\s+", "", (text or "").translate(_CHARGE_SIGNS)))


def charges_behind_brackets(text: str) -> frozenset[int]:
    """Return the signed charges that a text states behind its brackets, whatever ion stands in them.

    ``[M+Foo]2+`` has {2}, ``[M-H]-/[M-Ser]-`` {-1}; none where the text does not end with one.
    """
    text = text.translate(_CHARGE_SIGNS).strip()
    found = list(_BEHIND_BRACKET.finditer(text))
    if not found or found[-1].end() != len(text):
        return frozenset()
    return frozenset(charge for match in found if (charge := _parse_charge(match[1])))


def _parse_charge(text: str) -> int | None:
    text = text.strip(".*")
    if re.fullmatch(r"\++|-+", text):
        return len(text) if text[0] == "+" else -len(text)
    match = re.fullmatch(r"([-+]?)(\d{1,3})(?:\.0+)?([-+]?)", text)
    if not match or {match[1], match[3]} == {"+", "-"}:
        return None
    return int(match[2]) * (-1 if "-" in (match[1], match[3]) else 1) or None


def _net_terms(text: str) -> dict[str, int] | None:
    """Return the net count of each part, or None where a part is no formula."""
    terms: dict[str, int] = {}
    for term in _TERM.finditer(text):
        part = _SPELLINGS.get(term["part"].upper(), term["part"])
        if part == "e":
            terms["e"] = terms.get("e", 0) + int(term["count"] or 1) * (1 if term["sign"] == "+" else -1)
            continue
        if _formula_mass(part) is None:
            return None
        count = int(term["count"] or 1) * (1 if term["sign"] == "+" else -1)
        if atoms := _CHARGED_ATOMS.fullmatch(part):
            part, count = atoms[1], count * int(atoms[2])
        elif abs(count) > 9 and part != "H":  # 13C is an isotope, not 13 atoms
            return None
        terms[part] = terms.get(part, 0) + count
    return {part: count for part, count in terms.items() if count}


def _implied_charge(terms: dict[str, int]) -> int:
    """Return the charge the ions among ``terms`` bring; 0 where nothing says."""
    return sum(_CARRIER_CHARGES.get(part, 0) * count for part, count in terms.items())


def _rewrite(terms: dict[str, int], charge: int) -> None:
    """Bring equal compositions to equal terms: an acid less its proton is its anion, MH less H2O is M less OH."""
    for acid, anion in (("HCOOH", "HCOO"), ("CH3COOH", "CH3COO"), ("CF3COOH", "CF3COO")):
        if charge == -1 and terms == {acid: 1}:  # mzmine's [M+FA]-
            terms["H"] = -1
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


@lru_cache(maxsize=4096)
def _formula_mass(formula: str) -> float | None:
    """Return the monoisotopic mass in Da (NIST) of a formula such as ``CH3COO``, None where it is no formula."""
    from pyteomics.auxiliary import PyteomicsError  # here, for the import takes most of a second
    from pyteomics.mass import calculate_mass

    try:
        return float(calculate_mass(formula=_DEUTERIUM.sub("H[2]", formula)))
    except PyteomicsError:
        return None
