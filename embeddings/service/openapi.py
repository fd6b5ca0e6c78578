"""The OpenAPI document of the service, in version 3.0: what Swagger UI of the installed package can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

VERSION = "3.0.3"
_SECURITY = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def operation_id(route: APIRoute) -> str:
    """Return what a client generator calls a route."""
    return route.name


def document(app: FastAPI, *, needs_key: bool) -> dict[str, Any]:
    """Return the document of all routes of ``app``.

    Parameters
    ----------
    app : FastAPI
    needs_key : bool
        Whether requests must carry an API key.

    See Also
    --------
    https://spec.openapis.org/oas/v3.0.3 : the specification; FastAPI itself writes 3.1, whose schemas are JSON Schema.
    """
    written = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version=VERSION
    )
    written["servers"] = [{"url": "."}]  # relative to this document: behind a proxy, too, under a path of its own
    told: dict[str, Any] = _in_3_0(written)
    schemas = told["components"]["schemas"]
    for name, schema in schemas.items():
        if name.startswith("Body_"):
            schema["additionalProperties"] = False  # an unknown field of a form is refused
    for operations in told["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status[0] in "45":  # of a route that answers with a picture, too
                    answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorModel"}}}
    if needs_key:
        told["components"]["securitySchemes"] = _SECURITY
        for path, operations in told["paths"].items():
            if path.startswith("/health"):
                continue
            for operation in operations.values():
                operation["security"] = [{name: []} for name in _SECURITY]
    return told


def _in_3_0(node: Any) -> Any:
    """Return a part of the document with JSON Schema's newer words in those of OpenAPI 3.0."""
    if isinstance(node, list):
        return [_in_3_0(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    new = {key: _in_3_0(value) for key, value in node.items()}
    for bound in ("Minimum", "Maximum"):
        limit = new.get(f"exclusive{bound}")
        if isinstance(limit, (int, float)) and not isinstance(limit, bool):
            new[bound.lower()], new[f"exclusive{bound}"] = limit, True
    if "const" in new:
        new["enum"] = [new.pop("const")]
    if new.get("contentMediaType") == "application/octet-stream":
        del new["contentMediaType"]
        new["format"] = "binary"
    choices = new.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        others = [choice for choice in choices if choice != {"type": "null"}]
        del new["anyOf"]
        if len(others) > 1:
            new["anyOf"] = others
        elif "$ref" in others[0]:  # nothing may stand beside a reference
            new["allOf"] = others
        else:
            new = {**others[0], **new}
        new["nullable"] = True
    return new
