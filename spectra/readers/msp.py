"""Read MSP libraries as NIST, MoNA, MassBank, MS-DIAL (RIKEN), mzmine and matchms write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container

import numpy as np

from .blocks import Parsed, Pending, RecordFormat
from .field_names import ID_KEYS, field_of, native_id_of, normal_key, with_unit
from .text import (
    BadPeakLineError,
    decode,
    is_preface,
    is_wanted,
    ms_level,
    parse_number,
    parse_peaks,
    peak_tokens,
    whole_number,
)

_HEADER_LINE = re.compile(rb"[ \t]*([A-Za-z$@#][^\n:]{0,80}):")
_HEADER_LINE_INSIDE = re.compile(rb"\n[ \t]*[A-Za-z$@#][^\n:]{0,80}:")
_FIRST_KEY = re.compile(rb"(?:\A|\n\n)([A-Za-z$@#][^\n:]{0,80}):")
_NUM_PEAKS_LINE = re.compile(rb"\n[ \t]*num[ _]?peaks?[ \t]*:[^\n]*", re.IGNORECASE)
_OWN_LINE = re.compile(rb"[ \t]*(?:[A-Za-z$@][^\n:=()\"']{0,80}:|[#;!/(+-.,\d])")
_PEAK_LINE = re.compile(rb"[ \t]*[(+-]?[.,]?\d")
_PEAK = re.compile(rb"[ \t]*[(+-]?[.,]?\d[\d.,eE+-]*[ \t,;]+[+-]?[.,]?\d")
_PEAK_TEXT = re.compile(_PEAK.pattern.decode())
_SPECTRUM_KEY = re.compile(rb"^[ \t]*num[ _]?peaks?[ \t]*:", re.MULTILINE | re.IGNORECASE)
_PARENT = re.compile(r"(?:^|\s)Parent=(\d+(?:\.\d+)?)(?=\s|$)")
_QUOTED_COMMENT = re.compile(r'"([^"=]+)=([^"]*)"')
_QUOTED = re.compile(r'"[^"\n]*"')
_BRACKETED = re.compile(r"\(\s*([^\s,()]+)[\s,]+([^\s,()]+)\s*\)")
_OF_PEAKS = b"0123456789.eE+- \t\n;"
_HAS_LETTER = re.compile(r"[A-Za-z]")
_LABORATORY = re.compile(r"MSBNK-([^-]+)-")

_REPEATED = ("comment", "comments")
_NUM_PEAKS = ("numpeaks", "numpeak")


def _starts(data: bytes) -> list[int]:
    """Return the offsets of the first lines of records.

    Most records are plain: header lines of different keys, the number of peaks, lines of peaks, an empty line. Where
    one is not, neither the stated number of peaks nor empty lines are trusted alone; see `_starts_by_line`.
    """
    first_keys = Counter(_FIRST_KEY.findall(data))
    usual = max(first_keys, key=first_keys.__getitem__) if first_keys else b"Name"
    starts: list[int] = []
    position = 0
    while position < len(data):
        stop = data.find(b"\n\n", position)
        stop = len(data) if stop < 0 else stop + 2
        if _is_plain(data[position:stop], usual):
            while data[position] == 0x0A:
                position += 1
            starts.append(position)
        else:
            part = position
            while stop < len(data) and not _has_peaks(data[part:stop]):
                part, following = stop, data.find(b"\n\n", stop)
                stop = len(data) if following < 0 else following + 2
            part_starts = _starts_by_line(data[position:stop], usual, is_first=position == 0)
            starts += [position + start for start in part_starts]
        position = stop
    return starts


def _is_plain(paragraph: bytes, usual: bytes) -> bool:
    """Whether a paragraph is one whole record and nothing else."""
    num_peaks = _NUM_PEAKS_LINE.search(paragraph)
    if num_peaks is None:
        return False
    end = num_peaks.end()
    if paragraph[end:].translate(None, _OF_PEAKS) and _HEADER_LINE_INSIDE.search(paragraph, end):
        return False
    header = paragraph[: num_peaks.start()].strip(b"\n")
    if header.count(usual + b":") > 1:
        return False
    lines = header.split(b"\n")
    parts = [line.partition(b":") for line in lines]
    keys = [key for key, _, _ in parts if key[:5].lower() != b"synon"]
    if keys and keys[0][:3].lower() == b"num":  # the number of peaks of the record before
        return False
    return (
        all(colon and key[:1].isalpha() for key, colon, _ in parts)
        and len(set(keys)) == len(keys)
        and not _cut_in(lines[0], usual)
    )


def _has_peaks(part: bytes) -> bool:
    last = part.rstrip()
    return _PEAK_LINE.match(last, last.rfind(b"\n") + 1) is not None


def _cut_in(line: bytes, usual: bytes) -> int:
    """Return where, in a line that was cut, the first line of the next record starts; 0 where the line is whole."""
    place = line.rfind(usual + b":")
    if place <= 0:
        return 0
    own_key = line.partition(b":")[0]
    return place if place >= len(own_key) or not _is_known(_normal(own_key)) else 0  # COMPOUNDNAME is not cut at NAME


def _normal(key: bytes) -> str:
    return normal_key(key.decode("latin-1"))


def _is_known(key: str) -> bool:
    return key in ID_KEYS or field_of(key) is not None


def _starts_by_line(part: bytes, usual: bytes, *, is_first: bool) -> list[int]:
    """Return the offsets of the first lines of records in ``part``, where no record before it goes on.

    A record starts with the line that follows peaks or the line with their number: a header line in any case, another
    line where an empty one comes before it. It also starts where a key comes again that a record has once. The
    record before it then has no peaks and perhaps no end: the start is where, before that key, the usual first key
    stands or a paragraph starts. So an empty line in a header is no border by itself.

    Parameters
    ----------
    part : bytes
    usual : bytes
        The key with which most records start.
    is_first : bool
        Whether nothing stands before ``part``, of which a line that is no header line could be a part.
    """
    starts: list[int] = []
    header: list[tuple[int, str, bytes]] = []  # of the present record: offset, key and text of each line
    known: set[str] = set()
    usual_key = _normal(usual)
    in_peaks, is_after_gap, paragraph, previous = True, True, -1, b""
    following = 0
    for line in part.split(b"\n"):
        offset, following = following, following + len(line) + 1
        match = _HEADER_LINE.match(line)
        if not line or line.isspace():
            is_after_gap = True
            continue
        if match is None and (_PEAK if is_after_gap else _PEAK_LINE).match(line):
            in_peaks = True
        elif in_peaks and (match is not None or (is_after_gap and (starts or not is_first))):
            cut = 0 if is_after_gap else _cut_in(previous, usual)
            starts.append(offset - len(previous) - 1 + cut if cut else offset)
            header, known, in_peaks, paragraph = [], set(), _PEAK_LINE.match(line) is not None, -1
            if cut := _cut_in(line, usual):
                starts.append(offset + cut)
                header, known, in_peaks, match = [(starts[-1], usual_key, line[cut:])], {usual_key}, False, None
        elif match is not None and is_after_gap and header:
            paragraph = offset
        if match is not None:
            key = _normal(match[1])
            if header and key.endswith(usual_key) and key != usual_key and usual_key != "name" and not _is_known(key):
                starts.append(offset + _cut_in(line, usual))  # two keys in one
                header, known, paragraph, key = [], set(), -1, usual_key
            elif key in known and line != previous and key not in _REPEATED and _is_known(key):
                starts.append(_start_before(header, usual, paragraph if paragraph >= 0 else offset))
                header, paragraph = [entry for entry in header if entry[0] >= starts[-1]], -1
                known = {earlier for _, earlier, _ in header}
            elif key == "name" and paragraph == offset:
                starts.append(offset)
                header, known, paragraph = [], set(), -1
            header.append((offset, key, line))
            known.add(key)
            in_peaks = in_peaks or key in _NUM_PEAKS
        elif header and not in_peaks:
            header.append((offset, "", line))
        is_after_gap, previous = False, line
    return starts


def _start_before(header: list[tuple[int, str, bytes]], usual: bytes, otherwise: int) -> int:
    """Return where in a header, in which keys come again, the second record starts."""
    for place, (offset, _, line) in reversed(list(enumerate(header))):
        if cut := _cut_in(line, usual):
            return offset + cut
        if place and line.partition(b":")[0] == usual:
            return offset
    return otherwise


def _parse_record(data: bytes, _header: None, ms_levels: Container[int], is_last: bool) -> Parsed | Pending:
    text, repairs = decode(data)
    entries, body = _split(text)
    native_id, fields, more = _interpret(entries)
    repairs += more
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    num_stated = whole_number(next((entries[key] for key in _NUM_PEAKS if key in entries), ""))
    if not body.strip():
        return Parsed(native_id, fields, problem="truncated" if is_last and num_stated != 0 else "no-peaks")

    def finish(peaks: tuple[np.ndarray, np.ndarray] | None) -> Parsed:
        if peaks is not None and num_stated is not None and num_stated > len(peaks[0]):
            peaks = None  # several may stand on a line
        try:
            mz, intensity, more = (*peaks, ()) if peaks is not None else _parse_own_lines(body, num_stated)
        except BadPeakLineError:
            is_cut = is_last and not data.endswith(b"\n")
            return Parsed(native_id, fields, problem="truncated" if is_cut else "bad-peak-line")
        if num_stated is not None and num_stated != len(mz):
            if is_last and num_stated > len(mz):
                return Parsed(native_id, fields, problem="truncated")
            more += ("peak-count",)
        return Parsed(native_id, fields, mz, intensity, None, repairs + more)

    return Pending(body, finish)


def _split(text: str) -> tuple[dict[str, str], str]:
    """Return the entries by normalised key, and the lines after the one with the number of peaks."""
    entries: dict[str, str] = {}
    offset = 0
    for line in text.split("\n"):
        if _PEAK_TEXT.match(line):  # peaks without their number
            break
        offset += len(line) + 1
        key, colon, value = line.partition(":")
        value = value.strip()
        normal = normal_key(key)
        if colon and value:
            entries.setdefault(normal, with_unit(key, value, "MSP"))
        if normal in _NUM_PEAKS:
            break
    return entries, text[offset:]


def _interpret(entries: dict[str, str]) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Return native id, fields and repairs; MoNA hides fields in the comment, as "key=value" in quotes."""
    comment = entries.get("comments", entries.get("comment", ""))
    repairs: tuple[str, ...] = ()
    if '"' in comment:
        for key, value in _QUOTED_COMMENT.findall(comment):
            value = value.strip()
            if value and field_of(key) == "retention_time" and _HAS_LETTER.search(value) is None:
                repairs = ("retention-time-without-unit",)  # seconds or minutes, as the contributor pleases
            elif value:
                entries.setdefault(normal_key(key), value)
    native_id = native_id_of(entries)
    fields: dict[str, str] = {}
    for key, value in entries.items():
        if (name := field_of(key, "MSP")) is not None and name not in fields:
            fields[name] = value
    if "precursor_mz" not in fields and (parent := _PARENT.search(comment)):  # older libraries of NIST
        fields["precursor_mz"] = parent[1]
    if "ms_level" not in fields and fields.get("spectrum_type", "").upper().startswith("MS"):
        fields["ms_level"] = fields["spectrum_type"]
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if laboratory := _LABORATORY.match(native_id):
        fields["laboratory"] = laboratory[1]
    return native_id, fields, repairs


