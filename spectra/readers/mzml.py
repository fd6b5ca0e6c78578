"""Read runs in mzML (HUPO-PSI mzML 1.1)."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from lxml import etree

from . import numpress
from .blocks import Parsed, RecordFormat
from .runs import (
    NAME_PREFIX,
    BadArrayError,
    decode_binary,
    decode_bytes,
    encoding_of,
    energy_text,
    filter_energy,
    is_whole_run,
    parse_fragment,
    parse_open_document,
    positive,
)
from .text import is_wanted, ms_level, whole_number

_START = re.compile(rb"<" + NAME_PREFIX + rb"spectrum[\s>]")
_END = re.compile(rb"</" + NAME_PREFIX + rb"spectrum>")
_LIST_END = re.compile(rb"</" + NAME_PREFIX + rb"spectrumList>")
_ARRAYS = re.compile(rb"<" + NAME_PREFIX + rb"binaryDataArrayList[\s>]")
_LEVEL = re.compile(rb'accession="MS:1000511"[^>]*?\svalue="(\d{1,2})"')
_ID = re.compile(rb"""\sid\s*=\s*["']([^"']*)["']""")
_COUNT = re.compile(rb"<" + NAME_PREFIX + rb"""spectrumList\s[^>]*?count\s*=\s*["'](\d+)["']""")

_MS_LEVEL, _MS1_SPECTRUM, _POSITIVE, _NEGATIVE = "MS:1000511", "MS:1000579", "MS:1000130", "MS:1000129"
_REPRESENTATION = {"MS:1000127": "centroid", "MS:1000128": "profile"}
_SCAN_TIME, _FILTER = "MS:1000016", "MS:1000512"
_SECONDS = {
    "UO:0000010": 1.0,
    "second": 1.0,
    "UO:0000031": 60.0,
    "minute": 60.0,
    "UO:0000028": 1e-3,
    "UO:0000032": 3600,
}
_SELECTED_MZ, _ISOLATION_MZ, _CHARGE = "MS:1000744", "MS:1000827", "MS:1000041"
_ISOLATION_OFFSETS = ("MS:1000828", "MS:1000829")
_COLLISION_ENERGY, _NORMALISED_ENERGY = "MS:1000045", "MS:1000138"
_ENERGY_RAMPS = {("MS:1002013", "MS:1002014"): "eV", ("MS:1002218", "MS:1002219"): "(NCE)"}
_DISSOCIATION = {
    "MS:1000133": "CID",
    "MS:1000250": "ECD",
    "MS:1000262": "IRMPD",
    "MS:1000422": "HCD",
    "MS:1000433": "LE-CID",
    "MS:1000435": "PD",
    "MS:1000598": "ETD",
    "MS:1000599": "PQD",
    "MS:1001880": "in-source CID",
    "MS:1002472": "trap-type CID",
    "MS:1002481": "HCD",
    "MS:1002631": "EThcD",
    "MS:1003246": "UVPD",
    "MS:1003247": "NETD",
    "MS:1003294": "EAD",
}
_MZ_ARRAY, _INTENSITY_ARRAY = "MS:1000514", "MS:1000515"
_DTYPES = {"MS:1000523": "<f8", "MS:1000521": "<f4", "MS:1000522": "<i8", "MS:1000519": "<i4"}
_ZLIB = {"MS:1000574", "MS:1002746", "MS:1002747", "MS:1002748", "MS:1003088"}
_NUMPRESS = {
    "MS:1002312": numpress.decode_linear,
    "MS:1002746": numpress.decode_linear,
    "MS:1002313": numpress.decode_pic,
    "MS:1002747": numpress.decode_pic,
    "MS:1002314": numpress.decode_slof,
    "MS:1002748": numpress.decode_slof,
}
_NO_COMPRESSION = "MS:1000576"
_COMPRESSION_TERMS = re.compile(r"compression|encoding", re.IGNORECASE)

_NOT_MODELS = {"MS:1000529", "MS:1000032"}  # serial number, customisation

_Terms = dict[str, etree._Element]


@dataclass(frozen=True)
class _Header:
    encoding: str = "utf-8"
    groups: Mapping[str, _Terms] = field(default_factory=dict)
    instrument: str = ""


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in _START.finditer(data)]


