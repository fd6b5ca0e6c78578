"""Predicted spectra that an index of structures keeps beside them: their peaks, and their embeddings by its model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import InputError
from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.columns import SpectrumColumns
from .index_folder import Embedder, checked_vectors, damaged, named_where_damaged
from .structure_predicted import owners_of, predicted_table

PREDICTED, PREDICTED_VECTORS = "predicted.parquet", "predicted.npy"

SPECTRA_PER_GROUP = 1024
"""Of the file: what is read for one structure."""

SPECTRA_AT_ONCE = 8192
"""Whose embeddings are in memory in single precision while an index is built."""

_OWNER = "structure"


class StructureSpectra:
    """The predicted spectra of the structures of an index, in the order of its rows; those saved are read as needed.

    Make them with `StructureSpectra.predict`, keep them with `write`, and get them back with `StructureSpectra.open`.

    Attributes
    ----------
    owner : int64 array of shape (n_spectra,)
        Row of the structure of each, ascending.
    vectors : float16 array of shape (n_spectra, dim)
        Their unit embeddings; of a saved index they stay on disk.
    """

    def __init__(self, vectors: np.ndarray, table: pa.Table | None, folder: Path | None) -> None:
        self.vectors, self._table, self._folder = vectors, table, folder
        self.owner: np.ndarray = self._read([_OWNER])[_OWNER].to_numpy().astype(np.int64)

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.owner)

    @classmethod
    def predict(
        cls, model: Embedder, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False
    ) -> StructureSpectra:
        """Predict the spectra of structures and embed them; a molecule takes some 0.1 s.

        Parameters
        ----------
        model : IonbedModel
        smiles : sequence of str
            Of every row of the index.
        workers : int or None
            Processes that predict; all cores where None.
        progress : bool
            Show the progress on stderr.

        Raises
        ------
        InputError
            None of the structures can be predicted.
        """
        predicted = predicted_table(smiles, workers=workers, progress=progress)
        if not len(predicted):
            raise InputError(
                "no structure can be predicted (salts, several charges, labelled isotopes, or no group that holds a "
                "charge); add some that can, or leave --predict-spectra out, with a model that embeds structures"
            )
        owner = pa.array(owners_of(predicted), pa.int32())
        table = predicted.select(list(SpectrumColumns.TABLE_COLUMNS)).append_column(_OWNER, owner).combine_chunks()
        del predicted  # of a large database gigabytes, and `table` has what is needed of it
        return cls(_embedded(model, SpectrumColumns.from_table(table), progress), table, None)

    @classmethod
    def open(cls, folder: Path, num_structures: int, dim: int) -> StructureSpectra:
        """Open those in the folder of an index.

        Raises
        ------
        InputError
            They are damaged, or not of so many structures and dimensions.
        """
        try:
            vectors = np.load(folder / PREDICTED_VECTORS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise damaged(folder / PREDICTED_VECTORS, error) from None
        spectra = cls(vectors, None, folder)
        fits = vectors.shape == (len(spectra), dim) and vectors.dtype == np.float16
        if not fits or not len(spectra) or (np.diff(spectra.owner) < 0).any() or spectra.owner[-1] >= num_structures:
            raise InputError(f"{folder}: its predicted spectra are not those of its structures; build the index again")
        return spectra

    def write(self, folder: Path) -> None:
        """Write them into the folder of an index."""
        pq.write_table(
            self._read([*SpectrumColumns.TABLE_COLUMNS, _OWNER]),
            folder / PREDICTED,
            compression="zstd",
            row_group_size=SPECTRA_PER_GROUP,
            write_page_checksum=True,
        )
        np.save(folder / PREDICTED_VECTORS, self.vectors)

    def of(self, structures: np.ndarray) -> tuple[SpectrumColumns, np.ndarray, np.ndarray]:
        """Return the predicted spectra of some structures; only the parts of the file that are needed are read.

        Parameters
        ----------
        structures : int64 array of shape (n,)
            Rows of the index, ascending, each once.

        Returns
        -------
        columns : SpectrumColumns
        owner : int64 array of shape (n_spectra,)
            The place of each one's structure in ``structures``, ascending.
        rows : int64 array of shape (n_spectra,)
            Of `vectors`.
        """
        start = np.searchsorted(self.owner, structures, "left")
        count = np.searchsorted(self.owner, structures, "right") - start
        rows = np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
        return self._columns(rows), np.repeat(np.arange(len(structures)), count), rows

    def counts(self, num_structures: int) -> dict[str, int]:
        """Return how many spectra there are, of how many structures, and how many structures have none."""
        predicted = len(np.unique(self.owner))
        return {"spectra": len(self), "structures": predicted, "without": num_structures - predicted}

    def _columns(self, rows: np.ndarray) -> SpectrumColumns:
        """Return the spectra at ``rows``, ascending."""
        if self._table is not None:
            return self._in_memory.take(rows)
        bounds = self._group_bounds
        groups = np.unique(np.searchsorted(bounds, rows, "right") - 1)
        with named_where_damaged(self._path):
            table = self._file.read_row_groups(groups.tolist(), columns=list(SpectrumColumns.TABLE_COLUMNS))
        of_row = np.searchsorted(groups, np.searchsorted(bounds, rows, "right") - 1)
        sizes = np.diff(bounds)[groups]
        place = rows - bounds[groups][of_row] + (np.cumsum(sizes) - sizes)[of_row]
        return SpectrumColumns.from_table(table).take(place)

    @cached_property
    def _in_memory(self) -> SpectrumColumns:
        return SpectrumColumns.from_table(self._read(list(SpectrumColumns.TABLE_COLUMNS)))

    @cached_property
    def _file(self) -> pq.ParquetFile:
        # Of a large file no checksum was compared at the opening; those of the pages that are read are here.
        return pq.ParquetFile(self._path, memory_map=True, page_checksum_verification=True)

    @cached_property
    def _group_bounds(self) -> np.ndarray:
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def _read(self, columns: list[str]) -> pa.Table:
        if self._table is not None:
            return self._table.select(columns)
        with named_where_damaged(self._path):
            return self._file.read(columns=columns)

    @property
    def _path(self) -> Path:
        assert self._folder is not None, "spectra without a table in memory were opened from a folder"
        return self._folder / PREDICTED


def _embedded(model: Embedder, spectra: SpectrumColumns, progress: bool) -> np.ndarray:
    """Return the embeddings of spectra, float16 of shape (n_spectra, dim)."""
    parts = []
    bar = show_progress("embed predicted spectra", len(spectra), unit="spectra") if progress else unseen()
    with bar as advance:
        for begin in range(0, len(spectra), SPECTRA_AT_ONCE):
            part = spectra.take(np.arange(begin, min(begin + SPECTRA_AT_ONCE, len(spectra))))
            parts.append(checked_vectors(model.embed(part), len(part)).astype(np.float16))
            advance(len(part))
    return np.concatenate(parts)
