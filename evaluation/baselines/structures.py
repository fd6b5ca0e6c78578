"""Rows that rank candidate structures without any peak, and the oracle that knows the nearest training molecule."""

from __future__ import annotations

import numpy as np

from ...spectra.adducts import ELECTRON_MASS
from ..candidates import IN_NO_FILE, Candidates
from ..dataset import EvaluationData
from ..entries import Build, Entry
from ..outcomes import tanimoto_pairs
from ..retrieval import adduct_arithmetic, adducts_of, plain_formula
from ..scorers import Kind

PRECURSOR_ERROR = "precursor error"
GIVEN_FORMULA = "random, given the formula"
DATABASE_ORDER = "database order"
NEAREST_NEIGHBOUR_ORACLE = "nearest-neighbour oracle"

_ROUNDING = 1e-9


def structure_entries() -> list[Entry]:
    """Return the rows of candidate structures that see no peak, and the nearest-neighbour oracle."""
    builds: list[tuple[str, Kind, tuple[str, ...], Build]] = [
        (GIVEN_FORMULA, "blind", ("formula",), lambda data, candidates, _rows: GivenFormula(data, candidates)),
        (
            PRECURSOR_ERROR,
            "blind",
            ("precursor_mz", "adduct"),
            lambda data, candidates, _rows: PrecursorError(data, candidates),
        ),
        (DATABASE_ORDER, "blind", (), lambda _data, candidates, _rows: DatabaseOrder(candidates)),
        (
            NEAREST_NEIGHBOUR_ORACLE,
            "reference",
            ("truth",),
            lambda data, candidates, _rows: NearestNeighbourOracle(data, candidates),
        ),
    ]
    return [Entry(label, kind, (build,), known) for label, kind, known, build in builds]


class GivenFormula:
    """1 for a candidate with the atoms of the query's formula, 0 for any other: drawing at random among the former.

    The formula is the one that the spectrum states (charge and isotopes aside). Where it states none, all candidates
    get 0: a draw among all.
    """

    label = GIVEN_FORMULA
    kind: Kind = "blind"

    def __init__(self, data: EvaluationData, candidates: Candidates) -> None:
        stated = [plain_formula(text or "") for text in data.table["formula"].to_pylist()]
        drawn = [plain_formula(text) for text in candidates.formula]
        number = {text: place for place, text in enumerate(dict.fromkeys([*stated, *drawn]))}
        self._stated = np.array([number[text] if text else -1 for text in stated], np.int64)
        self._drawn = np.array([number[text] if text else -2 for text in drawn], np.int64)

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return 1 and 0; see `ionbed.evaluation.scorers.StructureScorer`."""
        scores: np.ndarray = (self._stated[query] == self._drawn[molecule]).astype(np.float64)
        return scores


class PrecursorError:
    """The smaller the error of the precursor m/z, in ppm of what the candidate's adduct should have, the better.

    Isomers tie. Where the adduct is unknown all candidates get 0; a candidate without a mass gets no score.
    """

    label = PRECURSOR_ERROR
    kind: Kind = "blind"

    def __init__(self, data: EvaluationData, candidates: Candidates) -> None:
        self._precursor_mz = data.columns.precursor_mz
        self._charge, self._shift, self._num_molecules = adduct_arithmetic(adducts_of(data))
        self._exact_mass = candidates.exact_mass

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return minus the absolute error in ppm; see `ionbed.evaluation.scorers.StructureScorer`."""
        charge, mass = self._charge[query], self._exact_mass[molecule]
        ion_mass = self._num_molecules[query] * mass + self._shift[query] - charge * ELECTRON_MASS
        expected = ion_mass / np.abs(charge)
        # Ions that would weigh nothing are far from any precursor; a candidate can be that small, for a wrong adduct.
        error = np.abs(self._precursor_mz[query] - expected) / np.maximum(np.abs(expected), 1.0) * 1e6
        scores: np.ndarray = np.where(np.isnan(charge) & ~np.isnan(mass), 0.0, -error)
        return scores


class DatabaseOrder:
    """The earlier a molecule stands in the files of candidates, the better; those that no file has come last.

    Databases begin with what is common, and what is common is measured more often. Without files the order is that of
    the first spectra in the store; that of the InChIKeys where there are lists, since to have a spectrum in the store
    would tell the true one from most that only the lists name.
    """

    label = DATABASE_ORDER
    kind: Kind = "blind"

    def __init__(self, candidates: Candidates) -> None:
        place = candidates.place_in_files
        if len(place):
            rank = np.where(place == IN_NO_FILE, place.max() + 1, place)
        elif candidates.list_counts:
            rank = np.argsort(np.argsort(candidates.block.astype(str), kind="stable"), kind="stable")
        else:
            rank = candidates.place
        self._score = -rank.astype(np.float64)

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return minus the place; see `ionbed.evaluation.scorers.StructureScorer`."""
        scores: np.ndarray = self._score[molecule]
        return scores


class NearestNeighbourOracle:
    """The Tanimoto similarity of a candidate to the training molecule that is truly nearest to the query's molecule.

    The best that analogue transfer from one neighbour can do: a search that never errs, but has only the training
    molecules to find. Of several nearest molecules the mean counts.

    Parameters
    ----------
    fold : str
        Fold whose molecules may be the neighbour.
    """

    label = NEAREST_NEIGHBOUR_ORACLE
    kind: Kind = "reference"

    def __init__(self, data: EvaluationData, candidates: Candidates, *, fold: str = "train") -> None:
        self._molecule = data.molecule
        self._fingerprint = candidates.fingerprint
        self._training = np.unique(data.molecule[data.rows_in(fold)])

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return similarities from 0 to 1; no score where there is no training molecule."""
        scores = np.full(len(query), np.nan)
        if not len(self._training):
            return scores
        truth, place = np.unique(self._molecule[query], return_inverse=True)
        order = np.argsort(place, kind="stable")
        stops = np.cumsum(np.bincount(place, minlength=len(truth)))
        for number, (stop, size) in enumerate(zip(stops, np.diff(stops, prepend=0), strict=True)):
            members = order[stop - size : stop]
            nearest = self._nearest(int(truth[number]))
            scores[members] = np.mean(
                [
                    tanimoto_pairs(self._fingerprint, molecule[members], np.full(len(members), neighbour))
                    for neighbour in nearest
                ],
                axis=0,
            )
        return scores

    def _nearest(self, truth: int) -> np.ndarray:
        similarity = tanimoto_pairs(self._fingerprint, np.full(len(self._training), truth), self._training)
        nearest: np.ndarray = self._training[similarity >= similarity.max() - _ROUNDING]
        return nearest
