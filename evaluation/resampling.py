"""What the bootstrap draws as a whole: single molecules, or groups of molecules that are alike."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .statistics import MINIMUM_GROUPS, BootstrapOptions, Unit
from .task_files import Task

logger = logging.getLogger("ionbed")

SOLVER_SECONDS = 0.3
"""For each pair of molecules; a pair that takes longer counts as near, which makes intervals wider."""


def resampling_clusters(
    smiles: Sequence[str],
    unit: Unit,
    *,
    distance: float = 5.0,
    cache: Path | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Return the group of each molecule, from 0.

    Parameters
    ----------
    smiles : sequence of str, one for each molecule
    unit : 'molecule', 'mces-cluster' or 'scaffold'
        'mces-cluster' takes single-linkage clusters of molecules nearer than ``distance`` (see
        `ionbed.spectra.mces.mces_clusters`), 'scaffold' the Bemis-Murcko scaffold; a molecule without rings has no
        scaffold to share and is alone.
    distance : float
    cache : Path, optional
        Folder in which the MCES distances are kept.
    workers : int, optional
        Processes; all cores where None.

    Returns
    -------
    int64 array of shape (n,)

    Raises
    ------
    ValueError
        RDKit cannot read a SMILES.
    InputError
        SciPy is not installed, or the cache cannot be used.
    """
    if unit == "molecule":
        return np.arange(len(smiles))
    if unit == "mces-cluster":
        from ..spectra.mces import mces_clusters

        return mces_clusters(smiles, distance, cache=cache, workers=workers, seconds=SOLVER_SECONDS)
    from ..spectra.molecules import murcko_scaffold

    scaffolds = [murcko_scaffold(text) or f"no rings: {number}" for number, text in enumerate(smiles)]
    return np.unique(scaffolds, return_inverse=True)[1].astype(np.int64)


def with_units(task: Task, options: BootstrapOptions, *, cache: Path | None = None, workers: int | None = None) -> Task:
    """Return ``task`` with the groups of its molecules that ``options`` want to be resampled as a whole.

    Raises
    ------
    InputError
        The task has no structures, or its groups are too few or too unequal for an interval to hold: they count as
        fewer than `MINIMUM_GROUPS` equal ones (Kish's effective number, n^2 over the sum of their squared sizes).
    """
    if options.unit == "molecule":
        return task
    if task.smiles is None:
        raise InputError(f"the task has no structures to resample by '{options.unit}'; take the unit 'molecule'")
    asked = [task.query_molecule, task.candidate_molecule] if task.kind == "pairs" else [task.query_molecule]
    molecules = np.unique(np.concatenate(asked))
    smiles = [str(task.smiles[molecule]) for molecule in molecules]
    group = resampling_clusters(smiles, options.unit, distance=options.cluster_distance, cache=cache, workers=workers)
    sizes = np.bincount(group)
    effective = len(group) ** 2 / float(np.sum(sizes.astype(np.float64) ** 2))
    if effective < MINIMUM_GROUPS:
        mend = ", or a smaller bootstrap.cluster_distance" if options.unit == "mces-cluster" else ""
        raise InputError(
            f"the unit '{options.unit}': {len(group):,} molecules are in {len(sizes):,} groups, the largest with "
            f"{int(sizes.max()):,}, which count as {effective:.1f} equal ones; intervals need {MINIMUM_GROUPS}; take "
            f"'molecule'{mend}"
        )
    logger.info("%s molecules are resampled as %s groups (%s)", f"{len(group):,}", f"{len(sizes):,}", options.unit)
    unit = np.full(len(task.molecule), -1, np.int64)
    unit[molecules] = group
    return replace(task, unit=unit)
