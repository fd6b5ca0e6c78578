"""Structures ranked by several scores at once: a model's own, analogue transfer and look-ups in predicted spectra.

They err in different ways: the embedding of a structure is learned from all molecules, transfer knows a few that
resemble the spectrum well, and rules of fragmentation know the candidate itself. Their sum, weighed on the validation
fold, is a row of its own beside the row of each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ..embeddings.structure_fusion import StructureScore
from .candidates import Candidates
from .comparisons import Comparisons
from .dataset import EvaluationData
from .entries import Build, Entry
from .predictions import KNOWN, Corpus
from .report.explanations import PREDICTED_AND_TRANSFER, WITH_PREDICTED, WITH_TRANSFER
from .retrieval import retrieval_comparisons
from .scorers import Kind, StructureScorer
from .structure_fit import fit_structure_score

if TYPE_CHECKING:
    from .run import EvaluationConfig

logger = logging.getLogger("ionbed")

FITTED_ON = "validation"
LEAST_MOLECULES = 20
"""Of the fitted fold, from which on weights are fitted: with fewer they would follow chance."""

MOST_MOLECULES, QUERIES_PER_MOLECULE = 500, 2
"""That weights are fitted on: the searches of transfer take long, and more would hardly move the weights."""


@dataclass(frozen=True, eq=False)
class Combination:
    """A row that is to be made of others.

    Attributes
    ----------
    label : str
    kind : Kind
    terms : tuple of Entry
        Rows that score structures, with as many trainings as the one that has most, or one.
    most_candidates : int or None
        Of the queries that weights are fitted on, all together: for terms that take long for each.
    """

    label: str
    kind: Kind
    terms: tuple[Entry, ...]
    most_candidates: int | None = None


class WeightedStructures:
    """A weighted sum of scores of structures, each on a fixed scale.

    Where a score abstains, as transfer does of all candidates of some queries, it adds nothing; where all abstain, so
    does their sum.

    Parameters
    ----------
    label : str
    kind : Kind
    scorers : sequence of StructureScorer
        In the order of the terms of ``score``.
    score : StructureScore
    """

    def __init__(self, label: str, kind: Kind, scorers: Sequence[StructureScorer], score: StructureScore) -> None:
        self.label, self.kind = label, kind
        self._scorers, self._score = scorers, score
        self.weights: Mapping[str, float] = dict(zip(score.terms, score.weights, strict=True))

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return weighted sums; see `ionbed.evaluation.scorers.StructureScorer`."""
        values = np.zeros((len(query), len(self._scorers)))
        for place, (scorer, weight) in enumerate(zip(self._scorers, self._score.weights, strict=True)):
            if weight:
                values[:, place] = scorer.score_structures(query, molecule)
        return self._score.total(values)


def combinations_of(
    models: Sequence[Entry],
    transferred: Mapping[str, Entry],
    lookup: Entry,
    predicted: Entry | None,
    cosines: Sequence[Entry],
    *,
    most_candidates: int,
) -> list[Combination]:
    """Return which rows are made of others: of each model one or two, and what they hold without any model.

    A model that was trained with structures is added to analogue transfer; every model, and no model at all, to
    analogue transfer and predicted spectra. Where no spectra are predicted, every model to analogue transfer.

    Parameters
    ----------
    models : sequence of Entry
        The plain rows of the models.
    transferred : mapping of label to Entry
        The analogue transfer of each model.
    lookup : Entry
        The analogue transfer of a look-up.
    predicted : Entry or None
        The look-up in predicted spectra.
    cosines : sequence of Entry
        For each model, its cosine to predicted spectra; empty where there are none.
    most_candidates : int
        Of the queries that weights are fitted on: their spectra must be predicted.
    """
    combined = []
    if models and predicted is not None:
        combined.append(Combination(PREDICTED_AND_TRANSFER, "trained", (predicted, lookup), most_candidates))
    for place, model in enumerate(models):
        has_tower = "retrieval" in model.kinds
        terms = (*([model] if has_tower else []), transferred[model.label], lookup)
        if has_tower or predicted is None:
            combined.append(Combination(f"{model.label}{WITH_TRANSFER}", "learned", terms))
        if predicted is not None:
            terms = (*terms, predicted, cosines[place])
            combined.append(Combination(f"{model.label}{WITH_PREDICTED}", "learned", terms, most_candidates))
    return combined


