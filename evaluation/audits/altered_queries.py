"""Altered copies of queries, appended to the data: without their peaks, with those of others, under other labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ...spectra.columns import SpectrumColumns
from ..candidates import Candidates
from ..dataset import EvaluationData
from ..outcomes import query_pools
from ..question import Question
from ..scorers import rows_needed
from ..task_files import Task

MASK_MZ = 100.0
"""Da. The one peak of every masked spectrum: the same for all, and far below most precursors."""

_LABELS = ("smiles", "inchikey", "formula", "name", "chemical_class")


@dataclass(frozen=True, eq=False)
class Controls:
    """A sample of a question's queries, and their altered copies in altered data.

    Attributes
    ----------
    data : EvaluationData
        With three copies of each sampled query after its own rows.
    question : Question
        Of the sampled queries, each of another molecule, as they are.
    masked, swapped, relabelled : int64 arrays of shape (n_sampled,)
        Rows of ``data``: all peaks replaced by one, the same for all; replaced by those of a query that lies
        elsewhere; the peaks as they were, under the name of another molecule.
    same_formula : bool array of shape (n_sampled,)
        Whether the other molecule has the formula of the true one.
    """

    data: EvaluationData
    question: Question
    masked: np.ndarray
    swapped: np.ndarray
    relabelled: np.ndarray
    same_formula: np.ndarray

    def rows(self) -> np.ndarray:
        """Return all rows of ``data`` that are scored, ascending."""
        found = self.question.found
        spectra = [] if self.question.kind == "retrieval" else [found.candidate]
        return rows_needed([found.queries, self.masked, self.swapped, self.relabelled, *spectra])

    def asked_with(self, queries: np.ndarray) -> Question:
        """Return the question with other rows as its queries; the pools and the true answers stay."""
        return replace(self.question, found=replace(self.question.found, queries=queries))


def draw_controls(
    data: EvaluationData, candidates: Candidates, question: Question, *, queries: int, seed: int
) -> Controls:
    """Draw ``queries`` queries of a ranked question, each of another molecule, and append their altered copies.

    Raises
    ------
    ValueError
        The question is one of pairs.
    """
    if question.kind == "pairs":
        raise ValueError("controls are drawn for questions whose queries are ranked, not for pairs")
    rng = np.random.default_rng(seed)
    sample = _one_per_molecule(question, queries, rng)
    asked = restricted(question, sample)
    rows = asked.found.queries
    donors = _donors(data, asked, rng)
    other, same_formula = _other_molecules(data, candidates, data.molecule[rows], rng)
    first, size = len(data), len(rows)
    columns = data.columns.take(rows)
    altered = _appended(data, rows, _masked(columns), data.molecule[rows], "masked")
    altered = _appended(altered, rows, _with_peaks(columns, data.columns.take(donors)), data.molecule[rows], "swapped")
    altered = _appended(altered, rows, columns, other, "relabelled")
    copies = first + np.arange(3 * size).reshape(3, size)
    return Controls(altered, asked, copies[0], copies[1], copies[2], same_formula)


def restricted(question: Question, chosen: np.ndarray) -> Question:
    """Return the question of some of its queries (places, int64 of shape (n,)), with their pools alone."""
    found, task = question.found, question.task
    kept = np.flatnonzero(np.isin(found.pool, found.pool_of_query[chosen]))
    numbers, query_pool = np.unique(found.pool_of_query[chosen], return_inverse=True)
    pool = np.searchsorted(numbers, found.pool[kept])
    return replace(
        question,
        found=replace(
            found,
            queries=found.queries[chosen],
            pool_of_query=query_pool,
            pool=pool,
            candidate=found.candidate[kept],
        ),
        task=_restricted_task(task, chosen, kept, query_pool, pool),
    )


def _restricted_task(
    task: Task, chosen: np.ndarray, kept: np.ndarray, query_pool: np.ndarray, pool: np.ndarray
) -> Task:
    return replace(
        task,
        query_id=task.query_id.take(pa.array(chosen)),
        query_pool=query_pool,
        query_molecule=task.query_molecule[chosen],
        candidate_id=task.candidate_id.take(pa.array(kept)),
        candidate_pool=pool,
        candidate_molecule=task.candidate_molecule[kept],
        strata={name: values[chosen] for name, values in task.strata.items()},
    )


def _one_per_molecule(question: Question, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Draw queries of distinct molecules that can be answered rightly and wrongly."""
    task = question.task
    pools = query_pools(task)
    usable = pools.size > 1
    if question.kind != "analogue":
        usable &= pools.answerable
    rows = rng.permutation(np.flatnonzero(usable))
    first = np.unique(task.query_molecule[rows], return_index=True)[1]
    return np.sort(rows[np.sort(first)[:limit]])


