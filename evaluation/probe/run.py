"""`ionbed probe`: how good is a frozen encoder? Linear heads on its embeddings, and searches without any training."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...artifacts import atomic_folder, refuse_existing, refuse_input_as_output, write_manifest
from ...configs.loading import to_tree
from ...errors import InputError
from ...spectra.measurement_features import condition_features
from ...spectra.split import MOLECULES, Split
from ...spectra.store import Store
from ..candidates import Candidates, candidate_molecules
from ..dataset import EvaluationData, load_evaluation_data
from ..judged import CHANCE
from ..provenance import check_exposure, training_stages
from ..statistics import BootstrapOptions, Estimate
from ..tasks import draw_per_molecule
from .features import BINNED_PEAKS, NO_SPECTRUM, FeatureSet, feature_sets
from .heads import Design, Predicted, Rows, logistic, ridge
from .results import linear_tree, search_tree
from .scores import ProbeJudge, Scored
from .targets import TARGETS, Target, TargetOptions, targets_of
from .zero_shot import QUESTIONS, SearchTable, questions

if TYPE_CHECKING:
    import torch

    from ...encoder.modeling_ionbed import IonbedModel

logger = logging.getLogger("ionbed")

FORMAT = 1
"""Of ``results.json``."""
RESULTS, TABLE = "results.json", "table.md"


@dataclass(frozen=True)
class ProbeOptions:
    """Choices of a probe.

    Attributes
    ----------
    fold : 'test' or 'validation'
        Fold whose molecules are asked about. Penalties are chosen on the fold 'validation', or, where that is asked
        about, on a tenth of the training molecules.
    max_train_spectra : int or None
        Training spectra at most, as many of each molecule as possible; None for all.
    max_spectra_per_molecule : int
        Held-out spectra of a molecule that heads are asked about; more would take time and tell little. Searches
        have all of the fold.
    random_seeds : int
        Untrained twins of each configuration of a model; 0 leaves them out.
    reference : str or None
        Label of the model that the others are compared with.
    zero_shot : bool
        Whether to search, too.
    allow_other_split : bool
        Whether to go on with a model that may have seen the molecules that are asked about.
    cache : Path or None
        Folder in which embeddings and structures are kept from one probe to the next.
    workers : int or None
        Processes that read structures where there are many; all cores where None.
    resamples : int
        Of the bootstrap over molecules.
    targets : TargetOptions
    """

    fold: Literal["test", "validation"] = "test"
    max_train_spectra: int | None = None
    max_spectra_per_molecule: int = 5
    random_seeds: int = 3
    reference: str | None = None
    zero_shot: bool = True
    allow_other_split: bool = False
    cache: Path | None = None
    workers: int | None = 1
    resamples: int = 1000
    targets: TargetOptions = field(default_factory=TargetOptions)

    def __post_init__(self) -> None:
        if self.max_train_spectra is not None and self.max_train_spectra < 1:
            raise ValueError(f"'max_train_spectra' is {self.max_train_spectra}; it must be at least 1, or null for all")
        if self.max_spectra_per_molecule < 1:
            raise ValueError(f"'max_spectra_per_molecule' is {self.max_spectra_per_molecule}; it must be at least 1")
        if self.random_seeds < 0:
            raise ValueError(f"'random_seeds' is {self.random_seeds}; it must be at least 0")

    @property
    def bootstrap(self) -> BootstrapOptions:
        """How intervals are made."""
        return BootstrapOptions(resamples=self.resamples)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The tables of a probe.

    Attributes
    ----------
    tree : dict
        The content of ``results.json``.
    """

    tree: dict[str, Any] = field(repr=False)

    def value(self, task: str, label: str, metric: str | None = None) -> Estimate:
        """Return a figure of a row, of the main metric of the task where none is named."""
        found = self.tree["tasks"][task]
        (row,) = (row for row in found["rows"] if row["label"] == label)
        of = row["metrics"][metric or found["main"]]
        return Estimate(of["value"], of["low"], of["high"])


