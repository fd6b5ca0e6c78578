"""Hits in the formats that 'ionbed search' writes, as bytes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..exports.formats import MEDIA_TYPES, SUFFIXES, Format, write_stream
from ..exports.search_run import SearchRun
from .index_facts import default_score
from .searching import Answer, SearchOptions

if TYPE_CHECKING:
    from .state import Service

FILE_NAMES: dict[Format, str] = {
    name: f"hits.{name}{suffix}" if name == "gnps" else f"hits{suffix}" for name, suffix in SUFFIXES.items()
}
"""What a browser calls the file that it saves."""

__all__ = ["FILE_NAMES", "MEDIA_TYPES", "Format", "exported"]


def exported(answers: Sequence[Answer], format: Format, service: Service, options: SearchOptions) -> bytes:
    """Return the file that 'ionbed search' would write of these answers; it names no place of this machine."""
    stated: dict[str, Any] = dataclasses.asdict(options)
    stated["score"] = options.score or default_score(service.index)
    if options.filters is not None:
        stated["filters"] = str(options.filters)
    run = SearchRun.of(service.index, None, stated, private=True)
    text = io.StringIO()
    write_stream(answers, text, format, run)
    return text.getvalue().encode("utf-8", "replace")
