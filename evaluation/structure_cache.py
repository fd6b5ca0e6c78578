"""What follows from a structure, worked out once and kept on disk: block, flat SMILES, formula, mass, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..progress import progress
from ..spectra.preparation.workers import open_workers
from .table_cache import cached_table

FINGERPRINT_RADIUS = 2
FINGERPRINT_BITS = 2048
FINGERPRINT_BYTES = FINGERPRINT_BITS // 8

_FORMAT = 2  # of the cached files: raise it when a structure is worked out in another way
_PER_TASK = 256
_WORTH_PROCESSES = 4 * _PER_TASK
SCHEMA = pa.schema(
    [
        ("block", pa.string()),
        ("smiles", pa.string()),
        ("formula", pa.string()),
        ("exact_mass", pa.float64()),
        ("fingerprint", pa.binary(FINGERPRINT_BYTES)),
    ]
)


def structures_of(structures: Sequence[str], cache: Path | None, *, label: str, workers: int | None = None) -> pa.Table:
    """Return what is known of each SMILES (or InChI), from the cache where it is there.

    Returns
    -------
    pyarrow.Table
        One row for each: ``block`` of the InChIKey, ``smiles`` and packed ``fingerprint`` of the parent molecule
        (`ionbed.spectra.molecules.parent_molecule`: what an index keeps, and what models are trained with), without
        stereochemistry and isotopes; ``formula`` and ``exact_mass`` in Da with the protons that are drawn, since
        adducts are counted from them: ``[M]+`` is of betaine's cation. Null where RDKit cannot read it.

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    path = None if cache is None else Path(cache) / f"structures-{_hash_of(structures)}.parquet"
    return cached_table(
        path,
        lambda: pa.Table.from_pylist(list(_described(structures, label, workers)), SCHEMA),
        SCHEMA,
        len(structures),
    )


def _described(structures: Sequence[str], label: str, workers: int | None) -> Iterator[dict[str, Any]]:
    parts = [structures[i : i + _PER_TASK] for i in range(0, len(structures), _PER_TASK)]
    serial = workers == 1 or len(structures) < _WORTH_PROCESSES
    with (
        progress(label, len(structures), unit="structures") as advance,
        open_workers(1 if serial else workers, None) as processes,
    ):
        for part in processes.map(_describe_all, parts):
            advance(len(part))
            yield from part


def _describe_all(structures: Sequence[str]) -> list[dict[str, Any]]:
    return [_describe(structure) for structure in structures]


def _describe(structure: str) -> dict[str, Any]:
    from rdkit import Chem, rdBase
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    from ..spectra.molecules import flat, formula_mass_and_charge, morgan_fingerprints, parent_molecule, standardise

    unknown = dict.fromkeys(SCHEMA.names)
    drawn = standardise(structure) if structure else None
    parent = parent_molecule(structure) if drawn is not None else None
    if drawn is None or parent is None:
        return unknown
    with rdBase.BlockLogs():
        mol = flat(parent.smiles)
        with_protons = mol if "." in drawn.smiles or drawn == parent else flat(drawn.smiles)
        if mol is None or with_protons is None:
            return unknown
        smiles, formula = Chem.MolToSmiles(mol), CalcMolFormula(with_protons)
    mass_and_charge = formula_mass_and_charge(formula)
    fingerprint = morgan_fingerprints([smiles], radius=FINGERPRINT_RADIUS, bits=FINGERPRINT_BITS)
    return {
        "block": parent.inchikey[:14],
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