def combined_entries(
    combinations: Sequence[Combination],
    data: EvaluationData,
    molecules: Candidates,
    config: EvaluationConfig,
    *,
    split_hash: str,
) -> list[Entry]:
    """Return the rows of combinations, weighed by retrieval by mass on the validation fold.

    There are none where that fold is itself asked about, or is searched by the transfer; nor is one that has fewer than
    `LEAST_MOLECULES` to ask about.

    Parameters
    ----------
    split_hash : str
        Of the split whose validation fold is used: the row has seen it.
    """
    if not combinations or FITTED_ON in (config.fold, config.transfer.library_fold):
        return []
    queries = min(config.retrieval.max_queries_per_molecule, QUERIES_PER_MOLECULE)
    options = replace(config.retrieval, by="mass", max_queries_per_molecule=queries)
    found = retrieval_comparisons(data, molecules, FITTED_ON, options, config.seed)
    drawn = {
        most: some_queries(found, data, most, config.seed)
        for most in dict.fromkeys(combination.most_candidates for combination in combinations)
    }
    entries = []
    for combination in combinations:
        asked = drawn[combination.most_candidates]
        num_molecules = len(np.unique(data.molecule[asked.queries]))
        if num_molecules < LEAST_MOLECULES:
            logger.info(
                "no row '%s': the fold '%s' asks about %d molecules by mass, too few to weigh scores of structures "
                "against each other (%d are needed)", combination.label, FITTED_ON, num_molecules, LEAST_MOLECULES,
            )  # fmt: skip
            continue
        entries.append(_entry(combination, data, asked, split_hash))
    return entries


def _entry(combination: Combination, data: EvaluationData, found: Comparisons, split_hash: str) -> Entry:
    terms = combination.terms
    trained_on = dict.fromkeys(corpus for entry in terms for corpus in entry.trained_on)
    return Entry(
        combination.label,
        combination.kind,
        tuple(
            _built(combination, [entry.builds[number % len(entry.builds)] for entry in terms], data, found)
            for number in range(max(len(entry.builds) for entry in terms))
        ),
        tuple(name for name in KNOWN if any(name in entry.known for entry in terms)),
        (*trained_on, Corpus("weights of scores of structures", split_hash, (FITTED_ON,))),
        next((entry.exposure for entry in terms if entry.exposure), None),
        frozenset({"retrieval"}),
    )


def some_queries(found: Comparisons, data: EvaluationData, most_candidates: int | None, seed: int) -> Comparisons:
    """Return the queries of `MOST_MOLECULES` drawn molecules at most, with their candidates: no more than so many."""
    of_query = data.molecule[found.queries]
    drawn = np.random.default_rng(seed).permutation(np.unique(of_query))[:MOST_MOLECULES]
    if most_candidates is not None:
        turn = np.full(len(data.inchikey_block), len(drawn))
        turn[drawn] = np.arange(len(drawn))
        first_turn = np.full(int(found.candidate.max(initial=-1)) + 1, len(drawn))
        np.minimum.at(first_turn, found.candidate, turn[of_query[found.pool]])
        num_candidates = np.cumsum(np.bincount(first_turn, minlength=len(drawn) + 1)[: len(drawn)])
        drawn = drawn[num_candidates <= most_candidates]
    chosen = np.isin(of_query, drawn)
    of_pool = chosen[found.pool]  # every query of a retrieval has a pool of its own, of its own number
    return replace(
        found,
        queries=found.queries[chosen],
        pool_of_query=np.arange(chosen.sum()),
        pool=(np.cumsum(chosen) - 1)[found.pool[of_pool]],
        candidate=found.candidate[of_pool],
    )


def kept(entry: Entry) -> Entry:
    """Return the row with scorers that are kept until other data, or other rows twice, are asked for.

    Rows that are made of one search then search once, for the queries of an evaluation and for those of a fit.
    """
    return replace(entry, builds=tuple(_kept(build) for build in entry.builds))


def _built(combination: Combination, builds: Sequence[Build], data: EvaluationData, found: Comparisons) -> Build:
    fitted: list[StructureScore] = []

    def build(altered: EvaluationData, molecules: Candidates, rows: np.ndarray) -> WeightedStructures:
        if not fitted:  # on the data as they are, whatever an audit has altered
            fitted.append(_fit(combination, builds, data, molecules, found))
        scorers = [cast(StructureScorer, made(altered, molecules, rows)) for made in builds]
        return WeightedStructures(combination.label, combination.kind, scorers, fitted[0])

    return build


def _fit(
    combination: Combination, builds: Sequence[Build], data: EvaluationData, molecules: Candidates, found: Comparisons
) -> StructureScore:
    query, molecule = found.pool, found.candidate
    rows = found.queries[query]
    scorers = [cast(StructureScorer, build(data, molecules, np.unique(found.queries))) for build in builds]
    values = np.column_stack([scorer.score_structures(rows, molecule) for scorer in scorers])
    of_query = data.molecule[found.queries]
    terms = [entry.label for entry in combination.terms]
    score = fit_structure_score(terms, values, query, molecule == of_query[query], of_query)
    words = ", ".join(f"{weight:.2f} of '{term}'" for term, weight in zip(terms, score.weights, strict=True))
    logger.info("%s: %s", combination.label, words)
    return score


def _kept(build: Build) -> Build:
    last: list[tuple[EvaluationData, np.ndarray, object]] = []

    def built(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> StructureScorer:
        for place, (known, of_rows, scorer) in enumerate(last):
            if known is data and np.array_equal(of_rows, rows):
                last.append(last.pop(place))
                return cast(StructureScorer, scorer)
        last[:] = [*last[-1:], (data, rows, build(data, molecules, rows))]
        return cast(StructureScorer, last[-1][2])

    return built
