"""Structures that may be the answer: the molecules of the store, and those of further files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import atomic_file
from ..errors import InputError
from ..progress import progress
from ..spectra.molecule_files import read_molecules
from .dataset import EvaluationData

logger = logging.getLogger("ionbed")

STORE = "store"
"""Name of the first source."""

FINGERPRINT_RADIUS = 2
FINGERPRINT_BITS = 2048

_FORMAT = 1  # of the cached files: raise it when a structure is worked out in another way
_PER_TASK = 256
_WORTH_PROCESSES = 4 * _PER_TASK
_SCHEMA = pa.schema(
    [
        ("block", pa.string()),
        ("smiles", pa.string()),
        ("formula", pa.string()),
        ("exact_mass", pa.float64()),
        ("fingerprint", pa.binary(FINGERPRINT_BITS // 8)),
    ]
)


@dataclass(frozen=True, eq=False)
class Candidates:
    """The ``m`` molecules that may be candidates; the first are those of the data, under the same numbers.

    Attributes
    ----------
    block : object array of str, of shape (m,)
        First InChIKey blocks, each once.
    smiles : object array of str, of shape (m,)
        Written by one program, without stereochemistry and isotopes: their style says nothing of where they are from.
        Empty where RDKit cannot read the structure.
    exact_mass : float64 array of shape (m,)
        Of the molecule as in ``smiles``, in Da, whatever its charge; NaN where RDKit cannot read the structure.
    formula : object array of str, of shape (m,)
        Of the molecule as in ``smiles``, in Hill order, with the formal charge where there is one; empty where unknown.
    source : int64 array of shape (m,)
        Index into ``source_names``; 0 is the store.
    place : int64 array of shape (m,)
        Row in its source (of the first mention): the order of the database.
    fingerprint : uint8 array of shape (m, 256)
        Morgan, radius 2, 2048 bits, packed; zeros where RDKit cannot read the structure.
    source_names : tuple of str
    counts : dict of str to int
        Entries of the files that gave no new molecule, by reason.
    """

    block: np.ndarray
    smiles: np.ndarray = field(repr=False)
    exact_mass: np.ndarray = field(repr=False)
    formula: np.ndarray = field(repr=False)
    source: np.ndarray = field(repr=False)
    place: np.ndarray = field(repr=False)
    fingerprint: np.ndarray = field(repr=False)
    source_names: tuple[str, ...]
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of molecules."""
        return len(self.block)


def candidate_molecules(
    data: EvaluationData, pools: Sequence[Path] = (), cache: Path | None = None, *, workers: int | None = None
) -> Candidates:
    """Return the molecules of the data, under the same numbers, and then those of the pools that are new.

    A molecule is a first InChIKey block. One of a pool is new if neither its block nor its structure without
    stereochemistry has come before: no molecule is a candidate twice.

    Parameters
    ----------
    pools : sequence of Path
        Files of molecules; see `ionbed.spectra.molecule_files.read_molecules`.
    cache : Path or None
        Folder in which what was worked out of the structures is kept, under a hash of them.
    workers : int or None
        Processes that read structures where there are many; all cores where None.

    Raises
    ------
    InputError
        A pool is missing or holds no molecules, or the cache cannot be written.
    """
    own = structures_of(data.smiles.tolist(), cache, label="structures of the store", workers=workers)
    # A label of the store counts as it stands: the queries' truths are named by it.
    tables = [own.set_column(0, "block", pa.array(data.inchikey_block.tolist(), pa.string()))]
    seen_blocks = set(data.inchikey_block.tolist())
    seen_smiles = {smiles for smiles in own["smiles"].to_pylist() if smiles is not None}
    # The store has no order of its own but that of its first spectra.
    places = [_first_mention(data.molecule, len(data.inchikey_block))]
    counts = {"entries that RDKit cannot read": 0, "entries that were there before": 0}
    for pool in pools:
        entries = read_molecules(pool)
        table = structures_of(
            [entry.smiles or "" for entry in entries], cache, label=f"structures of {Path(pool).name}", workers=workers
        )
        kept = []
        pairs = zip(table["block"].to_pylist(), table["smiles"].to_pylist(), strict=True)
        for row, (block, smiles) in enumerate(pairs):
            if block is None:
                counts["entries that RDKit cannot read"] += 1
            elif block in seen_blocks or smiles in seen_smiles:
                counts["entries that were there before"] += 1
            else:
                kept.append(row)
                seen_blocks.add(block)
                seen_smiles.add(smiles)
        tables.append(table.take(pa.array(kept, pa.int64())))
        places.append(np.array(kept, np.int64))
    whole = pa.concat_tables(tables)
    return Candidates(
        block=_objects(whole["block"]),
        smiles=_objects(whole["smiles"].fill_null("")),
        exact_mass=whole["exact_mass"].fill_null(float("nan")).to_numpy(),
        formula=_objects(whole["formula"].fill_null("")),
        source=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        place=np.concatenate(places),
        fingerprint=_packed(whole["fingerprint"]),
        source_names=(STORE, *(Path(pool).name for pool in pools)),
        counts=counts if pools else {},
    )


