"""Making splits by molecule: ``ionbed split STORE --out FILE``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import refuse_input_as_output
from ..errors import InputError
from ..spectra.split import FOLDS, Split
from ..spectra.store import Store


def split_by_inchikey_block(
    inchikeys: Iterable[str | None], *, seed: int = 0, test: float = 0.1, validation: float = 0.05
) -> Split:
    """Assign every molecule (first InChIKey block) to a fold by a hash of its block and the seed.

    All spectra of a molecule, its stereoisomers included, share a fold; a molecule keeps its fold when the data set
    grows or shrinks.

    Parameters
    ----------
    inchikeys : iterable of str or None
        One per spectrum, repeats allowed.
    test, validation : float
        Expected shares of the molecules, from 0 to 1.

    Raises
    ------
    InputError
        The shares are impossible, or no spectrum has a structure.
    """
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise InputError(f"shares test={test} and validation={validation} must be from 0 and add up to less than 1")
    blocks = sorted({key[:14] for key in inchikeys if key})
    if not blocks:
        raise InputError("no spectrum has a structure (inchikey); a split by molecule needs labels")
    folds = {}
    for block in blocks:
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{block}".encode()).digest()[:8], "big") / 2**64
        folds[block] = "test" if draw < test else "validation" if draw < test + validation else "train"
    return Split(kind="inchikey-block", seed=seed, folds=folds)


def split_store(
    store: Path, out: Path, *, seed: int = 0, test: float = 0.1, validation: float = 0.05
) -> dict[str, Any]:
    """Split a prepared store by first InChIKey block, save the split, and return its counts.

    Returns
    -------
    dict
        ``{fold: {'molecules': int, 'spectra': int}}``; spectra without a structure count as 'train'.

    Raises
    ------
    InputError
        The store is unusable or has no structures, ``out`` lies in it, or the shares are impossible.
    """
    opened = Store(store)
    refuse_input_as_output(out, store)
    inchikeys = opened.table(["inchikey"])["inchikey"].to_pylist()
    split = split_by_inchikey_block(inchikeys, seed=seed, test=test, validation=validation)
    split.save(out)
    molecules = Counter(split.folds.values())
    spectra = split.fold_of(inchikeys)
    return {f: {"molecules": molecules[f], "spectra": int(np.count_nonzero(spectra == f))} for f in FOLDS}
