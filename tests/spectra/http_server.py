"""A server on 127.0.0.1 that serves files as it should, or as told: it drops, lies, redirects and logs."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

BODY = np.random.default_rng(0).bytes(3_000_000)
ETAG = '"first"'


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are gone: they are killed on purpose."""


class Server:
    """Answers each request with the next of the behaviours of its path, the last of them for ever; keeps a log."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str, dict[str, str]]] = []
        self.routes: dict[str, list[Callable[[Handler], None]]] = {}
        self.open_now = self.most_open = 0
        self.lock = threading.Lock()
        server = self

        class Bound(Handler):
            pass

        Bound.server_log = server
        self.http = _QuietServer(("127.0.0.1", 0), Bound)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def on(self, path: str, *behaviours: Callable[[Handler], None]) -> str:
        self.routes[path] = list(behaviours)
        return self.url + path

    def requests_of(self, path: str) -> list[dict[str, str]]:
        return [headers for method, logged, headers in self.log if logged.split("?")[0] == path and method == "GET"]

    def ranges_of(self, path: str) -> list[str | None]:
        return [headers.get("Range") for headers in self.requests_of(path)]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_log: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, path = self.server_log, self.path.split("?")[0]
        with server.lock:
            server.log.append((self.command, self.path, dict(self.headers)))
            server.open_now += 1
            server.most_open = max(server.most_open, server.open_now)
            waiting = server.routes.get(path)
            behaviour = error(404) if not waiting else waiting.pop(0) if len(waiting) > 1 else waiting[0]
        try:
            behaviour(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with server.lock:
                server.open_now -= 1

    def send(self, status: int, body: bytes, headers: dict[str, str], *, drop_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if drop_after is None else body[:drop_after])
            self.wfile.flush()
        if drop_after is not None:
            self.drop()

    def drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def serve(
    body: bytes = BODY,
    *,
    etag: str = ETAG,
    ranges: bool = True,
    drop_after: int | None = None,
    headers: dict[str, str] | None = None,
) -> Callable[[Handler], None]:
    """Serve a body as an honest server does (RFC 9110), unless told otherwise."""

    def behave(handler: Handler) -> None:
        given = {"ETag": etag, **(headers or {})}
        found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range")
        if not found or not ranges or (condition is not None and condition != etag):
            handler.send(200, body, given, drop_after=drop_after)
            return
        start = int(found[1])
        if start >= len(body):
            handler.send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        given["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.send(206, body[start:], given, drop_after=drop_after)

    return behave


def error(status: int, **headers: str) -> Callable[[Handler], None]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(status, b"<html>no</html>", given)


def redirect(url: str, **headers: str) -> Callable[[Handler], None]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.send(302, b"", {"Location": url, **given})
