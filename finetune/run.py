"""Fine-tune an encoder for retrieval by supervised contrast: ``ionbed finetune CONFIG``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..artifacts import sha256_of_file
from ..configs.loading import to_tree
from ..encoder.loading import load_model
from ..pretrain.data import TrainingSpectra
from ..pretrain.loop import train
from ..pretrain.run import COLUMNS, open_training_spectra, run_identity, sole_run, write_model
from ..pretrain.signals import StopSignal, heeding
from ..pretrain.trackers import check_trackers
from ..pretrain.turns import main_first
from ..spectra.molecule_features import FEATURES_VERSION
from .config import FinetuneConfig
from .molecule_share import without_whole_share
from .pool import check_pool, read_pool
from .task import ContrastiveTask

logger = logging.getLogger("ionbed")


def finetune(config: FinetuneConfig, *, resume: str | None = None, stop: StopSignal | None = None) -> Path:
    """Fine-tune an encoder by supervised contrast and write its model folder.

    Positives are spectra of one molecule (first InChIKey block); negatives include its isobars within the precursor
    window. See `ionbed.pretrain.run.pretrain` for the parameters, the result and the errors.
    """
    with sole_run(config.output), heeding(stop) as stop:
        # Now, not when the data has been made ready.
        check_trackers(config.training.trackers)
        file = config.molecules.pool_in_use
        if file is not None:
            check_pool(file)
        elif config.molecules.pool is not None:
            logger.warning(
                "%s: is named as molecules.pool, but nothing is drawn from it: molecules.weight or pool_share is 0",
                config.molecules.pool,
            )
        spectra = open_training_spectra(config.output, resume, lambda cache: TrainingSpectra(config.data, cache))
        cache = config.output / COLUMNS
        pool = main_first(lambda: read_pool(file, cache), cache) if file is not None else None
        task = ContrastiveTask(config, spectra, pool)
        identity = finetuning_identity(config, spectra)
        tree = to_tree(config)
        about = {"command": "finetune", "config": tree}
        summary = train(task, config.training, config.output, identity, resume, stop, about)
        return write_model(task.encoder, config.output, "finetune", tree, spectra, task.rows, summary, task.weights)


def finetuning_identity(config: FinetuneConfig, spectra: TrainingSpectra) -> dict[str, Any]:
    """Return what decides the weights of a run; see `ionbed.pretrain.run.run_identity`."""
    identity = run_identity(config, spectra, dropout=config.init.dropout)
    if config.init.model:
        identity["init"]["model"] = load_model(config.init.model).model_hash()
        del identity["init"]["random"]
    del identity["recompute"]
    identity = without_whole_share(identity)
    # What is off changes nothing.
    for section, name in (("sampling", "formula_negatives_per_anchor"), ("sampling", "spread_conditions"),
                          ("loss", "fingerprint")):  # fmt: skip
        if not identity[section][name]:
            del identity[section][name]
    if not config.molecules.weight:
        del identity["molecules"]
    else:
        pool = config.molecules.pool_in_use
        identity["molecules"]["pool"] = sha256_of_file(pool) if pool is not None else None
        identity["molecules"]["features_version"] = FEATURES_VERSION
        # As of before there was this line, salts and protons were as the store draws them.
        identity["molecules"]["structures_drawn_as"] = "parent molecules"
    return identity
