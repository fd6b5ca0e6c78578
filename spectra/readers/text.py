"""What the text formats share: bytes to text, lines of peaks to arrays, the MS level as a number."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

import numpy as np

_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_SEPARATORS = re.compile(r"[\s;]+")


class BadPeakLineError(ValueError):
    """A line that should hold a peak does not."""


def decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text of a record, and ('not-utf-8',) where it had to be read as Latin-1."""
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        return data.decode("latin-1"), ("not-utf-8",)


def parse_peaks(body: str, num_columns: int = 2) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return m/z, intensity and repairs from one peak per line; columns after the second are not read.

    Parameters
    ----------
    body : str
        Lines of m/z, intensity and perhaps more (a charge, an annotation), separated by blanks, tabs, semicolons or,
        where numbers have decimal points, commas. Empty lines are skipped.
    num_columns : int
        How many columns a clean line has: a hint that makes such bodies fast, not a demand.

    Raises
    ------
    BadPeakLineError
        A line does not begin with two finite numbers.
    """
    lines = body.strip("\n").split("\n")
    tokens = body.split()
    # float() takes '1_0' for 10, and a body of 3 + 1 columns would pass the count: both go the slow way.
    if len(tokens) == num_columns * len(lines) and "_" not in body:
        first = tokens[::num_columns]
        if all(map(str.startswith, map(str.lstrip, lines), first)):
            try:
                mz = np.array(list(map(float, first)))
                intensity = np.array(list(map(float, tokens[1::num_columns])))
            except ValueError:
                pass
            else:
                if np.isfinite(mz).all() and np.isfinite(intensity).all():
                    return mz, intensity, ()
    return _parse_lines(lines)


def _parse_lines(lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    pairs, has_comma = [], False
    for line in lines:
        if not line or line.isspace():
            continue
        tokens = peak_tokens(line)
        if len(tokens) < 2:
            raise BadPeakLineError(line)
        has_comma = has_comma or "," in tokens[0] or "," in tokens[1]
        pairs.append((parse_number(tokens[0]), parse_number(tokens[1])))
    peaks = np.array(pairs, np.float64).reshape(-1, 2)
    return peaks[:, 0].copy(), peaks[:, 1].copy(), ("decimal-comma",) if has_comma else ()


def peak_tokens(text: str) -> list[str]:
    """Return the columns of a peak line, a quoted annotation left out."""
    text = text.partition('"')[0].strip()
    tokens = [token for token in _SEPARATORS.split(text) if token]
    if len(tokens) == 1 and "." in text:
        tokens = [token for token in text.split(",") if token]
    elif len(tokens) > 1 and tokens[0].endswith(","):  # '100.5, 20.1'
        tokens = [token.rstrip(",") for token in tokens]
    return tokens


def parse_number(text: str) -> float:
    """Return the number that ``text`` writes with a decimal point or a decimal comma.

    Raises
    ------
    BadPeakLineError
        It is no finite number.
    """
    if not _NUMBER.fullmatch(text):
        raise BadPeakLineError(text)
    value = float(text.replace(",", "."))
    if not np.isfinite(value):
        raise BadPeakLineError(text)
    return value


def ms_level(text: str) -> str:
    """Return the MS level as digits ('MS' is '1', 'MS2' is '2'); text without one comes back as it is."""
    digits = re.search(r"\d{1,3}", text, re.ASCII)
    if digits:
        return digits[0]
    return "1" if text.strip().upper() in {"MS", "FULL MS", "FULL SCAN"} else text


def is_wanted(fields: dict[str, str], ms_levels: Container[int]) -> bool:
    """Return whether a record's peaks are to be read; True where the record does not give its level."""
    level = whole_number(fields.get("ms_level", ""))
    return level is None or level in ms_levels


def whole_number(text: str) -> int | None:
    """Return the count that ``text`` is, None where it is none (or longer than any file could hold)."""
    return int(text) if text.isdecimal() and len(text) < 16 else None
