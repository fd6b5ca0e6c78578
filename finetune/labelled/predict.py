"""``ionbed predict``: what a trained model says of every spectrum of an input, as a table."""

from __future__ import annotations

import csv
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...artifacts import atomic_file, refuse_input_as_output
from ...errors import InputError
from ...pretrain.processes import process_state
from ...progress import progress
from ...spectra.deduplication import UniqueNames
from ...spectra.readers import read
from ...spectra.spectrum import Spectrum
from .model import LabelledModel, Predictions, load_labelled_model, move_to_device

logger = logging.getLogger("ionbed")

SPECTRA_AT_ONCE = 4096
PROBABILITY = "p: "
"""Before a class or label in the names of columns with probabilities."""


def predict(model: str | os.PathLike[str], input: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Predict the labels of every spectrum and write a table, whole or not at all.

    Columns: ``spectrum_id``; of a classification ``predicted``, ``probability`` and a probability for each class; of
    yes/no labels a probability for each; of numbers each one's value, with ``NAME low`` and ``NAME high`` where the
    validation fold was large enough for a range.

    Parameters
    ----------
    model : path
        Model folder of a run of ``ionbed finetune`` with a task.
    input : path
        Anything that `ionbed.read` reads.
    out : path
        A ``.tsv`` or a ``.parquet`` file.

    Returns
    -------
    int
        Number of spectra.

    Raises
    ------
    InputError
        The model has no head, the input holds no usable spectrum, or ``out`` cannot be written or is of another kind.
    """
    out = Path(out)
    if out.suffix.lower() not in (".tsv", ".parquet"):
        raise InputError(f"{out}: name a file that ends in .tsv or .parquet")
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name the file to write the predictions to")
    refuse_input_as_output(out, input, model)
    loaded = load_labelled_model(model)
    move_to_device(loaded, process_state().device)
    spectra = read(input)
    blocks = _predicted(loaded, spectra)
    first = next(blocks, None)
    if first is None:
        raise InputError(f"{input}: has no usable spectrum; 'ionbed prepare' tells why each was dropped")
    tables = itertools.chain([first], blocks)
    count = _write_parquet(out, tables) if out.suffix.lower() == ".parquet" else _write_tsv(out, tables)
    if dropped := spectra.report.dropped:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in dropped.most_common())
        logger.warning("%s: %s of %s records have no prediction: %s", input, f"{dropped.total():,}",
                       f"{spectra.report.read:,}", reasons)  # fmt: skip
    return count


def prediction_table(names: Iterable[str], predictions: Predictions) -> pa.Table:
    """Return predictions as the table that `predict` writes."""
    columns: dict[str, pa.Array] = {"spectrum_id": pa.array(list(names), pa.string())}
    values, labels = predictions.values, predictions.names
    if predictions.task == "regression":
        half_width = predictions.half_width if predictions.half_width is not None else np.full(len(labels), np.inf)
        for k, label in enumerate(labels):
            columns[label] = pa.array(values[:, k], pa.float64())
            if np.isfinite(half_width[k]):
                columns[f"{label} low"] = pa.array(values[:, k] - half_width[k], pa.float64())
                columns[f"{label} high"] = pa.array(values[:, k] + half_width[k], pa.float64())
        return pa.table(columns)
    if (chosen := predictions.chosen) is not None:
        columns["predicted"] = pa.array([labels[k] for k in chosen.tolist()], pa.string())
        columns["probability"] = pa.array(values[np.arange(len(chosen)), chosen], pa.float64())
    columns |= {f"{PROBABILITY}{label}": pa.array(values[:, k], pa.float64()) for k, label in enumerate(labels)}
    return pa.table(columns)


def _predicted(model: LabelledModel, spectra: Iterable[Spectrum]) -> Iterator[pa.Table]:
    names, iterator = UniqueNames(), iter(spectra)
    with progress("predict", None) as advance:
        while block := list(itertools.islice(iterator, SPECTRA_AT_ONCE)):
            yield prediction_table([names.assign(s.spectrum_id) for s in block], model.predict(block))
            advance(len(block))


def _write_parquet(out: Path, tables: Iterable[pa.Table]) -> int:
    count = 0
    writer: pq.ParquetWriter | None = None
    with atomic_file(out) as partial:
        try:
            for table in tables:
                writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
                writer.write_table(table)
                count += len(table)
        finally:
            if writer:
                writer.close()
    return count


def _write_tsv(out: Path, tables: Iterable[pa.Table]) -> int:
    count = 0
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        for table in tables:
            if not count:
                writer.writerow(table.column_names)
            columns = [column.to_pylist() for column in table.columns]
            writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
            count += len(table)
    return count


def _cell(value: str | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
