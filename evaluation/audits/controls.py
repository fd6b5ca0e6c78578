"""Controls of a row: its queries asked again without their peaks, with those of others, and under other labels.

A score that comes from the spectrum falls to what a blind ranker gets once the spectrum is gone, and does not move when
only the answer is changed. The altered queries are copies, appended to the data: a row scores them as any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...spectra.columns import SpectrumColumns
from ..candidates import Candidates
from ..comparisons import MAIN_METRIC
from ..entries import Entry
from ..outcomes import query_pools, ranked_outcomes
from ..predictions import Predictions
from ..question import Question, answer, can_answer, checked
from ..scorers import PrecursorOnly, Scorer, StructureScorer
from ..statistics import paired_permutation_p
from .altered_queries import Controls
from .findings import CANDIDATE_ORDER, LABEL_BLIND, MASKED, ORACLE_USE, SIGNIFICANT, SWAPPED, Finding

MINIMUM_QUERIES = 20
"""Queries (each of another molecule) below which a control says nothing."""

MARGIN = 0.05
"""A control may exceed the best blind ranker by this much of the main metric: blind rankers are not perfect either."""

RETAINED = 0.5
"""Share of a row's gain over the blind rankers that a control must keep before it counts as a leak."""

SCORE_TOLERANCE = 1e-4
"""Of the spread of a row's scores. Batches of another make-up change the last digits of a network's output."""


def control_findings(
    entry: Entry,
    scorer: Scorer | StructureScorer,
    controls: Controls,
    blind: Mapping[str, np.ndarray],
    *,
    seed: int,
) -> list[Finding]:
    """Return what the controls say of one row.

    Masked and swapped fail where the row keeps at least half of what the peaks gave it over the best blind ranker, and
    stays above that ranker by more than `MARGIN` beyond chance (`SIGNIFICANT`, molecules exchanged). Blindness to
    labels fails where a score depends on what the molecule of the query is said to be, or on its place in the data:
    the copy has the same peaks and conditions, and another row and label. Order fails where a score depends on the
    order in which candidates are given.

    Parameters
    ----------
    scorer : Scorer or StructureScorer
        Built by the entry on the data of ``controls``; it can answer their question.
    blind : mapping of label to float64 array of shape (n_sampled,)
        The main metric of every ranker that sees no peak; see `blind_values`.
    """
    question = controls.question
    as_asked = answer(question, controls.data, scorer)
    own = _values(question, as_asked)
    label, reference = max(blind.items(), key=lambda item: float(item[1].mean()))
    findings = []
    for audit, rows, words in (
        (MASKED, controls.masked, "without peaks"),
        (SWAPPED, controls.swapped, "with the peaks of another spectrum"),
    ):
        values = _values(question, answer(controls.asked_with(rows), controls.data, scorer))
        findings.append(_fallen(audit, words, entry.label, question, own, values, label, reference, seed))
    relabelled = answer(controls.asked_with(controls.relabelled), controls.data, scorer)
    findings.append(_label_blind(entry, controls, as_asked, relabelled))
    findings.append(_order_blind(entry.label, question, scorer, seed))
    if "truth" not in entry.known:  # what says so itself is told elsewhere
        findings.append(_truth_used(entry.label, question.name, findings))
    return findings


def too_few_queries(label: str, controls: Controls) -> list[Finding]:
    """Return, where fewer than `MINIMUM_QUERIES` could be drawn, that nothing can be said of a row; else nothing."""
    count, name = len(controls.question.found.queries), controls.question.name
    if count >= MINIMUM_QUERIES:
        return []
    text = f"{name}: {count} molecules can be asked about again; {MINIMUM_QUERIES} are needed."
    return [Finding(audit, label, None, text) for audit in (MASKED, SWAPPED, LABEL_BLIND, CANDIDATE_ORDER)]