def probe(
    models: Mapping[str, IonbedModel | Sequence[IonbedModel]],
    data: EvaluationData,
    split: Split,
    options: ProbeOptions | None = None,
    *,
    seed: int = 0,
) -> ProbeResult:
    """Measure frozen encoders by linear heads and by searches, beside baselines and their own untrained twins.

    Parameters
    ----------
    models : mapping of label to model, or to a sequence of trainings of one model
    data : EvaluationData
        Of all folds of ``split``.
    split : Split
    options : ProbeOptions, optional
    seed : int
        Of draws, resamples and untrained weights.

    Raises
    ------
    InputError
        A model may have seen the molecules that are asked about, the folds share molecules, a label is that of a
        baseline, or a fold is empty.
    """
    options = options or ProbeOptions()
    trainings = {label: tuple(of) if isinstance(of, Sequence) else (of,) for label, of in models.items()}
    _check_labels(trainings, options)
    if MOLECULES in split.shares:
        raise InputError(
            f"the folds of this split (kind '{split.kind}') share molecules: a head would be asked about molecules "
            "that it was trained on; make a split that shares none (docs/splits.md)"
        )
    exposed = {label: _exposure(label, of, split, options) for label, of in trainings.items()}
    every = candidate_molecules(data, cache=options.cache, fold=options.fold, workers=options.workers)
    drawn = draw_spectra(data, every, options, seed=seed)
    folds = _folds(drawn, options, seed)
    sets = feature_sets(trainings, drawn.columns, random_seeds=options.random_seeds, cache=options.cache, seed=seed)
    targets = targets_of(drawn, every, options.fold, options.targets)
    judges = [
        ProbeJudge(target, drawn.molecule[folds[2]], resamples=options.resamples, seed=seed) for target in targets
    ]
    searches = []
    if options.zero_shot:
        asked = questions(drawn, every, fold=options.fold, seed=seed)
        searches = [SearchTable(question, drawn, options.bootstrap, seed=seed) for question in asked]
    rows: list[list[tuple[FeatureSet, list[Predicted], list[Scored]]]] = [[] for _ in targets]
    searched: list[FeatureSet] = []
    for features in sets:
        logger.info("probing '%s'", features.label)
        vectors = [make() for make in features.makes]
        predictions = [_heads(of, features, drawn, folds, targets) for of in vectors]
        for place, judge in enumerate(judges):
            of_target = [found[place] for found in predictions]
            rows[place].append((features, of_target, [judge(found.values) for found in of_target]))
        if features.kind != "reference":
            searched.append(features)
            for search in searches:
                search.judge(features.label, vectors if features.is_comparable else None)
    reference, confidence = options.reference, options.bootstrap.confidence
    tasks = {
        target.name: linear_tree(target, judge, of_target, reference=reference, confidence=confidence)
        for target, judge, of_target in zip(targets, judges, rows, strict=True)
    }
    tasks |= {search.question.name: search_tree(search, searched, reference=reference) for search in searches}
    tree = {
        "format": FORMAT,
        "options": to_tree(options),
        "seed": seed,
        "inputs": {
            **_counts(drawn, folds),
            "split": {"kind": split.kind, "seed": split.seed, "hash": split.hash, "shares": list(split.shares)},
            "models": {label: _described(of, exposed[label]) for label, of in trainings.items()},
        },
        "tasks": tasks,
        "not asked": [name for name in (*TARGETS, *(QUESTIONS if options.zero_shot else ())) if name not in tasks],
    }
    return ProbeResult(tree)


