"""Find the records in a stream of JSON objects and parse each, whatever is broken in its neighbours."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Any

import numpy as np

from .text import BadPeakLineError, decode

_DECODER = json.JSONDecoder(strict=False)  # raw line ends within strings do no harm
_OPENING = re.compile(rb'\{\s*"((?:[^"\\]|\\.){0,200})"\s*:')
_BEFORE_FIRST = re.compile(rb"[\s,\[\]]*")
_BETWEEN = re.compile(rb"[\s,\[\]}]*")
_ARRAY_OR_OBJECT = re.compile(rb"\s*\[?\s*\{")
_CLOSED_OBJECT = re.compile(rb"\}[\s\]}]*\Z")
_CLOSED_ARRAY = re.compile(rb"\]\s*\Z")
_MOST_KEYS = 16  # with which records begin: of more, each record is parsed to know its end
_BLANKS = b" \t\r\n"
_NUMBER_CHARACTERS = b"0123456789.+-eE \t\r\n"


def record_starts(data: bytes, mark: re.Pattern[bytes]) -> list[int]:
    """Return the offsets at which records start: the objects of an array, or one object after the other.

    Valid JSON is cut by the nesting of its braces. Where that fails (a brace or a quote is lost), the search goes on
    at the next object that is whole and has the ``mark``, or that begins with the key with which records begin and
    cannot lie within the broken one, as it would be inside a string or inside no array. A broken record so costs
    itself only. Whether an object is a record depends on nothing that follows the next record, so that a file that
    was cut at these offsets gives the same offsets again.

    Parameters
    ----------
    data : bytes
        From the start of a file or of a record.
    mark : pattern
        A key that every record has once, and no object within it.
    """
    match = _BEFORE_FIRST.match(data)
    assert match is not None
    position, outline = match.end(), _Outline(data, mark)
    starts = []
    while position < len(data):
        starts.append(position)
        position = outline.next_start(position)
    return starts


def looks_like_records(head: bytes, mark: re.Pattern[bytes]) -> bool:
    """Whether a file begins with an array, or lines, of objects, one of which has the ``mark`` as a key of its own."""
    found = mark.search(head)
    if found is None or not _ARRAY_OR_OBJECT.match(head):
        return False
    outline = _Outline(head, mark)
    starts = record_starts(head, mark)
    start = starts[bisect_right(starts, found.start()) - 1]
    is_inner = start != starts[0] and not head.lstrip().startswith(b"[") and head[start - 1 : start] != b"\n"
    return not is_inner and outline.depth_between(start, found.start()) == 1


def begins_as_array(header: bytes) -> bool:
    """Whether the records of a file are in an array, by the bytes before the first: not one object after the other."""
    return b"[" in header


def array_is_closed(header: bytes, last: bytes, _num_records: int) -> bool:
    """Whether a file that begins as an array ends as one."""
    return not begins_as_array(header) or _CLOSED_ARRAY.search(last or header) is not None


def load_record(
    data: bytes, *, in_array: bool, is_last: bool
) -> tuple[dict[str, Any] | None, str | None, tuple[str, ...]]:
    """Return the object with which ``data`` begins, or None; the problem, or None; and the repairs.

    The problem is 'malformed-json', or 'truncated' for a last record after which the file does not end as it should.
    """
    text, repairs = decode(data)
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value, None, repairs
    ends = _CLOSED_ARRAY.search(data) if in_array else _CLOSED_OBJECT.search(data)
    return None, "truncated" if is_last and ends is None else "malformed-json", repairs


def text_of(value: object) -> str:
    """Return a string or a number as text, '' for anything else (null, NaN, a list, an object)."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) and value == value else ""


