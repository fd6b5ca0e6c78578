"""Hits in the formats that 'ionbed search' writes, for who sent the queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

from ..exports.formats import MEDIA_TYPES, SUFFIXES, Format, write_stream
from ..exports.search_run import SearchRun
from .searching import Answer, SearchOptions

if TYPE_CHECKING:
    from .state import Service

FILE_NAMES: dict[Format, str] = {
    name: f"hits.{name}{suffix}" if name == "gnps" else f"hits{suffix}" for name, suffix in SUFFIXES.items()
}
"""What a browser calls the file that it saves."""

__all__ = ["FILE_NAMES", "MEDIA_TYPES", "Format", "write_exported"]


def write_exported(
    answers: Iterable[Answer], stream: TextIO, format: Format, service: Service, options: SearchOptions
) -> None:
    """Write what 'ionbed search' would write of these answers; it names no place of this machine."""
    stated: dict[str, Any] = dataclasses.asdict(options)
    if options.filters is not None:
        stated["filters"] = str(options.filters)
    run = SearchRun.of(service.index, None, stated, private=True)
    write_stream(answers, stream, format, run)
