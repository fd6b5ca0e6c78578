"""Hits as JSON lines: one object for each query, its hits within it, in the form of ``hits.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, TextIO

from ..hit_table import SearchSummary
from .cells import rounded
from .search_run import PLACES, Results, SearchRun, confidence_level, field, hits_of, note_of

HIT_FIELDS = (
    "rank", "score", "probability", "precursor_error_ppm", "mass_difference", "difference_formula", "matched_peaks",
    "name", "formula", "smiles", "inchikey", "library_id", "adduct", "collision_energy", "instrument_type", "license",
    "predicted", "confidence",
)  # fmt: skip
"""Fields of a hit, in order; null where unknown or where the kind of index has none."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one line."""
    text = files(__package__).joinpath("hits.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def write_jsonl(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write one line for each query, hit or not."""
    summary = SearchSummary()
    for result in results:
        summary.count_query(result.rows)
        stream.write(json.dumps(query_object(result, run), ensure_ascii=False, allow_nan=False) + "\n")
    return summary


def query_object(result: Results, run: SearchRun) -> dict[str, Any]:
    """Return one line as an object that JSON can hold."""
    query = result.spectrum
    warnings = field(result.rows[0], "warnings") if result.rows else None
    told: dict[str, Any] = {"query_id": _clean(result.query_id) or "", "precursor_mz": None, "charge": None}
    told |= dict.fromkeys(("polarity", "adduct", "collision_energy", "retention_time", "source_file", "num_peaks"))
    if query is not None:
        told |= {
            "precursor_mz": rounded(query.precursor_mz, 6),
            "charge": query.charge,
            "polarity": query.polarity,
            "adduct": _clean(query.adduct),
            "collision_energy": rounded(query.collision_energy, 4),
            "retention_time": rounded(query.retention_time, 3),
            "source_file": _clean(query.source_file),
            "num_peaks": len(query),
        }
    return {
        **told,
        "score_name": run.score,
        "note": _clean(note_of(result)),
        "warnings": _clean(warnings),
        "hits": [_hit_object(hit) for hit in hits_of(result)],
    }


def _hit_object(hit: Any) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in HIT_FIELDS:
        value = field(hit, name)
        told[name] = rounded(value, PLACES[name]) if name in PLACES else _clean(value)
    told["confidence_level"] = confidence_level(hit)
    return told


def _clean(value: Any) -> Any:
    """Return text that UTF-8 can hold, and null for none; anything else as it is."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8") or None
    return value
