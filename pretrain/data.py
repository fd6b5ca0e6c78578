"""Training spectra: the rows of a store that are trained on, and the order in which they are seen."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from ..encoder.batching import MOST_PADDING, token_budget_batches
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.split import FOLDS, Split
from ..spectra.store import Store
from .config import DataConfig
from .mapped_store import ROWS_AT_ONCE, MappedStore, Texts

POOL_BATCHES = 32
"""Batches whose rows are sorted by length together: many enough for little padding, few enough for mixed batches."""

_BLOCK = 1 << 20


class TrainingSpectra:
    """Rows of a prepared store, in some folds, read on demand from memory-mapped files.

    A process holds a few bytes for each row of the store; spectra are mapped, see `MappedStore`.

    Parameters
    ----------
    config : DataConfig
    cache : Path
        Folder for the memory-mapped files; made once.

    Attributes
    ----------
    rows, validation_rows : int32 arrays
        Row numbers in the store of what is trained on, and of what the validation loss is computed on.
    num_peaks : int32 array
        Of every row of the store.

    Raises
    ------
    InputError
        The store or the split is unusable, or no spectrum is in the wanted folds.
    """

    def __init__(self, config: DataConfig, cache: Path) -> None:
        store = Store(config.store)
        self.store_manifest = store.manifest
        self.split = Split.load(config.split) if config.split else None
        self._mapped = MappedStore(store, cache)
        self.num_peaks = self._mapped.numbers("num_peaks")
        if self.split is None:
            self.rows, self.validation_rows = np.arange(len(self._mapped), dtype=np.int32), np.empty(0, np.int32)
        else:
            fold = _folds(self.split, store, self._mapped.texts("inchikey"))
            self.rows = np.flatnonzero(np.isin(fold, [FOLDS.index(name) for name in config.folds])).astype(np.int32)
            validation = np.flatnonzero(fold == FOLDS.index("validation")).astype(np.int32)
            keep = np.linspace(0, len(validation) - 1, min(config.validation_spectra, len(validation))).astype(np.int64)
            self.validation_rows = validation[keep]
        if not len(self.rows):
            raise InputError(f"{config.store}: no spectrum is in fold {', '.join(config.folds)} of {config.split}")

    @cached_property
    def precursor_mz(self) -> np.ndarray:
        """Precursor m/z of every row of the store, Da."""
        return self._mapped.numbers("precursor_mz")

    @cached_property
    def polarity(self) -> np.ndarray:
        """+1, -1 or 0 (unknown) of every row of the store."""
        return self._mapped.numbers("polarity")

    @property
    def inchikey(self) -> np.ndarray:
        """InChIKey of every row of the store, an object array of str or None; made anew each time."""
        return self._mapped.texts("inchikey").of(slice(None))

    @property
    def smiles(self) -> np.ndarray:
        """SMILES of every row of the store, an object array of str or None; made anew each time."""
        return self._mapped.texts("smiles").of(slice(None))

    def num_molecules(self, rows: np.ndarray) -> int:
        """Return how many molecules (first InChIKey blocks) the spectra at ``rows`` are of."""
        texts = self._mapped.texts("inchikey")
        seen = np.zeros(len(texts.vocabulary), bool)  # its last entry is for rows without one
        seen[texts.codes[rows]] = True
        return len({key[:14] for key in texts.vocabulary[seen].tolist() if key})

    def columns(self, rows: np.ndarray) -> SpectrumColumns:
        """Read the spectra at ``rows``, in that order."""
        return self._mapped.columns(rows)


def _folds(split: Split, store: Store, inchikeys: Texts) -> np.ndarray:
    """Return the fold of every row of a store as its place in `FOLDS` (-1 for what is excluded), int8."""
    place = {name: number for number, name in enumerate(FOLDS)}

    def numbers(names: np.ndarray) -> np.ndarray:
        return np.array([place.get(name, -1) for name in names.tolist()], np.int8)

    if split.unit == "molecule":
        return numbers(split.fold_of(inchikeys.vocabulary.tolist()))[inchikeys.codes]
    blocks = store.blocks(Split.TABLE_COLUMNS, range(len(store)), ROWS_AT_ONCE)
    return np.concatenate([numbers(split.fold_of_rows(table)) for table in blocks])


def epoch_batches(
    rows: np.ndarray,
    num_tokens: np.ndarray,
    batch_tokens: int,
    seed: int,
    epoch: int,
    lengths: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return the batches of one epoch: every row once, in an order that (seed, epoch) alone decides.

    Each batch holds spectra of about one length, so that little of it is padding, whatever the number of processes.

    Parameters
    ----------
    rows : int array of shape (n,)
    num_tokens : int array
        Tokens of every row of the store (indexed by row number).
    batch_tokens : int
        Most tokens of one batch over all processes, the few of padding counted.
    lengths : int array, optional
        The lengths to which a compiled model's spectra are padded, ascending (`ionbed.encoder.batching.even_lengths`):
        a batch then holds the spectra of one length, as many as ``batch_tokens`` allows.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(rows)
    cut = _pooled_batches(shuffled, num_tokens, batch_tokens) if lengths is None else _batches_of_lengths(
        shuffled, num_tokens, batch_tokens, lengths)  # fmt: skip
    return [cut[i] for i in generator.permutation(len(cut))]


def _pooled_batches(shuffled: np.ndarray, num_tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Return batches of equal numbers of tokens within each pool of `POOL_BATCHES`."""
    batch_tokens = max(1, int(batch_tokens * (1 - MOST_PADDING)))
    pool_tokens = POOL_BATCHES * batch_tokens
    pools = _pool_starts(shuffled, num_tokens, pool_tokens)
    if len(pools) > 1 and num_tokens[shuffled[pools[-1] :]].sum(dtype=np.int64) < pool_tokens // 2:
        pools.pop()  # of few batches the last would be of any size
    batches = []
    for pool in np.split(shuffled, pools[1:]):
        tokens = num_tokens[pool].astype(np.int64)
        order = np.argsort(-tokens, kind="stable")
        before = np.cumsum(tokens[order]) - tokens[order]
        number = min(len(pool), max(1, -(-int(tokens.sum()) // batch_tokens)))
        batch = before * number // max(1, int(tokens.sum()))
        batches += np.split(pool[order], np.flatnonzero(np.diff(batch)) + 1)
    return [batch for batch in batches if len(batch)]


def _pool_starts(shuffled: np.ndarray, num_tokens: np.ndarray, pool_tokens: int) -> list[int]:
    """Return where a new pool of about so many tokens begins, block by block: the sums of all rows take memory."""
    starts, tokens = [0], 0
    for block in range(0, len(shuffled), _BLOCK):
        upto = tokens + np.cumsum(num_tokens[shuffled[block : block + _BLOCK]], dtype=np.int64)
        full = np.arange(tokens // pool_tokens + 1, int(upto[-1]) // pool_tokens + 1) * pool_tokens
        starts += (block + np.searchsorted(upto, full, side="right")).tolist()
        tokens = int(upto[-1])
    return sorted({start for start in starts if start < max(1, len(shuffled))})


def _batches_of_lengths(
    shuffled: np.ndarray, num_tokens: np.ndarray, batch_tokens: int, lengths: np.ndarray
) -> list[np.ndarray]:
    """Return batches of spectra that are padded to one length, and last those with what is left of each length."""
    place = np.searchsorted(lengths, num_tokens[shuffled]).astype(np.int8)
    batches, rest = [], []
    for number, length in enumerate(lengths.tolist()):
        own, size = shuffled[place == number], max(1, batch_tokens // length)
        whole = len(own) // size * size
        batches += np.split(own[:whole], range(size, whole, size)) if whole else []
        rest.append(own[whole:])
    left = np.concatenate(rest[::-1])
    padded = lengths[np.searchsorted(lengths, num_tokens[left])]
    batches += [left[part] for part in token_budget_batches(padded, batch_tokens, even=False)]
    if len(batches) > 1 and num_tokens[batches[-1]].sum() < batch_tokens // 4:  # no tiny batch with a full-sized step
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
