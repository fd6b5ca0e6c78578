"""Hits in the formats that 'ionbed search' writes, for who sent the queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from ..exports.formats import MEDIA_TYPES, SUFFIXES, Format, write_stream
from ..exports.search_run import SearchRun
from ..search_options import SearchOptions
from .searching import Answer

if TYPE_CHECKING:
    from .index_state import IndexState

FILE_NAMES: dict[Format, str] = {
    name: f"hits.{name}{suffix}" if name == "gnps" else f"hits{suffix}" for name, suffix in SUFFIXES.items()
}
"""What a browser calls the file that it saves."""

__all__ = ["FILE_NAMES", "MEDIA_TYPES", "Format", "write_exported"]


def write_exported(
    answers: Iterable[Answer], stream: TextIO, format: Format, state: IndexState, options: SearchOptions
) -> None:
    """Write what 'ionbed search' would write of these answers; it names no place of this machine."""
    run = SearchRun.of(state.index, None, options, private=True)
    write_stream(answers, stream, format, run)
