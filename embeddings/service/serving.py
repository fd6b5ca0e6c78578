"""Run the service until it is told to end: what ``ionbed serve`` does."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ...errors import InputError
from ..kinds import open_index
from .settings import ServiceSettings

logger = logging.getLogger("ionbed")

KEY_VARIABLE = "IONBED_API_KEY"
_GRACE_SECONDS = 30


def run(index: Path, *, host: str, port: int, api_key_file: Path | None) -> None:
    """Serve an index; returns once a signal has ended it and the last request is answered.

    Raises
    ------
    InputError
        The index cannot be opened, or a setting is none.
    """
    try:
        import uvicorn

        from .app import create_app
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'ionbed[serve]'") from None
    settings = ServiceSettings(api_key=read_key(api_key_file))
    app = create_app(open_index(index), settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(config).run()


def read_key(file: Path | None) -> str | None:
    """Return the API key of a file, else of the environment, else None.

    Raises
    ------
    InputError
        The file cannot be read or is empty.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); name a file that holds the API key") from None
    if not key:
        raise InputError(f"{file}: is empty; write the API key into it")
    return key
