"""What the report says in words: the verdict on each model, and one sentence on every number and every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..measure import (
    ANALOGUE_SEARCH,
    AUC,
    AUC_BETWEEN_LABORATORIES,
    LIBRARY_SEARCH,
    ORACLE,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
    TANIMOTO,
)

QUESTIONS = {
    SAME_MOLECULE: "Two spectra with nearly the same precursor m/z: one molecule or two? (both held out)",
    SAME_MOLECULE_ANY_PARTNER: "The same question, where the partner may be any molecule of the data set",
    LIBRARY_SEARCH: "Is the right molecule the first hit in the library?",
    ANALOGUE_SEARCH: "How alike is the first hit, where the library does not hold the molecule?",
}
"""What each task asks, in the words of a user."""

METRICS = {
    AUC: "how often a pair of spectra of one molecule scores higher than a pair of two molecules with nearly the same "
    "precursor m/z (0.5 is guessing, 1 is perfect)",
    AUC_BETWEEN_LABORATORIES: "the same, counting only pairs whose spectra come from two different laboratories",
    "hit@1": "share of the query spectra whose own molecule is the first hit",
    "hit@5": "share whose molecule is among the first five",
    "hit@20": "share whose molecule is among the first twenty",
    TANIMOTO: "structural similarity of the first hit to the query's molecule (Morgan fingerprints of radius 2; 0 is "
    "nothing in common, 1 is the same), averaged over the queries",
}
"""One sentence on each metric."""

ROWS = {
    "random": "every candidate gets the same score: what guessing gives",
    "precursor only": "the nearer the precursor m/z, the better; no fragment is looked at",
    "cosine": "cosine of the fragment peaks that match (matchms)",
    "modified cosine": "cosine in which fragments shifted by the difference of the two precursors match as well",
    "spectral entropy": "spectral entropy similarity of the fragment peaks (ms_entropy)",
    "hybrid entropy": "spectral entropy similarity of fragments and of neutral losses",
    ORACLE: "the molecule of the library that is most like the query's: no ranking can do better",
}
"""One sentence on each row that is always there."""

VERDICTS = {"beats": "beats", "loses": "loses to", "unresolved": "cannot be told from"}

LEARNED = "cosine of the two learned embeddings"


def verdicts(tree: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return for each model, by label, its headline figure in each task beside that of the best look-up.

    The headline is the first metric of the task that could be measured.

    Returns
    -------
    dict of str to list of dict
        Keys ``task``, ``metric``, ``own``, ``other`` (estimates), ``against`` and ``verdict``.
    """
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in tree["inputs"]["models"]}
    for name, task in tree["tasks"].items():
        rows = {row["label"]: row for row in task["rows"]}
        for label in found.keys() & rows.keys():
            metric = next((metric for metric in task["metrics"] if metric in rows[label]["differences"]), None)
            if metric is None:
                continue
            difference = rows[label]["differences"][metric]
            found[label].append(
                {
                    "task": name,
                    "metric": metric,
                    "own": rows[label]["estimates"][metric],
                    "other": rows[difference["against"]]["estimates"][metric],
                    "against": difference["against"],
                    "verdict": difference["verdict"],
                }
            )
    return found


def verdict_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return one sentence on each model: where it beats, loses to, or cannot be told from the best look-up."""
    if not tree["inputs"]["models"]:
        return ["No model was evaluated: these are the figures of the look-ups alone."]
    sentences = []
    for label, comparisons in verdicts(tree).items():
        tasks: dict[str, list[str]] = {}
        for comparison in comparisons:
            tasks.setdefault(comparison["verdict"], []).append(comparison["task"].replace(",", " with"))
        parts = [
            f"{words} the best look-up in {_listed(tasks[verdict], len(comparisons))}"
            for verdict, words in VERDICTS.items()
            if verdict in tasks
        ]
        sentences.append(f"'{label}' {', '.join(parts)}." if parts else f"'{label}': nothing could be measured.")
    return sentences


def exposure_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return a warning for each model that may have seen the molecules of the queries."""
    return [
        f"The model '{label}' may have seen the molecules of the queries: {model['exposure']}. Its figures may measure "
        "memory."
        for label, model in tree["inputs"]["models"].items()
        if model["exposure"]
    ]


def predicted_sentence(tree: Mapping[str, Any]) -> str | None:
    """Return how many of the spectra no instrument has measured, or None where all are measured."""
    predicted, spectra = tree["inputs"]["predicted spectra"], tree["inputs"]["spectra"]
    return f"{predicted:,} of {spectra:,} spectra were predicted by a program, not measured." if predicted else None


def _listed(tasks: list[str], num_tasks: int) -> str:
    if len(tasks) == num_tasks > 1:
        return f"all {num_tasks} tasks"
    return tasks[0] if len(tasks) == 1 else f"{', '.join(tasks[:-1])} and {tasks[-1]}"
