"""An index whose vectors are in Milvus: a folder with the model, the manifest and the address, and its searches."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts import atomic_folder, describe_input, refuse_existing, refuse_input_as_output, write_manifest
from ..errors import InputError
from ..progress import progress
from ..spectra.columns import SpectrumColumns
from ..spectra.deduplication import UniqueNames
from ..spectra.matchms_spectra import as_spectra
from ..spectra.spectrum import Spectrum
from ..spectra.store import SCHEMA, Store, spectra_from_table
from .embedded_before import EmbeddedBefore
from .encode import SPECTRA_AT_ONCE, Part
from .hits import EmbeddedQueries, Hits, ScoreName
from .index_folder import (
    COMMAND,
    MODEL,
    Embedder,
    compare_files,
    compare_small_files,
    described,
    files_in,
    model_in,
    read_index_manifest,
    refuse_other_model,
)
from .library_rows import size_of, source_of, tables_of
from .milvus import CONSISTENCY, MilvusStore
from .milvus_collection import MilvusIndexKind
from .milvus_connection import Address
from .queries import embedded_queries

if TYPE_CHECKING:
    from ..spectra.readers import SpectrumReader
    from .filters import Filters

ENTRY = "milvus"
"""Of the manifest: the address, the kind of index and the consistency; never a token."""


class MilvusIndex:
    """A spectral library whose vectors and metadata are in Milvus; it is searched by the words of `Index`.

    Attributes
    ----------
    folder : Path
    manifest : dict
    store : MilvusStore
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], store: MilvusStore, model: Embedder | None) -> None:
        self.folder, self.manifest, self.store = folder, dict(manifest), store
        self._model = model

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Embedder | None = None) -> MilvusIndex:
        """Open the folder that `build` wrote, and the collection that it names.

        Raises
        ------
        InputError
            The folder is no such index or is damaged, ``model`` is not the one that the index was built with, Milvus
            cannot be reached, or the collection is gone or of another model.
        """
        folder = Path(folder)
        manifest = read_index_manifest(folder)
        if not is_in_milvus(manifest):
            raise InputError(f"{folder}: is an index whose vectors are in the folder; open it with ionbed.Index.open")
        compare_small_files(folder, manifest)
        if model is not None:
            refuse_other_model(folder, manifest, model)
        address = Address(_resolved(manifest[ENTRY]["uri"], folder), manifest[ENTRY]["collection"])
        return cls(folder, manifest, MilvusStore.open(address, manifest["model_hash"]), model)

    def __len__(self) -> int:
        """Return the number of spectra, asked of Milvus once."""
        return self._num_spectra

    @cached_property
    def _num_spectra(self) -> int:
        return len(self.store)

    @property
    def model(self) -> Embedder:
        """The model that the index was built with; loaded from the folder when first asked for."""
        if self._model is None:
            self._model = model_in(self.folder, self.manifest)
        return self._model

    def score_name(self, wanted: ScoreName | None = None) -> ScoreName:
        """Return the score by which hits are ranked, cosine: Milvus compares vectors only.

        Raises
        ------
        InputError
            Another one is wanted.
        """
        if wanted not in (None, "cosine"):
            raise InputError(f"the score is '{wanted}'; an index in Milvus is searched by cosine")
        return "cosine"

    def embed(self, spectra: Iterable[Spectrum], *, progress: bool = False) -> EmbeddedQueries:
        """Embed queries with the model of the index; see `Index.embed`."""
        store = self.store
        return embedded_queries(self.model, store.model_hash, list(as_spectra(spectra)), store.dim, progress=progress)

    def search(
        self,
        queries: Iterable[Spectrum] | EmbeddedQueries,
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        score: ScoreName | None = None,
        *,
        precursor_da: float | None = None,
        filters: Filters | None = None,
    ) -> Hits:
        """Find the library spectra nearest to each query; see `Index.search`.

        Numbers of rows are those of `MilvusStore.found`, and hold as long as this index is open.
        """
        self.score_name(score)
        embedded = queries if isinstance(queries, EmbeddedQueries) else self.embed(queries)
        return self.store.search(embedded, k, precursor_ppm, precursor_da=precursor_da, filters=filters)

    def spectra(self, rows: Sequence[int] | np.ndarray) -> list[Spectrum]:
        """Return library spectra that a search has found, with their peaks, in the order of ``rows``."""
        return list(spectra_from_table(self.store.found.take(np.asarray(rows, np.int64))))

    def verify(self) -> None:
        """Compare the files of the folder with their checksums, and the number of spectra with the manifest.

        Raises
        ------
        InputError
            One was changed, or Milvus holds fewer spectra than were put there when the index was built.
        """
        compare_files(self.folder, self.manifest, largest=None)
        if len(self.store) < self.manifest["counts"]["kept"]:
            raise InputError(
                f"{self.store.address}: holds {len(self.store):,} spectra, not the {self.manifest['counts']['kept']:,} "
                "that the index was built with; spectra were deleted, or build it again"
            )

    def info(self) -> dict[str, Any]:
        """Return what the index holds, for a person to read."""
        return {
            "folder": str(self.folder),
            "ionbed_version": self.manifest.get("ionbed_version"),
            "kind": "spectra",
            "milvus": self.store.address.uri,
            "collection": self.store.address.collection,
            "vector_index": self.store.kind,
            "consistency": self.manifest[ENTRY]["consistency"],
            "spectra": len(self),
            "embedding_dim": self.store.dim,
            "model_hash": self.manifest["model_hash"],
            "counts": self.manifest["counts"],
            "inputs": self.manifest["inputs"],
        }