def _donors(data: EvaluationData, asked: Question, rng: np.random.Generator) -> np.ndarray:
    """Draw for each query another one of its polarity, whose molecule is no candidate of it where that can be had."""
    rows, task = asked.found.queries, asked.task
    donors = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        pool = task.candidate_molecule[task.candidate_pool == task.query_pool[place]]
        elsewhere = ~np.isin(task.query_molecule, pool) & (task.query_molecule != task.query_molecule[place])
        alike = elsewhere & (data.columns.polarity[rows] == data.columns.polarity[row])
        others = np.flatnonzero(alike if alike.any() else elsewhere)
        if not len(others):
            others = np.flatnonzero(task.query_molecule != task.query_molecule[place])
        donors[place] = rows[rng.choice(others)] if len(others) else row
    return donors


def _other_molecules(
    data: EvaluationData, candidates: Candidates, molecule: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw for each molecule another one of the data, an isomer where there is one, and say whether it is one."""
    formula = candidates.formula[: len(data.inchikey_block)].astype(str)
    other, same = np.empty(len(molecule), np.int64), np.zeros(len(molecule), bool)
    for place, number in enumerate(molecule):
        isomers = np.flatnonzero((formula == formula[number]) & (formula != ""))
        isomers = isomers[isomers != number]
        same[place] = len(isomers) > 0
        other[place] = (
            rng.choice(isomers) if len(isomers) else (number + rng.integers(1, max(len(formula), 2))) % len(formula)
        )
    return other, same


def _masked(columns: SpectrumColumns) -> SpectrumColumns:
    """Return the spectra with one peak each, the same in all."""
    return replace(
        columns,
        offsets=np.arange(len(columns) + 1, dtype=np.int64),
        mz=np.full(len(columns), MASK_MZ, np.float32),
        intensity=np.ones(len(columns), np.float32),
    )


def _with_peaks(columns: SpectrumColumns, donors: SpectrumColumns) -> SpectrumColumns:
    return replace(columns, offsets=donors.offsets, mz=donors.mz, intensity=donors.intensity)


def _appended(
    data: EvaluationData, rows: np.ndarray, columns: SpectrumColumns, molecule: np.ndarray, word: str
) -> EvaluationData:
    """Return the data with copies of ``rows`` at the end, with the peaks of ``columns`` and under ``molecule``."""
    ids = np.array([f"{name} ({word})" for name in data.spectrum_id[rows]], object)
    offsets = pa.array(columns.offsets, pa.int32())
    table = data.table.take(pa.array(rows))
    named = {
        "spectrum_id": pa.array(ids.tolist(), pa.string()),
        "mz": pa.ListArray.from_arrays(offsets, pa.array(columns.mz, pa.float32())),
        "intensity": pa.ListArray.from_arrays(offsets, pa.array(columns.intensity, pa.float32())),
    }
    if np.any(molecule != data.molecule[rows]):
        representative = np.unique(data.molecule, return_index=True)[1]
        labels = data.table.take(pa.array(representative[molecule]))
        named |= {name: labels[name] for name in _LABELS}
    for name, column in named.items():
        place = table.column_names.index(name)
        table = table.set_column(place, data.table.schema.field(name), column)
    own = data.columns
    return replace(
        data,
        columns=SpectrumColumns(
            offsets=np.concatenate([own.offsets, own.offsets[-1] + columns.offsets[1:]]),
            **{
                name: np.concatenate([getattr(own, name), getattr(columns, name)])
                for name in SpectrumColumns.TABLE_COLUMNS
            },
        ),
        spectrum_id=np.concatenate([data.spectrum_id, ids]),
        molecule=np.concatenate([data.molecule, molecule]),
        fold=np.concatenate([data.fold, data.fold[rows]]),
        laboratory=np.concatenate([data.laboratory, data.laboratory[rows]]),
        peaks=np.concatenate([data.peaks, data.peaks.max() + 1 + np.arange(len(rows))]),
        table=pa.concat_tables([data.table, table]).combine_chunks(),
    )
