"""A split from folds that somebody has published: those of the benchmark MassSpecGym, by its identifiers."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa

from ..artifacts import sha256_of_json
from ..errors import InputError
from ..spectra.readers.massspecgym import read_folds
from ..spectra.split import EXCLUDED, Split

logger = logging.getLogger("ionbed")

MASSSPECGYM = "massspecgym"
"""Kind of the split."""

FOLD_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""What the benchmark calls a fold, and what it is called here."""


def split_by_massspecgym(table: pa.Table, path: Path) -> Split:
    """Return the split of a store whose spectra are in the fold that the column ``fold`` of ``path`` gives them.

    The benchmark divides molecules (Bushuiev et al. 2024, arXiv:2410.23326: none of test is nearer than an MCES
    distance of 10 to one of train), and so does the split: a molecule is in the fold of its spectra. Excluded are
    molecules none of whose spectra is in the file, and those that it has in two folds.

    Parameters
    ----------
    table : pyarrow.Table
        Of the store, with the columns ``native_id`` and ``inchikey``.
    path : Path
        The benchmark's table; see `ionbed.spectra.readers.massspecgym.read_folds`.

    Raises
    ------
    InputError
        The file is missing, holds no such table or an unknown fold, or shares no spectrum with the store.
    """
    published = read_folds(path)
    for identifier, name in published.items():
        if name.lower() not in FOLD_NAMES:
            raise InputError(
                f"{path}: the fold of '{identifier}' is '{name}'; it must be one of {', '.join(FOLD_NAMES)}"
            )
    folds_of: defaultdict[str, set[str]] = defaultdict(set)
    tested: list[str] = []
    num_matched = 0
    for native_id, inchikey in zip(table["native_id"].to_pylist(), table["inchikey"].to_pylist(), strict=True):
        fold = FOLD_NAMES[published[native_id].lower()] if native_id in published else None
        num_matched += fold is not None
        if inchikey:
            folds_of[inchikey[:14]].update(() if fold is None else (fold,))
            if fold == "test":
                tested.append(inchikey[:14])
    folds = {block: next(iter(found)) if len(found) == 1 else EXCLUDED for block, found in sorted(folds_of.items())}
    molecules = Counter(folds.values())
    matched = f"{num_matched:,} of the store's {len(table):,} spectra are in it"
    if not (molecules["train"] and molecules["test"]):
        raise InputError(
            f"{path}: gives {molecules['train']:,} molecules to train and {molecules['test']:,} to test, as {matched}; "
            "make the store of the benchmark's own spectra"
        )
    num_torn = sum(len(found) > 1 for found in folds_of.values())
    logger.info(
        "%s: %s; excluded are %s molecules that are not in it, and %s that it has in two folds",
        path,
        matched,
        f"{molecules[EXCLUDED] - num_torn:,}",
        f"{num_torn:,}",
    )
    # A benchmark counts all of its test spectra. Nobody can be asked about those that preparing has dropped, nor about
    # those without a structure or of a molecule that is excluded.
    num_test = sum(FOLD_NAMES[name.lower()] == "test" for name in published.values())
    num_asked = sum(folds[block] == "test" for block in tested)
    log = logger.info if num_asked == num_test else logger.warning
    log("%s: %s of its %s test spectra are in the store", path, f"{num_asked:,}", f"{num_test:,}")
    options = {"file": Path(path).name, "folds": sha256_of_json(published), "molecules_in_two_folds": num_torn}
    options |= {"test_spectra": num_test, "test_spectra_in_store": num_asked}
    return Split(MASSSPECGYM, 0, folds, options=options)
