"""Training spectra: the store as a memory-mapped Arrow data set, and the order in which its rows are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from ..encoder.batching import MOST_PADDING, token_budget_batches
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.split import Split
from ..spectra.store import Store
from .config import DataConfig

POOL_BATCHES = 32
"""Batches whose rows are sorted by length together: many enough for little padding, few enough for mixed batches."""

_BLOCK = 1 << 20


class TrainingSpectra:
    """Rows of a prepared store, in some folds, read on demand from memory-mapped Arrow files.

    Parameters
    ----------
    config : DataConfig
    cache : Path
        Folder for the Arrow files that `datasets` makes of the Parquet shards; made once.

    Raises
    ------
    InputError
        The store or the split is unusable, or no spectrum is in the wanted folds.
    """

    def __init__(self, config: DataConfig, cache: Path) -> None:
        from datasets import Dataset, disable_progress_bars

        store = Store(config.store)
        self.store_manifest = store.manifest
        self.split = Split.load(config.split) if config.split else None
        columns = [*Split.TABLE_COLUMNS, "smiles", *SpectrumColumns.TABLE_COLUMNS]
        disable_progress_bars()
        if not cache.exists():  # what was converted once is not read from the shards again
            store.verify()
        self.dataset = Dataset.from_parquet(
            [str(path) for path in store.shards], cache_dir=str(cache), columns=columns
        ).with_format("arrow")
        table = self.dataset.data
        self.num_peaks = pc.list_value_length(table["mz"]).to_numpy().astype(np.int64)
        self.precursor_mz = table["precursor_mz"].to_numpy()
        self.polarity = table["polarity"].fill_null(0).to_numpy().astype(np.int8)
        self.inchikey = np.array(table["inchikey"].to_pylist(), object)
        self.smiles = np.array(table["smiles"].to_pylist(), object)
        if self.split is None:
            self.rows, self.validation_rows = np.arange(len(self.num_peaks)), np.empty(0, np.int64)
        else:
            self.rows = self.split.rows_in(table, config.folds)
            validation = self.split.rows_in(table, ["validation"])
            keep = np.linspace(0, len(validation) - 1, min(config.validation_spectra, len(validation))).astype(np.int64)
            self.validation_rows = validation[keep]
        if not len(self.rows):
            raise InputError(f"{config.store}: no spectrum is in fold {', '.join(config.folds)} of {config.split}")

    def columns(self, rows: np.ndarray) -> SpectrumColumns:
        """Read the spectra at ``rows``, in that order."""
        return SpectrumColumns.from_table(self.dataset[rows])


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
    pools = _pool_starts(shuffled, num_tokens, POOL_BATCHES * batch_tokens)
    if len(pools) > 1 and num_tokens[shuffled[pools[-1] :]].sum(dtype=np.int64) < batch_tokens:
        pools.pop()  # what is left over is no pool: its only batch would be of any size
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
    return batches + [left[part] for part in token_budget_batches(padded, batch_tokens, even=False)]