def _parse_header(header: bytes) -> _Header:
    encoding = encoding_of(header)
    root = parse_open_document(header)
    if root is None:
        return _Header(encoding)
    groups = {
        group.get("id", ""): _terms(group, {})
        for group in root.iterfind(".//{*}referenceableParamGroupList/{*}referenceableParamGroup")
    }
    instruments = []
    for configuration in root.iterfind(".//{*}instrumentConfigurationList/{*}instrumentConfiguration"):
        terms = _terms(configuration, groups)
        models = [t.get("value") or t.get("name", "") for key, t in terms.items() if key not in _NOT_MODELS]
        instruments += [model for model in models if model not in instruments]
    return _Header(encoding, groups, "; ".join(instruments))


def _terms(element: etree._Element | None, groups: Mapping[str, _Terms]) -> _Terms:
    """Return the terms that stand directly in ``element`` or in the groups it refers to, by accession."""
    terms: _Terms = {}
    if element is None:
        return terms
    for child in element:
        tag = child.tag
        if tag.endswith("cvParam"):  # with a namespace before it in the header of the file
            terms[child.get("accession", "")] = child
        elif tag.endswith("referenceableParamGroupRef"):
            terms |= groups.get(child.get("ref", ""), {})
    return terms


def _value(terms: _Terms, accession: str) -> str:
    return terms[accession].get("value", "") if accession in terms else ""


def _parse_record(data: bytes, header: _Header, ms_levels: Container[int], is_last: bool) -> Parsed:
    end = _END.search(data)
    if end is None:
        return Parsed(_native_id(data), {}, problem="truncated" if is_last else "malformed-xml")
    fragment = data[: end.end()]
    arrays = _ARRAYS.search(fragment)
    if arrays:
        level = _LEVEL.search(fragment, 0, arrays.start())
        if level and int(level[1]) not in ms_levels:  # survey scans are most of a run's bytes: leave their peaks alone
            fragment = fragment[: arrays.start()] + fragment[end.start() :]
    spectrum = parse_fragment(fragment, header.encoding)
    if spectrum is None:
        return Parsed(_native_id(data), {}, problem="malformed-xml")
    native_id = spectrum.get("id", "")
    fields, repairs = _fields(spectrum, header)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=tuple(repairs))
    try:
        mz, intensity = _peaks(spectrum, header)
    except BadArrayError as bad:
        return Parsed(native_id, fields, problem=bad.code)
    if not (np.isfinite(mz).all() and np.isfinite(intensity).all()):
        repairs.append("bad-peak")
    if whole_number(spectrum.get("defaultArrayLength", "")) not in (None, len(mz)):
        repairs.append("peak-count")
    return Parsed(native_id, fields, mz, intensity, None if len(mz) else "no-peaks", tuple(repairs))


def _native_id(data: bytes) -> str:
    found = _ID.search(data[: data.find(b">") + 1])
    return found[1].decode("utf-8", "replace") if found else ""


def _fields(spectrum: etree._Element, header: _Header) -> tuple[dict[str, str], list[str]]:
    fields = {"instrument": header.instrument} if header.instrument else {}
    repairs: list[str] = []
    terms = _terms(spectrum, header.groups)
    scan_terms = _terms(spectrum.find("scanList/scan"), header.groups)
    if level := _value(terms, _MS_LEVEL):
        fields["ms_level"] = ms_level(level)
    elif _MS1_SPECTRUM in terms:
        fields["ms_level"] = "1"
    for accession, polarity in ((_POSITIVE, "positive"), (_NEGATIVE, "negative")):
        if accession in terms or accession in scan_terms:
            fields["polarity"] = polarity
    for accession, representation in _REPRESENTATION.items():
        if accession in terms:
            fields["spectrum_representation"] = representation
    if time := _value(scan_terms, _SCAN_TIME):
        unit = scan_terms[_SCAN_TIME]
        factor = _SECONDS.get(unit.get("unitAccession", "")) or _SECONDS.get(unit.get("unitName", ""))
        if factor is None:
            repairs.append("retention-time-without-unit")
        else:
            fields["retention_time"] = f"{float(time) * factor:.10g} s" if positive(time) else time
    precursors = spectrum.findall("precursorList/precursor")
    if precursors:
        precursor, is_one = _precursor(precursors, header)
        fields |= _precursor_fields(precursor, header, _value(scan_terms, _FILTER))
        if not is_one:
            repairs.append("several-precursors")
    return fields, repairs


