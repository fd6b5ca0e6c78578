"""Groups of spectra of one run, which the objectives beside masked peaks compare with each other.

A group is whole in one micro-batch of one process, and follows from the seed, the epoch and the batch that it belongs
to: neither the number of processes nor the size of a micro-batch changes what is compared with what.

Shape suffix: N spectra of a micro-batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from ..artifacts import sha256_of_file
from ..encoder.batching import ENOUGH_TOKENS, SHORTEST_SHARE
from ..encoder.collator import EncoderBatch, collate
from ..encoder.configuration_ionbed import IonbedConfig
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.pairs import PAIRS_FILE, RUNS_FILE, read_runs
from ..spectra.store import Store
from .augmentation import augment, jitter_intensities, without_precursor
from .config import AugmentationConfig, MaskingConfig, ObjectivesConfig
from .masking import hide_metadata

POOL_GROUPS = 4
"""A group is cut from so many times its spectra, ordered by length: lengths alone tell little apart, and little is
padded."""


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """N spectra in groups, and how they are related; the base of the batches of each objective."""

    spectra: EncoderBatch

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.spectra)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""
        return self.spectra.num_tokens

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each spectrum without padding."""
        return self.spectra.lengths

    def to(self, device: torch.device | str) -> Self:
        """Return the batch on ``device``."""
        return self._mapped(lambda part: part.to(device, non_blocking=True), self.spectra.to(device))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return self._mapped(torch.Tensor.pin_memory, self.spectra.pin_memory())

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], spectra: EncoderBatch) -> Self:
        relations: dict[str, Any] = {f.name: change(getattr(self, f.name)) for f in fields(self) if f.name != "spectra"}
        return replace(self, spectra=spectra, **relations)


@dataclass(frozen=True, eq=False)
class StoreRuns:
    """The runs of a store whose spectra may be compared.

    Attributes
    ----------
    table : pyarrow.Table of `ionbed.spectra.pairs.RUNS_SCHEMA`
    held_out : bool array of shape (n_runs,)
        Runs for validation alone.
    allowed : bool array, one value for each row of the store
        Whether the row is in a fold to train on.
    retention_time : float32 array, one value for each row of the store
        In s, NaN where unknown.
    precursor_mz : float64 array, one value for each row of the store
    num_tokens : int array, one value for each row of the store
    """

    table: pa.Table
    held_out: np.ndarray
    allowed: np.ndarray
    retention_time: np.ndarray
    precursor_mz: np.ndarray
    num_tokens: np.ndarray

    @classmethod
    def read(
        cls,
        store: Path,
        manifest: Mapping[str, Any],
        rows: np.ndarray,
        precursor_mz: np.ndarray,
        num_tokens: np.ndarray,
        validation_share: float,
    ) -> StoreRuns:
        """Read the runs of a store with its manifest; ``rows`` are those of the folds to train on.

        Runs are held out by the hash of their file's name, whatever the seed: what two trainings are judged by is the
        same.

        Raises
        ------
        InputError
            The store has no runs, or they are damaged.
        """
        check_unchanged(store, "runs", manifest)
        table = read_runs(store)
        allowed = np.zeros(len(precursor_mz), bool)
        allowed[rows] = True
        names = table["source_file"].to_pylist()
        order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names], kind="stable")
        held_out = np.zeros(len(names), bool)
        held_out[order[: min(round(validation_share * len(names)), len(names) - 1)]] = True
        times = Store(store).table(["retention_time"])["retention_time"]
        return cls(
            table=table,
            held_out=held_out,
            allowed=allowed,
            retention_time=times.fill_null(float("nan")).to_numpy().astype(np.float32, copy=False),
            precursor_mz=precursor_mz,
            num_tokens=num_tokens,
        )

    @property
    def first_row(self) -> np.ndarray:
        """First row of each run."""
        first: np.ndarray = self.table["first_row"].to_numpy()
        return first

    @property
    def num_rows(self) -> np.ndarray:
        """Number of rows of each run."""
        count: np.ndarray = self.table["num_rows"].to_numpy()
        return count

    def rows_held_out(self) -> np.ndarray:
        """Return whether each row of the store is of a run for validation, a bool array."""
        result = np.zeros(len(self.allowed), bool)
        for first, count in zip(self.first_row[self.held_out], self.num_rows[self.held_out], strict=True):
            result[first : first + count] = True
        return result


