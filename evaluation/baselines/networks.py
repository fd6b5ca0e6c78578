"""Rows of small networks that are trained here, on the training fold only: what any learned model should beat.

Both predict the fingerprint of the molecule (Morgan, radius 2) from a spectrum. Two spectra are compared by their
predicted fingerprints, and a spectrum with a structure by the predicted fingerprint and the structure's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...artifacts import atomic_file, sha256_of_json
from ...errors import InputError
from ...progress import progress
from ...spectra.preparation.workers import open_workers
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Build, Entry
from ..predictions import Corpus
from ..scorers import Kind

if TYPE_CHECKING:
    from .fingerprint_networks import Training, TrainingSpectra

logger = logging.getLogger("ionbed")

NetworkName = Literal["feed-forward", "deep sets"]
LABELS: Mapping[NetworkName, str] = {"feed-forward": "fingerprint network", "deep sets": "DeepSets"}
KNOWN: Mapping[NetworkName, tuple[str, ...]] = {"feed-forward": (), "deep sets": ("precursor_mz",)}
VERSION = 1
"""Of the training: a number for each change after which the same data give other weights."""
STOPPING_SHARE = 0.1
PAIRS_PER_CHUNK = 2**18
SPECTRA_PER_CHUNK = 2**12
SPECTRA_WORTH_A_PROCESS = 5000
"""With fewer, a process takes longer to start than to train a network."""


@dataclass(frozen=True)
class TrainedBaselineOptions:
    """How the networks that stand beside the models are built and trained.

    Attributes
    ----------
    trainings : int
        Of each network, with different seeds; 0 leaves both networks out.
    max_epochs : int
        An epoch sees every training molecule.
    patience : int
        Training stops after this many epochs without a lower loss on the validation fold.
    spectra_per_molecule : int
        Drawn in each epoch.
    batch_size : int
        Spectra.
    learning_rate, weight_decay, dropout : float
    hidden_size : int
    max_peaks : int
        Peaks of a spectrum that are read, the most intense ones.
    max_mz, bin_width : float
        Of the bins of the feed-forward network, in Da.
    num_wavelengths : int
        Of the Fourier features of m/z in DeepSets.
    workers : int or None
        Trainings at a time, each a process of one thread; where None, all cores, or this process alone for few
        spectra. The result does not depend on it.
    """

    trainings: int = 3
    max_epochs: int = 30
    patience: int = 3
    spectra_per_molecule: int = 4
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    dropout: float = 0.1
    hidden_size: int = 512
    max_peaks: int = 60
    max_mz: float = 1005.0
    bin_width: float = 1.0
    num_wavelengths: int = 128
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.trainings < 0:
            raise ValueError(f"'trainings' is {self.trainings}; it must be at least 0")
        for name in ("max_epochs", "patience", "spectra_per_molecule", "hidden_size", "max_peaks", "num_wavelengths"):
            if getattr(self, name) < 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}; it must be at least 1")
        if self.batch_size < 4:  # batches are of about equal size, and the normalisation needs two spectra in each
            raise ValueError(f"'batch_size' is {self.batch_size}; it must be at least 4")
        for name in ("learning_rate", "max_mz", "bin_width"):
            if not getattr(self, name) > 0:
                raise ValueError(f"'{name}' is {getattr(self, name)}; it must be above 0")
        if not self.weight_decay >= 0:
            raise ValueError(f"'weight_decay' is {self.weight_decay}; it must be at least 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"'dropout' is {self.dropout}; it must be at least 0 and below 1")
        if self.bin_width > self.max_mz:
            raise ValueError(f"'bin_width' ({self.bin_width}) is above 'max_mz' ({self.max_mz}); lower it")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"'workers' is {self.workers}; it must be at least 1")


def trained_entries(
    data: EvaluationData,
    molecules: Candidates,
    options: TrainedBaselineOptions,
    *,
    fold: str,
    split_hash: str,
    seed: int,
    cache: Path | None,
) -> list[Entry]:
    """Train both networks, ``options.trainings`` times each, and return a row for each network.

    They are trained on the fold 'train'. The fold 'validation' decides when to stop; where it is the fold of the
    queries, or empty, a tenth of the training molecules does.

    Parameters
    ----------
    molecules : Candidates
        The first are those of the data.
    fold : str
        Of the queries.
    split_hash : str
    cache : Path or None
        Folder where trainings are kept, by what they were trained on and how.

    Raises
    ------
    InputError
        The training fold holds too little, a training diverges, or ``cache`` cannot be written.
    """
    if not options.trainings:
        return []
    spectra, folds = training_spectra(data, molecules, fold=fold, seed=seed)
    found = _trainings(spectra, options, seed, cache)
    corpus = Corpus("the evaluated data", split_hash, folds)
    return [
        Entry(
            LABELS[name],
            "trained",
            tuple(_build(name, found[name, number], options) for number in range(options.trainings)),
            known=KNOWN[name],
            trained_on=(corpus,),
        )
        for name in LABELS
    ]


def training_spectra(
    data: EvaluationData, molecules: Candidates, *, fold: str, seed: int
) -> tuple[TrainingSpectra, tuple[str, ...]]:
    """Return what the networks are trained on, and the folds that it is from.

    Raises
    ------
    InputError
        Fewer than two training molecules, or none to stop by.
    """
    from .fingerprint_networks import TrainingSpectra

    has_fingerprint = np.any(molecules.fingerprint[: len(data.inchikey_block)] != 0, axis=1)
    usable = has_fingerprint[data.molecule]
    train = np.flatnonzero(usable & (data.fold == "train"))
    stopping = np.flatnonzero(usable & (data.fold == "validation")) if fold != "validation" else train[:0]
    folds = ("train", "validation") if len(stopping) else ("train",)
    if not len(stopping):
        distinct = np.unique(data.molecule[train])
        drawn = np.random.default_rng(seed).permutation(distinct)[: max(1, round(STOPPING_SHARE * len(distinct)))]
        is_drawn = np.isin(data.molecule[train], drawn)
        train, stopping = train[~is_drawn], train[is_drawn]
    if len(np.unique(data.molecule[train])) < 2 or not len(stopping):
        raise InputError(
            "the fold 'train' has too few molecules to train the networks that stand beside the models; "
            "use more spectra, or leave the networks out with --set trained_baselines.trainings=0"
        )
    rows = np.concatenate([train, stopping])
    numbers, molecule = np.unique(data.molecule[rows], return_inverse=True)
    return (
        TrainingSpectra(
            data.columns.take(rows), molecule, molecules.fingerprint[numbers], np.arange(len(rows)) >= len(train)
        ),
        folds,
    )


class FingerprintScorer:
    """Compares by predicted fingerprints: cosine, of two spectra or of a spectrum and a structure.

    Parameters
    ----------
    label : str
    rows : int64 array of shape (n,)
        Rows of the data, ascending.
    predicted : float16 array of shape (n, n_bits)
        Unit vectors.
    fingerprint : uint8 array of shape (n_molecules, n_bits / 8)
        Of the candidates, packed.
    """

    kind: Kind = "trained"

    def __init__(self, label: str, rows: np.ndarray, predicted: np.ndarray, fingerprint: np.ndarray) -> None:
        self.label = label
        self._rows, self._predicted, self._fingerprint = rows, predicted, fingerprint

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return cosines from 0 to 1; see `ionbed.evaluation.scorers.Scorer`."""
        of_queries = self._of(queries)
        result = np.empty((len(queries), len(library)), np.float32)
        for start in range(0, len(library), SPECTRA_PER_CHUNK):  # all of a large library would not fit as float32
            part = slice(start, start + SPECTRA_PER_CHUNK)
            np.matmul(of_queries, self._of(library[part]).T, out=result[:, part])
        return result

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return cosines from 0 to 1; see `ionbed.evaluation.scorers.PairScorer`."""
        result = np.empty(len(first), np.float32)
        for start in range(0, len(first), SPECTRA_PER_CHUNK):
            part = slice(start, start + SPECTRA_PER_CHUNK)
            result[part] = np.einsum("pk,pk->p", self._of(first[part]), self._of(second[part]))
        return result

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return cosines from 0 to 1, NaN for a molecule without a fingerprint.

        See `ionbed.evaluation.scorers.StructureScorer`.
        """
        numbers, which = np.unique(molecule, return_inverse=True)
        owner, bit = np.nonzero(np.unpackbits(self._fingerprint[numbers], axis=1))
        num_set = np.bincount(owner, minlength=len(numbers))
        first = np.cumsum(num_set) - num_set
        places = np.searchsorted(self._rows, query)
        result = np.full(len(query), np.nan)
        answerable = np.flatnonzero(num_set[which] > 0)
        # A structure sets some 50 of 2,048 bits: the sum over these alone is the product of the two vectors.
        for start in range(0, len(answerable), PAIRS_PER_CHUNK):
            pairs = answerable[start : start + PAIRS_PER_CHUNK]
            sizes = num_set[which[pairs]]
            starts = np.cumsum(sizes) - sizes
            within = np.arange(sizes.sum()) - np.repeat(starts, sizes)
            bits = bit[np.repeat(first[which[pairs]], sizes) + within]
            values = self._predicted[np.repeat(places[pairs], sizes), bits].astype(np.float64)
            result[pairs] = np.add.reduceat(values, starts) / np.sqrt(sizes)
        return result

    def _of(self, rows: np.ndarray) -> np.ndarray:
        return self._predicted[np.searchsorted(self._rows, rows)].astype(np.float32)


