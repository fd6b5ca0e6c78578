"""Text and numbers as the cells of a table: one line, no tab, no float noise."""

from __future__ import annotations

import math
import re

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]")


def one_line(value: object) -> str:
    """Return ``value`` as text without tabs, line ends and control characters; '' for None.

    What cannot be written as UTF-8 (half of a surrogate pair) becomes a question mark.
    """
    if value is None:
        return ""
    text = str(value)
    if text.isprintable() and "  " not in text and text == text.strip():
        return text  # as nearly all are
    text = _CONTROL.sub("", text)
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def decimal(value: float | None, places: int) -> str:
    """Return a number in decimal notation, with at most ``places`` digits after the point and no noughts at its end.

    '' where it is unknown or not finite.
    """
    if value is None or not math.isfinite(value):
        return ""
    text = f"{value:.{places}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def rounded(value: float | None, places: int) -> float | None:
    """Return a number rounded to ``places`` digits after the point; None where it is unknown or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), places) + 0.0  # no -0.0
