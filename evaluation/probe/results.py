"""From judged heads and searches to ``results.json``: every row's figures, and paired differences with verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..judged import CHANCE
from ..statistics import (
    Measured,
    bootstrap_p,
    combine_trainings,
    compare,
    confirmed,
    estimate,
    holm,
    trainings_p,
)
from .features import NO_SPECTRUM, FeatureSet
from .heads import Predicted
from .scores import ProbeJudge, Scored
from .targets import METRICS, Target
from .zero_shot import SearchTable

LINEAR, ZERO_SHOT = "linear probe", "zero-shot"
UNTRAINED, REFERENCE = "untrained", "reference"
"""Roles of what a model is compared with: its own architecture with random weights, and a model that is named."""


def linear_tree(
    target: Target,
    judge: ProbeJudge,
    rows: Sequence[tuple[FeatureSet, Sequence[Predicted], Sequence[Scored]]],
    *,
    reference: str | None,
    confidence: float,
) -> dict[str, Any]:
    """Return the table of one target.

    Parameters
    ----------
    rows : sequence of (FeatureSet, Predicted and Scored of each training)
        The first is the one without a spectrum.
    reference : str or None
        Label of the model that the others are compared with.
    """
    sets = [features for features, _, _ in rows]
    metrics = METRICS[target.kind]
    bounds = (-np.inf, 1.0) if target.kind == "numbers" else (0.0, 1.0)
    trained = {metric: [[scored.metrics[metric] for scored in of] for _, _, of in rows] for metric in metrics}
    combined = {metric: [combine_trainings(of, bounds) for of in trained[metric]] for metric in metrics}
    compared = _comparisons(sets, reference)
    compared += [(place, 0, NO_SPECTRUM) for place, features in enumerate(sets) if features.kind == "learned"]
    differences: list[list[dict[str, Any]]] = [[] for _ in rows]
    for metric in metrics:
        p_values = [_p_value(trained[metric][own], trained[metric][other]) for own, other, _ in compared]
        for (own, other, role), p, corrected in zip(compared, p_values, holm(p_values), strict=True):
            found = compare(combined[metric][own], combined[metric][other], sets[other].label, confidence)
            differences[own].append(
                {
                    "metric": metric,
                    "role": role,
                    "against": found.against,
                    "estimate": asdict(found.estimate),
                    "p": p,
                    "p corrected": corrected,
                    "verdict": confirmed(found, corrected, confidence),
                }
            )
    return {
        "kind": LINEAR,
        "main": target.main,
        "metrics": list(metrics),
        "labels": list(target.labels),
        "counts": {**target.counts, "spectra": judge.num_spectra},
        "rows": [
            {
                "label": features.label,
                "kind": features.kind,
                "trainings": len(of),
                "metrics": {metric: asdict(estimate(combined[metric][place], confidence)) for metric in metrics},
                "of label": {
                    label: asdict(estimate(combine_trainings([s.of_label[label] for s in of], bounds), confidence))
                    for label in target.labels
                },
                "penalty": [one.penalty for one in predicted],
                "differences": differences[place],
            }
            for place, (features, predicted, of) in enumerate(rows)
        ],
    }


def search_tree(search: SearchTable, sets: Sequence[FeatureSet], *, reference: str | None) -> dict[str, Any]:
    """Return the table of one search, whose rows are ``sets``."""
    compared: list[tuple[int, int | None, str]] = [*_comparisons(sets, reference)]
    compared += [(place, None, CHANCE) for place, features in enumerate(sets) if features.kind == "learned"]
    differences: list[list[dict[str, Any]]] = [[] for _ in sets]
    for (own, _, _), found in zip(compared, search.compare(compared), strict=True):
        differences[own].append({name: of for name, of in found.items() if name != "own"})
    metrics = [search.metrics(place) for place in range(len(sets))]
    return {
        "kind": ZERO_SHOT,
        "main": search.main,
        "metrics": list(dict.fromkeys(name for of in metrics for name in of)),
        "counts": dict(search.question.found.counts),
        "hash": search.question.task.hash,
        "rows": [
            {
                "label": features.label,
                "kind": features.kind,
                "trainings": len(features.makes) if features.is_comparable else 1,
                "metrics": metrics[place],
                "differences": differences[place],
            }
            for place, features in enumerate(sets)
        ],
    }


def _comparisons(sets: Sequence[FeatureSet], reference: str | None) -> list[tuple[int, int, str]]:
    """Return which rows are compared: each model with its twin, the baselines, and the reference."""
    place_of = {features.label: place for place, features in enumerate(sets)}
    found = []
    for place, features in enumerate(sets):
        if features.kind != "learned":
            continue
        if features.twin is not None:
            found.append((place, place_of[features.twin], UNTRAINED))
        found += [(place, other, of.label) for other, of in enumerate(sets) if of.kind in ("look-up", "blind")]
        if reference is not None and reference != features.label:
            found.append((place, place_of[reference], REFERENCE))
    return found


def _p_value(own: Sequence[Measured], other: Sequence[Measured]) -> float:
    """Return the p-value of a difference, which holds for other trainings too where there are several."""
    if len(own) > 1 or len(other) > 1:
        return trainings_p(own, other)
    return bootstrap_p(own[0].value - other[0].value, own[0].resampled - other[0].resampled)
