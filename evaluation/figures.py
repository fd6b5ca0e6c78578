"""The figures of the report, each as one SVG text."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..spectra.spectrum import Spectrum
from .measure import AUC, HITS, LIBRARY_SEARCH, SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER, TANIMOTO, TaskResult
from .metrics import roc_curve
from .mirror import mirror_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME, DIFFERENT = "#0072b2", "#d55e00"
NUM_BINS = 40


def task_figures(results: Sequence[TaskResult]) -> dict[str, str]:
    """Return SVG by caption for every task that measured something."""
    drawn = {}
    for result in results:
        if not result.rows:
            continue
        if result.name in (SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER):
            if AUC in result.rows[0].estimates:
                drawn[f"{result.name}: scores of pairs of one molecule and of two"] = score_distributions(result)
                drawn[f"{result.name}: ROC curves"] = roc_curves(result)
        elif result.name == LIBRARY_SEARCH:
            drawn["Library search: share of queries whose molecule is among the first k"] = intervals(
                result, [f"hit@{k}" for k in HITS]
            )
        else:
            drawn["Analogue search: mean Tanimoto of the best hit"] = intervals(result, [TANIMOTO])
    return drawn


def score_distributions(result: TaskResult) -> str:
    """Draw, for each scorer, the scores of pairs of one molecule against those of two molecules."""
    scores = {label: values for label, values in result.pair_scores.items() if np.ptp(values[np.isfinite(values)]) > 0}
    columns = min(3, max(len(scores), 1))
    rows = -(-len(scores) // columns) or 1
    figure = _figure(3.2 * columns, 2.3 * rows)
    for position, (label, values) in enumerate(scores.items()):
        axes = figure.add_subplot(rows, columns, position + 1)
        finite = np.isfinite(values)
        bins = np.linspace(values[finite].min(), values[finite].max(), NUM_BINS + 1)
        for chosen, colour, name in (
            (result.positive, SAME, "same molecule"),
            (~result.positive, DIFFERENT, "different"),
        ):
            axes.hist(values[chosen & finite], bins=list(bins), density=True, color=colour, alpha=0.55, label=name)
        axes.set_title(label, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        if position == 0:
            axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


def roc_curves(result: TaskResult) -> str:
    """Draw the ROC curve of every scorer."""
    figure = _figure(5.2, 4.4)
    axes = figure.add_subplot()
    for row in result.rows:
        false, true = roc_curve(result.pair_scores[row.label], result.positive)
        style = {"reference": ":", "look-up": "--", "learned": "-"}[row.kind]
        axes.plot(false, true, style, linewidth=1.4, label=f"{row.label} ({row.estimates[AUC].value:.3f})")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return _svg(figure)


def intervals(result: TaskResult, metrics: Sequence[str]) -> str:
    """Draw each row's estimate with its interval, one panel per metric."""
    rows = result.rows[::-1]
    figure = _figure(2.0 + 2.4 * len(metrics), 0.8 + 0.3 * len(rows))
    first = None
    for position, metric in enumerate(metrics):
        axes = first = figure.add_subplot(1, len(metrics), position + 1, sharey=first)
        for height, row in enumerate(rows):
            estimate = row.estimates[metric]
            colour = {"reference": "#999999", "look-up": DIFFERENT, "learned": SAME}[row.kind]
            if estimate.low is not None and estimate.high is not None:
                axes.hlines(height, estimate.low, estimate.high, color=colour, linewidth=2)
            if estimate.value is not None:
                axes.plot([estimate.value], [height], "o", color=colour, markersize=4)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
        axes.tick_params(labelleft=position == 0)
        axes.set_title(metric, fontsize=9)
        axes.grid(axis="x", linewidth=0.4)
    return _svg(figure)


def loss_curves(logs: Mapping[str, Path]) -> str:
    """Draw the losses logged in JSONL files (lines with ``step`` and ``loss``), one panel per label.

    Raises
    ------
    InputError
        A log holds a broken line, or no loss at all.
    """
    figure = _figure(4.2 * len(logs), 2.8)
    for position, (label, path) in enumerate(logs.items()):
        axes = figure.add_subplot(1, len(logs), position + 1)
        for name, (steps, losses) in read_losses(path).items():
            axes.plot(steps, losses, linewidth=1.2, label=name)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(fontsize=7, frameon=False)
    return _svg(figure)


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


def mirror(upper: Spectrum, lower: Spectrum) -> str:
    """Draw a query above its hit."""
    return _svg(mirror_figure(upper, lower))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that can stand inside HTML; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ionbed", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
