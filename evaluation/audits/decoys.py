"""What a task's lists of candidates give away without any spectrum: by place, by style of SMILES, by structure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..statistics import paired_permutation_p
from ..task_files import Task
from .findings import BLIND_CLASSIFIER, SIGNIFICANT, SMILES_STYLE, TRUTH_PLACE, Finding, percent

MINIMUM_MOLECULES = 20
"""Molecules to ask about, below which nothing is said."""

TOLERATED_DISTANCE = 0.1
"""Kolmogorov distance of the places from uniform ones up to which a list of many molecules is not blamed: what a tool
could gain by it is less."""

TOLERATED_AREA = 0.55
"""Share of decoys below the truth, by a classifier without spectra, up to which a task is not blamed."""

RIDGE = 1.0
"""Penalty of the linear classifier; vectors have length 1."""

PARTITIONS = 4
"""Random halvings of the molecules over which a classifier's result is averaged."""

_NGRAM_BITS = 512
_DECOYS_PER_QUERY = 32


def place_of_truth(about: str, task: Task, *, seed: int = 0) -> Finding:
    """Test whether the true candidates stand at uniform places in the lists of ``task``, one query per molecule.

    The place of a true candidate (one drawn at random where there are several) among the n of its list, spread evenly
    over its 1/n, is uniform from 0 to 1 where lists are in random order. The Kolmogorov-Smirnov test compares; lists
    without a true or without a wrong candidate are left out.
    """
    if task.kind in ("analogue", "pairs"):
        why = (
            "no list holds a true candidate" if task.kind == "analogue" else "pairs are asked one by one, not in lists"
        )
        return Finding(TRUTH_PLACE, about, None, f"{why}.")
    rng = np.random.default_rng(seed)
    places = []
    seen: set[int] = set()
    starts, order = _lists(task)
    for query in rng.permutation(len(task.query_id)):
        molecule = int(task.query_molecule[query])
        if molecule in seen or task.query_pool[query] >= len(starts) - 1:
            continue
        span = order[starts[task.query_pool[query]] : starts[task.query_pool[query] + 1]]
        true = np.flatnonzero(task.candidate_molecule[span] == molecule)
        if 0 < len(true) < len(span):
            seen.add(molecule)
            places.append((rng.choice(true) + rng.random()) / len(span))
    if len(places) < MINIMUM_MOLECULES:
        text = f"{len(places)} molecules have lists with a true and a wrong candidate; {MINIMUM_MOLECULES} are needed."
        return Finding(TRUTH_PLACE, about, None, text)
    distance, p = kolmogorov_smirnov(np.array(places))
    passed = p > SIGNIFICANT or distance <= TOLERATED_DISTANCE
    first = float(np.mean(np.array(places) < 0.5))
    sentence = (
        f"the true candidate stands anywhere in its list ({percent(first)} in the first half; {len(places):,} "
        "molecules)."
        if passed
        else f"the place in the list tells the true candidate: {percent(first)} stand in the first half "
        f"({len(places):,} molecules); shuffle the candidates."
    )
    evidence = {"molecules": len(places), "in the first half": first, "distance": distance, "p": p}
    return Finding(TRUTH_PLACE, about, passed, sentence, evidence)


def kolmogorov_smirnov(places: np.ndarray) -> tuple[float, float]:
    """Return the distance of ``places`` (float array of shape (n,), 0 to 1) from uniform ones, and its p-value.

    By Kolmogorov's limit with Stephens's correction for small n (J. R. Stat. Soc. B 32 (1970) 115-122).
    """
    n = len(places)
    ordered = np.sort(places)
    distance = float(max(np.max(np.arange(1, n + 1) / n - ordered), np.max(ordered - np.arange(n) / n)))
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return distance, min(1.0, max(0.0, p)) if scaled > 0.2 else 1.0


