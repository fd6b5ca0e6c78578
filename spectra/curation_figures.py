"""The plots of the curation report, each as one SVG text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .file_statistics import PEAK_EDGES, STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072b2"
_SIZE = (3.7, 2.3)
_SPREAD_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_UNITS = {
    "precursor_mz": ("precursor m/z", 1.0),
    "retention_time": ("retention time (min)", 60.0),
    "collision_energy": ("collision energy (eV)", 1.0),
}


@dataclass(frozen=True)
class Plot:
    """One plot: its title, what it says in words for those who cannot see it, and the SVG element."""

    title: str
    description: str
    svg: str


def histogram_plots(histograms: Mapping[str, Mapping[str, int]]) -> list[Plot]:
    """Return a plot of each distribution that has something in it (see `ionbed.spectra.file_statistics.HISTOGRAMS`)."""
    plots = []
    peaks = {int(key): count for key, count in histograms.get("peaks", {}).items()}
    if peaks:
        labels = [_range(edge, after) for edge, after in zip(PEAK_EDGES, (*PEAK_EDGES[1:], None), strict=True)]
        plots.append(_bars("peaks per spectrum", labels, [peaks.get(edge, 0) for edge in PEAK_EDGES], "spectra"))
    for name, (title, unit) in _UNITS.items():
        counts = {int(key): count for key, count in histograms.get(name, {}).items()}
        unknown = counts.pop(-1, 0)
        if counts:
            plots.append(_binned(title, counts, unknown, STEPS[name], unit))
    levels = {int(key): count for key, count in histograms.get("ms_level", {}).items()}
    if levels:
        names = [f"MS{level}" for level in sorted(levels)]
        plots.append(_bars("MS level", names, [levels[level] for level in sorted(levels)], "records"))
    for name, unknown_key in (("polarity", 0), ("charge", 0)):
        signed = {int(key): count for key, count in histograms.get(name, {}).items()}
        if signed:
            order = sorted(signed, key=lambda value: (value == unknown_key, value))
            plots.append(
                _bars(name, [_signed(name, value) for value in order], [signed[value] for value in order], "spectra")
            )
    return plots


def mass_spread_plot(spreads: Sequence[float]) -> Plot | None:
    """Return how the mass spreads of files are distributed, in mDa; None where no file has one."""
    if not spreads:
        return None
    edges = (0.0, *_SPREAD_EDGES, math.inf)
    counts = [sum(low <= spread < high for spread in spreads) for low, high in pairwise(edges)]
    labels = [f"< {edges[1]:g}", *(f"{low:g}–{high:g}" for low, high in pairwise(_SPREAD_EDGES))]
    return _bars("mass spread (mDa)", [*labels, f"≥ {edges[-2]:g}"], counts, "files")


def _range(edge: int, after: int | None) -> str:
    if after is None:
        return f"{edge}+"
    return str(edge) if after == edge + 1 else f"{edge}–{after - 1}"


def _signed(name: str, value: int) -> str:
    if not value:
        return "not known"
    if name == "polarity":
        return "positive" if value > 0 else "negative"
    return f"{value:+d}".replace("-", "−")


def _bars(title: str, labels: Sequence[str], counts: Sequence[int], unit: str) -> Plot:
    figure, axes = _axes(title, unit)
    axes.bar(range(len(labels)), counts, width=0.8, color=BLUE)
    crowded = sum(map(len, labels)) > 30
    axes.set_xticks(range(len(labels)), labels, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    said = ", ".join(f"{label}: {count:,}" for label, count in zip(labels, counts, strict=True))
    return Plot(title, f"{title} ({unit}): {said}", _svg(figure))


def _binned(title: str, counts: Mapping[int, int], unknown: int, step: tuple[int, int], unit: float) -> Plot:
    width, last = step
    figure, axes = _axes(title, "spectra")
    axes.bar(
        [edge / unit for edge in counts],
        list(counts.values()),
        width=width / unit,
        align="edge",
        color=BLUE,
        linewidth=0,
    )
    axes.set_xlim(min(0, *counts), (max(counts) + width) / unit)
    notes = [f"{unknown:,} not known"] if unknown else []
    if last in counts:
        notes.append(f"last bar: {last / unit:g} and above")
    axes.set_xlabel("; ".join(notes), fontsize=9)
    fullest = max(counts, key=lambda edge: (counts[edge], -edge))
    said = (
        f"{title}, {sum(counts.values()):,} spectra in bins of {width / unit:g}, most ({counts[fullest]:,}) from "
        f"{fullest / unit:g}; {unknown:,} not known"
    )
    return Plot(title, said, _svg(figure))


def _axes(title: str, unit: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure, axes


def _svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that can stand inside HTML; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ionbed", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
