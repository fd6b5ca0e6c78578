"""The index: unit vectors of a spectral library in precursor order, searched within a precursor window or openly."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_folder, describe_input, refuse_existing, refuse_input_as_output
from ..errors import InputError
from ..spectra.matchms_spectra import as_spectra
from ..spectra.spectrum import Spectrum
from ..spectra.store import SCHEMA, Store, spectra_from_table
from .fused_search import OPEN_DEPTH, FusedSearch
from .fusion import fusion_of
from .hits import HIT_METADATA, EmbeddedQueries, Hits, ScoreName
from .index_folder import (
    MODEL,
    Embedder,
    SavedIndex,
    check_search_options,
    checked_vectors,
    compare_small_files,
    described,
    files_in,
    refuse_other_model,
)
from .library_edits import Appended, append_rows, compact_rows, delete_rows
from .library_rows import source_of
from .library_search import LibrarySearch
from .library_writing import estimate_of, write_copy, write_library
from .nearest import Nearest
from .queries import embedded_queries
from .recall import WANTED_RECALL
from .segments.approximate_rows import KindWanted
from .segments.commits import (
    open_library,
    read_index_manifest,
    write_index_manifest,
    writing,
)
from .segments.library import Library, told_of
from .segments.numbers import JoinedVectors
from .windows import windows_in

if TYPE_CHECKING:
    from .filters import Filters


class Index(SavedIndex):
    """A spectral library, embedded.

    It lies in a folder, in segments (docs/index-format.md), and is mapped into memory; one that is not saved lies in a
    temporary folder (of TMPDIR). Rows are numbered over all segments; within each they are ordered by precursor m/z,
    then by spectrum id, so that a precursor window is a slice of its vectors. A row that was deleted keeps its number
    and is never a hit, until `compact` makes one segment of those that are left and numbers them anew.
    Make one with `Index.build`, keep it with `save`, and get it back with `Index.open`.

    Attributes
    ----------
    manifest : dict
        What made the index, from what, with which counts.
    folder : Path or None
        Where it is saved.
    """

    def __init__(
        self, place: Path, manifest: Mapping[str, Any], *, model: Embedder | None = None, folder: Path | None = None
    ) -> None:
        super().__init__(manifest, model, folder)
        self._place = place
        self._set(manifest, open_library(place, manifest))

    def _set(self, manifest: Mapping[str, Any], library: Library) -> None:
        self.manifest = dict(manifest)
        self._library = library
        self._search = LibrarySearch(library)
        for name in ("metadata", "_fused_search"):
            self.__dict__.pop(name, None)

    @classmethod
    def build(
        cls,
        model: Embedder,
        spectra: Iterable[Spectrum] | Store | pa.Table,
        *,
        kind: KindWanted = "auto",
        recall: float = WANTED_RECALL,
        progress: bool = False,
    ) -> Index:
        """Embed a library.

        Parameters
        ----------
        model : IonbedModel
        spectra : iterable of Spectrum, a store, or a table of its schema
            Spectra without peaks are left out and counted in the manifest.
        kind : 'auto', 'flat', 'hnsw', 'ivf-sq8' or 'ivf-pq'
            How the whole library is searched: every row (flat), or approximately; auto: as the size suggests.
        recall : float
            Mean recall@10 that an approximate search is to reach; what it reaches stands in the manifest.
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            No spectrum with peaks is among them, or they are too few for the kind, or the temporary folder or the
            memory has no room for the index.
        """
        place = Path(tempfile.mkdtemp(prefix="ionbed-index-"))
        try:
            manifest = write_library(place, model, spectra, kind=kind, recall=recall, progress=progress)
            manifest["files"] = described(place, files_in(place))
            write_index_manifest(place, manifest)
            index = cls(place, read_index_manifest(place), model=model)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        weakref.finalize(index, _remove, place, os.getpid())
        return index

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Embedder | None = None) -> Index:
        """Open a saved index; vectors and metadata stay on disk and are mapped into memory.

        Parameters
        ----------
        folder : path
        model : IonbedModel, optional
            To embed queries with. By default the copy within the folder, loaded when it is first needed.

        Raises
        ------
        InputError
            The folder is no index or is damaged, or ``model`` is not the model that the index was built with. Of large
            files, what is read is compared with its checksum when it is first read; `verify` compares all.
        """
        folder = Path(folder)
        while True:
            manifest = read_index_manifest(folder)
            try:
                compare_small_files(folder, manifest)
                if model is not None:
                    refuse_other_model(folder, manifest, model)
                return cls(folder, manifest, model=model, folder=folder)
            except (InputError, FileNotFoundError) as error:
                if read_index_manifest(folder) == manifest:
                    raise InputError(str(error)) from None
                # A writer has changed it meanwhile, and has removed what it no longer names.

    def refresh(self) -> bool:
        """Take over what other processes have committed since this index was opened; return whether there was any.

        Rows may have other numbers afterwards. No other thread may search meanwhile.
        """
        if read_index_manifest(self._place) == self.manifest:
            return False
        newer = Index.open(self._place, self._model)
        self._set(newer.manifest, newer._library)
        return True

    def __len__(self) -> int:
        """Return the number of spectra, without those deleted."""
        return self._library.num_live

    @property
    def num_rows(self) -> int:
        """Number of rows, those deleted included."""
        return self._library.num_rows

    @property
    def library(self) -> Library:
        """The rows of all segments, those deleted included, mapped into memory."""
        return self._library

    @property
    def vectors(self) -> JoinedVectors:  # type: ignore[override]  # read-only here
        """Vectors of all rows, float32 of shape (n_rows, dim), taken by slices or integer arrays."""
        return self._library.vectors

    @property
    def precursor_mz(self) -> np.ndarray:
        """Of all rows, float64 of shape (n_rows,), in Da per charge; ascending within each segment."""
        return self._library.precursor_mz

    @property
    def polarity(self) -> np.ndarray:
        """Of all rows, int8 of shape (n_rows,): +1, -1, or 0 where unknown."""
        return self._library.polarity

    @property
    def live(self) -> np.ndarray:
        """Which rows are not deleted, bool of shape (n_rows,)."""
        return np.ones(self.num_rows, bool) if self._library.live is None else self._library.live

    @cached_property
    def metadata(self) -> pa.Table:
        """`HIT_METADATA` of every row, those deleted included."""
        return self._library.columns(HIT_METADATA).combine_chunks()

    def rows(self, rows: Sequence[int] | np.ndarray, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return columns of rows, in the order asked for; only what is needed of the file is read."""
        return self._library.take(self._checked_rows(rows), columns)

    def spectra(self, rows: Sequence[int] | np.ndarray) -> list[Spectrum]:
        """Return library spectra with their peaks, in the order of ``rows``; only the parts needed are read.

        Raises
        ------
        InputError
            What was saved of them is damaged.
        """
        return list(spectra_from_table(self.rows(rows)))

    def embed(self, spectra: Iterable[Spectrum], *, progress: bool = False) -> EmbeddedQueries:
        """Embed queries with the model of the index.

        Raises
        ------
        InputError
            A spectrum has no peaks.
        """
        model_hash, dim = self.manifest["model_hash"], self.vectors.shape[1]
        return embedded_queries(self.model, model_hash, list(as_spectra(spectra)), dim, progress=progress)

    def score_name(self, wanted: ScoreName | None = None) -> ScoreName:
        """Return the score by which hits are ranked: the wanted one, or the best that the model has.

        That is the fused score where the model carries one, which no evaluation has found below the cosine of the
        embeddings, and else this cosine.

        Raises
        ------
        InputError
            The wanted one is unknown, or the model lacks it; or the fused score that it carries cannot be used.
        """
        if wanted is not None and wanted not in get_args(ScoreName):
            raise InputError(f"the score is '{wanted}'; it must be one of {', '.join(get_args(ScoreName))}")
        if wanted == "cosine":
            return "cosine"
        if self._fused_search is None:
            if wanted == "fused":
                raise InputError(
                    "the model of the index carries no fused score; fit one (ionbed fuse) and build the index with the "
                    "model that it writes, or search by cosine"
                )
            return "cosine"
        return "fused"

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
        """Find the library spectra nearest to each query.

        The search is exact, but for one of the whole library, or of wide windows, where the index is of an approximate
        kind; what that finds is ranked exactly. A query's hits do not depend on the queries beside it. Equal scores are
        ranked by precursor m/z and then by id: the order of the rows.
        With the fused score a search of the whole library ranks the best by cosine and the best by hybrid entropy
        (`ionbed.embeddings.fused_search.OPEN_DEPTH` of each, exactly, whatever the kind of the index), and no others.
        A library spectrum of the other polarity is never a hit where both polarities are known;
        an unknown polarity, of the query or of the library spectrum, goes with either.

        Parameters
        ----------
        queries : iterable of Spectrum, or EmbeddedQueries
        k : int
            Hits per query, at most.
        precursor_ppm : float or None
            Largest difference of the precursors in ppm of the library's; None to search the whole library.
        score : 'cosine', 'fused' or None
            The cosine of the embeddings, or that and look-ups of the peaks in one, for models that carry such a score.
            None for the best: see `score_name`; of queries that were embedded without their peaks, the cosine.
        precursor_da : float or None
            Largest difference of the precursors in Da per charge; ``precursor_ppm`` then counts for nothing.
        filters : Filters or None
            Which library spectra may be hits.

        Raises
        ------
        InputError
            ``k``, ``precursor_ppm`` or ``precursor_da`` is out of range, or the vectors are not of this index's model,
            or it carries no fused score, or what is read of the index is damaged.
        """
        check_search_options(k, precursor_ppm, precursor_da)
        is_without_peaks = isinstance(queries, EmbeddedQueries) and queries.columns is None
        score = "cosine" if score is None and is_without_peaks else self.score_name(score)
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
        fused = None if score == "cosine" else self._fused_search
        library, allowed, k_possible = self._library, self._search.allowed(filters), min(k, len(self))
        windows = windows_in(library, precursor_mz, None if precursor_da is not None else precursor_ppm, precursor_da)
        if fused is None:
            found = self._search.nearest(vectors, polarity, windows, allowed, k_possible)
        elif queries.columns is None:
            raise InputError("the queries have no peaks, which a fused score needs; embed them with Index.embed")
        elif windows is None:
            depth = min(max(k, OPEN_DEPTH), len(self))
            nearest = self._search.nearest(vectors, polarity, None, allowed, depth)
            found = fused.of_all(queries.columns, vectors, nearest, k_possible, depth, allowed)
        else:
            found = fused.in_windows(queries.columns, vectors, windows, k_possible, allowed)
        padded = Nearest.empty(num_queries, k)
        padded.rows[:, :k_possible], padded.scores[:, :k_possible] = found.rows, found.scores
        library_mz = np.where(padded.rows >= 0, library.precursor_mz[padded.rows], np.nan)
        error = (precursor_mz[:, None] - library_mz) / library_mz * 1e6
        num_within = self._search.num_within(windows, num_queries)
        return Hits(padded.rows, padded.scores, error, num_within, score, library=library)

    def append(
        self, spectra: Iterable[Spectrum] | Store | pa.Table, *, replace: bool = False, progress: bool = False
    ) -> Appended:
        """Embed further spectra and commit them as a segment; a writer killed at any moment changes nothing.

        Parameters
        ----------
        spectra : iterable of Spectrum, a store, or a table of its schema
            Spectra without peaks are left out.
        replace : bool
            Delete the spectra of the same ids, in the same commit.
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            The index has a spectrum of one of the ids (unless ``replace``), or another process is writing it.
        """
        done = append_rows(self._place, self.model, spectra, replace=replace, progress=progress)
        self._take_over()
        return done

    def delete(
        self, ids: Iterable[str] | None = None, *, where: Mapping[str, Any] | None = None, dry_run: bool = False
    ) -> int:
        """Delete spectra and return their number; their rows are never hits again.

        Parameters
        ----------
        ids : iterable of str, optional
            Of the spectra to delete.
        where : mapping of str to object, optional
            In place of ids: values of columns of the store, by name; None for those where it is unknown. All must
            agree.
        dry_run : bool
            Only say how many there are.

        Raises
        ------
        InputError
            An id is not in the index, or no spectrum has these values, or none would be left; a column is none of the
            store's; another process is writing the index.
        """
        count = delete_rows(self._place, ids, where=where or {}, dry_run=dry_run)
        self._take_over()
        return count

    def compact(self) -> None:
        """Make one segment of all, without the rows deleted, which are gone for good; rows are numbered anew.

        Nothing is done where there is one segment without deleted rows.

        Raises
        ------
        InputError
            Another process is writing the index, or it is damaged.
        """
        compact_rows(self._place)
        self._take_over()

    def info(self) -> dict[str, Any]:
        """Return what the index holds, for a person to read: counts, precursor range, model, licences, inputs."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "ionbed_version": self.manifest.get("ionbed_version"),
            "kind": "spectra",
            "spectra": len(self),
            **told_of(self._library),
            "segments": len(self._library.segments),
            "deleted_rows": self.num_rows - len(self),
            "open_search": self._search.describe(),
            **self._origin(),
        }

    @cached_property
    def _fused_search(self) -> FusedSearch | None:
        """What ranks by the fused score; made when it is first needed, with the weights of the model."""
        fusion = fusion_of(self.model, "the model of the index")
        return None if fusion is None else FusedSearch(fusion, self._library)

    def _checked_rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_rows):
            raise IndexError(f"rows must lie between 0 and {self.num_rows - 1}")
        return rows

    def _take_over(self) -> None:
        newer = Index.open(self._place)  # which goes on where another writer commits meanwhile
        self._set(newer.manifest, newer._library)

    def _commit_entry(self, folder: Path, name: str, value: Any) -> None:
        with writing(folder) as writer:
            writer.manifest[name] = value
            writer.commit()
        self._take_over()

    def _write_rows(self, folder: Path) -> dict[str, Any]:
        entry = write_copy(folder, self._library, self.manifest["open_search"])
        return {**self.manifest, "segments": [entry], "deleted": [], "last_segment": 0}

    def _write_manifest(self, folder: Path, entries: Mapping[str, Any]) -> None:
        write_index_manifest(folder, entries)


def _remove(place: Path, process: int) -> None:
    """Remove the folder of an index that was not saved, unless this is a fork of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(place, ignore_errors=True)


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: Embedder,
    *,
    kind: KindWanted = "auto",
    recall: float = WANTED_RECALL,
    overwrite: bool = False,
) -> Index:
    """Build an index of a prepared store, or of anything that `ionbed.read` reads, and save it.

    Parameters
    ----------
    input : path
    out : path
        The folder to write.
    model : IonbedModel
    kind, recall
        See `Index.build`.
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    Index
        As `Index.open` gives it.

    Raises
    ------
    InputError
        The input cannot be read or holds no usable spectrum, or ``out`` is taken or would replace the input, or there
        is no room for the index.
    """
    refuse_input_as_output(out, input)
    refuse_existing(out, overwrite=overwrite)
    source = source_of(input)
    with atomic_folder(out, overwrite=overwrite) as partial:
        if isinstance(source, Store):  # whose size is known before it is read
            estimate_of(source, model, kind).refuse_too_large(partial)
        manifest = write_library(partial, model, source, kind=kind, recall=recall, progress=True)
        manifest["inputs"] = [describe_input(input)]
        model.save_pretrained(partial / MODEL)
        manifest["files"] = described(partial, files_in(partial))
        write_index_manifest(partial, manifest)
    return Index.open(out, model)
