"""Routes that are asked often: their JSON is read straight into the model of the request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from .failures import RequestError
from .models import Format

_FORMAT = TypeAdapter[Format](Format)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonRoute(APIRoute):
    """A route of a function ``(service, request, format)``, of which ``request`` is a model of the body.

    It is documented and refuses what FastAPI's own routes do. Those parse a body into Python objects, these into the
    model, and resolve the three parameters anew for each request, which takes longer than all else that a search by a
    peak list does beside the model.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        endpoint = self.endpoint
        model: type[BaseModel] = get_type_hints(endpoint)["request"]

        async def handle(request: Request) -> Response:
            try:
                content = await request.body()
            except ClientDisconnect:
                raise RequestError(400, "the request ended before its body did") from None
            _refuse_other_content(request, content)
            try:
                asked = model.model_validate_json(content.removeprefix(_BYTE_ORDER_MARK))
            except ValidationError as error:
                raise _refused("body", error) from None
            try:
                format = _FORMAT.validate_python(request.query_params.get("format", "json"))
            except ValidationError as error:
                raise _refused("query", error, "format") from None
            response: Response = await endpoint(request.app.state.service, asked, format)
            return response

        return handle


def _refuse_other_content(request: Request, content: bytes) -> None:
    """Raise `RequestValidationError` if the body does not say that it is JSON: a form of another site never does."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and not (kind.startswith("application/") and (kind[12:] == "json" or kind.endswith("+json"))):
        told = "give it as JSON, with the header Content-Type: application/json"
        raise RequestValidationError([{"type": "content_type", "loc": ("body",), "msg": told}])
    if not content:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "Field required"}])


def _refused(where: str, error: ValidationError, *name: str) -> RequestValidationError:
    told = error.errors(include_url=False, include_input=False)
    return RequestValidationError([{**one, "loc": (where, *name, *one["loc"])} for one in told])
