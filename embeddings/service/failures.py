"""What a request can fail with: one line of JSON, whatever went wrong, and the status that says whose fault it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...errors import InputError
from ..segments.damage import DamagedError

logger = logging.getLogger("ionbed")

_LONGEST_NAME = 50
"""Letters of a key that a client made up, as they are repeated."""
_WORDS = {404: "there is nothing at this address", 405: "this address does not take this method"}


class RequestError(HTTPException):
    """A request that is not answered.

    Parameters
    ----------
    status : int
        413, 422, 429 or 503, mostly.
    message : str
        One line: what, where, how to mend.
    retry_after : int or None
        In s, where it may be tried again.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, headers)


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``{"error": message}``; ASCII only, so that any text of a client can stand in it."""
    content = json.dumps({"error": " ".join(message.split())}).encode("ascii")
    return Response(content, status, headers=dict(headers or {}), media_type="application/json")


def add_handlers(app: FastAPI) -> None:
    """Make errors of requests an `error_response`; those of the program are the `Gate`'s, which logs them."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(InputError, _of_input)


def validation_message(errors: Any) -> str:
    """Return the first of pydantic's errors in a line that names the field, and how many others there are."""
    first, num_others = errors[0], len(errors) - 1
    where = ".".join(
        str(part)[:_LONGEST_NAME] for part in first["loc"] if part not in ("body", "query", "path", "form")
    )
    if first["type"] == "missing" and not where:
        return "the request has no body; give it as JSON"
    others = f" (and {num_others} more)" if num_others else ""
    message = str(first["msg"]).replace("Value error, ", "")
    reason = (first.get("ctx") or {}).get("error") if first["type"] == "json_invalid" else None
    if reason is not None:
        return f"the body is no JSON: {reason}" + (f" at character {where}" if where else "")
    return f"{where}: {message}{others}" if where else f"{message}{others}"


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if not isinstance(error, RequestError):  # the framework's own
        message = _WORDS.get(error.status_code, message)
    return error_response(error.status_code, message, error.headers)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(422, validation_message(error.errors()))


def of_damage(error: DamagedError) -> RequestError:
    """Return what a client is told of a damaged index, whose path and mend are for who runs the service: logged."""
    logger.error("%s", error)
    return RequestError(500, "the index is damaged; the log of the service says where")


async def _of_input(request: Request, error: Exception) -> Response:
    if isinstance(error, DamagedError):
        refusal = of_damage(error)
        return error_response(refusal.status_code, str(refusal.detail))
    folder = request.app.state.service.now.index.folder
    # An index calls itself by its path, which says nothing to a client that it should know.
    return error_response(422, str(error) if folder is None else str(error).replace(str(folder), "the index"))
