"""Learned rows that score structures: a model's embedding of a spectrum beside its embeddings of the candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np

from ..progress import counted
from .candidates import Candidates
from .dataset import EvaluationData
from .entries import Build
from .scorers import Embedder, Encoder, Learned
from .vector_cache import cached_vectors

logger = logging.getLogger("ionbed")

PAIRS_PER_CHUNK = 2**16


class MoleculeEncoder(Encoder, Protocol):
    """An `Encoder` that embeds molecules too, comparable with spectra by inner product."""

    def embed_molecules(self, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_molecules, dim)."""
        ...

    def model_hash(self) -> str:
        """Return a SHA-256 of configuration and weights."""
        ...


def embeds_molecules(model: Encoder) -> TypeGuard[MoleculeEncoder]:
    """Return whether ``model`` was trained with structures (``config.molecule_tower`` above 0)."""
    return bool(getattr(getattr(model, "config", None), "molecule_tower", 0))


class LearnedWithStructures(Learned):
    """The inner product of unit embeddings, of two spectra or of a spectrum and a structure.

    Parameters
    ----------
    label, rows, vectors
        As of `ionbed.evaluation.scorers.Learned`.
    molecules : MoleculeVectors
    """

    def __init__(self, label: str, rows: np.ndarray, vectors: np.ndarray, molecules: MoleculeVectors) -> None:
        super().__init__(label, rows, vectors)
        self._molecules = molecules

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return inner products from -1 to 1, NaN for a molecule that RDKit cannot read.

        See `ionbed.evaluation.scorers.StructureScorer`.
        """
        numbers, place = np.unique(molecule, return_inverse=True)
        vectors = self._molecules(numbers)
        scores = np.empty(len(query))
        for start in range(0, len(query), PAIRS_PER_CHUNK):  # all pairs at once would need as many rows of both
            part = slice(start, start + PAIRS_PER_CHUNK)
            scores[part] = np.einsum("pd,pd->p", self.vectors_of(query[part]), vectors[place[part]])
        return scores


class MoleculeVectors:
    """Embeds candidate structures, each once, however many scorers and questions need it.

    Parameters
    ----------
    label : str
        Of the model, as log lines name it.
    model : MoleculeEncoder
    candidates : Candidates
    cache : Path or None
        Folder in which embeddings are kept from one evaluation to the next, under a hash of model and structures.
    workers : int or None
        Processes that read the structures; all cores where None.
    """

    def __init__(
        self, label: str, model: MoleculeEncoder, candidates: Candidates, cache: Path | None, workers: int | None
    ) -> None:
        self._label, self._model, self._cache, self._workers = label, model, cache, workers
        self.candidates = candidates
        self._numbers, self._vectors = np.empty(0, np.int64), np.empty((0, 0), np.float32)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Return the embeddings of candidates, float32 of shape (n, dim); NaN where RDKit cannot read the structure.

        Parameters
        ----------
        numbers : int64 array of shape (n,)
            Rows of the candidates, ascending, each once.
        """
        missing = np.setdiff1d(numbers, self._numbers, assume_unique=True)
        if len(missing):
            found = self._embedded(missing)
            merged = np.concatenate([self._numbers, missing])
            order = np.argsort(merged)
            self._vectors = np.concatenate([self._vectors, found])[order] if len(self._numbers) else found
            self._numbers = merged[order]
        if len(numbers) == len(self._numbers):
            return self._vectors  # all of them: a copy would hold every vector twice
        vectors: np.ndarray = self._vectors[np.searchsorted(self._numbers, numbers)]
        return vectors

    def _embedded(self, numbers: np.ndarray) -> np.ndarray:
        smiles: list[str] = self.candidates.smiles[numbers].tolist()
        readable = [text for text in smiles if text]

        def make() -> np.ndarray:
            logger.info("embedding %s with '%s'", counted(len(readable), "structures"), self._label)
            return self._model.embed_molecules(readable, workers=self._workers, progress=True)

        found = cached_vectors(self._cache, [_identity(self._model), *readable], len(readable), make)
        if found.ndim != 2 or len(found) != len(readable):
            raise ValueError(f"{self._label}: embed_molecules gave shape {found.shape} for {len(readable)} structures")
        if len(readable) == len(smiles):
            return found
        vectors = np.full((len(smiles), found.shape[1]), np.nan, np.float32)
        vectors[[bool(text) for text in smiles]] = found
        return vectors


def learned_with_structures(label: str, model: MoleculeEncoder, cache: Path | None, workers: int | None) -> Build:
    """Return what makes the scorer of a model that embeds spectra and molecules; it embeds each of both once."""
    embedder = Embedder(label, model)
    known: list[MoleculeVectors] = []

    def build(data: EvaluationData, candidates: Candidates, rows: np.ndarray) -> LearnedWithStructures:
        if not known or known[0].candidates is not candidates:
            known[:] = [MoleculeVectors(label, model, candidates, cache, workers)]
        return LearnedWithStructures(label, *embedder.vectors(data.columns, rows), known[0])

    return build


def _identity(model: MoleculeEncoder) -> str:
    """Return what the embedding of a SMILES depends on beside it: the weights, and RDKit, which reads it."""
    from rdkit import rdBase

    return f"structures {model.model_hash()} {rdBase.rdkitVersion}"