def smiles_style(about: str, task: Task, *, seed: int = 0) -> Finding:
    """Test whether the way in which a SMILES is written tells the true candidate, whatever the molecule.

    Features are only what a canonical SMILES without stereochemistry does not have: marks of stereochemistry, isotopes,
    atom maps, Kekulé rings, explicit hydrogens, an order of atoms that RDKit would not write. The test is that of
    `structures_alone`.
    """
    smiles = task.smiles
    if smiles is None:
        return Finding(SMILES_STYLE, about, None, "the task has no structures.")
    result = _told_apart(task, lambda rows: np.stack([_style(smiles[row] or "") for row in rows]), seed)
    if result is None:
        return Finding(SMILES_STYLE, about, None, _TOO_FEW)
    fired = result.fires
    sentence = (
        f"the style of the SMILES alone puts the truth above {percent(result.area)} of the wrong candidates: write all "
        "with one program."
        if fired
        else f"the style of the SMILES says nothing of the truth ({result.molecules:,} molecules)."
    )
    return Finding(SMILES_STYLE, about, not fired, sentence, result.evidence())


def structures_alone(about: str, task: Task, *, seed: int = 0) -> Finding:
    """Test whether a classifier that sees no spectrum tells the truth of a task from the wrong candidates.

    A linear classifier (ridge regression on differences between truth and wrong candidates) learns on one half of the
    molecules, from Morgan bits and n-grams of the SMILES, what true candidates look like, and ranks the other half; no
    molecule is on both sides, and molecules that are the truth of one query are no wrong candidates of another. What
    counts is the share of wrong candidates below the truth, half where neither is told from the other; molecules are
    exchanged for the p-value.

    A task that fails can still be used: compare its rows with the best blind one, not with chance.
    """
    fingerprint, smiles = task.fingerprint, task.smiles
    if fingerprint is None or smiles is None:
        return Finding(BLIND_CLASSIFIER, about, None, "the task has no structures.")

    def describe(rows: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(fingerprint[rows], axis=1)
        bits = np.bitwise_or(*np.split(bits, 2, axis=1)).astype(np.float32)  # folded: half the memory
        words = np.stack([_ngrams(smiles[row] or "") for row in rows])
        parts = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in (bits, words)]
        whole: np.ndarray = np.concatenate(parts, axis=1) / math.sqrt(2.0)
        return whole

    result = _told_apart(task, describe, seed)
    if result is None:
        return Finding(BLIND_CLASSIFIER, about, None, _TOO_FEW)
    fired = result.fires
    sentence = (
        f"a classifier that sees no spectrum puts the truth above {percent(result.area)} of the wrong candidates "
        f"(50% would be chance): compare the rows with the best blind one."
        if fired
        else f"without a spectrum the truth cannot be told from the wrong candidates (above {percent(result.area)} "
        f"of them, {result.molecules:,} molecules)."
    )
    return Finding(BLIND_CLASSIFIER, about, not fired, sentence, result.evidence())


_TOO_FEW = f"fewer than {MINIMUM_MOLECULES} molecules have wrong candidates that are the truth of no query."


@dataclass(frozen=True)
class _ToldApart:
    area: float
    p: float
    molecules: int

    @property
    def fires(self) -> bool:
        return self.area > TOLERATED_AREA and self.p <= SIGNIFICANT

    def evidence(self) -> dict[str, float]:
        return {"share of wrong candidates below the truth": self.area, "p": self.p, "molecules": self.molecules}