def check_unchanged(store: Path, kind: str, manifest: Mapping[str, Any]) -> None:
    """Raise `InputError` if a store's file of ``kind`` 'runs' or 'pairs' is there, but not as the manifest says."""
    path = store / {"runs": RUNS_FILE, "pairs": PAIRS_FILE}[kind]
    if not path.is_file():
        return  # its reader says how to mend that
    entry = manifest.get("pairs", {}).get(kind)
    if entry is None or sha256_of_file(path) != entry["sha256"]:
        raise InputError(f"{path}: is not the file that the manifest describes; run 'ionbed prepare' again")


def similar_lengths(rng: np.random.Generator, length: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of ``count`` of the items, neighbours in the order of ``length``."""
    order = np.argsort(length, kind="stable")
    start = rng.integers(0, max(1, len(order) - count + 1))
    return order[start : start + count]


def group_rng(seed: int, epoch: int, stream: int, batch: np.ndarray, group: int) -> np.random.Generator:
    """Return the random numbers of one group of a batch; no two batches of an epoch share their lowest row."""
    return np.random.default_rng([seed, epoch, stream, int(batch.min()), group])


def pack_groups(
    groups: Sequence[np.ndarray], num_tokens: np.ndarray, most_spectra: Callable[[int], int]
) -> list[list[np.ndarray]]:
    """Put whole groups into micro-batches, those of longest spectra first.

    ``most_spectra`` says how many spectra a micro-batch may hold whose longest has so many tokens; a group of more
    gets one of its own. One with enough tokens is closed where spectra get shorter, so that little is padded.
    """
    longest = [int(num_tokens[group].max()) for group in groups]
    packed: list[list[np.ndarray]] = []
    width = most = size = 0
    for place in sorted(range(len(groups)), key=lambda g: -longest[g]):
        shorter = longest[place] < SHORTEST_SHARE * width and size * width >= ENOUGH_TOKENS
        if not packed or shorter or size + len(groups[place]) > most:
            packed.append([])
            width, most, size = longest[place], most_spectra(longest[place]), 0
        packed[-1].append(groups[place])
        size += len(groups[place])
    return packed


def collate_group(
    columns: SpectrumColumns,
    draws: np.ndarray,
    encoder: IonbedConfig,
    objectives: ObjectivesConfig,
    masking: MaskingConfig,
    seed: int,
    epoch: int,
    *,
    intensity_jitter: float = 0.0,
) -> EncoderBatch:
    """Collate spectra that are to be compared.

    Some lose their precursor, m/z and surviving peak alike: it is a shortcut that tells most of them apart. Peaks and
    metadata are dropped too, by a hash of seed, epoch and ``draws``, the row of a spectrum or what stands for it.
    """
    change = AugmentationConfig(objectives.hide_precursor, objectives.drop_peaks, mz_jitter_ppm=0.0)
    changed = augment(columns, draws, change, seed, epoch)
    if intensity_jitter:
        changed = jitter_intensities(changed, draws, intensity_jitter, seed, epoch)
    batch = collate(changed, encoder)
    hidden = torch.zeros_like(batch.mask_BL)
    hidden[:, 0] = torch.from_numpy(without_precursor(draws, change, seed, epoch))
    # No intensity is hidden, but what the encoder puts in place of one stays part of the graph.
    batch = replace(batch, hidden_mz_BL=hidden, hidden_intensity_BL=torch.zeros_like(hidden))
    return hide_metadata(batch, draws, masking.metadata_dropout, seed, epoch)
