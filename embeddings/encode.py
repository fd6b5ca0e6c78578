"""``ionbed embed``: the embedding of every spectrum of an input, as Parquet; in parts, which are merged, if wanted."""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import atomic_file, exclusive, refuse_input_as_output, sha256_of_json
from ..errors import InputError
from ..progress import progress
from ..spectra.columns import SpectrumColumns
from ..spectra.deduplication import UniqueNames
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index_folder import Embedder, is_store

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("ionbed")

SPECTRA_AT_ONCE = 8192
"""Spectra held in memory: enough for batches of spectra of equal length. Parts begin at multiples of it, so that a
spectrum has the same batch, and the same bits, however many parts there are."""


@dataclass(frozen=True)
class Part:
    """One of several parts of equal size of a store, ``number`` from 1 to ``of``."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Return the part that ``K/N`` names.

        Raises
        ------
        InputError
            The text is not of that form, or K does not lie between 1 and N.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--part {text}: is not a part; write K/N with K from 1 to N, for example 1/16")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        """Return ``K/N``."""
        return f"{self.number}/{self.of}"

    def rows(self, num_spectra: int) -> range:
        """Return the rows of a store of ``num_spectra`` that are this part, maybe none."""
        blocks = -(-num_spectra // SPECTRA_AT_ONCE)
        first, stop = (blocks * number // self.of * SPECTRA_AT_ONCE for number in (self.number - 1, self.number))
        return range(min(first, num_spectra), min(stop, num_spectra))

    def path(self, out: str | os.PathLike[str]) -> Path:
        """Return the file of this part beside the table ``out``."""
        return _parts_folder(out) / f"{self.number:05d}-of-{self.of:05d}.parquet"


def embed_file(input: str | os.PathLike[str], out: str | os.PathLike[str], model: Embedder) -> int:
    """Embed every spectrum of a store or a file and write the embeddings, whole or not at all.

    The table has the columns ``spectrum_id`` (string) and ``embedding`` (fixed-size list of float32, of unit length),
    in the order of the input; its metadata holds ``model_hash``, and ``store_hash`` where the input is a store. Ids
    that a file uses twice get ``#2``, ``#3``...

    Parameters
    ----------
    input : path
        A prepared store, or anything that `ionbed.read` reads.
    out : path
        The Parquet file.
    model : IonbedModel

    Returns
    -------
    int
        Number of spectra.

    Raises
    ------
    InputError
        The input cannot be read or holds no usable spectrum, or ``out`` is a folder or would replace the input.
    """
    from ..spectra.readers import read

    _refuse_output(out, input)
    store = Store(input) if is_store(input) else None
    if store is not None:
        total, metadata = len(store), _identity(store, model)
        tables = _embed_store(store, range(len(store)), model)
    else:
        total, metadata = None, {"model_hash": model.model_hash()}
        tables = _embed_spectra(read(input), model)
    if (first := next(tables, None)) is None:
        raise InputError(f"{input}: has no usable spectrum to embed; 'ionbed prepare' tells why each was dropped")
    return _write(out, itertools.chain([first], tables), total, metadata)


def embed_part(input: str | os.PathLike[str], out: str | os.PathLike[str], model: Embedder, part: Part) -> int:
    """Embed one part of a store, for `merge_parts`, and write it into the folder ``OUT.parts``.

    A part that is there already, of the same model and store, is kept.

    Parameters
    ----------
    input : path
        A prepared store.
    out : path
        The Parquet file that the merged parts will be.
    model : IonbedModel
    part : Part

    Returns
    -------
    int
        Number of spectra of the part.

    Raises
    ------
    InputError
        The input is no prepared store, or ``out`` is a folder or would replace the input.
    """
    store = _open_store(input)
    _refuse_output(out, input)
    rows, path = part.rows(len(store)), part.path(out)
    metadata = _identity(store, model) | _rows_entry(rows)
    if path.exists() and _difference(path, metadata) is None:
        logger.info("%s: is there already", path)
        return len(rows)
    tables = _embed_store(store, rows, model) if rows else [pa.table({"spectrum_id": pa.array([], pa.string())})]
    return _write(path, tables, len(rows), metadata)


def merge_parts(input: str | os.PathLike[str], out: str | os.PathLike[str], model: Embedder) -> int:
    """Merge the parts that `embed_part` wrote into one table, the same as that of `embed_file`, and delete them.

    Where that was done before, nothing is done.

    Parameters
    ----------
    input, out, model
        As given to `embed_part`.

    Returns
    -------
    int
        Number of spectra.

    Raises
    ------
    InputError
        A part is missing, damaged, of another model or another store, or there are parts of two kinds.
    """
    store = _open_store(input)
    _refuse_output(out, input)
    folder, identity = _parts_folder(out), _identity(store, model)
    if not folder.exists() and os.path.exists(out) and _difference(Path(out), identity) is None:
        logger.info("%s: is merged already", out)
        return len(store)
    with exclusive(folder):
        parts = _find_parts(out)
        for part in parts:
            if problem := _difference(part.path(out), identity | _rows_entry(part.rows(len(store)))):
                raise InputError(f"{part.path(out)}: {problem}; make it again with --part {part}")
        count = _write(out, _read_parts([part.path(out) for part in parts]), len(store), identity, label="merge")
        shutil.rmtree(folder)
    return count


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; of 'auto', the GPU where there is one.

    Raises
    ------
    InputError
        There is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: is no device; write auto, cpu, cuda or cuda:1") from None
    is_here = device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count())
    if not is_here:
        raise InputError(f"--device {name}: is not there or not supported; 'ionbed doctor' tells what this machine has")
    return device


def _open_store(input: str | os.PathLike[str]) -> Store:
    if not is_store(input):
        raise InputError(f"{input}: is not a prepared store, which parts are of; make one with 'ionbed prepare'")
    return Store(input)


def _refuse_output(out: str | os.PathLike[str], input: str | os.PathLike[str]) -> None:
    if os.path.isdir(out):
        raise InputError(f"{out}: is a folder; name the file to write the embeddings to")
    refuse_input_as_output(out, input)


def _parts_folder(out: str | os.PathLike[str]) -> Path:
    return Path(out).with_name(f"{Path(out).name}.parts")


def _identity(store: Store, model: Embedder) -> dict[str, str]:
    """Return what a table of a store's embeddings was made from, as its metadata holds it."""
    return {"model_hash": model.model_hash(), "store_hash": sha256_of_json(store.manifest["shards"])}


