"""One way to write the hits of a search, in any of the formats, to a file or to a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TextIO, get_args

from ...artifacts import atomic_file
from ...errors import InputError
from ..hit_table import SearchSummary
from .annotated_spectra import write_annotated_mgf, write_annotated_msp
from .gnps import write_gnps
from .jsonl import write_jsonl
from .mztab import write_mztab
from .search_run import Results, SearchRun
from .table import write_table

Format = Literal["tsv", "gnps", "mztab", "jsonl", "mgf", "msp"]

MEDIA_TYPES: dict[Format, str] = {
    "tsv": "text/tab-separated-values",
    "gnps": "text/tab-separated-values",
    "mztab": "text/tab-separated-values",
    "jsonl": "application/x-ndjson",
    "mgf": "text/plain",
    "msp": "text/plain",
}
SUFFIXES: dict[Format, str] = {
    "tsv": ".tsv",
    "gnps": ".tsv",
    "mztab": ".mztab",
    "jsonl": ".jsonl",
    "mgf": ".mgf",
    "msp": ".msp",
}
"""What the name of a file of each format ends in."""

_OF_SUFFIX: dict[str, Format] = {
    "": "tsv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "tsv",
    ".mztab": "mztab",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".mgf": "mgf",
    ".msp": "msp",
}
_WRITERS: dict[Format, Callable[[Iterable[Results], TextIO, SearchRun], SearchSummary]] = {
    "tsv": write_table,
    "gnps": write_gnps,
    "mztab": write_mztab,
    "jsonl": write_jsonl,
    "mgf": write_annotated_mgf,
    "msp": write_annotated_msp,
}


def format_of(out: str | os.PathLike[str], stated: Format | None = None) -> Format:
    """Return the format of a file: the stated one, or what its suffix says.

    Raises
    ------
    InputError
        The suffix says none.
    """
    if stated is not None:
        return stated
    suffix = Path(out).suffix.lower()
    if suffix not in _OF_SUFFIX:
        raise InputError(
            f"{out}: '{suffix}' says nothing of the format; state it (--format {'|'.join(get_args(Format))}), "
            "or name a file .tsv, .mztab, .jsonl, .mgf or .msp"
        )
    return _OF_SUFFIX[suffix]


def write(results: Iterable[Results], out: str | os.PathLike[str], format: Format, run: SearchRun) -> SearchSummary:
    """Write the hits to a file, whole or not at all; see `write_stream`."""
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="") as handle:
        return write_stream(results, handle, format, run)


def write_stream(results: Iterable[Results], stream: TextIO, format: Format, run: SearchRun) -> SearchSummary:
    """Write the hits to a stream of text, as they come, and count the queries.

    Parameters
    ----------
    results : iterable of QueryResult
        As `ionbed.embeddings.search.find_results` and `ionbed.embeddings.structure_search.find_results` yield them.
    stream : text stream
        Of UTF-8, which leaves line ends as they are.
    format : str
    run : SearchRun
        What was searched with what; see `SearchRun.of`.
    """
    return _WRITERS[format](results, stream, run)
