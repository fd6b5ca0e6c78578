"""Pretrain an encoder: ``ionbed pretrain CONFIG``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifacts import MANIFEST, atomic_folder, exclusive, sha256_of_file, write_manifest
from ..configs.loading import to_tree
from ..encoder.modeling_ionbed import IonbedModel
from ..errors import InputError
from .card import CARD, model_card
from .checkpoints import written
from .config import PretrainConfig
from .data import TrainingSpectra
from .loop import train
from .parallel import unsharded
from .processes import process_state, refuse_other_loops
from .provenance import data_record, last_losses, training_record
from .run_record import LOG, RECORD
from .signals import StopSignal, heeding
from .task import MaskedPeakTask
from .trackers import PACKAGES, check_trackers
from .turns import in_all, main_first

logger = logging.getLogger("ionbed")

MODEL_FOLDER = "model"
COLUMNS = "columns"
"""Folder in the output, while the run lasts, of the memory-mapped training spectra; see `MappedStore`."""
HOW_IT_RUNS = (
    "threads", "loader_workers", "parallelism", "spike_deviations", "log_every", "validate_every", "checkpoint_every",
    "keep_checkpoints", "trackers",
)  # fmt: skip
"""Options of the loop that may change when a run goes on: they do not decide what it learns."""


def pretrain(config: PretrainConfig, *, resume: str | None = None, stop: StopSignal | None = None) -> Path:
    """Pretrain an encoder by masked-peak modelling and write its model folder.

    Parameters
    ----------
    config : PretrainConfig
    resume : {'auto', None} or path
        'auto' goes on from the latest checkpoint in ``config.output`` that is whole, if there is one.
    stop : StopSignal, optional
        Entered by the caller, who wants signals before this call to be heeded too.

    Returns
    -------
    Path
        ``config.output / 'model'``, loadable by `ionbed.load_model`. A run stopped by a signal leaves a checkpoint
        and no model folder.

    Raises
    ------
    InputError
        The store, the split, the output or a checkpoint to resume from is unusable.
    """
    with sole_run(config.output), heeding(stop) as stop:
        check_trackers(config.training.trackers)  # now, not when the data has been made ready
        spectra = open_training_spectra(config.output, resume, lambda cache: TrainingSpectra(config.data, cache))
        task = MaskedPeakTask(config, spectra)
        identity = run_identity(config, spectra, dropout=config.model.dropout)
        if config.objectives.needs_runs:
            identity["runs"] = spectra.store_manifest["pairs"]
        if not config.objectives.names:
            del identity["objectives"]  # what is off changes nothing
        about = {"command": "pretrain", "config": to_tree(config)}
        summary = train(task, config.training, config.output, identity, resume, stop, about)
        return write_model(
            task.encoder, config.output, "pretrain", to_tree(config), spectra, task.rows, summary, task.weights
        )


@contextmanager
def sole_run(output: Path) -> Iterator[None]:
    """Keep other runs from ``output``, and remove what this one has made there before an error kept it from starting.

    Raises
    ------
    InputError
        Another run is writing there, or the launcher has set up accelerate to train in another way.
    """
    refuse_other_loops()
    created = [folder for folder in (output, *output.parents) if not folder.exists()]
    is_main = process_state().is_main_process
    try:
        with ExitStack() as held:
            in_all(lambda: held.enter_context(exclusive(output)) if is_main else None)
            had_columns = (output / COLUMNS).exists()
            try:
                yield
            except (InputError, SystemExit):  # the latter where another process has the error: see `in_all`
                if is_main and not had_columns:
                    shutil.rmtree(output / COLUMNS, ignore_errors=True)
                raise
    except (InputError, SystemExit):
        for folder in created if is_main else ():
            with suppress(OSError):  # not empty: a run had begun
                folder.rmdir()
        raise


def holds_a_run(output: Path) -> bool:
    """Return whether ``output`` holds more than what a run leaves that was killed before its first step."""
    if not output.is_dir():
        return output.exists()
    leftovers = {COLUMNS, f".{LOG}.partial", f".{RECORD}.partial", RECORD, *PACKAGES}
    if (log := output / LOG).is_file() and not log.stat().st_size:
        leftovers.add(LOG)
    return any(entry.name not in leftovers for entry in output.iterdir())


def open_training_spectra(
    output: Path, resume: str | None, open_spectra: Callable[[Path], TrainingSpectra]
) -> TrainingSpectra:
    """Check the output folder, then open the training spectra, the main process first (it makes the mapped files)."""
    state = process_state()

    def check_and_open() -> TrainingSpectra:
        # The main process alone looks: the others may come when it has begun to write.
        if resume is None and state.is_main_process and holds_a_run(output):
            raise InputError(f"{output}: already exists; go on with its run by --resume auto, or choose another output")
        return open_spectra(output / COLUMNS)

    return main_first(check_and_open, output / COLUMNS)


def run_identity(config: Any, spectra: TrainingSpectra, *, dropout: float) -> dict[str, Any]:
    """Return what decides the weights of a run: options, data and split, but not where or how fast it runs."""
    tree = to_tree(config)
    tree.pop("output")
    for name in ("store", "split", "validation_spectra"):
        tree["data"].pop(name)
    for name in HOW_IT_RUNS:
        tree["training"].pop(name)
    if dropout == 0:  # else the parts of a batch decide what is dropped
        tree["training"].pop("micro_batch_tokens")
    shards = [shard["sha256"] for shard in spectra.store_manifest["shards"]]
    return {**tree, "store": shards, "split": spectra.split.hash if spectra.split else None}


def write_model(
    encoder: IonbedModel,
    output: Path,
    command: str,
    tree: dict[str, Any],
    spectra: TrainingSpectra,
    rows: np.ndarray,
    summary: Mapping[str, Any],
    terms: Iterable[str],
) -> Path:
    """Write the model folder and the run's manifest, on the main process; see `pretrain`.

    ``rows`` are those trained on, ``summary`` is that of `ionbed.pretrain.loop.train`, ``terms`` are those of the loss.
    A run that was finished before is left as it is.
    """
    folder = output / MODEL_FOLDER
    is_done = summary["new_steps"] == 0 and (output / MANIFEST).exists() and folder.exists()
    encoder = unsharded(encoder)

    def write() -> None:
        if not (process_state().is_main_process and summary["finished"]):
            return
        if not is_done:
            stage = {
                "command": command,
                **({"task": tree["task"]} if "task" in tree else {}),
                "split": spectra.split.hash if spectra.split else None,
                "folds": list(tree["data"]["folds"]) if spectra.split else [],
                "spectra": len(rows),
                "molecules": spectra.num_molecules(rows),
                "store": [shard["sha256"] for shard in spectra.store_manifest["shards"]],
                **training_record(tree, summary, output / LOG),
                **data_record(Path(tree["data"]["store"]), spectra.store_manifest, rows),
            }
            encoder.config.training = [*encoder.config.training, stage]
            if summary["steps"]:  # it was fitted for the weights that training began with
                encoder.config.fusion = None
            manifest = {
                "command": command,
                "config": tree,
                "store_counts": spectra.store_manifest["counts"],
                "training": stage,
                "model_hash": encoder.model_hash(),
                "seed": tree["training"]["seed"],
                "torch": torch.__version__,
                "last_losses": last_losses(output / LOG, terms),
                **{name: value for name, value in summary.items() if name != "new_steps"},
            }
            write_model_folder(encoder, folder, manifest)
            write_manifest(output, {**manifest, "model_sha256": sha256_of_file(folder / "model.safetensors")})
        shutil.rmtree(output / COLUMNS, ignore_errors=True)

    main_first(write, output)  # whose spectra they were takes minutes to read from a large store
    return folder


def write_model_folder(encoder: IonbedModel, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write weights, configuration and card of a model; ``manifest`` is that of its run."""
    from .. import __version__

    card = model_card(
        encoder.config,
        encoder.num_parameters(),
        manifest["model_hash"],
        {"ionbed_version": __version__, **manifest},
    )
    with written(folder), atomic_folder(folder, overwrite=True) as partial:
        encoder.save_pretrained(partial)
        (partial / CARD).write_text(card, encoding="utf-8")
