"""The labelled spectra that an evaluation may use, as columns: molecule, fold, laboratory, identity of peaks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.split import Split
from ..spectra.store import Store

METADATA_COLUMNS = ("spectrum_id", "inchikey", "smiles", "laboratory", "predicted")


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """The ``n`` spectra of a store that have a structure, a polarity and a fold, of ``m`` molecules.

    Attributes
    ----------
    columns : SpectrumColumns of n spectra
    spectrum_id : object array of str, of shape (n,)
    molecule : int64 array of shape (n,)
        Index into ``inchikey_block`` and ``smiles``.
    inchikey_block : str array of shape (m,)
        First InChIKey blocks, sorted: what counts as one molecule.
    smiles : object array of str, of shape (m,)
    fold : str array of shape (n,)
        'train', 'validation', 'test' or 'excluded'.
    laboratory : int64 array of shape (n,)
        -1 where unknown.
    peaks : int64 array of shape (n,)
        Equal for two spectra whose peak lists are identical: one measurement deposited twice.
    table : pyarrow.Table of n rows
        The rows of the store, for figures.
    num_predicted : int
        How many of the n were predicted by a program.
    excluded : dict of str to int
        Spectra of the store left out of the evaluation, by reason.
    """

    columns: SpectrumColumns
    spectrum_id: np.ndarray
    molecule: np.ndarray
    inchikey_block: np.ndarray
    smiles: np.ndarray
    fold: np.ndarray
    laboratory: np.ndarray
    peaks: np.ndarray
    table: pa.Table
    num_predicted: int
    excluded: dict[str, int]

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.columns)

    def rows_in(self, fold: str) -> np.ndarray:
        """Return the rows (int64, ascending) of the spectra in ``fold``."""
        return np.flatnonzero(self.fold == fold)

    def take(self, rows: np.ndarray) -> EvaluationData:
        """Return the spectra at ``rows`` (int64, in that order); molecules keep their numbers, spectra or none."""
        return replace(
            self,
            columns=self.columns.take(rows),
            spectrum_id=self.spectrum_id[rows],
            molecule=self.molecule[rows],
            fold=self.fold[rows],
            laboratory=self.laboratory[rows],
            peaks=self.peaks[rows],
            table=self.table.take(pa.array(rows)),
            num_predicted=int(np.sum(self.table["predicted"].to_numpy()[rows])),
        )


def load_evaluation_data(store: Store, split: Split) -> EvaluationData:
    """Take the evaluable spectra of ``store`` with the folds of ``split``.

    A spectrum without structure cannot be judged, and one without polarity cannot be compared fairly; both are left
    out and counted.

    Raises
    ------
    InputError
        No spectrum can be evaluated, or a spectrum of the store is not in the split.
    """
    table = store.table()
    counts: dict[str, int] = {}
    for reason, column in (("no structure", "inchikey"), ("no structure", "smiles"), ("unknown polarity", "polarity")):
        kept = table.filter(table[column].is_valid())
        counts[reason] = counts.get(reason, 0) + len(table) - len(kept)
        table = kept
    if not len(table):
        raise InputError(
            f"{store.folder}: no spectrum has both a structure and a polarity ({counts}); evaluate needs such spectra"
        )
    table = table.combine_chunks()
    columns = SpectrumColumns.from_table(table)
    metadata = {name: table[name].to_pylist() for name in METADATA_COLUMNS}
    blocks = np.array([key[:14] for key in metadata["inchikey"]])
    inchikey_block, molecule = np.unique(blocks, return_inverse=True)
    smiles = np.full(len(inchikey_block), None, object)
    for index, text in zip(molecule, metadata["smiles"], strict=True):
        # One structure may be written in several ways (its stereoisomers): the first in
        # alphabetical order stands for all, whatever the order of the store.
        if smiles[index] is None or text < smiles[index]:
            smiles[index] = text
    measured = (
        (columns.mz[a:b].tobytes(), columns.intensity[a:b].tobytes())
        for a, b in zip(columns.offsets[:-1], columns.offsets[1:], strict=True)
    )
    return EvaluationData(
        columns=columns,
        spectrum_id=np.array(metadata["spectrum_id"], object),
        molecule=molecule.astype(np.int64),
        inchikey_block=inchikey_block,
        smiles=smiles,
        fold=split.fold_of_rows(table),
        laboratory=_codes(metadata["laboratory"]),
        peaks=_codes(measured),
        table=table,
        num_predicted=int(np.sum(metadata["predicted"])),
        excluded=counts,
    )


def _codes(values: Iterable[Hashable | None]) -> np.ndarray:
    """Return a number for each distinct value, by first appearance, -1 for None; int64 of shape (n,)."""
    seen: dict[Hashable, int] = {}
    return np.array([-1 if value is None else seen.setdefault(value, len(seen)) for value in values], np.int64)
