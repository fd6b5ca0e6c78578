"""The figures of each question: metrics with intervals, hit@k curves, ROC curves, scores of right and wrong answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics import hit_at_k, roc_curve
from ..outcomes import LOWER_IS_BETTER
from ..scorers import PrecursorOnly
from ..statistics import Estimate, Measured, estimate, molecule_weights, resampled_means
from .confidence_figures import confidence_drawings
from .drawing import (
    BLUE,
    KIND_COLOURS,
    KINDS,
    ORANGE,
    SHOWN_BLIND,
    SHOWN_LOOKUPS,
    Drawing,
    blank_figure,
    line_width,
    row_styles,
    svg_element,
)
from .explanations import KIND_TITLES

if TYPE_CHECKING:
    from ..measure import QuestionResult, RowResult
    from ..outcomes import Outcomes
    from ..task_files import Task

LEAST_BINS, NUM_BINS = 10, 40
LARGEST_K = 20
CURVE_POINTS = 200
"""Points of a ROC curve along either axis: more cannot be seen."""


def question_figures(result: QuestionResult, *, bootstrap: Mapping[str, Any], seed: int) -> list[Drawing]:
    """Return the drawings of one question, in the order of the page.

    Parameters
    ----------
    bootstrap : mapping
        ``resamples`` and ``confidence``, for bands.
    """
    if not result.rows:
        return []
    shown = shown_rows(result)
    drawn = [intervals(result)]
    if result.question.kind == "pairs":
        return [*drawn, roc_curves(result, shown), pair_score_distributions(result, shown)]
    if result.question.kind != "analogue":
        drawn.append(hit_curves(result, shown, bootstrap=bootstrap, seed=seed))
        drawn += confidence_drawings(result, shown)
        drawn += best_score_distributions(result, shown)
    return drawn


def shown_rows(result: QuestionResult) -> list[RowResult]:
    """Return the rows that figures of lines show: random and oracle, models and networks, the best of the others."""
    main = result.tree["main"]

    def figure(row: RowResult) -> float:
        value = row.tree["metrics"].get(main, {}).get("micro", {}).get("value")
        return -np.inf if value is None else float(value)

    limits = {"blind": SHOWN_BLIND, "look-up": SHOWN_LOOKUPS}
    kept: set[str] = set()
    for kind in KINDS:
        of_kind = sorted((row for row in result.rows if row.tree["kind"] == kind), key=figure, reverse=True)
        kept |= {row.tree["label"] for row in of_kind[: limits.get(kind, len(of_kind))]}
    ordered = sorted(result.rows, key=lambda row: KINDS.index(row.tree["kind"]))
    return [row for row in ordered if row.tree["label"] in kept]


def pair_queries(task: Task) -> np.ndarray:
    """Return the query of each pair, int64 of shape (n_pairs,); every query of such a task has a pool of its own."""
    query_of_pool = np.zeros(int(task.query_pool.max()) + 1, np.int64)
    query_of_pool[task.query_pool] = np.arange(len(task.query_pool))
    queries: np.ndarray = query_of_pool[task.candidate_pool]
    return queries


def pair_truth(task: Task) -> np.ndarray:
    """Return which pairs are of one molecule, bool of shape (n_pairs,)."""
    same: np.ndarray = task.query_molecule[pair_queries(task)] == task.candidate_molecule
    return same


def intervals(result: QuestionResult) -> Drawing:
    """Draw each row's metrics with their intervals, one panel per metric, and what guessing gives."""
    wanted = [m for m in result.tree["metrics"] if m not in ("hit@5", "hit@10", "hit@20", "average precision")]
    trees = sorted((row.tree for row in result.rows), key=lambda row: KINDS.index(row["kind"]))[::-1]
    panels = []
    for metric in wanted:
        rows = [row for row in trees if metric in row["metrics"]]
        if not rows:
            continue
        figure = blank_figure(3.8, 0.8 + 0.25 * len(rows))
        axes = figure.add_subplot()
        random = rows[0]["metrics"][metric].get("random")
        if random is not None:
            axes.axvline(random, color="#777777", linestyle=":", linewidth=1.2)
        for height, row in enumerate(rows):
            of, colour = row["metrics"][metric]["micro"], KIND_COLOURS[row["kind"]]
            if of["low"] is not None:
                axes.hlines(height, of["low"], of["high"], color=colour, linewidth=2)
            if of["value"] is not None:
                axes.plot([of["value"]], [height], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_title(f"{metric} (lower is better)" if metric in LOWER_IS_BETTER else metric, fontsize=10)
        axes.grid(axis="x", linewidth=0.4)
        panels.append(svg_element(figure))
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in trees)]
    key = tuple((KIND_COLOURS[kind], "-", KIND_TITLES[kind]) for kind in kinds)
    caption = "Each row's figure with its interval; the dotted line is what guessing gives."
    return Drawing(caption, tuple(panels), key, result.question.name)