def _build(name: NetworkName, training: Training, options: TrainedBaselineOptions) -> Build:
    def build(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> FingerprintScorer:
        from .fingerprint_networks import predict_fingerprints

        distinct = np.unique(rows)
        num_bits = 8 * candidates.fingerprint.shape[1]
        columns = data.columns.take(distinct)
        predicted = predict_fingerprints(name, training.weights, columns, options, num_bits)
        return FingerprintScorer(LABELS[name], distinct, predicted, candidates.fingerprint)

    return build


@dataclass(frozen=True, eq=False)
class _Task:
    name: NetworkName
    number: int
    key: str
    spectra: TrainingSpectra
    options: TrainedBaselineOptions
    seed: int


def _trainings(
    spectra: TrainingSpectra, options: TrainedBaselineOptions, seed: int, cache: Path | None
) -> dict[tuple[NetworkName, int], Training]:
    """Return every training: from the cache where it is there, trained now where it is not."""
    content = _content_hash(spectra)
    tasks = [
        _Task(name, number, _key(name, number, content, options, seed), spectra, options, seed)
        for name in LABELS
        for number in range(options.trainings)
    ]
    kept = {} if cache is None else {(task.name, task.number): _read(cache, task) for task in tasks}
    found = {place: training for place, training in kept.items() if training is not None}
    missing = [task for task in tasks if (task.name, task.number) not in found]
    if not missing:
        return found
    if cache is not None:
        _require_writable(cache)  # before the long work, not after
    num_workers = options.workers
    if len(missing) == 1 or (num_workers is None and len(spectra.columns) < SPECTRA_WORTH_A_PROCESS):
        num_workers = 1
    with (
        open_workers(num_workers, None) as workers,
        progress("training the baselines", len(missing), unit="trainings") as advance,
    ):
        for task, training in zip(missing, workers.map(_train, missing), strict=True):
            found[task.name, task.number] = training
            if cache is not None:
                _write(cache, task, training)
            advance(1, f"{LABELS[task.name]}: loss {training.best:.3f} after {len(training.losses)} epochs")
    return found


def _train(task: _Task) -> Training:
    from .fingerprint_networks import train_network

    return train_network(task.name, task.spectra, task.options, (task.seed, task.number))


def _content_hash(spectra: TrainingSpectra) -> str:
    """Return the SHA-256 of all that a training reads: it stands for the store, the split and the folds."""
    columns = spectra.columns
    digest = hashlib.sha256()
    for array in (
        columns.offsets, columns.mz, columns.intensity, columns.precursor_mz, spectra.molecule, spectra.fingerprint,
        spectra.is_stopping,
    ):  # fmt: skip
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _key(name: NetworkName, number: int, content: str, options: TrainedBaselineOptions, seed: int) -> str:
    from ... import __version__

    settings = {key: value for key, value in asdict(options).items() if key not in ("trainings", "workers")}
    made_by = {"ionbed": __version__, "version": VERSION, "network": name, "training": number, "seed": seed}
    return sha256_of_json({**made_by, "options": settings, "content": content})


def _path(cache: Path, task: _Task) -> Path:
    return cache / f"{task.name.replace(' ', '-')}-{task.key[:24]}.safetensors"


def _read(cache: Path, task: _Task) -> Training | None:
    """Return the kept training, or None where there is none that is whole."""
    from safetensors import SafetensorError, safe_open

    from .fingerprint_networks import Training

    path = _path(cache, task)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            losses = tuple((float(a), float(b)) for a, b in json.loads(metadata["losses"]))
            if metadata["key"] != task.key:
                raise ValueError("its key is another")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        logger.warning("%s: is damaged (%s); the network is trained anew", path, " ".join(str(error).split())[:100])
        return None
    return Training(weights, losses)


def _write(cache: Path, task: _Task, training: Training) -> None:
    from safetensors.torch import save_file

    metadata = {
        "key": task.key,
        "network": task.name,
        "losses": json.dumps(training.losses),
    }
    with atomic_file(_path(cache, task)) as partial:
        save_file(dict(training.weights), partial, metadata)


def _require_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_file(cache / "writable") as partial:
            partial.touch()
        (cache / "writable").unlink()
    except OSError as error:
        raise InputError(f"{cache}: cannot be used as a cache ({error.strerror}); name another folder") from None
