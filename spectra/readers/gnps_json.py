"""Read GNPS json: library dumps, what matchms and mzmine write in that form, and files of one object per line."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import lru_cache, partial
from typing import Any

from .blocks import Parsed, RecordFormat
from .field_names import ID_KEYS, field_of, native_id_of, normal_key, with_unit
from .json_records import (
    array_is_closed,
    begins_as_array,
    load_record,
    looks_like_records,
    peaks_from_pairs,
    record_starts,
    text_of,
)
from .text import BadPeakLineError, is_wanted, ms_level

_PEAKS_KEY = re.compile(rb'"peaks(?:_json"\s*:|"\s*:\s*\[\s*[\[\]])')  # 'peaks' is mzmine's
_PLACEHOLDERS = frozenset({"", "n/a", "na", "null", "none", "nan"})
_INCHIKEY = re.compile(r"[A-Z]{14}-[A-Z]{8,10}(?:-[A-Z])?", re.IGNORECASE)
_POLARITY = re.compile(r"(positive|negative)\b", re.IGNORECASE)
_PROVENANCE_KEYS = ("librarymembership", "instrument", "ionsource", "compoundsource")
_PREDICTED = re.compile(r"in[-_ ]?silico|predicted|simulated", re.IGNORECASE)

# GNPS has no field for the collision energy, but two libraries write it at the end of the compound's name, one as a
# number with its unit, the other as three steps of two digits each. Nothing else in a name is taken for an energy.
_ENERGY_AFTER_NAME = re.compile(r"\s+-\s+(\d{1,3}(?:\.\d+)?)\s*eV\s*$", re.IGNORECASE)
_STEPS_AFTER_NAME = re.compile(r"[\s,;:_|-]*\bCollision_?Energy:\s*(\d\d)(\d\d)(\d\d)\s*$", re.IGNORECASE)


def _parse_record(data: bytes, in_array: bool, ms_levels: Container[int], is_last: bool) -> Parsed:
    entry, problem, repairs = load_record(data, in_array=in_array, is_last=is_last)
    if entry is None:
        return Parsed("", {}, problem=problem, repairs=repairs)
    native_id, fields = _interpret(entry)
    if not is_wanted(fields, ms_levels):
        return Parsed(native_id, fields, repairs=repairs)
    try:
        mz, intensity, more = peaks_from_pairs(entry.get("peaks_json", entry.get("peaks")) or [])
    except BadPeakLineError:
        return Parsed(native_id, fields, problem="bad-peak-line", repairs=repairs)
    if not len(mz):
        return Parsed(native_id, fields, problem="no-peaks", repairs=repairs)
    return Parsed(native_id, fields, mz, intensity, None, repairs + more)


def _interpret(entry: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the native id and the fields."""
    ids: dict[str, str] = {}
    fields: dict[str, str] = {}
    is_predicted = False
    for key, value in entry.items():
        role = _role(key)
        if role is None:
            continue
        text = text_of(value)
        if text.lower() in _PLACEHOLDERS:
            continue
        name, normal, may_say_predicted = role
        if name is not None and (name != "inchikey" or _INCHIKEY.fullmatch(text)):  # INCHI_AUX holds other things too
            fields.setdefault(name, with_unit(key, text))
        if normal is not None:
            ids.setdefault(normal, text)
        is_predicted = is_predicted or (may_say_predicted and _PREDICTED.search(text) is not None)
    if fields.get("charge") == "0":  # GNPS's 'not given'
        del fields["charge"]
    if "ms_level" in fields:
        fields["ms_level"] = ms_level(fields["ms_level"])
    if polarity := _POLARITY.match(fields.get("polarity", "")):  # 'positive-QE'
        fields["polarity"] = polarity[1]
    if is_predicted:
        fields.setdefault("predicted", "true")
    _take_energy_from_name(fields)
    return native_id_of(ids), fields


@lru_cache(maxsize=4096)
def _role(key: str) -> tuple[str | None, str | None, bool] | None:
    """Return the field that a key gives, its normal form where it gives an id, and whether it may say 'in silico'.

    None where it is of no use: of some forty keys of a record a dozen are.
    """
    name, normal = field_of(key), normal_key(key)
    role = name, normal if normal in ID_KEYS else None, normal in _PROVENANCE_KEYS
    return role if any(role) else None


def _take_energy_from_name(fields: dict[str, str]) -> None:
    name = fields.get("name", "")
    if "collision_energy" in fields:
        return
    if stated := _ENERGY_AFTER_NAME.search(name):
        fields["collision_energy"] = f"{stated[1]} eV"
    elif (stated := _STEPS_AFTER_NAME.search(name)) and int(stated[1]) < int(stated[2]) < int(stated[3]):
        fields["collision_energy"] = f"{stated[1]},{stated[2]},{stated[3]} (stepped)"
    else:
        return
    fields["name"] = name[: stated.start()]


GNPS_JSON = RecordFormat(
    name="GNPS json",
    extensions=(),  # a file named .json may be anything
    looks_like=partial(looks_like_records, mark=_PEAKS_KEY),
    starts=partial(record_starts, mark=_PEAKS_KEY),
    parse_header=begins_as_array,
    parse_record=_parse_record,
    is_whole=array_is_closed,
)
