"""Training spectra: the store as a memory-mapped Arrow data set, and the order in which its rows are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from ..encoder.batching import token_budget_batches
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.split import Split
from ..spectra.store import Store
from .config import DataConfig

POOL_BATCHES = 32
"""Batches whose rows are sorted by length together: many enough for little padding, few enough for mixed batches."""


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
    rows: np.ndarray, num_tokens: np.ndarray, batch_tokens: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return the batches of one epoch: every row once, in an order that (seed, epoch) alone decides.

    Parameters
    ----------
    rows : int array of shape (n,)
    num_tokens : int array
        Tokens of every row of the store (indexed by row number).
    batch_tokens : int
        Tokens of one batch over all processes, padding counted.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(rows)
    tokens = num_tokens[shuffled]
    before = np.cumsum(tokens) - tokens
    pool = before // (POOL_BATCHES * batch_tokens)
    if len(tokens) and pool[-1] > 0 and tokens[pool == pool[-1]].sum() < batch_tokens:
        pool[pool == pool[-1]] -= 1  # what is left over is no pool: its only batch would be of any size
    batches = []
    for part in np.split(shuffled, np.flatnonzero(np.diff(pool)) + 1):
        cut = token_budget_batches(num_tokens[part], batch_tokens, even=False)
        if len(cut) > 1 and num_tokens[part[cut[-1]]].sum() < batch_tokens // 4:  # no tiny batch with a full-sized step
            cut[-2:] = [np.concatenate(cut[-2:])]
        batches += [part[batch] for batch in cut]
    return [batches[i] for i in generator.permutation(len(batches))]
