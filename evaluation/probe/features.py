"""What heads read and searches compare: embeddings of models and of their untrained twins, and plain features."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import InputError
from ...progress import counted
from ...spectra.columns import SpectrumColumns
from ...spectra.measurement_features import precursor_features
from ..scorers import PrecursorOnly
from ..vector_cache import cached_vectors

if TYPE_CHECKING:
    from ...encoder.modeling_ionbed import IonbedModel

logger = logging.getLogger("ionbed")

FeatureKind = Literal["reference", "blind", "look-up", "untrained", "learned"]

NO_SPECTRUM, BINNED_PEAKS, RANDOM_WEIGHTS = "no spectrum", "binned peaks", "random weights"
BIN_WIDTH, MAX_MZ = 1.0, 1000.0

NOT_IDENTITY = ("training", "dropout", "dtype", "architectures", "transformers_version", "_name_or_path")
"""Entries of a configuration that do not change what an untrained model embeds."""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One row of the tables.

    Attributes
    ----------
    label : str
    kind : FeatureKind
    makes : tuple of functions without parameters
        One for each training: the vectors of all spectra, float32 of shape (n, D).
    twin : str or None
        Label of the row of untrained weights of the same configuration.
    is_comparable : bool
        Whether the inner product of two vectors says how alike two spectra are.
    """

    label: str
    kind: FeatureKind
    makes: tuple[Callable[[], np.ndarray], ...] = field(repr=False)
    twin: str | None = None
    is_comparable: bool = True


def feature_sets(
    models: Mapping[str, Sequence[IonbedModel]],
    columns: SpectrumColumns,
    *,
    random_seeds: int,
    cache: Path | None,
    seed: int,
) -> list[FeatureSet]:
    """Return every row: no spectrum, the precursor, binned peaks, untrained twins, then the models.

    Models of one configuration share one twin.
    """
    digest = _digest(columns)

    def embeds(model: IonbedModel, label: str) -> Callable[[], np.ndarray]:
        return lambda: embedded(model, columns, digest, cache, label)

    def twin(model: IonbedModel, number: int, label: str) -> Callable[[], np.ndarray]:
        return lambda: embedded(
            untrained_twin(model, seed + number), columns, digest, cache, f"{label}, seed {seed + number}"
        )

    found = [
        FeatureSet(NO_SPECTRUM, "reference", (lambda: np.zeros((len(columns), 0), np.float32),), is_comparable=False),
        FeatureSet(PrecursorOnly.label, "blind", (lambda: precursor_features(columns),), is_comparable=False),
        FeatureSet(BINNED_PEAKS, "look-up", (lambda: binned_peaks(columns),)),
    ]
    configurations = {label: _configuration(trainings[0]) for label, trainings in models.items()}
    twin_of: dict[str, str] = {}
    for label, trainings in models.items() if random_seeds else ():
        if configurations[label] not in twin_of:
            alone = len(set(configurations.values())) == 1
            twin_of[configurations[label]] = RANDOM_WEIGHTS if alone else f"{RANDOM_WEIGHTS} ({label})"
            name = twin_of[configurations[label]]
            makes = tuple(twin(trainings[0], number, name) for number in range(random_seeds))
            found.append(FeatureSet(name, "untrained", makes))
    found += [
        FeatureSet(
            label, "learned", tuple(embeds(model, label) for model in trainings), twin_of.get(configurations[label])
        )
        for label, trainings in models.items()
    ]
    return found


def binned_peaks(columns: SpectrumColumns) -> np.ndarray:
    """Return square roots of intensities in bins of `BIN_WIDTH`, unit vectors, float32 of shape (n, 1000).

    Peaks above `MAX_MZ` are not counted; a spectrum with none below has zeros.
    """
    row, _ = columns.peak_places()
    place = np.floor(columns.mz.astype(np.float64) / BIN_WIDTH).astype(np.int64)
    num_bins = int(MAX_MZ / BIN_WIDTH)
    within = (place >= 0) & (place < num_bins)
    binned = np.zeros((len(columns), num_bins), np.float32)
    np.add.at(binned, (row[within], place[within]), np.sqrt(columns.intensity[within]))
    norms = np.linalg.norm(binned, axis=1, keepdims=True)
    return np.divide(binned, norms, out=binned, where=norms > 0)


def untrained_twin(model: IonbedModel, seed: int) -> IonbedModel:
    """Return a model of the same configuration whose weights are as drawn, on the same device."""
    import torch

    from ...encoder.modeling_ionbed import IonbedModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = IonbedModel(copy.deepcopy(model.config))
    return twin.float().eval().to(model.device)


def embedded(model: IonbedModel, columns: SpectrumColumns, digest: str, cache: Path | None, label: str) -> np.ndarray:
    """Return the embeddings of ``columns``, float32 of shape (n, D), from the cache where they are there.

    Parameters
    ----------
    digest : str
        Of ``columns``.
    cache : Path or None
        Folder of ``embeddings-HASH.npy``, one for each model and set of spectra.

    Raises
    ------
    InputError
        The cache cannot be written, or the embeddings are not finite.
    """

    def make() -> np.ndarray:
        logger.info("embedding %s with '%s'", counted(len(columns), "spectra"), label)
        vectors = np.asarray(model.embed(columns, progress=True), np.float32)
        if not np.isfinite(vectors).all():
            raise InputError(
                f"model '{label}': {int((~np.isfinite(vectors)).any(axis=1).sum()):,} of its embeddings are "
                "not finite; its training has failed"
            )
        return vectors

    return cached_vectors(cache, [str(model.model_hash()), digest], len(columns), make)


def _configuration(model: IonbedModel) -> str:
    tree = {name: value for name, value in model.config.to_dict().items() if name not in NOT_IDENTITY}
    return json.dumps(tree, sort_keys=True, default=str)


def _digest(columns: SpectrumColumns) -> str:
    """Return a SHA-256 of everything that an encoder reads of the spectra."""
    digest = hashlib.sha256()
    for name in ("offsets", "mz", "intensity", "precursor_mz", "polarity", "charge", "collision_energy"):
        digest.update(np.ascontiguousarray(getattr(columns, name)).tobytes())
    for name in ("adduct", "instrument_type"):
        digest.update("\n".join(str(text) for text in getattr(columns, name)).encode())
    return digest.hexdigest()
