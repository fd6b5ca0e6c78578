"""The commands ``ionbed index``: build an index, say what it holds, append, delete, compact, and verify its files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .console import examples
from .progress import counted
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
            "ionbed index build store --out library --milvus http://host:19530",
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
    index_app.command(
        "calibrate",
        epilog=examples(
            "ionbed index calibrate library              # by the library's own spectra",
            "ionbed index calibrate library known.mgf    # by yours of known molecules",
            "ionbed index calibrate library known.mgf --split split.json",
            "ionbed index calibrate structures known.mgf --split split.json",
        ),
    )(calibrate)
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
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Of a store: what 'ionbed embed' wrote of it, with the same model."),
    ] = None,
    milvus: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Of spectra: put them into Milvus, http://host:19530 or a file.db of milvus-lite; its token is read "
            "from IONBED_MILVUS_TOKEN.",
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="The collection of Milvus.", show_default="the name of the folder")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="In Milvus: put nothing there; 'ionbed index append --part' does.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Embed a library of spectra, or a database of molecules, into an index."""
    from .embeddings.kinds import build as run
    from .embeddings.kinds import build_in_milvus, estimate_build
    from .encoder.loading import load_model

    encoder = load_model(model)
    if milvus is not None:
        if kind != "auto" or predict_spectra or dry_run:
            raise typer.BadParameter("--milvus goes with none of --kind, --predict-spectra and --dry-run")
        in_milvus = build_in_milvus(
            source, out, encoder, milvus, collection, embeddings=embeddings, empty=empty, overwrite=overwrite
        )
        logger.info("%s: %s in %s", out, counted(len(in_milvus), "spectra"), in_milvus.store.address)
        return
    if collection is not None or empty:
        raise typer.BadParameter("--collection and --empty go with --milvus only")
    if dry_run:
        print(estimate_build(source, encoder, kind=kind))
        return
    index = run(
        source, out, encoder, kind=kind, embeddings=embeddings, predict_spectra=predict_spectra, workers=workers,
        overwrite=overwrite,
    )  # fmt: skip
    counts = index.manifest["counts"]
    merged = f", {counts['merged']:,} merged" if counts.get("merged") else ""
    logger.info("%s: %s%s%s", out, counted(len(index), index.info()["kind"]), merged, _told(counts["dropped"]))
    if predicted := index.manifest.get("predicted"):
        logger.info(
            "%s: %s; %s without", out, counted(predicted["spectra"], "predicted spectra"),
            counted(predicted["without"], "structures"),
        )  # fmt: skip


def info(index: IndexArgument) -> None:
    """Say what an index holds and what made it."""
    from .embeddings.index_report import calibration_told, scores_told
    from .embeddings.kinds import open_index

    opened = open_index(index)
    entries = opened.info()
    if entries["kind"] == "spectra":
        entries |= scores_told(opened.model, opened.manifest) | calibration_told(opened.manifest)
    _print_table(entries)


def append(
    index: IndexArgument,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Spectra: a store, a file, a folder or an archive.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put them in the place of the spectra that have the same ids.")
    ] = False,
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="In Milvus: append the K-th of N parts of a store.")
    ] = None,
) -> None:
    """Embed further spectra into an index, with its own model; searches that run meanwhile are not disturbed."""
    from .embeddings.encode import Part
    from .embeddings.kinds import append_to_milvus, has_vectors_in_milvus
    from .embeddings.library_edits import append_input as run

    wanted = None if part is None else Part.parse(part)
    if has_vectors_in_milvus(index):
        count = append_to_milvus(index, source, part=wanted)
        logger.info("%s%s: %s appended", index, f" ({part})" if part else "", counted(count, "spectra"))
        return
    if part is not None:
        raise typer.BadParameter("--part goes with an index in Milvus; one on this machine has one writer at a time")
    done = run(index, source, replace=replace)
    replaced = f", {done.replaced:,} replaced" if done.replaced else ""
    logger.info("%s: %s appended%s%s", index, counted(done.kept, "spectra"), replaced, _told(done.dropped))


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
    logger.info("%s: %s %s", index, counted(count, "spectra"), "would be deleted" if dry_run else "deleted")


def calibrate(
    index: IndexArgument,
    queries: Annotated[
        Path | None,
        typer.Argument(
            metavar="QUERIES",
            help="Spectra of known molecules (InChIKey); without: the library's own. Structures need them.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The split that the model was trained with: it says which molecules are new to it. Structures are "
            "calibrated by these alone.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Fit how probable it is that a hit's molecule is the query's, and keep it in the index."""
    from .embeddings import index_report, structure_calibration
    from .embeddings.index_folder import kind_of, read_index_manifest
    from .embeddings.kinds import calibrate as run

    run(index, queries, split=split)
    manifest = read_index_manifest(index)
    report = structure_calibration if kind_of(manifest) == "structures" else index_report
    _print_table(report.calibration_told(manifest))


def compact(index: IndexArgument) -> None:
    """Make one segment of an index that was appended to, and drop what was deleted; needs room for a second index."""
    from .embeddings.kinds import index_of_spectra

    opened = index_of_spectra(index)
    before = opened.num_rows
    opened.compact()
    logger.info(
        "%s: %s in one segment, %s dropped",
        *(index, counted(len(opened), "spectra"), counted(before - len(opened), "rows")),
    )


def verify(index: IndexArgument) -> None:
    """Compare every byte of an index with its checksums."""
    from .embeddings.kinds import open_index

    opened = open_index(index)
    opened.verify()
    logger.info("%s: %s as written", index, counted(len(opened.manifest["files"]), "files"))


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