def _rows_entry(rows: range) -> dict[str, str]:
    return {"rows": f"{rows.start}-{rows.stop}"}


def _difference(path: Path, metadata: Mapping[str, str]) -> str | None:
    """Return in words how a table was made from something else than its metadata should say, None where it was not."""
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        return f"is damaged ({' '.join(str(error).split())[:200]})"
    for name, what in (("model_hash", "another model"), ("store_hash", "another store"), ("rows", "other rows")):
        made_from, wanted = found.get(name.encode(), b"").decode(), metadata.get(name, "")
        if made_from != wanted:
            return f"was made with {what} ({made_from[:12] or 'unknown'}, not {wanted[:12] or 'all'})"
    return None


def _find_parts(out: str | os.PathLike[str]) -> list[Part]:
    """Return all parts, in order."""
    folder = _parts_folder(out)
    names = [re.fullmatch(r"(\d+)-of-(\d+)\.parquet", path.name) for path in sorted(folder.glob("*.parquet"))]
    parts = [Part(int(name[1]), int(name[2])) for name in names if name]
    if not parts:
        raise InputError(f"{folder}: holds no parts to merge; make them with --part 1/N to N/N")
    if kinds := sorted({part.of for part in parts})[1:]:
        raise InputError(f"{folder}: holds parts of {parts[0].of} and parts of {kinds[-1]}; delete those not wanted")
    there = {part.number for part in parts}
    if missing := [number for number in range(1, parts[0].of + 1) if number not in there]:
        named = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise InputError(
            f"{folder}: {len(missing)} of {parts[0].of} parts are missing ({named}); "
            f"make them with --part {missing[0]}/{parts[0].of} and so on"
        )
    return parts


def _read_parts(paths: Iterable[Path]) -> Iterator[pa.Table]:
    for path in paths:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups if file.metadata.num_rows else 0):
                    table = file.read_row_group(group)
                    kind = table["embedding"].type  # whose items are called otherwise than Arrow calls them elsewhere
                    yield table.set_column(
                        1, "embedding", table["embedding"].cast(pa.list_(pa.float32(), kind.list_size))
                    )
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is damaged ({reason}); delete it and make that part again") from None


def _embed_store(store: Store, rows: range, model: Embedder) -> Iterator[pa.Table]:
    for table in store.blocks(["spectrum_id", *SpectrumColumns.TABLE_COLUMNS], rows, SPECTRA_AT_ONCE):
        yield _embedding_table(table["spectrum_id"], model.embed(SpectrumColumns.from_table(table)))


def _embed_spectra(spectra: Iterable[Spectrum], model: Embedder) -> Iterator[pa.Table]:
    names, iterator = UniqueNames(), iter(spectra)
    while block := list(itertools.islice(iterator, SPECTRA_AT_ONCE)):
        yield _embedding_table(pa.array([names.assign(s.spectrum_id) for s in block]), model.embed(block))


def _embedding_table(names: pa.Array | pa.ChunkedArray, vectors: np.ndarray) -> pa.Table:
    values = pa.array(vectors.ravel(), pa.float32())
    return pa.table({"spectrum_id": names, "embedding": pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])})


def _write(
    path: str | os.PathLike[str],
    tables: Iterable[pa.Table],
    total: int | None,
    metadata: Mapping[str, str],
    *,
    label: str = "embed",
) -> int:
    """Write tables as the row groups of one file, whole or not at all, and return the number of rows."""
    count = 0
    writer: pq.ParquetWriter | None = None
    with atomic_file(path) as partial:
        try:
            with progress(label, total) as advance:
                for table in tables:
                    table = table.replace_schema_metadata(metadata)
                    writer = writer or pq.ParquetWriter(
                        partial, table.schema, compression="zstd", write_page_checksum=True
                    )
                    writer.write_table(table, row_group_size=SPECTRA_AT_ONCE)
                    count += len(table)
                    advance(len(table))
        finally:
            if writer:
                writer.close()
    return count
