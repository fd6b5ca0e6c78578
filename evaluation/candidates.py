"""Structures that may be the answer: the molecules of the store, those of further files, and lists of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..spectra.molecule_files import read_molecules
from .candidate_lists import read_candidate_lists
from .dataset import EvaluationData
from .structure_cache import FINGERPRINT_BYTES, structures_of

STORE = "store"
"""Name of the first source."""

IN_NO_FILE = -1
"""Place of a molecule that no file of molecules has."""


@dataclass(frozen=True, eq=False)
class CandidateList:
    """One list of candidates as its file has it.

    Attributes
    ----------
    smiles : tuple of str
        As written, each once, in alphabetical order: the place in the file may tell the true one.
    row : int64 array of shape (len(smiles),)
        Of the `Candidates`; several SMILES may be of one. -1 where RDKit cannot read it.
    """

    smiles: tuple[str, ...]
    row: np.ndarray


@dataclass(frozen=True, eq=False)
class Candidates:
    """The ``m`` molecules that may be candidates; the first are those of the data, under the same numbers.

    Attributes
    ----------
    block : object array of str, of shape (m,)
        First InChIKey blocks, each once.
    smiles : object array of str, of shape (m,)
        Written by one program, without stereochemistry, isotopes and salts, protons where an index has them: their
        style says nothing of where they are from (`ionbed.evaluation.structure_cache.structures_of`). Empty where
        RDKit cannot read the structure.
    exact_mass : float64 array of shape (m,)
        Of the molecule with the protons that its source draws, in Da, whatever its charge; NaN where RDKit cannot
        read the structure.
    formula : object array of str, of shape (m,)
        Of the same, in Hill order, with the formal charge where there is one; empty where unknown.
    source : int64 array of shape (m,)
        Index into ``source_names``; 0 is the store.
    place : int64 array of shape (m,)
        Row in its source (of the first mention): the order of the database.
    fingerprint : uint8 array of shape (m, 256)
        Morgan, radius 2, 2048 bits, packed; zeros where RDKit cannot read the structure.
    source_names : tuple of str
    place_in_files : int64 array of shape (m,), or (0,) where there are no files
        Row of the first mention in the files of molecules, counted through all of them; `IN_NO_FILE` where none of
        them has it.
    counts : dict of str to int
        Entries of the files that gave no new molecule, by reason.
    lists : mapping of int to int64 array
        Rows of the candidates by the row of the molecule that they were listed for, the truth among them.
    listed : mapping of int to CandidateList
        The same lists as their file has them.
    list_counts : dict of str to int
        What became of the lists and of their entries.
    """

    block: np.ndarray
    smiles: np.ndarray = field(repr=False)
    exact_mass: np.ndarray = field(repr=False)
    formula: np.ndarray = field(repr=False)
    source: np.ndarray = field(repr=False)
    place: np.ndarray = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)
    source_names: tuple[str, ...]
    place_in_files: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    counts: dict[str, int] = field(default_factory=dict)
    lists: Mapping[int, np.ndarray] = field(default_factory=dict, repr=False)
    listed: Mapping[int, CandidateList] = field(default_factory=dict, repr=False)
    list_counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of molecules."""
        return len(self.block)

    @property
    def is_only_listed(self) -> np.ndarray:
        """Whether each molecule is in the lists alone and a candidate of their queries only; bool of shape (m,)."""
        last = len(self.source_names) - 1
        only: np.ndarray = self.source == last if self.list_counts else np.zeros(len(self), bool)
        return only


