"""What a score is worth as a confidence: risk against coverage, calibration, and the false discovery rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

FDR_LEVELS = (0.01, 0.05, 0.1)
"""Levels for which a score threshold is sought."""

NUM_BINS = 10
"""Bins of a reliability diagram."""

CURVE_POINTS = 101
"""Points of a risk-coverage curve that are kept: at every percent of coverage."""


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """How the error rate grows as more queries are answered, the most confident first.

    Attributes
    ----------
    coverage, risk : float64 arrays of shape (n,)
        Share of the queries that are answered, 1/n to 1, and the share of errors among these.
    area : float
        Mean of ``risk`` (AURC; Geifman and El-Yaniv, NeurIPS 2017); 0 is perfect.
    excess : float
        ``area`` minus the least that any order of the same outcomes could give: what the confidence costs, the
        accuracy aside.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float
    excess: float


@dataclass(frozen=True)
class Calibration:
    """Whether answers of confidence p are right in a share p of the cases.

    Attributes
    ----------
    error : float
        Expected calibration error: mean distance between confidence and accuracy, over bins that hold equally many
        answers (Guo et al., ICML 2017; equal bins after Nguyen and O'Connor, EMNLP 2015).
    confidence, accuracy : tuples of float
        Mean of each bin.
    num : tuple of int
        Answers in each bin.
    """

    error: float
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    num: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FdrCurve:
    """Accepted answers and their false discovery rate at every distinct score, from the highest down.

    Attributes
    ----------
    threshold : float64 array of shape (n,)
        Answers at or above it are accepted.
    accepted : int64 array of shape (n,)
    measured : float64 array of shape (n,)
        Share of wrong answers among the accepted, as the truth has it.
    estimated : float64 array of shape (n,)
        The same as far as it can be told without the truth, from second-best candidates; see `fdr_curve`.
    """

    threshold: np.ndarray
    accepted: np.ndarray
    measured: np.ndarray
    estimated: np.ndarray


def risk_coverage(confidence: np.ndarray, correct: np.ndarray) -> RiskCoverage:
    """Return the risk-coverage curve; queries of one confidence are answered in random order, in expectation.

    Parameters
    ----------
    confidence : array of shape (n,), n at least 1
        Minus infinity for a query without an answer, which comes last and counts as an error.
    correct : array of shape (n,)
        Chance that the answer is right, 0 to 1.
    """
    confidence = np.asarray(confidence, np.float64)
    error = np.where(np.isneginf(confidence), 1.0, 1.0 - np.asarray(correct, np.float64))
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sizes = np.diff(np.append(starts, len(order)))
    # Within a block of equal confidence every query is as likely to come next as any other.
    risk_of_block = np.add.reduceat(error[order], starts) / sizes
    num = np.arange(1, len(order) + 1)
    risk = np.cumsum(np.repeat(risk_of_block, sizes)) / num
    least = float(np.mean(np.cumsum(np.sort(error)) / num))
    area = float(risk.mean())
    return RiskCoverage(num / len(order), risk, area, area - least)


def calibration(probability: np.ndarray, correct: np.ndarray, bins: int = NUM_BINS) -> Calibration:
    """Return the calibration of stated probabilities, in ``bins`` bins of equally many answers.

    Parameters
    ----------
    probability : array of shape (n,), n at least 1
        0 to 1; queries without an answer left out.
    correct : array of shape (n,)
        Chance that the answer is right, 0 to 1.
    """
    _, block, size = np.unique(probability, return_inverse=True, return_counts=True)
    # Answers of one probability may fall into two bins: each carries their mean, whatever the order of the queries.
    correct = (np.bincount(block, weights=correct) / size)[block]
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    stated = tuple(float(np.mean(probability[part])) for part in parts)
    accuracy = tuple(float(np.mean(correct[part])) for part in parts)
    num = tuple(len(part) for part in parts)
    gaps = np.abs(np.subtract(stated, accuracy))
    return Calibration(float(np.average(gaps, weights=num)), stated, accuracy, num)


