"""Which library spectra may be hits: by polarity, adduct, instrument, collision energy, formula and licence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..spectra.adducts import normalise_adduct
from ..spectra.ion import read_ion
from ..spectra.molecules import atom_counts, is_formula
from ..spectra.preparation.parts import license_key

VALUES_TOLD = 8
"""Values of the library that a message names, the most frequent first."""

_ENERGIES = re.compile(r"\s*(?P<low>\d+(?:\.\d+)?)?\s*-\s*(?P<high>\d+(?:\.\d+)?)?\s*")


@dataclass(frozen=True)
class Filters:
    """What library spectra have to be. An empty one lets everything pass; an unknown value passes no filter.

    Attributes
    ----------
    polarity : int or None
        +1 or -1.
    adducts : tuple of str
        Any of these, in normal form (``[M+H]+``).
    instrument_types : tuple of str
        Any of these, or of what they are a part of: ``QTOF`` and ``ESI-QTOF`` are of ``LC-ESI-QTOF``, capitals and
        hyphens aside.
    energy : (float, float) or None
        Lowest and highest collision energy in eV, both allowed.
    formulas : tuple of str
        Any of these, of the molecule; by their atoms, in whatever order.
    licenses : tuple of str
        Any of these; spelling and version of Creative Commons aside (``cc-by-4.0`` is ``CC BY``).

    Raises
    ------
    InputError
        A value is none of its kind.
    """

    polarity: int | None = None
    adducts: tuple[str, ...] = ()
    instrument_types: tuple[str, ...] = ()
    energy: tuple[float, float] | None = None
    formulas: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()

    COLUMNS = ("polarity", "adduct", "instrument_type", "collision_energy", "formula", "license")

    def __post_init__(self) -> None:
        if self.polarity not in (None, 1, -1):
            raise InputError(f"the filter of polarity is {self.polarity}; it must be 1 or -1")
        for text in self.adducts:
            found = normalise_adduct(text)
            if found is None:
                raise InputError(f"the filter names the adduct '{text}', which is none; write it as [M+H]+")
        object.__setattr__(
            self, "adducts", tuple(dict.fromkeys(a.name for a in map(normalise_adduct, self.adducts) if a))
        )
        for text in self.formulas:
            if not is_formula(text):
                raise InputError(f"the filter names the formula '{text}', which is none; write it as C6H12O6")
        for kind, texts in (("instrument type", self.instrument_types), ("licence", self.licenses)):
            if any(not letters(text) for text in texts):
                raise InputError(f"the filter names an empty {kind}; leave it out")
        if self.energy is not None and not 0 <= self.energy[0] <= self.energy[1] < float("inf"):
            low, high = self.energy
            raise InputError(
                f"the filter of collision energy is {low:g}-{high:g} eV; it must be LOW-HIGH, from 0, the lower first"
            )

    @classmethod
    def from_words(
        cls,
        *,
        polarity: str | int | None = None,
        adducts: Iterable[str] = (),
        instrument_types: Iterable[str] = (),
        energy: str | Sequence[float] | None = None,
        formulas: Iterable[str] = (),
        licenses: Iterable[str] = (),
    ) -> Filters:
        """Return the filters that words name, as a command or a client of the service writes them.

        Parameters
        ----------
        polarity : str or int, optional
            ``positive``, ``neg``, ``+``, ``-1``...
        energy : str or pair of float, optional
            ``20-40``, ``20-``, ``-40``, ``20`` (that alone), in eV; or two numbers.
        adducts, instrument_types, formulas, licenses : iterables of str
            See `Filters`.

        Raises
        ------
        InputError
            A word is none of its kind.
        """
        return cls(
            _polarity(polarity), tuple(adducts), tuple(instrument_types), _energy(energy), tuple(formulas),
            tuple(licenses),
        )  # fmt: skip

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return self != Filters()

    def __str__(self) -> str:
        """Return what is asked for, in words: ``adduct [M+H]+ or [M+Na]+, energy 20 to 40 eV``."""
        return ", ".join(self._words(name) for name in self.COLUMNS if self._asks(name))

    def mask(self, table: pa.Table) -> np.ndarray:
        """Return which rows may be hits, bool of shape (n_rows,); ``table`` has (at least) the `COLUMNS` asked for."""
        allowed = np.ones(len(table), bool)
        for name in self.COLUMNS:
            if self._asks(name):
                allowed &= self._mask_of(name, table[name])
        return allowed

    def needs(self) -> tuple[str, ...]:
        """Return the columns of a library that `mask` reads."""
        return tuple(name for name in self.COLUMNS if self._asks(name))

    def refuse_unknown(self, table: pa.Table) -> None:
        """Raise `InputError` where no row has one of the values that are asked for; it says which values there are.

        Each is looked at by itself: that no row passes all filters together is nothing wrong.
        """
        for name, wanted in (
            ("adduct", self.adducts), ("instrument_type", self.instrument_types), ("formula", self.formulas),
            ("license", self.licenses),
        ):  # fmt: skip
            there = pc.unique(table[name]) if wanted else None
            for value in wanted:
                if not _matching(name, (value,), there):
                    raise InputError(
                        f"no library spectrum has the {_WORD[name]} {value}; {_what_there_is(table[name])}"
                    )
        for name, wanted_one in (("polarity", self.polarity), ("collision_energy", self.energy)):
            if wanted_one is not None and not self._mask_of(name, table[name]).any():
                raise InputError(f"no library spectrum has the {self._words(name)}; {_what_there_is(table[name])}")

    def why_none(self, table: pa.Table) -> str:
        """Return which filters left nothing of some rows, in words: one by itself where one does, else all of them.

        Parameters
        ----------
        table : pyarrow.Table of at least one row
            What would be candidates without filters.
        """
        passing = {name: self._mask_of(name, table[name]) for name in self.COLUMNS if self._asks(name)}
        alone = [name for name, mask in passing.items() if not mask.any()]
        named = [self._words(name) for name in (alone or passing)]
        return ("none has " if alone else "none has all of ") + ", ".join(named)

    def _asks(self, name: str) -> bool:
        return getattr(self, _FIELD[name]) not in (None, ())

    def _words(self, name: str) -> str:
        value: Any = getattr(self, _FIELD[name])
        if name == "polarity":
            return f"polarity {_SIGNS[value]}"
        if name == "collision_energy":
            return f"collision energy {value[0]:g} to {value[1]:g} eV"
        return f"{_WORD[name]} {' or '.join(value)}"

    def _mask_of(self, name: str, column: pa.ChunkedArray) -> np.ndarray:
        if name == "polarity":
            passing = pc.equal(column, pa.scalar(self.polarity, column.type))
        elif name == "collision_energy":
            assert self.energy is not None, "asked only where there is one"
            # As float32, in which the store keeps it: 35.1 is not to be below 35.1.
            low, high = (pa.scalar(np.float32(value), pa.float32()) for value in self.energy)
            passing = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
        else:
            wanted = _matching(name, getattr(self, _FIELD[name]), pc.unique(column))
            passing = pc.is_in(column, value_set=pa.array(wanted, column.type))
        mask: np.ndarray = passing.fill_null(False).to_numpy().astype(bool)
        return mask


_FIELD = {
    "polarity": "polarity",
    "adduct": "adducts",
    "instrument_type": "instrument_types",
    "collision_energy": "energy",
    "formula": "formulas",
    "license": "licenses",
}
"""The field of `Filters` that asks for a column."""

_SIGNS: Mapping[object, str] = {1: "positive", -1: "negative"}
_WORD = {"adduct": "adduct", "instrument_type": "instrument type", "formula": "formula", "license": "licence"}


def _matching(name: str, wanted: Iterable[str], there: pa.Array) -> list[str]:
    """Return which texts of a column are asked for; the few that are distinct are looked at, not every row."""
    texts = [text for text in there.to_pylist() if text is not None]
    if name == "adduct":
        adducts = frozenset(wanted)
        return [text for text in texts if text in adducts]
    if name == "formula":
        atoms = [atom_counts(formula) for formula in wanted]
        return [text for text in texts if atom_counts(text) in atoms]
    if name == "license":
        keys = {license_key(text) for text in wanted}
        return [text for text in texts if license_key(text) in keys]
    types = {letters(text) for text in wanted}
    return [text for text in texts if not types.isdisjoint(runs_of_parts(text))]


def _polarity(value: str | int | None) -> int | None:
    if value is None:
        return None
    found = read_ion({"polarity": str(value)}).polarity
    if found is None:
        raise InputError(f"the filter of polarity is '{value}'; it must be positive or negative")
    return found


def _energy(value: str | Sequence[float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        if len(value) != 2:
            raise InputError(f"the filter of collision energy has {len(value)} numbers; it must have two, in eV")
        return float(value[0]), float(value[1])
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value), float(value)
    match = _ENERGIES.fullmatch(value)
    if not match or not (match["low"] or match["high"]):
        raise InputError(f"the filter of collision energy is '{value}'; it must be LOW-HIGH in eV, for example 20-40")
    return float(match["low"] or 0), float(match["high"] or 1e6)


def letters(text: str) -> str:
    """Return the letters and digits of a text, small: ``LC-ESI-QTOF`` is lcesiqtof."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


@lru_cache(maxsize=4096)
def runs_of_parts(text: str) -> frozenset[str]:
    """Return all runs of the parts of an instrument type, joined: of LC-ESI-QTOF lc, lcesi, esiqtof, ..."""
    parts = [part for part in re.split(r"[^a-z0-9]+", text.lower()) if part]
    ends = range(1, len(parts) + 1)
    return frozenset("".join(parts[begin:end]) for end in ends for begin in range(end))


def _what_there_is(column: pa.ChunkedArray) -> str:
    """Return the most frequent values of a column of a library, or its range, in words."""
    name = "it has none at all"
    if column.null_count == len(column):
        return name
    if pa.types.is_floating(column.type):
        ends = pc.min_max(column).as_py()
        return f"its energies are from {ends['min']:g} to {ends['max']:g} eV"
    counted = sorted(
        ((entry["values"], entry["counts"]) for entry in pc.value_counts(column.drop_null()).to_pylist()),
        key=lambda entry: -entry[1],
    )
    told = ", ".join(f"{_SIGNS.get(value, value)} ({count:,})" for value, count in counted[:VALUES_TOLD])
    return f"it has {told}" + (f" and {len(counted) - VALUES_TOLD:,} others" if len(counted) > VALUES_TOLD else "")