def hit_curves(
    result: QuestionResult, shown: Sequence[RowResult], *, bootstrap: Mapping[str, Any], seed: int
) -> Drawing:
    """Draw hit@k against k with pointwise bands from a bootstrap over molecules."""
    figure = blank_figure(5.4, 3.9)
    axes = figure.add_subplot()
    styles = row_styles([row.tree for row in result.rows])
    key = []
    ks = range(1, LARGEST_K + 1)
    counted = _counted(shown)
    molecule = np.unique(result.question.task.query_molecule[counted], return_inverse=True)[1]
    weights = molecule_weights(int(molecule.max()) + 1, resamples=bootstrap["resamples"], seed=seed)
    for row in shown:
        assert row.outcomes is not None
        curve = hit_curve(row.outcomes, counted, molecule, weights, ks, bootstrap["confidence"])
        # Where there are too few molecules for an interval, the band has no width.
        values, low, high = (
            np.array([getattr(of, name) for of in curve], np.float64) for name in ("value", "low", "high")
        )
        low, high = (np.where(np.isnan(bound), values, bound) for bound in (low, high))
        colour, style = styles[row.tree["label"]]
        axes.plot(ks, values, style, color=colour, linewidth=line_width(row.tree["kind"]))
        axes.fill_between(ks, low, high, color=colour, alpha=0.12, linewidth=0)
        key.append((colour, style, row.tree["label"]))
    axes.set_xlabel("k", fontsize=9)
    axes.set_ylabel("molecule among the first k (share of queries)", fontsize=9)
    axes.set_xlim(1, LARGEST_K)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([1, 5, 10, 15, 20])
    axes.grid(linewidth=0.4)
    return Drawing(
        f"hit@k: the share of the queries whose molecule is among the first k, with {bootstrap['confidence']:.0%} "
        "bands over molecules; the higher, the better. Shown are the models, the networks, and the best of the "
        "other rows.",
        (svg_element(figure),),
        tuple(key),
        result.question.name,
    )


def hit_curve(
    outcomes: Outcomes,
    counted: np.ndarray,
    molecule: np.ndarray,
    weights: np.ndarray,
    ks: Iterable[int],
    confidence: float,
) -> list[Estimate]:
    """Return hit@k for each k, with its interval.

    Parameters
    ----------
    counted : int64 array of shape (n_counted,)
        The queries that count.
    molecule : int64 array of shape (n_counted,)
        Column of ``weights`` of each.
    weights : array of shape (resamples, n_molecules)
    """
    better, tied, found = (
        np.asarray(outcomes.table[name].to_numpy(zero_copy_only=False))[counted] for name in ("better", "tied", "found")
    )
    curve = []
    for k in ks:
        hits = np.where(found, hit_at_k(better, tied, k), 0.0)
        measured = Measured(float(hits.mean()), resampled_means(hits, molecule, weights), weights.shape[1])
        curve.append(estimate(measured, confidence))
    return curve


