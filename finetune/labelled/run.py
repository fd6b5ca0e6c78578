"""Train a model of labels: ``ionbed finetune CONFIG`` with a configuration that has a ``task``."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...artifacts import MANIFEST, read_manifest
from ...configs.loading import to_tree
from ...encoder.modeling_ionbed import IonbedModel
from ...errors import InputError
from ...pretrain.loop import train
from ...pretrain.parallel import unsharded
from ...pretrain.processes import process_state
from ...pretrain.run import MODEL_FOLDER, open_training_spectra, run_identity, sole_run, write_model
from ...pretrain.signals import StopSignal, heeding
from ...pretrain.trackers import check_trackers
from ...pretrain.turns import main_first
from ..molecule_share import share_in_use, without_whole_share
from .calibration import Calibration, conformal_half_width, fit_calibration
from .config import LabelledConfig
from .examples import OWN_SPLIT, LabelledSpectra
from .labels import summary
from .linear import Examples, LinearHead, fit_linear
from .lora import check_peft
from .model import HEAD, LabelledModel, feature_blocks, head_features, load_labelled_model
from .task import TERM, LabelledTask, starting_encoder

logger = logging.getLogger("ionbed")

MOST_FITTED = 50_000
"""Training spectra that a linear head is fitted on, at most; more would take time and change little."""


def train_on_labels(config: LabelledConfig, *, resume: str | None = None, stop: StopSignal | None = None) -> Path:
    """Train a head on an encoder's embeddings, and the encoder with it where that is wanted; write the model folder.

    A frozen encoder's embeddings are computed once, and a linear head is fitted on them. LoRA and full fine-tuning
    start from that head and go through `ionbed.pretrain.loop.train`, with early stopping on the validation fold, on
    which probabilities are calibrated afterwards.

    Parameters
    ----------
    config : LabelledConfig
    resume, stop
        See `ionbed.pretrain.run.pretrain`.

    Returns
    -------
    Path
        ``config.output / 'model'``: an encoder for `ionbed.load_model`, with the head that
        `ionbed.finetune.labelled.model.load_labelled_model` reads. The split that was made, if none was given, is
        ``config.output / 'split.json'``. A run stopped by a signal leaves a checkpoint and no model folder; one of a
        frozen encoder, which has no steps, ends by KeyboardInterrupt.

    Raises
    ------
    InputError
        The store, the split, the labels, the output or a checkpoint to resume from is unusable.
    """
    with sole_run(config.output), heeding(stop) as stop:
        check_trackers(config.training.trackers)  # now, not when the data has been made ready
        if config.init.train == "lora":
            check_peft()
        encoder = starting_encoder(config.init, config.training.seed)
        loaded: list[LabelledSpectra] = []

        def open_spectra(cache: Path) -> LabelledSpectra:
            loaded.append(LabelledSpectra(config, cache))
            if config.init.train == "frozen":
                _refuse_another_run(config, loaded[0], encoder.model_hash())
            return loaded[0]

        open_training_spectra(config.output, resume, open_spectra)
        spectra = loaded[0]
        source_hash = encoder.model_hash()
        began = time.perf_counter()
        head = fit_head(config, spectra, encoder)
        if stop.requested and config.init.train == "frozen":
            raise KeyboardInterrupt  # there is no step to end and no checkpoint to write
        config = _with_split(config, spectra)
        tree = to_tree(config)
        if config.init.train == "frozen":
            record = _summary_of_fit(spectra, head, time.perf_counter() - began)
        else:
            task = LabelledTask(config, spectra, encoder.train(), head)
            identity = run_identity(config, spectra, dropout=max(config.init.dropout, config.init.lora_dropout))
            identity = without_whole_share(identity)
            del identity["report"]  # it decides nothing
            identity |= {"labels": spectra.labels.hash, "init": {**identity["init"], "model": source_hash}}
            about = {"command": "finetune", "config": tree}
            record = train(task, config.training, config.output, identity, resume, stop, about, config.head.patience)
            head = task.module.fitted_head()
            encoder = unsharded(encoder)
            if task.adapter is not None:
                task.adapter.merge()
        model = calibrated(config, spectra, encoder, head) if record["finished"] else None
        folder = write_model(encoder, config.output, "finetune", tree, spectra, spectra.train_rows, record, (TERM,))
        if model is not None:
            main_first(lambda: model.save_head(folder) if process_state().is_main_process else None, config.output)
        return folder


def fit_head(config: LabelledConfig, spectra: LabelledSpectra, encoder: IonbedModel) -> LinearHead:
    """Fit a linear head on the embeddings of an encoder as it is."""
    rows_to_fit = drawn(spectra.train_rows, MOST_FITTED, config.training.seed)
    if len(rows_to_fit) < len(spectra.train_rows) and process_state().is_main_process:
        logger.info("the linear head is fitted on %s of %s training spectra, drawn at random", f"{MOST_FITTED:,}",
                    f"{len(spectra.train_rows):,}")  # fmt: skip
    train, validation = (
        examples_of(spectra, rows, features_of(config, spectra, encoder, rows))
        for rows in (rows_to_fit, spectra.validation_rows_all)
    )
    blocks = feature_blocks(encoder, measurement=config.head.measurement)
    return fit_linear(config.task, spectra.labels.num_outputs, train, validation, config.head, blocks)


def _num_fitted(config: LabelledConfig, spectra: LabelledSpectra) -> int:
    rows = len(spectra.train_rows)
    return min(rows, MOST_FITTED) if config.init.train == "frozen" else rows


def drawn(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return at most ``most`` of ``rows``, drawn at random, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def examples_of(spectra: LabelledSpectra, rows: np.ndarray, features: np.ndarray) -> Examples:
    """Return the answers of ``rows`` beside their ``features``, numbers scaled."""
    return Examples(features, spectra.scaled_values[rows], spectra.votes(rows))


def features_of(config: LabelledConfig, spectra: LabelledSpectra, encoder: IonbedModel, rows: np.ndarray) -> np.ndarray:
    """Return what a head reads of ``rows``, float32 of shape (N, D); embedded on the GPU where there is one."""
    movable: Any = encoder  # transformers wraps `to` in a function without its types
    movable.to(process_state().device)
    columns = spectra.columns(rows)
    embeddings = encoder.embed(columns, progress=process_state().is_main_process)
    return head_features(embeddings, columns, measurement=config.head.measurement)


def calibrated(
    config: LabelledConfig, spectra: LabelledSpectra, encoder: IonbedModel, head: LinearHead
) -> LabelledModel:
    """Return the model with its probabilities, or the widths of its intervals, fitted on the validation fold."""
    rows = spectra.validation_rows_all
    scores, votes = head(features_of(config, spectra, encoder, rows)), spectra.votes(rows)
    outputs = spectra.labels.num_outputs
    half_width = np.full(outputs, np.inf)
    if config.task == "regression":
        calibration = Calibration("none", np.ones(outputs), np.zeros(outputs))
        predicted = scores * spectra.spread + spectra.mean
        # Whoever votes, spectra of one molecule are no independent witnesses of what others will be like.
        of_molecules = votes * (len(np.unique(spectra.molecule[rows])) / votes.sum())
        half_width = conformal_half_width(spectra.labels.values[rows], predicted, of_molecules, config.head.interval)
    else:
        kind = config.head.calibration
        calibration = fit_calibration(config.task, kind, scores, spectra.labels.values[rows], votes)
    about = {
        "labels": summary(spectra.labels),
        "fitted": {
            "trained": config.init.train,
            "spectra": _num_fitted(config, spectra),
            "molecules": len(np.unique(spectra.molecule[spectra.train_rows])),
            "calibrated on spectra": len(rows),
            "calibrated on molecules": len(np.unique(spectra.molecule[rows])),
            "split": spectra.split.hash if spectra.split else None,
            "penalty": None if np.isnan(head.penalty) else head.penalty,
        },
    }
    return LabelledModel(
        encoder, head, config.task, spectra.labels.names, calibration, spectra.mean, spectra.spread, half_width,
        config.head.interval, config.head.measurement, config.head.imbalance == "inverse-frequency", about,
    )  # fmt: skip


def _refuse_another_run(config: LabelledConfig, spectra: LabelledSpectra, encoder_hash: str) -> None:
    """Raise InputError if the output holds the model of other options, spectra or labels, which would be lost.

    A frozen encoder has no checkpoints, by which `ionbed.pretrain.loop.train` tells another run.
    """
    if not (config.output / MANIFEST).is_file():
        return
    manifest = read_manifest(config.output, made_by="finetune")
    before = manifest["config"]
    now = json.loads(json.dumps(to_tree(config)))
    other = [name for name in ("task", "labels", "init", "head") if before.get(name) != now[name]]
    if share_in_use(before["data"]) != share_in_use(now["data"]):
        other.append("data.molecules_share or data.molecules_seed")
    if before["training"]["seed"] != config.training.seed:
        other.append("training.seed")
    shards = [shard["sha256"] for shard in spectra.store_manifest["shards"]]
    if manifest["training"]["store"] != shards:
        other.append("data.store (its spectra)")
    if not other and manifest["model_hash"] != encoder_hash:  # at the same path
        other.append("init.model (its weights)")
    model = config.output / MODEL_FOLDER
    if not other and (model / HEAD).is_file():
        fitted = load_labelled_model(model).about
        split = spectra.split.hash if spectra.split else None
        same = {
            "labels": fitted["labels"]["sha256"] == spectra.labels.hash,
            "split": fitted["fitted"]["split"] == split,
        }
        other = [name for name, is_same in same.items() if not is_same]
    if other:
        raise InputError(
            f"{config.output}: holds a model of other values of {', '.join(other)}; choose another output, or remove it"
        )


def _with_split(config: LabelledConfig, spectra: LabelledSpectra) -> LabelledConfig:
    """Return the configuration with the split that is in use; one that was made is written into the output."""
    if config.data.split is not None:
        return config
    path = config.output / OWN_SPLIT
    if process_state().is_main_process and spectra.split is not None:
        spectra.split.save(path)
        logger.info("the split is %s", path)
    return replace(config, data=replace(config.data, split=path))


def _summary_of_fit(spectra: LabelledSpectra, head: LinearHead, seconds: float) -> dict[str, Any]:
    """Return what `ionbed.pretrain.loop.train` would of a run that only fits a head."""
    rows = spectra.train_rows
    return {
        "steps": 0,
        "new_steps": 1,  # it was fitted now, whatever was there before
        "finished": True,
        "epochs": 1,
        "skipped_steps": 0,
        "loss_spikes": 0,
        "seconds": round(seconds, 1),
        "spectra": len(rows),
        "tokens": int((spectra.num_peaks[rows].astype(np.int64) + 1).sum()),
        "spectra_per_second": round(len(rows) / max(seconds, 1e-9), 1),
        "processes": process_state().num_processes,
        "device": str(process_state().device),
        "validation": {"loss": head.losses[head.penalty], TERM: head.losses[head.penalty]},
    }