def peaks_from_pairs(peaks: object) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return m/z, intensity and repairs from ``[[m/z, intensity], ...]``: a list, or the text of one.

    Null and NaN are NaN and the repair 'bad-peak': they cost no other peak.

    Raises
    ------
    BadPeakLineError
        It is no list of such pairs. More columns than two are allowed and not read.
    """
    if isinstance(peaks, str):
        tokens = peaks.replace("[", "").replace("]", "").split(",")
        if len(tokens) % 2 == 0 and _skeleton(peaks) == b"[" + b",".join([b"[,]"] * (len(tokens) // 2)) + b"]":
            return _columns(tokens)
        try:
            peaks = _DECODER.decode(peaks.replace("(", "[").replace(")", "]"))  # a Python list may hold tuples
        except (ValueError, RecursionError):
            raise BadPeakLineError("not a list") from None
    if not isinstance(peaks, list) or not all(isinstance(peak, list) and len(peak) > 1 for peak in peaks):
        raise BadPeakLineError("not a list of pairs")
    return _columns([value for peak in peaks for value in peak[:2]])


def peaks_from_colons(text: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return m/z, intensity and repairs from ``m/z:intensity m/z:intensity ...``; repairs as `peaks_from_pairs`.

    Raises
    ------
    BadPeakLineError
        It is something else.
    """
    pairs = text.split()
    tokens = ":".join(pairs).split(":")
    if len(tokens) != 2 * len(pairs) or not all(":" in pair for pair in pairs) or "_" in text:
        raise BadPeakLineError("not pairs with a colon")
    return _columns(tokens)


