"""Read MassBank records (MassBank record format 2.6), one or several in a text."""

from __future__ import annotations

import re
from collections.abc import Container

from .blocks import Parsed, RecordFormat
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_peaks, whole_number

_LABORATORY = re.compile(r"MSBNK-([^-]+)-")
_CHEMONT_ID = re.compile(r"CHEMONTID:\d+;?\s*")
_START, _PEAKS, _END = b"\nACCESSION:", "\nPK$PEAK:", "\n//"

_TAGS = {
    "CH$NAME": "name",
    "CH$SMILES": "smiles",
    "CH$IUPAC": "inchi",
    "CH$FORMULA": "formula",
    "LICENSE": "license",
    "AC$INSTRUMENT": "instrument",
    "AC$INSTRUMENT_TYPE": "instrument_type",
}
_SUBTAGS = {
    "AC$MASS_SPECTROMETRY": {
        "MS_TYPE": "ms_level",
        "ION_MODE": "polarity",
        "COLLISION_ENERGY": "collision_energy",
        "FRAGMENTATION_MODE": "activation",
    },
    "AC$CHROMATOGRAPHY": {"RETENTION_TIME": "retention_time"},
    "MS$FOCUSED_ION": {"PRECURSOR_M/Z": "precursor_mz", "PRECURSOR_TYPE": "adduct", "ION_TYPE": "ion_type"},
    "CH$LINK": {"INCHIKEY": "inchikey", "ChemOnt": "chemical_class"},
}


def _starts(data: bytes) -> list[int]:
    starts = [0] if data.startswith(_START[1:]) else []
    found = data.find(_START)
    while found >= 0:
        starts.append(found + 1)
        found = data.find(_START, found + 1)
    return starts


def _parse_record(data: bytes, _header: None, ms_levels: Container[int], _is_last: bool) -> Parsed:
    text, repairs = decode(data)
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
    try:
        mz, intensity, more = parse_peaks(body)
    except BadPeakLineError:
        return Parsed(accession, fields, problem="bad-peak-line")
    if whole_number(stated) not in (None, len(mz)):
        more += ("peak-count",)
    return Parsed(accession, fields, mz, intensity, None, repairs + more)


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
        if tag in _SUBTAGS:
            subtag, _, value = value.partition(" ")
            if name := _SUBTAGS[tag].get(subtag):
                fields.setdefault(name, value.strip())
        elif tag in _TAGS:
            fields.setdefault(_TAGS[tag], value.strip())  # of several names the first
        elif tag == "COMMENT":
            comments.append(value.strip())
        elif tag == "ACCESSION":
            accession = value.strip()
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


MASSBANK = RecordFormat(
    name="MassBank",
    extensions=("txt",),
    looks_like=lambda head: re.match(rb"\s*ACCESSION:[ \t]*\S", head) is not None,
    starts=_starts,
    parse_header=lambda header: None,
    parse_record=_parse_record,
)
