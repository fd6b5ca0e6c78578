"""Hits in the formats of 'ionbed search', as bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import search as spectrum_search
from .. import structure_search
from ..hit_table import write_rows
from ..structure_index import StructureIndex
from .failures import RequestError
from .models import Format
from .searching import Answer

if TYPE_CHECKING:
    from .state import Service

MEDIA_TYPES = {
    "tsv": "text/tab-separated-values",
    "gnps": "text/tab-separated-values",
    "mztab": "text/tab-separated-values",
    "jsonl": "application/x-ndjson",
}


def exported(answers: Sequence[Answer], format: Format, service: Service) -> bytes:
    """Return the file that 'ionbed search' would write of these answers."""
    module = structure_search if isinstance(service.index, StructureIndex) else spectrum_search
    if format != "tsv":
        raise RequestError(422, f"format: {format} is not written yet; ask for tsv or json")
    text = io.StringIO()
    write_rows((row for answer in answers for row in answer.rows), text, module.COLUMNS, module.NUMBER_FORMATS)
    return text.getvalue().encode()
