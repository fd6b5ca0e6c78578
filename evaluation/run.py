"""`ionbed evaluate`: measure models beside all that they have to beat, on every question, and write the report."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ..configs.loading import to_tree
from ..errors import InputError
from ..spectra.lookups import LookupOptions
from ..spectra.split import MOLECULES, Split
from ..spectra.store import Store
from .audits.findings import findings_tree, void_reasons
from .audits.run import AuditOptions, audit_outcomes, run_audits
from .baselines.blind import BlindOptions
from .baselines.lookup_record import lookup_record, require_evaluation_packages
from .baselines.networks import TrainedBaselineOptions
from .baselines.predicted_spectra import PredictedSpectraOptions
from .baselines.transfer import TransferOptions
from .candidates import Candidates, candidate_molecules
from .comparisons import (
    ANALOGUE_SEARCH,
    KIND_OF,
    LIBRARY_SEARCH,
    OPEN_WORLD_SEARCH,
    RETRIEVAL_BY_FORMULA,
    RETRIEVAL_BY_MASS,
    RETRIEVAL_FROM_LISTS,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
)
from .dataset import EvaluationData, load_evaluation_data
from .mces_at_1 import MCESDistances, MCESOptions
from .measure import measure
from .provenance import check_exposure, training_stages
from .query_properties import nearest_train_tanimoto
from .question import ask
from .resampling import with_units
from .retrieval import RetrievalOptions
from .rows import table_rows
from .scorers import Encoder
from .statistics import BootstrapOptions
from .tasks import AnalogueSearchOptions, LibrarySearchOptions, SameMoleculeOptions

logger = logging.getLogger("ionbed")

FORMAT = 2
"""Of ``results.json``."""


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
    tasks : tuple of str
        The questions that are asked, by the names of `ionbed.evaluation.comparisons.KIND_OF`.
    models : dict of str to str or tuple of str
        Path or id of a model by its label, in the order of the table; several are several trainings of it.
    loss_logs : dict of str to Path
        Training logs (``log.jsonl``) by label, drawn as curves in the report.
    allow_other_split : bool
        Whether to go on with a model that may have seen the molecules of the queries; the report then says so.
    cache : Path or None
        Folder in which fingerprints, distances and trained baselines are kept from one evaluation to the next.
    workers : int or None
        Threads and processes; all cores where None.
    seed : int
        Of every draw: pairs, queries, resamples.
    """

    dataset: Path
    split: Path
    fold: Literal["test", "validation"] = "test"
    tasks: tuple[str, ...] = (
        SAME_MOLECULE,
        SAME_MOLECULE_ANY_PARTNER,
        LIBRARY_SEARCH,
        OPEN_WORLD_SEARCH,
        ANALOGUE_SEARCH,
        RETRIEVAL_BY_MASS,
        RETRIEVAL_BY_FORMULA,
    )
    models: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    loss_logs: dict[str, Path] = field(default_factory=dict)
    allow_other_split: bool = False
    cache: Path | None = None
    workers: int | None = None
    seed: int = 0
    same_molecule: SameMoleculeOptions = field(default_factory=SameMoleculeOptions)
    library_search: LibrarySearchOptions = field(default_factory=LibrarySearchOptions)
    analogue_search: AnalogueSearchOptions = field(default_factory=AnalogueSearchOptions)
    retrieval: RetrievalOptions = field(default_factory=RetrievalOptions)
    lookups: LookupOptions = field(default_factory=LookupOptions)
    transfer: TransferOptions = field(default_factory=TransferOptions)
    predicted_spectra: PredictedSpectraOptions = field(default_factory=PredictedSpectraOptions)
    blind: BlindOptions = field(default_factory=BlindOptions)
    trained_baselines: TrainedBaselineOptions = field(default_factory=TrainedBaselineOptions)
    audits: AuditOptions = field(default_factory=AuditOptions)
    mces: MCESOptions = field(default_factory=MCESOptions)
    bootstrap: BootstrapOptions = field(default_factory=BootstrapOptions)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"'tasks' is empty; it may hold {', '.join(KIND_OF)}")
        for name in self.tasks:
            if name not in KIND_OF:
                raise ValueError(f"'tasks' holds '{name}'; it may hold {', '.join(KIND_OF)}")
            if self.tasks.count(name) > 1:
                raise ValueError(f"'tasks' holds '{name}' twice; ask it once")
        for label in self.models:
            if not all(self.sources(label)) or not self.sources(label):
                raise ValueError(f"'models.{label}' names no model; name a folder or a hub id, or leave the label out")
        for key, folded in (("analogue_search", self.analogue_search), ("transfer", self.transfer)):
            if folded.library_fold == self.fold:
                raise ValueError(
                    f"'{key}.library_fold' is '{self.fold}', the fold of the queries; it must be another, or the "
                    "search would find the queries' own molecules"
                )
        if RETRIEVAL_FROM_LISTS in self.tasks and self.retrieval.lists is None:
            raise ValueError(f"'tasks' holds '{RETRIEVAL_FROM_LISTS}', and 'retrieval.lists' names no file; name one")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"'workers' is {self.workers}; it must be at least 1, or null for all cores")

    def sources(self, label: str) -> tuple[str, ...]:
        """Return the path or id of every training of the model ``label``."""
        named = self.models[label]
        return (named,) if isinstance(named, str) else tuple(named)

    def inputs(self) -> list[str | Path]:
        """Return every file and folder that is read, and the cache: none of them may be written over."""
        models = [source for label in self.models for source in self.sources(label)]
        further = [*self.loss_logs.values(), *self.retrieval.pools, *self.audits.corpora.values()]
        optional = [path for path in (self.retrieval.lists, self.cache) if path is not None]
        return [self.dataset, self.split, *models, *further, *optional]


