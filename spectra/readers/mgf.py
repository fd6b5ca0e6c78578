"""Read MGF (Mascot Generic Format) as converters, GNPS, MassSpecGym, mzmine, SIRIUS and matchms write it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from itertools import pairwise

import numpy as np

from .blocks import Parsed, Pending, RecordFormat
from .field_names import field_of, native_id_of, normal_key, with_unit
from .text import BadPeakLineError, decode, is_preface, is_wanted, ms_level, parse_peaks

_BEGIN = re.compile(rb"BEGIN[ \t]+IONS")
_END = re.compile(rb"END[ \t]+IONS")
_BEGIN_OR_END = re.compile(rb"[ \t]*(?:BEGIN|END)[ \t]+IONS")
_BEGIN_LINE = re.compile(r"\s*BEGIN[ \t]+IONS[^\n]*", re.IGNORECASE)
_END_LINE = re.compile(r"^[ \t]*END[ \t]+IONS", re.MULTILINE | re.IGNORECASE)
_LINE_OF_PEAK = re.compile(rb"^[ \t]*\d[\d.,]*(?:E[+-]?\d+)?[ \t,;]+[\d.,]", re.MULTILINE)
_FIRST_PEAK = re.compile(r"\n[ \t]*[+-]?[.,]?\d")
_PARAMETER = re.compile(r"\s*[A-Za-z_][\w .#/()-]*=")
_KEY = re.compile(rb"[ \t]*([A-Z_][\w .#/()-]{,60})=")
_OWN_LINE = re.compile(rb"[ \t]*(?:[#;!/]|[^=]{1,60}=|[-+.,\d]+[ \t,;]|END[ \t]+IONS)", re.IGNORECASE)
_COMMENTS = ("#", ";", "!", "/")
_COMMENT_MARKS = b"#;!/ \t"
_LONGEST_LINE = 10_000
"""Further than this the start of a line is not looked for."""
_MOST_PARAMETERS = 100
"""Of a record, that are compared with those of what may be the next one."""
_ADDUCT_IN_NAME = re.compile(r"\s(\[?\d*M(?:[+-]\d*[A-Z][A-Za-z0-9]*)+\]?\d*[+-]{0,2})$")
_INCHIKEY = re.compile(r"[A-Z]{14}-[A-Z]{8,10}")


def _starts(data: bytes) -> list[int]:
    """Return the offsets of the lines BEGIN IONS, and of what stands between two records and has peaks.

    A record whose line BEGIN IONS is lost thus is a record, and one that is cut within a line, so that the next BEGIN
    IONS stands at the end of it, does not take the next one with it.
    """
    upper = data.upper()
    begins = list(_begins(upper))
    ends = [match.end() for match in _ends(upper, 0, len(upper))]
    starts = list(_without_begin(upper, 0, begins[0] if begins else len(upper)))
    next_end = 0
    for begin, limit in pairwise([*begins, len(upper)]):
        starts.append(begin)
        while next_end < len(ends) and ends[next_end] < begin:
            next_end += 1
        if next_end < len(ends) and ends[next_end] < limit:
            rest = upper[ends[next_end] : limit]
            if rest and not rest.isspace():
                starts.extend(_without_begin(upper, upper.find(b"\n", ends[next_end], limit), limit))
    return starts


def _begins(upper: bytes) -> Iterator[int]:
    for match in _BEGIN.finditer(upper):
        line = upper.rfind(b"\n", max(match.start() - _LONGEST_LINE, 0), match.start()) + 1
        line = line or max(match.start() - _LONGEST_LINE, 0)
        before = upper[line : match.start()]
        if not before or before.isspace():
            yield line
        elif (
            before.strip(_COMMENT_MARKS)
            and upper[match.end() : match.end() + 80].lstrip(b" \t")[:1] == b"\n"
            and not _is_value(upper, line, match)
        ):
            yield match.start()


def _is_value(upper: bytes, line: int, match: re.Match[bytes]) -> bool:
    """Return whether a BEGIN IONS at the end of a line is the end of its parameter, such as a name.

    It is a record's where the line was cut there, and the next record stands behind it. That one has a parameter that
    was read before, as records of one file have the same ones; within a record one comes twice only by accident.
    """
    if upper[match.start() - 1 : match.start()].isalnum() or not _KEY.match(upper, line, match.start()):
        return False
    before, stop = set(), match.start()
    for _ in range(_MOST_PARAMETERS):
        if _BEGIN_OR_END.match(upper, line):
            break
        if key := _KEY.match(upper, line, stop):
            before.add(key[1].rstrip())
        if not line:
            break
        stop = line - 1
        line = upper.rfind(b"\n", 0, stop) + 1
    place = match.end()
    for _ in range(_MOST_PARAMETERS):
        place = upper.find(b"\n", place) + 1
        key = _KEY.match(upper, place)
        if not place or (key is None and upper[place : place + 1] != b"\n"):
            return True
        if key and key[1].rstrip() in before:
            return False
    return True


def _ends(upper: bytes, start: int, stop: int) -> Iterator[re.Match[bytes]]:
    """Yield where END IONS stands between two offsets, but for a parameter, such as a name, that holds the words."""
    for match in _END.finditer(upper, start, stop):
        line = upper.rfind(b"\n", max(match.start() - _LONGEST_LINE, 0), match.start()) + 1
        if b"=" not in upper[line : match.start()]:
            yield match


def _without_begin(upper: bytes, start: int, stop: int) -> Iterator[int]:
    """Yield where records without BEGIN IONS start between two offsets: at the first line of each part with peaks."""
    while 0 <= start < stop:
        end = next(_ends(upper, start, stop), None)
        part = upper[start : end.start() if end else stop]
        if _LINE_OF_PEAK.search(part):
            yield start + len(part) - len(part.lstrip())
        start = upper.find(b"\n", end.end(), stop) if end else stop


def _parse_header(header: bytes) -> dict[str, str]:
    """Return the parameters before the first record: defaults for all (Mascot allows CHARGE, for example)."""
    return _parse_parameters(decode(header)[0].split("\n"))


def _parse_record(data: bytes, defaults: dict[str, str], ms_levels: Container[int], _is_last: bool) -> Parsed | Pending:
    text, repairs = decode(data)
    if begin := _BEGIN_LINE.match(text):
        text = text[begin.end() :]
    else:
        text, repairs = "\n" + text, (*repairs, "record-start")
    content, end, _ = text.partition("\nEND IONS")
    if not end and (found := _END_LINE.search(text)):
        content, end = text[: found.start()], found[0]
    first_peak = _FIRST_PEAK.search(content)
    border = first_peak.start() if first_peak else len(content)
    lines, body = content[:border].split("\n"), content[border:]
    if "=" in body:  # parameters after the first peak
        all_lines = body.split("\n")
        lines += [line for line in all_lines if _PARAMETER.match(line)]
        body = "\n".join(line for line in all_lines if not _PARAMETER.match(line))
    native_id, fields = interpret_parameters({**defaults, **_parse_parameters(lines)})
    if not end:
        return Parsed(native_id, fields, problem="truncated")
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    if ";" in body or "#" in body or "!" in body or "/" in body:
        body = "\n".join(line for line in body.split("\n") if not line.lstrip().startswith(_COMMENTS))
    if not body or body.isspace():
        return Parsed(native_id, fields, problem="no-peaks")

    def finish(peaks: tuple[np.ndarray, np.ndarray] | None) -> Parsed:
        if peaks is not None:
            return Parsed(native_id, fields, *peaks, None, repairs)
        try:
            mz, intensity, more = parse_peaks(body)
        except BadPeakLineError:
            return Parsed(native_id, fields, problem="bad-peak-line")
        return Parsed(native_id, fields, mz, intensity, None, repairs + more)

    return Pending(body, finish)


def _parse_parameters(lines: Iterable[str]) -> dict[str, str]:
    """Return the text of each parameter that has one, by its key in normal form; of several the last."""
    parameters = {}
    for line in lines:
        key, is_parameter, value = line.partition("=")
        if is_parameter and not key.startswith(_COMMENTS) and (value := value.strip()):
            parameters[normal_key(key)] = value
    return parameters


def interpret_parameters(parameters: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the native id and the fields (`RawRecord.fields`) of parameters, by their keys in normal form."""
    native_id = native_id_of(parameters)
    fields: dict[str, str] = {}
    for key, value in parameters.items():
        if (name := field_of(key, "MGF")) is not None and name not in fields:
            fields[name] = value
    precursor = parameters.get("pepmass", fields.get("precursor_mz", "")).split()  # m/z [intensity [charge]]
    if precursor:
        fields["precursor_mz"] = precursor[0]
        if len(precursor) > 2:
            fields.setdefault("charge", precursor[2])
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    elif fields.get("spectrum_type", "").upper() == "CORRELATED MS":  # mzmine and SIRIUS: the isotope pattern
        fields["ms_level"] = "1"
    if "rtinminutes" in parameters and "rtinseconds" not in parameters:
        fields["retention_time"] = with_unit("rtinminutes", parameters["rtinminutes"])
    if native_id.startswith("MassSpecGymID") and "collision_energy" in fields:
        fields["collision_energy"] = with_unit("collision_energy", fields["collision_energy"], "MassSpecGym")
    if "inchikey" in fields and "inchikey" not in parameters and not _INCHIKEY.match(fields["inchikey"]):
        del fields["inchikey"]  # INCHIAUX may hold anything
    if "adduct" not in fields and (adduct := _ADDUCT_IN_NAME.search(fields.get("name", ""))):
        fields["adduct"] = adduct[1]  # GNPS: 'NAME=Fuberidazole M-H'
        fields["name"] = fields["name"][: adduct.start()].strip()
    return native_id, fields


def _looks_like(head: bytes) -> bool:
    begin = next(_begins(head.upper()), None)
    return begin is not None and is_preface(head[:begin], _OWN_LINE)


MGF = RecordFormat(
    name="MGF",
    extensions=("mgf",),
    looks_like=_looks_like,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
)
