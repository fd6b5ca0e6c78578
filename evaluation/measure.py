"""From a task and its scorers to the rows of a table: point estimates, intervals, differences to the best look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ..progress import progress
from .dataset import EvaluationData
from .metrics import comparable, roc_auc, value_of_best
from .ranking import score_molecules, true_ranks
from .scorers import Kind, Scorer, score_pairs
from .statistics import (
    BootstrapOptions,
    Difference,
    Estimate,
    Measured,
    compare,
    estimate,
    molecule_weights,
    resampled_means,
    resampled_roc_aucs,
    resampling_units,
)
from .tasks import AnalogueSearchTask, LibrarySearchTask, SameMoleculeTask

SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER = "same molecule", "same molecule, any partner"
LIBRARY_SEARCH, ANALOGUE_SEARCH = "library search", "analogue search"
AUC, AUC_BETWEEN_LABORATORIES, TANIMOTO = "AUC", "AUC between laboratories", "mean Tanimoto"
HITS = (1, 5, 20)
ORACLE = "nearest-neighbour oracle"

SCORES_PER_CHUNK = 2**24


@dataclass(frozen=True)
class Row:
    """One scorer in one table.

    Attributes
    ----------
    estimates : dict of metric to Estimate
    differences : dict of metric to Difference
        To the best look-up; learned rows only, and only where both are measured.
    """

    label: str
    kind: Kind
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]


@dataclass(frozen=True, eq=False)
class TaskResult:
    """What one task measured.

    Attributes
    ----------
    name : str
    metrics : tuple of str
    counts : dict of str to number
    rows : tuple of Row
        In the order of the table; empty where the data hold nothing to measure.
    per_query : pyarrow.Table
        Every pair (same molecule) or query (the others) with every scorer's outcome.
    pair_scores : dict of label to float64 array
        Same molecule only: the scores, for figures.
    positive : bool array
        Same molecule only: the labels of ``pair_scores``.
    best_hits : dict of label to int64 array of shape (n_queries, 2)
        Search tasks only: the rows of each query and of its best hit (the first of several that tie).
    """

    name: str
    metrics: tuple[str, ...]
    counts: dict[str, float]
    rows: tuple[Row, ...]
    per_query: pa.Table = field(repr=False)
    pair_scores: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    positive: np.ndarray = field(repr=False, default_factory=lambda: np.empty(0, bool))
    best_hits: dict[str, np.ndarray] = field(repr=False, default_factory=dict)


def measure_same_molecule(
    data: EvaluationData,
    task: SameMoleculeTask,
    scorers: Sequence[Scorer],
    bootstrap: BootstrapOptions,
    *,
    seed: int,
    name: str = SAME_MOLECULE,
) -> TaskResult:
    """Return the ROC AUC of every scorer over all pairs, and over the pairs between two laboratories."""
    scores = {
        scorer.label: score_pairs(
            scorer, task.first, task.second, data.columns.precursor_mz, label=f"{name}: {scorer.label}"
        )
        for scorer in scorers
    }
    _, index = np.unique(data.molecule[np.stack([task.first, task.second])], return_inverse=True)
    first, second = resampling_units(*index.reshape(2, -1))
    num_units = len(np.unique([first, second]))
    weights = molecule_weights(num_units, resamples=bootstrap.resamples, seed=seed)
    measured: dict[str, dict[str, Measured]] = {scorer.label: {} for scorer in scorers}
    for metric, chosen in (
        (AUC, np.ones(len(task.same), bool)),
        (AUC_BETWEEN_LABORATORIES, task.other_laboratory),
    ):
        positive = task.same[chosen]
        if not positive.any() or positive.all():
            continue
        num_chosen = len(np.unique([first[chosen], second[chosen]]))
        of_metric = {label: values[chosen] for label, values in scores.items()}
        resampled = resampled_roc_aucs(of_metric, positive, first[chosen], second[chosen], weights)
        for label, values in of_metric.items():
            measured[label][metric] = Measured(roc_auc(values, positive), resampled[label], num_chosen)
    table = {
        "first": data.spectrum_id[task.first],
        "second": data.spectrum_id[task.second],
        "first_inchikey_block": data.inchikey_block[data.molecule[task.first]],
        "second_inchikey_block": data.inchikey_block[data.molecule[task.second]],
        "same_molecule": task.same,
        "other_laboratory": task.other_laboratory,
        **{f"score: {label}": values for label, values in scores.items()},
    }
    return TaskResult(
        name=name,
        metrics=(AUC, AUC_BETWEEN_LABORATORIES),
        counts=task.counts,
        rows=_rows(scorers, measured, bootstrap),
        per_query=pa.table({name: pa.array(column) for name, column in table.items()}),
        pair_scores=scores,
        positive=task.same,
    )


def measure_library_search(
    data: EvaluationData, task: LibrarySearchTask, scorers: Sequence[Scorer], bootstrap: BootstrapOptions, *, seed: int
) -> TaskResult:
    """Return hit@1, 5 and 20 of every scorer; a molecule's score is that of its best spectrum."""
    molecule = data.molecule[task.library]
    true_molecule = data.molecule[task.queries]
    distinct = score_molecules(task.query, molecule, np.zeros(len(molecule)))
    num_candidates = np.bincount(distinct.query, minlength=len(task.queries))
    resample = _Resampler(true_molecule, bootstrap, seed)
    measured: dict[str, dict[str, Measured]] = {}
    best_hits = {}
    table = {
        "spectrum_id": data.spectrum_id[task.queries],
        "inchikey_block": data.inchikey_block[true_molecule],
        "num_candidates": num_candidates,
    }
    for scorer in scorers if len(task.queries) else ():
        scores = score_pairs(
            scorer,
            task.queries[task.query],
            task.library,
            data.columns.precursor_mz,
            label=f"{LIBRARY_SEARCH}: {scorer.label}",
        )
        ranks = true_ranks(score_molecules(task.query, molecule, scores), true_molecule, num_candidates)
        measured[scorer.label] = {f"hit@{k}": resample(ranks.hits(k)) for k in HITS}
        table[f"better: {scorer.label}"] = ranks.better
        table[f"tied: {scorer.label}"] = ranks.tied
        # By query, then score: the last of each query is its best hit.
        order = np.lexsort((scores, task.query))
        last = order[np.append(np.flatnonzero(np.diff(task.query)), len(task.query) - 1)]
        best_hits[scorer.label] = np.column_stack([task.queries, task.library[last]])
        table[f"best hit: {scorer.label}"] = data.spectrum_id[task.library[last]]
    return TaskResult(
        name=LIBRARY_SEARCH,
        metrics=tuple(f"hit@{k}" for k in HITS),
        counts=task.counts,
        rows=_rows(scorers, measured, bootstrap),
        per_query=pa.table({name: pa.array(column) for name, column in table.items()}),
        best_hits=best_hits,
    )


