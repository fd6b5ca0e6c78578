"""The page at ``/``: its files, read once from this package, with headers that let nothing else run in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

from fastapi import APIRouter, Request, Response

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # structures are fetched, with the key where the service asks for one
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Scripts, styles and calls of this origin only; nothing inline, no evaluation of text (Content Security Policy 3)."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",  # asked for each time, sent again only where it changed
}

_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page, as it is sent.

    Attributes
    ----------
    content : bytes
    media_type : str
    etag : str
        Quoted; changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """Return the files of the page by name."""
    files = {}
    for entry in resources.files(__package__).joinpath("page").iterdir():
        media_type = _MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            files[entry.name] = PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return files


def page_router() -> APIRouter:
    """Return the routes of the page: ``/`` and ``/page/NAME`` for the files that it is made of.

    Names are looked up among the files that were read when the service started; no path from a client is opened.
    """
    router = APIRouter(include_in_schema=False)
    files = page_files()

    def respond(request: Request, file: PageFile | None) -> Response:
        if file is None:
            return Response("no such file of the page\n", status_code=404, media_type="text/plain")
        headers = {**HEADERS, "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @router.api_route("/", methods=["GET", "HEAD"])
    def start(request: Request) -> Response:
        return respond(request, files["index.html"])

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    def part(request: Request, name: str) -> Response:
        return respond(request, files.get(name))

    return router
