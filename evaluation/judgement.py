"""From checked predictions to what stands in a table: averages with intervals, chance beside them, differences.

`ionbed evaluate` and `ionbed score` both judge by these functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .chance import chance_deviations, chance_p, drawn_hits, drawn_reciprocal_ranks
from .comparisons import MAIN_METRIC
from .judged import CHANCE, Averages, Comparison, Judged, p_of_trainings
from .metrics import chance_corrected
from .outcomes import (
    LOWER_IS_BETTER,
    MCES_AT_1,
    MRR,
    TANIMOTO_AT_1,
    PerQuery,
    Pools,
    oracle_tanimoto,
    query_pools,
    ranked_outcomes,
)
from .pair_judgement import PairJudge
from .predictions import Predictions
from .statistics import (
    BootstrapOptions,
    Measured,
    Resamples,
    Verdict,
    combine_trainings,
    compare,
    confirmed,
    estimate,
    holm,
    molecule_means,
    paired_permutation_p,
    resampled_means,
    resamples_of,
)
from .task_files import Task

if TYPE_CHECKING:
    from .mces_at_1 import MCESAt1

OPPOSITE: dict[Verdict, Verdict] = {"beats": "loses", "loses": "beats", "unresolved": "unresolved"}


class Judge:
    """Judges rows of one task; what all rows share (pools, resamples) is made once.

    Parameters
    ----------
    task : Task
    bootstrap : BootstrapOptions
    seed : int
        Of resamples and permutations.
    mces : MCESAt1, optional
        Of this task, where MCES@1 is to be measured.
    """

    def __init__(self, task: Task, bootstrap: BootstrapOptions, *, seed: int, mces: MCESAt1 | None = None) -> None:
        self.task, self.bootstrap, self.seed, self.mces = task, bootstrap, seed, mces
        self.pools: Pools | None = None
        self._drawn: dict[bytes, Resamples] = {}
        self._by_chance: dict[str, np.ndarray] = {}  # by metric, the same for every row
        self._pairs: PairJudge | None = None
        if task.kind == "pairs":
            self._pairs = PairJudge(task, bootstrap, seed=seed)
        else:
            self.pools = query_pools(task)

    def __call__(self, trainings: Sequence[Predictions]) -> Judged:
        """Judge one row, of one or several trainings of it."""
        parts = [self._ranked(one) if self._pairs is None else self._pairs(one) for one in trainings]
        return parts[0] if len(parts) == 1 else self._mean_of(parts)

    def compare(self, judged: Sequence[Judged], comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
        """Return every difference, in order, with corrected p-values (Holm).

        Those in the main metric of the task, by which verdicts are put into words, are corrected together, and all
        others together: the main metric was chosen before any number was seen, and need not pay for the others.

        Each has the keys metric, role, own, against, estimate, p, test, 'p corrected', verdict.
        """
        found: list[dict[str, Any]] = []
        results = []
        for comparison in comparisons:
            own = judged[comparison.own]
            other = None if comparison.other is None else judged[comparison.other]
            for name in comparison.metrics:
                against = CHANCE if other is None else other.name
                reference = own.averages[name].chance if other is None else other.averages[name].micro
                difference = compare(own.averages[name].micro, reference, against, self.bootstrap.confidence)
                if name in LOWER_IS_BETTER:
                    difference = replace(difference, verdict=OPPOSITE[difference.verdict])
                results.append(difference)
                p, test = self._p_value(own, other, name)
                found.append(
                    {
                        "metric": name,
                        "role": comparison.role,
                        "own": own.name,
                        "against": against,
                        "estimate": asdict(difference.estimate),
                        "p": p,
                        "test": test,
                    }
                )
        is_main = np.array([entry["metric"] == MAIN_METRIC[self.task.kind] for entry in found], bool)
        for family in (np.flatnonzero(is_main), np.flatnonzero(~is_main)):
            for place, p in zip(family, holm([found[place]["p"] for place in family]), strict=True):
                found[place]["p corrected"] = p
                found[place]["verdict"] = confirmed(results[place], p, self.bootstrap.confidence)
        return found

    def _p_value(self, own: Judged, other: Judged | None, metric: str) -> tuple[float, str]:
        if self._pairs is not None:
            return self._pairs.p_value(own, other, metric)
        values = own.per_query[metric].random if other is None else other.per_query[metric].value
        unit = self._resamples(own.counted[metric]).unit_of_query
        p, test = paired_permutation_p(own.per_query[metric].value, values, unit, seed=self.seed), "permutation"
        if other is None and (metric == MRR or metric.startswith("hit@")):
            p = max(p, chance_p(own.per_query[metric].value, values, self._deviations(own, metric)))
            test = "permutation and random draws"
        return p_of_trainings(p, test, own, other, metric)

    def _deviations(self, own: Judged, metric: str) -> np.ndarray:
        if metric not in self._by_chance:
            assert self.pools is not None
            counted, chance = own.counted[metric], own.per_query[metric].random
            draw = drawn_hits(chance)
            if metric == MRR:
                draw = drawn_reciprocal_ranks(self.pools.size[counted], self.pools.answerable[counted])
            unit = self._resamples(counted).unit_of_query
            self._by_chance[metric] = chance_deviations(draw, chance, unit, seed=self.seed)
        return self._by_chance[metric]

    def _ranked(self, predictions: Predictions) -> Judged:
        assert self.pools is not None
        outcomes = ranked_outcomes(self.task, predictions, self.pools, self.mces)
        averages = {
            name: averages_of(metric, self._resamples(outcomes.counted[name]))
            for name, metric in outcomes.metrics.items()
            if len(outcomes.counted[name])
        }
        metrics = {
            name: self._tree(name, of, outcomes.metrics[name], outcomes.counted[name]) for name, of in averages.items()
        }
        if self.mces is not None and MCES_AT_1 in metrics:
            metrics[MCES_AT_1] |= {"exact": outcomes.exact_mces, "random exact": self.mces.random_exact}
        return Judged(
            predictions.manifest.name,
            predictions.counts,
            metrics,
            averages,
            dict(outcomes.metrics),
            dict(outcomes.counted),
            outcomes.table,
            outcomes,
            None,
        )

    def _resamples(self, counted: np.ndarray) -> Resamples:
        key = counted.tobytes()
        if key not in self._drawn:  # all queries, or those that have an answer: the same for every row
            molecule = self.task.query_molecule[counted]
            self._drawn[key] = resamples_of(molecule, self.task.unit, self.bootstrap, seed=self.seed)
        return self._drawn[key]

    def _tree(self, name: str, averages: Averages, metric: PerQuery, counted: np.ndarray) -> dict[str, Any]:
        tree = averages_tree(averages, metric, self._resamples(counted), self.bootstrap.confidence)
        if name == TANIMOTO_AT_1 and self.pools is not None:
            tree["oracle"] = oracle_tanimoto(self.pools)
        if name in LOWER_IS_BETTER:  # perfection is not 1
            tree["chance-corrected"] = None
        return tree

    def _mean_of(self, parts: Sequence[Judged]) -> Judged:
        """Return the row of several trainings: means over them, and intervals that know of their spread."""
        first = parts[0]
        averages = {name: combined_averages(name, [part.averages[name] for part in parts]) for name in first.averages}
        per_query = {
            name: PerQuery(
                *(np.mean(of, axis=0) for of in zip(*(vars(p.per_query[name]).values() for p in parts), strict=True))
            )
            for name in first.per_query
        }
        if self._pairs is None:
            metrics = {
                name: self._tree(name, of, per_query[name], first.counted[name]) for name, of in averages.items()
            }
        else:
            metrics = {name: self._pairs.tree(name, of) for name, of in averages.items()}
        if MCES_AT_1 in metrics:
            exact = [part.metrics[MCES_AT_1]["exact"] for part in parts]
            metrics[MCES_AT_1] |= {
                "exact": float(np.mean(exact)),
                "random exact": first.metrics[MCES_AT_1]["random exact"],
            }
        spread = {}
        for name in averages:
            values = [part.averages[name].micro.value for part in parts]
            spread[name] = {"least": min(values), "most": max(values)}
        return replace(
            first,
            metrics=metrics,
            averages=averages,
            per_query=per_query,
            table=_with_means(first, per_query),
            trainings=len(parts),
            spread=spread,
            parts=tuple(parts),
        )


def _with_means(row: Judged, per_query: Mapping[str, PerQuery]) -> pa.Table:
    """Return the table of a row with its metrics replaced by their means over the trainings."""
    table = row.table
    for name, metric in per_query.items():
        values = np.full(len(table), np.nan)
        values[row.counted[name]] = metric.value
        table = table.set_column(table.column_names.index(name), name, pa.array(values, from_pandas=True))
    return table


def averages_of(metric: PerQuery, drawn: Resamples) -> Averages:
    """Return the averages of a metric over n queries; ``drawn`` are the resamples of the same n."""
    weights, unit = drawn.weights, drawn.unit_of_query
    num_units = weights.shape[1]
    micro = Measured(float(metric.value.mean()), resampled_means(metric.value, unit, weights), num_units)
    chance = Measured(float(metric.random.mean()), resampled_means(metric.random, unit, weights), num_units)
    of_molecule = molecule_means(metric.value, drawn.molecule)
    macro = Measured(float(of_molecule.mean()), resampled_means(of_molecule, drawn.unit, weights), num_units)
    corrected = Measured(
        float(chance_corrected(micro.value, chance.value)),
        chance_corrected(micro.resampled, chance.resampled),
        num_units,
    )
    return Averages(micro, chance, macro, corrected)


def averages_tree(averages: Averages, metric: PerQuery, drawn: Resamples, confidence: float) -> dict[str, Any]:
    """Return the averages of ``metric`` as plain numbers, with intervals; parameters as of `averages_of`."""
    assert averages.macro is not None
    assert averages.corrected is not None
    return {
        "queries": len(metric.value),
        "molecules": len(drawn.unit),
        "resampled units": averages.micro.num_molecules,
        "micro": asdict(estimate(averages.micro, confidence)),
        "macro": asdict(estimate(averages.macro, confidence)),
        "best case": float(metric.best_case.mean()),
        "worst case": float(metric.worst_case.mean()),
        "random": averages.chance.value,
        "random macro": float(molecule_means(metric.random, drawn.molecule).mean()),
        "chance-corrected": asdict(estimate(averages.corrected, confidence)),
    }


def combined_averages(metric: str, parts: Sequence[Averages]) -> Averages:
    """Return the averages of several trainings of one row as one, with intervals that know of their spread."""
    most = math.inf if metric in LOWER_IS_BETTER else 1.0

    def combined(of: Sequence[Measured | None], least: float) -> Measured | None:
        known = [one for one in of if one is not None]
        return combine_trainings(known, (least, most)) if known else None

    return Averages(
        combine_trainings([part.micro for part in parts], (0.0, most)),
        parts[0].chance,
        combined([part.macro for part in parts], 0.0),
        combined([part.corrected for part in parts], -math.inf),
    )
