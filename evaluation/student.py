"""Quantiles of Student's t distribution, for intervals that need no SciPy."""

from __future__ import annotations

from statistics import NormalDist


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution by its expansion (Abramowitz and Stegun 1964, 26.7.5).

    Right to 0.001 at a ``probability`` of 0.975 from 4 degrees of freedom on.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
