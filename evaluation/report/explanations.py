"""The words of the report: what each question asks, and one sentence on every number, row and kind of row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "same molecule": "Same molecule or not, both spectra held out",
    "same molecule, any partner": "Same molecule or not, the partner of any fold",
    "library search": "Library search: the molecule is in the library",
    "open-world search": "Open-world search: some queries have no answer",
    "analogue search": "Analogue search: the molecule is not in the library",
    "retrieval by mass": "Structure retrieval: candidates of the same mass",
    "retrieval by formula": "Structure retrieval: candidates of the same formula",
    "retrieval from lists": "Structure retrieval: candidates from given lists",
}
"""Heading of each question."""

QUESTIONS = {
    "same molecule": "Two spectra with nearly the same precursor m/z: one molecule or two? Both are held out.",
    "same molecule, any partner": "The same question, where the partner may be any molecule of the data set.",
    "library search": "Is the query's molecule the first hit in a library that holds it, among spectra with nearly the "
    "same precursor m/z?",
    "open-world search": "The same search, where the molecule of half of the queries has been taken out of the "
    "library: can the score tell which answers to keep?",
    "analogue search": "How alike is the first hit to the query's molecule, where the library does not hold it?",
    "retrieval by mass": "Is the true structure the first among candidate structures of nearly the same mass?",
    "retrieval by formula": "Is the true structure the first among candidate structures of the same formula?",
    "retrieval from lists": "Is the true structure the first in its list of candidate structures?",
}
"""What each question asks, in the words of a user."""

METRICS = {
    "ROC AUC": "how often a pair of spectra of one molecule scores higher than a pair of two molecules with nearly the "
    "same precursor m/z; 0.5 is guessing, 1 is perfect",
    "ROC AUC between laboratories": "the same, counting only pairs whose spectra come from two different laboratories",
    "average precision": "how pure the pairs with the highest scores are, averaged over all pairs of one molecule; "
    "guessing gives the share of such pairs, 1 is perfect",
    "hit@1": "share of the queries whose own molecule is the first hit",
    "hit@5": "share whose molecule is among the first five",
    "hit@10": "share whose molecule is among the first ten",
    "hit@20": "share whose molecule is among the first twenty",
    "MRR": "mean reciprocal rank: 1 where the molecule is first, 1/2 where it is second, and so on",
    "Tanimoto@1": "structural similarity of the first hit to the query's molecule (Tanimoto of Morgan fingerprints of "
    "radius 2); 0 is nothing in common, 1 is the same",
    "MCES@1": "how many bonds must be broken or made to turn the first hit into the query's molecule (distance by the "
    "maximum common edge subgraph); 0 is the same molecule, and lower is better",
}
"""One sentence on each metric."""

ROWS = {
    "random": "every candidate gets the same score: what guessing gives",
    "nearest-neighbour oracle": "knows the truth: in a library it names the molecule most like it, and among candidate "
    "structures those most like the training molecule that is nearest to it",
    "precursor only": "the nearer the precursor m/z, the better; no fragment is looked at",
    "predicted spectra": "the best spectral entropy similarity with the spectra that rules of fragmentation predict of "
    "the candidate",
    "precursor error": "the nearer the candidate's mass to that of the precursor, the better; no fragment is looked at",
    "random, given the formula": "the candidates of the true formula first, in random order",
    "database order": "the order in which the database names the candidates",
    "SMILES classifier": "tells molecules of the training data from other candidates by their structure alone: what "
    "the choice of molecules gives away",
    "most measured": "the molecule with the most spectra in the library or the training fold first",
    "cosine": "cosine of the fragment peaks that match (matchms)",
    "modified cosine": "cosine in which fragments shifted by the difference of the two precursors match as well",
    "spectral entropy": "spectral entropy similarity of the fragment peaks (ms_entropy)",
    "hybrid entropy": "spectral entropy similarity of fragments and of neutral losses",
    "fingerprint network": "a feed-forward network from binned peaks to the molecule's fingerprint",
    "DeepSets": "a network over the set of peaks, with Fourier features of m/z, to the molecule's fingerprint",
}
"""One sentence on each row that has a name of its own."""

KIND_TITLES = {
    "reference": "References",
    "blind": "Blind: no peak is looked at",
    "look-up": "Look-ups",
    "trained": "Baseline networks, trained here",
    "learned": "Models under test",
}
"""Heading of each kind of row."""

KIND_WORDS = {
    "reference": "a bound, not a method",
    "blind": "ranks without any peak: what the way the question is put gives away",
    "look-up": "compares peaks by a formula; nothing is learned",
    "trained": "a plain network, trained on the train fold of this split",
    "learned": "a model under test, by the cosine of its embeddings",
}
"""What stands for a row that `ROWS` does not name."""

ROLES = ("best look-up", "without the model", "best blind", "random")
"""What learned rows are compared with, the hardest first."""

ROLE_WORDS = {
    "best look-up": "the best look-up",
    "without the model": "the same look-ups without it",
    "best blind": "the best blind row",
    "random": "guessing",
}
VERDICT_WORDS = {"beats": "beats", "loses": "loses to", "unresolved": "cannot be told from"}


TRANSFER = ", analogue transfer"
"""Behind the label of the row whose neighbours are transferred."""

WITH_TRANSFER = " + analogue transfer"
"""Behind the label of the model whose own scores of structures are added to those of analogue transfer."""

WITH_PREDICTED = " + predicted spectra"
"""Behind the label of the model whose scores of structures are added to transfer and to those of predicted spectra."""

PREDICTED_AND_TRANSFER = "predicted spectra + analogue transfer"
"""Label of the row of the same look-ups without any model."""

WITH_LOOKUP, LOOKUPS_ONLY = " + look-up", " + look-up, without the model"
"""Behind the label of a model whose cosine is fused with look-ups, and of the same look-ups fused without it."""


def same_without_model(label: str) -> str | None:
    """Return the label of the row of the look-ups that a row adds to its model's scores; None where it adds none.

    What the model is worth is seen beside that row only: fitted together, look-ups beat each single one without it.
    """
    if label.endswith(WITH_PREDICTED):
        return PREDICTED_AND_TRANSFER
    how = TRANSFER if label.endswith(TRANSFER) else ""
    plain = label.removesuffix(TRANSFER)
    return f"{plain.removesuffix(WITH_LOOKUP)}{LOOKUPS_ONLY}{how}" if plain.endswith(WITH_LOOKUP) else None


def explained_row(row: Mapping[str, Any]) -> str:
    """Return one sentence on a row (with ``label`` and ``kind``)."""
    label = str(row["label"])
    fitted = "with weights that were fitted on the validation fold"
    if label == PREDICTED_AND_TRANSFER:
        return f"look-ups in predicted spectra plus analogue transfer of a look-up, {fitted}: what models have to beat"
    if label.endswith(WITH_PREDICTED):
        found = label.removesuffix(WITH_PREDICTED)
        return (
            f"the score of '{found}' for a structure where it has one, its cosine to the predicted spectra "
            f"of a candidate, the look-up in them, and analogue transfer of its own search and of a look-up, {fitted}"
        )
    if label.endswith(TRANSFER):
        found = label.removesuffix(TRANSFER)
        return f"candidates like the molecules of the training spectra that '{found}' finds nearest come first"
    if label.endswith(WITH_TRANSFER):
        found = label.removesuffix(WITH_TRANSFER)
        return (
            f"the score of '{found}' for a structure where it has one, plus analogue transfer of its own search and of "
            f"a look-up, {fitted}"
        )
    fused = "the look-ups, the matched peaks and the collision energies in one score, fitted on the validation fold"
    if label.endswith(LOOKUPS_ONLY):
        return f"{fused}: what '{label.removesuffix(LOOKUPS_ONLY)}' with look-ups has to beat"
    if label.endswith(WITH_LOOKUP):
        return f"the cosine of '{label.removesuffix(WITH_LOOKUP)}' with {fused}"
    return ROWS.get(label, KIND_WORDS[row["kind"]])
