"""The split of a labelled data set whose user has made none: by structure, else by groups of like precursors."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ...spectra.split import EXCLUDED, Split
from ..splits import SplitOptions, assign_groups, connected_groups, split_by_inchikey_block
from .config import OwnSplitConfig

PRECURSOR_GROUPS = "precursor-group"
"""Kind of a split that keeps spectra of one structure, or of nearly one precursor m/z, in one fold."""

WINDOW_PPM = 10.0


def molecules_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the names of the molecules, str, and the number of each spectrum's molecule, int64 of shape (n,).

    A molecule is a first InChIKey block. Spectra without one are taken for one molecule where their precursor m/z are
    connected by steps of at most `WINDOW_PPM` in one polarity.
    """
    blocks = [key[:14] if key else None for key in table["inchikey"].to_pylist()]
    names = [block or f"precursor {group}" for block, group in zip(blocks, precursor_groups(table), strict=True)]
    distinct, molecule = np.unique(np.array(names, object).astype(str), return_inverse=True)
    return distinct, molecule.astype(np.int64)


def precursor_groups(table: pa.Table) -> np.ndarray:
    """Return the group of each spectrum by its precursor m/z and polarity, int64 of shape (n,); see `molecules_of`."""
    polarity = table["polarity"].fill_null(0).to_numpy().astype(np.float64)
    axis = np.log(table["precursor_mz"].to_numpy()) + 1e3 * polarity
    order = np.argsort(axis, kind="stable")
    steps = np.diff(axis[order], prepend=axis[order[:1]]) > WINDOW_PPM * 1e-6
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(steps)
    return group


def make_own_split(table: pa.Table, known: np.ndarray, config: OwnSplitConfig) -> tuple[Split, str]:
    """Return a split of the spectra, and in words what it keeps apart.

    Parameters
    ----------
    table : pyarrow.Table
        With the columns `ionbed.finetune.labelled.labels.TABLE_COLUMNS`.
    known : bool array of shape (n,)
        Spectra with a label. The others are excluded, where the split is by precursor.

    Raises
    ------
    InputError
        There are too few molecules or groups for three folds.
    """
    try:
        split, words = _made(table, known, config)
        empty = {"train", "validation", "test"} - set(split.fold_of_rows(table)[known].tolist())
    except InputError:
        empty = {"validation", "test"}
    if empty:
        raise InputError(
            f"the {int(known.sum()):,} labelled spectra are of too few molecules (or precursors) for a split: no fold "
            f"{' or '.join(sorted(empty))}; change own_split.test, own_split.validation or own_split.seed, or name a "
            "split in data.split"
        )
    return split, words


def _made(table: pa.Table, known: np.ndarray, config: OwnSplitConfig) -> tuple[Split, str]:
    inchikeys = table["inchikey"].to_pylist()
    if all(key for key, has_label in zip(inchikeys, known.tolist(), strict=True) if has_label):
        split = split_by_inchikey_block(inchikeys, seed=config.seed, test=config.test, validation=config.validation)
        return split, "by structure (first InChIKey block): no molecule is in two folds"
    groups = precursor_groups(table)
    members: defaultdict[str, set[str]] = defaultdict(set)
    ids = table["spectrum_id"].to_pylist()
    for row in np.flatnonzero(known).tolist():
        members[ids[row]].add(f"precursor {groups[row]}")
        if inchikeys[row]:
            members[ids[row]].add(inchikeys[row][:14])
    group_of = connected_groups(members)
    options = SplitOptions(seed=config.seed, test=config.test, validation=config.validation)
    folds = assign_groups(Counter(group_of.values()), options)
    by_spectrum = {name: folds[group_of[name]] if name in group_of else EXCLUDED for name in ids}
    recorded = {"test": config.test, "validation": config.validation, "window_ppm": WINDOW_PPM}
    split = Split(PRECURSOR_GROUPS, config.seed, by_spectrum, unit="spectrum", options=recorded)
    return split, (
        f"by precursor m/z ({WINDOW_PPM:g} ppm) and polarity, since labelled spectra have no structure: spectra of one "
        "precursor are in one fold, but a molecule may be in two folds as two adducts"
    )
