"""The commands ``ionbed runs``, which compares training runs, and ``ionbed predict``, which uses a trained model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import console, examples
from .progress import counted

logger = logging.getLogger("ionbed")


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "runs",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed runs runs                                  # a table of all",
            "ionbed runs runs --plot runs.html --against hours",
            "ionbed runs runs/small runs/base --json",
        ),
    )(runs)
    app.command(
        "predict",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed predict runs/fluorine/model new.mgf --out predictions.tsv",
            "ionbed predict runs/logp/model store --out predictions.parquet",
        ),
    )(predict)


def runs(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Outputs of 'ionbed pretrain' and 'finetune', or folders of them."),
    ],
    *,
    order: Annotated[
        Literal["latest", "name", "loss", "validation"],
        typer.Option("--sort", help="By the last line of the log (latest first), or lowest first."),
    ] = "latest",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the whole configurations.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|svg|html", help="Also draw the losses into this file.", show_default=False),
    ] = None,
    against: Annotated[
        Literal["step", "tokens", "hours"], typer.Option(help="Of --plot: what the losses are drawn against.")
    ] = "step",
    logarithmic: Annotated[
        Literal["none", "x", "y", "xy"], typer.Option("--log", help="Of --plot: axes with a logarithmic scale.")
    ] = "none",
    smooth: Annotated[
        int, typer.Option(min=1, help="Of --plot: log lines in the running mean of the training loss; 1: none.")
    ] = 11,
) -> None:
    """Compare training runs: how far each is, how fast, how well, and what differs in their options."""
    from .pretrain.runs import read_runs

    if plot is not None:
        from .pretrain.runs_figure import FigureOptions, check_figure, write_figure

        check_figure(plot)
    found = read_runs(folders, order=order)
    if plot is not None:
        write_figure(found, plot, FigureOptions(against=against, logarithmic=logarithmic, smoothing=smooth))
        logger.info("%s: the losses of the runs", plot)
    if as_json:
        from .pretrain.runs_table import to_json

        typer.echo(to_json(found))
    else:
        from .pretrain.runs_table import print_runs

        print_runs(found, console())


def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="The model folder of a run of 'ionbed finetune' with a task.")
    ],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Spectra: a store, a file, a folder or an archive.")],
    out: Annotated[Path, typer.Option(metavar="FILE.tsv|parquet", help="The table to write.")],
) -> None:
    """Predict labels of spectra: calibrated probabilities, or numbers with their ranges."""
    from .finetune.labelled.predict import predict as run

    logger.info("%s: predictions of %s", out, counted(run(model, source, out), "spectra"))
