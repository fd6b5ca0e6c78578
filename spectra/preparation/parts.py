"""The first stage of `prepare`: a unit of the input becomes a part, spectra in a file of the scratch folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ..columns import SpectrumColumns
from ..deduplication import measurement_key, stem_of_name
from ..grades import FileStatistics, grade_of_spectrum
from ..harmonise import Dropped, harmonise
from ..label_table import read_record_labels
from ..near_duplicates import bucket_keys, conditions_of
from ..readers import blocks_of_files, parse_block
from ..store import SCHEMA, table_from_spectra
from .units import Unit

if TYPE_CHECKING:
    from ..prepare import PrepareOptions
    from ..readers.blocks import Block, Piece
    from ..record import RawRecord
    from ..spectrum import Spectrum

PART_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("position", pa.int64(), nullable=False),
        pa.field("library", pa.string(), nullable=False),
        pa.field("measurement_key", pa.binary(16), nullable=False),
        pa.field("name_key", pa.binary(16), nullable=False),
        pa.field("buckets", pa.list_(pa.uint64()), nullable=False),
    ]
)
"""A row of the store and what is needed to decide whether it stays.

``library``: what is graded as one file (`library_of`). ``measurement_key``: equal for copies of one measurement.
``name_key``: hashes of the id without ``#2`` at its end and of the whole id. ``buckets``: one key for each table of
`ionbed.spectra.near_duplicates`. ``grade`` is the spectrum's own; the file's comes in later.
"""


SMALLEST_GROUP = 1 << 14
ROWS_PER_GROUP = 1 << 20
PARTS_PER_GROUP = 256
"""A group of parts, which one task takes, has some 32th of all rows, within these bounds."""


@dataclass(frozen=True)
class Parts:
    """The parts of a scratch folder.

    Attributes
    ----------
    folder : Path
    num_rows : tuple of int
        Of each part.
    """

    folder: Path
    num_rows: tuple[int, ...]

    @cached_property
    def offsets(self) -> np.ndarray:
        """Row number of the first row of each part, and the number of all rows: int64 of shape (n_parts + 1,)."""
        return np.concatenate([[0], np.cumsum(self.num_rows)]).astype(np.int64)

    def batches(self, number: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Yield a part some thousand spectra at a time, mapped from its file, each with the number of its first row.

        A part may hold a file of any length; only so much of it is ever made into objects at once.
        """
        first = int(self.offsets[number])
        with pa.memory_map(str(part_path(self.folder, number))) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(i)])
                yield first, table.select(list(columns))
                first += len(table)

    def take(self, number: int, rows: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return the rows (counted over all parts, ascending) of one part.

        They are taken batch by batch: taken from the whole, Arrow would first copy all of it.
        """
        taken = []
        for first, table in self.batches(number, columns):
            start, stop = np.searchsorted(rows, [first, first + len(table)])
            if start < stop:
                taken.append(table.take(pa.array(rows[start:stop] - first)))
        return pa.concat_tables(taken)

    def summary(self, number: int) -> dict[str, Any]:
        """Return what was counted while the part was made."""
        return read_summary(self.folder, number)

    def groups(self) -> list[range]:
        """Return the parts in groups of neighbours that one task can hold."""
        most_rows = min(max(SMALLEST_GROUP, int(self.offsets[-1]) // 32), ROWS_PER_GROUP)
        groups, start, rows = [], 0, 0
        for number, count in enumerate(self.num_rows):
            if number > start and (rows + count > most_rows or number - start >= PARTS_PER_GROUP):
                groups.append(range(start, number))
                start, rows = number, 0
            rows += int(count)
        if start < len(self.num_rows):
            groups.append(range(start, len(self.num_rows)))
        return groups


def part_path(folder: Path, number: int) -> Path:
    """Return where the spectra of a part lie."""
    return folder / f"part-{number:06d}.arrow"


def list_path(folder: Path, number: int) -> Path:
    """Return where the records lie of which a part made no spectrum."""
    return folder / f"part-{number:06d}.tsv"


def _summary_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.json"


def read_summary(folder: Path, number: int) -> dict[str, Any]:
    """Return the summary of a finished part."""
    summary: dict[str, Any] = json.loads(_summary_path(folder, number).read_text(encoding="utf-8"))
    return summary


def is_made(folder: Path, number: int) -> bool:
    """Whether a part is there and whole; its summary is written last and knows how long the other files are."""
    try:
        summary = read_summary(folder, number)
        sizes = [part_path(folder, number).stat().st_size, list_path(folder, number).stat().st_size]
    except (OSError, ValueError):
        return False
    return summary.get("bytes") == sizes


def make_part(unit: Unit, *, folder: Path, options: PrepareOptions) -> int:
    """Read a unit and write its part; return the number of records read.

    The part appears last of all by renaming, so that a killed task leaves nothing that could be taken for one.
    """
    table_file, list_file, summary_file = (path(folder, unit.number) for path in (part_path, list_path, _summary_path))
    libraries: dict[str, FileStatistics] = {}
    skipped: list[str] = []
    labelled: set[tuple[int, str]] = set()
    num_rows = 0
    blocks = iter([unit.block]) if unit.block is not None else blocks_of_files(unit.files, skipped)
    with (
        scratch_file(table_file) as new_table,
        scratch_file(list_file) as new_list,
        pa.OSFile(str(new_table), "wb") as sink,
        pa.ipc.new_file(sink, PART_SCHEMA) as writer,
        open(new_list, "w", encoding="utf-8", errors="replace") as listing,
    ):
        for block in blocks:
            table = _rows_of(block, options, libraries, listing.write, labelled)
            num_rows += len(table)
            writer.write_table(table)
    summary = {
        "bytes": [table_file.stat().st_size, list_file.stat().st_size],
        "rows": num_rows,
        "libraries": [{"name": name, "statistics": seen.to_json()} for name, seen in libraries.items()],
        "skipped": skipped,
        "labelled": sorted(labelled),
    }
    with scratch_file(summary_file) as new_summary, open(new_summary, "w", encoding="utf-8") as stream:
        json.dump(summary, stream)
    return sum(seen.read for seen in libraries.values())


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Yield where to write a file of the scratch folder, and rename it to ``path`` when it is whole.

    Unlike `ionbed.artifacts.atomic_file` this syncs nothing to disk, and any number of tasks, on whatever machines, may
    write one file at once.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.partial")
    yield partial
    os.replace(partial, path)


def library_of(source_file: str, format_name: str) -> str:
    """Return what a file is graded with: itself, or for formats of one record a file the folder that it lies in."""
    if format_name != "MassBank":
        return source_file
    return re.sub(r"[/!][^/!]*$", "", source_file)


def _rows_of(
    block: Block,
    options: PrepareOptions,
    libraries: dict[str, FileStatistics],
    write: Any,
    labelled: set[tuple[int, str]],
) -> pa.Table:
    """Return the table of a block; used rows of the user's table of labels, and in which file, go to ``labelled``."""
    labels = read_record_labels(options.labels) if options.labels is not None else None
    allowed = None if options.licenses is None else {license_key(text) for text in options.licenses}
    spectra: list[Spectrum] = []
    positions, names, grades = [], [], []
    for record in _records_of(block, options, libraries):
        name = library_of(record.source_file, block.format)
        statistics = libraries.get(name)
        if statistics is None:
            statistics = libraries[name] = FileStatistics()
        if labels is not None:
            if record.prepared is not None:
                raise InputError(
                    f"{record.source_file}: is prepared already; labels go with the files that it was made from"
                )
            record, row = labels.laid_over(record)
            if row >= 0:
                labelled.add((row, record.source_file))
        outcome = harmonise(record, options.cleaning, ms_levels=options.ms_levels, metadata=options.metadata)
        if not isinstance(outcome, Dropped) and allowed is not None and license_key(outcome.license) not in allowed:
            outcome = Dropped("license", outcome.license or "no licence given")
        statistics.add(record, outcome)
        if isinstance(outcome, Dropped):
            write(dropped_line(record.source_file, record.position, record.native_id, outcome))
            continue
        spectra.append(outcome)
        positions.append(record.position)
        names.append(name)
        grades.append(grade_of_spectrum(record, outcome, options.grades))
    return _part_table(spectra, positions, names, grades, options)


def _records_of(block: Block, options: PrepareOptions, libraries: dict[str, FileStatistics]) -> Iterator[RawRecord]:
    """Yield the records of a block; what they are compared with ends where the next piece of their file begins.

    Whether one worker reads a file or many depends on what else is in the input; its grade does not.
    """
    groups: list[list[Piece]] = []
    for piece in block.pieces:
        if not groups or piece.position > 1:
            groups.append([])
        groups[-1].append(piece)
    for group in groups:
        first = group[0]
        if first.position > 1 and (seen := libraries.get(library_of(first.source_file, block.format))) is not None:
            seen.forget_precursors()
        yield from parse_block(replace(block, pieces=tuple(group)), ms_levels=options.ms_levels)


def dropped_line(source_file: str, position: int, native_id: str, dropped: Dropped) -> str:
    """Return one line of the list of dropped records."""
    values = (source_file, str(position), native_id, dropped.reason, dropped.detail)
    return "\t".join(re.sub(r"\s+", " ", value) for value in values) + "\n"


def _part_table(
    spectra: list[Spectrum],
    positions: list[int],
    libraries: list[str],
    grades: Sequence[str],
    options: PrepareOptions,
) -> pa.Table:
    table = table_from_spectra(spectra)
    table = table.set_column(SCHEMA.get_field_index("grade"), SCHEMA.field("grade"), pa.array(grades, pa.string()))
    keys = [measurement_key(spectrum) for spectrum in spectra]
    name_keys = [_name_key(spectrum.spectrum_id) for spectrum in spectra]
    more = [positions, libraries, keys, name_keys]
    fields = [PART_SCHEMA.field(len(SCHEMA) + i) for i in range(len(more))]
    columns = [*table.columns, *(pa.array(v, f.type) for v, f in zip(more, fields, strict=True))]
    return pa.table([*columns, _buckets(spectra, options)], schema=PART_SCHEMA)


def _name_key(name: str) -> bytes:
    stem, whole = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in (stem_of_name(name), name)
    )
    return stem + whole


def _buckets(spectra: Sequence[Spectrum], options: PrepareOptions) -> pa.Array:
    if options.near_duplicates.keep is None or not spectra:
        return pa.array([[] for _ in spectra], pa.list_(pa.uint64()))
    columns = SpectrumColumns.from_spectra(spectra)
    keys = bucket_keys(columns, [conditions_of(spectrum) for spectrum in spectra], options.near_duplicates)
    offsets = pa.array(np.arange(len(keys) + 1) * keys.shape[1], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(keys.ravel(), pa.uint64()))


def license_key(text: str | None) -> str:
    """Return what two spellings of one licence share: 'CC BY 4.0', 'cc-by' -> 'cc-by'."""
    key = re.sub(r"[\s_-]+", "-", (text or "").strip().lower())
    return re.sub(r"-\d\.\d$", "", key) if key.startswith("cc") else key