def candidate_molecules(
    data: EvaluationData,
    pools: Sequence[Path] = (),
    cache: Path | None = None,
    *,
    lists: Path | None = None,
    fold: str = "test",
    workers: int | None = None,
) -> Candidates:
    """Return the molecules of the data, under the same numbers, then the new ones of the pools, then of the lists.

    A molecule is a first InChIKey block. One is new if neither its block nor its structure without stereochemistry has
    come before: no molecule is a candidate twice.

    Parameters
    ----------
    pools : sequence of Path
        Files of molecules; see `ionbed.spectra.molecule_files.read_molecules`.
    cache : Path or None
        Folder in which what was worked out of the structures is kept, under a hash of them.
    lists : Path or None
        Candidates by query; see `ionbed.evaluation.candidate_lists.read_candidate_lists`.
    fold : str
        Lists are read for molecules that have spectra in this fold.
    workers : int or None
        Processes that read structures where there are many; all cores where None.

    Raises
    ------
    InputError
        A pool or the lists are missing or malformed, or the cache cannot be written.
    """
    own = structures_of(data.smiles.tolist(), cache, label="structures of the store", workers=workers)
    found = _of_table(own, data.inchikey_block.astype(object), _first_mention(data.molecule, len(data.inchikey_block)))
    numbers = _Numbers(found)
    for pool in pools:
        entries = read_molecules(pool)
        structures = [entry.smiles or "" for entry in entries]
        table = structures_of(structures, cache, label=f"structures of {Path(pool).name}", workers=workers)
        rows, is_new = numbers.of(table)
        found = _extended(found, table, is_new, Path(pool).name)
        found = replace(
            found,
            place_in_files=_places_after(found, rows),
            counts=_added(
                found.counts,
                {
                    "entries that RDKit cannot read": int(np.count_nonzero(rows < 0)),
                    "entries that were there before": int(np.count_nonzero((rows >= 0) & ~is_new)),
                },
            ),
        )
    if lists is not None:
        in_fold = set(data.molecule[data.rows_in(fold)].tolist())
        found = _with_lists(found, numbers, in_fold, lists, cache, workers)
    return found