def structures_of(structures: Sequence[str], cache: Path | None, *, label: str, workers: int | None = None) -> pa.Table:
    """Return what is known of each SMILES (or InChI), from the cache where it is there.

    Returns
    -------
    pyarrow.Table
        One row for each: ``block`` of the InChIKey, ``smiles`` and ``formula`` without stereochemistry and isotopes,
        ``exact_mass`` in Da, ``fingerprint`` packed; null where RDKit cannot read it.

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    path = None if cache is None else Path(cache) / f"structures-{_hash_of(structures)}.parquet"
    if path is not None and (table := _cached(path, len(structures))) is not None:
        return table
    table = pa.Table.from_pylist(list(_described(structures, label, workers)), _SCHEMA)
    if path is not None:
        try:
            with atomic_file(path) as partial:
                pq.write_table(table, partial, compression="zstd")
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be used as a cache ({error.strerror}); name another folder"
            ) from None
    return table


def _described(structures: Sequence[str], label: str, workers: int | None) -> Iterator[dict[str, Any]]:
    parts = [structures[i : i + _PER_TASK] for i in range(0, len(structures), _PER_TASK)]
    serial = workers == 1 or len(structures) < _WORTH_PROCESSES
    with progress(label, len(structures), unit="structures") as advance, _mapper(serial, workers) as run:
        for part in run(_describe_all, parts):
            advance(len(part))
            yield from part


@contextmanager
def _mapper(serial: bool, workers: int | None) -> Iterator[Any]:
    if serial:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _describe_all(structures: Sequence[str]) -> list[dict[str, Any]]:
    return [_describe(structure) for structure in structures]


def _describe(structure: str) -> dict[str, Any]:
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    from ..spectra.molecules import formula_mass_and_charge, morgan_fingerprints, standardise

    unknown = dict.fromkeys(_SCHEMA.names)
    molecule = standardise(structure) if structure else None
    if molecule is None:
        return unknown
    with rdBase.BlockLogs():
        # Written, read and written again: the first string still depends on the stereochemistry that it leaves out.
        flat = Chem.MolFromSmiles(Chem.MolToSmiles(Chem.MolFromSmiles(molecule.smiles), isomericSmiles=False))
        if flat is None:
            return unknown
        smiles, formula = Chem.MolToSmiles(flat), CalcMolFormula(flat)
    mass_and_charge = formula_mass_and_charge(formula)
    fingerprint = morgan_fingerprints([smiles], radius=FINGERPRINT_RADIUS, bits=FINGERPRINT_BITS)
    return {
        "block": molecule.inchikey[:14],
        "smiles": smiles,
        "formula": formula,
        "exact_mass": mass_and_charge[0] if mass_and_charge else None,
        "fingerprint": np.packbits(fingerprint[0]).tobytes(),
    }


def _hash_of(structures: Iterable[str]) -> str:
    from rdkit import rdBase

    digest = hashlib.sha256(f"{_FORMAT} {rdBase.rdkitVersion} {FINGERPRINT_RADIUS} {FINGERPRINT_BITS}".encode())
    for structure in structures:
        digest.update(f"\n{structure}".encode())
    return digest.hexdigest()[:32]


def _cached(path: Path, num_rows: int) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        logger.warning("%s: is damaged (%s); it is made anew", path, str(error).splitlines()[0])
        return None
    if not table.schema.equals(_SCHEMA) or len(table) != num_rows:
        logger.warning("%s: is not what was written there; it is made anew", path)
        return None
    return table


def _first_mention(numbers: np.ndarray, length: int) -> np.ndarray:
    """Return the first row in which each number stands; int64 of shape (length,)."""
    first = np.zeros(length, np.int64)
    found, rows = np.unique(numbers, return_index=True)
    first[found] = rows
    return first


def _objects(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), object)


def _packed(column: pa.ChunkedArray) -> np.ndarray:
    zeros = bytes(FINGERPRINT_BITS // 8)
    joined = b"".join(zeros if value is None else value for value in column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(len(column), FINGERPRINT_BITS // 8)