def evaluate(config: EvaluationConfig, out: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, Any]:
    """Measure every model and every baseline, audit them, and write the report folder.

    The folder holds ``report.html``, ``results.json``, ``table.md``, one Parquet file per question with every query's
    outcome, and ``manifest.json``.

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
    from .report.training_log import read_losses
    from .report.write import write_report

    refuse_existing(out, overwrite=overwrite)
    refuse_input_as_output(out, *config.inputs())
    require_evaluation_packages()
    require_files(config, config.tasks)
    for log in config.loss_logs.values():
        read_losses(log)  # a log that cannot be drawn is refused before the long work, not after
    split = Split.load(config.split)
    names = [name for name in config.tasks if not (MOLECULES in split.shares and name == ANALOGUE_SEARCH)]
    if not names:
        raise InputError(
            f"{config.split}: its folds share molecules (kind '{split.kind}'), and an analogue search asks about "
            "molecules that the library does not hold; make a split that shares none (docs/splits.md)"
        )
    store = Store(config.dataset)
    models = load_models(config)
    exposed = {label: _exposure(label, trainings, split, config) for label, trainings in models.items()}
    data = load_evaluation_data(store, split)
    if not len(data.rows_in(config.fold)):
        raise InputError(f"{config.split}: no evaluable spectrum is in fold '{config.fold}'; make a larger split")
    molecules = question_molecules(data, config, names)
    nearest_train = nearest_train_tanimoto(data, molecules.fingerprint)
    questions = [ask(name, data, molecules, config, nearest_train) for name in names]
    asked = [
        replace(question, task=with_units(question.task, config.bootstrap, cache=config.cache, workers=config.workers))
        for question in questions
        if question is not None
    ]
    ranked = [question.task.candidate_molecule for question in asked if question.kind == "retrieval"]
    num_candidates = len(np.unique(np.concatenate(ranked))) if ranked else 0
    rows = table_rows(data, molecules, models, exposed, config, split_hash=split.hash, num_candidates=num_candidates)
    with MCESDistances(config.mces, config.cache, workers=config.workers) as distances:
        results = measure(
            asked,
            data,
            molecules,
            rows,
            config.bootstrap,
            seed=config.seed,
            distances=distances,
            nearest_train=nearest_train,
        )
    findings = run_audits(
        data,
        molecules,
        asked,
        rows,
        store=store,
        split=split,
        fold=config.fold,
        options=config.audits,
        seed=config.seed,
    )
    findings += [
        audit_outcomes(row.entry.label, result.question.name, result.question.task, row.table, row.tree)
        for result in results
        for row in result.rows
    ]
    void = void_reasons(findings, rows)
    for result in results:
        for row in result.rows:
            row.tree["void"] = void.get(row.entry.label)
    tree = {
        "format": FORMAT,
        "config": to_tree(config),
        "inputs": {
            "store": [shard.get("sha256") for shard in store.manifest["shards"]],
            "spectra": len(data),
            "molecules": len(data.inchikey_block),
            "candidate structures": len(molecules),
            "predicted spectra": data.num_predicted,
            "look-ups": to_tree(lookup_record(data.columns, config.lookups, seed=config.seed)),
            "spectra left out": data.excluded,
            "split": {"kind": split.kind, "seed": split.seed, "hash": split.hash, "shares": list(split.shares)},
            "models": {
                label: {
                    "source": config.models[label],
                    "hash": [_hash(model) for model in trainings],
                    "training": training_stages(trainings[0]),
                    "exposure": exposed[label],
                }
                for label, trainings in models.items()
            },
            "tasks without a query": [
                name for name, question in zip(names, questions, strict=True) if question is None
            ],
        },
        "tasks": {result.question.name: result.tree for result in results},
        "audits": findings_tree(findings),
    }
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_report(folder, tree, results, data, molecules, loss_logs=config.loss_logs, seed=config.seed)
        write_manifest(folder, {"command": "evaluate", "config": tree["config"], "inputs": tree["inputs"]})
    return tree


def require_files(config: EvaluationConfig, names: Sequence[str]) -> None:
    """Refuse a file of ``config`` that the questions ``names`` need and that is not there: before the long work."""
    named = [(log, f"the training log named '{label}' in 'loss_logs'") for label, log in config.loss_logs.items()]
    if any(KIND_OF[name] == "retrieval" for name in names):
        named += [(pool, "a file of molecules in 'retrieval.pools'") for pool in config.retrieval.pools]
    if RETRIEVAL_FROM_LISTS in names and config.retrieval.lists is not None:
        named.append((config.retrieval.lists, "the candidates by query of 'retrieval.lists'"))
    for file, what in named:
        if not file.is_file():
            raise InputError(f"{file}: no such file; it is {what}")
    for label, corpus in config.audits.corpora.items():
        if not corpus.exists():
            raise InputError(f"{corpus}: no such file or folder; it is the corpus named '{label}' in 'audits.corpora'")


def _exposure(label: str, trainings: Sequence[Encoder], split: Split, config: EvaluationConfig) -> str | None:
    """Return why any of the trainings may have seen the molecules of the queries; refuse it unless that is allowed."""
    reasons = [
        check_exposure(
            label,
            source,
            model,
            split,
            config.fold,
            allow=config.allow_other_split,
            option="--set allow_other_split=true",
        )
        for source, model in zip(config.sources(label), trainings, strict=True)
    ]
    return next((reason for reason in reasons if reason is not None), None)


def load_models(config: EvaluationConfig) -> dict[str, list[Encoder]]:
    """Return every training of every model of ``config``, by label."""
    from ..encoder.loading import load_model

    return {label: [load_model(source) for source in config.sources(label)] for label in config.models}


def question_molecules(data: EvaluationData, config: EvaluationConfig, names: Sequence[str]) -> Candidates:
    """Return the structures that may be candidates of the questions ``names``."""
    is_retrieval = any(KIND_OF[name] == "retrieval" for name in names)
    pools = config.retrieval.pools if is_retrieval else ()
    lists = config.retrieval.lists if RETRIEVAL_FROM_LISTS in names else None
    return candidate_molecules(data, pools, config.cache, lists=lists, fold=config.fold, workers=config.workers)


def _hash(model: Encoder) -> str | None:
    model_hash = getattr(model, "model_hash", None)
    return None if model_hash is None else str(model_hash())
