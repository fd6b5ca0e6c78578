"""Mirror plot of two spectra: one up, one down, matched peaks in colour."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...spectra.spectrum import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MATCHED, UPPER, LOWER = "#0072b2", "#444444", "#999999"
NUM_ANNOTATED = 6
LEAST_ANNOTATED = 0.02
"""Share of the base peak below which a peak is not annotated."""


NARROWEST_DA = 20.0
"""Range of m/z that a plot shows at least."""


def matched_peaks(upper_mz: np.ndarray, lower_mz: np.ndarray, tolerance_da: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which peaks have a partner within ``tolerance_da``, bool arrays of shape (n_upper,) and (n_lower,)."""
    difference = upper_mz.astype(np.float64)[:, None] - lower_mz.astype(np.float64)[None, :]
    close = np.abs(difference) <= tolerance_da
    return np.asarray(close.any(axis=1)), np.asarray(close.any(axis=0))


def annotated_peaks(spectrum: Spectrum) -> list[int]:
    """Return the highest peaks that stand far enough apart for their m/z to be read, the highest first."""
    chosen: list[int] = []
    clearance = 0.09 * max(float(np.ptp(spectrum.mz)), 1.0) if len(spectrum) else 0.0
    for peak in np.argsort(-spectrum.intensity, kind="stable"):
        if len(chosen) == NUM_ANNOTATED or spectrum.intensity[peak] < LEAST_ANNOTATED:
            break
        if all(abs(spectrum.mz[peak] - spectrum.mz[o]) > clearance for o in chosen):
            chosen.append(int(peak))
    return chosen


def mirror_figure(
    upper: Spectrum,
    lower: Spectrum,
    *,
    title: str = "",
    upper_label: str | None = None,
    lower_label: str | None = None,
    tolerance_da: float = 0.02,
) -> Figure:
    """Draw ``upper`` above and ``lower`` below the axis, peaks matched within ``tolerance_da`` in colour.

    Parameters
    ----------
    upper_label, lower_label : str, optional
        Default: identifier, name, adduct and precursor m/z.

    Returns
    -------
    matplotlib.figure.Figure
        Belongs to no window and to no pyplot state.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    in_upper, in_lower = matched_peaks(upper.mz, lower.mz, tolerance_da)
    _draw(axes, upper, 1.0, UPPER, in_upper, upper_label or describe(upper))
    _draw(axes, lower, -1.0, LOWER, in_lower, lower_label or describe(lower))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-1.3, 1.3)
    axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["100", "50", "0", "50", "100"])
    _finish(axes, title)
    return figure


def spectrum_figure(spectrum: Spectrum, *, title: str = "") -> Figure:
    """Draw one spectrum, as `mirror_figure` draws the upper one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, spectrum, 1.0, UPPER, np.zeros(len(spectrum), bool), describe(spectrum))
    axes.set_ylim(0, 1.35)
    axes.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    _finish(axes, title)
    return figure


def _draw(axes: Axes, spectrum: Spectrum, sign: float, colour: str, matched: np.ndarray, label: str) -> None:
    """Draw the peaks of a spectrum up (``sign`` 1) or down (-1), with its precursor and ``label``."""
    heights = sign * spectrum.intensity
    axes.vlines(spectrum.mz[~matched], 0, heights[~matched], colors=colour, linewidth=1.2)
    axes.vlines(spectrum.mz[matched], 0, heights[matched], colors=MATCHED, linewidth=1.6)
    axes.plot([spectrum.precursor_mz], [0], marker="v" if sign > 0 else "^", color=colour, markersize=5, clip_on=False)
    side = "bottom" if sign > 0 else "top"
    for peak in annotated_peaks(spectrum):
        axes.annotate(
            f"{spectrum.mz[peak]:.4f}", (spectrum.mz[peak], heights[peak]), xytext=(0, 3 * sign),
            textcoords="offset points", ha="center", va=side, fontsize=7,
        )  # fmt: skip
    axes.text(
        0.01, 0.98 if sign > 0 else 0.02, label, transform=axes.transAxes, va="top" if sign > 0 else "bottom",
        fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlabel("m/z")
    axes.set_ylabel("relative intensity (%)")
    axes.spines[["top", "right"]].set_visible(False)
    least, most = axes.get_xlim()
    if most - least < NARROWEST_DA:  # of one peak each, matplotlib would show the third decimal only
        axes.set_xlim((least + most - NARROWEST_DA) / 2, (least + most + NARROWEST_DA) / 2)
    if title:
        axes.set_title(title, fontsize=9)


def save_mirror(upper: Spectrum, lower: Spectrum, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Write the mirror plot as SVG or PNG, by the ending of ``path``, and return the path."""
    path = Path(path)
    mirror_figure(upper, lower, title=title).savefig(path, dpi=150)
    return path


def describe(spectrum: Spectrum) -> str:
    """Return one line on a spectrum: identifier, name, adduct, precursor m/z, and 'predicted' where it is."""
    parts = [spectrum.spectrum_id, spectrum.name, spectrum.adduct, f"m/z {spectrum.precursor_mz:.4f}"]
    if spectrum.predicted:
        parts.append("predicted")
    return " · ".join(part for part in parts if part)