def _precursor(precursors: list[etree._Element], header: _Header) -> tuple[etree._Element, bool]:
    """Return the precursor that was isolated last, the first of several such; and whether all say the same m/z.

    ProteoWizard lists all ancestors of an MS3 spectrum, each with its level as a user parameter, since 2019; at first
    the oldest came first, now the youngest.
    """
    if len(precursors) == 1 and len(precursors[0].findall("selectedIonList/selectedIon")) < 2:
        return precursors[0], True
    levels = [
        whole_number(window.get("value", "")) or 0
        if (window := precursor.find("isolationWindow/userParam[@name='ms level']")) is not None
        else 0
        for precursor in precursors
    ]
    youngest = [p for p, level in zip(precursors, levels, strict=True) if level == max(levels)]
    ions = [ion for precursor in youngest for ion in precursor.iterfind("selectedIonList/selectedIon")]
    selected = {_value(_terms(ion, header.groups), _SELECTED_MZ) for ion in ions}
    isolated = {_value(_terms(p.find("isolationWindow"), header.groups), _ISOLATION_MZ) for p in youngest}
    return youngest[0], len(selected) < 2 and len(isolated) < 2


def _precursor_fields(precursor: etree._Element, header: _Header, filter_text: str) -> dict[str, str]:
    fields = {}
    ion = _terms(precursor.find("selectedIonList/selectedIon"), header.groups)
    selected = _value(ion, _SELECTED_MZ)
    window = _terms(precursor.find("isolationWindow"), header.groups)
    isolated = _value(window, _ISOLATION_MZ)
    offsets = [_value(window, accession) for accession in _ISOLATION_OFFSETS]
    if all(map(positive, offsets)):
        fields["isolation_width"] = f"{sum(map(float, offsets)):.10g}"
    if mz := isolated if positive(isolated) and not positive(selected) else selected:
        fields["precursor_mz"] = mz
    if charge := _value(ion, _CHARGE):
        fields["charge"] = charge
    element = precursor.find("activation")
    activation = _terms(element, header.groups)
    if methods := [short for accession, short in _DISSOCIATION.items() if accession in activation]:
        fields["activation"] = ", ".join(dict.fromkeys(methods))
    if energy := _energy(element, activation, filter_text):
        fields["collision_energy"] = energy
    return fields


def _energy(element: etree._Element | None, activation: _Terms, filter_text: str) -> str | None:
    for accession, unit in ((_NORMALISED_ENERGY, "(NCE)"), (_COLLISION_ENERGY, "eV")):
        if value := _value(activation, accession):
            steps = [] if element is None else element.findall(f"cvParam[@accession='{accession}']")
            return energy_text([step.get("value", "") for step in steps] or [value], unit, filter_text)
    for (start, end), unit in _ENERGY_RAMPS.items():
        if _value(activation, start) and _value(activation, end):
            return f"Ramp {_value(activation, start)}-{_value(activation, end)} {unit}"
    energy = filter_energy(filter_text)
    return f"{energy} (NCE)" if energy else None


def _peaks(spectrum: etree._Element, header: _Header) -> tuple[np.ndarray, np.ndarray]:
    arrays = {}
    for element in spectrum.iterfind("binaryDataArrayList/binaryDataArray"):
        terms = _terms(element, header.groups)
        kind = next((accession for accession in (_MZ_ARRAY, _INTENSITY_ARRAY) if accession in terms), None)
        if kind:
            arrays[kind] = _array(element.findtext("binary") or "", terms)
    mz, intensity = arrays.get(_MZ_ARRAY, np.empty(0)), arrays.get(_INTENSITY_ARRAY, np.empty(0))
    if len(mz) != len(intensity):
        raise BadArrayError("bad-binary-array")
    return mz, intensity


def _array(text: str, terms: _Terms) -> np.ndarray:
    is_zlib = not _ZLIB.isdisjoint(terms)
    for accession, decode in _NUMPRESS.items():
        if accession in terms:
            return decode(decode_bytes(text, is_zlib=is_zlib))
    dtype = next((dtype for accession, dtype in _DTYPES.items() if accession in terms), None)
    known = _ZLIB | {_NO_COMPRESSION}
    is_unknown = any(key not in known and _COMPRESSION_TERMS.search(t.get("name", "")) for key, t in terms.items())
    if dtype is None or is_unknown:
        raise BadArrayError("unsupported-binary-encoding")
    return decode_binary(text, dtype, is_zlib=is_zlib)


MZML = RecordFormat(
    name="mzML",
    extensions=("mzml",),
    looks_like=lambda head: re.search(rb"<" + NAME_PREFIX + rb"(?:indexed)?mzML[\s>]", head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    is_whole=partial(is_whole_run, count=_COUNT, end=_LIST_END),
)
