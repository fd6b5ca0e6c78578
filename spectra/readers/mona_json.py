"""Read MoNA json: the exports of MassBank of North America and the answers of its web service."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import partial
from typing import Any

from .blocks import Parsed, RecordFormat
from .field_names import field_of
from .json_records import (
    array_is_closed,
    begins_as_array,
    load_record,
    looks_like_records,
    peaks_from_colons,
    record_starts,
    text_of,
)
from .text import BadPeakLineError, is_wanted, ms_level

_SPECTRUM_KEY = re.compile(rb'"spectrum"\s*:\s*"')
_COMPOUND_KEY = re.compile(rb'"compound"\s*:\s*[\[{]')
_METADATA_KEY = re.compile(rb'"metaData"\s*:\s*\[')
_PLAIN_NUMBER = re.compile(r"[+-]?\d*[.,]?\d+(?:[eE][+-]?\d+)?")
_PREDICTED = re.compile(r"in[- ]?silico|predicted|lipidblast|\bfahfa\b|\bitree\b", re.IGNORECASE)
"""MoNA tags computed spectra 'In-Silico'; older records only name the library, and these three hold nothing else."""

_WITH_UNIT = ("collision_energy", "retention_time")
_CLASS_LEVELS = ("kingdom", "superclass", "class", "subclass", "direct parent")


def _looks_like(head: bytes) -> bool:
    # The peaks come late in a record, after the classification and the annotations: not always within the first bytes.
    return _METADATA_KEY.search(head) is not None and looks_like_records(head, _COMPOUND_KEY)


def _parse_record(data: bytes, in_array: bool, ms_levels: Container[int], is_last: bool) -> Parsed:
    entry, problem, repairs = load_record(data, in_array=in_array, is_last=is_last)
    if entry is None:
        return Parsed("", {}, problem=problem, repairs=repairs)
    native_id = text_of(entry.get("id"))
    fields, more = _interpret(entry)
    repairs += more
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=repairs)
    peaks = entry.get("spectrum")
    if not isinstance(peaks, str) or not peaks.strip():
        return Parsed(native_id, fields, problem="no-peaks", repairs=repairs)
    try:
        mz, intensity, more = peaks_from_colons(peaks)
    except BadPeakLineError:
        return Parsed(native_id, fields, problem="bad-peak-line", repairs=repairs)
    return Parsed(native_id, fields, mz, intensity, None, repairs + more)


def _interpret(entry: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the fields, and the repairs."""
    fields: dict[str, str] = {}
    comments = []
    for name, value in _metadata(entry):
        if name == "comment":
            comments.append(value)
        elif name == "retention_time" and _PLAIN_NUMBER.fullmatch(value):
            fields.setdefault(name, "")  # some contributors mean minutes, some seconds: which cannot be told
        else:
            fields.setdefault(name, value)
    if comments:
        fields["comment"] = "; ".join(comments)
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    for name, value in _labels(_compound(entry)):
        if value:
            fields.setdefault(name, value)
    if institution := text_of(_object(entry.get("submitter")).get("institution")):
        fields.setdefault("laboratory", institution)
    if _is_predicted(entry):
        fields["predicted"] = "true"
    if fields.get("retention_time") == "":
        del fields["retention_time"]
        return fields, ("retention-time-without-unit",)
    return fields, ()


def _metadata(holder: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield field name and value of the metadata entries; what MoNA computed comes after what was submitted."""
    computed = []
    for entry in _objects(holder.get("metaData")):
        key = entry.get("name")
        name = field_of(key) if isinstance(key, str) else None
        if name is None or entry.get("deleted") is True:
            continue
        value, unit = text_of(entry.get("value")), text_of(entry.get("unit"))
        if unit and name in _WITH_UNIT and _PLAIN_NUMBER.fullmatch(value):
            value += f" {unit}"
        if value and entry.get("computed") is True:
            computed.append((name, value))
        elif value:
            yield name, value
    yield from computed


def _compound(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the compound that was measured; besides it there may be its derivative."""
    compounds = list(_objects(entry.get("compound")))
    return next((c for c in compounds if c.get("kind") == "biological"), compounds[0] if compounds else {})


def _labels(compound: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _metadata(compound)
    yield "inchi", text_of(compound.get("inchi"))
    yield "inchikey", text_of(compound.get("inchiKey"))
    for name in _objects(compound.get("names")):
        yield "name", text_of(name.get("name"))
    classes = [c for c in _objects(compound.get("classification")) if c.get("name") in _CLASS_LEVELS]
    levels = {c["name"]: text_of(c.get("value")) for c in classes}
    yield "chemical_class", "; ".join(levels[level] for level in _CLASS_LEVELS if levels.get(level))


def _is_predicted(entry: dict[str, Any]) -> bool:
    library = _object(entry.get("library"))
    tags = [*_objects(entry.get("tags")), _object(library.get("tag"))]
    said = [
        text_of(library.get("library")),
        text_of(library.get("description")),
        *(text_of(t.get("text")) for t in tags),
    ]
    return any(_PREDICTED.search(text) for text in said)


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, or the one object that stands where a list is expected."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            yield item


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


MONA_JSON = RecordFormat(
    name="MoNA json",
    extensions=(),  # a file named .json may be anything
    looks_like=_looks_like,
    starts=partial(record_starts, mark=_SPECTRUM_KEY),
    parse_header=begins_as_array,
    parse_record=_parse_record,
    is_whole=array_is_closed,
)
