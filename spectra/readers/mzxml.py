"""Read runs in mzXML (ISB mzXML 2 and 3), nested scans included."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import partial
from typing import NamedTuple

import numpy as np
from lxml import etree

from .blocks import Parsed, RecordFormat
from .runs import (
    NAME_PREFIX,
    BadArrayError,
    decode_binary,
    encoding_of,
    energy_text,
    filter_energy,
    is_whole_run,
    parse_fragment,
    positive,
)
from .text import is_wanted, ms_level, whole_number

_START = re.compile(rb"<" + NAME_PREFIX + rb"scan[\s>]")
_PEAKS = re.compile(rb"<" + NAME_PREFIX + rb"peaks(?:\s[^>]*[^/>])?>")
_PEAKS_END = re.compile(rb"</" + NAME_PREFIX + rb"peaks>")
_END = re.compile(rb"</" + NAME_PREFIX + rb"scan>")
_RUN_END = re.compile(rb"</" + NAME_PREFIX + rb"msRun>")
_LEVEL = re.compile(rb"""\smsLevel\s*=\s*["'](\d{1,2})["']""")
_ID = re.compile(rb"""\snum\s*=\s*["']([^"']*)["']""")
_MODEL = re.compile(rb"<" + NAME_PREFIX + rb"""msModel\s[^>]*?value\s*=\s*["']([^"']*)["']""")
_COUNT = re.compile(rb"<" + NAME_PREFIX + rb"""msRun\s[^>]*?scanCount\s*=\s*["'](\d+)["']""")
_CENTROIDED = re.compile(rb"<" + NAME_PREFIX + rb"""dataProcessing\s[^>]*?centroided\s*=\s*["'](\w+)["']""")
_REPRESENTATION = {"1": "centroid", "true": "centroid", "0": "profile", "false": "profile"}
_SECONDS = re.compile(r"P(?:0+[YMD])*(?:T(?:(?P<h>[\d.]+)H)?(?:(?P<m>[\d.]+)M)?(?:(?P<s>[\d.]+(?:[eE][+-]?\d+)?)S)?)")


class _Header(NamedTuple):
    encoding: str
    instrument: str
    representation: str | None


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in _START.finditer(data)]


def _parse_header(header: bytes) -> _Header:
    models = [m.decode("latin-1") for m in _MODEL.findall(header)]
    steps = {_REPRESENTATION.get(step.decode("latin-1")) for step in _CENTROIDED.findall(header)}
    representation = next((r for r in ("centroid", "profile") if r in steps), None)
    return _Header(encoding_of(header), "; ".join(dict.fromkeys(models)), representation)


def _parse_record(data: bytes, header: _Header, ms_levels: Container[int], is_last: bool) -> Parsed:
    """Parse a scan without the scans nested in it: those start records of their own."""
    head = data[: data.find(b">") + 1]
    found = _ID.search(head)
    native_id = found[1].decode("utf-8", "replace") if found else ""
    close = b"</" + head[1 : _START.match(data).end() - 1] + b">"  # type: ignore[union-attr]
    if peaks_end := _PEAKS_END.search(data):
        fragment = data[: peaks_end.end()] + close
        level, peaks = _LEVEL.search(head), _PEAKS.search(data)
        if level and peaks and int(level[1]) not in ms_levels:  # most of a run's bytes: leave them alone
            fragment = data[: peaks.start()] + close
    elif end := _END.search(data):  # a scan with '<peaks .../>' or none
        fragment = data[: end.end()]
    elif not is_last and not _PEAKS.search(data):  # the same with scans nested in it
        fragment = data + close
    else:
        return Parsed(native_id, {}, problem="truncated" if is_last else "malformed-xml")
    scan = parse_fragment(fragment, header.encoding)
    if scan is None:
        return Parsed(native_id, {}, problem="malformed-xml")
    fields, repairs = _fields(scan, header)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=repairs)
    try:
        mz, intensity = _peaks(scan)
    except BadArrayError as bad:
        return Parsed(native_id, fields, problem=bad.code)
    if not (np.isfinite(mz).all() and np.isfinite(intensity).all()):
        repairs += ("bad-peak",)
    if whole_number(scan.get("peaksCount", "")) not in (None, len(mz)):
        repairs += ("peak-count",)
    return Parsed(native_id, fields, mz, intensity, None if len(mz) else "no-peaks", repairs)


def _fields(scan: etree._Element, header: _Header) -> tuple[dict[str, str], tuple[str, ...]]:
    fields = {"instrument": header.instrument} if header.instrument else {}
    if level := scan.get("msLevel"):
        fields["ms_level"] = ms_level(level)
    if polarity := {"+": "positive", "-": "negative"}.get(scan.get("polarity", "")):
        fields["polarity"] = polarity
    if representation := _REPRESENTATION.get(scan.get("centroided", ""), header.representation):
        fields["spectrum_representation"] = representation
    if time := _SECONDS.fullmatch(scan.get("retentionTime", "")):
        try:
            seconds = sum(float(time[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1)))
            fields["retention_time"] = f"{seconds:.10g} s"
        except ValueError:  # '1.2.3' seconds
            pass
    filter_text = scan.get("filterLine", "")
    if energy := scan.get("collisionEnergy"):
        fields["collision_energy"] = energy_text([energy], "", filter_text)
    elif energy := filter_energy(filter_text):
        fields["collision_energy"] = f"{energy} (NCE)"
    precursors = scan.findall("precursorMz")
    if not precursors:
        return fields, ()
    precursor = next((p for p in precursors if positive(p.text)), precursors[0])
    if text := (precursor.text or "").strip():
        fields["precursor_mz"] = text
    if positive(width := precursor.get("windowWideness")):
        fields["isolation_width"] = width or ""
    for attribute, name in (("precursorCharge", "charge"), ("activationMethod", "activation")):
        if value := precursor.get(attribute):
            fields[name] = value
    is_one = len({(p.text or "").strip() for p in precursors}) == 1
    return fields, () if is_one else ("several-precursors",)


def _peaks(scan: etree._Element) -> tuple[np.ndarray, np.ndarray]:
    """Return m/z and intensity; mzXML is big-endian ('network') and writes them in pairs."""
    element = scan.find("peaks")
    text = (element.text or "").strip() if element is not None else ""
    if element is None or not text or scan.get("peaksCount") == "0":
        return np.empty(0), np.empty(0)
    order = element.get("contentType", element.get("pairOrder", "m/z-int"))
    compression = element.get("compressionType", "none")
    dtype = {"32": ">f4", "64": ">f8"}.get(element.get("precision", "32"))
    if order != "m/z-int" or compression not in {"none", "zlib"} or dtype is None:
        raise BadArrayError("unsupported-binary-encoding")
    values = decode_binary(text, dtype, is_zlib=compression == "zlib")
    if len(values) % 2:
        raise BadArrayError("bad-binary-array")
    return values[0::2].copy(), values[1::2].copy()


MZXML = RecordFormat(
    name="mzXML",
    extensions=("mzxml",),
    looks_like=lambda head: re.search(rb"<" + NAME_PREFIX + rb"mzXML[\s>]", head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    is_whole=partial(is_whole_run, count=_COUNT, end=_RUN_END),
)
