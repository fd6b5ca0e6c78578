"""The index of structures: unit vectors of molecules in order of their mass, or their predicted spectra, or both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..artifacts import describe_input, refuse_existing, refuse_input_as_output
from ..errors import InputError
from ..spectra.columns import SpectrumColumns, text_codes
from ..spectra.molecule_files import NamedStructure, read_molecules
from ..spectra.spectrum import Spectrum
from .calibration import DEPTH
from .index_folder import (
    COMMAND,
    METADATA,
    VECTORS,
    Embedder,
    MappedColumns,
    MoleculeEmbedder,
    SavedIndex,
    as_array,
    checked_vectors,
    compare_small_files,
    damaged,
    embeds_structures,
    open_flat_vectors,
    read_index_manifest,
    refuse_other_kind,
    refuse_other_model,
)
from .nearest import nearest_among, nearest_of_all
from .queries import embed_queries, refuse_without_peaks
from .structure_calibration import calibration_told, probabilities, structure_curve
from .structure_candidates import (
    Candidates,
    FormulaKey,
    candidates_by_formula,
    candidates_by_mass,
    check_structure_search,
    formula_of,
    note_of,
    rows_by_formula,
    without_window,
)
from .structure_fusion import StructureFusion, structure_fusion_of
from .structure_hits import Ranked, StructureHits, StructureScoreName, gathered
from .structure_ranking import PredictedRanking
from .structure_rows import STRUCTURE_SCHEMA, read_dropped, structure_rows, write_dropped
from .structure_spectra import StructureSpectra

if TYPE_CHECKING:
    import faiss

DROPPED = "dropped.tsv"


class StructureIndex(SavedIndex):
    """A database of structures, embedded.

    Rows are ordered by monoisotopic mass, then by InChIKey, so that a window of masses is a slice of the vectors.
    Make one with `StructureIndex.build`, keep it with `save`, and get it back with `StructureIndex.open`.

    Attributes
    ----------
    vectors : float32 array of shape (n_structures, dim)
        Rows of unit length, read-only; none, of shape (0, dim), where the model was not trained with structures.
    spectra : StructureSpectra or None
        Predicted spectra of the structures, where the index was built with them.
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
        structures: pa.Table | MappedColumns,
        dropped: pa.Table | None,
        manifest: Mapping[str, Any],
        *,
        spectra: StructureSpectra | None = None,
        model: Embedder | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(manifest, model, folder)
        self._faiss = vectors
        self.vectors: np.ndarray = as_array(vectors)
        self.spectra = spectra
        self._structures = structures
        self._dropped = dropped
        numeric = self._columns(["mass", "charge", "anions"])
        self.mass: np.ndarray = numeric["mass"].to_numpy()
        self.charge: np.ndarray = numeric["charge"].to_numpy()
        self._anions: np.ndarray = numeric["anions"].to_numpy()
        self._by_spectra: dict[StructureScoreName, PredictedRanking] = {}

    def __len__(self) -> int:
        """Return the number of structures."""
        return len(self.mass)

    @classmethod
    def build(
        cls,
        model: MoleculeEmbedder,
        molecules: Iterable[NamedStructure | str],
        *,
        predict_spectra: bool = False,
        workers: int | None = 1,
        progress: bool = False,
    ) -> StructureIndex:
        """Embed a database of structures.

        Parameters
        ----------
        model : IonbedModel
            Fine-tuned with structures, or any with ``predict_spectra``.
        molecules : iterable of NamedStructure or str
            As `ionbed.spectra.molecule_files.read_molecules` reads them, or SMILES or InChI. Of a salt the heaviest
            organic part is kept, made neutral. Entries of one molecule (first InChIKey block, and mass) become one row,
            with all their names. Entries that RDKit cannot read are left out and counted in the manifest.
        predict_spectra : bool
            Keep predicted spectra of the structures too, by which they can be ranked: some 0.1 s a molecule.
        workers : int or None
            Processes that read the structures and predict; all cores where None (a script must then guard its main part
            by ``if __name__ == "__main__"``).
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            The model was not trained with structures and no spectra are to be predicted, or there is no structure that
            can be read, or none that can be predicted.
        """
        embeds_structures(model, predict_spectra)  # a model that cannot says so before the structures are read
        rows, dropped, num_read = structure_rows(molecules, workers=workers, progress=progress)
        return cls._of_rows(
            model, rows, dropped, num_read, predict_spectra=predict_spectra, workers=workers, progress=progress
        )

    @classmethod
    def _of_rows(
        cls,
        model: MoleculeEmbedder,
        rows: pa.Table,
        dropped: pa.Table,
        num_read: int,
        *,
        predict_spectra: bool,
        workers: int | None,
        progress: bool,
    ) -> StructureIndex:
        import faiss

        smiles = rows["smiles"].to_pylist()
        spectra = None
        if predict_spectra:
            spectra = StructureSpectra.predict(model, smiles, workers=workers, progress=progress)
        if embeds_structures(model, predict_spectra):
            vectors = checked_vectors(model.embed_molecules(smiles, workers=workers, progress=progress), len(rows))
        else:
            assert spectra is not None, "a model that embeds no structures is refused where none are predicted"
            vectors = np.empty((0, spectra.vectors.shape[1]), np.float32)
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
        if spectra is not None:
            manifest["predicted"] = spectra.counts(len(rows))
        return cls(index, rows, dropped, manifest, spectra=spectra, model=model)

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
        manifest = read_index_manifest(folder)
        refuse_other_kind(folder, manifest, "structures")
        compare_small_files(folder, manifest)
        if model is not None:
            refuse_other_model(folder, manifest, model)
        vectors = open_flat_vectors(folder)
        kept = manifest["counts"]["kept"]
        spectra = StructureSpectra.open(folder, kept, vectors.d) if manifest.get("predicted") else None
        rows = MappedColumns(folder / METADATA)
        index = cls(vectors, rows, None, manifest, spectra=spectra, model=model, folder=folder)
        num_vectors = len(index.vectors)
        if len(index) != kept or num_vectors != (kept if num_vectors or spectra is None else 0):
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
                self._dropped = read_dropped(self.folder / DROPPED)
            except (OSError, pa.ArrowException) as error:
                raise damaged(self.folder / DROPPED, error) from None
        return self._dropped

    def search(
        self,
        queries: Iterable[Spectrum],
        k: int = 10,
        precursor_ppm: float | None = 10.0,
        *,
        formula: str | None = None,
        score: StructureScoreName | None = None,
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
            Instead of the mass: the formula of the candidates; or 'query', for that of each query
            (`ionbed.embeddings.structure_candidates.OWN_FORMULA`).
        score : 'cosine', 'predicted', 'fused' or None
            By what they are ranked; None for the best that the index can (see `score_name`).

        Raises
        ------
        InputError
            ``k``, ``precursor_ppm`` or ``formula`` is none, the index cannot rank by ``score``, or a query has no
            peaks.
        """
        check_structure_search(k, precursor_ppm, formula)
        name = self.score_name(score)
        fusion = self.fusion if name == "fused" else None
        curve = structure_curve(self.manifest, name, precursor_ppm, formula, fusion)
        # A probability is of the lead over the next structure, too, which may not be among few hits.
        depth = k if curve is None else max(k, DEPTH)
        queries = list(queries)
        refuse_without_peaks(queries)
        dim = self.vectors.shape[1]
        is_asked = name != "predicted"  # which needs no embeddings, and so no model
        vectors = embed_queries(self.model, queries, dim) if is_asked else np.empty((0, dim), np.float32)
        if name != "cosine":
            ranked = self._ranked_by_spectra(name, queries, vectors, depth, precursor_ppm, formula)
        elif formula is None and precursor_ppm is None:
            ranked = self._ranked_openly(queries, vectors, min(k, len(self)))
        else:
            ranked = self._ranked_among(queries, vectors, depth, precursor_ppm, formula)
        hits = gathered(ranked, len(queries), depth, name, self.metadata)
        if curve is None:
            return hits
        num_peaks = np.array([len(query) for query in queries], np.int64)
        chances = probabilities(curve, self.molecule, hits.rows, hits.scores, hits.num_candidates, num_peaks, name)
        return replace(hits, probability=chances).first(k)

    def score_name(self, wanted: StructureScoreName | None = None) -> StructureScoreName:
        """Return by what structures are ranked: as wanted, or the first that the index can: fused, cosine, predicted.

        Raises
        ------
        InputError
            The index cannot rank by what is wanted, or there is no such score.
        """
        if wanted not in (None, *get_args(StructureScoreName)):
            raise InputError(f"the score is '{wanted}'; it must be one of {', '.join(get_args(StructureScoreName))}")
        if wanted in ("predicted", "fused") and self.spectra is None:
            raise InputError(
                f"{self.folder or 'the index'}: holds no predicted spectra of its structures; build it with "
                f"--predict-spectra, or leave --score {wanted} out"
            )
        if wanted == "cosine" and not len(self.vectors):
            raise InputError(
                f"{self.folder or 'the index'}: its model embeds no structures; leave --score cosine out to rank them "
                "by their predicted spectra"
            )
        if wanted in ("cosine", "predicted"):
            return wanted
        if self.spectra is not None and self.fusion is not None:
            return "fused"
        if wanted == "fused":
            raise InputError(
                f"{self.folder or 'the index'}: its model carries no weights of scores of structures; build it with a "
                "model that 'ionbed fuse --structures' has written, or leave --score fused out"
            )
        return "cosine" if len(self.vectors) else "predicted"

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
            **({"predicted_spectra": self.manifest["predicted"]} if self.spectra is not None else {}),
            **self._origin(),
            **calibration_told(self.manifest),
        }

    @cached_property
    def blocks(self) -> pa.ChunkedArray:
        """The first InChIKey block of every row: its molecule."""
        return pc.utf8_slice_codeunits(self._columns(["inchikey"])["inchikey"], 0, 14)

    @cached_property
    def molecule(self) -> np.ndarray:
        """A number for each row, int64 of shape (n_structures,), that rows of one first InChIKey block share."""
        return text_codes(self.blocks)[0].astype(np.int64)

    @cached_property
    def fusion(self) -> StructureFusion | None:
        """The weights of the fused score that the model carries."""
        # Kept: to compare it with the model, all weights of the model are hashed.
        return structure_fusion_of(self.model, f"the model of {self.folder or 'the index'}")

    @cached_property
    def _formula(self) -> np.ndarray:
        return np.array(self._columns(["formula"])["formula"].to_pylist(), object)

    @cached_property
    def _rows_of_formula(self) -> dict[FormulaKey, np.ndarray]:
        return rows_by_formula(self._columns(["formula"])["formula"])

    def _ranked_openly(self, queries: Sequence[Spectrum], vectors: np.ndarray, k: int) -> Iterator[Ranked]:
        nobody, unknown = np.zeros(len(self), np.int8), np.zeros(len(vectors), np.int8)  # structures have no polarity
        found = nearest_of_all(self.vectors, nobody, vectors, unknown, k)
        for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
            yield Ranked(
                without_window(query, np.sort(rows), self.mass, self.charge, self._anions), rows, scores, len(self), ""
            )

    def _ranked_by_spectra(
        self,
        name: StructureScoreName,
        queries: Sequence[Spectrum],
        vectors: np.ndarray,
        k: int,
        precursor_ppm: float | None,
        formula: str | None,
    ) -> Iterator[Ranked]:
        if name not in self._by_spectra:
            assert self.spectra is not None, "a score that needs predicted spectra is refused where there are none"
            self._by_spectra[name] = PredictedRanking(
                self.spectra, self.vectors, self.fusion if name == "fused" else None
            )
        compared = self.candidates(queries, precursor_ppm, formula)
        columns = SpectrumColumns.from_spectra(queries)
        ranked = self._by_spectra[name].ranked(columns, vectors, compared, k)
        for query, (candidates, rows, scores) in zip(queries, ranked, strict=True):
            note = note_of(query, candidates, precursor_ppm, formula)
            yield Ranked(candidates, rows, scores, len(candidates.rows), note)

    def _ranked_among(
        self,
        queries: Sequence[Spectrum],
        vectors: np.ndarray,
        k: int,
        precursor_ppm: float | None,
        formula: str | None,
    ) -> Iterator[Ranked]:
        compared = self.candidates(queries, precursor_ppm, formula)
        # One query after the other: the candidates of wide windows, all at once, would not fit in memory.
        for query, vector, candidates in zip(queries, vectors, compared, strict=True):
            rows, scores = nearest_among(self.vectors, vector, candidates.rows, k)
            note = note_of(query, candidates, precursor_ppm, formula)
            yield Ranked(candidates, rows, scores, len(candidates.rows), note)

    def candidates(
        self, queries: Sequence[Spectrum], precursor_ppm: float | None, formula: str | None
    ) -> Iterator[Candidates]:
        """Yield the structures that each query is compared with; parameters are those of `search`."""
        if formula is not None:
            formulas = [formula_of(query, formula) for query in queries]
            return candidates_by_formula(self._rows_of_formula, self.mass, self.charge, self._anions, queries, formulas)
        if precursor_ppm is None:
            everything = np.arange(len(self))
            return (without_window(query, everything, self.mass, self.charge, self._anions) for query in queries)
        return candidates_by_mass(self.mass, self.charge, self._anions, self._formula, queries, precursor_ppm)

    def _write_rows(self, folder: Path) -> dict[str, Any]:
        import faiss

        faiss.write_index(self._faiss, str(folder / VECTORS))
        table = self._columns(STRUCTURE_SCHEMA.names).cast(STRUCTURE_SCHEMA).combine_chunks()
        pq.write_table(table, folder / METADATA, compression="zstd", write_page_checksum=True)
        write_dropped(self.dropped, folder / DROPPED)
        if self.spectra is not None:
            self.spectra.write(folder)
        return self.manifest

    def _columns(self, names: Sequence[str]) -> pa.Table:
        return self._structures.select(list(names))


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: MoleculeEmbedder,
    *,
    predict_spectra: bool = False,
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
        Fine-tuned with structures, or any with ``predict_spectra``.
    predict_spectra, workers
        See `StructureIndex.build`.
    overwrite : bool
        Replace what is in ``out``.

    Returns
    -------
    StructureIndex
        As `StructureIndex.open` gives it.

    Raises
    ------
    InputError
        The input cannot be read or holds no structure, ``out`` is taken or would replace the input, the model was not
        trained with structures and no spectra are to be predicted, or none can be.
    """
    refuse_input_as_output(out, input)
    refuse_existing(out, overwrite=overwrite)
    embeds_structures(model, predict_spectra)
    entries = read_molecules(Path(input))
    try:
        rows, dropped, num_read = structure_rows(entries, workers=workers, progress=True)
        index = StructureIndex._of_rows(
            model, rows, dropped, num_read, predict_spectra=predict_spectra, workers=workers, progress=True
        )
    except InputError as error:
        raise InputError(f"{input}: {error}") from None
    index.manifest["inputs"] = [describe_input(input)]
    index.save(out, overwrite=overwrite)
    return StructureIndex.open(out, model)
