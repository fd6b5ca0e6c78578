"""The index: unit vectors of a spectral library in precursor order, searched within a precursor window or openly."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..artifacts import describe_input, refuse_existing, refuse_input_as_output
from ..errors import InputError
from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.columns import SpectrumColumns
from ..spectra.deduplication import UniqueNames
from ..spectra.spectrum import Spectrum
from ..spectra.store import SCHEMA, Store, spectra_from_table, table_from_spectra
from .consensus import library_structures
from .fused_search import OPEN_DEPTH, FusedSearch
from .fusion import fusion_of
from .hits import HIT_METADATA, EmbeddedQueries, Hits, ScoreName
from .index_folder import (
    COMMAND,
    METADATA,
    Embedder,
    SavedIndex,
    check_search_options,
    checked_vectors,
    is_store,
    named_where_damaged,
    open_index_folder,
    read_columns,
)
from .nearest import Nearest, nearest_in_windows, nearest_of_all, precursor_windows
from .queries import embed_queries

if TYPE_CHECKING:
    import faiss

ROWS_AT_ONCE = 8192
"""Of the saved metadata: what is read to look at one spectrum."""


class Index(SavedIndex):
    """A spectral library, embedded.

    Rows are ordered by precursor m/z, then by spectrum id, so that a precursor window is a slice of the vectors.
    Make one with `Index.build`, keep it with `save`, and get it back with `Index.open`.

    Attributes
    ----------
    vectors : float32 array of shape (n_spectra, dim)
        Rows of unit length, read-only.
    precursor_mz : float64 array of shape (n_spectra,)
        Ascending.
    polarity : int8 array of shape (n_spectra,)
        +1, -1, or 0 where unknown.
    manifest : dict
        What made the index, from what, with which counts.
    folder : Path or None
        Where it is saved.
    """

    def __init__(
        self,
        vectors: faiss.IndexFlatIP,
        library: pa.Table | None,
        manifest: Mapping[str, Any],
        *,
        model: Embedder | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(vectors, manifest, model, folder)
        self._library = library
        numeric = self._columns(["precursor_mz", "polarity"])
        self.precursor_mz: np.ndarray = numeric["precursor_mz"].to_numpy()
        self.polarity: np.ndarray = numeric["polarity"].fill_null(0).to_numpy().astype(np.int8)

    @classmethod
    def build(cls, model: Embedder, spectra: Iterable[Spectrum] | Store | pa.Table, *, progress: bool = False) -> Index:
        """Embed a library.

        Parameters
        ----------
        model : IonbedModel
        spectra : iterable of Spectrum, a store, or a table of its schema
            Spectra without peaks are left out and counted in the manifest.
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            No spectrum with peaks is among them.
        """
        import faiss

        table = _gather(spectra, progress)
        num_read = len(table)
        table = table.filter(pc.greater(pc.list_value_length(table["mz"]), 0))
        if not len(table):
            raise InputError("no spectrum to index; at least one with a precursor m/z and peaks is needed")
        order = pc.sort_indices(table, sort_keys=[("precursor_mz", "ascending"), ("spectrum_id", "ascending")])
        table = table.take(order).combine_chunks()
        vectors = checked_vectors(model.embed(SpectrumColumns.from_table(table), progress=progress), len(table))
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        dropped = {"no-peaks": num_read - len(table)} if num_read > len(table) else {}
        manifest = {
            "command": COMMAND,
            "model_hash": model.model_hash(),
            "embedding_dim": vectors.shape[1],
            "inputs": [],
            "counts": {"read": num_read, "kept": len(table), "dropped": dropped},
        }
        return cls(index, table, manifest, model=model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Embedder | None = None) -> Index:
        """Open a saved index; its vectors stay on disk and are mapped into memory.

        Parameters
        ----------
        folder : path
        model : IonbedModel, optional
            To embed queries with. By default the copy within the folder, loaded when it is first needed.

        Raises
        ------
        InputError
            The folder is no index or is damaged, or ``model`` is not the model that the index was built with.
        """
        folder = Path(folder)
        manifest, vectors = open_index_folder(folder, "spectra", model)
        index = cls(vectors, None, manifest, model=model, folder=folder)
        if not len(index) == len(index.precursor_mz) == manifest["counts"]["kept"]:
            raise InputError(f"{folder}: its vectors, metadata and manifest differ in number; build the index again")
        return index

    @cached_property
    def metadata(self) -> pa.Table:
        """`HIT_METADATA` of every row."""
        return self._columns(HIT_METADATA).combine_chunks()

    def check_score(self, score: ScoreName) -> None:
        """Raise `InputError` if hits cannot be ranked by ``score``: an unknown one, or one that the model lacks."""
        if score not in get_args(ScoreName):
            raise InputError(f"the score is '{score}'; it must be one of {', '.join(get_args(ScoreName))}")
        if score == "fused":
            assert self._fused_search

    @cached_property
    def _fused_search(self) -> FusedSearch:
        fusion = fusion_of(self.model, "the model of the index")
        if fusion is None:
            raise InputError(
                "the model of the index carries no fused score; fit one (ionbed fuse) and build the index with the "
                "model that it writes, or search by cosine"
            )
        library = SpectrumColumns.from_table(self._columns(SpectrumColumns.TABLE_COLUMNS))
        structures = library_structures(*self._columns(["inchikey", "smiles"]).columns)
        return FusedSearch(fusion, library, self.vectors, self.polarity, structures)

    def spectra(self, rows: Sequence[int] | np.ndarray) -> list[Spectrum]:
        """Return library spectra with their peaks, in the order of ``rows``; only the parts needed are read.

        Raises
        ------
        InputError
            What was saved of them is damaged.
        """
        rows = np.asarray(rows, np.int64)
        if not len(rows):
            return []
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows must lie between 0 and {len(self) - 1}")
        if self._library is not None:
            return list(spectra_from_table(self._library.take(pa.array(rows))))
        assert self.folder is not None, "an index without its table in memory was opened from a folder"
        with named_where_damaged(self.folder / METADATA):
            file = pq.ParquetFile(self.folder / METADATA, memory_map=True, page_checksum_verification=True)
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            groups, group_of_row = np.unique(np.searchsorted(ends, rows, side="right"), return_inverse=True)
            table = file.read_row_groups(groups.tolist())
        first_in_file = (ends - sizes)[groups]
        first_in_table = np.concatenate([[0], np.cumsum(np.array(sizes)[groups])[:-1]])
        return list(spectra_from_table(table.take(pa.array(rows - (first_in_file - first_in_table)[group_of_row]))))

    def embed(self, spectra: Iterable[Spectrum], *, progress: bool = False) -> EmbeddedQueries:
        """Embed queries with the model of the index.

        Raises
        ------
        InputError
            A spectrum has no peaks.
        """
        spectra = list(spectra)
        vectors = embed_queries(self.model, spectra, self.vectors.shape[1], progress=progress)
        columns = SpectrumColumns.from_spectra(spectra)
        model_hash = self.manifest["model_hash"]
        return EmbeddedQueries(vectors, columns.precursor_mz, columns.polarity, model_hash=model_hash, columns=columns)

    def search(
        self,
        queries: Iterable[Spectrum] | EmbeddedQueries,
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        score: ScoreName = "cosine",
    ) -> Hits:
        """Find the library spectra nearest to each query.

        The search is exact, and a query's hits do not depend on the queries beside it. Equal scores are ranked by row.
        With the fused score a search of the whole library ranks the best by cosine and the best by hybrid entropy
        (`ionbed.embeddings.fused_search.OPEN_DEPTH` of each), and no others.
        A library spectrum of the other polarity is never a hit where both polarities are known;
        an unknown polarity, of the query or of the library spectrum, goes with either.

        Parameters
        ----------
        queries : iterable of Spectrum, or EmbeddedQueries
        k : int
            Hits per query, at most.
        precursor_ppm : float or None
            Largest difference of the precursors in ppm of the library's; None to search the whole library.
        score : 'cosine' or 'fused'
            The cosine of the embeddings, or that and look-ups of the peaks in one, for models that carry such a score.

        Raises
        ------
        InputError
            ``k`` or ``precursor_ppm`` is out of range, or the vectors are not of this index's model, or it carries no
            fused score.
        """
        check_search_options(k, precursor_ppm)
        self.check_score(score)
        if not isinstance(queries, EmbeddedQueries):
            queries = self.embed(queries)
        elif queries.model_hash != self.manifest["model_hash"]:
            raise InputError(
                f"the queries were embedded with the model {queries.model_hash[:12]}, the index was built with "
                f"{self.manifest['model_hash'][:12]}; embed them with Index.embed"
            )
        num_queries = len(queries.precursor_mz)
        vectors = checked_vectors(queries.vectors, num_queries, dim=self.vectors.shape[1])
        precursor_mz = np.asarray(queries.precursor_mz, np.float64)
        polarity = np.asarray(queries.polarity, np.int8)
        if polarity.shape != (num_queries,):
            raise InputError(f"{num_queries} precursors and {len(polarity)} polarities; give one of each per query")
        k_possible = min(k, len(self))
        start, stop = np.zeros(num_queries, np.int64), np.full(num_queries, len(self), np.int64)
        if precursor_ppm is not None:
            start, stop = precursor_windows(self.precursor_mz, precursor_mz, precursor_ppm)
        if score == "fused":
            if queries.columns is None:
                raise InputError("the queries have no peaks, which a fused score needs; embed them with Index.embed")
            fused = self._fused_search
            if precursor_ppm is None:
                depth = min(max(k, OPEN_DEPTH), len(self))
                found = nearest_of_all(self.vectors, self.polarity, vectors, polarity, depth)
                found = fused.of_all(queries.columns, vectors, found, k_possible, depth)
            else:
                found = fused.in_windows(queries.columns, vectors, start, stop, k_possible)
        elif precursor_ppm is None:
            found = nearest_of_all(self.vectors, self.polarity, vectors, polarity, k_possible)
        else:
            found = nearest_in_windows(self.vectors, self.polarity, vectors, polarity, start, stop, k_possible)
        padded = Nearest.empty(num_queries, k)
        padded.rows[:, :k_possible], padded.scores[:, :k_possible] = found.rows, found.scores
        library_mz = np.where(padded.rows >= 0, self.precursor_mz[padded.rows], np.nan)
        error = (precursor_mz[:, None] - library_mz) / library_mz * 1e6
        return Hits(padded.rows, padded.scores, error, stop - start, library=self.metadata)

    def info(self) -> dict[str, Any]:
        """Return what the index holds, for a person to read: counts, precursor range, model, licences, inputs."""
        blocks = {key[:14] for key in self.metadata["inchikey"].to_pylist() if key}
        return {
            "folder": None if self.folder is None else str(self.folder),
            "ionbed_version": self.manifest.get("ionbed_version"),
            "kind": "spectra",
            "spectra": len(self),
            "structures": len(blocks),
            "predicted_spectra": pc.sum(self.metadata["predicted"]).as_py(),
            "positive": int((self.polarity > 0).sum()),
            "negative": int((self.polarity < 0).sum()),
            "polarity_unknown": int((self.polarity == 0).sum()),
            "lowest_precursor_mz": float(self.precursor_mz[0]),
            "highest_precursor_mz": float(self.precursor_mz[-1]),
            "licenses": dict(Counter(text or "unknown" for text in self.metadata["license"].to_pylist()).most_common()),
            **self._origin(),
        }

    def _write_metadata(self, folder: Path) -> None:
        # In one form and one piece, so that equal libraries give equal bytes.
        table = self._columns(SCHEMA.names).cast(SCHEMA).combine_chunks()
        pq.write_table(
            table, folder / METADATA, compression="zstd", row_group_size=ROWS_AT_ONCE, write_page_checksum=True
        )

    def _columns(self, names: Sequence[str]) -> pa.Table:
        if self._library is not None:
            return self._library.select(list(names))
        assert self.folder is not None, "an index without its table in memory was opened from a folder"
        return read_columns(self.folder / METADATA, names)


def build(
    input: str | os.PathLike[str], out: str | os.PathLike[str], model: Embedder, *, overwrite: bool = False
) -> Index:
    """Build an index of a prepared store, or of anything that `ionbed.read` reads, and save it.

    Parameters
    ----------
    input : path
    out : path
        The folder to write.
    model : IonbedModel
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    Index
        As `Index.open` gives it.

    Raises
    ------
    InputError
        The input cannot be read or holds no usable spectrum, or ``out`` is taken or would replace the input.
    """
    from ..spectra.readers import read

    refuse_input_as_output(out, input)
    refuse_existing(out, overwrite=overwrite)
    source = Store(input) if is_store(input) else read(input)
    index = Index.build(model, source, progress=True)
    index.manifest["inputs"] = [describe_input(input)]
    if not isinstance(source, Store):
        report = source.report
        dropped = Counter(index.manifest["counts"]["dropped"]) + report.dropped
        index.manifest["counts"] |= {
            "read": report.read,
            "dropped": dict(sorted(dropped.items())),
            "repaired": dict(sorted(report.repaired.items())),
        }
    index.save(out, overwrite=overwrite)
    return Index.open(out, model)


def _gather(spectra: Iterable[Spectrum] | Store | pa.Table, progress: bool) -> pa.Table:
    """Return spectra as one table of the store's schema with unique ids, few at a time as Python objects."""
    if isinstance(spectra, Store):
        spectra = spectra.table()
    if isinstance(spectra, pa.Table):
        table = spectra.select(SCHEMA.names).cast(SCHEMA)
    else:
        tables = [SCHEMA.empty_table()]
        remaining = iter(spectra)
        with show_progress("read", None) if progress else unseen() as advance:
            while chunk := list(itertools.islice(remaining, 4096)):
                tables.append(table_from_spectra(chunk))
                advance(len(chunk))
        table = pa.concat_tables(tables)
    names = UniqueNames()
    ids = pa.array([names.assign(name) for name in table["spectrum_id"].to_pylist()], pa.string())
    return table.set_column(0, SCHEMA.field("spectrum_id"), ids)
