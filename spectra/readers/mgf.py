"""Read MGF (Mascot Generic Format) as instruments' converters, GNPS, mzmine and matchms write it."""

from __future__ import annotations

import re
from collections.abc import Container

from .blocks import Parsed, RecordFormat
from .text import BadPeakLineError, decode, is_wanted, ms_level, parse_peaks

_START = re.compile(rb"^[ \t]*BEGIN[ \t]+IONS", re.MULTILINE | re.IGNORECASE)
_END = re.compile(r"^[ \t]*END[ \t]+IONS", re.MULTILINE | re.IGNORECASE)
_FIRST_PEAK = re.compile(r"^[ \t]*[+-]?[.,]?\d", re.MULTILINE)
_PARAMETER = re.compile(r"[A-Za-z_][\w .#/()-]*=")
_COMMENTS = ("#", ";", "!", "/")
_ADDUCT_IN_NAME = re.compile(r"\s(\[?\d*M(?:[+-]\d*[A-Z][A-Za-z0-9]*)+\]?\d*[+-]{0,2})$")
_INCHIKEY = re.compile(r"[A-Z]{14}-[A-Z]{8,10}")

_IDS = ("spectrumid", "spectrum_id", "title", "feature_id", "scans")
_NAMES = {
    "charge": "charge",
    "ionmode": "polarity",
    "ion_mode": "polarity",
    "polarity": "polarity",
    "adduct": "adduct",
    "precursor_type": "adduct",
    "precursortype": "adduct",
    "ion": "adduct",
    "mslevel": "ms_level",
    "ms_level": "ms_level",
    "rtinseconds": "retention_time",
    "rtinminutes": "retention_time",
    "retention_time": "retention_time",
    "collision_energy": "collision_energy",
    "collisionenergy": "collision_energy",
    "fragmentation_method": "activation",
    "activation": "activation",
    "instrument": "instrument",
    "source_instrument": "instrument",
    "instrument_type": "instrument_type",
    "smiles": "smiles",
    "inchi": "inchi",
    "inchikey": "inchikey",
    "inchiaux": "inchikey",
    "formula": "formula",
    "name": "name",
    "compound_name": "name",
    "compoundname": "name",
    "pi": "laboratory",
    "license": "license",
    "usi": "usi",
    "spectype": "spectrum_type",
    "spectrumtype": "spectrum_type",
    "spectrum_type": "spectrum_type",
    "comment": "comment",
    "comments": "comment",
    "predicted": "predicted",
}


def _starts(data: bytes) -> list[int]:
    return [match.start() for match in _START.finditer(data)]


def _parse_header(header: bytes) -> dict[str, str]:
    """Return the parameters before the first record: defaults for all (Mascot allows CHARGE, for example)."""
    return _parse_parameters(decode(header)[0].split("\n"))


def _parse_record(data: bytes, defaults: dict[str, str], ms_levels: Container[int], _is_last: bool) -> Parsed:
    text, repairs = decode(data)
    text = text.partition("\n")[2]
    end = _END.search(text)
    content = text[: end.start()] if end else text
    first_peak = _FIRST_PEAK.search(content)
    border = first_peak.start() if first_peak else len(content)
    lines, body = content[:border].split("\n"), content[border:]
    if "=" in body:  # parameters after the first peak
        late = [line for line in body.split("\n") if _PARAMETER.match(line.lstrip())]
        body = "\n".join(line for line in body.split("\n") if line not in late)
        lines += late
    native_id, fields = _interpret({**defaults, **_parse_parameters(lines)})
    if end is None:
        return Parsed(native_id, fields, problem="truncated")
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields)
    if any(mark in body for mark in _COMMENTS):
        body = "\n".join(line for line in body.split("\n") if not line.lstrip().startswith(_COMMENTS))
    if not body.strip():
        return Parsed(native_id, fields, problem="no-peaks")
    try:
        mz, intensity, more = parse_peaks(body)
    except BadPeakLineError:
        return Parsed(native_id, fields, problem="bad-peak-line")
    return Parsed(native_id, fields, mz, intensity, None, repairs + more)


def _parse_parameters(lines: list[str]) -> dict[str, str]:
    """Return the text of each parameter that has one, by its key in lower case."""
    parameters = {}
    for line in lines:
        key, is_parameter, value = line.partition("=")
        value = value.strip()
        if is_parameter and value and not line.startswith(_COMMENTS):
            parameters[key.strip().lower()] = value
    return parameters


def _interpret(parameters: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return the native id and the fields."""
    native_id = next((parameters[key] for key in _IDS if key in parameters), "")
    fields: dict[str, str] = {}
    for key, value in parameters.items():
        if name := _NAMES.get(key):
            fields.setdefault(name, value)
    precursor = parameters.get("pepmass", parameters.get("precursor_mz", "")).split()  # m/z [intensity [charge]]
    if precursor:
        fields["precursor_mz"] = precursor[0]
        if len(precursor) > 2:
            fields.setdefault("charge", precursor[2])
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if "rtinminutes" in parameters and "rtinseconds" not in parameters:
        fields["retention_time"] = f"{parameters['rtinminutes']} min"
    if "inchiaux" in parameters and "inchikey" not in parameters and not _INCHIKEY.match(parameters["inchiaux"]):
        fields.pop("inchikey", None)
    if "adduct" not in fields and (adduct := _ADDUCT_IN_NAME.search(fields.get("name", ""))):
        fields["adduct"] = adduct[1]  # GNPS: 'NAME=Fuberidazole M-H'
        fields["name"] = fields["name"][: adduct.start()].strip()
    return native_id, fields


MGF = RecordFormat(
    name="MGF",
    extensions=("mgf",),
    looks_like=lambda head: _START.search(head) is not None,
    starts=_starts,
    parse_header=_parse_header,
    parse_record=_parse_record,
)
