"""Figures of what a score is worth as a confidence: risk against coverage, false discovery rate, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..confidence import FDR_LEVELS, fdr_curve
from .drawing import GREY, Drawing, blank_figure, line_width, row_styles, svg_element

if TYPE_CHECKING:
    from ..measure import QuestionResult, RowResult

CURVE_POINTS = 300
"""Points of a curve that are drawn."""

MOST_FDR_PANELS = 6


def confidence_drawings(result: QuestionResult, shown: Sequence[RowResult]) -> list[Drawing]:
    """Return the drawings of a ranked question whose answers are right or wrong."""
    drawings = (risk_coverage(result, shown), fdr_curves(result, shown), calibration(result, shown))
    return [drawing for drawing in drawings if drawing is not None]


def risk_coverage(result: QuestionResult, shown: Sequence[RowResult]) -> Drawing | None:
    """Draw the error rate among the answered queries as more of them are answered, the most confident first."""
    known = [row for row in shown if row.tree["confidence"]]
    if not known:
        return None
    figure = blank_figure(5.4, 3.6)
    axes = figure.add_subplot()
    styles = row_styles([row.tree for row in result.rows])
    key = []
    for row in known:
        curve = row.tree["confidence"]["risk-coverage"]
        colour, style = styles[row.tree["label"]]
        axes.plot(curve["coverage"], curve["risk"], style, color=colour, linewidth=line_width(row.tree["kind"]))
        area = row.tree["confidence"]["area under risk-coverage"]
        key.append((colour, style, f"{row.tree['label']} ({area:.3f})"))
    axes.set_xlabel("queries answered (share), the highest scores first", fontsize=9)
    axes.set_ylabel("wrong among the answered", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.grid(linewidth=0.4)
    caption = (
        "Risk against coverage: if only the queries with the highest scores are answered, how many of the answers are "
        "wrong? A curve that rises late means that the score knows when it is right; in brackets the area below it."
    )
    return Drawing(caption, (svg_element(figure),), tuple(key), result.question.name)


def fdr_curves(result: QuestionResult, shown: Sequence[RowResult]) -> Drawing | None:
    """Draw for each row the false discovery rate against the answers kept, measured and estimated."""
    panels = []
    wanted = [row for row in shown if row.tree["kind"] != "reference" and row.outcomes is not None]
    for row in wanted[-MOST_FDR_PANELS:]:
        assert row.outcomes is not None
        curve = fdr_curve(row.outcomes.best, row.outcomes.correct, row.outcomes.second)
        if not len(curve.accepted):
            continue
        kept = np.unique(np.linspace(0, len(curve.accepted) - 1, CURVE_POINTS).astype(np.int64))
        figure = blank_figure(3.4, 2.5)
        axes = figure.add_subplot()
        for level in FDR_LEVELS:
            axes.axhline(level, color=GREY, linewidth=0.6)
        axes.plot(curve.accepted[kept], curve.measured[kept], color="#000000", linewidth=1.6)
        axes.plot(curve.accepted[kept], curve.estimated[kept], "--", color="#d55e00", linewidth=1.4)
        axes.set_title(row.tree["label"], fontsize=10)
        axes.set_xlabel("answers kept", fontsize=9)
        axes.set_ylabel("wrong among them", fontsize=9)
        axes.set_ylim(0, 1)
        panels.append(svg_element(figure))
    if not panels:
        return None
    caption = (
        "False discovery rate as the threshold on the score is lowered: as the truth has it, and as it can be "
        "estimated without the truth, from second-best candidates. The grey lines are 1%, 5% and 10%. Where the two "
        "part, the estimate cannot be trusted."
    )
    key = (("#000000", "-", "measured"), ("#d55e00", "--", "estimated from second-best candidates"))
    return Drawing(caption, tuple(panels), key, result.question.name)


def calibration(result: QuestionResult, shown: Sequence[RowResult]) -> Drawing | None:
    """Draw stated probabilities against the share of right answers, for the rows that state any."""
    known = [row for row in shown if row.tree["confidence"] and row.tree["confidence"]["calibration"]]
    if not known:
        return None
    styles = row_styles([row.tree for row in result.rows])
    curves = []
    for row in known:
        of = row.tree["confidence"]["calibration"]
        name = f"{row.tree['label']} (error {of['error']:.3f})"
        curves.append((name, *styles[row.tree["label"]], of["confidence"], of["accuracy"]))
    caption = (
        "Calibration: answers of one stated probability should be right in that share of the cases, along the dotted "
        "line; in brackets the expected calibration error."
    )
    return reliability(caption, curves, result.question.name)


def reliability(
    caption: str, curves: Iterable[tuple[str, str, str, Sequence[float], Sequence[float]]], question: str | None = None
) -> Drawing:
    """Draw the share of right answers against the probability that was stated.

    ``curves`` have a name, a colour, a style of line, stated probabilities, and shares of right answers.
    ``question`` is the one that the drawing belongs to.
    """
    figure = blank_figure(4.0, 3.9)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1.2)
    key = []
    for name, colour, style, stated, right in curves:
        axes.plot(stated, right, style, marker="o", markersize=4, color=colour)
        key.append((colour, style, name))
    axes.set_xlabel("stated probability", fontsize=9)
    axes.set_ylabel("share of right answers", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    return Drawing(caption, (svg_element(figure),), tuple(key), question)
