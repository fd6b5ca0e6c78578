"""A store as a memory-mapped Arrow data set of `datasets`: made once, shared by all processes of a run.

Parquet is for keeping: to read one row, a whole row group is decompressed. Here the same columns lie uncompressed in
Arrow files, and rows are gathered from the mapped buffers by a few NumPy operations, whatever their number; the
operating system keeps one copy of the pages for all processes of a node.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_file, atomic_folder, sha256_of_json
from ..errors import InputError
from ..progress import progress
from ..spectra.columns import SpectrumColumns, text_codes
from ..spectra.store import Store

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 2
"""Of the files; another version is another folder."""

INDEX = "index.json"
"""Written last, in a folder that is moved into place afterwards: the rows of each Arrow file, and those of a block."""

NUMBERS = {"precursor_mz": "<f8", "polarity": "<i1", "charge": "<i1", "collision_energy": "<f4"}
PEAKS = ("mz", "intensity")
TEXTS = ("adduct", "instrument_type", "inchikey", "smiles")
"""Columns of text lie there as int32 numbers (-1 where there is none) into the texts of `TEXTS_FILE`."""
CONDITIONS = ("adduct", "instrument_type")
"""Those of `TEXTS` that the encoder takes; the others are read whole, once (see `MappedStore.texts`)."""

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.list_(pa.float32()), nullable=False) for name in PEAKS),
        *(pa.field(name, pa.from_numpy_dtype(np.dtype(kind)), nullable=False) for name, kind in NUMBERS.items()),
        *(pa.field(name, pa.int32(), nullable=False) for name in TEXTS),
    ]
)

ROWS_AT_ONCE = 65_536
"""Rows of a record batch; every one but the last has so many, so that a row's place follows from its number."""
BATCHES_PER_FILE = 64

ARROW_FILE, TEXTS_FILE = "spectra-{:05d}.arrow", "texts-{:05d}.json"
"""The texts of a file are those that no earlier one has."""


@dataclass(frozen=True, eq=False)
class Texts:
    """A column of text: the number of each row's text (int32, -1 where there is none), and the texts with None last."""

    codes: np.ndarray
    vocabulary: np.ndarray

    def of(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the texts of ``rows``, an object array of str or None."""
        found: np.ndarray = self.vocabulary[self.codes[rows]]
        return found


class MappedStore:
    """The mapped columns of a store.

    Parameters
    ----------
    store : Store
    cache : Path
        Folder for the files, in one folder for each content of a store. They are made if they are not there; a process
        that is killed meanwhile leaves what the next goes on from.

    Attributes
    ----------
    datasets : list of datasets.Dataset
        The Arrow files, mapped.

    Raises
    ------
    InputError
        A shard is damaged, or the files cannot be written or read.
    """

    def __init__(self, store: Store, cache: Path) -> None:
        from datasets import Dataset

        folder = cache / content_key(store)
        try:
            if not (folder / INDEX).is_file():  # what was converted once is not read from the shards again
                store.verify()
                _convert(store, folder)
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.datasets = [Dataset.from_file(str(folder / ARROW_FILE.format(n))) for n in range(len(index["rows"]))]
            self._files = [_MappedFile(dataset, index["batch"]) for dataset in self.datasets]
            if [len(file) for file in self._files] != index["rows"]:
                raise ValueError(f"its Arrow files do not have the rows that {INDEX} names")
            self._starts = np.cumsum([0, *index["rows"]])
            self._vocabulary = {name: np.array([*words, None], object) for name, words in _all_texts(folder).items()}
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none: the file is damaged
                raise InputError(
                    f"{folder}: cannot be written or read ({error.strerror}); see to its permissions and the room on "
                    "its disk"
                ) from None
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{folder}: is damaged ({reason}); remove it, it is made again") from None

    def __len__(self) -> int:
        """Return the number of spectra."""
        return int(self._starts[-1])

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of `NUMBERS`, or ``num_peaks`` (int32), of every row; a copy if there are several batches."""
        parts = [part for file in self._files for part in file.column(name)]
        return (
            parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, parts[0].dtype if parts else "<i4")])
        )

    def texts(self, name: str) -> Texts:
        """Return one of the columns `TEXTS`."""
        return Texts(self.numbers(name), self._vocabulary[name])

    def columns(self, rows: np.ndarray) -> SpectrumColumns:
        """Read the spectra at ``rows``, in that order."""
        rows = np.asarray(rows, np.int64)
        if len(self._files) == 1:
            return self._columns(self._files[0].gathered(rows))
        file_of = np.searchsorted(self._starts, rows, "right") - 1
        order = np.argsort(file_of, kind="stable")
        found = [
            file.gathered(rows[order[file_of[order] == number]] - self._starts[number])
            for number, file in enumerate(self._files)
        ]
        joined = {name: np.concatenate([part[name] for part in found]) for name in (*NUMBERS, *CONDITIONS, *PEAKS)}
        counts = np.concatenate([np.diff(part["offsets"]) for part in found])
        joined["offsets"] = np.concatenate([[0], np.cumsum(counts)])
        return self._columns(joined).take(np.argsort(order))

    def _columns(self, found: dict[str, np.ndarray]) -> SpectrumColumns:
        texts = {name: self._vocabulary[name][found[name]] for name in CONDITIONS}
        numbers = {name: found[name] for name in NUMBERS}
        return SpectrumColumns(offsets=found["offsets"], mz=found["mz"], intensity=found["intensity"],
                               **numbers, **texts)  # fmt: skip


