"""Runs as a figure: training and validation loss against steps, tokens or hours, as PNG, SVG or a page of HTML."""

from __future__ import annotations

import html
import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..artifacts import atomic_file
from ..errors import InputError
from .runs import Run, differences
from .runs_table import COLUMNS, difference_words, remarks, run_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Against = Literal["step", "tokens", "hours"]
Logarithmic = Literal["none", "x", "y", "xy"]

AXES: Mapping[Against, tuple[str, str, float]] = {
    "step": ("step", "step", 1.0),
    "tokens": ("tokens seen, without padding", "tokens", 1.0),
    "hours": ("hours of training", "seconds", 3600.0),
}
"""Label, key of a log line, and what its value is divided by."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00")
"""Okabe and Ito's, which colour-blind readers can tell apart, without the yellow: too light for a line."""
LINE_STYLES = ("-", "--", ":")
MOST_RUNS = len(COLOURS) * len(LINE_STYLES)
FORMATS = (".png", ".svg", ".html")
LABEL_WIDTH = 110
"""Characters of a line of the key."""


@dataclass(frozen=True)
class FigureOptions:
    """What is drawn.

    Attributes
    ----------
    against : {'step', 'tokens', 'hours'}
    logarithmic : {'none', 'x', 'y', 'xy'}
        Axes with a logarithmic scale.
    smoothing : int
        Lines of the log in the running mean of the training loss, the line itself in the middle; 1 draws it as it is.
    """

    against: Against = "step"
    logarithmic: Logarithmic = "none"
    smoothing: int = 11


def check_figure(path: Path) -> None:
    """Raise `InputError` if ``path`` does not end in a format that can be written."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: the name of a figure ends in {', '.join(FORMATS)}; choose one of them")


def write_figure(runs: Sequence[Run], path: Path, options: FigureOptions) -> None:
    """Draw the losses of runs into a file; its ending says the format.

    Raises
    ------
    InputError
        The ending is another, no run has a loss yet, there are too many to tell apart, or a log does not have what
        they are to be drawn against.
    """
    check_figure(path)
    figure = draw(runs, options)
    with atomic_file(path) as partial:
        if path.suffix.lower() == ".png":
            figure.savefig(partial, format="png", dpi=150)
        else:
            svg = _svg(figure)
            text = svg if path.suffix.lower() == ".svg" else _page(runs, svg[svg.index("<svg") :])
            partial.write_text(text, encoding="utf-8")


def draw(runs: Sequence[Run], options: FigureOptions) -> Figure:
    """Return the figure: a panel for each stage, since losses of different stages do not compare."""
    from matplotlib.figure import Figure

    runs = [run for run in runs if any(_is_number(line.get("loss")) for line in run.lines)]
    if not runs:
        raise InputError("no run has logged a loss yet; there is nothing to draw")
    if len(runs) > MOST_RUNS:
        raise InputError(f"{len(runs)} runs cannot be told apart in a figure; name folders with at most {MOST_RUNS}")
    stages = list(dict.fromkeys(run.stage or "" for run in runs))
    different = differences(runs)
    labels = {run.path: _label(run, different[run.path]) for run in runs}
    key_lines = sum(label.count("\n") + 1 for label in labels.values())
    figure = Figure(figsize=(9, 4.2 * len(stages) + 0.19 * key_lines + 0.5), layout="constrained")
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    looks = itertools.product(LINE_STYLES, COLOURS)
    handles = []
    for panel, stage in zip(panels, stages, strict=True):
        for run in runs:
            if (run.stage or "") == stage:
                style, colour = next(looks)
                handles.append(_draw_run(panel, run, options, colour, style, labels[run.path]))
        _finish(panel, stage, options)
    figure.legend(handles=handles, loc="outside lower left", fontsize=8, frameon=False, alignment="left")
    return figure


def _draw_run(axes: Axes, run: Run, options: FigureOptions, colour: str, style: str, label: str) -> Any:
    """Draw the training loss, thin as logged and thick smoothed, and validation losses as dots; return the key's."""
    x, loss = _training(run, options.against)
    if options.smoothing > 1:
        axes.plot(x, loss, color=colour, linewidth=0.6, alpha=0.3)
    (line,) = axes.plot(
        x, running_mean(loss, options.smoothing), color=colour, linestyle=style, linewidth=1.5, label=label
    )
    steps, validation = _values(run, "step", "validation_loss")
    if len(steps):
        places = np.interp(steps, _values(run, "step", "loss")[0], x)
        axes.plot(places, validation, color=colour, linestyle="none", marker="o", markersize=5,
                  markerfacecolor="white", markeredgewidth=1.4)  # fmt: skip
    return line


