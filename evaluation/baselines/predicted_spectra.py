"""A look-up in predicted spectra: a candidate is as good as the best of its predicted spectra resembles the query.

Nobody has measured a candidate of a structure database, but rules of fragmentation say what its spectra would hold
(`ionbed.spectra.simulate`), and those are searched like any library. It needs no training; who learns to read
structures out of spectra has to do better.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ...embeddings.structure_predicted import best_of_predictions, entropy_lookup, owners_of, predicted_table
from ...spectra.columns import SpectrumColumns
from ...spectra.lookups import LookupOptions
from ...spectra.store import SCHEMA
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Entry
from ..scorers import Kind
from ..table_cache import cached_table

logger = logging.getLogger("ionbed")

PREDICTED_SPECTRA = "predicted spectra"
VERSION = 1
"""Of the prediction: a number for each change after which a molecule has other spectra; older ones are not reused."""


@dataclass(frozen=True)
class PredictedSpectraOptions:
    """What the look-up in predicted spectra may take.

    Attributes
    ----------
    most_molecules : int
        With more candidates, over all queries, the row is left out: a molecule takes some 50 ms. 0 leaves it out.
    """

    most_molecules: int = 10_000

    def __post_init__(self) -> None:
        if self.most_molecules < 0:
            raise ValueError(f"'most_molecules' is {self.most_molecules}; it must be at least 0")


class PredictedLibrary:
    """Predicts the spectra of molecules, each once, for all rows and questions of an evaluation.

    Parameters
    ----------
    cache : Path or None
        Folder that keeps them.
    workers : int or None
        Processes; all cores where None.
    """

    def __init__(self, cache: Path | None, workers: int | None) -> None:
        self._cache, self._workers = cache, workers
        self._known: dict[str, pa.Table] = {}

    def spectra(self, smiles: Sequence[str]) -> tuple[SpectrumColumns, np.ndarray]:
        """Return the predicted spectra of some molecules, and the place of the molecule of each; int64 of shape (n,).

        Molecules that cannot be predicted have none: salts, several charges, labelled isotopes.
        """
        new = sorted({text for text in smiles if text not in self._known})
        if new:
            table = self._predicted(new)
            owner = owners_of(table)
            ends = np.cumsum(np.bincount(owner, minlength=len(new)))
            self._known.update(
                (text, table.slice(start, stop - start))
                for text, start, stop in zip(new, [0, *ends[:-1].tolist()], ends.tolist(), strict=True)
            )
        tables = [self._known[text] for text in smiles]
        places = np.repeat(np.arange(len(smiles)), [len(table) for table in tables])
        return SpectrumColumns.from_table(pa.concat_tables(tables).combine_chunks()), places

    def _predicted(self, smiles: list[str]) -> pa.Table:
        """Return the spectra of molecules, in their order; ``name`` is the place of each one's molecule."""
        path = None
        if self._cache is not None:
            made_of = "\n".join([f"{VERSION}", *smiles])
            path = Path(self._cache) / f"predicted-spectra-{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.parquet"
        return cached_table(path, lambda: predicted_table(smiles, workers=self._workers), SCHEMA)


class PredictedSpectra:
    """The spectral entropy similarity of the query and a candidate's predicted spectrum: the best over energies.

    Only spectra of the query's polarity are compared, whatever its adduct. A candidate without a predicted spectrum
    gets 0, as one that shares no peak.
    """

    label = PREDICTED_SPECTRA
    kind: Kind = "look-up"

    def __init__(
        self,
        data: EvaluationData,
        candidates: Candidates,
        library: PredictedLibrary,
        lookups: LookupOptions,
        *,
        workers: int | None = None,
    ) -> None:
        self._columns, self._smiles, self._library = data.columns, candidates.smiles, library
        self._lookups, self._workers = lookups, workers

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return similarities from 0 to 1; see `ionbed.evaluation.scorers.StructureScorer`."""
        rows, row_of_pair = np.unique(query, return_inverse=True)
        molecules, molecule_of_pair = np.unique(molecule, return_inverse=True)
        if not len(rows):
            return np.zeros(0)
        predicted, owner = self._library.spectra([self._smiles[number] or "" for number in molecules.tolist()])
        lookup = entropy_lookup(self._columns.take(rows), predicted, self._lookups, workers=self._workers)

        def similarity(pair: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
            return lookup.pair_scores(row_of_pair[pair], len(rows) + spectrum)

        best = best_of_predictions(
            self._columns.polarity[query], molecule_of_pair, predicted.polarity, owner, similarity
        )
        return np.nan_to_num(best)


def predicted_library(
    options: PredictedSpectraOptions,
    num_candidates: int,
    *,
    of_predicted: bool,
    cache: Path | None,
    workers: int | None,
) -> PredictedLibrary | None:
    """Return what predicts the candidates, or None where that would take too long or tell the answer.

    Parameters
    ----------
    num_candidates : int
        Molecules that are a candidate of any query.
    of_predicted : bool
        Some of the evaluated spectra are predicted themselves: the same rules predict them again.
    """
    if of_predicted or not options.most_molecules:
        return None
    if num_candidates > options.most_molecules:
        logger.warning(
            "no row '%s': %s candidate molecules; to predict their spectra, raise predicted_spectra.most_molecules "
            "(%s)", PREDICTED_SPECTRA, f"{num_candidates:,}", f"{options.most_molecules:,}",
        )  # fmt: skip
        return None
    return PredictedLibrary(cache, workers)


def predicted_spectra_entry(library: PredictedLibrary, lookups: LookupOptions, *, workers: int | None) -> Entry:
    """Return the row of the look-up in predicted spectra."""

    def build(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> PredictedSpectra:
        return PredictedSpectra(data, candidates, library, lookups, workers=workers)

    # Cleaning removes the peak of the precursor, whose m/z it must know.
    return Entry(PREDICTED_SPECTRA, "look-up", (build,), ("precursor_mz",), kinds=frozenset({"retrieval"}))
