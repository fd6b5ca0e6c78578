"""The row of a model whose cosine is fused with look-ups of the peaks, beside its plain row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import numpy as np

from ..embeddings.consensus import Structures, agreed
from ..embeddings.fused_search import OPEN_DEPTH, clearly_highest, pairs_of
from ..embeddings.fusion import Fusion, fusion_of, sigmoid
from ..errors import InputError
from ..spectra.lookups import PeakCleaner
from ..spectra.pair_features import ComparedSpectra
from .candidates import Candidates
from .dataset import EvaluationData
from .entries import Build, Entry
from .predictions import KNOWN, Corpus
from .report.explanations import LOOKUPS_ONLY, WITH_LOOKUP
from .scorers import Encoder, Kind, Scorer
from .task_files import TaskKind

READS = ("precursor_mz", "collision_energy")
"""What a fused score is given beside the peaks, whatever the model reads."""


class Cosines(Protocol):
    """A `Scorer` and `PairScorer` by the cosine of embeddings."""

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """See `Scorer`."""
        ...

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """See `PairScorer`."""
        ...


def fused_label(label: str) -> str:
    """Return the label of the row in which the model ``label`` is fused with look-ups."""
    return label + WITH_LOOKUP


def lookups_label(label: str) -> str:
    """Return the label of the row of the same look-ups, fused without the model ``label``."""
    return label + LOOKUPS_ONLY


class FusedScorer:
    """Scores by a `Fusion`: listed pairs as within a precursor window, whole libraries as in an open search.

    A library is ranked as ``ionbed search --open --score fused`` ranks it: the best ``depth`` spectra by cosine and by
    hybrid entropy are scored, under the consensus of the hits, and all others abstain.

    Parameters
    ----------
    label : str
    cosines : Cosines or None
        None for the look-ups alone: the row is then one of a baseline that is trained here.
    compared : ComparedSpectra
    structures : Structures
        Of all spectra of the data.
    fusion : Fusion
    depth : int
    """

    def __init__(
        self,
        label: str,
        cosines: Cosines | None,
        compared: ComparedSpectra,
        structures: Structures,
        fusion: Fusion,
        depth: int = OPEN_DEPTH,
    ) -> None:
        self.label = label
        self.kind: Kind = "trained" if cosines is None else "learned"
        self._window, self._open, self._consensus = fusion.window, fusion.open, fusion.consensus
        if cosines is None:
            self._window, self._open = fusion.window_lookups, fusion.open_lookups
            self._consensus = fusion.consensus_lookups
        self.weights: Mapping[str, float] = {
            f"{question}: {term}": weight
            for question, score in (("window", self._window), ("open", self._open))
            for term, weight in zip(score.terms, score.weights, strict=True)
        }
        if self._consensus is not None:
            self.weights = {
                **self.weights,
                "consensus: own score": self._consensus.own,
                "consensus: support": self._consensus.support,
            }
        self._cosines, self._compared, self._structures, self._depth = cosines, compared, structures, depth

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return float32 scores from 0 to 1, NaN for what is not among the best; see `Scorer`."""
        by_peaks = self._compared.hybrid_entropy.scores(queries, library)
        cosine = np.zeros_like(by_peaks) if self._cosines is None else self._cosines.scores(queries, library)
        proposed = (by_peaks,) if self._cosines is None else (by_peaks, cosine)
        query, column = pairs_of(*(clearly_highest(scores, self._depth) for scores in proposed))
        total = self._open.total(cosine[query, column], self._compared.features(queries[query], library[column]))
        if self._consensus is not None:
            copy_total = self._open.total(np.ones(len(queries)), self._compared.features(queries, queries))
            of = self._structures.molecule[library[column]]
            total = agreed(self._consensus, query, total, copy_total, of, self._structures.fingerprints)
        results = np.full(by_peaks.shape, np.nan, np.float32)
        results[query, column] = sigmoid(total)
        return results

    def pair_scores(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return float64 scores from 0 to 1 of shape (n_pairs,); see `PairScorer`."""
        cosine = np.zeros(len(first)) if self._cosines is None else self._cosines.pair_scores(first, second)
        return self._window(cosine, self._compared.features(first, second))


def fused_entries(
    entries: Sequence[Entry],
    models: Mapping[str, Sequence[Encoder]],
    kinds: frozenset[TaskKind],
    *,
    split_hash: str,
    fold: str,
    workers: int | None = None,
) -> list[Entry]:
    """Return two further rows of every model that carries a fusion: with look-ups, and those look-ups without it.

    Parameters
    ----------
    entries : sequence of Entry
        The plain rows of the models; what they have embedded is not embedded again.
    models : mapping of label to sequence of Encoder
        The trainings of each model.
    kinds : frozenset of TaskKind
        The questions that spectra answer.
    split_hash, fold : str
        Of the evaluation: a score that was fitted on that fold, or by another split, has seen the molecules.

    Raises
    ------
    InputError
        Some trainings of a model carry a fusion and some do not, or it does not fit its model.
    """
    rows = []
    for entry in entries:
        found = [fusion_of(model, f"models.{entry.label}") for model in models[entry.label]]
        fusions = [fusion for fusion in found if fusion is not None]
        if not fusions:
            continue
        if len(fusions) < len(found):
            raise InputError(
                f"models.{entry.label}: {len(fusions)} of its {len(found)} trainings carry a fused score; one row "
                "cannot be of both kinds: run ionbed fuse for all of them"
            )
        fitted = [Corpus("fuse", fusion.fitted.get("split"), (str(fusion.fitted.get("fold")),)) for fusion in fusions]
        reasons = [entry.exposure, *(_exposure(corpus, split_hash, fold) for corpus in fitted)]
        rows.append(
            Entry(
                lookups_label(entry.label),
                "trained",
                tuple(_fused(lookups_label(entry.label), None, fusion, workers) for fusion in fusions),
                READS,
                tuple(dict.fromkeys(fitted)),
                next(filter(None, reasons[1:]), None),
                kinds,
            )
        )
        rows.append(
            Entry(
                fused_label(entry.label),
                "learned",
                tuple(
                    _fused(fused_label(entry.label), build, fusion, workers)
                    for build, fusion in zip(entry.builds, fusions, strict=True)
                ),
                tuple(name for name in KNOWN if name in entry.known or name in READS),
                tuple(dict.fromkeys([*entry.trained_on, *fitted])),
                next(filter(None, reasons), None),
                kinds,
            )
        )
    return rows


def _exposure(fitted: Corpus, split_hash: str, fold: str) -> str | None:
    if fitted.split != split_hash:
        return "its fused score was fitted by another split"
    return f"its fused score was fitted on the fold '{fold}'" if fold in fitted.folds else None


def _fused(label: str, build: Build | None, fusion: Fusion, workers: int | None) -> Build:
    cleaner = PeakCleaner(fusion.lookups)

    def built(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Scorer:
        compared = ComparedSpectra(data.columns, fusion.lookups, rows=rows, cleaner=cleaner, workers=workers)
        cosines = None if build is None else cast(Cosines, build(data, molecules, rows))
        structures = Structures(data.molecule, lambda of: molecules.fingerprint[of])
        return FusedScorer(label, cosines, compared, structures, fusion)

    return built
