"""Figures of strata: each stratum cell by cell, where a row can be trusted, and similarity to training against success.

All are drawn from a question of ``results.json`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..strata import NAMES
from ..trust import LOOKUP, RANDOM
from .drawing import GREY, Drawing, blank_figure, line_width, row_styles, svg_element
from .trust import UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CELLS = 12
"""Cells of a stratum that a panel shows, those with the most queries; ``results.json`` has them all."""
MOST_ROWS = 4
"""Rows that a figure shows at most: the models, then the small networks, then look-ups."""
MOST_ROWS_IN_FULL = 2
"""Rows that have a panel for each number by which queries are told apart."""
KINDS_SHOWN = ("learned", "trained", "look-up")

LOG_TICKS = {"precursor_mz": (50, 100, 200, 400, 800, 1600), "num_peaks": (1, 3, 10, 30, 100, 300)}
"""Marks on the axes of numbers that spread over orders of magnitude."""

TITLES = {"nearest_train_tanimoto": "similarity to training molecules"}
"""Of panels, where the name of the stratum is too long."""
NEAREST_TRAIN = "nearest_train_tanimoto"
ABOVE_RANDOM, ABOVE_LOOKUP = "#009e73", "#003d33"
"""Colours of the bars below a curve that say where it is above chance, and above the best look-up."""


def strata_drawings(name: str, question: Mapping[str, Any]) -> list[Drawing]:
    """Return, where there is one, the drawing of every stratum with two cells or more, a panel each.

    Parameters
    ----------
    name : str
        Of the question.
    question : mapping
        Of ``results.json``: ``rows`` with ``label``, ``kind`` and ``strata``.
    """
    rows = [row for row in _shown(question) if row.get("strata")]
    if not rows:
        return []
    styles = row_styles(question["rows"])
    shown = {
        stratum: _cells_shown(rows[0]["strata"][stratum]["cells"]) for stratum in NAMES if stratum in rows[0]["strata"]
    }
    shown = {stratum: cells for stratum, cells in shown.items() if len(cells) > 1}
    if not shown:
        return []
    limits = _limits(
        [row["strata"][stratum]["cells"][cell] for row in rows for stratum in shown for cell in shown[stratum]]
    )
    panels = [_stratum_panel(stratum, cells, rows, styles, limits) for stratum, cells in shown.items()]
    metric = next(iter(rows[0]["strata"].values()))["metric"]
    caption = (
        f"{metric} in each stratum of the queries, with its interval; further right is better. The grey mark is what "
        f"guessing gives on the same queries. Cells that are too small are left out; of more than {MOST_CELLS} cells, "
        "those with the most queries are shown."
    )
    key = (*((*styles[row["label"]], row["label"]) for row in rows), (GREY, "-", "guessing"))
    return [Drawing(caption, tuple(panels), key, name)]


def trust_drawings(name: str, question: Mapping[str, Any]) -> list[Drawing]:
    """Return the drawings of where rows can be trusted: by collision energy, and by every other number but one.

    Similarity to the training molecules has a drawing of its own; see `similarity_drawings`. Parameters are those of
    `strata_drawings`; the rows have ``trust`` as `ionbed.evaluation.trust.trust_tree` returns it.
    """
    shown = [row for row in _shown(question) if row.get("trust") and not row.get("void")]
    # The models alone, where there are any: a panel for each number and each row would be a wall.
    rows = [row for row in shown if row["kind"] == shown[0]["kind"]]
    styles = row_styles(question["rows"])
    drawn = []
    for is_energy in (True, False):
        panels = [
            _trust_panel(row, stratum, styles)
            for row in rows[: MOST_ROWS if is_energy else MOST_ROWS_IN_FULL]
            for stratum, found in row["trust"]["by"].items()
            if (stratum == "collision_energy") == is_energy and stratum != NEAREST_TRAIN and len(found["bins"]) > 1
        ]
        if not panels:
            continue
        metric = rows[0]["trust"]["metric"]
        what = "collision energy" if is_energy else "other properties of the query"
        caption = (
            f"Where can the prediction be trusted? {metric} by {what}, with its interval. The bars at the bottom show "
            "where it is above guessing and above the best look-up, after correction for the number of bins; where "
            "there is no bar, neither is shown."
        )
        lookups = dict.fromkeys(row["trust"]["against"] for row in rows if row["trust"]["against"])
        key = (
            *((*styles[row["label"]], row["label"]) for row in rows),
            *((*styles[label], f"best look-up: {label}") for label in lookups if label in styles),
            (GREY, ":", "guessing"),
            (ABOVE_RANDOM, "-", "bar: above guessing"),
            (ABOVE_LOOKUP, "-", "bar: above the best look-up"),
        )
        drawn.append(Drawing(caption, tuple(panels), tuple(dict.fromkeys(key)), name))
    return drawn


def similarity_drawings(name: str, question: Mapping[str, Any]) -> list[Drawing]:
    """Return, where there is one, the drawing of success against similarity to the nearest training molecule.

    Parameters are those of `trust_drawings`.
    """
    rows = [
        row
        for row in _shown(question)
        if row.get("trust") and len(row["trust"]["by"].get(NEAREST_TRAIN, {"bins": ()})["bins"]) > 1
    ]
    if not rows:
        return []
    styles = row_styles(question["rows"])
    figure = blank_figure(4.4, 3.2)
    axes = figure.add_subplot()
    for row in rows:
        colour, style = styles[row["label"]]
        bins, width = row["trust"]["by"][NEAREST_TRAIN]["bins"], line_width(row["kind"])
        if row["kind"] == "learned":  # the bands of all rows would hide one another
            _draw_curve(axes, bins, colour, style, width)
        else:
            _draw_steps(axes, bins, [found["value"]["value"] for found in bins], colour, style, width)
    first = rows[0]["trust"]["by"][NEAREST_TRAIN]["bins"]
    _draw_steps(axes, first, [found[RANDOM] for found in first], GREY, ":")
    axes.set_xlabel("Tanimoto similarity to the nearest training molecule", fontsize=9)
    axes.set_ylabel(rows[0]["trust"]["metric"], fontsize=9)
    axes.grid(linewidth=0.4)
    caption = (
        "Success against the similarity of the query's molecule to the nearest one of the training fold (Morgan "
        "fingerprints), with the intervals of the models: a row that rises to the right, more than the look-ups do, "
        "lives on molecules like those it has seen."
    )
    key = (*((*styles[row["label"]], row["label"]) for row in rows), (GREY, ":", "guessing"))
    return [Drawing(caption, (svg_element(figure),), key, name)]


def _shown(question: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows that figures show: of the look-ups the best one, and it alone where there is nothing else."""
    main = question.get("main")
    lookups = [row for row in question["rows"] if row["kind"] == "look-up" and _value(row, main) is not None]
    best = max(lookups, key=lambda row: _value(row, main) or 0.0, default=None)
    chosen = [row for kind in KINDS_SHOWN[:2] for row in question["rows"] if row["kind"] == kind][:MOST_ROWS]
    return [*chosen, *([best] if best is not None else [])]


