"""Search over HTTP: an index, opened once, behind `ionbed serve`, with limits on all that a client may ask."""

from __future__ import annotations

from importlib.util import find_spec

from ...errors import InputError

PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "swagger_ui_bundle": "swagger-ui-bundle",
}
"""What the extra ``serve`` installs for it: modules, and the names of their packages."""


def refuse_missing_packages() -> None:
    """Raise `InputError` if a package that the service needs is not installed."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"the service needs {', '.join(missing)}; pip install 'ionbed[serve]'")
