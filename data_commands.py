"""The commands ``ionbed data``: public data sets, listed and downloaded."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import console, examples

logger = logging.getLogger("ionbed")

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List or download public data sets.")

RegistryOption = Annotated[
    Path | None, typer.Option(metavar="FILE.yaml", help="Data sets of your own; see 'ionbed configs public-data'.")
]


@data_app.command("list", epilog=examples("ionbed data list", "ionbed data list --json"))
def data_list(
    registry: RegistryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with citations.")] = False,
) -> None:
    """List the public data sets that are known by name: size, licence, what is in them."""
    from .spectra.public_data.registry import format_list, list_data

    entries = list_data(registry)
    if as_json:
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        console().print(format_list(entries))


@data_app.command(
    "get",
    epilog=examples(
        "ionbed data get massspecgym",
        "ionbed data get gems-a10 --out /data/gems --yes",
        "ionbed data get MSV000080547 --include '*.mzML'",
        "ionbed data get massspecgym --mirror /media/disk",
    ),
)
def data_get(
    name: Annotated[
        str, typer.Argument(metavar="NAME|ACCESSION", help="A name from 'ionbed data list', or MSV..., MTBLS...")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to.", show_default="a folder of that name, here")
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Copy from a folder that this command wrote elsewhere; no network.",
            show_default=False,
        ),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only such files, as '*.mzML'; may be repeated.")
    ] = None,
    registry: RegistryOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a large download.")] = False,
) -> None:
    """Download a public data set, or go on with a download that was stopped; the files are checked."""
    from .spectra.public_data.get import get_data

    confirm = typer.confirm if sys.stdin.isatty() else None
    manifest = get_data(
        name, out=out, mirror=mirror, registry=registry, include=include or (), yes=yes, confirm=confirm
    )
    count = len(manifest["files"])
    logger.info("%s: %s file%s, licence: %s", out or name, f"{count:,}", "s"[: count != 1], manifest["license"])