def run_probe(
    models: Mapping[str, str | Sequence[str]],
    store: str | os.PathLike[str],
    split: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: ProbeOptions | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
    overwrite: bool = False,
) -> ProbeResult:
    """Probe models by path or id on a store, and write ``results.json``, ``table.md`` and ``manifest.json``.

    Raises
    ------
    InputError
        As `probe`; or ``out`` is taken, or an input is missing or unusable.
    """
    from ...embeddings.encode import choose_device
    from .table import markdown

    options = options or ProbeOptions()
    sources = {label: (of,) if isinstance(of, str) else tuple(of) for label, of in models.items()}
    refuse_existing(out, overwrite=overwrite)
    named = [source for of in sources.values() for source in of]
    refuse_input_as_output(out, store, split, *named, *([options.cache] if options.cache else []))
    known_split, known_store = Split.load(split), Store(store)
    where = choose_device(device)
    loaded = {label: [_loaded(source, where) for source in of] for label, of in sources.items()}
    data = load_evaluation_data(known_store, known_split)
    result = probe(loaded, data, known_split, options, seed=seed)
    result.tree["inputs"]["store"] = [shard.get("sha256") for shard in known_store.manifest["shards"]]
    for label, of in sources.items():
        result.tree["inputs"]["models"][label]["source"] = list(of)
    with atomic_folder(out, overwrite=overwrite) as folder:
        text = json.dumps(result.tree, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
        (folder / TABLE).write_text(markdown(result.tree), encoding="utf-8")
        write_manifest(
            folder,
            {"command": "probe", "config": result.tree["options"], "seed": seed, "inputs": result.tree["inputs"]},
        )
    return result


def _loaded(source: str, device: torch.device) -> IonbedModel:
    from ...encoder.loading import load_model

    model: Any = load_model(source)  # transformers wraps `to` in a function without its types
    loaded: IonbedModel = model.to(device)
    return loaded


def draw_spectra(data: EvaluationData, molecules: Candidates, options: ProbeOptions, *, seed: int) -> EvaluationData:
    """Return the spectra that a probe is about: of readable structures, and not more than the options want."""
    readable = np.any(molecules.fingerprint[: len(data.inchikey_block)] != 0, axis=1)[data.molecule]
    train, asked, others = (
        np.flatnonzero(readable & np.isin(data.fold, folds))
        for folds in (["train"], [options.fold], list({"validation", "test"} - {options.fold}))
    )
    if options.max_train_spectra is not None and len(train) > options.max_train_spectra:
        train = _evenly(train, data.molecule, options.max_train_spectra, seed)
    others = draw_per_molecule(others, data.molecule, limit=options.max_spectra_per_molecule, seed=seed)
    return data.take(np.sort(np.concatenate([train, asked, others])))


def _evenly(rows: np.ndarray, molecule: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Return at most ``limit`` of ``rows``: the same number of each molecule, or one each of as many as fit."""
    sizes = np.bincount(molecule[rows])
    each = 1
    while np.minimum(sizes, each + 1).sum() <= limit:
        each += 1
    drawn = draw_per_molecule(rows, molecule, limit=each, seed=seed)
    if len(drawn) > limit:
        drawn = np.sort(np.random.default_rng(seed).permutation(drawn)[:limit])
    return drawn


def _folds(data: EvaluationData, options: ProbeOptions, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows to train heads on, to choose penalties by, and to ask heads about."""
    train = data.rows_in("train")
    limit = options.max_spectra_per_molecule
    asked = draw_per_molecule(data.rows_in(options.fold), data.molecule, limit=limit, seed=seed)
    validation = data.rows_in("validation") if options.fold != "validation" else np.empty(0, np.int64)
    if not len(validation) and len(train):
        distinct = np.unique(data.molecule[train])
        held_out = np.random.default_rng(seed).permutation(distinct)[: max(1, len(distinct) // 10)]
        is_held_out = np.isin(data.molecule[train], held_out)
        train, validation = train[~is_held_out], train[is_held_out]
    if not (len(train) and len(validation) and len(asked)):
        raise InputError(
            f"there are {len(train):,} spectra to train heads on, {len(validation):,} to choose penalties by and "
            f"{len(asked):,} in fold '{options.fold}' to ask about; use more spectra or another split"
        )
    return train, validation, asked


def _counts(data: EvaluationData, folds: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, Any]:
    named = dict(zip(("train", "validation", "asked"), folds, strict=True))
    return {
        "spectra": {name: len(rows) for name, rows in named.items()},
        "molecules": {name: len(np.unique(data.molecule[rows])) for name, rows in named.items()},
    }


def _described(trainings: Sequence[IonbedModel], exposure: str | None) -> dict[str, Any]:
    return {
        "hash": [model.model_hash() for model in trainings],
        "dimensions": trainings[0].config.output_dim,
        "training": [dict(stage) for stage in training_stages(trainings[0])],
        "exposure": exposure,
    }


def _heads(
    vectors: np.ndarray,
    features: FeatureSet,
    data: EvaluationData,
    folds: tuple[np.ndarray, np.ndarray, np.ndarray],
    targets: Sequence[Target],
) -> list[Predicted]:
    """Fit a head to each target; all but the head without a spectrum are told the conditions of measurement."""
    if features.kind != "reference":
        vectors = np.concatenate([vectors, condition_features(data.columns)], axis=1)
    design = Design(*(Rows(vectors[rows], data.molecule[rows]) for rows in folds))
    return [
        logistic(design, target.truth, len(target.labels)) if target.kind == "classes" else ridge(design, target.truth)
        for target in targets
    ]


def _check_labels(models: Mapping[str, Sequence[object]], options: ProbeOptions) -> None:
    from ..scorers import PrecursorOnly
    from .features import RANDOM_WEIGHTS

    if not models:
        raise InputError("no model is named; name at least one")
    taken = {NO_SPECTRUM, BINNED_PEAKS, PrecursorOnly.label, CHANCE}
    for label, of in models.items():
        if label in taken or label.startswith(RANDOM_WEIGHTS):
            raise InputError(f"models: '{label}' is the label of another row; choose another")
        if not of:
            raise InputError(f"models: '{label}' has no training; name at least one model for it")
    if options.reference is not None and options.reference not in models:
        raise InputError(f"reference '{options.reference}' is no model; there are {', '.join(models)}")


def _exposure(label: str, trainings: Sequence[Any], split: Split, options: ProbeOptions) -> str | None:
    reasons = [
        check_exposure(
            label, label, model, split, options.fold, allow=options.allow_other_split, option="--allow-other-split"
        )
        for model in trainings
    ]
    return next((reason for reason in reasons if reason is not None), None)
