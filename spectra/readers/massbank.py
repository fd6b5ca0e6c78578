"""Read MassBank records (MassBank record format 2.6), one or several in a text."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

import numpy as np

from .blocks import Parsed, Pending, RecordFormat
from .field_names import field_of
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_peaks, whole_number

_LABORATORY = re.compile(r"MSBNK-([^-]+)-")
_CHEMONT_ID = re.compile(r"CHEMONTID:\d+;?\s*")
_PEAKS, _END = "\nPK$PEAK:", "\n//"
_ACCESSION = b"ACCESSION:"
_RECORD_TITLE = re.compile(rb"[^\n]{0,200}\n(?:DEPRECATED|RECORD_TITLE|DATE):")
_TAGS_WITH_SUBTAGS = frozenset({"AC$MASS_SPECTROMETRY", "AC$CHROMATOGRAPHY", "MS$FOCUSED_ION", "CH$LINK"})


def _starts(data: bytes) -> list[int]:
    """Return the offsets of ACCESSION, and of what follows the end of a record and has peaks.

    A record whose ACCESSION is lost thus is a record. An ACCESSION within a line, where a record before it was cut,
    counts if the line after it is one that follows an ACCESSION.
    """
    starts: list[int] = []
    found = data.find(_ACCESSION)
    if found > 0:
        starts += _without_accession(data, 0, found)
    while found >= 0:
        following = data.find(_ACCESSION, found + 1)
        if found == 0 or data[found - 1] == 0x0A or _RECORD_TITLE.match(data, found):
            starts.append(found)
            limit = following if following >= 0 else len(data)
            end = data.find(b"\n//", found, limit)
            if end >= 0 and limit - end > 8:
                starts += _without_accession(data, end + 3, limit)
        found = following
    return starts


def _without_accession(data: bytes, start: int, stop: int) -> Iterator[int]:
    """Yield where records without ACCESSION start between two offsets."""
    while start < stop:
        end = data.find(b"\n//", start, stop)
        part = data[start : end if end >= 0 else stop]
        if b"\nPK$PEAK:" in part:
            yield start + len(part) - len(part.lstrip(b"/ \t\n"))
        start = end + 3 if end >= 0 else stop


def _parse_record(data: bytes, _header: None, ms_levels: Container[int], _is_last: bool) -> Parsed | Pending:
    text, repairs = decode(data)
    if not data.startswith(_ACCESSION):
        repairs += ("record-start",)
    head, has_peaks, peaks = text.partition(_PEAKS)
    if not has_peaks:
        head, peaks = text, text
    accession, fields, stated = _parse_head(head)
    if _lacks_unit(fields.get("retention_time", "")):
        del fields["retention_time"]  # most records without a unit mean minutes, some seconds: which cannot be told
        repairs += ("retention-time-without-unit",)
    if "\nDEPRECATED:" in head:
        return Parsed(accession, fields, problem="deprecated")
    peaks, end, _ = peaks.partition(_END)
    if not end:
        return Parsed(accession, fields, problem="truncated")
    if not is_wanted(fields, ms_levels):
        return Parsed(accession, fields)
    body = peaks.partition("\n")[2] if has_peaks else ""
    if not body.strip():
        return Parsed(accession, fields, problem="no-peaks")

    def finish(peaks: tuple[np.ndarray, np.ndarray] | None) -> Parsed:
        try:
            mz, intensity, more = (*peaks, ()) if peaks is not None else parse_peaks(body)
        except BadPeakLineError:
            return Parsed(accession, fields, problem="bad-peak-line")
        if whole_number(stated) not in (None, len(mz)):
            more += ("peak-count",)
        return Parsed(accession, fields, mz, intensity, None, repairs + more)

    return Pending(body, finish)


def _lacks_unit(text: str) -> bool:
    return re.search(r"\d", text) is not None and re.search(r"[A-Za-z]", text) is None


def _parse_head(head: str) -> tuple[str, dict[str, str], str]:
    """Return the accession, the fields, and the number of peaks as stated."""
    fields: dict[str, str] = {}
    accession = ""
    comments = []
    metadata, _, peak_lines = head.partition("\nPK$")
    num_peaks = peak_lines.rpartition("NUM_PEAK:")[2].strip()
    for line in metadata.split("\n"):
        tag, _, value = line.partition(": ")
        if tag == "COMMENT":
            comments.append(value.strip())
        elif tag == "ACCESSION":
            accession = value.strip()
        else:
            if tag in _TAGS_WITH_SUBTAGS:
                tag, _, value = value.partition(" ")
            name = "ion_type" if tag == "ION_TYPE" else field_of(tag, "MassBank")
            if name is not None and name not in fields:
                fields[name] = value.strip()  # of several names the first
    return accession, _interpret(fields, accession, comments), num_peaks


def _interpret(fields: dict[str, str], accession: str, comments: list[str]) -> dict[str, str]:
    if laboratory := _LABORATORY.match(accession):
        fields["laboratory"] = laboratory[1]
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if ion_type := fields.pop("ion_type", ""):
        fields.setdefault("adduct", ion_type)
    if "chemical_class" in fields:  # 'CHEMONTID:0000053; Organic compounds; Organoheterocyclic compounds; ...'
        path = _CHEMONT_ID.sub("", fields.pop("chemical_class"), count=1)
        if path:
            fields["chemical_class"] = path
    if comments:
        fields["comment"] = "; ".join(comments)
    return fields


def _looks_like(head: bytes) -> bool:
    """Whether the first record, or another one where that is damaged, starts as records do."""
    if re.match(rb"\s*ACCESSION:[ \t]*\S", head):
        return True
    return any(_RECORD_TITLE.match(head, found.start(1)) for found in re.finditer(rb"(?:\A|\n)(ACCESSION):", head))


MASSBANK = RecordFormat(
    name="MassBank",
    extensions=("txt",),
    looks_like=_looks_like,
    starts=_starts,
    parse_header=lambda header: None,
    parse_record=_parse_record,
)