def roc_curves(result: QuestionResult, shown: Sequence[RowResult]) -> Drawing:
    """Draw the ROC curve of every shown row."""
    figure = blank_figure(4.4, 4.3)
    axes = figure.add_subplot()
    styles = row_styles([row.tree for row in result.rows])
    positive = pair_truth(result.question.task)
    key = []
    for row in shown:
        assert row.pair_scores is not None
        false, true = _thinned(*roc_curve(row.pair_scores, positive))
        colour, style = styles[row.tree["label"]]
        axes.plot(false, true, style, linewidth=line_width(row.tree["kind"]), color=colour)
        area = row.tree["metrics"]["ROC AUC"]["micro"]["value"]
        key.append((colour, style, f"{row.tree['label']} ({area:.3f})"))
    axes.set_xlabel("pairs of two molecules above the threshold", fontsize=9)
    axes.set_ylabel("pairs of one molecule above it", fontsize=9)
    axes.set_aspect("equal")
    axes.grid(linewidth=0.4)
    return Drawing(
        "ROC curves: the share of either kind of pair that a threshold on the score lets through. The nearer to the "
        "upper left corner, the better; in brackets the area below the curve (AUC).",
        (svg_element(figure),),
        tuple(key),
        result.question.name,
    )


def pair_score_distributions(result: QuestionResult, shown: Sequence[RowResult]) -> Drawing:
    """Draw, for each shown row, the scores of pairs of one molecule against those of two molecules."""
    positive = pair_truth(result.question.task).astype(np.float64)
    panels = []
    for row in shown:
        assert row.pair_scores is not None
        if (panel := _distribution(row.tree["label"], row.pair_scores, positive)) is not None:
            panels.append(panel)
    return Drawing(
        "How often each score is given to pairs of one molecule and to pairs of two (density, on a square-root scale): "
        "the less the two overlap, the better.",
        tuple(panels),
        ((BLUE, "-", "one molecule"), (ORANGE, "-", "two molecules")),
        result.question.name,
    )


def best_score_distributions(result: QuestionResult, shown: Sequence[RowResult]) -> list[Drawing]:
    """Draw, for each shown row, the scores of first hits that are right against those of wrong ones."""
    panels = []
    for row in shown:
        if row.tree["kind"] == "reference" or row.outcomes is None:
            continue
        panel = _distribution(row.tree["label"], row.outcomes.best, row.outcomes.correct)
        if panel is not None:
            panels.append(panel)
    if not panels:
        return []
    caption = (
        "How often each score is given to a first hit that is right and to one that is wrong (density, on a "
        "square-root scale): the less the two overlap, the better the score says which answers to trust."
    )
    key = ((BLUE, "-", "right"), (ORANGE, "-", "wrong"))
    return [Drawing(caption, tuple(panels), key, result.question.name)]


def _distribution(label: str, scores: np.ndarray, positive: np.ndarray) -> str | None:
    """Draw scores weighted by the chance that each is positive; None where there is nothing to tell apart."""
    finite = np.isfinite(scores)
    if not finite.any() or np.ptp(scores[finite]) == 0:
        return None
    figure = blank_figure(3.3, 2.2)
    axes = figure.add_subplot()
    num_bins = int(np.clip(np.sqrt(finite.sum()), LEAST_BINS, NUM_BINS))
    bins = list(np.linspace(scores[finite].min(), scores[finite].max(), num_bins + 1))
    for weights, colour in ((positive[finite], BLUE), (1.0 - positive[finite], ORANGE)):
        if weights.sum() > 0:
            axes.hist(scores[finite], bins=bins, weights=weights, density=True, color=colour, alpha=0.4)
            axes.hist(
                scores[finite], bins=bins, weights=weights, density=True, color=colour, histtype="step", linewidth=1.2
            )
    # Look-ups give 0 to most pairs: on a linear scale that one bar hides all others.
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    axes.set_title(label, fontsize=10)
    axes.set_xlabel("minus the difference (ppm)" if label == PrecursorOnly.label else "score", fontsize=9)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)
    return svg_element(figure)


def _counted(rows: Sequence[RowResult]) -> np.ndarray:
    """Return the queries that hit@k is about: the same for every row."""
    outcomes = rows[0].outcomes
    assert outcomes is not None
    return next(of for name, of in outcomes.counted.items() if name.startswith("hit@"))


def _thinned(false: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a curve nearest to even steps along both axes."""
    steps = np.linspace(0, 1, CURVE_POINTS)
    kept = np.unique(np.concatenate([np.searchsorted(false, steps), np.searchsorted(true, steps), [0]]))
    kept = np.append(kept[kept < len(false) - 1], len(false) - 1)
    return false[kept], true[kept]