def is_in_milvus(manifest: Mapping[str, Any]) -> bool:
    """Return whether an index's manifest names a collection of Milvus."""
    entry = manifest.get(ENTRY)
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("uri", "collection"))


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: Embedder,
    address: Address,
    *,
    kind: MilvusIndexKind | None = None,
    empty: bool = False,
    overwrite: bool = False,
) -> MilvusIndex:
    """Build an index of a prepared store, or of anything that `ionbed.read` reads, in a collection of Milvus.

    The folder is written last. A build that is killed leaves a collection that no folder names; ``overwrite`` replaces
    it.

    Parameters
    ----------
    input : path
    out : path
        The folder to write.
    model : IonbedModel, or EmbeddedBefore
    address : Address
    kind : str, optional
        Of the index of the vectors; see `ionbed.embeddings.milvus_collection.choose_kind`.
    empty : bool
        Put nothing there: several processes then `append` the parts of ``input``, which says how much it will be.
    overwrite : bool
        Replace what is in ``out``, and the collection.

    Raises
    ------
    InputError
        The input cannot be read or holds no usable spectrum, ``out`` is taken or would replace the input, Milvus cannot
        be reached, or it has a collection of that name.
    """
    refuse_input_as_output(out, input)
    refuse_existing(out, overwrite=overwrite)
    source = source_of(input)
    expected, _, sample = size_of(source)
    dim = model.embed(SpectrumColumns.from_table(sample[:1])).shape[1]
    with atomic_folder(out, overwrite=overwrite) as partial:
        store = MilvusStore.create(address, model.model_hash(), dim, expected=expected, kind=kind, overwrite=overwrite)
        try:
            counts = (
                {"read": 0, "kept": 0, "dropped": {}} if empty else _fill(store, tables_of(source), model, expected)
            )
            store.flush()
        except BaseException:
            store.drop()
            raise
        finally:
            store.close()
        if not isinstance(source, Store) and not empty:
            counts = _with_report(counts, source)
        model.save_pretrained(partial / MODEL)
        entries = {
            "command": COMMAND,
            "model_hash": model.model_hash(),
            "embedding_dim": dim,
            "inputs": [describe_input(input)],
            "counts": counts,
            ENTRY: {
                "uri": os.path.abspath(address.uri) if address.is_file else address.uri,
                "collection": address.collection,
                "index": store.kind,
                "consistency": CONSISTENCY,
            },
            "files": described(partial, files_in(partial)),
        }
        write_manifest(partial, entries)
    return MilvusIndex.open(out, model)


def append(
    folder: str | os.PathLike[str],
    input: str | os.PathLike[str],
    model: Embedder | None = None,
    *,
    part: Part | None = None,
) -> int:
    """Add the spectra of an input, or a part of a prepared store, to an index in Milvus and return their number.

    A spectrum whose id is there takes the place of that one: what was added in part may be added again, and several
    processes may add parts of a store at the same time.

    Raises
    ------
    InputError
        As `MilvusIndex.open`, or the input cannot be read or holds no usable spectrum, or is no store, of which parts
        are.
    """
    source = source_of(input)
    if part is not None and not isinstance(source, Store):
        raise InputError(f"{input}: is not a prepared store, which parts are of; make one with 'ionbed prepare'")
    index = MilvusIndex.open(folder, model)
    try:
        if part is not None and isinstance(source, Store):
            rows = part.rows(len(source))
            tables = (table.cast(SCHEMA) for table in source.blocks(SCHEMA.names, rows, SPECTRA_AT_ONCE))
            return _fill(index.store, tables, index.model, len(rows))["kept"] if len(rows) else 0
        total = len(source) if isinstance(source, Store) else None
        return _fill(index.store, tables_of(source), index.model, total)["kept"]
    finally:
        index.store.close()


def _fill(store: MilvusStore, tables: Iterable[pa.Table], model: Embedder, expected: int | None) -> dict[str, Any]:
    """Add spectra and return the counts of the manifest."""
    names, read, kept = UniqueNames(), 0, 0
    with progress("add", expected, unit="spectra") as advance:
        for table in tables:
            read += len(table)
            advance(len(table))
            table = table.filter(pc.greater(pc.list_value_length(table["mz"]), 0)).combine_chunks()
            ids = pa.array([names.assign(name) for name in table["spectrum_id"].to_pylist()], pa.string())
            table = table.set_column(0, SCHEMA.field("spectrum_id"), ids)
            if not len(table):
                continue
            known = model.of_ids(ids) if isinstance(model, EmbeddedBefore) else None
            store.add(table, model.embed(SpectrumColumns.from_table(table)) if known is None else known)
            kept += len(table)
    if not kept:
        raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
    return {"read": read, "kept": kept, "dropped": {"no-peaks": read - kept} if read > kept else {}}


def _with_report(counts: dict[str, Any], source: SpectrumReader) -> dict[str, Any]:
    """Return counts with the records that became no spectrum."""
    dropped = Counter(counts["dropped"]) + source.report.dropped
    return {**counts, "read": source.report.read, "dropped": dict(sorted(dropped.items()))}


def _resolved(uri: str, folder: Path) -> str:
    """Return an address; that of a file may be relative to the folder."""
    return uri if "://" in uri or os.path.isabs(uri) else str(folder / uri)
