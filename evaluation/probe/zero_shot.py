"""How a frozen encoder searches: three questions of the evaluation, answered by the inner product of embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import Candidates
from ..comparisons import ANALOGUE_SEARCH, LIBRARY_SEARCH, MAIN_METRIC, SAME_MOLECULE
from ..dataset import EvaluationData
from ..judged import Comparison, Judged
from ..judgement import Judge
from ..question import Question, answer, ask
from ..run import EvaluationConfig
from ..scorers import Learned, PrecursorOnly, Scorer
from ..statistics import BootstrapOptions
from ..tasks import AnalogueSearchOptions

logger = logging.getLogger("ionbed")

QUESTIONS = (SAME_MOLECULE, LIBRARY_SEARCH, ANALOGUE_SEARCH)


def questions(data: EvaluationData, molecules: Candidates, *, fold: str, seed: int) -> list[Question]:
    """Return the questions that the data hold a query for; the queries are of ``fold``."""
    config = EvaluationConfig(
        dataset=Path(),
        split=Path(),
        fold="validation" if fold == "validation" else "test",
        seed=seed,
        analogue_search=AnalogueSearchOptions(max_queries_per_molecule=1),
    )
    asked = [ask(name, data, molecules, config) for name in QUESTIONS]
    return [question for question in asked if question is not None]


class SearchTable:
    """The rows of one question.

    Parameters
    ----------
    question : Question
    data : EvaluationData
    bootstrap : BootstrapOptions
    seed : int
    """

    def __init__(self, question: Question, data: EvaluationData, bootstrap: BootstrapOptions, *, seed: int) -> None:
        self.question = question
        self._data = data
        self._judge = Judge(question.task, bootstrap, seed=seed)
        self._rows: list[Judged] = []

    @property
    def main(self) -> str:
        """The metric by which a verdict is put into words."""
        return MAIN_METRIC[self.question.kind]

    def judge(self, label: str, trainings: Sequence[np.ndarray] | None) -> None:
        """Add a row: unit vectors of all spectra, of each training; None for the precursor alone."""
        every = np.arange(len(self._data))
        scorers: list[Scorer] = (
            [PrecursorOnly(self._data.columns)]
            if trainings is None
            else [Learned(label, every, vectors) for vectors in trainings]
        )
        self._rows.append(self._judge([answer(self.question, self._data, scorer) for scorer in scorers]))

    def metrics(self, place: int) -> dict[str, dict[str, Any]]:
        """Return value, low, high and random expectation of every metric of a row."""
        return {name: {**of["micro"], "random": of["random"]} for name, of in self._rows[place].metrics.items()}

    def compare(self, comparisons: Sequence[tuple[int, int | None, str]]) -> list[dict[str, Any]]:
        """Return the paired differences in the main metric; see `ionbed.evaluation.judgement.Judge.compare`.

        Parameters
        ----------
        comparisons : sequence of (int, int or None, str)
            Places of two rows, None for guessing, and what the second is.
        """
        return self._judge.compare(
            self._rows, [Comparison(own, other, (self.main,), role) for own, other, role in comparisons]
        )
