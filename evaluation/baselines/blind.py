"""Rows that see no peak: how far candidates can be told apart without the spectrum, by what is known of them alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from ..candidates import Candidates
from ..dataset import EvaluationData
from ..entries import Entry
from ..predictions import Corpus
from ..scorers import Kind

logger = logging.getLogger("ionbed")

SMILES_CLASSIFIER, MOST_MEASURED = "SMILES classifier", "most measured"
LONGEST_NGRAM = 3
NUM_NGRAM_BUCKETS = 2**13
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class BlindOptions:
    """How the spectrum-blind classifier of structures is trained.

    Attributes
    ----------
    mass_ppm : float
        Decoys of a training molecule lie within this of its mass.
    decoys_per_molecule : int
        Drawn at most for each training molecule.
    parts : int
        A molecule is scored by a classifier that was trained without it; there are this many classifiers.
    regularization : float
        Weight of half the squared coefficients beside the summed loss: 1/C of scikit-learn.
    """

    mass_ppm: float = 10.0
    decoys_per_molecule: int = 10
    parts: int = 3
    regularization: float = 10.0

    def __post_init__(self) -> None:
        for name in ("mass_ppm", "regularization"):
            if not getattr(self, name) > 0:
                raise ValueError(f"'{name}' is {getattr(self, name)}; it must be above 0")
        if self.decoys_per_molecule < 1:
            raise ValueError(f"'decoys_per_molecule' is {self.decoys_per_molecule}; it must be at least 1")
        if self.parts < 2:
            raise ValueError(f"'parts' is {self.parts}; a molecule needs a classifier trained without it: at least 2")


def structure_blind_entries(
    data: EvaluationData, candidates: Candidates, options: BlindOptions, *, split_hash: str, seed: int
) -> list[Entry]:
    """Return the SMILES classifier, a row for candidates that are structures.

    A logistic regression tells the molecules of the training fold from their decoys: other candidates of the same
    mass, held-out molecules among them, as nothing says which these are. It sees Morgan bits and the n-grams of the
    SMILES. Where it ranks the truth above chance, molecules that were measured look unlike the others, and a tool
    may be right that has learned no more than this.

    No row where no training molecule has a decoy; a warning then says so.
    """
    measured = np.unique(data.molecule[data.rows_in("train")])
    measured = measured[[bool(text) for text in candidates.smiles[measured]]]
    decoys = draw_decoys(candidates, measured, options, seed=seed)
    if not len(decoys):
        logger.warning(
            "no '%s' row: no training molecule has another candidate within %g ppm of its mass",
            SMILES_CLASSIFIER, options.mass_ppm,
        )  # fmt: skip
        return []
    logger.info("%s: %s measured molecules, %s decoys", SMILES_CLASSIFIER, f"{len(measured):,}", f"{len(decoys):,}")
    scorer = StructureClassifier(candidates, measured, decoys, options, seed=seed)
    corpus = Corpus("the evaluated data", split_hash, ("train",))
    return [Entry(SMILES_CLASSIFIER, "blind", (lambda _data, _candidates, _rows: scorer,), trained_on=(corpus,))]


def spectrum_blind_entries(data: EvaluationData) -> list[Entry]:
    """Return 'most measured', a row for candidates that are spectra of known molecules (not for pairs)."""
    counts = SpectraOfOtherLaboratories(data)
    return [Entry(MOST_MEASURED, "blind", (lambda data, _candidates, _rows: MostMeasured(data, counts),))]


class SpectraOfOtherLaboratories:
    """How many spectra each molecule has that are not from a given laboratory.

    A query's own laboratory is left out, whatever its molecule: its own spectrum would otherwise count for the true
    molecule. Spectra of unknown laboratories count as those of one.
    """

    def __init__(self, data: EvaluationData) -> None:
        self._num_laboratories = int(data.laboratory.max(initial=-1)) + 2  # the last is the unknown one
        shape = len(data.inchikey_block), self._num_laboratories
        cell = data.molecule * shape[1] + data.laboratory % shape[1]
        self._of = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        self._total = self._of.sum(axis=1)

    def of(self, molecule: np.ndarray, laboratory: np.ndarray) -> np.ndarray:
        """Return the number of spectra, int64 of shape (n_laboratories, n_molecules)."""
        counts: np.ndarray = self._total[molecule] - self._of[molecule][:, laboratory % self._num_laboratories].T
        return counts


class MostMeasured:
    """The more spectra of other laboratories a candidate's molecule has, the better."""

    label = MOST_MEASURED
    kind: Kind = "blind"

    def __init__(self, data: EvaluationData, counts: SpectraOfOtherLaboratories) -> None:
        self._molecule, self._laboratory = data.molecule, data.laboratory
        self._counts = counts

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        """Return numbers of spectra; see `ionbed.evaluation.scorers.Scorer`."""
        return self._counts.of(self._molecule[library], self._laboratory[queries]).astype(np.float64)


class StructureClassifier:
    """Scores a candidate by the log-odds that it is a measured molecule and not a decoy, whatever the query.

    Parameters
    ----------
    measured, decoys : int64 arrays
        Rows of the candidates to be told apart.
    """

    label = SMILES_CLASSIFIER
    kind: Kind = "blind"

    def __init__(
        self, candidates: Candidates, measured: np.ndarray, decoys: np.ndarray, options: BlindOptions, *, seed: int
    ) -> None:
        self._candidates = candidates
        self._part = np.random.default_rng(seed).permutation(len(candidates)) % options.parts
        self._coefficients = []
        examples = np.concatenate([measured, decoys])
        is_measured = np.arange(len(examples)) < len(measured)
        for part in range(options.parts):
            kept = self._part[examples] != part
            features = structure_features(candidates, examples[kept])
            self._coefficients.append(fit_logistic(features, is_measured[kept], options.regularization))

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        """Return log-odds, NaN where RDKit cannot read a structure; see `ionbed.evaluation.scorers.StructureScorer`."""
        numbers, which = np.unique(molecule, return_inverse=True)
        scores = np.full(len(numbers), np.nan)
        is_readable = np.array([bool(text) for text in self._candidates.smiles[numbers]], bool)
        for part, (coefficients, intercept) in enumerate(self._coefficients):
            places = np.flatnonzero(is_readable & (self._part[numbers] == part))
            features = structure_features(self._candidates, numbers[places])
            scores[places] = features.sums(coefficients) + intercept
        return scores[which]


