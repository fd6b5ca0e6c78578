"""A consensus of the hits of an open search: of candidates with like scores, the one that the other good hits are like.

The unknown is probably like several of the best hits, so the answer of least risk is the molecule whose similarity to
the unknown is highest in expectation over what the unknown may be (minimum Bayes risk; Kumar and Byrne, HLT-NAACL 2004,
169-176): over the other hits, each by the softmax of its score. `ionbed.evaluation.consensus_fit` fits how much it
counts beside a candidate's own score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..spectra.columns import text_codes

NEAR_COPY = 0.1
"""A candidate whose sum of terms is this much under that of a copy of the query has lost most of what a copy has."""

FINGERPRINT_BYTES = 256
"""2048 bits of a Morgan fingerprint, packed."""

_HAS_SALT_OR_CHARGE = re.compile(r"[.+]|-\d*\]")


@dataclass(frozen=True)
class Consensus:
    """How a candidate's own score and its support by the other hits make one score: a logistic function of both.

    Attributes
    ----------
    temperature : float
        Of the softmax of the best hits' scores (before the logistic function), by which they are weighted.
    depth : int
        Different molecules, the best, that support each other; without so many there is no consensus.
    own, support : float
        Weights of a candidate's own score (before the logistic function) and of its support.
    intercept : float
    """

    temperature: float
    depth: int
    own: float
    support: float
    intercept: float

    def __post_init__(self) -> None:
        if not np.isfinite([*asdict(self).values()]).all():
            raise ValueError("a number of the consensus is not finite")
        if self.temperature <= 0 or self.depth < 2 or self.own <= 0 or self.support < 0:
            raise ValueError(
                f"a consensus has the temperature {self.temperature}, the depth {self.depth} and the weights "
                f"{self.own} and {self.support}; they must be above 0, at least 2, above 0 and at least 0"
            )

    def total(self, own: np.ndarray, backing: np.ndarray) -> np.ndarray:
        """Return the weighted sum of own scores (before the logistic function) and of what `backed` gives."""
        return self.own * own + self.support * backing + self.intercept


@dataclass(frozen=True, eq=False)
class Structures:
    """The molecules of the spectra of a library.

    Attributes
    ----------
    molecule : int64 array of shape (n_spectra,)
        -1 where the structure is unknown.
    fingerprints : function of an int64 array of molecules
        Gives their Morgan fingerprints (radius 2, 2048 bits), packed: uint8 of shape (n_molecules, 256).
    """

    molecule: np.ndarray
    fingerprints: Callable[[np.ndarray], np.ndarray] = field(repr=False)


def library_structures(inchikey: pa.ChunkedArray, smiles: pa.ChunkedArray) -> Structures:
    """Return the molecules of library spectra; a fingerprint is worked out when it is first asked for, and kept.

    Spectra are of one molecule where the first blocks of their InChIKeys are the same, or where that is unknown their
    SMILES. Its fingerprint is of the SMILES that is the first in alphabetical order, without stereochemistry and
    isotopes. A SMILES that RDKit cannot read is like no other.

    Parameters
    ----------
    inchikey, smiles : string columns of n rows
        Null where unknown; a spectrum without a SMILES has no structure.
    """
    key = pc.coalesce(pc.utf8_slice_codeunits(inchikey, 0, 14), smiles)
    molecule, keys = text_codes(pa.chunked_array([pc.if_else(pc.is_valid(smiles), key, None).combine_chunks()]))
    number = {key: place for place, key in enumerate(keys[:-1])}
    first: list[str | None] = [None] * len(number)
    pairs = (
        pa.table({"key": key, "smiles": smiles}).filter(pc.is_valid(smiles)).group_by(["key", "smiles"]).aggregate([])
    )
    for of, text in zip(pairs["key"].to_pylist(), pairs["smiles"].to_pylist(), strict=True):
        found = first[number[of]]
        first[number[of]] = text if found is None else min(found, text)
    known: dict[int, np.ndarray] = {}

    def fingerprints(molecules: np.ndarray) -> np.ndarray:
        for one in molecules.tolist():
            if one not in known:
                known[one] = packed_fingerprint(first[one] or "")
        return np.stack([known[one] for one in molecules.tolist()])

    return Structures(molecule.astype(np.int64), fingerprints)


def packed_fingerprint(smiles: str) -> np.ndarray:
    """Return the packed Morgan fingerprint of a structure without salt, stereochemistry and isotopes; uint8, (256,).

    No bit is set where RDKit cannot read it.
    """
    from rdkit import Chem

    from ..spectra.molecules import flat, morgan_fingerprints, parent_molecule

    # The readers have standardised it: where there is no salt and no charge, it is its own parent.
    parent = parent_molecule(smiles) if _HAS_SALT_OR_CHARGE.search(smiles) else None
    mol = flat(smiles if parent is None else parent.smiles)
    if mol is None or not smiles:
        return np.zeros(FINGERPRINT_BYTES, np.uint8)
    packed: np.ndarray = np.packbits(morgan_fingerprints([Chem.MolToSmiles(mol)])[0])
    return packed


def similarities(fingerprint: np.ndarray) -> np.ndarray:
    """Return the Tanimoto similarities of molecules (packed, uint8 of shape (n, 256)), float32 of shape (n, n).

    Every molecule is like itself, one without a fingerprint too.
    """
    from ..spectra.molecules import tanimoto_matrix

    bits = np.unpackbits(fingerprint, axis=1)
    similarity = tanimoto_matrix(bits, bits)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def best_of_molecules(total: np.ndarray, molecule: np.ndarray, depth: int) -> np.ndarray:
    """Return the places of the best spectrum of each of the best ``depth`` molecules, the best first, int64.

    Parameters
    ----------
    total : float64 array of shape (n,)
        Scores of the candidates of one query; equals by place.
    molecule : int64 array of shape (n,)
        -1 is none.
    depth : int
    """
    order = np.argsort(-total.astype(np.float32), kind="stable")  # what float64 adds is rounding error
    order = order[molecule[order] >= 0]
    _, first = np.unique(molecule[order], return_index=True)
    best: np.ndarray = order[np.sort(first)[:depth]]
    return best


def supported(total: np.ndarray, similarity: np.ndarray, temperature: float) -> np.ndarray:
    """Return how alike each hit is to all of them, itself too, in the mean by the softmax of their scores.

    Parameters
    ----------
    total : float64 array of shape (..., n)
        The best first.
    similarity : float array of shape (..., n, n)
    temperature : float

    Returns
    -------
    float64 array of shape (..., n)
        From 0 to 1.
    """
    weight = np.exp((total - total[..., :1]) / temperature)
    weight /= weight.sum(axis=-1, keepdims=True)
    result: np.ndarray = (similarity * weight[..., None, :]).sum(axis=-1)
    return result


def backed(support: np.ndarray, short_of_copy: np.ndarray) -> np.ndarray:
    """Return the support of candidates, where one that is nearly a copy of the query is backed by that alone.

    Of a copy it is 1, the highest there is, whatever the other hits are; and a copy has the highest score of its own.
    So no weights from 0 up can rank another candidate before it.

    Parameters
    ----------
    support : float64 array
        From `supported`.
    short_of_copy : float64 array of that shape
        By how much the candidate's own score (before the logistic function) is under that of a copy; from 0 up.
    """
    return 1.0 + (1.0 - support) * np.expm1(-short_of_copy / NEAR_COPY)


def agreed(
    consensus: Consensus,
    query: np.ndarray,
    total: np.ndarray,
    copy_total: np.ndarray,
    molecule: np.ndarray,
    fingerprints: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the scores of an open search under the consensus of its hits, before the logistic function.

    All spectra of the best molecules are scored by their own score and the support of their molecule. A spectrum
    without a structure keeps its own score, unless it comes after all of those molecules: like the spectra of further
    molecules it then stays after the last of them. A copy of the query has the highest score there is, with a
    structure or without. Where there are too few molecules, all candidates of the query keep their own scores.

    Parameters
    ----------
    consensus : Consensus
    query : int64 array of shape (n_pairs,)
        Ascending.
    total : float64 array of shape (n_pairs,)
        From `ionbed.embeddings.fusion.FusedScore.total`.
    copy_total : float64 array of shape (n_queries,)
        That of each query with itself: no candidate's is higher.
    molecule : int64 array of shape (n_pairs,)
        Of the candidate, -1 where it has no structure.
    fingerprints : function
        As of `Structures`.

    Returns
    -------
    float64 array of shape (n_pairs,)
    """
    result = total.copy()
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    for begin, end in zip(starts, np.append(starts[1:], len(query)), strict=True):
        own, of = total[begin:end], molecule[begin:end]
        best = best_of_molecules(own, of, consensus.depth)
        if len(best) < consensus.depth:
            continue
        support = supported(own[best], similarities(fingerprints(of[best])), consensus.temperature)
        short = np.maximum(copy_total[query[begin]] - own, 0.0)
        order = np.argsort(of[best])
        place = order[np.searchsorted(of[best], of, sorter=order).clip(max=len(best) - 1)]
        is_judged = of[best][place] == of
        judged = consensus.total(own, backed(support[place], short))
        of_copy = consensus.total(copy_total[query[begin]], np.ones(1))
        alone = np.minimum(own, of_copy - short)
        alone += np.exp(-short / NEAR_COPY) * (of_copy - alone)
        further = np.minimum(own, judged[best].min() + own - own[best[-1]])
        # A molecule that ties with the last of them is a further one, too.
        is_further = (of >= 0) | (own < own[best[-1]])
        result[begin:end] = np.where(is_judged, judged, np.where(is_further, further, alone))
    return result
