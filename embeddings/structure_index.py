"""The index of structures: unit vectors of molecules in order of their mass, ranked for spectra by inner product."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ..artifacts import describe_input, refuse_existing, refuse_input_as_output
from ..errors import InputError
from ..spectra.molecule_files import NamedStructure, read_molecules
from ..spectra.spectrum import Spectrum
from .index_folder import (
    COMMAND,
    METADATA,
    Embedder,
    SavedIndex,
    check_search_options,
    checked_vectors,
    damaged,
    open_index_folder,
)
from .nearest import Nearest, nearest_among, nearest_of_all
from .queries import embed_queries
from .structure_candidates import (
    Candidates,
    FormulaKey,
    candidates_by_formula,
    candidates_by_mass,
    formula_key,
    without_window,
)
from .structure_hits import StructureHits
from .structure_rows import DROPPED_SCHEMA, STRUCTURE_SCHEMA, structure_rows

if TYPE_CHECKING:
    import faiss

DROPPED = "dropped.tsv"

OWN_FORMULA = "query"
"""In place of a formula: that of each query."""


class MoleculeEmbedder(Embedder, Protocol):
    """What an index of structures asks of a model; one that was fine-tuned with structures gives it."""

    def embed_molecules(self, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_molecules, dim), comparable with `embed` by inner product."""


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The best candidates of one query, and what is told of them."""

    candidates: Candidates
    rows: np.ndarray
    scores: np.ndarray
    num_candidates: int
    note: str


class StructureIndex(SavedIndex):
    """A database of structures, embedded.

    Rows are ordered by monoisotopic mass, then by InChIKey, so that a window of masses is a slice of the vectors.
    Make one with `StructureIndex.build`, keep it with `save`, and get it back with `StructureIndex.open`.

    Attributes
    ----------
    vectors : float32 array of shape (n_structures, dim)
        Rows of unit length, read-only.
    mass : float64 array of shape (n_structures,)
        Monoisotopic, in Da, ascending.
    charge : int8 array of shape (n_structures,)
        As drawn.
    manifest : dict
        What made the index, from what, with which counts.
    folder : Path or None
        Where it is saved.
    """

    def __init__(
        self,
        vectors: faiss.IndexFlatIP,
        structures: pa.Table | None,
        dropped: pa.Table | None,
        manifest: Mapping[str, Any],
        *,
        model: Embedder | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(vectors, manifest, model, folder)
        self._structures = structures
        self._dropped = dropped
        numeric = self._columns(["mass", "charge", "anions"])
        self.mass: np.ndarray = numeric["mass"].to_numpy()
        self.charge: np.ndarray = numeric["charge"].to_numpy()
        self._anions: np.ndarray = numeric["anions"].to_numpy()

    @classmethod
    def build(
        cls,
        model: MoleculeEmbedder,
        molecules: Iterable[NamedStructure | str],
        *,
        workers: int | None = 1,
        progress: bool = False,
    ) -> StructureIndex:
        """Embed a database of structures.

        Parameters
        ----------
        model : IonbedModel
            Fine-tuned with structures.
        molecules : iterable of NamedStructure or str
            As `ionbed.spectra.molecule_files.read_molecules` reads them, or SMILES or InChI. Of a salt the heaviest
            organic part is kept, made neutral. Entries of one molecule (first InChIKey block, and mass) become one row,
            with all their names. Entries that RDKit cannot read are left out and counted in the manifest.
        workers : int or None
            Processes that read the structures; all cores where None (a script must then guard its main part by
            ``if __name__ == "__main__"``).
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            The model was not trained with structures, or there is no structure that can be read.
        """
        model.embed_molecules([])  # a model that cannot says so before the structures are read
        rows, dropped, num_read = structure_rows(molecules, workers=workers, progress=progress)
        return cls._of_rows(model, rows, dropped, num_read, workers=workers, progress=progress)

    @classmethod
    def _of_rows(
        cls,
        model: MoleculeEmbedder,
        rows: pa.Table,
        dropped: pa.Table,
        num_read: int,
        *,
        workers: int | None,
        progress: bool,
    ) -> StructureIndex:
        import faiss

        embedded = model.embed_molecules(rows["smiles"].to_pylist(), workers=workers, progress=progress)
        vectors = checked_vectors(embedded, len(rows))
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        reasons = Counter(dropped["reason"].to_pylist())
        manifest = {
            "command": COMMAND,
            "kind": "structures",
            "model_hash": model.model_hash(),
            "embedding_dim": vectors.shape[1],
            "inputs": [],
            "counts": {
                "read": num_read,
                "kept": len(rows),
                "merged": num_read - len(rows) - len(dropped),
                "dropped": dict(sorted(reasons.items())),
            },
        }
        return cls(index, rows, dropped, manifest, model=model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Embedder | None = None) -> StructureIndex:
        """Open a saved index; its vectors stay on disk and are mapped into memory.

        Parameters
        ----------
        folder : path
        model : IonbedModel, optional
            To embed queries with. By default the copy within the folder, loaded when it is first needed.

        Raises
        ------
        InputError
            The folder is no index of structures or is damaged, or ``model`` is not the model it was built with.
        """
        folder = Path(folder)
        manifest, vectors = open_index_folder(folder, "structures", model)
        index = cls(vectors, None, None, manifest, model=model, folder=folder)
        if not len(index) == len(index.mass) == manifest["counts"]["kept"]:
            raise InputError(f"{folder}: its vectors, metadata and manifest differ in number; build the index again")
        return index

    @cached_property
    def metadata(self) -> pa.Table:
        """`ionbed.embeddings.structure_rows.STRUCTURE_SCHEMA` of every row."""
        return self._columns(STRUCTURE_SCHEMA.names).combine_chunks()

    @property
    def dropped(self) -> pa.Table:
        """The entries that gave no row, with the reason: `ionbed.embeddings.structure_rows.DROPPED_SCHEMA`."""
        if self._dropped is None:
            assert self.folder is not None, "an index that was not opened from a folder has its table"
            try:
                self._dropped = _read_dropped(self.folder / DROPPED)
            except (OSError, pa.ArrowException) as error:
                raise damaged(self.folder, error) from None
        return self._dropped

    def search(
        self,
        queries: Iterable[Spectrum],
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        *,
        formula: str | None = None,
    ) -> StructureHits:
        """Rank the structures that each query may be.

        The search is exact, and a query's hits do not depend on the queries beside it. Equal scores are ranked by row.

        Parameters
        ----------
        queries : iterable of Spectrum
            With their adduct; where it is unknown, the usual ones of the polarity are tried
            (`ionbed.embeddings.structure_candidates.USUAL_ADDUCTS`).
        k : int
            Hits per query, at most.
        precursor_ppm : float or None
            Largest difference of the query's precursor from the m/z of the structure as the query's adduct, in ppm of
            the structure's; None to search the whole index.
        formula : str or None
            Instead of the mass: the formula of the candidates; `OWN_FORMULA` for that of each query.

        Raises
        ------
        InputError
            ``k``, ``precursor_ppm`` or ``formula`` is none, or a query has no peaks.
        """
        check_structure_search(k, precursor_ppm, formula)
        queries = list(queries)
        vectors = embed_queries(self.model, queries, self.vectors.shape[1])
        if formula is None and precursor_ppm is None:
            ranked = self._ranked_openly(queries, vectors, min(k, len(self)))
        else:
            ranked = self._ranked_among(queries, vectors, k, precursor_ppm, formula)
        found = Nearest.empty(len(queries), k)
        errors, adducts = np.full(found.rows.shape, np.nan), np.full(found.rows.shape, None, object)
        num_candidates, notes = np.zeros(len(queries), np.int64), []
        for query, one in enumerate(ranked):
            place, num_hits = np.searchsorted(one.candidates.rows, one.rows), len(one.rows)
            names = [adduct.name for adduct in one.candidates.tried.adducts]
            found.rows[query, :num_hits], found.scores[query, :num_hits] = one.rows, one.scores
            errors[query, :num_hits] = one.candidates.error_ppm[place]
            adducts[query, :num_hits] = [None if n < 0 else names[n] for n in one.candidates.adduct[place].tolist()]
            num_candidates[query] = one.num_candidates
            notes.append(one.note)
        return StructureHits(
            found.rows, found.scores, errors, adducts, num_candidates, tuple(notes), structures=self.metadata
        )

    def info(self) -> dict[str, Any]:
        """Return what the index holds, for a person to read: counts, masses, model, inputs."""
        return {
            "folder": None if self.folder is None else str(self.folder),
            "ionbed_version": self.manifest.get("ionbed_version"),
            "kind": "structures",
            "structures": len(self),
            "charged": int(np.count_nonzero(self.charge)),
            "formulas": len(self._rows_of_formula),
            "lowest_mass": float(self.mass[0]),
            "highest_mass": float(self.mass[-1]),
            **self._origin(),
        }

    @cached_property
    def _formula(self) -> np.ndarray:
        return np.array(self._columns(["formula"])["formula"].to_pylist(), object)

    @cached_property
    def _rows_of_formula(self) -> dict[FormulaKey, np.ndarray]:
        encoded = self._columns(["formula"])["formula"].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy()
        keys = [formula_key(text) for text in encoded.dictionary.to_pylist()]
        order = np.argsort(codes, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(codes, minlength=len(keys)))[:-1])
        found: dict[FormulaKey, np.ndarray] = {}
        for key, rows in zip(keys, groups, strict=True):  # formulas that differ in their charge have one key
            if key is not None:
                found[key] = np.sort(np.concatenate([found[key], rows])) if key in found else rows
        return found

    def _ranked_openly(self, queries: Sequence[Spectrum], vectors: np.ndarray, k: int) -> Iterator[_Ranked]:
        nobody, unknown = np.zeros(len(self), np.int8), np.zeros(len(vectors), np.int8)  # structures have no polarity
        found = nearest_of_all(self._faiss, self.vectors, nobody, vectors, unknown, k)
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
            yield _Ranked(
                without_window(query, np.sort(rows), self.mass, self.charge, self._anions), rows, scores, len(self), ""
            )

    def _ranked_among(
        self,
        queries: Sequence[Spectrum],
        vectors: np.ndarray,
        k: int,
        precursor_ppm: float | None,
        formula: str | None,
    ) -> Iterator[_Ranked]:
        if formula is not None:
            formulas = [_formula_of(query, formula) for query in queries]
            compared = candidates_by_formula(
                self._rows_of_formula, self.mass, self.charge, self._anions, queries, formulas
            )
        else:
            assert precursor_ppm is not None, "an open search has no candidates of its own"
            compared = candidates_by_mass(self.mass, self.charge, self._anions, self._formula, queries, precursor_ppm)
        # One query after the other: the candidates of wide windows, all at once, would not fit in memory.
        for query, vector, candidates in zip(queries, vectors, compared, strict=True):
            rows, scores = nearest_among(self.vectors, vector, candidates.rows, k)
            note = _note(query, candidates, precursor_ppm, formula)
            yield _Ranked(candidates, rows, scores, len(candidates.rows), note)

    def _write_metadata(self, folder: Path) -> None:
        table = self._columns(STRUCTURE_SCHEMA.names).cast(STRUCTURE_SCHEMA).combine_chunks()
        pq.write_table(table, folder / METADATA, compression="zstd", write_page_checksum=True)
        _write_dropped(self.dropped, folder / DROPPED)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        if self._structures is not None:
            return self._structures.select(list(names))
        assert self.folder is not None, "an index without its table in memory was opened from a folder"
        try:
            # Of a large file no checksum was compared at the opening; those of the pages that are read are here.
            return pq.read_table(
                self.folder / METADATA, columns=list(names), memory_map=True, page_checksum_verification=True
            )
        except (OSError, KeyError, pa.ArrowException) as error:
            raise damaged(self.folder, error) from None


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: MoleculeEmbedder,
    *,
    workers: int | None = 1,
    overwrite: bool = False,
) -> StructureIndex:
    """Build an index of a file of molecules, and save it.

    Parameters
    ----------
    input : path
        See `ionbed.spectra.molecule_files.read_molecules`.
    out : path
        The folder to write.
    model : IonbedModel
        Fine-tuned with structures.
    workers : int or None
        Processes that read the structures; all cores where None.
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    StructureIndex
        As `StructureIndex.open` gives it.

    Raises
    ------
    InputError
        The input cannot be read or holds no structure, ``out`` is taken or would replace the input, or the model was
        not trained with structures.
    """
    refuse_input_as_output(out, input)
    refuse_existing(out, overwrite=overwrite)
    model.embed_molecules([])
    entries = read_molecules(Path(input))
    try:
        rows, dropped, num_read = structure_rows(entries, workers=workers, progress=True)
    except InputError as error:
        raise InputError(f"{input}: {error}") from None
    index = StructureIndex._of_rows(model, rows, dropped, num_read, workers=workers, progress=True)
    index.manifest["inputs"] = [describe_input(input)]
    index.save(out, overwrite=overwrite)
    return StructureIndex.open(out, model)


def check_structure_search(k: int, precursor_ppm: float | None, formula: str | None) -> None:
    """Raise `InputError` if the number of hits, the window or the formula is none."""
    check_search_options(k, precursor_ppm)
    if formula is not None and formula != OWN_FORMULA and formula_key(formula) is None:
        raise InputError(
            f"{formula!r} is no formula; write one like C6H12O6, or '{OWN_FORMULA}' for that of each query"
        )


def _formula_of(query: Spectrum, formula: str) -> str | None:
    return query.formula if formula == OWN_FORMULA else formula


def _note(query: Spectrum, candidates: Candidates, precursor_ppm: float | None, formula: str | None) -> str:
    """Return why a query has no candidates, or what was tried in place of an unknown adduct; '' where all is known."""
    if formula is not None:
        return "" if len(candidates.rows) else _why_none_of_formula(_formula_of(query, formula))
    tried = candidates.tried
    if len(candidates.rows) or not tried.adducts:
        return tried.note
    as_what = tried.adducts[0].name if tried.stated else f"a usual adduct ({tried.note})"
    return f"no structure within {precursor_ppm:g} ppm as {as_what}"


def _why_none_of_formula(formula: str | None) -> str:
    if formula is None:
        return "the query's formula is unknown"
    if formula_key(formula) is None:
        return f"the query's formula {formula!r} cannot be read"
    return f"no structure of the formula {formula}"


def _write_dropped(dropped: pa.Table, path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, dialect="excel-tab", lineterminator="\n")
        writer.writerow(dropped.column_names)
        writer.writerows(row.values() for row in dropped.to_pylist())


def _read_dropped(path: Path) -> pa.Table:
    convert = pacsv.ConvertOptions(column_types=DROPPED_SCHEMA, strings_can_be_null=True, null_values=[""])
    return pacsv.read_csv(
        path, parse_options=pacsv.ParseOptions(delimiter="\t", newlines_in_values=True), convert_options=convert
    )
