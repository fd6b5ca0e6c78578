"""Spectra of the queries that stand, as they are or nearly so, among spectra that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...finetune.split_audit import near_duplicates_across, peak_digests
from ...spectra.columns import SpectrumColumns
from ...spectra.near_duplicates import NearDuplicateOptions
from .findings import SIGNIFICANT, sign_test_p

MINIMUM_PEAKS = 5
"""Peaks that both spectra must have: shorter lists are alike by chance, or are the precursor alone."""

NUM_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class InCommon:
    """Pairs of a query's spectrum and one of the training spectra: near-duplicates, or the same peak list.

    Attributes
    ----------
    query, other : int64 arrays of shape (n_pairs,)
        Rows of the two tables.
    exact : bool array of shape (n_pairs,)
        Whether the peak lists are the same in every digit.
    same, unknown : bool arrays of shape (n_pairs,)
        Whether both are of one molecule; whether the molecule of the training spectrum is not known.
    """

    query: np.ndarray
    other: np.ndarray
    exact: np.ndarray
    same: np.ndarray
    unknown: np.ndarray


def spectra_in_common(queries: pa.Table, others: pa.Table) -> InCommon:
    """Return the pairs of spectra of one polarity and precursor m/z that are alike (cosine of 0.95 and more).

    Near-duplicates are those of `ionbed.spectra.near_duplicates`; both spectra must have `MINIMUM_PEAKS`.

    Parameters
    ----------
    queries, others : pyarrow.Table
        Of the store, with ``inchikey`` and the columns of `SpectrumColumns`. The queries have structures.
    """
    names = ["inchikey", *SpectrumColumns.TABLE_COLUMNS]
    both = pa.concat_tables([queries.select(names), others.select(names)]).combine_chunks()
    columns = SpectrumColumns.from_table(both)
    block = np.array([key[:14] if key else "" for key in both["inchikey"].to_pylist()], "U14")
    long = np.flatnonzero(columns.num_peaks >= MINIMUM_PEAKS)
    query, other, _ = near_duplicates_across(
        columns, long[long < len(queries)], long[long >= len(queries)], NearDuplicateOptions()
    )
    used, place = np.unique(np.concatenate([query, other]), return_inverse=True)
    digest = peak_digests(both.take(pa.array(used))) if len(used) else np.zeros(0, np.uint64)
    first, second = digest[place[: len(query)]], digest[place[len(query) :]]
    return InCommon(
        query,
        other - len(queries),
        first == second,
        block[query] == block[other],
        block[other] == "",
    )


def unlabelled_leak(found: InCommon, background: InCommon, molecule: np.ndarray) -> dict[str, Any]:
    """Compare how many molecules have unlabelled near-duplicates with how many resemble another molecule's spectrum.

    Isomers give near-duplicates that are no leak. How often is seen on ``background``, spectra with structures: the
    molecules of the queries that have a near-duplicate under the name of another molecule. Molecules that have one kind
    and not the other are compared by a sign test.

    Parameters
    ----------
    molecule : int64 array
        Of every query spectrum.

    Returns
    -------
    dict
        Ready for JSON: molecules of each kind, ``p``, and ``leaks``. An exact copy without a structure is a leak.
    """
    unlabelled = np.unique(molecule[found.query[found.unknown]])
    isomers = np.unique(molecule[background.query[~background.unknown & ~background.same]])
    more, fewer = len(np.setdiff1d(unlabelled, isomers)), len(np.setdiff1d(isomers, unlabelled))
    p = sign_test_p(more, fewer)
    copies = len(np.unique(found.query[found.unknown & found.exact]))
    return {
        "molecules": len(np.unique(molecule)),
        "molecules with an unlabelled near-duplicate": len(unlabelled),
        "molecules with a near-duplicate of another molecule in the data": len(isomers),
        "spectra with an unlabelled copy": copies,
        "p": p,
        "leaks": bool(copies or p <= SIGNIFICANT),
    }


def examples(found: InCommon, chosen: np.ndarray, query_ids: np.ndarray, other_ids: np.ndarray) -> list[list[str]]:
    """Return a few of the pairs that ``chosen`` (bool, of shape (n_pairs,)) marks, by the ids of their spectra."""
    pairs = np.flatnonzero(chosen)[:NUM_EXAMPLES]
    return [[str(query_ids[found.query[i]]), str(other_ids[found.other[i]])] for i in pairs]
