"""The command line ``ionbed``: thin Typer commands over the package's functions; no logic lives here.

Exit codes: 0 done, 1 the work failed, 2 the words or the input are wrong (one line on stderr), 130 interrupted.
Nothing heavy is imported before a command runs, so that ``ionbed --help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from . import __version__
from .console import examples
from .data_commands import data_app
from .errors import InputError
from .evaluation_commands import register as register_evaluation
from .index_commands import register as register_index
from .network_commands import register as register_network
from .pretrain.ending import end_process
from .progress import counted
from .publish_commands import register as register_publish
from .search_commands import register as register_search
from .serve_commands import register as register_serve
from .training_commands import register as register_training

logger = logging.getLogger("ionbed")

DATA, TRAINING, SEARCH, EVALUATION, INSTALLATION = "Data", "Training", "Search", "Evaluation", "This installation"


app = typer.Typer(
    name="ionbed",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "ionbed demo                                       # all of it, small",
        "ionbed index build library.msp --out library      # a library to search in",
        "ionbed search library run.mzML --out hits.tsv     # what are these spectra?",
    ),
)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the configuration; may be repeated."),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        metavar="auto|FOLDER", help="Continue: 'auto' from the last checkpoint, if any, or from a checkpoint."
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes.", show_default="all cores")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ionbed {__version__}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback when a command fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Learned search of tandem mass spectra (MS/MS) of small molecules."""
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        "ionbed prepare massbank.tar.gz --out store",
        "ionbed prepare library.msp run.mzML gnps/ --out store --workers 8",
        "ionbed prepare massbank.tar.gz --out free --set 'licenses=[CC0, CC BY]'",
        "ionbed prepare runs/ --out store --cluster slurm --workers 32",
    ),
)
def prepare(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="Spectra in any format that ionbed reads (docs/prepare.md): files, folders, archives, packed or not.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The store to write.")],
    config: Annotated[
        str, typer.Option(metavar="CONFIG", help="A YAML file, or a name from 'ionbed configs'.")
    ] = "prepare",
    overrides: SetOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Structures by id: columns spectrum_id, smiles ...", show_default=False),
    ] = None,
    workers: WorkersOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="local|slurm|ADDRESS", help="Work on a Dask cluster.", show_default="this machine"),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Read, harmonise, clean, grade and deduplicate spectra into a store of Parquet shards; again to go on."""
    from .configs.loading import load_config
    from .spectra.prepare import PrepareOptions
    from .spectra.prepare import prepare as run

    given = [] if labels is None else [f"labels={json.dumps(str(labels))}"]
    options = load_config(PrepareOptions, config, [*(overrides or ()), *given])
    manifest = run(inputs, out, options=options, workers=workers, cluster=cluster, overwrite=overwrite)
    _say_counts(manifest["counts"], out)


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        "ionbed split store --out split.json",
        "ionbed split store --out split.json --kind scaffold --test 0.2",
        "ionbed split store --out lab.json --kind laboratory --hold-out UFZ",
    ),
)
def split(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A folder written by 'ionbed prepare'.")],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="The split to write.")],
    kind: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What the folds may not share: inchikey-block, formula, scaffold, mces (distance), chemical-class; "
            "laboratory, instrument-type, low-energy; nothing: random-spectrum; or massspecgym. See docs/splits.md.",
        ),
    ] = "inchikey-block",
    test: Annotated[float, typer.Option(min=0, max=1, help="Share held out for testing.")] = 0.1,
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share for validation.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="Laboratory, instrument type or class to test on; may be repeated.", show_default="drawn"),
    ] = None,
    molecules: Annotated[
        str,
        typer.Option(
            metavar="held-out|shared", help="Whether training leaves out the molecules of the tested spectra."
        ),
    ] = "held-out",
    max_energy: Annotated[float, typer.Option(help="Of low-energy: test up to this collision energy, in eV.")] = 15.0,
    class_level: Annotated[int, typer.Option(help="Of chemical-class: 2 superclass, 3 class, 4 subclass.")] = 3,
    solver_seconds: Annotated[
        float, typer.Option(min=0, help="Of mces: for one pair; 0 uses bounds alone and makes larger clusters.")
    ] = 1.0,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of mces: where distances are kept.", show_default="FILE.json.cache"),
    ] = None,
    folds_from: Annotated[
        Path | None, typer.Option(metavar="FILE.tsv", help="Of massspecgym: the benchmark's table.", show_default=False)
    ] = None,
    workers: WorkersOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Divide a store into train, validation and test, and audit what these share; a split that leaks is refused."""
    from .finetune.split_audit import describe_audit
    from .finetune.splits import SplitOptions, split_store

    options = SplitOptions(
        kind=kind, seed=seed, test=test, validation=validation, hold_out=tuple(hold_out or ()), molecules=molecules,
        max_energy=max_energy, class_level=class_level, solver_seconds=solver_seconds, cache=cache, workers=workers,
        folds_from=folds_from,
    )  # fmt: skip
    for line in describe_audit(split_store(store, out, options, overwrite=overwrite)):
        logger.info("%s: %s", out, line)


