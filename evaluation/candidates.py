"""Structures that may be the answer: the molecules of the store, and those of further files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Candidates:
    """The ``m`` molecules that may be candidates; the first are those of the data, under the same numbers.

    Attributes
    ----------
    block : object array of str, of shape (m,)
        First InChIKey blocks, each once.
    smiles : object array of str, of shape (m,)
        Written by one program, without stereochemistry: their style says nothing of where they are from.
    exact_mass : float64 array of shape (m,)
        Of the neutral molecule in Da; NaN where RDKit cannot read the structure.
    formula : object array of str, of shape (m,)
        Empty where unknown.
    source : int64 array of shape (m,)
        Index into ``source_names``; 0 is the store.
    place : int64 array of shape (m,)
        Row in its source (of the first mention): the order of the database.
    fingerprint : uint8 array of shape (m, 256)
        Morgan, radius 2, 2048 bits, packed.
    """

    block: np.ndarray
    smiles: np.ndarray = field(repr=False)
    exact_mass: np.ndarray = field(repr=False)
    formula: np.ndarray = field(repr=False)
    source: np.ndarray = field(repr=False)
    place: np.ndarray = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)
    source_names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of molecules."""
        return len(self.block)
