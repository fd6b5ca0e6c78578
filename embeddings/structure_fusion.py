"""One score of a spectrum and a structure from several, each on a scale of its own: with weights that were fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
