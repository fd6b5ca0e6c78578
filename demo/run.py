"""``ionbed demo``: the whole pipeline on predicted spectra of common molecules, in minutes on a CPU."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifacts import MANIFEST, read_object_or_empty, write_manifest
from ..configs.loading import load_config
from ..errors import InputError
from ..progress import counted, progress
from ..spectra.molecule_files import read_molecules
from ..spectra.simulate import simulate_spectra
from ..spectra.spectrum import Spectrum
from ..spectra.split import Split
from ..spectra.writers import write_mgf, write_msp
from .laboratories import LIBRARY, QUERIES, VirtualLaboratory, record
from .searches import ShownSearch, choose_searches, print_searches

if TYPE_CHECKING:
    from rich.console import Console

    from ..embeddings.index import Index

MOLECULES = Path(__file__).with_name("molecules.tsv")
SEED = 0

NOTICE = (
    "Every spectrum here is predicted, by simple rules from a structure: no instrument measured it. The demo shows "
    "that the pipeline works. Its figures say nothing about real spectra, nor does a model trained on it."
)

_UNFINISHED = ".unfinished-demo"


def run_demo(out: Path, *, threads: int | None = None) -> None:
    """Simulate a library, prepare, split, pretrain, fine-tune, index, search and evaluate; leave a report in ``out``.

    A folder that an earlier demo wrote is replaced.

    Parameters
    ----------
    out : path
        The folder to write: ``report.html``, and the product of each stage beside it.
    threads : int, optional
        CPU threads of the model; by default torch's choice.

    Raises
    ------
    InputError
        ``out`` holds something else than a demo, or the look-ups of the evaluation are not installed.
    """
    from rich.console import Console

    from ..evaluation.baselines.lookup_record import require_evaluation_packages
    from ..evaluation.report.table import print_tables

    require_evaluation_packages()
    out = Path(out)
    _take(out)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]ionbed demo[/bold]\n{NOTICE}\n", highlight=False)
    stages = _Stages(console)

    with stages.run("simulate", "predicted spectra of common molecules, as two virtual laboratories"):
        counts = _simulate(out)
    stages.say(counts)
    with stages.run("prepare", "read, harmonise, clean, deduplicate"):
        counts = _prepare(out)
    stages.say(counts)
    with stages.run("split", "by molecule: some are kept from all training"):
        counts = _split(out)
    stages.say(counts)
    with stages.run("pretrain", "masked-peak modelling, without labels"):
        _pretrain(out, threads)
    with stages.run("finetune", "contrast of molecules, isobars included"):
        _finetune(out, threads)
    with stages.run("index build", f"the library of {LIBRARY.name}"):
        index = _build_index(out)
    stages.say(counted(len(index), "spectra"))
    with stages.run("search", f"spectra of {QUERIES.name}, of molecules that training has not seen"):
        summary, shown = _search(out, index)
    stages.say(summary)
    with stages.run("evaluate", "models beside the look-ups that they have to beat"):
        results = _evaluate(out)
    _finish(out, stages, shown, results)

    print_tables(results, console)
    print_searches(console, shown)
    console.print(f"\n[bold]The report:[/bold] {out / 'report.html'}\n[bold]Remember:[/bold] {NOTICE}", highlight=False)


class _Stages:
    """Announces each stage and keeps its time and outcome."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def run(self, name: str, what: str) -> Iterator[None]:
        self.console.print(f"[bold]{name}[/bold]  {what}", highlight=False)
        started = time.monotonic()
        yield
        self.rows.append((name, time.monotonic() - started, ""))
        self.console.print(f"  [dim]{self.rows[-1][1]:.0f} s[/dim]", highlight=False)

    def say(self, outcome: object) -> None:
        name, seconds, _ = self.rows[-1]
        self.rows[-1] = (name, seconds, str(outcome))
        self.console.print(f"  {outcome}", highlight=False, markup=False)


