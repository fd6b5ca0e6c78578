"""One score of a spectrum and a structure from several, each on a scale of its own: with weights that were fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..spectra.lookups import LookupOptions

STRUCTURE_COSINE = "cosine to the structure"
PREDICTED_ENTROPY = "predicted spectra"
PREDICTED_COSINE = "cosine to predicted spectra"
TERMS = (STRUCTURE_COSINE, PREDICTED_ENTROPY, PREDICTED_COSINE)
"""What an index of structures can rank by: the inner product of the embeddings of spectrum and structure, where the
model was trained with structures; the spectral entropy similarity of the query and the structure's predicted spectra;
and the inner product of their embeddings: the best over the predicted spectra."""

FORMAT, RECORD = 1, "structures"
"""Of the record in a model's ``config.json``, and its name within that of the fusion."""


@dataclass(frozen=True)
class StructureScore:
    """A sum of standardised terms.

    Attributes
    ----------
    terms : tuple of str
    weights : tuple of float
        Of each standardised term; not negative.
    centre, scale : tuple of float
        By which each term is standardised: fixed, so that a score does not depend on the candidates beside it.
    """

    terms: tuple[str, ...]
    weights: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.terms) == len(self.weights) == len(self.centre) == len(self.scale):
            raise ValueError(f"{len(self.terms)} terms have {len(self.weights)} weights; each needs weight and scale")
        if not np.isfinite([*self.weights, *self.centre, *self.scale]).all():
            raise ValueError("a weight or a scale is not a finite number")
        if min((*self.weights, 0.0)) < 0 or not min((*self.scale, 1.0)) > 0:
            raise ValueError("a weight is below 0, or a scale not above 0")

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the weighted sums, float64 of shape (n_pairs,).

        Parameters
        ----------
        values : array of shape (n_pairs, n_terms)
            NaN abstains and adds nothing. Terms without a weight are not looked at.

        Returns
        -------
        float64 array of shape (n_pairs,)
            NaN where all terms abstain.
        """
        used = [place for place, weight in enumerate(self.weights) if weight]
        total = np.zeros(len(values))
        # A sum over each row by itself: a matrix product may round differently with other pairs beside it.
        for place in used:
            standard = (np.asarray(values[:, place], np.float64) - self.centre[place]) / self.scale[place]
            total += self.weights[place] * np.nan_to_num(standard)
        if used:
            total[np.isnan(values[:, used]).all(axis=1)] = np.nan
        return total


@dataclass(frozen=True)
class StructureFusion:
    """What a model carries so that the structures of an index can be ranked by several scores in one.

    Attributes
    ----------
    model_hash : str
        Of the model (`IonbedModel.model_hash`) for which the weights were fitted.
    lookups : LookupOptions
        How peaks are cleaned and matched.
    score : StructureScore
        Of some of `TERMS`.
    fitted : mapping
        On what it was fitted, and what it gave there.
    """

    model_hash: str
    lookups: LookupOptions
    score: StructureScore
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.score.terms) - set(TERMS):
            raise ValueError(f"the term '{min(unknown)}' is unknown to this version of ionbed")

    def to_tree(self) -> dict[str, Any]:
        """Return plain values, as they stand in ``config.json``."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> StructureFusion:
        """Return what `to_tree` wrote; raises ValueError, TypeError or KeyError where ``tree`` is not of that form."""
        if tree["format"] != FORMAT:
            raise ValueError(f"its format is {tree['format']}, this version of ionbed reads {FORMAT}")
        numbers = (tuple(map(float, tree["score"][name])) for name in ("weights", "centre", "scale"))
        score = StructureScore(tuple(tree["score"]["terms"]), *numbers)
        return cls(str(tree["model_hash"]), LookupOptions(**tree["lookups"]), score, dict(tree["fitted"]))


def structure_fusion_of(model: object, name: str = "the model") -> StructureFusion | None:
    """Return the fusion for structures that ``model`` carries, or None.

    It stands in ``model.config.fusion`` beside that for spectra, under `RECORD`: no embedding depends on either.

    Parameters
    ----------
    name : str
        Of the model, for messages.

    Raises
    ------
    InputError
        The record is damaged, or it was fitted for other weights than the model now has.
    """
    tree = (getattr(getattr(model, "config", None), "fusion", None) or {}).get(RECORD)
    if tree is None:
        return None
    mend = "fit it again: ionbed fuse --structures"
    try:
        fusion = StructureFusion.from_tree(tree)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{name}: '{RECORD}' of 'fusion' in its config.json is damaged ({error!r}); {mend}") from None
    if fusion.model_hash != model.model_hash():  # type: ignore[attr-defined]  # who has a config has it
        raise InputError(
            f"{name}: its score of structures was fitted for other weights (those of {fusion.model_hash[:12]}); {mend}"
        )
    return fusion
