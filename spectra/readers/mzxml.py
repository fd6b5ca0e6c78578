"""Read runs in mzXML (ISB mzXML 2 and 3), nested scans included."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import partial
from typing import NamedTuple

import numpy as np
from lxml import etree

from .blocks import Parsed, RecordFormat
from .runs import BadArrayError, decode_binary, encoding_of, is_whole_run, parse_fragment
from .text import is_wanted, ms_level

_START = re.compile(rb"<scan[\s>]")
_ID = re.compile(rb"""\snum\s*=\s*["']([^"']*)["']""")
_MODEL = re.compile(rb"""<msModel\s[^>]*?value\s*=\s*["']([^"']*)["']""")
_COUNT = re.compile(rb"""<msRun\s[^>]*?scanCount\s*=\s*["'](\d+)["']""")
_CENTROIDED = re.compile(rb"""<dataProcessing\s[^>]*?centroided\s*=\s*["'](1|true)["']""")
_SECONDS = re.compile(r"P(?:T(?:(?P<h>[\d.]+)H)?(?:(?P<m>[\d.]+)M)?(?:(?P<s>[\d.]+(?:[eE][+-]?\d+)?)S)?)")


class _Header(NamedTuple):
    encoding: bytes
    instrument: str
    is_centroided: bool


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in _START.finditer(data)]


def _parse_header(header: bytes) -> _Header:
    models = [m.decode("latin-1") for m in _MODEL.findall(header)]
    return _Header(encoding_of(header), "; ".join(dict.fromkeys(models)), _CENTROIDED.search(header) is not None)


def _parse_record(data: bytes, header: _Header, ms_levels: Container[int], is_last: bool) -> Parsed:
    """Parse a scan without the scans nested in it: those start records of their own."""
    head = data[: data.find(b">") + 1]
    found = _ID.search(head)
    native_id = found[1].decode("utf-8", "replace") if found else ""
    end = data.find(b"</peaks>")
    if end >= 0:
        fragment = data[: end + len(b"</peaks>")] + b"</scan>"
    elif (close := data.find(b"</scan>")) >= 0:  # a scan with '<peaks .../>' or none
        fragment = data[: close + len(b"</scan>")]
    else:
        return Parsed(native_id, {}, problem="truncated" if is_last else "malformed-xml")
    scan = parse_fragment(fragment, header.encoding)
    if scan is None:
        return Parsed(native_id, {}, problem="malformed-xml")
    fields = _fields(scan, header)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    try:
        mz, intensity = _peaks(scan)
    except BadArrayError as bad:
        return Parsed(native_id, fields, problem=bad.code)
    return Parsed(native_id, fields, mz, intensity, None if len(mz) else "no-peaks")


def _fields(scan: etree._Element, header: _Header) -> dict[str, str]:
    fields = {"instrument": header.instrument} if header.instrument else {}
    for attribute, name in (("msLevel", "ms_level"), ("collisionEnergy", "collision_energy")):
        if value := scan.get(attribute):
            fields[name] = value
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if polarity := {"+": "positive", "-": "negative"}.get(scan.get("polarity", "")):
        fields["polarity"] = polarity
    centroided = scan.get("centroided")
    is_centroided = header.is_centroided if centroided is None else centroided in {"1", "true"}
    fields["spectrum_representation"] = "centroid" if is_centroided else "profile"
    if time := _SECONDS.fullmatch(scan.get("retentionTime", "")):
        try:
            seconds = sum(float(time[unit] or 0) * size for unit, size in (("h", 3600), ("m", 60), ("s", 1)))
            fields["retention_time"] = f"{seconds:.10g} s"
        except ValueError:  # '1.2.3' seconds
            pass
    precursor = scan.find("precursorMz")
    if precursor is not None:
        if text := (precursor.text or "").strip():
            fields["precursor_mz"] = text
        for attribute, name in (("precursorCharge", "charge"), ("activationMethod", "activation")):
            if value := precursor.get(attribute):
                fields[name] = value
    return fields


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
    if len(values) % 2 or not np.isfinite(values).all():
        raise BadArrayError("bad-binary-array")
    return values[0::2].copy(), values[1::2].copy()


MZXML = RecordFormat(
    name="mzXML",
    extensions=("mzxml",),
    looks_like=lambda head: re.search(rb"<mzXML[\s>]", head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    is_whole=partial(is_whole_run, count=_COUNT, end=b"</msRun>"),
)