class _MappedFile:
    """One Arrow file, as flat memory and the places of each column's values in it.

    A row's values lie in the buffers of its record batch. All buffers lie in one mapped file: with the place of each
    buffer counted from the first one, a value is found by its row alone, and many rows in one NumPy operation.
    """

    def __init__(self, dataset: Dataset, rows_per_batch: int) -> None:
        table: pa.Table = dataset.data.table
        if (table.schema.names, table.schema.types) != (SCHEMA.names, SCHEMA.types):
            raise ValueError("its Arrow files do not have the columns they should")
        self._rows, self._rows_per_batch = len(table), rows_per_batch
        batches = table.to_batches()
        if [len(batch) for batch in batches[:-1]] != [rows_per_batch] * (len(batches) - 1):
            raise ValueError("its Arrow files have batches of other sizes than they should")
        buffers = {name: [_buffers(batch.column(name)) for batch in batches] for name in SCHEMA.names}
        every = [buffer for column in buffers.values() for pair in column for buffer in pair.values()]
        start = min((buffer.address for buffer in every), default=0)
        stop = max((buffer.address + buffer.size for buffer in every), default=0)
        # The memory between the first and the last buffer, which the table keeps mapped.
        memory = pa.foreign_buffer(start, stop - start, base=table) if every else pa.py_buffer(b"")
        self._flat = {kind: np.frombuffer(memory, kind, len(memory) // np.dtype(kind).itemsize) for kind in _KINDS}
        self._places = {
            (name, part): np.array([(pair[part].address - start) // np.dtype(kind).itemsize for pair in buffers[name]])
            for name in SCHEMA.names
            for part, kind in _parts(name).items()
        }
        self._lengths = [len(batch) for batch in batches]

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> Iterator[np.ndarray]:
        """Yield a column's values, or ``num_peaks``, of each batch: mapped where they lie there as such."""
        source, part = ("mz", "offsets") if name == "num_peaks" else (name, "values")
        flat = self._flat[_parts(source)[part]]
        for place, length in zip(self._places[source, part], self._lengths, strict=True):
            values = flat[place : place + length + (name == "num_peaks")]
            yield np.diff(values) if name == "num_peaks" else values

    def gathered(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of each column that a batch has at ``rows``; peaks flat, with their ``offsets``."""
        batch, row = np.divmod(rows, self._rows_per_batch)
        found = {
            name: self._flat[_parts(name)["values"]][self._places[name, "values"][batch] + row]
            for name in (*NUMBERS, *CONDITIONS)
        }
        # A spectrum has as many intensities as m/z: the offsets of one are those of the other, in its own buffer.
        places = self._places["mz", "offsets"][batch] + row
        starts = self._flat["<i4"][places].astype(np.int64)
        counts = self._flat["<i4"][places + 1] - starts
        found["offsets"] = offsets = np.concatenate([[0], np.cumsum(counts)])
        within_batch = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        for name in PEAKS:
            found[name] = self._flat["<f4"][within_batch + np.repeat(self._places[name, "values"][batch], counts)]
        return found


_KINDS = ("<f8", "<f4", "<i4", "<i1")


def _parts(name: str) -> dict[str, str]:
    """Return the type of each buffer of a column."""
    if name in PEAKS:
        return {"offsets": "<i4", "values": "<f4"}
    return {"values": NUMBERS.get(name, "<i4")}


def _buffers(array: pa.Array) -> dict[str, pa.Buffer]:
    """Return the buffers of a column of one record batch."""
    if array.null_count or array.offset:
        raise ValueError("its Arrow files have unknown values where there should be none")
    if pa.types.is_list(array.type):
        _, offsets, _, values = array.buffers()
        return {"offsets": offsets, "values": values}
    return {"values": array.buffers()[1]}


def content_key(store: Store) -> str:
    """Return the name of the folder for a store of this content: the same for every copy of it."""
    shards = [(shard.get("sha256"), shard["spectra"]) for shard in store.manifest["shards"]]
    return sha256_of_json({"version": VERSION, "shards": shards})[:16]


def _convert(store: Store, folder: Path) -> None:
    """Write the Arrow files of a store; those that a killed conversion has written whole are kept."""
    rows_per_file = ROWS_AT_ONCE * BATCHES_PER_FILE
    count = -(-len(store) // rows_per_file)
    parts = [range(n * rows_per_file, min(len(store), (n + 1) * rows_per_file)) for n in range(count)]
    with atomic_folder(folder, overwrite=True, resume_key=folder.name) as partial:
        # A file's texts are written after its rows: where they are, the rows are whole.
        done = next((n for n in range(count) if not (partial / TEXTS_FILE.format(n)).is_file()), count)
        known = {name: {text: n for n, text in enumerate(texts)} for name, texts in _all_texts(partial).items()}
        with progress("read the store", len(store), done=sum(map(len, parts[:done]))) as advance:
            for number in range(done, count):
                before = {name: len(texts) for name, texts in known.items()}
                with atomic_file(partial / ARROW_FILE.format(number)) as path:
                    _write_arrow(store, parts[number], path, known, advance)
                new = {name: list(texts)[before[name] :] for name, texts in known.items()}
                with atomic_file(partial / TEXTS_FILE.format(number)) as path:
                    path.write_text(json.dumps(new), encoding="utf-8")
        index = {"rows": [*map(len, parts)], "batch": ROWS_AT_ONCE}
        (partial / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _write_arrow(store: Store, rows: range, path: Path, known: dict[str, dict[str, int]], advance: Any) -> None:
    from datasets.arrow_writer import ArrowWriter

    wanted = (*SpectrumColumns.TABLE_COLUMNS, "inchikey", "smiles")
    with open(path, "wb") as stream:
        writer = ArrowWriter(schema=SCHEMA, stream=pa.PythonFile(stream), writer_batch_size=ROWS_AT_ONCE)
        for table in store.blocks(wanted, rows, ROWS_AT_ONCE):
            columns = SpectrumColumns.from_table(table)
            offsets = pa.array(columns.offsets, pa.int32())
            peaks = [pa.ListArray.from_arrays(offsets, pa.array(getattr(columns, name))) for name in PEAKS]
            numbers = [pa.array(np.ascontiguousarray(getattr(columns, n), kind)) for n, kind in NUMBERS.items()]
            texts = [pa.array(_coded(table[name], known[name])) for name in TEXTS]
            writer.write_table(pa.table([*peaks, *numbers, *texts], schema=SCHEMA), ROWS_AT_ONCE)
            advance(len(table))
        writer.finalize(close_stream=False)
        stream.flush()
        os.fsync(stream.fileno())


def _all_texts(folder: Path) -> dict[str, list[str]]:
    """Return the texts of each column, of as many files as are there."""
    found: dict[str, list[str]] = {name: [] for name in TEXTS}
    number = 0
    while (path := folder / TEXTS_FILE.format(number)).is_file():
        for name, texts in json.loads(path.read_text(encoding="utf-8")).items():
            found[name] += texts
        number += 1
    return found


def _coded(column: Any, known: dict[str, int]) -> np.ndarray:
    """Return the number of each row's text; texts that are new are added to ``known``."""
    codes, texts = text_codes(column)
    words = texts[:-1].tolist()
    for word in words:
        known.setdefault(word, len(known))
    return np.array([*map(known.__getitem__, words), -1], "<i4")[codes]
