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
    BadArrayError,
    decode_binary,
    decode_bytes,
    encoding_of,
    is_whole_run,
    parse_fragment,
    parse_open_document,
)
from .text import is_wanted, ms_level

_START = re.compile(rb"<spectrum[\s>]")
_END = b"</spectrum>"
_ID = re.compile(rb"""\sid\s*=\s*["']([^"']*)["']""")
_COUNT = re.compile(rb"""<spectrumList\s[^>]*?count\s*=\s*["'](\d+)["']""")

_MS_LEVEL, _MS1_SPECTRUM, _POSITIVE, _NEGATIVE = "MS:1000511", "MS:1000579", "MS:1000130", "MS:1000129"
_REPRESENTATION = {"MS:1000127": "centroid", "MS:1000128": "profile"}
_SCAN_TIME, _FILTER, _MINUTE = "MS:1000016", "MS:1000512", "UO:0000031"
_SELECTED_MZ, _ISOLATION_MZ, _CHARGE = "MS:1000744", "MS:1000827", "MS:1000041"
_COLLISION_ENERGY, _NORMALISED_ENERGY = "MS:1000045", "MS:1000138"
_DISSOCIATION = {
    "MS:1000133": "CID",
    "MS:1000134": "PD",
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
    "MS:1003181": "EAD",
    "MS:1003246": "UVPD",
}
_MZ_ARRAY, _INTENSITY_ARRAY = "MS:1000514", "MS:1000515"
_DTYPES = {"MS:1000523": "<f8", "MS:1000521": "<f4", "MS:1000522": "<i8", "MS:1000519": "<i4"}
_ZLIB = {"MS:1000574", "MS:1002746", "MS:1002747", "MS:1002748"}
_NUMPRESS = {
    "MS:1002312": numpress.decode_linear,
    "MS:1002746": numpress.decode_linear,
    "MS:1002313": numpress.decode_pic,
    "MS:1002747": numpress.decode_pic,
    "MS:1002314": numpress.decode_slof,
    "MS:1002748": numpress.decode_slof,
}
_NO_COMPRESSION = "MS:1000576"
_COMPRESSION_TERMS = re.compile(r"compression", re.IGNORECASE)
_THERMO_ENERGY = re.compile(r"@(?:hcd|cid)(\d+(?:\.\d+)?)", re.IGNORECASE)

_NOT_MODELS = {"MS:1000529", "MS:1000032"}  # serial number, customisation


@dataclass(frozen=True)
class _Term:
    value: str
    name: str
    unit: str


@dataclass(frozen=True)
class _Header:
    encoding: bytes = b"utf-8"
    groups: Mapping[str, Mapping[str, _Term]] = field(default_factory=dict)
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
        models = [t.value or t.name for key, t in _terms(configuration, groups).items() if key not in _NOT_MODELS]
        instruments += [model for model in models if model not in instruments]
    return _Header(encoding, groups, "; ".join(instruments))


def _terms(element: etree._Element, groups: Mapping[str, Mapping[str, _Term]]) -> dict[str, _Term]:
    """Return the terms that stand directly in ``element`` or in the groups it refers to, by accession."""
    terms: dict[str, _Term] = {}
    for child in element:
        tag = etree.QName(child).localname
        if tag == "cvParam":
            value = child.get("value", "")
            terms[child.get("accession", "")] = _Term(value, child.get("name", ""), child.get("unitAccession", ""))
        elif tag == "referenceableParamGroupRef":
            terms.update(groups.get(child.get("ref", ""), {}))
    return terms


def _parse_record(data: bytes, header: _Header, ms_levels: Container[int], _is_last: bool) -> Parsed:
    end = data.find(_END)
    if end < 0:
        found = _ID.search(data[: data.find(b">") + 1])
        native_id = found[1].decode("utf-8", "replace") if found else ""
        return Parsed(native_id, {}, problem="truncated" if _is_last else "malformed-xml")
    spectrum = parse_fragment(data[: end + len(_END)], header.encoding)
    if spectrum is None:
        found = _ID.search(data[: data.find(b">") + 1])
        return Parsed(found[1].decode("utf-8", "replace") if found else "", {}, problem="malformed-xml")
    native_id = spectrum.get("id", "")
    fields = _fields(spectrum, header)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    try:
        mz, intensity = _peaks(spectrum, header)
    except BadArrayError as bad:
        return Parsed(native_id, fields, problem=bad.code)
    return Parsed(native_id, fields, mz, intensity, None if len(mz) else "no-peaks")


