"""Read MSP libraries as NIST, MoNA, MassBank, MS-DIAL (RIKEN), mzmine and matchms write them."""

from __future__ import annotations

import re
from collections.abc import Container

import numpy as np

from .blocks import Parsed, RecordFormat
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_number, parse_peaks, peak_tokens, whole_number

_HEADER_LINE = re.compile(rb"(?:\A|\n)[ \t]*([A-Za-z$@#][^\n:]{0,80}):[^\n]*")
_NUM_PEAKS = re.compile(rb"num[ _]?peaks?\s*", re.IGNORECASE)
_PEAK_LINE = re.compile(rb"[ \t]*[(+-]?[.,]?\d")
_PEAK_LINE_TEXT = re.compile(r"[ \t]*[(+-]?[.,]?\d")
_SPECTRUM_KEY = re.compile(rb"^[ \t]*num[ _]?peaks?[ \t]*:", re.MULTILINE | re.IGNORECASE)
_QUOTED_COMMENT = re.compile(r'"([^"=]+)=([^"]*)"')
_QUOTED = re.compile(r'"[^"\n]*"')
_BRACKETED = re.compile(r"\(\s*([^\s,()]+)[\s,]+([^\s,()]+)\s*\)")
_LABORATORY = re.compile(r"MSBNK-([^-]+)-")

_NAMES = {  # keys in lower case without blanks, '_' and '#'
    "name": "name",
    "precursormz": "precursor_mz",
    "pepmass": "precursor_mz",
    "precursortype": "adduct",
    "adduct": "adduct",
    "iontype": "adduct",
    "charge": "charge",
    "ionmode": "polarity",
    "ionizationmode": "polarity",
    "polarity": "polarity",
    "mslevel": "ms_level",
    "spectrumtype": "spectrum_type",
    "retentiontime": "retention_time",
    "rtinseconds": "retention_time",
    "rt": "retention_time",
    "collisionenergy": "collision_energy",
    "ce": "collision_energy",
    "fragmentationmode": "activation",
    "fragmentationmethod": "activation",
    "instrument": "instrument",
    "sourceinstrument": "instrument",
    "instrumenttype": "instrument_type",
    "smiles": "smiles",
    "inchi": "inchi",
    "inchikey": "inchikey",
    "formula": "formula",
    "molecularformula": "formula",
    "ontology": "chemical_class",
    "compoundclass": "chemical_class",
    "chemicalclass": "chemical_class",
    "license": "license",
    "laboratory": "laboratory",
    "usi": "usi",
    "predicted": "predicted",
    "comment": "comment",
    "comments": "comment",
}
_IDS = ("db", "spectrumid", "accession", "id", "nist", "title", "scannumber")


def _starts(data: bytes) -> list[int]:
    """Return the offsets of header lines that follow a peak, an empty line, or the line with the number of peaks.

    Trusting neither the stated number of peaks nor empty lines alone keeps 'Num Peaks: 0' and wrong counts from
    running one record into the next.
    """
    starts, previous_end, after_num_peaks = [], 0, True
    for line in _HEADER_LINE.finditer(data):
        between = data[previous_end : line.start()]
        if after_num_peaks or (line.start() > previous_end and _ends_record(between)):
            starts.append(line.start() + (data[line.start()] == 0x0A))
        previous_end = line.end()
        after_num_peaks = _NUM_PEAKS.fullmatch(line[1]) is not None
    return starts


def _ends_record(between: bytes) -> bool:
    last = between.rstrip().rpartition(b"\n")[2]
    return not last or between.endswith(b"\n") or _PEAK_LINE.match(last) is not None


def _parse_record(data: bytes, _header: None, ms_levels: Container[int], is_last: bool) -> Parsed:
    text, repairs = decode(data)
    entries, body = _split(text)
    native_id, fields = _interpret(entries)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    num_stated = whole_number(entries.get("numpeaks", entries.get("numpeak", "")))
    if not body.strip():
        return Parsed(native_id, fields, problem="truncated" if is_last and num_stated != 0 else "no-peaks")
    try:
        mz, intensity, more = _parse_body(body, num_stated)
    except BadPeakLineError:
        return Parsed(
            native_id, fields, problem="truncated" if is_last and not data.endswith(b"\n") else "bad-peak-line"
        )
    if num_stated is not None and num_stated != len(mz):
        if is_last and num_stated > len(mz):
            return Parsed(native_id, fields, problem="truncated")
        more += ("peak-count",)
    return Parsed(native_id, fields, mz, intensity, None, repairs + more)


def _split(text: str) -> tuple[dict[str, str], str]:
    """Return the entries by normalised key, and the lines after the one with the number of peaks."""
    entries: dict[str, str] = {}
    offset = 0
    for line in text.split("\n"):
        if _PEAK_LINE_TEXT.match(line):  # peaks without their number
            break
        offset += len(line) + 1
        key, colon, value = line.partition(":")
        value = value.strip()
        key = key.strip().lower()
        # MS-DIAL's RETENTIONTIME is in minutes; with an underscore it is matchms's, in seconds.
        if key == "retentiontime" and value.replace(".", "", 1).isdecimal():
            value += " min"
        key = key.replace(" ", "").replace("_", "").replace("#", "")
        if colon and value:
            entries.setdefault(key, value)
        if key in ("numpeaks", "numpeak"):
            break
    return entries, text[offset:]


def _interpret(entries: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the native id and the fields; MoNA hides fields in the comment, as "key=value" in quotes."""
    comment = entries.get("comments", entries.get("comment", ""))
    for key, value in _QUOTED_COMMENT.findall(comment):
        entries.setdefault(key.strip().lower().replace(" ", "").replace("_", ""), value.strip())
    native_id = next((entries[key] for key in _IDS if key in entries), "")
    fields: dict[str, str] = {}
    for key, value in entries.items():
        if value and (name := _NAMES.get(key)):
            fields.setdefault(name, value)
    if "ms_level" not in fields and fields.get("spectrum_type", "").upper().startswith("MS"):
        fields["ms_level"] = fields["spectrum_type"]
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if laboratory := _LABORATORY.match(native_id):
        fields["laboratory"] = laboratory[1]
    return native_id, fields


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


MSP = RecordFormat(
    name="MSP",
    extensions=("msp",),
    looks_like=lambda head: _SPECTRUM_KEY.search(head) is not None,
    starts=_starts,
    parse_header=lambda header: None,
    parse_record=_parse_record,
    marks_ends=False,
)