def _told_apart(task: Task, features: Callable[[np.ndarray], np.ndarray], seed: int) -> _ToldApart | None:
    """Return how well the truths are told from candidates that are never true, learning on the other half of both."""
    rng = np.random.default_rng(seed)
    truths, decoys = _one_list_per_molecule(task, rng)
    if len(truths) < MINIMUM_MOLECULES:
        return None
    used = np.unique(np.concatenate([truths, *decoys]))
    vectors = features(used)
    true_row, rows = np.searchsorted(used, truths), [np.searchsorted(used, own) for own in decoys]
    sums, counts = np.zeros(len(truths)), np.zeros(len(truths))
    for _ in range(PARTITIONS):
        half_of_truth = rng.permutation(len(truths)) % 2
        half_of_molecule = rng.integers(0, 2, len(used))
        lists = [own[half_of_molecule[own] == half] for own, half in zip(rows, half_of_truth, strict=True)]
        for half in (0, 1):
            known = [i for i in np.flatnonzero(half_of_truth == half) if len(lists[i])]
            asked = [i for i in np.flatnonzero(half_of_truth != half) if len(lists[i])]
            if not known or not asked:
                continue
            directions = np.stack([vectors[true_row[i]] - vectors[lists[i]].mean(axis=0) for i in known])
            # Ridge regression of 1 on the differences, in its dual form: fewer truths than features.
            gram = directions @ directions.T + RIDGE * np.eye(len(known))
            scores = vectors @ (directions.T @ np.linalg.solve(gram, np.ones(len(known)))).astype(np.float32)
            for i in asked:
                difference = np.round(scores[true_row[i]] - scores[lists[i]], 6)
                sums[i] += np.mean(difference > 0) + 0.5 * np.mean(difference == 0)
                counts[i] += 1
    usable = counts > 0
    if usable.sum() < MINIMUM_MOLECULES:
        return None
    areas = sums[usable] / counts[usable]
    p = paired_permutation_p(areas, np.full(len(areas), 0.5), np.arange(len(areas)), seed=seed)
    return _ToldApart(float(areas.mean()), p, int(usable.sum()))


def _one_list_per_molecule(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the true molecules, and of one query of each the candidates that are the truth of no query."""
    starts, order = _lists(task)
    true = np.unique(task.query_molecule)
    truths, decoys, seen = [], [], set()
    for query in rng.permutation(len(task.query_id)):
        molecule = int(task.query_molecule[query])
        if molecule in seen or task.query_pool[query] >= len(starts) - 1:
            continue
        span = order[starts[task.query_pool[query]] : starts[task.query_pool[query] + 1]]
        others = np.unique(task.candidate_molecule[span])
        wrong = others[~np.isin(others, true)]
        if molecule in others and len(wrong):
            seen.add(molecule)
            truths.append(molecule)
            decoys.append(np.sort(rng.permutation(wrong)[:_DECOYS_PER_QUERY]))
    return np.array(truths, np.int64), decoys


def _lists(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pool begins in the order of candidates by pool, and that order; places in a pool stay."""
    order = np.argsort(task.candidate_pool, kind="stable")
    num_pools = int(task.candidate_pool.max(initial=-1)) + 1
    return np.searchsorted(task.candidate_pool[order], np.arange(num_pools + 1)), order


def _ngrams(smiles: str) -> np.ndarray:
    """Return counts of the n-grams (1 to 3 characters), hashed into bins, under a square root."""
    counts = np.zeros(_NGRAM_BITS, np.float32)
    for length in (1, 2, 3):
        for start in range(len(smiles) - length + 1):
            digest = hashlib.blake2b(smiles[start : start + length].encode(), digest_size=4).digest()
            counts[int.from_bytes(digest, "little") % _NGRAM_BITS] += 1
    return np.sqrt(counts)


def _style(smiles: str) -> np.ndarray:
    """Return what a canonical SMILES without stereochemistry never has; all zeros for one, and where unreadable."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None or not smiles:
            return np.zeros(7, np.float32)
        with_stereo = Chem.MolToSmiles(mol)
        flat = Chem.MolFromSmiles(Chem.MolToSmiles(mol, isomericSmiles=False))
        canonical = "" if flat is None else Chem.MolToSmiles(flat)
    marks = [
        smiles != with_stereo,
        "@" in smiles,
        "/" in smiles or "\\" in smiles,
        "[H]" in smiles and "[H]" not in canonical,
        any(letter in canonical for letter in "cnos") and not any(letter in smiles for letter in "cnos"),
        any(atom.GetIsotope() for atom in mol.GetAtoms()),
        ":" in smiles,
    ]
    return np.array(marks, np.float32)
