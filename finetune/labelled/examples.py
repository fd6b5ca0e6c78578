"""The labelled spectra of a store by fold: what heads are trained on, calibrated on and asked about."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...pretrain.data import TrainingSpectra
from ...pretrain.processes import process_state
from ...spectra.store import Store
from ..molecule_share import rows_of_share
from .config import LabelledConfig
from .labels import TABLE_COLUMNS, counted_in_share, describe_counts, read_labels, with_enough
from .losses import vote_weights
from .own_split import make_own_split, molecules_of

logger = logging.getLogger("ionbed")

OWN_SPLIT = "split.json"


class LabelledSpectra(TrainingSpectra):
    """The spectra of a store that have a label, in the folds of the split that is given, or of one that is made.

    Parameters
    ----------
    config : LabelledConfig
    cache : Path
        Folder for the memory-mapped files, and for the split that is made (`OWN_SPLIT`).
    quiet : bool
        Whether not to log what became of labels and spectra.

    Attributes
    ----------
    labels : Labels
    molecule : int64 array of shape (n,)
        Of every row of the store; see `ionbed.finetune.labelled.own_split.molecules_of`.
    spectrum_id : object array of str, of shape (n,)
    train_rows, validation_rows_all, test_rows : int64 arrays
        Rows with a label; of the training fold, those of the share of its molecules that is used.
    mean, spread : float64 arrays of shape (K,)
        Of the numbers of a regression over the training fold; 0 and 1 else.

    Raises
    ------
    InputError
        The store, the split or the labels are unusable, or a fold has no labelled spectrum.
    """

    def __init__(self, config: LabelledConfig, cache: Path, *, quiet: bool = False) -> None:
        says = process_state().is_main_process and not quiet
        table = Store(config.data.store).table(TABLE_COLUMNS)
        labels = read_labels(config.task, config.labels, table)
        path = config.data.split
        if path is None:
            split, kept_apart = make_own_split(table, labels.is_known, config.own_split)
            path = cache / OWN_SPLIT
            if process_state().is_main_process:
                split.save(path)
            if says:
                logger.warning("no split is named (data.split); one is made %s", kept_apart)
        super().__init__(replace(config.data, split=path), cache)
        assert self.split is not None
        fold = self.split.fold_of_rows(table)
        names, self.molecule = molecules_of(table)
        in_fold = np.flatnonzero(fold == "train")
        used = rows_of_share(config.data, in_fold, self.molecule, names.tolist(), quiet=quiet)
        # The questions are those of the whole fold, so that runs with other shares of it are asked the same.
        labels = with_enough(labels, in_fold, self.molecule, config.labels)
        if len(used) < len(in_fold):
            labels = counted_in_share(labels, used)
        if says:
            for line in describe_counts(labels):
                logger.info("%s", line)
        self.labels = labels
        self.spectrum_id = np.array(table["spectrum_id"].to_pylist(), object)
        known = labels.is_known
        self.train_rows, self.validation_rows_all, self.test_rows = (
            rows[known[rows]] for rows in (used, *(np.flatnonzero(fold == name) for name in ("validation", "test")))
        )
        for name, rows in (("train", self.train_rows), ("validation", self.validation_rows_all)):
            if not len(rows):
                raise InputError(
                    f"no labelled spectrum is in the fold '{name}' of the split; use another split, or more labels"
                )
        self._most = config.data.validation_spectra
        self._votes = config.head.votes
        outputs = labels.num_outputs
        self.mean, self.spread = np.zeros(outputs), np.ones(outputs)
        if config.task == "regression":
            values, weight = labels.values[self.train_rows].astype(np.float64), self.weight[self.train_rows, None]
            total = np.where(np.isnan(values), 0.0, weight).sum(axis=0)
            self.mean = np.nansum(values * weight, axis=0) / total
            self.spread = np.sqrt(np.nansum(np.square(values - self.mean) * weight, axis=0) / total)

    @property
    def few_validation_rows(self) -> np.ndarray:
        """Labelled rows of the validation fold, at most ``data.validation_spectra``, for the loss in training."""
        rows = self.validation_rows_all
        most = max(1, min(self._most, len(rows)))
        few: np.ndarray = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        return few

    @property
    def scaled_values(self) -> np.ndarray:
        """What heads are trained on: the labels, numbers scaled to unit variance; float32 of shape (n, T)."""
        values = self.labels.values
        if self.labels.task != "regression":
            return values
        return ((values - self.mean) / self.spread).astype(np.float32)

    @cached_property
    def weight(self) -> np.ndarray:
        """Vote of each row in its fold, with a mean of 1 in each; 0 without a label; float32 of shape (n,)."""
        weight = np.zeros(len(self.molecule), np.float32)
        for rows in (self.train_rows, self.validation_rows_all, self.test_rows):
            weight[rows] = vote_weights(self.molecule[rows], self._votes)
        return weight

    def votes(self, rows: np.ndarray) -> np.ndarray:
        """Return the weight of ``rows``, scaled so that they sum to the number of those who vote."""
        voters = len(np.unique(self.molecule[rows])) if self._votes == "molecule" else len(rows)
        weight = vote_weights(self.molecule[rows], self._votes)
        return (weight * (voters / max(1, len(rows)))).astype(np.float32)