def _fields(spectrum: etree._Element, header: _Header) -> dict[str, str]:
    fields = {"instrument": header.instrument} if header.instrument else {}
    terms = _terms(spectrum, header.groups)
    scan = spectrum.find("scanList/scan")
    scan_terms = _terms(scan, header.groups) if scan is not None else {}
    if _MS_LEVEL in terms:
        fields["ms_level"] = ms_level(terms[_MS_LEVEL].value)
    elif _MS1_SPECTRUM in terms:
        fields["ms_level"] = "1"
    for accession, polarity in ((_POSITIVE, "positive"), (_NEGATIVE, "negative")):
        if accession in terms or accession in scan_terms:
            fields["polarity"] = polarity
    for accession, representation in _REPRESENTATION.items():
        if accession in terms:
            fields["spectrum_representation"] = representation
    if time := scan_terms.get(_SCAN_TIME):
        fields["retention_time"] = _seconds(time)
    precursor = spectrum.find("precursorList/precursor")
    if precursor is not None:
        filter_text = scan_terms[_FILTER].value if _FILTER in scan_terms else ""
        fields |= _precursor_fields(precursor, header, filter_text)
    return fields


def _seconds(time: _Term) -> str:
    try:
        value = float(time.value)
    except ValueError:
        return time.value
    return f"{value * 60:.10g} s" if time.unit == _MINUTE else f"{value:.10g} s"


def _precursor_fields(precursor: etree._Element, header: _Header, filter_text: str) -> dict[str, str]:
    fields = {}
    ion = precursor.find("selectedIonList/selectedIon")
    ion_terms = _terms(ion, header.groups) if ion is not None else {}
    window = precursor.find("isolationWindow")
    window_terms = _terms(window, header.groups) if window is not None else {}
    if mz := ion_terms.get(_SELECTED_MZ) or window_terms.get(_ISOLATION_MZ):
        fields["precursor_mz"] = mz.value
    if _CHARGE in ion_terms:
        fields["charge"] = ion_terms[_CHARGE].value
    activation = precursor.find("activation")
    activation_terms = _terms(activation, header.groups) if activation is not None else {}
    methods = [short for accession, short in _DISSOCIATION.items() if accession in activation_terms]
    if methods:
        fields["activation"] = ", ".join(methods)
    if energy := activation_terms.get(_NORMALISED_ENERGY):
        fields["collision_energy"] = f"{energy.value} (NCE)"
    elif energy := activation_terms.get(_COLLISION_ENERGY):
        # Converters give Thermo's normalised energy in electronvolts; the filter text shows where the number is from.
        thermo = _THERMO_ENERGY.search(filter_text)
        is_normalised = thermo is not None and _equal(thermo[1], energy.value)
        fields["collision_energy"] = f"{energy.value} {'(NCE)' if is_normalised else 'eV'}"
    return fields


def _equal(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _peaks(spectrum: etree._Element, header: _Header) -> tuple[np.ndarray, np.ndarray]:
    arrays = {}
    for element in spectrum.iterfind("binaryDataArrayList/binaryDataArray"):
        terms = _terms(element, header.groups)
        kind = next((accession for accession in (_MZ_ARRAY, _INTENSITY_ARRAY) if accession in terms), None)
        if kind:
            arrays[kind] = _array(element.findtext("binary") or "", terms)
    mz, intensity = arrays.get(_MZ_ARRAY, np.empty(0)), arrays.get(_INTENSITY_ARRAY, np.empty(0))
    if len(mz) != len(intensity) or not (np.isfinite(mz).all() and np.isfinite(intensity).all()):
        raise BadArrayError("bad-binary-array")
    return mz, intensity


def _array(text: str, terms: Mapping[str, _Term]) -> np.ndarray:
    is_zlib = not _ZLIB.isdisjoint(terms)
    for accession, decode in _NUMPRESS.items():
        if accession in terms:
            return decode(decode_bytes(text, is_zlib=is_zlib))
    dtype = next((dtype for accession, dtype in _DTYPES.items() if accession in terms), None)
    unknown = [
        t for key, t in terms.items() if key not in _ZLIB | {_NO_COMPRESSION} and _COMPRESSION_TERMS.search(t.name)
    ]
    if dtype is None or unknown:
        raise BadArrayError("unsupported-binary-encoding")
    return decode_binary(text, dtype, is_zlib=is_zlib)


MZML = RecordFormat(
    name="mzML",
    extensions=("mzml",),
    looks_like=lambda head: re.search(rb"<(?:indexed)?mzML[\s>]", head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
    is_whole=partial(is_whole_run, count=_COUNT, end=b"</spectrumList>"),
)
