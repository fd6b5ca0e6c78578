"""`ionbed evaluate`: measure models beside the look-ups on the tasks, and write the report."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..artifacts import atomic_folder, refuse_existing, write_manifest
from ..configs.loading import to_tree
from ..errors import InputError
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .baselines.lookups import LookupOptions, lookup_scorers, require_lookups
from .dataset import EvaluationData, load_evaluation_data
from .measure import (
    ORACLE,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
    BootstrapOptions,
    TaskResult,
    measure_analogue_search,
    measure_library_search,
    measure_same_molecule,
)
from .provenance import check_exposure, training_stages
from .report.figures import read_losses
from .report.write import results_tree, write_report
from .scorers import Chance, Encoder, Learned, PrecursorOnly, Scorer, rows_needed
from .tasks import (
    AnalogueSearchOptions,
    LibrarySearchOptions,
    SameMoleculeOptions,
    analogue_search_task,
    library_search_task,
    same_molecule_task,
)

logger = logging.getLogger("ionbed")


@dataclass(frozen=True)
class EvaluationConfig:
    """Everything an evaluation depends on; ``configs/evaluate.yaml`` explains each key.

    Attributes
    ----------
    dataset : Path
        A store written by ``ionbed prepare``.
    split : Path
        A split file, the one that the models were trained with.
    fold : str
        Fold whose molecules are the queries.
    models : dict of str to str
        Path or id of a model by its label, in the order of the table.
    loss_logs : dict of str to Path
        Training logs (``log.jsonl``) by label, drawn as curves in the report.
    allow_other_split : bool
        Whether to go on with a model that may have seen the molecules of the queries; the report then says so.
    seed : int
        Of every draw: pairs, queries, resamples.
    """

    dataset: Path
    split: Path
    fold: Literal["test", "validation"] = "test"
    models: dict[str, str] = field(default_factory=dict)
    loss_logs: dict[str, Path] = field(default_factory=dict)
    allow_other_split: bool = False
    seed: int = 0
    same_molecule: SameMoleculeOptions = field(default_factory=SameMoleculeOptions)
    library_search: LibrarySearchOptions = field(default_factory=LibrarySearchOptions)
    analogue_search: AnalogueSearchOptions = field(default_factory=AnalogueSearchOptions)
    lookups: LookupOptions = field(default_factory=LookupOptions)
    bootstrap: BootstrapOptions = field(default_factory=BootstrapOptions)


def evaluate(config: EvaluationConfig, out: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, Any]:
    """Measure every model and every look-up, and write the report folder.

    The folder holds ``report.html``, ``results.json``, ``table.md``, one Parquet file per task with every query's
    outcome, figures, and ``manifest.json``.

    Returns
    -------
    dict
        The content of ``results.json``.

    Raises
    ------
    InputError
        ``out`` is taken, an input is missing or unusable, the look-ups are not installed, or a model may have seen
        the molecules of the queries (see `ionbed.evaluation.provenance`).
    """
    refuse_existing(out, overwrite=overwrite)
    require_lookups()
    for label, log in config.loss_logs.items():
        if not log.is_file():
            raise InputError(f"{log}: no such file; it is the training log named '{label}' in 'loss_logs'")
        read_losses(log)  # a log that cannot be drawn is refused before the long work, not after
    split = Split.load(config.split)
    if MOLECULES in split.shares:
        raise InputError(
            f"{config.split}: its folds share molecules (kind '{split.kind}'), and every task asks about molecules "
            "that no training has seen; make a split that shares none (docs/splits.md)"
        )
    store = Store(config.dataset)
    models = {label: _load(source) for label, source in config.models.items()}
    exposed = {
        label: check_exposure(label, config.models[label], model, split, config.fold, allow=config.allow_other_split)
        for label, model in models.items()
    }
    data = load_evaluation_data(store, split)
    if not len(data.rows_in(config.fold)):
        raise InputError(f"{config.split}: no evaluable spectrum is in fold '{config.fold}'; make a larger split")
    results = run_tasks(data, models, config)
    tree = results_tree(
        results,
        config=to_tree(config),
        inputs={
            "store": [shard.get("sha256") for shard in store.manifest["shards"]],
            "spectra": len(data),
            "molecules": len(data.inchikey_block),
            "predicted spectra": data.num_predicted,
            "spectra left out": data.excluded,
            "split": {"kind": split.kind, "seed": split.seed, "hash": split.hash},
            "models": {
                label: {
                    "source": config.models[label],
                    "hash": _hash(model),
                    "training": training_stages(model),
                    "exposure": exposed[label],
                }
                for label, model in models.items()
            },
        },
    )
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_report(folder, tree, results, data, loss_logs=config.loss_logs, seed=config.seed)
        write_manifest(folder, {"command": "evaluate", "config": tree["config"], "inputs": tree["inputs"]})
    return tree


def run_tasks(data: EvaluationData, models: Mapping[str, Encoder], config: EvaluationConfig) -> list[TaskResult]:
    """Run the tasks on ``data`` with every look-up and every model; the result of each, in order."""
    pairs = {
        SAME_MOLECULE: same_molecule_task(data, config.fold, config.same_molecule, seed=config.seed),
        SAME_MOLECULE_ANY_PARTNER: same_molecule_task(
            data, config.fold, config.same_molecule, seed=config.seed, partners="all"
        ),
    }
    library_search = library_search_task(data, config.fold, config.library_search, seed=config.seed)
    analogue_search = analogue_search_task(data, config.fold, config.analogue_search, seed=config.seed)
    scorers: list[Scorer] = [Chance(), PrecursorOnly(data.columns), *lookup_scorers(data.columns, config.lookups)]
    for taken in {scorer.label for scorer in scorers} | {ORACLE}:
        if taken in models:
            raise InputError(f"models: '{taken}' is the label of a row that is always there; choose another")
    if models:
        rows = rows_needed(
            *((task.first, task.second) for task in pairs.values()),
            (library_search.queries, library_search.library),
            analogue_search.queries,
            analogue_search.libraries,
        )
        for label, model in models.items():
            logger.info("embedding %s spectra with '%s'", f"{len(rows):,}", label)
            scorers.append(Learned(label, model, data.columns, rows))
    return [
        *(
            measure_same_molecule(data, task, scorers, config.bootstrap, seed=config.seed, name=name)
            for name, task in pairs.items()
        ),
        measure_library_search(data, library_search, scorers, config.bootstrap, seed=config.seed),
        measure_analogue_search(data, analogue_search, scorers, config.bootstrap, seed=config.seed),
    ]


def _load(source: str) -> Encoder:
    from ..encoder.loading import load_model

    return load_model(source)


def _hash(model: Encoder) -> str | None:
    model_hash = getattr(model, "model_hash", None)
    return None if model_hash is None else str(model_hash())