def measure_analogue_search(
    data: EvaluationData,
    task: AnalogueSearchTask,
    scorers: Sequence[Scorer],
    bootstrap: BootstrapOptions,
    *,
    seed: int,
) -> TaskResult:
    """Return the mean Tanimoto of the best hit's molecule to the query's, and the most that any ranking could reach.

    Fingerprints are Morgan, radius 2, 2048 bits. A molecule's score is that of its best spectrum.
    """
    queries = np.concatenate([np.empty(0, np.int64), *task.queries])
    values: dict[str, list[np.ndarray]] = {ORACLE: [], **{scorer.label: [] for scorer in scorers}}
    hits: dict[str, list[np.ndarray]] = {scorer.label: [] for scorer in scorers}
    for of_polarity, library in zip(task.queries, task.libraries, strict=True):
        molecule = data.molecule[library]
        starts = np.flatnonzero(np.append(True, molecule[1:] != molecule[:-1]))
        tanimoto = _tanimoto(data, data.molecule[of_polarity], molecule[starts])
        values[ORACLE].append(tanimoto.max(axis=1).astype(np.float64))
        for scorer in scorers:
            best_values, best_rows = _search(scorer, of_polarity, library, starts, tanimoto)
            values[scorer.label].append(best_values)
            hits[scorer.label].append(best_rows)
    resample = _Resampler(data.molecule[queries], bootstrap, seed)
    table = {
        "spectrum_id": data.spectrum_id[queries],
        "inchikey_block": data.inchikey_block[data.molecule[queries]],
    }
    measured: dict[str, dict[str, Measured]] = {}
    best_hits = {}
    if len(queries):
        for label, parts in values.items():
            of_label = np.concatenate(parts)
            measured[label] = {TANIMOTO: resample(of_label)}
            table[f"tanimoto: {label}"] = of_label
        for label, parts in hits.items():
            rows = np.concatenate(parts)
            best_hits[label] = np.column_stack([queries, rows])
            table[f"best hit: {label}"] = data.spectrum_id[rows]
    table_rows = _rows(scorers, measured, bootstrap)
    if table_rows:
        best = estimate(measured[ORACLE][TANIMOTO], bootstrap.confidence)
        table_rows = (*table_rows, Row(ORACLE, "reference", {TANIMOTO: best}, {}))
    return TaskResult(
        name=ANALOGUE_SEARCH,
        metrics=(TANIMOTO,),
        counts=task.counts,
        rows=table_rows,
        per_query=pa.table({name: pa.array(column) for name, column in table.items()}),
        best_hits=best_hits,
    )