class _Numbers:
    """The row of each molecule by its block and by its structure; both lead to the first that has either."""

    def __init__(self, candidates: Candidates) -> None:
        self._of_block = {block: row for row, block in enumerate(candidates.block)}
        self._of_smiles: dict[str, int] = {}
        for row, smiles in enumerate(candidates.smiles):
            if smiles:
                self._of_smiles.setdefault(smiles, row)
        self._next = len(candidates)

    def of(self, table: pa.Table, *, add: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of each structure, int64, and whether it is new; new ones are numbered on if ``add``.

        -1 where RDKit cannot read it, or where it is unknown and nothing is added.
        """
        rows, is_new = np.full(len(table), -1, np.int64), np.zeros(len(table), bool)
        pairs = zip(table["block"].to_pylist(), table["smiles"].to_pylist(), strict=True)
        for place, (block, smiles) in enumerate(pairs):
            if block is None:
                continue
            row = self._of_block.get(block, self._of_smiles.get(smiles, -1))
            if row < 0 and add:
                row, is_new[place] = self._next, True
                self._of_block[block] = self._of_smiles[smiles] = row
                self._next += 1
            rows[place] = row
        return rows, is_new


def _with_lists(
    found: Candidates, numbers: _Numbers, in_fold: set[int], path: Path, cache: Path | None, workers: int | None
) -> Candidates:
    lists = read_candidate_lists(path)
    keys = sorted(lists)
    of_key = numbers.of(structures_of(keys, cache, label="queries of the lists", workers=workers), add=False)[0]
    asked: dict[int, str] = {}
    num_repeated = 0
    for key, molecule in zip(keys, of_key.tolist(), strict=True):
        num_repeated += molecule in asked
        if molecule in in_fold:
            asked.setdefault(molecule, key)
    # In alphabetical order: a place in the lists, where the truth may come first, must not become one in the database.
    structures = sorted({text for key in asked.values() for text in lists[key]})
    table = structures_of(structures, cache, label=f"structures of {path.name}", workers=workers)
    rows, is_new = numbers.of(table)
    row_of = dict(zip(structures, rows.tolist(), strict=True))
    counts = {
        "lists": len(lists),
        "lists of molecules that have no spectrum in the fold": len(lists) - len(asked) - num_repeated,
        "second lists of a molecule, left out": num_repeated,
        "molecules of the fold without a list": len(in_fold) - len(asked),
        "lists without the true molecule, left out": 0,
        "lists with the true molecule in the first place": 0,
        "entries that RDKit cannot read": 0,
        "entries that are twice in a list": 0,
    }
    kept, listed_as = {}, {}
    for molecule, key in asked.items():
        listed = np.array([row_of[text] for text in lists[key]], np.int64)
        distinct = np.unique(listed[listed >= 0])
        counts["entries that RDKit cannot read"] += int(np.count_nonzero(listed < 0))
        counts["entries that are twice in a list"] += int(np.count_nonzero(listed >= 0)) - len(distinct)
        if molecule not in distinct:
            counts["lists without the true molecule, left out"] += 1
            continue
        counts["lists with the true molecule in the first place"] += int(listed[0] == molecule)
        kept[molecule] = distinct
        written = tuple(sorted(set(lists[key])))
        listed_as[molecule] = CandidateList(written, np.array([row_of[text] for text in written], np.int64))
    return replace(_extended(found, table, is_new, path.name), lists=kept, listed=listed_as, list_counts=counts)


def _of_table(table: pa.Table, block: np.ndarray, place: np.ndarray) -> Candidates:
    packed = b"".join(
        bytes(FINGERPRINT_BYTES) if value is None else value for value in table["fingerprint"].to_pylist()
    )
    return Candidates(
        block=block,  # of the store: as its labels have it, for the queries' truths are named by it
        smiles=_objects(table["smiles"].fill_null("")),
        exact_mass=table["exact_mass"].fill_null(float("nan")).to_numpy(),
        formula=_objects(table["formula"].fill_null("")),
        source=np.zeros(len(table), np.int64),
        place=place,
        fingerprint=np.frombuffer(packed, np.uint8).reshape(len(table), FINGERPRINT_BYTES),
        source_names=(STORE,),
    )


def _extended(found: Candidates, table: pa.Table, is_new: np.ndarray, name: str) -> Candidates:
    """Return the candidates with the new rows of ``table`` at their end, as a source of that name."""
    places = np.flatnonzero(is_new)
    new = table.take(pa.array(places))
    added = _of_table(new, _objects(new["block"]), places)
    arrays = ("block", "smiles", "exact_mass", "formula", "place", "fingerprint")
    in_no_file = np.full(len(added) if len(found.place_in_files) else 0, IN_NO_FILE)
    joined: dict[str, Any] = {array: np.concatenate([getattr(found, array), getattr(added, array)]) for array in arrays}
    return replace(
        found,
        **joined,
        source=np.concatenate([found.source, np.full(len(added), len(found.source_names))]),
        source_names=(*found.source_names, name),
        place_in_files=np.concatenate([found.place_in_files, in_no_file]),
    )


def _places_after(found: Candidates, rows: np.ndarray) -> np.ndarray:
    """Return ``place_in_files`` with those that a further file mentions first, in its order, after all others."""
    known = found.place_in_files
    places = known.copy() if len(known) else np.full(len(found), IN_NO_FILE)
    mentioned, first = np.unique(rows, return_index=True)
    is_first = (mentioned >= 0) & (places[mentioned] == IN_NO_FILE)
    places[mentioned[is_first]] = places.max(initial=IN_NO_FILE) + 1 + first[is_first]
    return places


def _added(counts: Mapping[str, int], further: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) + number for name, number in further.items()}


def _first_mention(numbers: np.ndarray, length: int) -> np.ndarray:
    """Return the first row in which each number stands; int64 of shape (length,)."""
    first = np.zeros(length, np.int64)
    found, rows = np.unique(numbers, return_index=True)
    first[found] = rows
    return first


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), object)
