"""One score of two spectra from the cosine of their embeddings and from look-ups of their peaks, with fitted weights.

A learned vector forgets what a comparison of the peaks themselves still sees, and a look-up does not know that 10 eV
and 60 eV give one molecule two faces. `ionbed.evaluation.fuse` fits how much each counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import InputError
from ..spectra.lookups import LookupOptions
from ..spectra.pair_features import FEATURES, LARGEST_ENERGY_DIFFERENCE
from .consensus import Consensus

EMBEDDING_COSINE = "embedding cosine"
BY = " by "
"""Joins the two factors of a term that is a product."""

WINDOW_TERMS = (
    EMBEDDING_COSINE,
    "spectral entropy",
    "dissimilarity",
    f"dissimilarity{BY}energy difference",
    f"dissimilarity{BY}energy unknown",
)
"""Terms of the score within a precursor window. Different collision energies excuse what is dissimilar; of two spectra
with the same peaks they say nothing, and they never excuse so much that a likeness comes before a copy of the query
(`copy_is_best`). Terms are
few, since more of them (entropies, numbers of peaks and of matches) told pairs apart a little better and ranked the
candidates of a query worse: they favour spectra of their own kind, whatever the query. Nor are the precursors among
them: which of two values within 10 ppm is nearer says how a library was made (calculated or measured m/z) before it
says anything of the molecule."""

OPEN_TERMS = (
    EMBEDDING_COSINE,
    *(feature for feature in FEATURES if feature != "dissimilarity"),
    f"hybrid entropy{BY}energy difference",
    f"{EMBEDDING_COSINE}{BY}lower entropy",
    f"{EMBEDDING_COSINE}{BY}hybrid entropy",
)
"""Terms of the score of an open search."""

DISTANCES = frozenset(
    {"entropy difference", "energy difference", "energy unknown", "precursor difference", "dissimilarity"}
)
"""Terms that are lowest between a spectrum and its copy; so is a product with one of them. All others are highest."""


def direction(term: str) -> int:
    """Return 1 for a term that is highest between a spectrum and its copy, -1 for one that is lowest there."""
    return 1 if DISTANCES.isdisjoint(term.split(BY)) else -1


def copy_is_best(terms: tuple[str, ...]) -> np.ndarray:
    """Return conditions on the weights of `WINDOW_TERMS` under which no pair scores higher than a spectrum with a copy.

    Similarity ``e`` and dissimilarity ``1 - e**2`` together give ``w * e + (1 - e**2) * s``, where ``s`` depends on the
    collision energies, and is linear in each term of them. It rises with ``e`` up to 1 if ``w >= 0`` and
    ``w >= 2 * s``, which holds for all energies if it holds at both ends of their range and where they are unknown.

    Parameters
    ----------
    terms : tuple of str
        Some or all of `WINDOW_TERMS`.

    Returns
    -------
    float64 array of shape (n_conditions, n_terms)
        Its product with the weights is to be 0 or more.
    """
    furthest = float(np.log1p(LARGEST_ENERGY_DIFFERENCE))
    rows = [{term: 1.0} for term in WINDOW_TERMS[:2] if term in terms]
    for difference, unknown in ((0.0, 0.0), (furthest, 0.0), (0.0, 1.0)):
        excuses = (1.0, difference, unknown)
        rows.append({WINDOW_TERMS[1]: 1.0, **{t: -2 * v for t, v in zip(WINDOW_TERMS[2:], excuses, strict=True)}})
    return np.array([[row.get(term, 0.0) for term in terms] for row in rows])


def without_embedding(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the terms that need no embedding."""
    return tuple(term for term in terms if EMBEDDING_COSINE not in term.split(BY))


FORMAT = 2
"""Of the record in a model's ``config.json``; 1 had no consensus."""


class FusedModel(Protocol):
    """What is asked of a model that carries a fusion: `ionbed.load_model` gives one."""

    config: Any

    def model_hash(self) -> str:
        """Return a hash over weights and configuration."""