def _columns(values: list[Any]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        if None in values:
            values = [np.nan if value is None else value for value in values]
        flat = np.array(list(map(float, values)), np.float64)
    except (ValueError, TypeError, OverflowError):
        raise BadPeakLineError("not a number") from None
    return flat[0::2].copy(), flat[1::2].copy(), () if np.isfinite(flat).all() else ("bad-peak",)


def _skeleton(text: str) -> bytes:
    """Return what is left of a text without its numbers and blanks."""
    return text.encode("utf-8", "replace").translate(None, _NUMBER_CHARACTERS)


class _Outline:
    """Where strings, braces and brackets lie in a piece of JSON that may be broken.

    A lost quote turns all that follows inside out, so the nesting is kept twice: for the braces before which the
    number of quotes is even, and for those where it is odd. To a record, what has its own parity is outside strings.
    """

    def __init__(self, data: bytes, mark: re.Pattern[bytes]) -> None:
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._marks = [match.start() for match in mark.finditer(data)]
        self._quotes = self._find_quotes()
        self._braces = [self._levels(b"{", b"}", parity) for parity in (0, 1)]
        self._closings: dict[tuple[int, int], list[int]] = {}
        self._openings: dict[bytes, list[int]] = {}  # by the keys with which the records so far begin

    def next_start(self, start: int) -> int:
        """Return where the record after that at ``start`` begins; the length of the data where none does."""
        end = self._end(start)
        key = self._key(start)
        if end is None:
            return self._resume(start)
        match = _BETWEEN.match(self._data, end)
        assert match is not None
        following = match.end()
        is_at_end = following == len(self._data)
        if not is_at_end and self._data[following] != 0x7B:  # what follows is part of this record, or has lost its '{'
            return following if self._is_json(start, end) else self._resume(start)
        if key is not None and len(self._openings) < _MOST_KEYS and key not in self._openings:
            self._openings[key] = self._find_openings(key)
        is_plain = (
            self._num_marks(start, end) == 1
            and (is_at_end or self._key(following) in self._openings)
            and not any(bisect_left(found, end) - bisect_right(found, start) for found in self._openings.values())
        )
        return following if is_plain or self._is_json(start, end) else self._resume(start)

    def depth_between(self, start: int, stop: int) -> int:
        """Return how many of the braces that open from ``start`` on are open at ``stop``; 0 inside a string."""
        parity = self._parity(start)
        if self._parity(stop) != parity:
            return 0
        return self._depth(self._braces[parity], start, stop)

    def _resume(self, start: int) -> int:
        """Return where the next record after a broken one begins."""
        keys = self._openings.keys() or {self._key(start)}
        for opening in _OPENING.finditer(self._data, start + 1):
            position = opening.start()
            if opening[1] in keys and self._is_outside(start, position):
                return position
            end = self._end(position)
            if end is not None and self._num_marks(position, end) == 1 and self._is_record(position, end):
                return position
        return len(self._data)

    def _is_outside(self, start: int, position: int) -> bool:
        """Whether an object cannot belong to the broken record at ``start``: valid JSON has it nowhere in there."""
        before = position - 1
        while before > start and self._data[before] in _BLANKS:
            before -= 1
        previous = self._data[before : before + 1]
        if previous == b":":
            return False
        parity = self._parity(start)
        if self._parity(position) != parity or previous not in (b",", b"["):
            return True
        return previous == b"," and self._depth(self._brackets[parity], start, position) <= 0

    def _is_record(self, start: int, end: int) -> bool:
        """Whether an object is whole and has the mark as a key of its own."""
        mark = self._marks[bisect_left(self._marks, start)]
        return self.depth_between(start, mark) == 1 and self._is_json(start, end)

    def _is_json(self, start: int, end: int) -> bool:
        try:
            _DECODER.decode(decode(self._data[start:end])[0])
        except (ValueError, RecursionError):
            return False
        return True

    def _key(self, start: int) -> bytes | None:
        match = _OPENING.match(self._data, start)
        return match[1] if match else None

    def _find_openings(self, key: bytes) -> list[int]:
        pattern = re.compile(rb'\{\s*"' + re.escape(key) + rb'"\s*:')
        return [match.start() for match in pattern.finditer(self._data)]

    def _num_marks(self, start: int, end: int) -> int:
        return bisect_left(self._marks, end) - bisect_left(self._marks, start)

    def _end(self, start: int) -> int | None:
        """Return the offset after the brace that closes the object at ``start``, None where none does."""
        if self._data[start] != 0x7B:
            return None
        parity = self._parity(start)
        positions, depths = self._braces[parity]
        index = int(np.searchsorted(positions, start))
        outer = int(depths[index]) - 1
        closings = self._closings.get((parity, outer))
        if closings is None:
            closings = self._closings[parity, outer] = np.flatnonzero(depths == outer).tolist()
        later = bisect_right(closings, index)
        return int(positions[closings[later]]) + 1 if later < len(closings) else None

    def _parity(self, position: int) -> int:
        return int(np.searchsorted(self._quotes, position)) & 1

    @cached_property
    def _brackets(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self._levels(b"[", b"]", parity) for parity in (0, 1)]

    @staticmethod
    def _depth(levels: tuple[np.ndarray, np.ndarray], start: int, stop: int) -> int:
        """Return the nesting at ``stop`` less that before ``start``."""
        positions, depths = levels
        first, last = np.searchsorted(positions, (start, stop))
        before = int(depths[first - 1]) if first else 0
        return (int(depths[last - 1]) if last else 0) - before

    def _levels(self, opening: bytes, closing: bytes, parity: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets of the brackets of one kind with this parity, and the nesting after each."""
        positions = np.flatnonzero((self._bytes == ord(opening)) | (self._bytes == ord(closing)))
        positions = positions[(np.searchsorted(self._quotes, positions) & 1) == parity]
        steps = np.where(self._bytes[positions] == ord(opening), 1, -1)
        return positions, np.cumsum(steps)

    def _find_quotes(self) -> np.ndarray:
        """Return the offsets of the quotes that no backslash escapes."""
        is_quote = self._bytes == ord('"')
        slashes = np.flatnonzero(self._bytes == ord("\\"))
        if len(slashes):
            is_first = np.diff(slashes, prepend=-2) != 1
            firsts = np.flatnonzero(is_first)
            lengths = np.diff(firsts, append=len(slashes))
            after = slashes[firsts] + lengths
            escaped = after[lengths % 2 == 1]
            is_quote[escaped[escaped < len(is_quote)]] = False
        return np.flatnonzero(is_quote)
