"""All audits of an evaluation, or of one file of predictions, through one door each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...finetune.split_audit import AUDIT_COLUMNS
from ...progress import progress
from ...spectra.split import Split
from ...spectra.store import Store
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Entry
from ..predictions import Predictions
from ..question import Question
from ..task_files import Task
from .altered_queries import Controls, draw_controls
from .controls import MINIMUM_QUERIES, blind_values, control_findings, too_few_queries
from .corpora import corpus_overlap
from .decoys import place_of_truth, smiles_style, structures_alone
from .findings import MASKED, ORACLE_USE, Finding
from .folds import split_findings
from .scores import denominator, equal_candidates, score_by_place, shown_alike, truth_in_scores

logger = logging.getLogger("ionbed")


@dataclass(frozen=True)
class AuditOptions:
    """What the audits look at.

    Attributes
    ----------
    corpora : dict of str to Path
        What models were pretrained or fine-tuned on beside the evaluated store, by the name that a model's record
        gives it: stores, or files of molecules. The queries must not be in them.
    control_queries : int
        Queries, each of another molecule, that every row is asked again with altered peaks. 0: no controls.
    """

    corpora: dict[str, Path] = field(default_factory=dict)
    control_queries: int = 100

    def __post_init__(self) -> None:
        if self.control_queries < 0:
            raise ValueError(f"'control_queries' is {self.control_queries}; it must be 0 (no controls) or above")


def run_audits(
    data: EvaluationData,
    candidates: Candidates,
    questions: Sequence[Question],
    entries: Sequence[Entry],
    *,
    store: Store,
    split: Split,
    fold: str,
    options: AuditOptions,
    seed: int,
) -> list[Finding]:
    """Audit the split, the corpora, the lists of candidates, and every row that a verdict is passed on.

    Denominators are audited apart, by `audit_outcomes`, where the outcomes of a row are at hand.

    Parameters
    ----------
    entries : sequence of Entry
        All rows. Those of kind 'blind' are what the controls are compared with; look-ups, trained and learned ones are
        controlled, on the first question that they can answer whose queries are ranked.

    Raises
    ------
    InputError
        A corpus cannot be read, or the store does not fit the split.
    """
    findings = split_findings(split, store.table(AUDIT_COLUMNS), fold)
    trained_on = {corpus.name for entry in entries for corpus in entry.trained_on}
    for found in corpus_overlap(data, data.rows_in(fold), options.corpora):
        if found.passed is False and found.about not in trained_on:  # no row can be void by it: a name mistyped?
            found = replace(found, sentence=f"{found.sentence} No row says that it was trained on '{found.about}'.")
        findings.append(found)
    for question in questions:
        findings += audit_lists(question.name, question.task, seed=seed)
    for entry in entries:
        if "truth" in entry.known:
            is_reference = entry.kind == "reference"
            sentence = (
                "is a reference, and no verdict rests on it" if is_reference else "says that it was given the truth"
            )
            findings.append(Finding(ORACLE_USE, entry.label, is_reference, f"the row {sentence}."))
    if options.control_queries:
        findings += _controls(data, candidates, questions, entries, options, seed)
    return findings


def audit_lists(about: str, task: Task, *, seed: int = 0) -> list[Finding]:
    """Audit the lists of candidates of one question, whatever the rows."""
    findings = [] if task.kind in ("analogue", "pairs") else [place_of_truth(about, task, seed=seed)]
    if task.kind == "retrieval":
        findings += [smiles_style(about, task, seed=seed), structures_alone(about, task, seed=seed)]
    return findings


def audit_outcomes(label: str, question: str, task: Task, table: pa.Table, row: Mapping[str, Any]) -> Finding:
    """Return the audit of the denominators of one row in one question; see `denominator`.

    Parameters
    ----------
    table : pyarrow.Table
        The outcome of every query (or pair) of its first training.
    row : mapping
        The row in ``results.json``: its ``metrics``, and their ``spread`` where there are several trainings.
    """
    found = denominator(label, task, table, row["metrics"], row.get("spread"))
    return replace(found, sentence=f"{question}: {found.sentence}")


def audit_predictions(
    task: Task,
    predictions: Predictions,
    *,
    spectra: pa.Table | None,
    table: pa.Table,
    metrics: Mapping[str, Mapping[str, Any]],
    seed: int,
) -> list[Finding]:
    """Return what can be audited of a finished file of predictions.

    Parameters
    ----------
    spectra : pyarrow.Table or None
        ``spectra.parquet`` of the task, where it has one.
    table, metrics
        The outcomes and the metrics of these predictions; see `denominator`.
    """
    label, known = predictions.manifest.name, predictions.manifest.known
    findings = audit_lists("task", task, seed=seed)
    findings += [
        score_by_place(label, task, predictions, seed=seed),
        truth_in_scores(label, task, predictions, known),
        denominator(label, task, table, metrics),
    ]
    if spectra is not None and task.kind != "retrieval":
        findings.append(equal_candidates(label, task, predictions, shown_alike(task, spectra)))
    return findings


def _controls(
    data: EvaluationData,
    candidates: Candidates,
    questions: Sequence[Question],
    entries: Sequence[Entry],
    options: AuditOptions,
    seed: int,
) -> list[Finding]:
    by_blind: dict[tuple[str, tuple[str, ...]], dict[str, np.ndarray]] = {}
    # One question about spectra and one about structures: a row may score both, each in its own way.
    is_retrieval = [question.kind == "retrieval" for question in questions]
    drawn = [
        controls
        for structures in (False, True)
        if (
            controls := _first_large_enough(
                data,
                candidates,
                [q for q, of in zip(questions, is_retrieval, strict=True) if of == structures and q.kind != "pairs"],
                options,
                seed,
            )
        )
    ]
    controlled = [entry for entry in entries if entry.kind in ("look-up", "trained", "learned")]
    findings = []
    with progress("controls", len(controlled), unit="rows") as advance:
        for entry in controlled:
            known = tuple(sorted(entry.known))
            found: list[Finding] = []
            for controls in drawn:
                question = controls.question
                if question.kind not in entry.kinds:
                    continue
                if few := too_few_queries(entry.label, controls):
                    found += few
                    continue
                scorer = entry.builds[0](controls.data, candidates, controls.rows())
                if not hasattr(scorer, "score_structures" if question.kind == "retrieval" else "scores"):
                    continue
                if (question.name, known) not in by_blind:
                    by_blind[question.name, known] = blind_values(controls, candidates, entries, known)
                found += control_findings(entry, scorer, controls, by_blind[question.name, known], seed=seed)
            if not found:
                found = [Finding(MASKED, entry.label, None, "the row answers no question whose queries are ranked.")]
            findings += found
            advance(1)
    return findings


def _first_large_enough(
    data: EvaluationData, candidates: Candidates, questions: Sequence[Question], options: AuditOptions, seed: int
) -> Controls | None:
    """Draw the controls of the first question that has enough queries for them; of the first where none has."""
    first = None
    for question in questions:
        controls = draw_controls(data, candidates, question, queries=options.control_queries, seed=seed)
        if len(controls.question.found.queries) >= MINIMUM_QUERIES:
            return controls
        first = first or controls
    return first
