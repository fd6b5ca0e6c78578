"""``ionbed embed``: the embedding of every spectrum of a file, as Parquet."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..progress import progress
from ..spectra.deduplication import UniqueNames
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index import Embedder, is_store

SPECTRA_AT_ONCE = 16384
"""Spectra held in memory: enough for batches of spectra of equal length."""


def embed_file(input: str | os.PathLike[str], out: str | os.PathLike[str], model: Embedder) -> int:
    """Embed every spectrum of a store or a file and write the embeddings, whole or not at all.

    The table has the columns ``spectrum_id`` (string) and ``embedding`` (fixed-size list of float32, of unit length),
    in the order of the input; its metadata holds ``model_hash``. Ids that a file uses twice get ``#2``, ``#3``...

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

    if os.path.isdir(out):
        raise InputError(f"{out}: is a folder; name the file to write the embeddings to")
    refuse_input_as_output(out, input)
    source: Iterable[Spectrum] = Store(input) if is_store(input) else read(input)
    total = len(source) if isinstance(source, Store) else None
    names, count = UniqueNames(), 0
    writer: pq.ParquetWriter | None = None
    with atomic_file(out) as partial:
        try:
            with progress("embed", total) as advance:
                for block in _blocks(source):
                    vectors = model.embed(block)
                    table = pa.table(
                        {
                            "spectrum_id": pa.array([names.assign(s.spectrum_id) for s in block]),
                            "embedding": pa.FixedSizeListArray.from_arrays(
                                pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
                            ),
                        }
                    ).replace_schema_metadata({"model_hash": model.model_hash()})
                    writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
                    writer.write_table(table)
                    count += len(block)
                    advance(len(block))
        finally:
            if writer:
                writer.close()
        if not count:
            raise InputError(f"{input}: has no usable spectrum to embed; 'ionbed prepare' tells why each was dropped")
    return count


def _blocks(spectra: Iterable[Spectrum]) -> Iterator[list[Spectrum]]:
    iterator = iter(spectra)
    while block := list(itertools.islice(iterator, SPECTRA_AT_ONCE)):
        yield block