@dataclass(frozen=True, eq=False)
class Features:
    """Which features each of ``n`` structures has.

    Attributes
    ----------
    offsets : int64 array of shape (n + 1,)
        Structure i owns ``feature[offsets[i]:offsets[i + 1]]``.
    feature : int64 array
        Each once for a structure.
    num_features : int
    """

    offsets: np.ndarray
    feature: np.ndarray
    num_features: int

    def sums(self, coefficients: np.ndarray) -> np.ndarray:
        """Return the sum of the coefficients of each structure's features, float64 of shape (n,)."""
        owner = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return np.bincount(owner, weights=coefficients[self.feature], minlength=len(self.offsets) - 1)


def draw_decoys(candidates: Candidates, measured: np.ndarray, options: BlindOptions, *, seed: int) -> np.ndarray:
    """Return candidates, each once, that have the mass of a measured molecule and are not measured themselves."""
    by_mass = np.argsort(candidates.exact_mass, kind="stable")  # NaN, where RDKit cannot read one, comes last
    by_mass = by_mass[: len(by_mass) - int(np.isnan(candidates.exact_mass).sum())]
    by_mass = by_mass[~np.isin(by_mass, measured)]
    masses = candidates.exact_mass[by_mass]
    width = options.mass_ppm * 1e-6
    starts = np.searchsorted(masses, candidates.exact_mass[measured] * (1 - width), side="left")
    stops = np.searchsorted(masses, candidates.exact_mass[measured] * (1 + width), side="right")
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(by_mass[start:stop], min(options.decoys_per_molecule, stop - start), replace=False)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
    return np.unique(np.concatenate([np.empty(0, np.int64), *drawn]))


def structure_features(candidates: Candidates, numbers: np.ndarray) -> Features:
    """Return the Morgan bits and the n-grams of the SMILES (hashed) of the candidates ``numbers``."""
    bits = np.unpackbits(candidates.fingerprint[numbers], axis=1)
    owner, feature = np.nonzero(bits)
    num_bits, owners, features = bits.shape[1], [owner], [feature]
    # Marks of beginning and end are characters too: how a SMILES starts is part of its style.
    texts = [f"\2{text}\3".encode() for text in candidates.smiles[numbers]]
    characters = np.frombuffer(b"".join(texts), np.uint8).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    code = np.zeros(len(characters), np.uint64)
    for length in range(1, LONGEST_NGRAM + 1):
        # code[i] holds the characters i to i + length - 1
        code = code[: len(characters) - length + 1] * np.uint64(257) + characters[length - 1 :] + np.uint64(1)
        is_whole = owner[: len(code)] == owner[length - 1 :]
        owners.append(owner[: len(code)][is_whole])
        features.append(num_bits + _bucket(code[is_whole]))
    num_features = num_bits + NUM_NGRAM_BUCKETS
    cells = np.unique(np.concatenate(owners) * num_features + np.concatenate(features))
    counts = np.bincount(cells // num_features, minlength=len(numbers))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Features(offsets, cells % num_features, num_features)


def fit_logistic(features: Features, is_positive: np.ndarray, regularization: float) -> tuple[np.ndarray, float]:
    """Return the coefficients and the intercept of a logistic regression with an L2 penalty, by L-BFGS.

    Minimises the summed loss plus ``regularization / 2`` times the squared coefficients; the intercept is free.

    Parameters
    ----------
    is_positive : bool array of shape (n,)
    """
    import torch

    is_positive = np.asarray(is_positive, bool)
    sign, sizes = np.where(is_positive, 1.0, -1.0), np.diff(features.offsets)
    parameters = torch.zeros(features.num_features + 1, dtype=torch.float64)  # the last is the intercept
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> torch.Tensor:
        coefficients, intercept = parameters.numpy()[:-1], parameters.numpy()[-1]
        margin = sign * (features.sums(coefficients) + intercept)
        loss = np.logaddexp(0, -margin).sum() + regularization / 2 * coefficients @ coefficients
        # By hand, as autograd through a bag of features takes 25 times as long.
        slope = -sign * np.exp(-np.logaddexp(0, margin))
        of_features = np.bincount(features.feature, np.repeat(slope, sizes), features.num_features)
        gradient = np.append(of_features + regularization * coefficients, slope.sum())
        # By the number of examples, so that the tolerances mean the same for few and for many.
        parameters.grad = torch.from_numpy(gradient / len(sign))
        return torch.tensor(loss / len(sign))

    optimizer.step(closure)
    return parameters.numpy()[:-1].copy(), float(parameters[-1])


def _bucket(code: np.ndarray) -> np.ndarray:
    """Return the bucket of each n-gram: the high bits of a multiplicative hash (Knuth), the same on any machine."""
    mixed = code * np.uint64(0x9E3779B97F4A7C15)
    buckets: np.ndarray = (mixed >> np.uint64(64 - (NUM_NGRAM_BUCKETS - 1).bit_length())).astype(np.int64)
    return buckets
