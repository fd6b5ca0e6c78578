"""The command ``ionbed serve``: an index behind HTTP, with a page for people and routes for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .console import examples


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "serve",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed serve library               # the page at http://127.0.0.1:8000",
            "ionbed serve library --host 0.0.0.0 --api-key-file key.txt",
            "ionbed serve library --allowed-host ms.example.org    # behind a proxy",
            "ionbed serve library --usi gnps    # also spectra of GNPS by their USI",
            "ionbed serve library --limit spectra=100 --limit seconds=20",
        ),
    )(serve)


def serve(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by 'ionbed index build'.")],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the key that requests must carry; it may stand in IONBED_API_KEY instead.",
            show_default="no key is asked for",
        ),
    ] = None,
    usi: Annotated[
        str | None,
        typer.Option(
            metavar="gnps|URL",
            help="Fetch spectra by USI from this resolver: its address with {usi} in it.",
            show_default="none are fetched",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which it is called, besides localhost and addresses; may be repeated; *: any.",
            show_default="none",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="What one may ask, see docs/service.md; may be repeated."),
    ] = None,
    no_access_log: Annotated[
        bool, typer.Option("--no-access-log", help="Log no requests; what was asked is in no log.")
    ] = False,
) -> None:
    """Serve an index over HTTP: a page for people, and routes for programs."""
    from .embeddings.service import refuse_missing_packages
    from .embeddings.service.settings import limits_of

    refuse_missing_packages()
    from .embeddings.service.serving import run

    words: dict[str, Any] = {"limits": limits_of(limit or ()), "access_log": not no_access_log}
    words["allowed_hosts"] = allowed_host or ()
    run(index, host=host, port=port, api_key_file=api_key_file, usi=usi, **words)