def blind_values(
    controls: Controls, candidates: Candidates, entries: Sequence[Entry], known: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the main metric of every sampled query by each ranker that sees no peak.

    Those are drawing at random; the precursor m/z; the conditions of measurement that are in ``known``; and the rows
    among ``entries`` whose kind is 'blind', that stand in the table of the question and know no more than ``known`` and
    the precursor m/z.
    """
    question, data = controls.question, controls.data
    pools = query_pools(question.task)
    metric = ranked_outcomes(question.task, _constant(question), pools).metrics[MAIN_METRIC[question.kind]]
    found = {"random": metric.random}
    scorers: list[Scorer | StructureScorer] = [
        entry.builds[0](data, candidates, controls.rows())
        for entry in entries
        if entry.kind == "blind" and question.kind in entry.kinds and set(entry.known) <= {*known, "precursor_mz"}
    ]
    if question.kind != "retrieval":
        scorers += [PrecursorOnly(data.columns), SameConditions(data.columns, known)]
    for scorer in scorers:
        if can_answer(question.kind, scorer):
            found[scorer.label] = _values(question, answer(question, data, scorer))
    return found


class SameConditions:
    """The more conditions of measurement a candidate shares with the query, then the nearer its precursor, the better.

    Parameters
    ----------
    known : sequence of str
        Of 'adduct', 'collision_energy' and 'instrument', those that count.
    """

    label = "conditions of measurement only"
    kind = PrecursorOnly.kind

    def __init__(self, columns: SpectrumColumns, known: Sequence[str]) -> None:
        self._columns, self._known = columns, set(known)
        self._precursor = PrecursorOnly(columns)

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return the number of shared conditions, less up to one for the difference of the precursors."""
        columns = self._columns
        shared = np.zeros((len(queries), len(library)))
        for name, values in (("adduct", columns.adduct), ("instrument", columns.instrument_type)):
            if name in self._known:
                shared += values[queries][:, None] == values[library][None, :]
        if "collision_energy" in self._known:
            energy = columns.collision_energy.astype(np.float64)
            difference = np.abs(energy[queries][:, None] - energy[library][None, :])
            shared += np.where(np.isnan(difference), 0.0, np.exp(-difference / 10.0))
        away = -self._precursor.scores(queries, library)
        result: np.ndarray = shared - 0.5 * away / (1.0 + away)
        return result


def _fallen(
    audit: str,
    words: str,
    about: str,
    question: Question,
    own: np.ndarray,
    control: np.ndarray,
    blind: str,
    reference: np.ndarray,
    seed: int,
) -> Finding:
    metric = MAIN_METRIC[question.kind]
    above, gain = float((control - reference).mean()), float((own - reference).mean())
    p = paired_permutation_p(control, reference, np.arange(len(control)), seed=seed)
    leaks = above > MARGIN and p <= SIGNIFICANT and above >= RETAINED * gain
    scale = f"{metric} {control.mean():.3f} {words}, {own.mean():.3f} with its own, {reference.mean():.3f} by '{blind}'"
    end = "what the row knows does not come from the spectrum" if leaks else "no more is left than a blind ranker has"
    if not leaks and gain <= MARGIN:
        end = f"the row's own peaks give it no more than {MARGIN:g} over a blind ranker"
    elif not leaks and above > MARGIN:
        end = "what is left is less than half of the gain, or within chance"
    return Finding(
        audit,
        about,
        not leaks,
        f"{question.name}: {scale} ({len(control)} queries): {end}.",
        {
            "question": question.name,
            "metric": metric,
            "queries": len(control),
            "as it is": float(own.mean()),
            "control": float(control.mean()),
            "best blind ranker": blind,
            "of the best blind ranker": float(reference.mean()),
            "p": p,
        },
    )


def _truth_used(about: str, question: str, controls: Sequence[Finding]) -> Finding:
    """Return what the controls together say of the use of the truth."""
    followed = [finding.audit for finding in controls if finding.audit != CANDIDATE_ORDER and finding.passed is False]
    sentence = (
        f"the scores follow the true molecule where the spectrum does not lead to it ({', '.join(followed)})"
        if followed
        else "the row was not given the truth, and its scores do not follow it where the spectrum does not lead to it"
    )
    evidence = {"question": question, "controls that failed": followed}
    return Finding(ORACLE_USE, about, not followed, f"{question}: {sentence}.", evidence)


def _label_blind(entry: Entry, controls: Controls, own: Predictions, relabelled: Predictions) -> Finding:
    chosen = np.ones(len(controls.same_formula), bool)
    if "formula" in entry.known:  # who was given the formula may look at it
        chosen = controls.same_formula
    if "truth" in entry.known or chosen.sum() < MINIMUM_QUERIES:
        reason = "was given the truth" if "truth" in entry.known else "was given the formula, and few have isomers here"
        return Finding(LABEL_BLIND, entry.label, None, f"the row {reason}; nothing can be told from other labels")
    differs, compared = _differing(own, relabelled, len(controls.question.found.candidate))
    count = int(np.sum(differs[chosen]))
    total = int(np.sum(compared[chosen]))
    if not total:
        return Finding(LABEL_BLIND, entry.label, None, "the row abstains on every query that was asked again")
    sentence = (
        f"{count:,} of {total:,} queries are scored otherwise when the same peaks come in another row under another "
        f"molecule: the row looks at more than the spectrum"
        if count
        else f"the same peaks get the same scores under another molecule's name ({total:,} queries)"
    )
    sentence = f"{controls.question.name}: {sentence}"
    return Finding(LABEL_BLIND, entry.label, not count, f"{sentence}.", {"queries": total, "scored otherwise": count})


def _differing(own: Predictions, other: Predictions, num_candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """Return of each query whether its scores differ, and whether it has any."""
    num_queries = int(own.counts["queries"])
    first_key, second_key = (part.query * num_candidates + part.candidate for part in (own, other))
    joint, a, b = np.intersect1d(first_key, second_key, assume_unique=True, return_indices=True)
    first, second = own.score[a], other.score[b]
    scored = np.isfinite(first) & np.isfinite(second)
    far = np.isfinite(first) != np.isfinite(second)
    far[scored] = np.abs(first[scored] - second[scored]) > _tolerance(own.score)
    differs = np.bincount(joint // num_candidates, far, num_queries) > 0
    compared = np.bincount(own.query[np.isfinite(own.score)], minlength=num_queries) > 0
    # Lists of best hits may end in other ties, but one that holds nothing of the other is another answer.
    differs |= compared & (np.bincount(joint // num_candidates, minlength=num_queries) == 0)
    return differs, compared


def _order_blind(about: str, question: Question, scorer: Scorer | StructureScorer, seed: int) -> Finding:
    """Compare the scores of a few pools with those of the same candidates in another order."""
    rng = np.random.default_rng(seed)
    found = question.found
    rows, candidates = found.queries[: 2 * MINIMUM_QUERIES], found.candidate
    if hasattr(scorer, "scores") and question.kind != "retrieval":
        library = np.unique(candidates[np.isin(found.pool, found.pool_of_query[: len(rows)])])[: 2**12]
        places, queries = rng.permutation(len(library)), rng.permutation(len(rows))
        first = np.asarray(scorer.scores(rows, library), np.float64)[np.ix_(queries, places)].ravel()
        second = np.asarray(scorer.scores(rows[queries], library[places]), np.float64).ravel()
    else:
        assert hasattr(scorer, "score_structures")
        owner = np.full(int(found.pool_of_query.max()) + 1, -1, np.int64)
        owner[found.pool_of_query] = found.queries
        molecule = question.task.candidate_molecule
        places = rng.permutation(len(molecule))
        first = np.asarray(scorer.score_structures(owner[found.pool], molecule), np.float64)[places]
        second = np.asarray(scorer.score_structures(owner[found.pool][places], molecule[places]), np.float64)
    scored = np.isfinite(first) & np.isfinite(second)
    far = np.isfinite(first) != np.isfinite(second)
    far[scored] = np.abs(first[scored] - second[scored]) > _tolerance(first)
    count = int(far.sum())
    sentence = (
        f"{count:,} of {len(far):,} scores change with the order of the candidates: the place is in the score"
        if count
        else f"the scores do not change with the order of the candidates ({len(far):,} scores)"
    )
    evidence = {"question": question.name, "scores": len(far), "changed": count}
    return Finding(CANDIDATE_ORDER, about, not count, f"{question.name}: {sentence}.", evidence)


def _tolerance(scores: np.ndarray) -> float:
    scored = scores[np.isfinite(scores)]
    return SCORE_TOLERANCE * float(max(np.std(scored), 1e-2)) if len(scored) else SCORE_TOLERANCE


def _values(question: Question, predictions: Predictions) -> np.ndarray:
    """Return the main metric of every query, 0 where it does not count."""
    outcomes = ranked_outcomes(question.task, predictions, query_pools(question.task))
    metric = MAIN_METRIC[question.kind]
    values = np.zeros(len(question.found.queries))
    values[outcomes.counted[metric]] = outcomes.metrics[metric].value
    return values


def _constant(question: Question) -> Predictions:
    empty = np.empty(0, np.int64)
    return checked(question, "random", empty, empty, np.empty(0))
