"""The commands ``ionbed card`` and ``push``: what a model is, for others to read, and its way to a hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from .console import examples

logger = logging.getLogger("ionbed")

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A folder written by pretrain or finetune.")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "card",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed card runs/small/model --evaluation report",
            "ionbed card runs/small/model --overwrite",
        ),
    )(card)
    app.command(
        "push",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed push runs/small/model me/my-encoder --dry-run",
            "ionbed push runs/small/model me/my-encoder --private",
        ),
    )(push)


def card(
    model: ModelArgument,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A report, or a probe, of this model, whose figures go on the card; may be repeated.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write the card anew from the run; changes by hand are lost.")
    ] = False,
) -> None:
    """Write the model card of a model folder, or put the figures of an evaluation on it."""
    from .publish.card_file import update_card

    logger.info("%s: written", update_card(model, evaluation or (), overwrite=overwrite))


def push(
    model: ModelArgument,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Only its owner may see it.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="The branch; made where there is none.", show_default="main")
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of the commit.", show_default="the stage and the model's hash")
    ] = None,
    allow_restricted: Annotated[
        bool,
        typer.Option(
            "--allow-restricted",
            help="Go on though the data are non-commercial, of unknown licence, or not as the card's licence says.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the folder and say what would be uploaded; no network.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face hub, or to the one that HF_ENDPOINT names."""
    from .publish.push import push as run

    pushed = run(
        model, repository, private=private, revision=revision, message=message, allow_restricted=allow_restricted,
        dry_run=dry_run,
    )  # fmt: skip
    size = sum(pushed.files.values()) / 1e6
    logger.info(
        "%s: %s %s (%.1f MB), licence %s", pushed.url or repository, "uploaded" if pushed.url else "would upload",
        ", ".join(pushed.files), size, pushed.license,
    )  # fmt: skip
