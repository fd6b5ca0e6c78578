"""Around every request: who may ask, how much and for how long; what is counted, logged and forbidden to browsers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import sys
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .callers import refusal
from .failures import RequestError, error_response
from .state import Service

logger = logging.getLogger("ionbed.access")

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_OPEN = ("/", "/docs", "/openapi.json", "/health/live", "/health/ready")
_OPEN_FOLDERS = ("/page/", "/docs/")
_UPLOADS = ("/api/search", "/api/jobs")
_THROWN_AWAY, _SECONDS_THROWN_AWAY = 4, 3.0
"""Of a request that is too large: as many times what is taken is still read, for at most so long."""
_FORM_BYTES = 1 << 16
"""What a form has besides its file."""


class Gate:
    """ASGI middleware that stands before every route.

    Parameters
    ----------
    app : ASGI application
    service : Service
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._num_requests = self._num_uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500
        is_begun = False

        limits = self._service.limits
        most = limits.upload_bytes + _FORM_BYTES if _is_upload(scope) else limits.json_bytes
        counted = _Counted(receive, scope, most, started + limits.seconds)

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                is_begun, status = True, message["status"]
                headers = _with_security([*message.get("headers", [])])
                if not counted.is_whole and _has_body(scope):
                    headers.append((b"connection", b"close"))  # what is left of the body is never read
                message = {**message, "headers": headers}
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _answer(refusal, scope, receive, send_with_headers)
                return
            await self._let_through(scope, counted, send_with_headers)
        except Exception:
            logger.exception("a request failed")
            if not is_begun:
                await error_response(500, "the service failed; its log says why")(scope, receive, send_with_headers)
        finally:
            seconds = time.monotonic() - started
            route = _route_of(scope)
            self._service.metrics.request(_method_of(scope), route, status, seconds)
            # Neither the query string nor an id of a job: a log is no place for what people search.
            logger.info("%s %s %d %.0f ms", _method_of(scope), route, status, 1000 * seconds)

    def _refusal(self, scope: Scope) -> RequestError | None:
        path, settings = scope["path"], self._service.settings
        # Browsers send a form of another site without asking whether they may, and its jobs would take all places.
        foreign = refusal(scope["headers"], settings.allowed_hosts, changes=scope["method"] not in ("GET", "HEAD"))
        if foreign is not None:
            return RequestError(403, foreign)
        key = settings.api_key
        if key is not None and path not in _OPEN and not path.startswith(_OPEN_FOLDERS) and not _has_key(scope, key):
            return RequestError(401, "an API key is needed, in the header X-API-Key or as a Bearer token")
        if not path.startswith("/api/"):
            return None
        if not self._service.is_ready:
            return RequestError(503, "the service is starting or ending", retry_after=5)
        if self._num_requests >= self._service.limits.requests:
            return RequestError(429, f"{self._num_requests} requests are worked on already; try again", retry_after=1)
        if _is_upload(scope) and self._num_uploads >= self._service.limits.uploads:
            return RequestError(429, f"{self._num_uploads} files are worked on already; try again", retry_after=2)
        return None

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_counted = scope["path"].startswith("/api/")
        is_upload = _is_upload(scope)
        self._num_requests += is_counted
        self._num_uploads += is_upload
        self._service.metrics.running.set(self._num_requests)
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_requests -= is_counted
            self._num_uploads -= is_upload
            self._service.metrics.running.set(self._num_requests)


class _Counted:
    """What a route receives: refused beyond so many bytes, whatever the header promised, or if it takes too long.

    Attributes
    ----------
    is_whole : bool
        Whether all of the body has come.
    """

    def __init__(self, receive: Receive, scope: Scope, most: int, deadline: float) -> None:
        self._receive, self._most, self._deadline = receive, most, deadline
        self._num_bytes, self.is_whole = 0, False
        stated = dict(scope["headers"]).get(b"content-length", b"")
        self._stated = min(int(stated), sys.maxsize) if stated.isdigit() and len(stated) < 30 else sys.maxsize
        self._is_too_large = bool(stated) and self._stated > most

    async def __call__(self) -> Message:
        if self.is_whole:  # the wait for the client to hang up has no end of its own
            return await self._receive()
        if not self._is_too_large:
            message = await self._next()
            if self._num_bytes <= self._most:
                return message
            self._is_too_large = True
        await self._throw_away()
        raise RequestError(413, f"the request is larger than the {self._most:,} bytes that are taken")

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(max(self._deadline - time.monotonic(), 0.0)):
                message = await self._receive()
        except TimeoutError:
            raise RequestError(408, "the request did not arrive in time") from None
        self._num_bytes += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        return message

    async def _throw_away(self) -> None:
        """Read on for a while: most clients look for an answer only when they have sent all."""
        if self._stated > _THROWN_AWAY * self._most and self._stated < sys.maxsize:
            return
        self._deadline = min(self._deadline, time.monotonic() + _SECONDS_THROWN_AWAY)
        with contextlib.suppress(RequestError):
            while not self.is_whole and self._num_bytes < _THROWN_AWAY * self._most:
                await self._next()


async def _answer(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    headers = dict(error.headers or {})
    if error.status_code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    await error_response(error.status_code, str(error.detail), headers)(scope, receive, send)


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"] in _UPLOADS


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _has_key(scope: Scope, key: str) -> bool:
    headers = dict(scope["headers"])
    given = headers.get(b"x-api-key")
    if given is None:
        kind, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if kind.lower() == b"bearer" else b""
    return hmac.compare_digest(given, key.encode("ascii"))


def _with_security(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in headers}
    if _API_POLICY[0] not in names:
        headers.append(_API_POLICY)
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    return [*headers, *_SECURITY_HEADERS]


def _route_of(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH") else "other"
