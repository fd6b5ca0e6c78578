"""Commands that measure and compare: ``ionbed evaluate``, ``probe``, ``fuse``, ``task`` and ``score``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import console, examples
from .errors import InputError

logger = logging.getLogger("ionbed")

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the configuration; may be repeated."),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "evaluate",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed evaluate my.yaml --out report",
            "ionbed evaluate runs/small/model store --split split.json --out report",
            "ionbed evaluate compare old-report new-report",
        ),
    )(evaluate)
    app.command(
        "probe",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed probe store --split split.json --model mine=runs/a/model --out probe",
            "ionbed probe store --split split.json --model a=A --model b=B --out two",
        ),
    )(probe)
    app.command(
        "fuse",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed fuse runs/small/model store --split split.json --out fused",
            "ionbed index build library.msp --model fused --out library",
            "ionbed search library queries.mgf --score fused --out hits.tsv",
        ),
    )(fuse)
    app.command(
        "task",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed task store split.json --kind library --out task",
            "ionbed task store split.json --kind open --out task --baselines",
        ),
    )(task)
    app.command(
        "score",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed score mine.parquet task --out scored",
            "ionbed score mine.parquet task --out s --against theirs.parquet",
        ),
    )(score)


def evaluate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|MODEL|compare",
            help="A configuration; or a model followed by its data set; or 'compare' followed by two reports.",
        ),
    ],
    dataset: Annotated[
        Path | None, typer.Argument(metavar="[DATASET|REPORT]", help="A store, or the report to compare with.")
    ] = None,
    report: Annotated[Path | None, typer.Argument(metavar="[REPORT]", help="The report that is compared.")] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The report to write.", show_default="needed, but not by compare"),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="The split that the models were trained with.", show_default=False),
    ] = None,
    overrides: SetOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure models beside the look-ups and blind rankers they have to beat, or compare two reports."""
    from .configs.loading import load_config
    from .evaluation.report.table import print_tables
    from .evaluation.run import EvaluationConfig
    from .evaluation.run import evaluate as run

    if what == "compare":
        if split is not None or overrides:
            raise InputError("compare: takes two reports, and no --split or --set; they are as they were evaluated")
        compare(dataset, report, out, overwrite=overwrite)
        return
    if report is not None:
        raise InputError(f"{report}: is one folder too many; name a model and a data set, or 'compare' and two reports")
    if out is None:
        raise InputError("--out is missing; name the folder that the report is to be written into")
    if dataset is None and Path(what).is_dir():
        raise InputError(f"{what}: is a folder; name a YAML file, or the data set (a store) after the model")
    if dataset is not None and split is None and not any(text.startswith("split=") for text in overrides or ()):
        raise InputError("--split is missing; name the split file that the model was trained with")
    model = {} if dataset is None else {"dataset": dataset, "models.model": what}
    named = [
        f"{key}={json.dumps(str(value))}"  # quoted, so that YAML takes any name as text
        for key, value in {**model, "split": split}.items()
        if value is not None
    ]
    config = load_config(EvaluationConfig, what if dataset is None else "evaluate", [*named, *(overrides or ())])
    print_tables(run(config, out, overwrite=overwrite), console())
    logger.info("%s: the report is report.html, the numbers are in results.json", out)


