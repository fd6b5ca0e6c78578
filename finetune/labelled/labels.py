"""The labels of the spectra of a store, from a table or from the structures, as arrays that a head is trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ...spectra.molecules import morgan_fingerprints
from ..split_audit import class_at_level
from .computed import CLASS_LABELS, ELEMENTS, FINGERPRINT, PROPERTIES, has_substructures, properties_of
from .config import LabelsConfig, TaskKind
from .label_file import NO, UNKNOWN, YES, LabelFile, join, read_label_file

TABLE_COLUMNS = (
    "spectrum_id", "native_id", "inchikey", "smiles", "name", "chemical_class", "precursor_mz", "polarity",
    "source_file",
)  # fmt: skip
"""Columns of the store that labels are joined by and computed from."""

LARGEST_NUMBER = 1e15
"""Of a regression: its square is still far from the end of single precision."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of the n spectra of a store.

    Attributes
    ----------
    task : 'classification', 'multi-label' or 'regression'
    names : tuple of str
        The K classes, labels or numbers.
    values : float32 array of shape (n, T), NaN where unknown
        Of a classification, T = 1: the number of the class. Else T = K: 0 and 1, or numbers.
    counts : dict of str to int
        What became of rows and spectra.
    notes : tuple of str
        Examples of what did not match.
    source : str
        Where the labels come from, in words.
    """

    task: TaskKind
    names: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    counts: dict[str, int]
    notes: tuple[str, ...]
    source: str

    @property
    def is_known(self) -> np.ndarray:
        """Whether anything is known of each spectrum, bool of shape (n,)."""
        known: np.ndarray = ~np.isnan(self.values).all(axis=1)
        return known

    @property
    def num_outputs(self) -> int:
        """K."""
        return len(self.names)

    @property
    def hash(self) -> str:
        """SHA-256 over task, names and values."""
        digest = hashlib.sha256(repr((self.task, self.names)).encode())
        digest.update(np.ascontiguousarray(self.values).tobytes())
        return digest.hexdigest()


def read_labels(task: TaskKind, config: LabelsConfig, table: pa.Table) -> Labels:
    """Return the labels of a store.

    Parameters
    ----------
    table : pyarrow.Table
        All rows of the store, with the columns `TABLE_COLUMNS`.

    Raises
    ------
    InputError
        The file is unusable, or a cell is not of the task's kind; nothing can be computed.
    """
    if config.file is not None:
        return _from_file(task, config, table)
    return _computed(task, config, table)


def with_enough(labels: Labels, train: np.ndarray, molecule: np.ndarray, config: LabelsConfig) -> Labels:
    """Return labels without the classes, yes/no labels and bits that too few training molecules have an answer to.

    A class needs ``min_molecules``; a yes/no label as many with and without it. Of fingerprint bits the
    ``fingerprint_bits`` most evenly set are kept, one of those that are alike on all training molecules.

    Parameters
    ----------
    train : int64 array
        Rows that are trained on.
    molecule : int64 array of shape (n,)
        Of each spectrum of the store.

    Raises
    ------
    InputError
        Nothing is left to learn.
    """
    train = train[labels.is_known[train]]
    if config.file is None:  # what follows from the structure, one spectrum of a molecule says as all do
        train = train[np.unique(molecule[train], return_index=True)[1]]
    least = config.min_molecules
    if labels.task == "regression":
        known = num_molecules(~np.isnan(labels.values[train]), molecule[train])
        if (known < least).any():
            name = labels.names[int(np.argmin(known))]
            raise InputError(f"{labels.source}: '{name}' is known of {known.min():,} training molecules; at least "
                             f"{least} are needed (labels.min_molecules)")  # fmt: skip
        if (flat := np.nanstd(labels.values[train], axis=0, dtype=np.float64) == 0).any():
            raise InputError(f"{labels.source}: '{labels.names[int(np.argmax(flat))]}' is one number for all training "
                             "molecules; there is nothing to learn")  # fmt: skip
        return labels
    if labels.task == "classification":
        kept = _frequent_classes(labels, train, molecule, least)
    else:
        kept = _even_labels(labels, train, molecule, config)
    if len(kept.names) < (2 if labels.task == "classification" else 1):
        raise InputError(
            f"{labels.source}: too few answers to learn from: with at least {least} training molecules "
            f"(labels.min_molecules) there are {', '.join(kept.names) or 'none'}; lower it, or add labels"
        )
    return kept


def counted_in_share(labels: Labels, used: np.ndarray) -> Labels:
    """Return labels with a count of those that a share of the training fold teaches nothing about.

    Parameters
    ----------
    used : int64 array
        Rows of the store that are trained on.

    Raises
    ------
    InputError
        It teaches nothing about any of them, or a number is one and the same.
    """
    values = labels.values[used]
    if labels.task == "classification":
        num_known = len(np.unique(values[~np.isnan(values)]))
        num_missing, what, enough = len(labels.names) - num_known, "classes without a molecule", num_known >= 2
    else:
        differ = np.array([len(np.unique(column[~np.isnan(column)])) > 1 for column in values.T])
        num_missing, what = int((~differ).sum()), "labels with one answer only"
        enough = bool(differ.all() if labels.task == "regression" else differ.any())
    if not enough:
        raise InputError(f"{labels.source}: the molecules of data.molecules_share have too few answers to learn from; "
                         "raise the share, or draw others by data.molecules_seed")  # fmt: skip
    return replace(labels, counts={**labels.counts, f"{what} in the share of the training fold": num_missing})


def num_molecules(is_so: np.ndarray, molecule: np.ndarray) -> np.ndarray:
    """Return of how many molecules any spectrum is so, int64 of shape (K,).

    Parameters
    ----------
    is_so : bool array of shape (n, K)
    molecule : int64 array of shape (n,)
    """
    return np.array([len(np.unique(molecule[of_label])) for of_label in is_so.T], np.int64)


def _frequent_classes(labels: Labels, train: np.ndarray, molecule: np.ndarray, least: int) -> Labels:
    of_class = labels.values[train, 0].astype(np.int64)
    pairs = np.unique(np.stack([molecule[train], of_class]), axis=1)
    sizes = np.bincount(pairs[1], minlength=len(labels.names))
    kept = np.flatnonzero(sizes >= least)
    renumbered = np.full(len(labels.names) + 1, np.nan, np.float32)
    renumbered[kept] = np.arange(len(kept))
    before = labels.is_known
    values = renumbered[np.nan_to_num(labels.values, nan=len(labels.names)).astype(np.int64)]
    after = replace(labels, names=tuple(labels.names[place] for place in kept.tolist()), values=values)
    counts = {
        **labels.counts,
        "classes": len(kept),
        "classes left out, too few training molecules": len(labels.names) - len(kept),
        "spectra of classes left out": int((before & ~after.is_known).sum()),
    }
    return replace(after, counts=counts)


def _even_labels(labels: Labels, train: np.ndarray, molecule: np.ndarray, config: LabelsConfig) -> Labels:
    answers = labels.values[train]
    with_it, without = (num_molecules(answers == answer, molecule[train]) for answer in (1, 0))
    places = np.flatnonzero((with_it >= config.min_molecules) & (without >= config.min_molecules))
    if config.file is None and FINGERPRINT in config.computed:
        _, first = np.unique(answers[:, places].T, axis=0, return_index=True)
        places = places[np.sort(first)]
        uneven = np.abs(with_it[places] / len(train) - 0.5)
        places = np.sort(places[np.argsort(uneven, kind="stable")][: config.fingerprint_bits])
    counts = {**labels.counts, "labels": len(places), "labels left out": len(labels.names) - len(places)}
    names = tuple(labels.names[place] for place in places.tolist())
    return replace(labels, names=names, values=labels.values[:, places], counts=counts)


def _from_file(task: TaskKind, config: LabelsConfig, table: pa.Table) -> Labels:
    assert config.file is not None
    file = read_label_file(config.file, config.key, config.columns)
    if task == "classification" and len(file.columns) > 1:
        raise InputError(
            f"{file.path}: has {len(file.columns)} columns beside '{config.key}' ({', '.join(file.columns[:5])}); name "
            "the one with the classes in labels.columns"
        )
    if task == "regression":
        _check_names(file)
    joined = join(file, table)
    counts: Counter[str] = Counter(joined.counts)
    if task == "classification":
        texts = [None if cells[0].lower() in UNKNOWN else cells[0] for _, _, cells in file.rows]
        names, of_row = _numbered(texts)
    else:
        names = file.columns
        parse = _yes_or_no if task == "multi-label" else _number
        of_row = np.array([[parse(file, line, *pair) for pair in zip(names, cells, strict=True)]
                           for line, _, cells in file.rows], np.float32)  # fmt: skip
    values = np.concatenate([of_row, np.full((1, of_row.shape[1]), np.nan, np.float32)])[joined.row]
    counts["spectra with a row but no label in it"] = int((np.isnan(values).all(axis=1) & (joined.row >= 0)).sum())
    return Labels(task, names, values, dict(counts), joined.notes, file.path.name)


def _check_names(file: LabelFile) -> None:
    """Raise InputError if a table of predictions would have one column twice."""
    taken = {"spectrum_id", *(f"{name} {end}" for name in file.columns for end in ("low", "high"))}
    if clash := taken & set(file.columns):
        raise InputError(
            f"{file.path}: the column '{min(clash)}' is named as a column of the predictions is to be; rename it"
        )


def _computed(task: TaskKind, config: LabelsConfig, table: pa.Table) -> Labels:
    source = ", ".join((*config.computed, *config.smarts))
    counts: Counter[str] = Counter(spectra=len(table))
    if config.computed and config.computed[0] in CLASS_LABELS:
        level = CLASS_LABELS[config.computed[0]]
        texts = [class_at_level(path, level) if path else None for path in table["chemical_class"].to_pylist()]
        if not any(texts):
            raise InputError(
                f"labels.computed: no spectrum of the store names its {config.computed[0]}; use labels.file"
            )
        counts["spectra without a class"] = texts.count(None)
        names, values = _numbered(texts)
        return Labels(task, names, values, dict(counts), (), source)
    every = table["smiles"].to_pylist()
    smiles = sorted({text for text in every if text})
    if not smiles:
        raise InputError(f"labels.computed: no spectrum of the store has a structure to compute {source} from")
    counts["spectra without a structure"] = sum(not text for text in every)
    names, of_smiles = _of_structures(config, smiles)
    if task == "classification":
        names = (f"no {names[0]}", names[0])
    place = {text: number for number, text in enumerate(smiles)}
    rows = np.array([place[text] if text else -1 for text in every], np.int64)
    values = np.concatenate([of_smiles, np.full((1, of_smiles.shape[1]), np.nan, np.float32)])[rows]
    return Labels(task, names, values, dict(counts), (), source)


def _of_structures(config: LabelsConfig, smiles: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and values of what is computed, of each of ``smiles``."""
    if FINGERPRINT in config.computed:
        bits = morgan_fingerprints(smiles)
        # More than are asked for, since the training molecules choose; not all, of which most are never set.
        uneven = np.abs(bits.mean(axis=0) - 0.5)
        kept = np.sort(np.argsort(uneven, kind="stable")[: 4 * config.fingerprint_bits])
        return tuple(f"bit {number}" for number in kept.tolist()), bits[:, kept].astype(np.float32)
    numbers = [name for name in config.computed if name in PROPERTIES]
    if numbers:
        return tuple(numbers), properties_of(smiles, numbers)
    asked = [name for name in config.computed if name in ELEMENTS]
    return (*asked, *config.smarts), has_substructures(smiles, asked, config.smarts)


