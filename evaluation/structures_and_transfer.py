"""Structures ranked by a model's embeddings of them and by analogue transfer at once, weighed on the validation fold.

The two err in different ways: the embedding of a structure is learned from all molecules, and transfer knows a few that
resemble the spectrum well. Their sum is a row of its own beside the row of either.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, cast

import numpy as np

from .candidates import Candidates
from .comparisons import Comparisons
from .dataset import EvaluationData
from .entries import Build, Entry
from .metrics import comparable
from .predictions import KNOWN, Corpus
from .ranking import score_molecules, true_ranks
from .report.explanations import WITH_TRANSFER
from .retrieval import retrieval_comparisons
from .scorers import Kind, StructureScorer

if TYPE_CHECKING:
    from .run import EvaluationConfig

logger = logging.getLogger("ionbed")

FITTED_ON = "validation"
LEAST_MOLECULES = 20
"""Of the fitted fold, from which on weights are fitted: with fewer they would follow chance."""

MOST_MOLECULES, QUERIES_PER_MOLECULE = 500, 2
"""That weights are fitted on: the searches of transfer take long, and more would hardly move the weights."""

WEIGHTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Tried of each transfer beside 1 for the embeddings. The large ones are for embeddings that say little."""


class WithTransfer:
    """The model's score of a structure plus weighted scores of analogue transfer.

    Where a transfer abstains, which it does of all candidates of a query, it adds nothing.

    Parameters
    ----------
    label : str
    own : StructureScorer
    transfers : sequence of StructureScorer
    weights : sequence of float
        Of each transfer.
    """

    kind: Kind = "learned"

    def __init__(
        self, label: str, own: StructureScorer, transfers: Sequence[StructureScorer], weights: Sequence[float]
    ) -> None:
        self.label = label
        self._own, self._transfers, self._weights = own, transfers, weights
        self.weights = {transfer.label: weight for transfer, weight in zip(transfers, weights, strict=True)}

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return weighted sums; see `ionbed.evaluation.scorers.StructureScorer`."""
        total = np.array(self._own.score_structures(query, molecule), np.float64)
        for transfer, weight in zip(self._transfers, self._weights, strict=True):
            if weight:
                total += weight * np.nan_to_num(transfer.score_structures(query, molecule))
        return total


def with_transfer_entries(
    models: Sequence[Entry],
    transfers: Sequence[Sequence[Entry]],
    data: EvaluationData,
    molecules: Candidates,
    config: EvaluationConfig,
    *,
    split_hash: str,
) -> list[Entry]:
    """Return a further row of every model: its score of structures and analogue transfer in one.

    The weights are those of `WEIGHTS` with which the true molecules of the validation fold come highest (mean
    reciprocal rank, by molecule) in retrieval by mass. There is no such row where that fold is itself asked about, or
    has fewer than `LEAST_MOLECULES` to ask about, or is searched by the transfer.

    Parameters
    ----------
    models : sequence of Entry
        Rows that score structures.
    transfers : sequence of sequence of Entry
        For each model, the rows of analogue transfer that are added, with as many trainings as it has, or one.
    split_hash : str
        Of the split whose validation fold is used: the row has seen it.
    """
    if not models or FITTED_ON in (config.fold, config.transfer.library_fold):
        return []
    queries = min(config.retrieval.max_queries_per_molecule, QUERIES_PER_MOLECULE)
    options = replace(config.retrieval, by="mass", max_queries_per_molecule=queries)
    found = _of_some(retrieval_comparisons(data, molecules, FITTED_ON, options, config.seed), data, config.seed)
    num_molecules = len(np.unique(data.molecule[found.queries]))
    if num_molecules < LEAST_MOLECULES:
        logger.info(
            "the fold '%s' asks about %d molecules by mass: too few to weigh structures and analogue transfer "
            "against each other (%d are needed)",
            FITTED_ON,
            num_molecules,
            LEAST_MOLECULES,
        )
        return []
    fitted = Corpus("weights of analogue transfer", split_hash, (FITTED_ON,))
    return [
        Entry(
            f"{model.label}{WITH_TRANSFER}",
            "learned",
            tuple(
                _built(model.label, build, [entry.builds[number % len(entry.builds)] for entry in added], data, found)
                for number, build in enumerate(model.builds)
            ),
            tuple(name for name in KNOWN if any(name in entry.known for entry in (model, *added))),
            (*model.trained_on, fitted),
            model.exposure,
            frozenset({"retrieval"}),
        )
        for model, added in zip(models, transfers, strict=True)
    ]


def _of_some(found: Comparisons, data: EvaluationData, seed: int) -> Comparisons:
    """Return the queries of `MOST_MOLECULES` drawn molecules at most, with their candidates."""
    distinct = np.unique(data.molecule[found.queries])
    drawn = np.random.default_rng(seed).permutation(distinct)[:MOST_MOLECULES]
    chosen = np.isin(data.molecule[found.queries], drawn)
    of_pool = chosen[found.pool]  # every query of a retrieval has a pool of its own, of its own number
    return replace(
        found,
        queries=found.queries[chosen],
        pool_of_query=np.arange(chosen.sum()),
        pool=(np.cumsum(chosen) - 1)[found.pool[of_pool]],
        candidate=found.candidate[of_pool],
    )


def kept(entry: Entry) -> Entry:
    """Return the row with scorers that are kept until other data or rows are asked for.

    Two rows that are made of one search then search once.
    """
    return replace(entry, builds=tuple(_kept(build) for build in entry.builds))


def best_weights(
    scores: Sequence[np.ndarray], query: np.ndarray, molecule: np.ndarray, true_molecule: np.ndarray
) -> tuple[float, ...]:
    """Return the weight of every score but the first, whose weight is 1, that ranks the true molecules highest.

    Of equally good weights the smaller.

    Parameters
    ----------
    scores : sequence of float64 arrays of shape (n_pairs,)
        The first without NaN (minus infinity abstains), the others without either.
    query, molecule : int64 arrays of shape (n_pairs,)
    true_molecule : int64 array of shape (n_queries,)
    """
    pool_size = np.bincount(query, minlength=len(true_molecule))
    of_query = np.unique(true_molecule, return_inverse=True)[1]
    num_queries = np.bincount(of_query)

    def reached(weights: tuple[float, ...]) -> float:
        total = scores[0] + sum(weight * score for weight, score in zip(weights, scores[1:], strict=True))
        ranks = true_ranks(score_molecules(query, molecule, total), true_molecule, pool_size)
        by_molecule = np.bincount(of_query, ranks.reciprocal()) / num_queries
        return round(float(by_molecule.mean()), 9)

    tried = sorted(product(WEIGHTS, repeat=len(scores) - 1), key=sum)
    return max(tried, key=reached)  # the first of several


def _built(label: str, own: Build, transfers: Sequence[Build], data: EvaluationData, found: Comparisons) -> Build:
    fitted: list[tuple[float, ...]] = []

    def build(altered: EvaluationData, molecules: Candidates, rows: np.ndarray) -> WithTransfer:
        if not fitted:  # on the data as they are, whatever an audit has altered
            fitted.append(_fit(label, own, transfers, data, molecules, found))
        scorers = [cast(StructureScorer, made(altered, molecules, rows)) for made in (own, *transfers)]
        return WithTransfer(f"{label}{WITH_TRANSFER}", scorers[0], scorers[1:], fitted[0])

    return build


def _fit(
    label: str,
    own: Build,
    transfers: Sequence[Build],
    data: EvaluationData,
    molecules: Candidates,
    found: Comparisons,
) -> tuple[float, ...]:
    query, molecule = found.pool, found.candidate
    rows = found.queries[query]
    scorers = [cast(StructureScorer, build(data, molecules, np.unique(found.queries))) for build in (own, *transfers)]
    scores = [scorer.score_structures(rows, molecule) for scorer in scorers]
    weights = best_weights(
        [comparable(scores[0]), *(np.nan_to_num(score) for score in scores[1:])],
        query,
        molecule,
        data.molecule[found.queries],
    )
    words = ", ".join(f"{weight:g} for '{scorer.label}'" for weight, scorer in zip(weights, scorers[1:], strict=True))
    logger.info("%s%s: 1 for the embeddings of structures, %s", label, WITH_TRANSFER, words)
    return weights


def _kept(build: Build) -> Build:
    last: list[tuple[EvaluationData, np.ndarray, object]] = []

    def built(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> StructureScorer:
        if not last or last[0][0] is not data or not np.array_equal(last[0][1], rows):
            last[:] = [(data, rows, build(data, molecules, rows))]
        return cast(StructureScorer, last[0][2])

    return built