def probe(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A folder written by 'ionbed prepare'.")],
    *,
    split: Annotated[Path, typer.Option(metavar="FILE.json", help="The split that the models were trained with.")],
    model: Annotated[
        list[str],
        typer.Option(metavar="NAME=MODEL", help="A model by its label; may be repeated, one label for several seeds."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The results to write.")],
    fold: Annotated[Literal["test", "validation"], typer.Option(help="Whose molecules are asked about.")] = "test",
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model that the others are compared with.")
    ] = None,
    max_train_spectra: Annotated[
        int | None, typer.Option(min=1, help="Training spectra at most, drawn by molecule.", show_default="all")
    ] = None,
    random_seeds: Annotated[
        int, typer.Option(min=0, help="Untrained copies of each architecture that stand beside it.")
    ] = 3,
    zero_shot: Annotated[bool, typer.Option("--zero-shot/--no-zero-shot", help="Search, too.")] = True,
    allow_other_split: Annotated[
        bool, typer.Option("--allow-other-split", help="Go on with a model that may have seen the molecules.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where spectra are embedded: auto, cpu, cuda or cuda:1.")] = "cpu",
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where embeddings are kept for the next probe.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of molecules.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of draws, resamples and untrained weights.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure frozen encoders: linear heads on their embeddings, and searches, beside their untrained twins."""
    from .evaluation.probe.run import ProbeOptions, run_probe
    from .evaluation.probe.table import print_tables

    models: dict[str, list[str]] = {}
    for text in model:
        label, equals, source = text.partition("=")
        if not (label and equals and source):
            raise InputError(f"--model {text}: must read NAME=MODEL, the model a folder or a hub id")
        models.setdefault(label, []).append(source)
    options = ProbeOptions(
        fold=fold,
        reference=reference,
        max_train_spectra=max_train_spectra,
        random_seeds=random_seeds,
        zero_shot=zero_shot,
        allow_other_split=allow_other_split,
        cache=cache,
        workers=None,
        resamples=resamples,
    )
    result = run_probe(models, store, split, out, options, seed=seed, device=device, overwrite=overwrite)
    print_tables(result.tree, console())
    logger.info("%s: the numbers are in results.json, the tables in table.md", out)


def fuse(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder written by training, or a hub id.")],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A folder written by 'ionbed prepare'.")],
    *,
    split: Annotated[Path, typer.Option(metavar="FILE.json", help="The split that the model was trained with.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The model with its fused score, to write.")],
    allow_other_split: Annotated[
        bool, typer.Option("--allow-other-split", help="Go on with a model that may have seen the molecules.")
    ] = False,
    structures: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also weigh scores of structures, for 'index build --predict-spectra': molecules (.smi, .tsv, .csv or "
            ".sdf) that are candidates beside those of the store.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where fingerprints are kept.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads and processes.", show_default="all cores")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws of pairs and queries.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Fit a score of a model's cosine and look-ups together, on the fold 'validation', for 'search --score fused'."""
    from .evaluation.fuse import FuseOptions
    from .evaluation.fuse import fuse as run

    options = FuseOptions(
        allow_other_split=allow_other_split, cache=cache, structures=structures, workers=workers, seed=seed
    )
    run(model, store, split, out, options, overwrite=overwrite)
    logger.info("%s: the model with its fused score", out)


def task(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A folder written by 'ionbed prepare'.")],
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="A file written by 'ionbed split'.")],
    *,
    kind: Annotated[
        Literal["library", "open", "analogue", "retrieval", "pairs"],
        typer.Option(help="What is asked; see docs/score.md."),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The task to write.")],
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also write the scores of the look-ups and other baselines.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Of --baselines, write this row alone; may be repeated.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of 'ionbed configs evaluate'; repeatable."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a test that any tool can take: queries, candidates and truth as Parquet."""
    from .configs.loading import load_config
    from .evaluation.make_task import make_task
    from .evaluation.run import EvaluationConfig

    if only and not baselines:
        raise InputError("--only: names rows of --baselines, which is not asked for; add --baselines or leave it out")
    named = [f"{key}={json.dumps(str(value))}" for key, value in (("dataset", store), ("split", split))]
    config = load_config(EvaluationConfig, "evaluate", [*named, *(overrides or ())])
    header = make_task(config, kind, out, baselines=baselines, only=only or (), overwrite=overwrite)
    counts = (f"{value:,} {name}" if isinstance(value, int) else f"{value:.2f} {name}"
              for name, value in header["counts"].items())  # fmt: skip
    logger.info("%s: %s", out, ", ".join(counts))


def score(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS.parquet", help="Columns query_id, candidate_id, score; and a manifest beside it."
        ),
    ],
    task: Annotated[Path, typer.Argument(metavar="TASK", help="A folder written by 'ionbed task'.")],
    *,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The results to write.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.parquet", help="Predictions of another tool to compare with; may be repeated."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples of molecules.")] = 1000,
    unit: Annotated[
        Literal["molecule", "mces-cluster", "scaffold"], typer.Option(help="What is resampled as a whole.")
    ] = "molecule",
    mces_queries: Annotated[
        int,
        typer.Option(min=0, help="Queries on which MCES@1 is measured (some seconds for a hundred); 0: not at all."),
    ] = 0,
    cache: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where MCES distances are kept.")] = None,
    seed: Annotated[int, typer.Option(help="Of resamples and permutations.")] = 0,
    ranked_lists: Annotated[
        bool, typer.Option("--ranked-lists", help="Also write the answers in the form of MassSpecGym's own tools.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Judge the answers of any tool to a task, by the metrics of 'ionbed evaluate'."""
    from .evaluation.mces_at_1 import MCESOptions
    from .evaluation.report.score_table import print_score
    from .evaluation.score import score as run
    from .evaluation.statistics import BootstrapOptions

    tree = run(
        predictions,
        task,
        out,
        against=against or (),
        bootstrap=BootstrapOptions(resamples=resamples, unit=unit),
        mces=MCESOptions(max_queries=mces_queries) if mces_queries else None,
        cache=cache,
        seed=seed,
        ranked_lists=ranked_lists,
        overwrite=overwrite,
    )
    print_score(tree, console())
    logger.info("%s: the numbers are in results.json, every query is in per-query.parquet", out)


def compare(first: Path | None, second: Path | None, out: Path | None, *, overwrite: bool) -> None:
    """Print how the second of two reports differs from the first; write it into ``out`` where that is named."""
    from .artifacts import refuse_existing, refuse_input_as_output
    from .evaluation.report.comparison import compare_reports
    from .evaluation.report.comparison_words import print_comparison, write_comparison

    if first is None or second is None:
        raise InputError("compare: needs two folders written by 'ionbed evaluate', the older one first")
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
        refuse_input_as_output(out, first, second)
    tree = compare_reports(first, second)
    print_comparison(tree, console())
    if out is not None:
        write_comparison(tree, out, overwrite=overwrite)
        logger.info("%s: the comparison is comparison.html, the numbers are in comparison.json", out)
