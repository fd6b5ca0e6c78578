"""Training on a share of the molecules of the training fold, for curves of what more labelled molecules are worth."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..pretrain.processes import process_state
from .config import FinetuneDataConfig

logger = logging.getLogger("ionbed")


def in_share(molecules: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Return which molecules belong to a share of all, bool of shape (n,).

    A hash of its name and the seed decides about each molecule, whatever others there are: those of a smaller share
    are among those of a larger one, and they stay when the data set grows. The share is an expected one.

    Parameters
    ----------
    molecules : sequence of str
        First InChIKey blocks.
    share : float
        Above 0, to 1 (all).
    """
    if share >= 1:
        return np.ones(len(molecules), bool)
    # Not the hash by which `ionbed.finetune.splits` draws folds: its smallest values would all be in the fold 'test'.
    draws = (hashlib.sha256(f"molecules_share {seed}:{name}".encode()).digest()[:8] for name in molecules)
    return np.array([int.from_bytes(draw, "big") / 2**64 < share for draw in draws], bool)


def rows_of_share(
    config: FinetuneDataConfig, rows: np.ndarray, molecule: np.ndarray, names: Sequence[str], *, quiet: bool = False
) -> np.ndarray:
    """Return those of ``rows`` whose molecules may be trained on.

    Parameters
    ----------
    rows : int array of shape (n,)
        Of the folds that are trained on, each with a molecule.
    molecule : int64 array
        Number of the molecule of every row of the store (indexed by row).
    names : sequence of str
        Of every molecule, by its number.
    quiet : bool
        Whether not to log how many they are of.

    Raises
    ------
    InputError
        There are none.
    """
    if config.molecules_share == 1:
        return rows
    kept: np.ndarray = rows[in_share(names, config.molecules_share, config.molecules_seed)[molecule[rows]]]
    words = f"data.molecules_share {config.molecules_share:g}, data.molecules_seed {config.molecules_seed}"
    num_kept, num_all = len(np.unique(molecule[kept])), len(np.unique(molecule[rows]))
    if not num_kept:
        raise InputError(f"{words}: leaves none of {num_all:,} molecules to train on; raise the share")
    if process_state().is_main_process and not quiet:
        logger.info("training uses %s of %s molecules (%s)", f"{num_kept:,}", f"{num_all:,}", words)
    return kept


def share_in_use(data: Mapping[str, Any]) -> tuple[float, int] | None:
    """Return share and seed of a configuration's ``data``, None where all molecules are used.

    ``data`` may be of before there was a share.
    """
    share = data.get("molecules_share", 1.0)
    return (share, data["molecules_seed"]) if share < 1 else None


def without_whole_share(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity of a run without the share of its molecules where that is all of them.

    So runs from before there was this option go on, and a seed that draws nothing is no other run.
    """
    if share_in_use(identity["data"]) is not None:
        return identity
    kept = {name: of for name, of in identity["data"].items() if name not in ("molecules_share", "molecules_seed")}
    return {**identity, "data": kept}
