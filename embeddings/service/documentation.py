"""The documentation at ``/docs``: Swagger UI from an installed package, read once; no path of a client is opened."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fastapi import Request
from starlette.responses import Response

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
}
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No script but our own files, and nothing from elsewhere; Swagger UI sets styles as it draws."""

_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>ionbed: the routes of the service</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = "SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null });\n"
_FROM_SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_WORTH_PACKING = 1024


@dataclass(frozen=True)
class Asset:
    """One file.

    Attributes
    ----------
    content, packed : bytes
        As it is, and in gzip.
    media_type, etag : str
    """

    content: bytes
    packed: bytes
    media_type: str
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Asset:
        """Make one, of the media type that its name says."""
        media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
        packed = gzip.compress(content, mtime=0) if len(content) >= _WORTH_PACKING and ".png" not in name else b""
        return cls(content, packed, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        """Return it, or that the client has it already."""
        headers = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            "Content-Security-Policy": DOCS_POLICY,
        }
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        if self.packed and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=self.media_type)
        return Response(self.content, headers=headers, media_type=self.media_type)


@lru_cache(maxsize=1)
def read_assets() -> Mapping[str, Asset]:
    """Read the files of the documentation, from the package that the extra ``serve`` installs.

    Returns
    -------
    mapping of str to Asset
        By name; ``index.html`` is the page itself.
    """
    import swagger_ui_bundle

    texts = {"index.html": _DOCS, "start.js": _START}
    return {
        **{name: Asset.of(name, text.encode()) for name, text in texts.items()},
        **{n: Asset.of(n, (swagger_ui_bundle.swagger_ui_path / n).read_bytes()) for n in _FROM_SWAGGER},
    }