@app.command(
    rich_help_panel=DATA,
    epilog=examples(
        "ionbed simulate molecules.smi --out predicted.msp",
        "ionbed simulate molecules.tsv --out p.msp --energy 20 --adduct '[M+H]+'",
    ),
)
def simulate(
    molecules: Annotated[
        Path, typer.Argument(metavar="MOLECULES", help="Names and structures: .smi, .tsv, .csv or .sdf.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.msp", help="The library to write.")],
    energy: Annotated[list[float] | None, typer.Option(help="Collision energy in eV; may be repeated.")] = None,
    adduct: Annotated[list[str] | None, typer.Option(help="Adduct, as '[M+H]+'; may be repeated.")] = None,
) -> None:
    """Predict the spectra of molecules by rule-based fragmentation; each is marked as predicted."""
    from .spectra.simulate import simulate as run

    given: dict[str, Any] = {"energies": tuple(energy or ()), "adducts": tuple(adduct or ())}
    counts = run(molecules, out, **{name: values for name, values in given.items() if values})
    of = counted(counts["predicted"], "molecules")
    logger.info("%s: %s of %s", out, counted(counts["spectra"], "predicted spectra"), of)


@app.command(
    rich_help_panel=TRAINING,
    epilog=examples(
        "ionbed pretrain pretrain-small --set data.store=store",
        "ionbed pretrain my.yaml --resume auto",
        "accelerate launch --num_processes 8 --module ionbed pretrain my.yaml",
    ),
)
def pretrain(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a name from 'ionbed configs'.")],
    overrides: SetOption = None,
    resume: ResumeOption = None,
) -> None:
    """Train an encoder without labels by masked-peak modelling."""
    from .pretrain.signals import StopSignal

    with StopSignal() as stop:  # entered before the seconds that these imports take
        from .configs.loading import load_config
        from .pretrain.config import PretrainConfig
        from .pretrain.run import pretrain as run

        _end_training(run(load_config(PretrainConfig, config, overrides or ()), resume=resume, stop=stop))


@app.command(
    rich_help_panel=TRAINING,
    epilog=examples(
        "ionbed finetune finetune-small --set data.store=store",
        "ionbed finetune label-classification --set data.store=store",
    ),
)
def finetune(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or a name from 'ionbed configs'.")],
    overrides: SetOption = None,
    resume: ResumeOption = None,
) -> None:
    """Train an encoder further with labelled spectra: for search, or on labels where the configuration has a task."""
    from .pretrain.signals import StopSignal

    with StopSignal() as stop:  # entered before the seconds that these imports take
        from .configs.loading import load_config
        from .finetune.labelled.config import LabelledConfig, names_a_task

        if names_a_task(config, overrides or ()):
            from .evaluation.labelled.run import train_and_report

            labelled = load_config(LabelledConfig, config, overrides or ())
            _end_training(train_and_report(labelled, resume=resume, stop=stop))
            return
        from .finetune.config import FinetuneConfig
        from .finetune.run import finetune as run

        _end_training(run(load_config(FinetuneConfig, config, overrides or ()), resume=resume, stop=stop))