def _parse_own_lines(body: str, stated: int | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Parse the peaks without the lines after them that are not of this record.

    As many lines as are stated, then an empty one: the record ends there, whatever follows; also where what follows
    are no peaks.
    """
    body = body.strip("\n")
    if not stated:
        return _parse_body(body, stated)
    if "\n\n" in body:
        first = body.partition("\n\n")[0]
        if first.count("\n") + 1 == stated:
            body = first
    try:
        return _parse_body(body, stated)
    except BadPeakLineError:
        lines = [line for line in body.split("\n") if line and not line.isspace()]
        if len(lines) <= stated:
            raise
        mz, intensity, more = _parse_body("\n".join(lines[:stated]), stated)
        return mz, intensity, (*more, "peak-count")


def _parse_body(body: str, stated: int | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Parse the peaks; NIST may write several on a line, as '41 5; 42 10;', '(41,5) (42,10)' or '41 5 42 10'."""
    if '"' in body:
        body = _QUOTED.sub("", body)
    if body.lstrip().startswith("("):
        body = _BRACKETED.sub(r"\1 \2;", body)
    if ";" in body:
        segments = "\n".join(segment.strip() for segment in body.split(";") if segment.strip())
        try:
            return parse_peaks(segments)
        except BadPeakLineError:  # semicolons between the columns, not between the peaks
            return parse_peaks(body)
    if stated is not None and stated > len(body.strip().split("\n")):
        tokens = peak_tokens(body)
        if len(tokens) == 2 * stated:
            values = np.array([parse_number(token) for token in tokens]).reshape(-1, 2)
            return values[:, 0].copy(), values[:, 1].copy(), ()
    return parse_peaks(body)


def _looks_like(head: bytes) -> bool:
    found = _SPECTRUM_KEY.search(head)
    return found is not None and is_preface(head[: found.start()], _OWN_LINE)


MSP = RecordFormat(
    name="MSP",
    extensions=("msp",),
    looks_like=_looks_like,
    starts=_starts,
    parse_header=lambda header: None,
    parse_record=_parse_record,
    marks_ends=False,
)
