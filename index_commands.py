"""The commands ``ionbed index``: build an index, say what it holds, append, delete, compact, and verify its files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import examples
from .search_commands import ModelOption, OverwriteOption

logger = logging.getLogger("ionbed")

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by 'ionbed index build'.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to ``app``, under the heading ``panel`` of its help."""
    index_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Build and keep a search index.")
    app.add_typer(index_app, name="index", rich_help_panel=panel)
    index_app.command(
        "build",
        epilog=examples(
            "ionbed index build library.msp --out library",
            "ionbed index build store --out library --dry-run      # what it takes",
            "ionbed index build store --out library --kind hnsw",
            "ionbed index build molecules.smi --out structures --model MODEL",
            "ionbed index build molecules.smi --out structures --predict-spectra",
        ),
    )(build)
    index_app.command("info", epilog=examples("ionbed index info library"))(info)
    index_app.command(
        "append",
        epilog=examples(
            "ionbed index append library new.msp",
            "ionbed index append library corrected.msp --replace",
        ),
    )(append)
    index_app.command(
        "delete",
        epilog=examples(
            "ionbed index delete library --ids withdrawn.txt",
            "ionbed index delete library --where license='CC BY-NC' --dry-run",
        ),
    )(delete)
    index_app.command("compact", epilog=examples("ionbed index compact library"))(compact)
    index_app.command("verify", epilog=examples("ionbed index verify library"))(verify)


def build(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="Spectra: a store, a file, a folder or an archive. Or molecules: .smi, .tsv, .csv or .sdf, or .gz.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The index to write; it holds all that a search needs.")],
    model: ModelOption = None,
    kind: Annotated[
        Literal["auto", "flat", "hnsw", "ivf-sq8", "ivf-pq"],
        typer.Option(help="Of spectra: how the whole library is searched; auto: as its size suggests."),
    ] = "auto",
    predict_spectra: Annotated[
        bool,
        typer.Option(
            "--predict-spectra",
            help="Of molecules: also predict their spectra, to rank them by; some 0.1 s each on one core.",
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read molecules and predict.", show_default="all cores")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of spectra: read them, say what the index would take, and write nothing.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Embed a library of spectra, or a database of molecules, into an index."""
    from .embeddings.kinds import build as run
    from .embeddings.kinds import estimate_build
    from .encoder.loading import load_model

    encoder = load_model(model)
    if dry_run:
        print(estimate_build(source, encoder, kind=kind))
        return
    index = run(source, out, encoder, kind=kind, predict_spectra=predict_spectra, workers=workers, overwrite=overwrite)
    counts = index.manifest["counts"]
    merged = f", {counts['merged']:,} merged" if counts.get("merged") else ""
    logger.info("%s: %s %s%s%s", out, f"{len(index):,}", index.info()["kind"], merged, _told(counts["dropped"]))
    if predicted := index.manifest.get("predicted"):
        logger.info(
            "%s: %s predicted spectra; %s structures have none", out, f"{predicted['spectra']:,}",
            f"{predicted['without']:,}",
        )  # fmt: skip


def info(index: IndexArgument) -> None:
    """Say what an index holds and what made it."""
    from .embeddings.kinds import open_index

    _print_table(open_index(index).info())


def append(
    index: IndexArgument,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Spectra: a store, a file, a folder or an archive.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put them in the place of the spectra that have the same ids.")
    ] = False,
) -> None:
    """Embed further spectra into an index, with its own model; searches that run meanwhile are not disturbed."""
    from .embeddings.library_edits import append_input as run

    done = run(index, source, replace=replace)
    replaced = f", {done.replaced:,} replaced" if done.replaced else ""
    logger.info("%s: %s spectra appended%s%s", index, f"{done.kept:,}", replaced, _told(done.dropped))


def delete(
    index: IndexArgument,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Spectrum ids, one a line.", show_default=False)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Those with this value; of several, those with all.", show_default=False
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Delete spectra of an index, by their ids or by a value of their metadata ('COLUMN=' for those without one)."""
    from .embeddings.kinds import delete as run

    if (ids is None) == (where is None):
        raise typer.BadParameter("name the spectra by --ids or by --where, and not by both")
    values = {}
    for text in where or ():
        column, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--where {text}: should be COLUMN=VALUE")
        values[column] = value or None
    count = run(index, ids, where=values, dry_run=dry_run)
    logger.info("%s: %s spectra %s", index, f"{count:,}", "would be deleted" if dry_run else "deleted")


def compact(index: IndexArgument) -> None:
    """Make one segment of an index that was appended to, and drop what was deleted; needs room for a second index."""
    from .embeddings.kinds import index_of_spectra

    opened = index_of_spectra(index)
    before = opened.num_rows
    opened.compact()
    logger.info(
        "%s: %s spectra in one segment, %s rows dropped", index, f"{len(opened):,}", f"{before - len(opened):,}"
    )


def verify(index: IndexArgument) -> None:
    """Compare every byte of an index with its checksums."""
    from .embeddings.kinds import open_index

    opened = open_index(index)
    opened.verify()
    logger.info("%s: %s files as written", index, f"{len(opened.manifest['files']):,}")


def _told(dropped: dict[str, int] | Any) -> str:
    return "".join(f", {number:,} {reason}" for reason, number in dropped.items() if number)


def _print_table(entries: dict[str, Any]) -> None:
    width = max(len(key) for key in entries)
    for key, value in entries.items():
        print(f"{key.replace('_', ' '):<{width}}  {_plain(value)}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(_plain, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