register_index(app, SEARCH)
register_search(app, SEARCH)
register_network(app, SEARCH)
register_serve(app, SEARCH)
register_training(app, TRAINING)
register_publish(app, TRAINING)
register_evaluation(app, EVALUATION)


@app.command(rich_help_panel=EVALUATION, epilog=examples("ionbed demo", "ionbed demo --out report --threads 2"))
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The report to write.")] = Path("demo-report"),
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None,
) -> None:
    """Run the whole pipeline, small, on a CPU: prepare, pretrain, fine-tune, index, search, evaluate."""
    from .demo.run import run_demo

    run_demo(out, threads=threads)


@app.command(rich_help_panel=INSTALLATION, epilog=examples("ionbed doctor", "ionbed doctor --json"))
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has and what will not work on it."""
    from .doctor import as_text, report, to_json, works

    checks = report()
    print(to_json(checks) if as_json else as_text(checks))
    if not works(checks):
        raise typer.Exit(1)


@app.command(rich_help_panel=INSTALLATION, epilog=examples("ionbed configs", "ionbed configs pretrain-small > my.yaml"))
def configs(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The configuration to print.")] = None,
) -> None:
    """List the shipped configurations, or print one."""
    from .configs.loading import config_text, shipped_configs

    print("\n".join(shipped_configs()) if name is None else config_text(name).rstrip("\n"))


def _end_training(folder: Path) -> None:
    """Say, once for all processes, where the model is; part from the other processes (NCCL warns of who does not)."""
    from .pretrain.processes import process_state

    state = process_state()
    if state.is_main_process and folder.is_dir():  # else the run was told to stop, and has said how it goes on
        logger.info("the model is in %s", folder)
    state.destroy_process_group()


def _say_counts(counts: dict[str, Any], out: Path) -> None:
    dropped = {reason: number for reason, number in counts["dropped"].items() if number}
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items(), key=lambda item: -item[1]))
    total = sum(dropped.values())
    logger.info(
        "%s: %s read, %s kept, %s dropped%s",
        out, f"{counts['read']:,}", f"{counts['kept']:,}", f"{total:,}", f" ({reasons})" if reasons else "",
    )  # fmt: skip


def run() -> NoReturn:
    """Run the command line with the words of this process, and end it."""
    try:
        code = main()
    except SystemExit as error:  # as `ionbed.pretrain.turns` ends processes beside one that has an error
        code = error.code if isinstance(error.code, int) else 1
    end_process(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str
        The words after ``ionbed``; those of the process where None.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        code = app(words, prog_name="ionbed", standalone_mode=False) or 0
        sys.stdout.flush()
    except typer.TyperException as error:  # the words are wrong
        return _usage_failed(error)
    except InputError as error:
        return _failed(error, 2, str(error), words)
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `ionbed configs small | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        return _failed(error, 1, f"{type(error).__name__}: {error} (with --debug: the traceback)", words)
    finally:
        logger.removeHandler(handler)
    if code == 130:
        print("ionbed: interrupted", file=sys.stderr)
    return code


def _usage_failed(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "ionbed"
    message = _one_line(error.format_message() if hasattr(error, "format_message") else str(error)).rstrip(".")
    message = message.removeprefix("Invalid value: ")  # where no option is named, what follows says it all
    message = message.replace(": Value error, ", ": ")  # how the library that checks words begins a reason
    if message:  # it is empty where no command was named and the help was shown
        print(f"ionbed: {message[0].lower()}{message[1:]}; see '{command} --help'", file=sys.stderr)
    return 2


def _failed(error: Exception, code: int, message: str, words: Sequence[str]) -> int:
    if "--debug" in words:
        traceback.print_exception(error)
    print(f"ionbed: {_one_line(message)}", file=sys.stderr)
    return code


def _one_line(text: str) -> str:
    return " ".join(text.split())