def _finish(axes: Axes, stage: str, options: FigureOptions) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, ScalarFormatter

    if "x" in options.logarithmic:
        axes.set_xscale("log")
    if "y" in options.logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high < 10 * low:  # powers of ten would be one tick, or none
            axes.yaxis.set_major_locator(MaxNLocator(6))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.minorticks_off()
    if options.against == "tokens":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    elif options.against == "step":
        if "x" not in options.logarithmic:
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))  # a tick at 2.5 would be written as 2
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(AXES[options.against][0], fontsize=9)
    axes.set_ylabel("loss", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    size = options.smoothing
    smoothing = f"training, running mean of {size} log lines (thin: as logged)" if size > 1 else "training"
    axes.set_title(f"{stage or 'training'}. Lines: {smoothing}; circles: validation", fontsize=9, loc="left")


def running_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Return the mean of ``size`` values around each, as many on either side.

    Near the end there are fewer; near the start fewer are taken, from a quarter of the way back on, since a loss falls
    so fast there that the mean of many would lie above it.

    Parameters
    ----------
    values : float array of shape (n,)
    size : int
        An even size is taken as the odd one below it.

    Returns
    -------
    float64 array of shape (n,)
    """
    places = np.arange(len(values))
    reach = np.minimum.reduce([places // 4, places[::-1], np.full(len(values), (size - 1) // 2)])
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)


def _training(run: Run, against: Against) -> tuple[np.ndarray, np.ndarray]:
    label, key, unit = AXES[against]
    x, loss = _values(run, key, "loss")
    if len(x) < len(_values(run, "step", "loss")[0]):
        raise InputError(f"{run.path}: its log does not count {label}; an older version wrote it: draw against step")
    return x / unit, loss


def _values(run: Run, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(line.get(first), line.get(second)) for line in run.lines]
    pairs = [pair for pair in pairs if all(map(_is_number, pair))]
    array = np.array(pairs, np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _label(run: Run, different: Mapping[str, Any]) -> str:
    words = difference_words(different)
    text = "\n    ".join(textwrap.wrap(f"{run.name}: {words}" if words else run.name, LABEL_WIDTH))
    return text.replace("$", r"\$")  # else mathematics


def _svg(figure: Figure) -> str:
    """Return the figure as SVG; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ionbed", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _page(runs: Sequence[Run], svg: str) -> str:
    """Return a page of HTML that needs nothing else: the figure, the table, the remarks."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # it names pages that nothing here needs
    different = differences(runs)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*COLUMNS, "differs in"))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (*run_cells(run), words)) + "</tr>\n"
        for run, words in ((run, difference_words(different[run.path])) for run in runs)
    )
    notes = "".join(f"<li>{html.escape(line)}</li>\n" for line in remarks(runs))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Training runs</title>
<style>
body {{ font: 14px/1.45 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }}
svg {{ width: 100%; max-width: 60em; min-width: 40em; height: auto; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25em .6em; text-align: left; vertical-align: top; }}
</style>
</head>
<body>
<h1>Training runs</h1>
<div>{svg}</div>
<div><table>
<tr>{head}</tr>
{rows}</table></div>
<ul>
{notes}</ul>
</body>
</html>
"""
