"""A model's cosine between a spectrum and the predicted spectra of candidates, which it embeds like any spectra."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from ..embeddings.structure_predicted import best_of_predictions
from ..progress import counted
from .baselines.predicted_spectra import VERSION, PredictedLibrary
from .candidates import Candidates
from .dataset import EvaluationData
from .entries import Build, Entry
from .scorers import Encoder, Kind, Learned
from .vector_cache import cached_vectors

logger = logging.getLogger("ionbed")


def predicted_cosine_label(label: str) -> str:
    """Return what the cosine of the model ``label`` to predicted spectra is called."""
    return f"{label}, cosine to predicted spectra"


class PredictedVectors:
    """Embeds the predicted spectra of molecules, each once, for all questions of an evaluation.

    Parameters
    ----------
    label : str
        Of the model, as log lines name it.
    model : Encoder
    library : PredictedLibrary
    cache : Path or None
        Folder in which embeddings are kept from one evaluation to the next, where the model has a hash.
    """

    def __init__(self, label: str, model: Encoder, library: PredictedLibrary, cache: Path | None) -> None:
        self._label, self._model, self._library = label, model, library
        model_hash = getattr(model, "model_hash", None)
        self._identity = "" if model_hash is None else f"predicted spectra {VERSION} {model_hash()}"
        self._cache = cache if self._identity else None
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, smiles: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the embeddings of all predicted spectra of some molecules.

        Returns
        -------
        vectors : float32 array of shape (n_spectra, dim)
        polarity : int8 array of shape (n_spectra,)
        owner : int64 array of shape (n_spectra,)
            The place of the molecule of each, ascending.
        """
        new = sorted(set(smiles) - self._known.keys())
        if new:
            columns, owner = self._library.spectra(new)

            def make() -> np.ndarray:
                logger.info("embedding %s with '%s'", counted(len(columns), "predicted spectra"), self._label)
                return self._model.embed(columns, progress=True)

            # Without any prediction the number of dimensions is not known, nor needed.
            vectors = (
                cached_vectors(self._cache, [self._identity, *new], len(columns), make)
                if len(columns)
                else np.empty((0, 0), np.float32)
            )
            bounds = np.searchsorted(owner, np.arange(1, len(new)))
            parts = zip(np.split(vectors, bounds), np.split(columns.polarity, bounds), strict=True)
            self._known.update(zip(new, parts, strict=True))
        found = [self._known[text] for text in smiles]
        filled = [part for part, _ in found if len(part)] or [np.empty((0, 0), np.float32)]
        polarity = np.concatenate([np.empty(0, np.int8), *(sign for _, sign in found)])
        return np.concatenate(filled), polarity, np.repeat(np.arange(len(found)), [len(part) for part, _ in found])


class PredictedCosine:
    """The highest inner product of the embeddings of the query and of a candidate's predicted spectra.

    Only spectra of the query's polarity are compared, whatever its adduct. Of a candidate without one it abstains.

    Parameters
    ----------
    label : str
    learned : Learned
        Has the embeddings of the queries.
    vectors : PredictedVectors
        Of the same model.
    """

    kind: Kind = "learned"

    def __init__(
        self, label: str, learned: Learned, vectors: PredictedVectors, data: EvaluationData, candidates: Candidates
    ) -> None:
        self.label = label
        self._learned, self._vectors = learned, vectors
        self._polarity, self._smiles = data.columns.polarity, candidates.smiles

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return inner products from -1 to 1; see `ionbed.evaluation.scorers.StructureScorer`."""
        rows, row_of_pair = np.unique(query, return_inverse=True)
        molecules, molecule_of_pair = np.unique(molecule, return_inverse=True)
        vectors, polarity, owner = self._vectors([self._smiles[number] or "" for number in molecules.tolist()])
        own = self._learned.vectors_of(rows)

        def similarity(pair: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
            return np.einsum("pd,pd->p", own[row_of_pair[pair]], vectors[spectrum])

        return best_of_predictions(self._polarity[query], molecule_of_pair, polarity, owner, similarity)


def predicted_cosine_entry(
    entry: Entry, trainings: Sequence[Encoder], library: PredictedLibrary, cache: Path | None
) -> Entry:
    """Return what scores structures by a model's cosine to their predicted spectra.

    Parameters
    ----------
    entry : Entry
        The plain row of the model: what it has embedded is not embedded again.
    trainings : sequence of Encoder
        Of the model.
    library : PredictedLibrary
    cache : Path or None
    """
    label = predicted_cosine_label(entry.label)
    return Entry(
        label,
        "learned",
        tuple(
            _built(label, build, PredictedVectors(entry.label, model, library, cache))
            for build, model in zip(entry.builds, trainings, strict=True)
        ),
        entry.known,
        entry.trained_on,
        entry.exposure,
        frozenset({"retrieval"}),
    )


def _built(label: str, build: Build, vectors: PredictedVectors) -> Build:
    def built(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> PredictedCosine:
        return PredictedCosine(label, cast(Learned, build(data, candidates, rows)), vectors, data, candidates)

    return built
