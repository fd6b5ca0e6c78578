"""The rows of a table before they are measured: what each is, what it knows, and how to make its scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .candidates import Candidates
from .dataset import EvaluationData
from .predictions import Corpus
from .scorers import Kind, Scorer, StructureScorer
from .task_files import KINDS, TaskKind

Build = Callable[[EvaluationData, Candidates, np.ndarray], Scorer | StructureScorer]
"""From the data, the candidate structures and the rows of the data that will be scored, to a scorer.

It must not look at the molecules of those rows, and must work on data that an audit has altered: every call of it
may come with other peaks, or with rows appended.
"""


@dataclass(frozen=True, eq=False)
class Entry:
    """One row of the tables.

    Attributes
    ----------
    label : str
    kind : Kind
    builds : tuple of Build
        One for each training of it with another seed; one only for what is not trained.
    known : tuple of str
        What it is given beside the peaks; see `ionbed.evaluation.predictions.KNOWN`.
    trained_on : tuple of Corpus
    exposure : str or None
        Why it may have seen the molecules of the queries.
    kinds : frozenset of TaskKind
        The questions in whose tables it stands, if it can answer them.
    """

    label: str
    kind: Kind
    builds: tuple[Build, ...]
    known: tuple[str, ...] = ()
    trained_on: tuple[Corpus, ...] = ()
    exposure: str | None = None
    kinds: frozenset[TaskKind] = frozenset(KINDS)
