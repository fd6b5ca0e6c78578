"""Hits as ionbed's own table: tab-separated, one line for each query and hit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TextIO

from .. import search, structure_search
from ..hit_table import SearchSummary, write_rows
from .search_run import Results, SearchRun


def write_table(results: Iterable[Results], stream: TextIO, run: SearchRun) -> SearchSummary:
    """Write the columns of `ionbed.embeddings.search` or, for structures, of `ionbed.embeddings.structure_search`."""
    columns = structure_search if run.kind == "structures" else search
    rows = itertools.chain.from_iterable(result.rows for result in results)
    return write_rows(rows, stream, columns.COLUMNS, columns.NUMBER_FORMATS)
