"""A pool of further structures for training: any file of molecules, without those that must not be seen."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..artifacts import atomic_file, sha256_of_file
from ..errors import InputError
from ..progress import counted, progress
from ..spectra.molecule_features import FEATURES_VERSION, MoleculeFeatures
from ..spectra.molecule_files import read_molecules
from ..spectra.molecules import parent_molecule, standardise

logger = logging.getLogger("ionbed")

_ARRAYS = ("offsets", "bits", "counts", "descriptors", "mass")


@dataclass(frozen=True, eq=False)
class Pool:
    """Structures that nobody need have measured.

    Attributes
    ----------
    blocks : str array of shape (n,)
        First InChIKey block of each, all different.
    features : MoleculeFeatures
    """

    blocks: np.ndarray
    features: MoleculeFeatures

    def without(self, blocks: Container[str]) -> Pool:
        """Return the pool without some molecules."""
        keep = np.flatnonzero([block not in blocks for block in self.blocks.tolist()])
        return Pool(self.blocks[keep], self.features.take(keep))


def check_pool(path: Path) -> None:
    """Raise `InputError` where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; molecules.pool is a .smi, .tsv, .csv or .sdf file of molecules")


def read_pool(path: Path, cache: Path) -> Pool:
    """Read the structures of a file of molecules (`ionbed.spectra.molecule_files.read_molecules`).

    Left out, and counted in the log, is what cannot be read, salts and mixtures, and what comes a second time.

    Parameters
    ----------
    path : Path
    cache : Path
        Folder that keeps what was computed: it takes a minute or two for 100,000 structures.

    Raises
    ------
    InputError
        The file is unusable, or nothing in it can be used.
    """
    check_pool(path)
    kept = cache / f"pool-{sha256_of_file(path)[:16]}-{FEATURES_VERSION}.npz"
    if kept.is_file() and (known := _read(kept)) is not None:
        return known
    pool = _computed(path)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_file(kept) as partial, partial.open("wb") as file:
        np.savez(file, blocks=pool.blocks, **{name: getattr(pool.features, name) for name in _ARRAYS})
    return pool


def _read(path: Path) -> Pool | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Pool(arrays["blocks"], MoleculeFeatures(**{name: arrays[name] for name in _ARRAYS}))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s: is damaged (%s); it is made anew", path, str(error).partition("\n")[0])
        return None


def _computed(path: Path) -> Pool:
    smiles: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    entries = read_molecules(path)
    with progress("pool", len(entries)) as advance:
        for entry in entries:
            molecule = standardise(entry.smiles) if entry.smiles else None
            if molecule is not None and "." not in molecule.smiles:
                # As an index of structures keeps it: databases draw charges that a store's structures need not have.
                molecule = parent_molecule(molecule.smiles)
            if molecule is None:
                left_out["unreadable"] += 1
            elif "." in molecule.smiles:
                left_out["several parts"] += 1
            elif molecule.inchikey[:14] in smiles:
                left_out["duplicate"] += 1
            else:
                smiles[molecule.inchikey[:14]] = molecule.smiles
            advance(1)
    if not smiles:
        raise InputError(f"{path}: none of its {len(entries):,} structures can be used; see molecules.pool")
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in left_out.most_common())
    logger.info("%s: %s for the pool; left out are %s", path, counted(len(smiles), "structures"), reasons or "none")
    return Pool(np.array(list(smiles)), MoleculeFeatures.of(list(smiles.values()), progress=True))
