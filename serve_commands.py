"""The command ``ionbed serve``: an index behind HTTP, with a page for people and routes for programs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from .console import examples

logger = logging.getLogger("ionbed")


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "serve",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed serve library                              # http://127.0.0.1:8000",
            "ionbed serve library --host 0.0.0.0 --api-key-file key.txt",
        ),
    )(serve)


def serve(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by 'ionbed index build'.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The key that requests must carry; else from IONBED_API_KEY.", show_default="none"
        ),
    ] = None,
) -> None:
    """Serve an index over HTTP: a page for people, and routes for programs."""
    from .embeddings.service.serving import run

    run(index, host=host, port=port, api_key_file=api_key_file)