def _value(row: Mapping[str, Any], metric: str | None) -> float | None:
    found = row["metrics"].get(metric)
    return None if found is None else found["micro"]["value"]


def _cells_shown(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the cells with the most queries, in the order of the stratum."""
    size = {label: found.get("queries", found.get("pairs", 0)) for label, found in cells.items()}
    largest = set(sorted(size, key=lambda label: -size[label])[:MOST_CELLS])
    return [label for label in cells if label in largest]


def _limits(cells: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the least and the most of all values, intervals and random expectations, with a margin."""
    values = [value for found in cells for value in (*found["micro"].values(), found["random"]) if value is not None]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    return min(values) - margin, max(values) + margin


def _stratum_panel(
    stratum: str,
    cells: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    styles: Mapping[str, tuple[str, str]],
    limits: tuple[float, float],
) -> str:
    figure = blank_figure(3.8, 0.9 + (0.2 + 0.13 * len(rows)) * len(cells))
    axes = figure.add_subplot()
    for place, cell in enumerate(reversed(cells)):
        for number, row in enumerate(rows):
            found = row["strata"][stratum]["cells"][cell]
            height = place + (0.5 - (number + 0.5) / len(rows)) * 0.7
            colour, estimate = styles[row["label"]][0], found["micro"]
            if estimate["low"] is not None:
                axes.hlines(height, estimate["low"], estimate["high"], color=colour, linewidth=1.6)
            if estimate["value"] is not None:
                axes.plot([estimate["value"]], [height], "o", color=colour, markersize=3.5)
    first = rows[0]["strata"][stratum]["cells"]
    for place, cell in enumerate(reversed(cells)):
        axes.vlines(first[cell]["random"], place - 0.4, place + 0.4, color=GREY, linewidth=1.4)
    labels = [f"{_short(cell)} ({first[cell].get('queries', first[cell].get('pairs')):,})" for cell in reversed(cells)]
    axes.set_yticks(range(len(cells)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(cells) - 0.4)
    axes.set_xlim(*limits)
    figure.suptitle(TITLES.get(stratum, NAMES[stratum]), fontsize=10)
    axes.grid(axis="x", linewidth=0.4)
    return svg_element(figure)


def _short(label: str, length: int = 26) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _trust_panel(row: Mapping[str, Any], stratum: str, styles: Mapping[str, tuple[str, str]]) -> str:
    trust = row["trust"]
    found = trust["by"][stratum]
    bins = found["bins"]
    figure = blank_figure(3.9, 2.9)
    axes = figure.add_subplot()
    colour, style = styles[row["label"]]
    _draw_curve(axes, bins, colour, style, line_width(row["kind"]))
    _draw_steps(axes, bins, [one[RANDOM] for one in bins], GREY, ":")
    if trust["against"] in styles:
        _draw_steps(axes, bins, [one[LOOKUP] for one in bins], *styles[trust["against"]])
    low, high = axes.get_ylim()
    for place, (role, bar) in enumerate(((RANDOM, ABOVE_RANDOM), (LOOKUP, ABOVE_LOOKUP))):
        for one in found["ranges"].get(role, ()):
            if one["verdict"] == "beats":
                height = low - (0.05 + 0.05 * place) * (high - low)
                axes.hlines(height, one["from"], one["to"], color=bar, linewidth=5)
    axes.set_ylim(low - 0.15 * (high - low), high)
    if stratum in LOG_TICKS:
        axes.set_xscale("log")
        begin, end = bins[0]["from"], bins[-1]["to"]
        ticks = [tick for tick in LOG_TICKS[stratum] if begin <= tick <= end]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
    unit = UNITS.get(stratum, "").strip()
    axes.set_xlabel(f"{NAMES[stratum]} ({unit})" if unit else NAMES[stratum], fontsize=9)
    axes.set_ylabel(trust["metric"], fontsize=9)
    axes.set_title(row["label"], fontsize=10)
    axes.grid(linewidth=0.4)
    return svg_element(figure)


def _draw_curve(axes: Axes, bins: Sequence[Mapping[str, Any]], colour: str, style: str, width: float) -> None:
    """Draw the values of bins as steps, with their intervals as a band."""
    _draw_steps(axes, bins, [found["value"]["value"] for found in bins], colour, style, width)
    # A bin without an interval has a band without width.
    low, high = (
        [found["value"]["value"] if found["value"][bound] is None else found["value"][bound] for found in bins]
        for bound in ("low", "high")
    )
    axes.fill_between(_edges(bins), [*low, low[-1]], [*high, high[-1]], step="post", color=colour, alpha=0.2, lw=0)


def _draw_steps(
    axes: Axes, bins: Sequence[Mapping[str, Any]], values: Sequence[float], colour: str, style: str, width: float = 1.4
) -> None:
    axes.plot(_edges(bins), [*values, values[-1]], style, drawstyle="steps-post", color=colour, linewidth=width)


def _edges(bins: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([*(found["from"] for found in bins), bins[-1]["to"]])
