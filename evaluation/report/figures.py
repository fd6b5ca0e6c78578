"""The figures of the report, each as one SVG text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...spectra.spectrum import Spectrum
from ..measure import AUC, HITS, LIBRARY_SEARCH, SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER, TANIMOTO, TaskResult
from ..metrics import roc_curve
from ..scorers import PrecursorOnly
from .drawing import (
    BLUE,
    KIND_COLOURS,
    LINE_COLOURS,
    LINE_STYLES,
    ORANGE,
    Drawing,
    blank_figure,
    svg_element,
)
from .mirror import LOWER, MATCHED, UPPER, mirror_figure

NUM_BINS = 40


def task_figures(results: Sequence[TaskResult]) -> list[Drawing]:
    """Return the drawings of every task that measured something."""
    drawn = []
    for result in results:
        if not result.rows:
            continue
        if result.name in (SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER):
            if AUC in result.rows[0].estimates:
                drawn += [score_distributions(result), roc_curves(result)]
        elif result.name == LIBRARY_SEARCH:
            caption = (
                "Share of the queries whose molecule is the first hit, among the first 5, and among the first 20, with "
                "its interval: further right is better."
            )
            drawn.append(intervals(result, [f"hit@{k}" for k in HITS], caption))
        else:
            caption = (
                "Structural similarity of the first hit to the query's molecule, with its interval: further right is "
                "better, up to the oracle."
            )
            drawn.append(intervals(result, [TANIMOTO], caption))
    return drawn


def score_distributions(result: TaskResult) -> Drawing:
    """Draw, for each scorer, the scores of pairs of one molecule against those of two molecules."""
    panels = []
    for label, values in result.pair_scores.items():
        finite = np.isfinite(values)
        if not finite.any() or np.ptp(values[finite]) == 0:
            continue
        figure = blank_figure(3.3, 2.2)
        axes = figure.add_subplot()
        bins = np.linspace(values[finite].min(), values[finite].max(), NUM_BINS + 1)
        for chosen, colour in ((result.positive, BLUE), (~result.positive, ORANGE)):
            of_kind = values[chosen & finite]
            axes.hist(of_kind, bins=list(bins), density=True, color=colour, alpha=0.4)
            axes.hist(of_kind, bins=list(bins), density=True, color=colour, histtype="step", linewidth=1.2)
        # Look-ups give 0 to most pairs: on a linear scale that one bar hides all others.
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("minus the difference (ppm)" if label == PrecursorOnly.label else "score", fontsize=9)
        axes.set_yticks([])
        panels.append(svg_element(figure))
    return Drawing(
        "How often each score is given to pairs of one molecule and to pairs of two (density, on a square-root scale): "
        "the less the two overlap, the better.",
        tuple(panels),
        ((BLUE, "-", "one molecule"), (ORANGE, "-", "two molecules")),
        result.name,
    )


def roc_curves(result: TaskResult) -> Drawing:
    """Draw the ROC curve of every scorer."""
    figure = blank_figure(4.0, 3.9)
    axes = figure.add_subplot()
    key = []
    colours = {kind: itertools.cycle(of_kind) for kind, of_kind in LINE_COLOURS.items()}
    for row in result.rows:
        false, true = roc_curve(result.pair_scores[row.label], result.positive)
        colour, style = next(colours[row.kind]), LINE_STYLES[row.kind]
        axes.plot(false, true, style, linewidth=2.0 if row.kind == "learned" else 1.4, color=colour)
        key.append((colour, style, f"{row.label} ({row.estimates[AUC].value:.3f})"))
    axes.set_xlabel("pairs of two molecules above the threshold", fontsize=9)
    axes.set_ylabel("pairs of one molecule above it", fontsize=9)
    axes.set_aspect("equal")
    return Drawing(
        "ROC curves: the share of either kind of pair that a threshold on the score lets through. The nearer to the "
        "upper left corner, the better; in brackets the area below the curve (AUC).",
        (svg_element(figure),),
        tuple(key),
        result.name,
    )


def intervals(result: TaskResult, metrics: Sequence[str], caption: str) -> Drawing:
    """Draw each row's estimate with its interval, one panel per metric."""
    rows = result.rows[::-1]
    found = [row.estimates[metric] for row in rows for metric in metrics]
    bounds = [bound for e in found for bound in (e.value, e.low, e.high) if bound is not None]
    margin = 0.05 * (max(bounds) - min(bounds)) or 0.05
    panels = []
    for metric in metrics:
        figure = blank_figure(3.6, 0.8 + 0.27 * len(rows))
        axes = figure.add_subplot()
        for height, row in enumerate(rows):
            estimate, colour = row.estimates[metric], KIND_COLOURS[row.kind]
            if estimate.low is not None and estimate.high is not None:
                axes.hlines(height, estimate.low, estimate.high, color=colour, linewidth=2)
            if estimate.value is not None:
                axes.plot([estimate.value], [height], "o", color=colour, markersize=5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(min(bounds) - margin, max(bounds) + margin)
        axes.set_title(metric, fontsize=10)
        axes.grid(axis="x", linewidth=0.4)
        panels.append(svg_element(figure))
    kinds = dict.fromkeys(row.kind for row in result.rows)
    key = tuple((KIND_COLOURS[kind], "-", kind) for kind in kinds)
    return Drawing(caption, tuple(panels), key, result.name)


def loss_curves(logs: Mapping[str, Path]) -> Drawing:
    """Draw the losses logged in JSONL files (lines with ``step`` and ``loss``), one panel per label.

    Raises
    ------
    InputError
        A log holds a broken line, or no loss at all.
    """
    panels = []
    colours = {"loss": BLUE, "validation_loss": ORANGE}
    for label, path in logs.items():
        figure = blank_figure(3.9, 2.6)
        axes = figure.add_subplot()
        for name, (steps, losses) in read_losses(path).items():
            axes.plot(steps, losses, linewidth=1.2, color=colours[name])
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.set_ylabel("loss", fontsize=9)
        panels.append(svg_element(figure))
    key = ((BLUE, "-", "on the training batches"), (ORANGE, "-", "on the molecules held out for validation"))
    return Drawing("Loss during training: it should fall and then level off.", tuple(panels), key)


def read_losses(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values of every logged ``loss`` and ``validation_loss``; see `loss_curves`."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry: Any = json.loads(line)
            step = entry.get("step")
        except (json.JSONDecodeError, AttributeError):
            raise InputError(f"{path}: line {number} is not a JSON object; name a log.jsonl of a training") from None
        for name in ("loss", "validation_loss"):
            if step is not None and isinstance(entry.get(name), (int, float)):
                steps, losses = curves.setdefault(name, ([], []))
                steps.append(step)
                losses.append(entry[name])
    if not curves:
        raise InputError(f"{path}: no line has both 'step' and 'loss'; name a log.jsonl of a training")
    return curves


def mirror(task: str, caption: str, upper: Spectrum, lower: Spectrum) -> Drawing:
    """Draw a query above its hit."""
    key = ((MATCHED, "-", "peaks that match"), (UPPER, "-", "other peaks of the query"), (LOWER, "-", "of the hit"))
    return Drawing(caption, (svg_element(mirror_figure(upper, lower)),), key, task, wide=True)
