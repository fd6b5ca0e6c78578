"""The record of a stage of training that a model carries with it: from which data, how long, on which machines."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..spectra.store import Store
from .card import citations_of
from .run_record import read_log
from .sources import num_predicted, ranges_of, sources_of

logger = logging.getLogger("ionbed")


def data_record(folder: Path, manifest: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return whose spectra were trained on, under which licences, what to cite for them, and what kinds they were of.

    Empty, with a warning, where the store cannot be read any more: that must not cost a finished run its model, whose
    card then says that its sources are not recorded.

    Parameters
    ----------
    folder : Path
        The store.
    manifest : mapping
        What its manifest was when training began.
    rows : int array of shape (n,)
        Rows of the store that were trained on.
    """
    try:
        store = Store(folder)
        if store.manifest["shards"] != manifest["shards"]:
            raise InputError(f"{folder}: was made anew since the training began")
        return {
            "sources": sources_of(store, rows),
            "predicted": num_predicted(store, rows),
            "citations": citations_of(manifest),
            "ranges": ranges_of(store, rows),
        }
    except InputError as error:
        logger.warning("the model's card cannot name its sources: %s", error)
        return {}


def training_record(tree: Mapping[str, Any], summary: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """Return how long and on what a run has trained.

    Parameters
    ----------
    tree : mapping
        The options of the run.
    summary : mapping
        As `ionbed.pretrain.loop.train` returns it.
    log : Path
        The run's log, whose lines tell the share of the measured peak.
    """
    shares = [entry["mfu"] for entry in _lines(log) if isinstance(entry.get("mfu"), (int, float))]
    training, sampling, data = tree["training"], tree.get("sampling"), tree["data"]
    share = {name: data[name] for name in ("molecules_share", "molecules_seed") if data.get("molecules_share", 1) < 1}
    batch = (
        f"{sampling['anchors']:,} molecules of {sampling['spectra_per_molecule']:,} spectra, and their negatives"
        if sampling
        else f"{training['batch_tokens']:,} tokens"
    )
    return {
        **share,
        "steps": summary["steps"],
        "batch": batch,
        "spectra_seen": summary["spectra"],
        "tokens_seen": summary["tokens"],
        "seconds": summary["seconds"],
        "skipped_steps": summary["skipped_steps"],
        "mfu": round(median(shares), 4) if shares else None,
        "precision": training["precision"],
        "hardware": hardware(summary["processes"], summary["device"]),
    }


def hardware(processes: int, device: str) -> str:
    """Return on what this run computes, for example '8 processes on 2 nodes, NVIDIA H100 80GB HBM3'."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    nodes = max(1, processes // max(local, 1))
    where = f" on {nodes} nodes" if nodes > 1 else ""
    chip = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    threads = "" if device.startswith("cuda") else f", {torch.get_num_threads()} threads each"
    return f"{processes} process{'es' if processes > 1 else ''}{where}, {chip}{threads}".replace(
        "1 threads each", "1 thread each"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):  # not Linux, or a processor that does not say its name there
        return platform.processor() or platform.machine()


def last_losses(log: Path, terms: Iterable[str]) -> dict[str, float]:
    """Return the losses of the last line of a training log that has them: the whole loss, and each of ``terms``."""
    last: dict[str, float] = {}
    for entry in _lines(log):
        if isinstance(entry.get("loss"), (int, float)):
            last = {name: entry[name] for name in ("loss", *terms) if isinstance(entry.get(name), (int, float))}
    return last


def _lines(log: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a training log, none where there is no log."""
    return read_log(log)[0] if log.is_file() else []