def _numbered(texts: Sequence[str | None]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the distinct texts, sorted, and the number of each one's, float32 of shape (n, 1)."""
    names = sorted({text for text in texts if text is not None})
    place = {text: number for number, text in enumerate(names)}
    values = [np.nan if text is None else place[text] for text in texts]
    return tuple(names), np.array(values, np.float32)[:, None]


def _yes_or_no(file: LabelFile, line: int, column: str, cell: str) -> float:
    text = cell.lower()
    if text in UNKNOWN:
        return np.nan
    if text in YES or text in NO:
        return float(text in YES)
    raise InputError(
        f"{file.path}: line {line}, column '{column}' has {cell!r}; a multi-label column holds 0 and 1 (or yes and "
        "no), empty where unknown"
    )


def _number(file: LabelFile, line: int, column: str, cell: str) -> float:
    if cell.lower() in UNKNOWN:
        return np.nan
    try:
        value = float(cell)
    except ValueError:
        value = float("inf")
    if not abs(value) <= LARGEST_NUMBER:
        raise InputError(
            f"{file.path}: line {line}, column '{column}' has {cell!r}; a column of a regression holds numbers with a "
            f"decimal point of at most {LARGEST_NUMBER:g}, empty where unknown"
        )
    return value


def describe_counts(labels: Labels) -> list[str]:
    """Return what became of the rows and spectra, a line each, for the log."""
    lines = [f"{number:,} {what}" for what, number in labels.counts.items() if number]
    return [f"labels ({labels.source}): " + "; ".join(lines), *(f"labels: {note}" for note in labels.notes)]


def summary(labels: Labels) -> dict[str, Any]:
    """Return what a manifest says of labels."""
    return {"source": labels.source, "names": list(labels.names), "counts": labels.counts, "sha256": labels.hash}
