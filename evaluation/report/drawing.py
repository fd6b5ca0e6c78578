"""What every figure of the report is made of: the Drawing, its colours and lines, and the way to an SVG element."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"

KINDS = ("reference", "blind", "look-up", "trained", "learned")
"""Kinds of rows, in the order of every table and key."""

KIND_COLOURS = {"reference": GREY, "blind": "#8a6d00", "look-up": ORANGE, "trained": "#007a5a", "learned": BLUE}
LINE_COLOURS = {
    "reference": ("#777777", "#aaaaaa"),
    "blind": ("#8a6d00", "#b08d57", "#5c4a1f"),
    "look-up": ("#000000", "#e69f00", "#cc79a7", "#56b4e9", "#8b4513"),
    "trained": ("#007a5a", "#66a61e", "#1b9e77"),
    "learned": ("#0072b2", "#d55e00", "#5e3c99", "#b2182b"),
}
"""Okabe and Ito's colours and some beside them, which colour-blind readers can tell apart together with the lines."""
LINE_STYLES = {"reference": ":", "blind": ":", "look-up": "--", "trained": "--", "learned": "-"}

SHOWN_LOOKUPS, SHOWN_BLIND = 3, 1
"""Look-ups and blind rows that a figure of lines shows: the best of them. The table has them all."""


@dataclass(frozen=True)
class Drawing:
    """A figure of the report.

    Attributes
    ----------
    caption : str
    panels : tuple of str
        SVG elements, each narrow enough for a telephone where it can be, to be laid side by side.
    key : tuple of (str, str, str)
        Colour, line style ('-', '--' or ':') and meaning of each colour in the panels.
    task : str or None
        The question it belongs to.
    wide : bool
        Whether it cannot be read when it is made narrower.
    """

    caption: str
    panels: tuple[str, ...]
    key: tuple[tuple[str, str, str], ...] = ()
    task: str | None = None
    wide: bool = False


def row_styles(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return colour and line style of each row (with ``label`` and ``kind``) by its label.

    They depend on the order of the rows alone, so that a row looks the same in every figure of a question.
    """
    colours = {kind: itertools.cycle(of_kind) for kind, of_kind in LINE_COLOURS.items()}
    return {row["label"]: (next(colours[row["kind"]]), LINE_STYLES[row["kind"]]) for row in rows}


def line_width(kind: str) -> float:
    """Return the width of a row's line in points: the models under test stand out."""
    return 2.2 if kind == "learned" else 1.4


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure of ``width`` by ``height`` inches that belongs to no window and to no pyplot state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg_element(figure: Figure) -> str:
    """Return the figure as an <svg> element that can stand inside HTML; the same figure gives the same text."""
    import matplotlib

    for axes in figure.axes:
        axes.tick_params(labelsize=9)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ionbed", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # Who made the file and its licence stand in the page once, not in every panel; groups are numbered alike in every
    # panel, and nothing refers to them (what is referred to, markers and clips, is named by a hash of its content).
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[a-zA-Z-]+_\d+"', "<g", text)