@dataclass(frozen=True)
class FusedScore:
    """A logistic function of weighted terms.

    Attributes
    ----------
    terms : tuple of str
        `EMBEDDING_COSINE`, `ionbed.spectra.pair_features.FEATURES`, and products of two of them (`BY`).
    weights : tuple of float
        One for each term.
    intercept : float
    """

    terms: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        unknown = {part for term in self.terms for part in term.split(BY)} - {EMBEDDING_COSINE, *FEATURES}
        if unknown:
            raise ValueError(f"the term '{min(unknown)}' is unknown to this version of ionbed")
        if len(self.weights) != len(self.terms):
            raise ValueError(f"{len(self.terms)} terms have {len(self.weights)} weights")
        if not np.isfinite([*self.weights, self.intercept]).all():
            raise ValueError("a weight is not a finite number")

    def __call__(self, cosine: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return scores from 0 to 1, float64 of shape (n_pairs,).

        Parameters
        ----------
        cosine : array of shape (n_pairs,)
            Of the embeddings.
        features : array of shape (n_pairs, 19)
            From `ionbed.spectra.pair_features.ComparedSpectra.features`.
        """
        return sigmoid(self.total(cosine, features))

    def total(self, cosine: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Return the weighted sums, from which `sigmoid` makes the scores; float64 of shape (n_pairs,).

        To rank by: near 0 and 1 different sums have the same score once it is rounded. Parameters are those of the
        call.
        """
        # A sum over each row by itself: a matrix product may round differently with other pairs beside it.
        total = np.full(len(cosine), self.intercept)
        for weight, column in zip(self.weights, term_columns(self.terms, cosine, features), strict=True):
            total += weight * column
        return total


@dataclass(frozen=True)
class Fusion:
    """What a model carries so that its cosine can be fused with look-ups.

    Attributes
    ----------
    model_hash : str
        Of the model (`IonbedModel.model_hash`) for which the weights were fitted: for other weights of the encoder
        they mean nothing.
    lookups : LookupOptions
        How peaks are cleaned and matched.
    window : FusedScore
        For candidates of one precursor window: the probability that both spectra are of one molecule, where as many
        pairs are as are not.
    open : FusedScore
        For candidates of any precursor: the Tanimoto similarity (Morgan fingerprints) to be expected.
    window_lookups, open_lookups : FusedScore
        The same without the embeddings, fitted to the same pairs: what the model adds is seen beside them only.
    fitted : mapping
        On what it was fitted, and what it gave there.
    consensus, consensus_lookups : Consensus or None
        Of the hits of an open search with and without the embeddings; None where it was no better than none.
    """

    model_hash: str
    lookups: LookupOptions
    window: FusedScore
    open: FusedScore
    window_lookups: FusedScore
    open_lookups: FusedScore
    fitted: Mapping[str, Any] = field(default_factory=dict)
    consensus: Consensus | None = None
    consensus_lookups: Consensus | None = None

    def to_tree(self) -> dict[str, Any]:
        """Return plain values, as they stand in ``config.json``."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Fusion:
        """Return what `to_tree` wrote; raises ValueError, TypeError or KeyError where ``tree`` is not of that form."""
        if tree["format"] != FORMAT:
            raise ValueError(f"its format is {tree['format']}, this version of ionbed reads {FORMAT}")
        window, open_, window_lookups, open_lookups = (
            FusedScore(tuple(of["terms"]), tuple(map(float, of["weights"])), float(of["intercept"]))
            for of in (tree["window"], tree["open"], tree["window_lookups"], tree["open_lookups"])
        )
        lookups = LookupOptions(**tree["lookups"])
        fitted = dict(tree["fitted"])
        consensus = [None if of is None else Consensus(**of) for of in (tree["consensus"], tree["consensus_lookups"])]
        return cls(str(tree["model_hash"]), lookups, window, open_, window_lookups, open_lookups, fitted, *consensus)


def sigmoid(total: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-total)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -total))


def fusion_of(model: object, name: str = "the model") -> Fusion | None:
    """Return the fusion that ``model`` carries (``model.config.fusion``), or None.

    Parameters
    ----------
    name : str
        Of the model, for messages.

    Raises
    ------
    InputError
        The record is damaged or of another format, or was fitted for other weights than the model now has.
    """
    tree = getattr(getattr(model, "config", None), "fusion", None)
    if tree is None:
        return None
    try:
        fusion = Fusion.from_tree(tree)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{name}: 'fusion' in its config.json cannot be used ({error!r}); fit it again: ionbed fuse"
        ) from None
    if fusion.model_hash != model.model_hash():  # type: ignore[attr-defined]  # who has a config has it
        raise InputError(
            f"{name}: its fused score was fitted for other weights (those of {fusion.model_hash[:12]}); "
            "fit it again: ionbed fuse"
        )
    return fusion


def term_columns(terms: tuple[str, ...], cosine: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
    """Return the values of each term, float64 of shape (n_pairs,) each; parameters as of `FusedScore`."""
    values = {name: features[:, place] for place, name in enumerate(FEATURES)}
    values[EMBEDDING_COSINE] = np.asarray(cosine, np.float64)
    columns = []
    for term in terms:
        first, *second = term.split(BY)
        columns.append(values[first] * values[second[0]] if second else values[first])
    return columns