class _Resampler:
    """Means over queries, and the same in each resample of their molecules."""

    def __init__(self, molecule: np.ndarray, bootstrap: BootstrapOptions, seed: int) -> None:
        molecules, self._index = np.unique(molecule, return_inverse=True)
        self.num_molecules = len(molecules)
        self._weights = molecule_weights(len(molecules), resamples=bootstrap.resamples, seed=seed)

    def __call__(self, values: np.ndarray) -> Measured:
        return Measured(float(values.mean()), resampled_means(values, self._index, self._weights), self.num_molecules)


def _search(
    scorer: Scorer, queries: np.ndarray, library: np.ndarray, starts: np.ndarray, tanimoto: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Search ``library`` (molecules begin at ``starts``) in chunks of queries; the best hits' values and rows."""
    size = int(np.clip(SCORES_PER_CHUNK // len(library), 1, 256))
    values, rows = np.empty(len(queries)), np.empty(len(queries), np.int64)
    stops = np.append(starts[1:], len(library))
    with progress(f"{ANALOGUE_SEARCH}: {scorer.label}", len(queries), unit="queries") as advance:
        for begin in range(0, len(queries), size):
            chunk = slice(begin, begin + size)
            scores = scorer.scores(queries[chunk], library)
            of_molecule = comparable(np.fmax.reduceat(scores, starts, axis=1))
            values[chunk] = value_of_best(of_molecule, tanimoto[chunk])
            for row, best in enumerate(of_molecule.argmax(axis=1)):
                span = slice(starts[best], stops[best])
                rows[begin + row] = library[span][comparable(scores[row, span]).argmax()]
            advance(len(scores))
    return values, rows


def _tanimoto(data: EvaluationData, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Return the Tanimoto similarity of molecules ``queries`` to molecules ``library``, float32 (n, m)."""
    from ..spectra.molecules import morgan_fingerprints, tanimoto_matrix

    distinct, index = np.unique(queries, return_inverse=True)
    similarity = tanimoto_matrix(
        morgan_fingerprints(list(data.smiles[distinct]), radius=2, bits=2048),
        morgan_fingerprints(list(data.smiles[library]), radius=2, bits=2048),
    )
    return similarity[index]


def _rows(
    scorers: Sequence[Scorer],
    measured: Mapping[str, Mapping[str, Measured]],
    bootstrap: BootstrapOptions,
) -> tuple[Row, ...]:
    """Build the rows; the best look-up of each metric is the one with the highest point estimate."""
    if not any(measured.values()):
        return ()
    metrics = dict.fromkeys(metric for of_label in measured.values() for metric in of_label)
    lookups = [scorer.label for scorer in scorers if scorer.kind == "look-up"]
    best = {
        metric: max(lookups, key=lambda label, metric=metric: measured[label][metric].value)  # type: ignore[misc]
        for metric in metrics
        if lookups
    }
    rows = []
    for scorer in scorers:
        estimates, differences = {}, {}
        for metric, own in measured[scorer.label].items():
            estimates[metric] = estimate(own, bootstrap.confidence)
            if scorer.kind == "learned" and metric in best:
                other = measured[best[metric]][metric]
                differences[metric] = compare(own, other, best[metric], bootstrap.confidence)
        rows.append(Row(scorer.label, scorer.kind, estimates, differences))
    return tuple(rows)
