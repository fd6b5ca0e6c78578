"""Rows of a library as Milvus keeps them: fields, values, and the expressions that choose among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..spectra.molecules import atom_counts
from ..spectra.preparation.parts import license_key
from ..spectra.store import SCHEMA
from .filters import Filters, letters, runs_of_parts
from .nearest import WINDOW_SLACK

ID: Final = "spectrum_id"
LONGEST_ID: Final = 1024
LONGEST_TEXT: Final = 65_535  # bytes, of Milvus
MOST_PEAKS: Final = 4096  # of an array of Milvus
MOST_PARTS: Final = 256
LONGEST_PART: Final = 256
UNKNOWN_POLARITY: Final = 0
"""Milvus takes a comparison with null for false, and a spectrum of unknown polarity goes with either."""

KEYS: Final = ("formula_key", "license_key", "instrument_parts")
"""What filters compare: a formula by its atoms, a licence without spelling, an instrument type by its parts."""

PEAKS: Final = ("mz", "intensity")
LISTS: Final = ("repairs", "flags")


_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def vector_field(model_hash: str) -> str:
    """Return the name of the field of the vectors: it tells the model, so that no other one's are ever compared."""
    return f"vector_{model_hash[:16]}"


def entities(rows: pa.Table, vectors: np.ndarray, field: str) -> list[dict[str, Any]]:
    """Return rows as Milvus takes them.

    Raises
    ------
    InputError
        An id or a text is longer than Milvus keeps, or a spectrum has more peaks.
    """
    found = rows.select(SCHEMA.names).to_pylist()
    for entity, vector in zip(found, vectors, strict=True):
        _refuse_too_large(entity)
        entity["polarity"] = entity["polarity"] or UNKNOWN_POLARITY
        entity["formula_key"] = formula_key(entity["formula"])
        entity["license_key"] = license_key(entity["license"]) or None
        entity["instrument_parts"] = _parts(entity["instrument_type"])
        entity[field] = vector
    return found


def table_of(found: Sequence[Mapping[str, Any]], names: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
    """Return columns of entities of Milvus as they were added."""
    columns = {name: [entity.get(name) for entity in found] for name in names}
    if "polarity" in columns:
        columns["polarity"] = [value or None for value in columns["polarity"]]
    fields = [SCHEMA.field(name) for name in names]
    return pa.table([pa.array(columns[field.name], field.type) for field in fields], schema=pa.schema(fields))


def formula_key(formula: str | None) -> str | None:
    """Return what two formulas of the same atoms share: C6H12O6, O6C6H12 -> C6H12O6; None of none."""
    if formula is None:
        return None
    return "".join(f"{symbol}{count}" for symbol, count in sorted(atom_counts(formula).items()))


def window(precursor_mz: float, ppm: float | None, da: float | None) -> str:
    """Return the expression of a precursor window, as `ionbed.embeddings.windows.windows_in` cuts it; '' of none."""
    if da is not None:
        tolerance = da + WINDOW_SLACK * precursor_mz
        low, high = precursor_mz - tolerance, precursor_mz + tolerance
    elif ppm is not None:
        share = ppm * 1e-6 + WINDOW_SLACK
        low, high = precursor_mz / (1 + share), precursor_mz / (1 - share)
    else:
        return ""
    return f"precursor_mz >= {float(low)!r} and precursor_mz <= {float(high)!r}"


def of_polarity(polarity: int) -> str:
    """Return the expression of what a query of a polarity (+1, -1, 0 unknown) may hit."""
    return f"polarity != {-int(polarity)}" if polarity else ""


def of_filters(filters: Filters | None) -> str:
    """Return the expression of filters; what Milvus is given of a user's text is always a quoted string."""
    if not filters:
        return ""
    parts = []
    if filters.polarity is not None:
        parts.append(f"polarity == {int(filters.polarity)}")
    for name, values in (
        ("adduct", filters.adducts),
        ("formula_key", [formula_key(formula) or "" for formula in filters.formulas]),
        ("license_key", [license_key(text) for text in filters.licenses]),
    ):
        if values:
            parts.append(f"{name} in {texts(values)}")
    if filters.instrument_types:
        parts.append(f"array_contains_any(instrument_parts, {texts(map(letters, filters.instrument_types))})")
    if filters.energy is not None:
        low, high = (float(np.float32(value)) for value in filters.energy)  # as which Milvus keeps them
        parts.append(f"collision_energy >= {low!r} and collision_energy <= {high!r}")
    return both(*parts)


def of_ids(ids: Iterable[str]) -> str:
    """Return the expression of some spectra."""
    return f"{ID} in {texts(ids)}"


def both(*expressions: str) -> str:
    """Return the expression of what agrees with all; '' where all are."""
    return " and ".join(f"({expression})" for expression in expressions if expression)


def texts(values: Iterable[str]) -> str:
    """Return a list of quoted strings, in which nothing ends the string: quotes and backslashes are escaped."""
    return "[" + ", ".join(quoted(value) for value in values) + "]"


def quoted(text: str) -> str:
    """Return a string literal of Milvus' expressions, whose escapes are those of C."""
    return f'"{text.translate(_ESCAPES)}"'


def _parts(instrument_type: str | None) -> list[str]:
    """Return what an instrument type is part for part: nobody asks for a run of parts as long as a sentence."""
    found = sorted(runs_of_parts(instrument_type or ""), key=lambda part: (len(part), part))
    return sorted(part for part in found[:MOST_PARTS] if len(part) <= LONGEST_PART)


def _refuse_too_large(entity: Mapping[str, Any]) -> None:
    name = entity[ID]
    if len(name.encode()) > LONGEST_ID:
        raise InputError(f"spectrum {name[:60]}...: its id has more than {LONGEST_ID} bytes; give it a shorter one")
    if len(entity["mz"]) > MOST_PEAKS:
        raise InputError(
            f"spectrum {name}: has {len(entity['mz']):,} peaks, Milvus keeps {MOST_PEAKS:,}; prepare with fewer"
        )
    for key, value in entity.items():
        if isinstance(value, str) and len(value.encode()) > LONGEST_TEXT:
            raise InputError(f"spectrum {name}: its {key} has more than {LONGEST_TEXT:,} bytes; shorten it")
