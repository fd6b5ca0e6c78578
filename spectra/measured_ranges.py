"""What kinds of spectra a model was trained on, as numbers, and in what another spectrum lies outside of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .columns import SpectrumColumns

SHARE_OUTSIDE = 0.001
"""Of the spectra that a range is of lie below it, and as many above: a single odd one does not widen it."""

FEW = 0.001
"""A charge or a polarity of a smaller share of the spectra than this counts as not seen."""

_SIGNS = {1: "positive", -1: "negative"}


def measured_ranges(
    precursor_mz: np.ndarray, polarity: np.ndarray, charge: np.ndarray, num_peaks: np.ndarray
) -> dict[str, Any]:
    """Return the ranges of some spectra, at least one, as plain values.

    Parameters
    ----------
    precursor_mz : float64 array of shape (n_spectra,)
        In Da per charge.
    polarity, charge : int arrays of shape (n_spectra,)
        0 where unknown.
    num_peaks : int array of shape (n_spectra,)

    Returns
    -------
    dict
        ``precursor_mz`` (Da per charge) and ``peaks`` (number): lowest and highest, but for `SHARE_OUTSIDE` on either
        side; ``polarities`` and ``charges``: the share of the spectra of which it is known, by value as text.
    """
    low, high = SHARE_OUTSIDE, 1 - SHARE_OUTSIDE
    return {
        "precursor_mz": [round(float(value), 4) for value in np.quantile(precursor_mz, [low, high])],
        "peaks": [int(value) for value in np.quantile(num_peaks, [low, high], method="nearest")],
        "polarities": _shares(polarity),
        "charges": _shares(charge),
    }


def united(ranges: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ranges that span several: a model was trained on what any of its stages was trained on."""
    result: dict[str, Any] = {}
    for each in ranges:
        for name in ("precursor_mz", "peaks"):
            if name in each:
                low, high = result.get(name, each[name])
                result[name] = [min(low, each[name][0]), max(high, each[name][1])]
        for name in ("polarities", "charges"):
            for value, share in each.get(name, {}).items():
                shares = result.setdefault(name, {})
                shares[value] = max(share, shares.get(value, 0.0))
    return result


def outside_of(columns: SpectrumColumns, ranges: Mapping[str, Any]) -> list[list[str]]:
    """Return, for each spectrum, in what it lies outside of what a model was trained on; empty where in nothing.

    Parameters
    ----------
    columns : SpectrumColumns
    ranges : mapping
        From `measured_ranges`, of the spectra trained on; what it does not have is not looked at.
    """
    found: list[list[str]] = [[] for _ in range(len(columns))]
    for name, values, words in (
        ("polarities", columns.polarity, lambda value: f"polarity {_SIGNS[value]}"),
        ("charges", columns.charge, lambda value: f"charge {value:+d}"),
    ):
        shares = {int(value): share for value, share in ranges.get(name, {}).items()}
        if not shares:
            continue
        rare = [value for value in np.unique(values).tolist() if value and shares.get(value, 0.0) < FEW]
        for row in np.flatnonzero(np.isin(values, rare)).tolist():
            found[row].append(f"{words(int(values[row]))}: the model was trained on hardly any such spectrum")
    if "precursor_mz" in ranges:
        low, high = ranges["precursor_mz"]
        for row in np.flatnonzero((columns.precursor_mz < low) | (columns.precursor_mz > high)).tolist():
            found[row].append(f"m/z {columns.precursor_mz[row]:.4f}: the model was trained on {low:g} to {high:g}")
    if "peaks" in ranges:
        for row in np.flatnonzero(columns.num_peaks < ranges["peaks"][0]).tolist():
            found[row].append(f"{columns.num_peaks[row]} peaks: the model was trained on {ranges['peaks'][0]} or more")
    return found


def _shares(values: np.ndarray) -> dict[str, float]:
    known, counts = np.unique(values[values != 0], return_counts=True)
    shares = counts / max(1, counts.sum())
    return {f"{value:+d}": round(float(share), 6) for value, share in zip(known.tolist(), shares, strict=True)}