def fdr_curve(best: np.ndarray, correct: np.ndarray, second: np.ndarray) -> FdrCurve:
    """Return the false discovery rate at every threshold, measured and as estimated from second-best candidates.

    Where the best candidate is right, the second best is a wrong one that came through the same competition; wrong
    answers that score above a threshold are therefore estimated by the second-best candidates that do (the use of
    second-best matches: Peng et al., Bioinformatics 36 (2020) i745). It counts too many where most answers are right,
    and too few where a query's molecule is not among the candidates, for then the second best is only the second of
    the wrong ones. The curve shows both, so that one sees how far the estimate can be trusted.

    Parameters
    ----------
    best : array of shape (n,)
        Score of each query's best candidate; minus infinity where nothing was answered.
    correct : array of shape (n,)
        Chance that it is right, 0 to 1 (ties in expectation; 0 where no candidate is).
    second : array of shape (n,)
        Score of the best candidate molecule after it; minus infinity where there is none.
    """
    answered = ~np.isneginf(best)
    best, correct = np.asarray(best, np.float64)[answered], np.asarray(correct, np.float64)[answered]
    order = np.argsort(-best, kind="stable")
    ordered = best[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    threshold = ordered[is_last]
    accepted = np.flatnonzero(is_last) + 1
    wrong = np.cumsum(1.0 - correct[order])[is_last]
    decoys = np.sort(np.asarray(second, np.float64)[answered])
    num_decoys = len(decoys) - np.searchsorted(decoys, threshold, side="left")
    return FdrCurve(threshold, accepted, wrong / accepted, np.minimum(num_decoys / accepted, 1.0))


def threshold_at_fdr(curve: FdrCurve, level: float) -> tuple[float, int] | None:
    """Return the lowest threshold whose measured false discovery rate stays within ``level``, and how many it accepts.

    One more wrong answer is counted than was seen: with few accepted answers none need be wrong by luck alone
    (Levitsky et al., J. Proteome Res. 16 (2017) 393-397). At 1%, at least 100 answers must be accepted. None where no
    threshold will do.
    """
    allowed = np.flatnonzero(curve.measured * curve.accepted + 1.0 <= level * curve.accepted + 1e-9)
    if not len(allowed):
        return None
    return float(curve.threshold[allowed[-1]]), int(curve.accepted[allowed[-1]])


def confidence_tree(best: np.ndarray, correct: np.ndarray, second: np.ndarray, *, probability: bool) -> dict[str, Any]:
    """Return all of this module's measures of one set of answers, as plain numbers for JSON.

    Parameters
    ----------
    best, correct, second : arrays of shape (n,), n at least 1
        See `fdr_curve`.
    probability : bool
        Whether the scores are stated to be probabilities, so that calibration can be asked of them.
    """
    curve = risk_coverage(best, correct)
    at = np.unique(np.round(np.linspace(0, len(best) - 1, CURVE_POINTS)).astype(np.int64))
    fdr = fdr_curve(best, correct, second)
    answered = ~np.isneginf(best)
    found: dict[str, Any] = {
        "area under risk-coverage": curve.area,
        "excess area": curve.excess,
        "risk-coverage": {"coverage": curve.coverage[at].tolist(), "risk": curve.risk[at].tolist()},
        "thresholds": [_threshold_tree(fdr, level) for level in FDR_LEVELS],
        "calibration": None,
    }
    if probability and answered.any():
        reliability = calibration(best[answered], correct[answered])
        found["calibration"] = {
            "error": reliability.error,
            "confidence": list(reliability.confidence),
            "accuracy": list(reliability.accuracy),
            "answers": list(reliability.num),
        }
    return found


def _threshold_tree(curve: FdrCurve, level: float) -> dict[str, Any]:
    found = threshold_at_fdr(curve, level)
    if found is None:
        return {"FDR": level, "threshold": None, "accepted": 0, "measured": None, "estimated": None}
    place = int(np.flatnonzero(curve.threshold == found[0])[0])
    return {
        "FDR": level,
        "threshold": found[0],
        "accepted": found[1],
        "measured": float(curve.measured[place]),
        "estimated": float(curve.estimated[place]),
    }
