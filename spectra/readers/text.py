"""What the text formats share: bytes to text, lines of peaks to arrays, the MS level as a number."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from itertools import accumulate, pairwise

import numpy as np

_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity|1\.#(?:QNAN|SNAN|IND|INF)\d*)", re.IGNORECASE)
_IN_NUMBERS = b"0123456789.eE+-"
_FEW = 32
"""Below this number of peak lists it is quicker to parse each by itself."""
_FEW_FOREIGN_LINES = 3
_SEPARATORS = re.compile(r"[\s;]+")


class BadPeakLineError(ValueError):
    """A line that should hold a peak does not."""


def decode(data: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the text of a record, and ('not-utf-8',) where it had to be read as Latin-1."""
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        return data.decode("latin-1"), ("not-utf-8",)


def parse_peaks(body: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return m/z, intensity and repairs from one peak per line; columns after the second are not read.

    A peak written as 'nan', 'inf', '1.#QNAN', or with a number beyond all floats, is NaN where it is so written, with
    the repair 'bad-peak': it costs no other peak.

    Parameters
    ----------
    body : str
        Lines of m/z, intensity and perhaps more (a charge, an annotation), separated by blanks, tabs, semicolons or,
        where numbers have decimal points, commas. Empty lines are skipped.

    Raises
    ------
    BadPeakLineError
        A line does not begin with two numbers.
    """
    body = body.strip("\n")
    columns = _regular_columns(body)
    if columns is None:
        lines = [line for line in body.split("\n") if line and not line.isspace()]
        columns = _irregular_columns(lines)
        if columns is None:
            return _parse_lines(lines)
    mz, intensity = columns
    if np.isfinite(mz).all() and np.isfinite(intensity).all():
        return mz, intensity, ()
    return _parse_lines(body.split("\n"))


def parse_peak_lists(bodies: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """Return m/z and intensity of many peak lists, parsed all at once where they are written alike.

    The same numbers as `parse_peaks` gives, several times as fast. None for each where any is written otherwise than
    the first one: with other separators, empty lines, or what is no finite number. Then each is to be parsed by itself.
    """
    none: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(bodies)
    if len(bodies) < _FEW:
        return none
    import pyarrow as pa
    import pyarrow.csv as csv

    bodies = [body.strip("\n") for body in bodies]
    first_line = bodies[0].partition("\n")[0]
    separator = "\t" if "\t" in first_line else " "
    columns = [str(place) for place in range(len(first_line.split(separator)))]
    wanted = [column for column, word in zip(columns, first_line.split(separator), strict=True) if word][:2]
    if len(wanted) < 2:
        return none
    text = "\n".join(bodies).encode()
    try:
        table = csv.read_csv(
            pa.py_buffer(text),
            read_options=csv.ReadOptions(use_threads=False, column_names=columns, block_size=len(text) + 1),
            parse_options=csv.ParseOptions(delimiter=separator, quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.float64()), include_columns=wanted, null_values=[]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError):
        return none
    mz, intensity = (table[column].to_numpy() for column in wanted)
    stops = list(accumulate(body.count("\n") + 1 for body in bodies))
    if len(mz) != stops[-1] or not np.isfinite(mz).all() or not np.isfinite(intensity).all():
        return none
    return [(mz[start:stop].copy(), intensity[start:stop].copy()) for start, stop in pairwise([0, *stops])]


def _regular_columns(body: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first two columns; None unless all lines have the same separators and nothing else but numbers."""
    if body.startswith(" "):
        stripped = body.lstrip(" ")
        body = stripped.replace("\n" + body[: len(body) - len(stripped)], "\n")
    separators = (body + "\n").encode().translate(None, _IN_NUMBERS)
    of_a_line = separators[: separators.find(b"\n") + 1]
    num_lines, num_columns = len(separators) // len(of_a_line), len(of_a_line)
    if num_columns < 2 or separators != of_a_line * num_lines or of_a_line.strip():
        return None
    tokens = body.split()
    if len(tokens) != num_columns * num_lines:  # no line has more columns than separators, so each has all of them
        return None
    return _floats(tokens[::num_columns], tokens[1::num_columns])


def _irregular_columns(lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first two columns; None unless blanks separate them and they hold nothing but numbers."""
    tokens = [token for line in lines for token in line.split(None, 2)[:2]]
    if len(tokens) != 2 * len(lines) or "".join(tokens).encode().translate(None, _IN_NUMBERS):
        return None
    return _floats(tokens[::2], tokens[1::2])


def _floats(mz: Sequence[str], intensity: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        return (
            np.fromiter(map(float, mz), np.float64, len(mz)),
            np.fromiter(map(float, intensity), np.float64, len(intensity)),
        )
    except ValueError:
        return None


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
    repairs: tuple[str, ...] = ("decimal-comma",) if has_comma else ()
    if not np.isfinite(peaks).all():
        repairs += ("bad-peak",)
    return peaks[:, 0].copy(), peaks[:, 1].copy(), repairs


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
    """Return the number that ``text`` writes with a decimal point or a decimal comma, NaN where it is not finite.

    Raises
    ------
    BadPeakLineError
        It is no number.
    """
    if not _NUMBER.fullmatch(text):
        if _NOT_FINITE.fullmatch(text):
            return math.nan
        raise BadPeakLineError(text)
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else math.nan


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


def is_preface(head: bytes, own_line: re.Pattern[bytes]) -> bool:
    """Whether text before the first record may stand there: not more than a few lines, or mostly lines of the format.

    A program, or a page about the format, quotes a record further down.

    Parameters
    ----------
    head : bytes
        From the start of the file to the record.
    own_line : pattern
        What lines of the format start with.
    """
    lines = [line for line in head.split(b"\n") if line.strip()]
    foreign = sum(own_line.match(line) is None for line in lines)
    return foreign <= max(_FEW_FOREIGN_LINES, len(lines) - foreign)


def whole_number(text: str) -> int | None:
    """Return the count that ``text`` is, None where it is none (or longer than any file could hold)."""
    return int(text) if text.isdecimal() and len(text) < 16 else None
