"""Read MassBank records (MassBank record format 2.6), one or several in a text."""

from __future__ import annotations

import re
from collections.abc import Container

from .blocks import Parsed, RecordFormat
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_peaks

_START = re.compile(rb"^ACCESSION:", re.MULTILINE)
_LABORATORY = re.compile(r"MSBNK-([^-]+)-")
_PEAKS = re.compile(r"^PK\$PEAK:.*\n", re.MULTILINE)
_END = re.compile(r"^//[ \t]*$", re.MULTILINE)

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
    ("AC$MASS_SPECTROMETRY", "MS_TYPE"): "ms_level",
    ("AC$MASS_SPECTROMETRY", "ION_MODE"): "polarity",
    ("AC$MASS_SPECTROMETRY", "COLLISION_ENERGY"): "collision_energy",
    ("AC$MASS_SPECTROMETRY", "FRAGMENTATION_MODE"): "activation",
    ("AC$CHROMATOGRAPHY", "RETENTION_TIME"): "retention_time",
    ("MS$FOCUSED_ION", "PRECURSOR_M/Z"): "precursor_mz",
    ("MS$FOCUSED_ION", "PRECURSOR_TYPE"): "adduct",
    ("MS$FOCUSED_ION", "ION_TYPE"): "ion_type",
    ("CH$LINK", "INCHIKEY"): "inchikey",
    ("CH$LINK", "ChemOnt"): "chemical_class",
}


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in _START.finditer(data)]


def _parse_record(data: bytes, _header: None, ms_levels: Container[int], _is_last: bool) -> Parsed:
    text, repairs = decode(data)
    peaks = _PEAKS.search(text)
    head = text[: peaks.start()] if peaks else text
    accession, fields, stated = _parse_head(head)
    if "\nDEPRECATED:" in head:
        return Parsed(accession, fields, problem="deprecated")
    end = _END.search(text, peaks.end() if peaks else 0)
    if end is None:
        return Parsed(accession, fields, problem="truncated")
    if not is_wanted(fields, ms_levels):
        return Parsed(accession, fields)
    body = text[peaks.end() : end.start()] if peaks else ""
    if not body.strip():
        return Parsed(accession, fields, problem="no-peaks")
    try:
        mz, intensity, more = parse_peaks(body, num_columns=3)
    except BadPeakLineError:
        return Parsed(accession, fields, problem="bad-peak-line")
    if stated.isdecimal() and int(stated) != len(mz):
        more += ("peak-count",)
    return Parsed(accession, fields, mz, intensity, None, repairs + more)


def _parse_head(head: str) -> tuple[str, dict[str, str], str]:
    """Return the accession, the fields, and the number of peaks as stated."""
    fields: dict[str, str] = {}
    accession = num_peaks = ""
    comments = []
    for line in head.split("\n"):
        if line.startswith(" "):  # an annotation or the peaks themselves
            continue
        tag, _, value = line.partition(": ")
        value = value.strip()
        if tag in _TAGS:
            fields.setdefault(_TAGS[tag], value)  # of several names the first
        elif tag == "COMMENT":
            comments.append(value)
        elif tag == "ACCESSION":
            accession = value
        elif tag == "PK$NUM_PEAK":
            num_peaks = value
        elif value:
            subtag, _, value = value.partition(" ")
            if name := _SUBTAGS.get((tag, subtag)):
                fields.setdefault(name, value.strip())
    return accession, _interpret(fields, accession, comments), num_peaks


def _interpret(fields: dict[str, str], accession: str, comments: list[str]) -> dict[str, str]:
    if laboratory := _LABORATORY.match(accession):
        fields["laboratory"] = laboratory[1]
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if ion_type := fields.pop("ion_type", ""):
        fields.setdefault("adduct", ion_type)
    if "chemical_class" in fields:  # 'CHEMONTID:0000053; Organic compounds; Organoheterocyclic compounds; ...'
        path = re.sub(r"^CHEMONTID:\d+;?\s*", "", fields.pop("chemical_class"))
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
