"""Answers as they are sent: JSON, or a file of one of the formats that 'ionbed search' writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from ..hit_table import SearchSummary
from .exporting import FILE_NAMES, MEDIA_TYPES, exported
from .models import ErrorModel, Format
from .searching import Answer, SearchOptions, as_json
from .state import Service

_RETRY_HEADER = {"Retry-After": {"description": "In s.", "schema": {"type": "integer"}}}
_WHY = {
    400: "The request is no HTTP or no form that can be read.",
    401: "The API key is missing or wrong.",
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


def summary_of(answers: Sequence[Answer]) -> SearchSummary:
    """Count what became of the queries."""
    summary = SearchSummary()
    for answer in answers:
        for row in answer.rows:
            summary.count(row)
    return summary


async def answer_response(
    service: Service, answers: Sequence[Answer], options: SearchOptions, format: Format, seconds: float
) -> Response:
    """Return the hits in a format; written in a thread, as there may be many."""
    if format != "json":
        content = await to_thread.run_sync(exported, answers, format, service, options)
        headers = {"Content-Disposition": f'attachment; filename="{FILE_NAMES[format]}"'}
        return Response(content, headers=headers, media_type=MEDIA_TYPES[format])

    def write() -> bytes:
        summary = summary_of(answers)
        told = {
            "index": service.index_model().model_dump(),
            "queries": [as_json(answer) for answer in answers],
            "summary": {
                "queries": summary.queries,
                "with_hits": summary.with_hits,
                "without_hits": dict(summary.without_hits),
                "seconds": round(seconds, 4),
            },
        }
        return json.dumps(told, allow_nan=False, separators=(",", ":")).encode("ascii")

    return Response(await to_thread.run_sync(write), media_type="application/json")