def _take(out: Path) -> None:
    """Make ``out`` an empty folder, unless it holds something that no demo wrote."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, a folder is needed; choose another name")
    if out.is_dir() and any(out.iterdir()):
        if not (out / _UNFINISHED).exists() and read_object_or_empty(out / MANIFEST).get("command") != "demo":
            raise InputError(f"{out}: holds something that is no demo; choose another folder with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _UNFINISHED).touch()


def _simulate(out: Path) -> str:
    """Write the spectra of both laboratories; return what was made."""
    molecules = [(entry.name, entry.smiles or "") for entry in read_molecules(MOLECULES)]
    recorded: dict[VirtualLaboratory, list[Spectrum]] = {LIBRARY: [], QUERIES: []}
    with progress("simulate", len(molecules), unit="molecules") as advance:
        for molecule in molecules:
            for spectrum in simulate_spectra([molecule], energies=LIBRARY.energies + QUERIES.energies):
                laboratory = LIBRARY if spectrum.collision_energy in LIBRARY.energies else QUERIES
                recorded[laboratory].append(record(spectrum, laboratory, seed=SEED))
            advance(1)
    write_msp(recorded[LIBRARY], out / "laboratory-a.msp")
    write_mgf(recorded[QUERIES], out / "laboratory-b.mgf")
    numbers = " and ".join(f"{len(spectra):,} of {laboratory.name}" for laboratory, spectra in recorded.items())
    return f"{len(molecules):,} molecules, {numbers} (all predicted)"


def _prepare(out: Path) -> str:
    from ..spectra.prepare import prepare

    manifest = prepare([out / "laboratory-a.msp", out / "laboratory-b.mgf"], out / "store", workers=1)
    counts = manifest["counts"]
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in counts["dropped"].items()) or "none"
    return f"{counts['read']:,} read = {counts['kept']:,} kept + dropped ({dropped})"


def _split(out: Path) -> str:
    from ..finetune.splits import SplitOptions, split_store

    audit = split_store(out / "store", out / "split.json", SplitOptions(seed=SEED, test=0.15, validation=0.05))
    return ", ".join(f"{fold}: {count['molecules']:,} molecules" for fold, count in audit["folds"].items())


def _pretrain(out: Path, threads: int | None) -> None:
    from ..pretrain.config import PretrainConfig
    from ..pretrain.run import pretrain

    config = load_config(PretrainConfig, "demo-pretrain")
    data = replace(config.data, store=out / "store", split=out / "split.json")
    training = replace(config.training, threads=threads)
    _expect(pretrain(replace(config, output=out / "pretraining", data=data, training=training)))


def _finetune(out: Path, threads: int | None) -> None:
    from ..finetune.config import FinetuneConfig
    from ..finetune.run import finetune

    config = load_config(FinetuneConfig, "demo-finetune")
    data = replace(config.data, store=out / "store", split=out / "split.json")
    init = replace(config.init, model=out / "pretraining" / "model")
    training = replace(config.training, threads=threads)
    _expect(finetune(replace(config, output=out / "finetuning", data=data, init=init, training=training)))


def _expect(model: Path) -> None:
    """Go on only with a whole model: training that is told to stop leaves a checkpoint, and returns."""
    if not model.is_dir():
        raise KeyboardInterrupt


def _build_index(out: Path) -> Index:
    from ..embeddings.index import build
    from ..encoder.loading import load_model

    return build(out / "laboratory-a.msp", out / "index", load_model(out / "finetuning" / "model"))


def _search(out: Path, index: Index) -> tuple[str, list[ShownSearch]]:
    """Search the test molecules' spectra of the other laboratory; return a summary, and some searches to show."""
    from ..embeddings.kinds import search
    from ..spectra.readers import read

    split = Split.load(out / "split.json")
    queries = [s for s in read(out / "laboratory-b.mgf") if split.fold_of([s.inchikey])[0] == "test"]
    write_mgf(queries, out / "queries.mgf")
    summary = search(index, out / "queries.mgf", out / "hits.tsv")
    return str(summary), choose_searches(index, queries, seed=SEED)


def _evaluate(out: Path) -> dict[str, Any]:
    from ..evaluation.baselines.networks import TrainedBaselineOptions
    from ..evaluation.mces_at_1 import MCESOptions
    from ..evaluation.run import EvaluationConfig, evaluate

    logs = {"pretraining": out / "pretraining" / "log.jsonl", "fine-tuning": out / "finetuning" / "log.jsonl"}
    models: dict[str, str | tuple[str, ...]] = {
        "pretrained only": str(out / "pretraining" / "model"),
        "fine-tuned": str(out / "finetuning" / "model"),
    }
    config = EvaluationConfig(
        out / "store",
        out / "split.json",
        models=models,
        loss_logs=logs,
        seed=SEED,
        # One training of each network instead of three, and a small sample for the solver: a demo is short.
        trained_baselines=TrainedBaselineOptions(trainings=1, max_epochs=10),
        mces=MCESOptions(max_queries=50),
    )
    return evaluate(config, out / "evaluation")


def _finish(out: Path, stages: _Stages, shown: Sequence[ShownSearch], results: dict[str, Any]) -> None:
    """Write the page and the manifest: from now on the folder is a finished demo."""
    from ..evaluation.report.mirror import save_mirror
    from .page import write_page

    for number, search in enumerate(shown, start=1):
        save_mirror(search.query, search.best, out / f"mirror-{number}.svg", title="predicted spectra")
    write_page(out, NOTICE, stages.rows, shown, results)
    stages_run = {name: {"seconds": round(seconds, 1), "outcome": said} for name, seconds, said in stages.rows}
    write_manifest(out, {"command": "demo", "notice": NOTICE, "seed": SEED, "stages": stages_run})
    (out / _UNFINISHED).unlink()
