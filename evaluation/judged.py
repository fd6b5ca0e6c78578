"""What a row of a table comes to once it is measured, and which rows are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from .outcomes import Outcomes, PerQuery
from .statistics import Measured, trainings_p

CHANCE = "random"


@dataclass(frozen=True, eq=False)
class Averages:
    """A metric over all that counts, before its intervals.

    Attributes
    ----------
    micro : Measured
        Over queries (or pairs).
    chance : Measured
        The same of drawing at random.
    macro, corrected : Measured or None
        Over molecules, and on the way from chance to perfection; None for pairs.
    """

    micro: Measured
    chance: Measured
    macro: Measured | None = None
    corrected: Measured | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """One row of a table after measuring: a tool, or several trainings of it.

    Attributes
    ----------
    name : str
    counts : dict of str to int
        Rows, rows without a score, queries without any score, candidates without a score (of the first training).
    metrics : dict of metric to dict
        Plain numbers, for JSON.
    averages : dict of metric to Averages
    per_query : dict of metric to PerQuery
        Means over the trainings; empty for pairs.
    counted : dict of metric to int64 array
        The queries that ``per_query`` is about.
    table : pyarrow.Table
        Every query (or pair) with its outcome; metrics are means over the trainings, all else is of the first.
    outcomes : Outcomes or None
        Of the first training; None for pairs.
    pair_scores : float64 array of shape (n_pairs,), or None
        Of the first training; None where queries are ranked.
    spread : dict of metric to dict
        The least and the most of the trainings; empty where there is one.
    parts : tuple of Judged
        The trainings one by one; empty where there is one.
    """

    name: str
    counts: dict[str, int]
    metrics: dict[str, dict[str, Any]]
    averages: dict[str, Averages] = field(repr=False)
    per_query: dict[str, PerQuery] = field(repr=False)
    counted: dict[str, np.ndarray] = field(repr=False)
    table: pa.Table = field(repr=False)
    outcomes: Outcomes | None = field(repr=False)
    pair_scores: np.ndarray | None = field(repr=False)
    trainings: int = 1
    spread: dict[str, dict[str, float]] = field(default_factory=dict)
    parts: tuple[Judged, ...] = field(repr=False, default=())

    def measured(self, metric: str) -> list[Measured]:
        """Return the micro average of a metric in each training."""
        return [part.averages[metric].micro for part in self.parts or (self,)]


def p_of_trainings(p_value: float, test: str, own: Judged, other: Judged | None, metric: str) -> tuple[float, str]:
    """Return the p-value of a test on the trainings at hand, made to hold for others: the larger of it and theirs."""
    if not own.parts and (other is None or not other.parts):
        return p_value, test
    against = [own.averages[metric].chance] if other is None else other.measured(metric)
    return max(p_value, trainings_p(own.measured(metric), against)), f"{test}, spread of trainings"


@dataclass(frozen=True)
class Comparison:
    """Two rows to be compared.

    Attributes
    ----------
    own, other : int
        Places among the judged rows; ``other`` is None for chance.
    metrics : tuple of str
    role : str
        What ``other`` is, such as 'best look-up'.
    """

    own: int
    other: int | None
    metrics: tuple[str, ...]
    role: str = ""
