"""Answers as they are sent: JSON, or a file of one of the formats that 'ionbed search' writes."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from anyio import to_thread
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from ..hit_table import SearchSummary
from ..search_options import SearchOptions
from .exporting import FILE_NAMES, MEDIA_TYPES, write_exported
from .index_state import IndexState
from .models import ErrorModel, Format
from .searching import Answer, as_json

_WRITTEN_AT_ONCE = 100
"""Lines of hits: a millisecond's work, less than the change to a thread may take while the model is at work."""
_PEAKS_OF_A_LINE = 16
"""Of a query, that take as long to write as a line."""
_RETRY_HEADER = {"Retry-After": {"description": "In s.", "schema": {"type": "integer"}}}
_WHY = {
    400: "The request is no HTTP or no form that can be read.",
    401: "The API key is missing or wrong.",
    403: "Another site sent the request, or it names a host that is none of the service.",
    404: "There is nothing at this address.",
    405: "The address does not take this method.",
    408: "The request did not arrive in time.",
    413: "The request is larger than is taken.",
    422: "The request cannot be understood, or holds nothing that can be searched.",
    429: "More is asked at one time than is taken.",
    503: "The service cannot answer now.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorModel, "description": why, **({"headers": _RETRY_HEADER} if status in (429, 503) else {})}
    for status, why in _WHY.items()
}
"""What every route may answer besides what it is asked for."""

FORMAT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The hits, in the format that was asked for.",
        "content": {media: {"schema": {"type": "string"}} for media in sorted(set(MEDIA_TYPES.values()))},
    }
}


@dataclass(frozen=True)
class Page:
    """Which part of the answers of a job is sent.

    Attributes
    ----------
    offset, total : int
        See `ionbed.embeddings.service.models.PageModel`.
    summary : SearchSummary
        Of all answers.
    """

    offset: int
    total: int
    summary: SearchSummary


def write_json(
    answers: Iterable[Answer], stream: TextIO, state: IndexState, seconds: float, page: Page | None = None
) -> None:
    """Write a `SearchAnswer`, one query after the other."""
    summary = SearchSummary()
    stream.write('{"index":' + _compact(state.model.model_dump()) + ',"queries":[')
    for number, answer in enumerate(answers):
        summary.count_query(answer.rows)
        stream.write(("," if number else "") + _compact(as_json(answer)))
    summary = page.summary if page else summary
    told = {
        "queries": summary.queries,
        "with_hits": summary.with_hits,
        "without_hits": dict(summary.without_hits),
        "seconds": round(seconds, 4),
    }
    stream.write('],"summary":' + _compact(told))
    stream.write((',"page":' + _compact({"offset": page.offset, "total": page.total}) if page else "") + "}")


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _write(
    answers: Iterable[Answer],
    stream: TextIO,
    state: IndexState,
    options: SearchOptions,
    format: Format,
    seconds: float,
    page: Page | None = None,
) -> None:
    if format == "json":
        write_json(answers, stream, state, seconds, page)
    else:
        write_exported(answers, stream, format, state, options)


def _headers(format: Format) -> tuple[str, dict[str, str]]:
    """Return the media type, and the headers that let a browser save a file."""
    if format == "json":
        return "application/json", {}
    return MEDIA_TYPES[format], {"Content-Disposition": f'attachment; filename="{FILE_NAMES[format]}"'}


async def answer_response(
    state: IndexState, answers: Sequence[Answer], options: SearchOptions, format: Format, seconds: float
) -> Response:
    """Return hits that are in memory; where there are many, they are written in a thread."""
    text = io.StringIO()
    num_peaks = sum(len(answer.spectrum) for answer in answers if answer.spectrum is not None)
    num_lines = sum(len(answer.rows) for answer in answers) + num_peaks // _PEAKS_OF_A_LINE
    if num_lines <= _WRITTEN_AT_ONCE and format == "json":
        write_json(answers, text, state, seconds)
    else:
        await to_thread.run_sync(_write, answers, text, state, options, format, seconds)
    media_type, headers = _headers(format)
    return Response(text.getvalue().encode("utf-8", "replace"), headers=headers, media_type=media_type)


async def file_response(
    state: IndexState,
    answers: Iterable[Answer],
    options: SearchOptions,
    format: Format,
    seconds: float,
    folder: Path,
    page: Page | None = None,
) -> Response:
    """Return hits that are read as they are written, to a file in ``folder`` that is removed when it was sent."""
    handle, name = tempfile.mkstemp(dir=folder)

    def write() -> None:
        with open(handle, "w", encoding="utf-8", errors="replace", newline="") as stream:
            _write(answers, stream, state, options, format, seconds, page)

    try:
        await to_thread.run_sync(write)
    except BaseException:
        os.unlink(name)
        raise
    media_type, headers = _headers(format)
    return FileResponse(name, headers=headers, media_type=media_type, background=BackgroundTask(os.unlink, name))
