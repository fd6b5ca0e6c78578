"""Embeddings that were computed before, as by the jobs of a cluster, in the place of a model that computes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ..artifacts import sha256_of_json
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index_folder import Embedder


class EmbeddedBefore:
    """A model with the embeddings of a library that it made before; what is not of the library it embeds itself.

    Parameters
    ----------
    model : Embedder
        That made them.
    ids : pyarrow array of str, of shape (n_spectra,)
    vectors : float32 array of shape (n_spectra, dim)
    """

    def __init__(self, model: Embedder, ids: pa.Array | pa.ChunkedArray, vectors: np.ndarray) -> None:
        if len(ids) != len(vectors):
            raise InputError(f"{len(ids):,} ids and {len(vectors):,} embeddings; one of each is needed per spectrum")
        self.model = model
        self._ids, self._vectors = ids, vectors
        hashes = _hashes(ids)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    @classmethod
    def read(cls, path: str | os.PathLike[str], model: Embedder, store: Store) -> EmbeddedBefore:
        """Return the embeddings that ``ionbed embed STORE --out FILE.parquet`` wrote.

        They are copied to a temporary file and mapped into memory.

        Raises
        ------
        InputError
            The file is damaged, or its embeddings are of another model or another store.
        """
        made_from = {"model_hash": model.model_hash(), "store_hash": sha256_of_json(store.manifest["shards"])}
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                metadata = file.schema_arrow.metadata or {}
                for name, what in (("model_hash", "model"), ("store_hash", "store")):
                    if metadata.get(name.encode(), b"").decode() != made_from[name]:
                        raise InputError(
                            f"{path}: its embeddings are of another {what}; make them with 'ionbed embed' of the same"
                        )
                ids, vectors = _read(file)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is damaged or no table of embeddings ({reason}); embed again") from None
        return cls(model, ids, vectors)

    def of_ids(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the embeddings of spectra, float32 of shape (n, dim).

        Raises
        ------
        InputError
            One was not embedded.
        """
        hashes = _hashes(ids)
        places = np.searchsorted(self._hashes, hashes).clip(max=max(len(self._hashes) - 1, 0))
        rows = self._order[places] if len(self._hashes) else places
        names = ids.to_pylist()
        found = self._ids.take(pa.array(rows)).to_pylist() if len(self._hashes) else [None] * len(names)
        for name, other in zip(names, found, strict=True):
            if name != other:
                raise InputError(f"spectrum {name}: is not among the embeddings; embed the same store again")
        return np.ascontiguousarray(self._vectors[rows], np.float32)

    def embed(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Embed other spectra, queries say."""
        return self.model.embed(spectra, progress=progress)

    def model_hash(self) -> str:
        """Return that of the model."""
        return self.model.model_hash()

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Write the model."""
        return self.model.save_pretrained(save_directory)


def _read(file: pq.ParquetFile) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return ids and vectors, these in a temporary file that is gone when it is closed."""
    dim = file.schema_arrow.field("embedding").type.list_size
    ids: list[pa.Array] = []
    with tempfile.TemporaryFile(prefix="ionbed-embeddings-", dir=Path(tempfile.gettempdir())) as temporary:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["spectrum_id", "embedding"])
            ids += table["spectrum_id"].chunks
            for chunk in table["embedding"].chunks:
                temporary.write(np.ascontiguousarray(chunk.flatten().to_numpy(), np.float32).tobytes())
        temporary.flush()
        shape = (file.metadata.num_rows, dim)
        vectors = np.memmap(temporary, np.float32, mode="r", shape=shape) if shape[0] else np.empty(shape, np.float32)
    return pa.chunked_array(ids, pa.string()), vectors


def _hashes(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    digest = xxhash.xxh3_64_intdigest
    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    return np.fromiter(
        (digest(name.encode("utf-8", "surrogatepass")) for chunk in chunks for name in chunk.to_pylist()),
        np.uint64,
        len(ids),
    )
