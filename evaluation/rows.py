"""The rows that stand in every table, and those of the models under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..spectra.lookups import HYBRID_ENTROPY
from .candidates import Candidates
from .dataset import EvaluationData
from .entries import Build, Entry
from .fused import fused_entries
from .judged import CHANCE
from .molecule_embeddings import embeds_molecules, learned_with_structures
from .predictions import KNOWN, Corpus
from .provenance import training_stages
from .scorers import Chance, Embedder, Encoder, NearestNeighbourOracle, PrecursorOnly, Scorer
from .task_files import TaskKind

if TYPE_CHECKING:
    from .run import EvaluationConfig

UNKNOWN_STAGE: Mapping[str, Any] = {"command": "of unknown origin"}
ORACLE, PRECURSOR_ONLY = NearestNeighbourOracle.label, PrecursorOnly.label
RETRIEVAL: frozenset[TaskKind] = frozenset({"retrieval"})
WINDOWS: frozenset[TaskKind] = frozenset({"library", "open"})
CANDIDATE_MOLECULES = RETRIEVAL | WINDOWS
SPECTRA: frozenset[TaskKind] = WINDOWS | {"analogue", "pairs"}


def table_rows(
    data: EvaluationData,
    molecules: Candidates,
    models: Mapping[str, Sequence[Encoder]],
    exposure: Mapping[str, str | None],
    config: EvaluationConfig,
    *,
    split_hash: str,
    num_candidates: int = 0,
) -> list[Entry]:
    """Return all rows in the order of the tables: references, blind rankers, look-ups, trained baselines, models.

    Parameters
    ----------
    models : mapping of label to sequence of Encoder
        The trainings of each model.
    exposure : mapping of label to str or None
        Why a model may have seen the molecules of the queries.
    num_candidates : int
        Molecules that are a candidate of any query of a retrieval, where that is known: some rows take long for many.

    Raises
    ------
    InputError
        A model has the label of another row, or a baseline cannot be made.
    """
    from .baselines.blind import MOST_MEASURED, SMILES_CLASSIFIER, spectrum_blind_entries, structure_blind_entries
    from .baselines.lookups import lookup_entries
    from .baselines.networks import LABELS, trained_entries
    from .baselines.predicted_spectra import predicted_library, predicted_spectra_entry
    from .baselines.structures import structure_entries
    from .baselines.transfer import transfer_entries, transfer_label
    from .predicted_cosine import predicted_cosine_entry
    from .structures_and_transfer import combinations_of, combined_entries, kept

    lookups = _only(SPECTRA, lookup_entries(config.lookups, workers=config.workers))
    learned = [
        model_entry(label, of_label, exposure[label], cache=config.cache, workers=config.workers)
        for label, of_label in models.items()
    ]
    plain = list(learned)
    fused = fused_entries(plain, models, SPECTRA, split_hash=split_hash, fold=config.fold, workers=config.workers)
    learned += fused
    transferred = _only(RETRIEVAL, transfer_entries([*lookups, *learned], config.transfer))
    shared = {transfer_label(label) for label in (HYBRID_ENTROPY, *models) if models}
    transferred = [kept(entry) if entry.label in shared else entry for entry in transferred]
    by_label = {entry.label: entry for entry in transferred}
    structures = _only(RETRIEVAL, structure_entries())
    library = predicted_library(
        config.predicted_spectra,
        num_candidates,
        of_predicted=bool(data.num_predicted),
        cache=config.cache,
        workers=config.workers,
    )
    predicted = [] if library is None else [predicted_spectra_entry(library, config.lookups, workers=config.workers)]
    combinations = combinations_of(
        plain,
        {entry.label: by_label[transfer_label(entry.label)] for entry in plain},
        by_label[transfer_label(HYBRID_ENTROPY)],
        predicted[0] if predicted else None,
        [predicted_cosine_entry(e, models[e.label], library, config.cache) for e in plain if library is not None],
        most_candidates=config.predicted_spectra.most_molecules,
    )
    both = combined_entries(combinations, data, molecules, config, split_hash=split_hash)
    made = [entry.label for entry in (*lookups, *learned, *transferred, *both, *structures, *predicted)]
    # Before the classifiers and networks are trained, which may take minutes.
    _require_own_labels(models, [*made, CHANCE, PRECURSOR_ONLY, SMILES_CLASSIFIER, MOST_MEASURED, *LABELS.values()])
    classifiers = structure_blind_entries(data, molecules, config.blind, split_hash=split_hash, seed=config.seed)
    trained = trained_entries(
        data,
        molecules,
        config.trained_baselines,
        fold=config.fold,
        split_hash=split_hash,
        seed=config.seed,
        cache=config.cache,
    )
    return [
        Entry(CHANCE, "reference", (_chance,)),
        Entry(PRECURSOR_ONLY, "blind", (_precursor_only,), ("precursor_mz",), kinds=SPECTRA),
        *(entry for entry in structures if entry.kind == "blind"),
        *_only(CANDIDATE_MOLECULES, classifiers),
        *_only(WINDOWS, spectrum_blind_entries(data)),
        *lookups,
        *transferred[: len(lookups)],
        *predicted,
        *trained,
        *(entry for entry in both if entry.kind == "trained"),
        *learned,
        *transferred[len(lookups) :],
        *(entry for entry in both if entry.kind == "learned"),
        *(entry for entry in structures if entry.kind == "reference"),
        Entry(ORACLE, "reference", (_oracle,), ("truth",), kinds=frozenset({"analogue"})),
    ]


def _require_own_labels(models: Mapping[str, object], labels: Sequence[str]) -> None:
    for label in models:
        if labels.count(label) > 1:
            raise InputError(f"models: '{label}' is the label of another row; choose another")


def _only(kinds: frozenset[TaskKind], entries: Sequence[Entry]) -> list[Entry]:
    return [replace(entry, kinds=kinds) for entry in entries]


def model_entry(
    label: str,
    trainings: Sequence[Encoder],
    exposure: str | None,
    *,
    cache: Path | None = None,
    workers: int | None = 1,
) -> Entry:
    """Return the row of a model, of which there may be several trainings.

    It ranks spectra; structures too, where the model was trained with them. What it embeds of structures is kept in
    ``cache``; ``workers`` processes read them.

    Raises
    ------
    InputError
        Some of the trainings were trained with structures, and some were not.
    """
    stages = [stage for model in trainings for stage in training_stages(model) or [UNKNOWN_STAGE]]
    corpora = dict.fromkeys(
        Corpus(str(stage.get("command", "training")), stage.get("split"), tuple(stage.get("folds") or ()))
        for stage in stages
    )
    towers = [model for model in trainings if embeds_molecules(model)]
    if towers and len(towers) < len(trainings):
        raise InputError(
            f"models.{label}: {len(towers)} of its {len(trainings)} trainings were trained with structures; one row "
            "cannot be of both kinds: give them two labels"
        )
    if towers:
        builds = tuple(learned_with_structures(label, model, cache, workers) for model in towers)
    else:
        builds = tuple(_learned(label, model) for model in trainings)
    kinds = SPECTRA | RETRIEVAL if towers else SPECTRA
    return Entry(label, "learned", builds, _known_to(trainings), tuple(corpora), exposure, kinds)


def _known_to(trainings: Sequence[Encoder]) -> tuple[str, ...]:
    """Return what any of the trainings reads beside the peaks: the precursor, and conditions of measurement.

    The polarity, which all that is compared shares, and the charge have no name among `KNOWN`.
    """
    read = {name for model in trainings for name in getattr(getattr(model, "config", None), "conditioning", ())}
    return tuple(name for name in KNOWN if name == "precursor_mz" or name in read)


def _learned(label: str, model: Encoder) -> Build:
    embedder = Embedder(label, model)

    def build(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Scorer:
        return embedder(data.columns, rows)

    return build


def _chance(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Scorer:
    return Chance()


def _precursor_only(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Scorer:
    return PrecursorOnly(data.columns)


def _oracle(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Scorer:
    return NearestNeighbourOracle(data.molecule, molecules.fingerprint)
