"""Controls of a row: every planted leak is found, and rows that score by their peaks pass on ten seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ionbed.evaluation.audits.altered_queries import MASK_MZ, draw_controls
from ionbed.evaluation.audits.controls import _differing, _fallen, blind_values, control_findings, too_few_queries
from ionbed.evaluation.audits.findings import (
    CANDIDATE_ORDER,
    LABEL_BLIND,
    MASKED,
    ORACLE_USE,
    SWAPPED,
    Finding,
    void_reasons,
)
from ionbed.evaluation.candidates import Candidates, candidate_molecules
from ionbed.evaluation.comparisons import Comparisons
from ionbed.evaluation.dataset import EvaluationData
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.predictions import Corpus, PredictionManifest, Predictions
from ionbed.evaluation.question import Question, task_of
from ionbed.evaluation.tasks import LibrarySearchOptions, library_search_task

NUM_MOLECULES = 112
"""Half of them are asked about."""


class ByPeaks:
    """An honest scorer: the overlap of binned peaks."""

    label, kind = "by peaks", "learned"

    def __init__(self, data: EvaluationData, noise: float = 0.0) -> None:
        columns = data.columns
        spectrum = np.repeat(np.arange(len(columns)), columns.num_peaks)
        self.vectors = np.zeros((len(columns), 400), np.float32)
        np.add.at(self.vectors, (spectrum, (columns.mz * 2).astype(int) % 400), columns.intensity)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.noise = noise

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self.vectors[queries] @ self.vectors[library].T


class ByLabel(ByPeaks):
    """Peaks, and a little help from the answer."""

    def __init__(self, data: EvaluationData, help: float) -> None:
        super().__init__(data)
        self.molecule, self.help = data.molecule, help

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        same = self.molecule[queries][:, None] == self.molecule[library][None]
        return super().scores(queries, library) + self.help * same


class ByRow(ByPeaks):
    """Learned the queries by heart: knows the answer to the rows of the original data, and of no other."""

    def __init__(self, data: EvaluationData) -> None:
        super().__init__(data)
        self.answer = dict(zip(data.spectrum_id, data.molecule, strict=True))
        self.data = data

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        names = [str(name).split(" ")[0] for name in self.data.spectrum_id[queries]]
        known = np.array([self.answer[name] for name in names])
        return (known[:, None] == self.data.molecule[library][None]).astype(float)


class ByPlace(ByPeaks):
    """Prefers what comes early in the list that it is given."""

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return super().scores(queries, library) - 0.01 * np.arange(len(library))


class ByPrecursor(ByPeaks):
    """Sees the precursor m/z and no peak."""

    def __init__(self, data: EvaluationData) -> None:
        self.mz = data.columns.precursor_mz

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return -np.abs(self.mz[queries][:, None] - self.mz[library][None])


@pytest.fixture
def asked(
    build: SimpleNamespace, make_data: Callable[..., EvaluationData]
) -> tuple[EvaluationData, Candidates, Question]:
    return question_of(build, make_data, 0)


def question_of(
    build: SimpleNamespace, make_data: Callable[..., EvaluationData], seed: int
) -> tuple[EvaluationData, Candidates, Question]:
    data = make_data(*build.isomers(NUM_MOLECULES, seed=seed))
    task = library_search_task(data, "test", LibrarySearchOptions(), seed=seed)
    found = Comparisons(task.queries, np.arange(len(task.queries)), task.query, task.library, task.counts)
    molecules = candidate_molecules(data)
    return data, molecules, Question("library search", "library", found, task_of(data, molecules, found, "library"))


def audit(
    asked: tuple[EvaluationData, Candidates, Question], make: Callable[[EvaluationData], Any], **entry: Any
) -> dict[str, Finding]:
    data, molecules, question = asked
    row = Entry("row", "learned", (lambda altered, candidates, rows: make(altered),), **entry)
    controls = draw_controls(data, molecules, question, queries=60, seed=1)
    blind = blind_values(controls, molecules, [], row.known)
    scorer = row.builds[0](controls.data, molecules, controls.rows())
    return {finding.audit: finding for finding in control_findings(row, scorer, controls, blind, seed=1)}


@pytest.mark.parametrize("seed", range(10))
def test_an_honest_row_passes(seed, build, make_data):
    found = audit(question_of(build, make_data, seed), ByPeaks, known=("precursor_mz",))
    assert [finding.passed for finding in found.values()] == [True] * 5, found
    assert found[MASKED].evidence["as it is"] > found[MASKED].evidence["control"] + 0.2


@pytest.mark.parametrize("seed", range(3))
def test_a_row_that_sees_only_the_precursor_passes(seed, build, make_data):
    found = audit(question_of(build, make_data, seed), ByPrecursor, known=("precursor_mz",))
    assert all(finding.passed for finding in found.values()), found
    assert "blind ranker" in found[MASKED].sentence


def test_a_row_that_sees_the_answer_is_found_by_every_control(asked):
    found = audit(asked, lambda data: ByLabel(data, 2.0))
    assert {name for name, finding in found.items() if finding.passed is False} == {
        MASKED,
        SWAPPED,
        LABEL_BLIND,
        ORACLE_USE,
    }
    assert found[MASKED].evidence["control"] == 1.0


def test_a_little_help_from_the_answer_is_found_by_other_labels(asked):
    found = audit(asked, lambda data: ByLabel(data, 0.02))
    assert found[LABEL_BLIND].passed is False
    assert found[LABEL_BLIND].evidence["scored otherwise"] > 0


def test_a_row_that_knows_the_queries_by_heart_is_found_without_peaks(asked):
    found = audit(asked, ByRow)
    assert found[MASKED].passed is False
    assert found[SWAPPED].passed is False


def test_a_row_that_prefers_early_candidates_is_found(asked):
    found = audit(asked, ByPlace)
    assert found[CANDIDATE_ORDER].passed is False
    assert found[CANDIDATE_ORDER].evidence["changed"] > 0


def test_a_given_truth_cannot_be_hidden_from(asked):
    assert audit(asked, lambda data: ByLabel(data, 2.0), known=("truth",))[LABEL_BLIND].passed is None


@pytest.mark.parametrize(
    ("own", "control", "passes"),
    [
        (0.54, 0.53, True),  # blind rankers are not perfect either
        (0.90, 0.60, True),  # most of what it knows came from the peaks
        (0.65, 0.60, False),
        (0.90, 0.72, False),
        (0.40, 0.40, True),
    ],
)
def test_a_control_fails_where_much_is_left_of_what_the_peaks_gave(asked, own, control, passes):
    flat = [np.full(200, value) for value in (own, control, 0.5)]
    found = _fallen(MASKED, "without peaks", "row", asked[2], flat[0], flat[1], "random", flat[2], 0)
    assert found.passed is passes


def test_what_is_left_must_be_beyond_chance(asked):
    """Three molecules of twenty are no evidence, though they are more than the margin."""
    control = np.where(np.arange(20) < 3, 1.0, 0.0)
    found = _fallen(MASKED, "without peaks", "row", asked[2], control, control, "random", np.zeros(20), 0)
    assert found.passed is True


def test_lists_of_best_hits_that_hold_nothing_of_each_other_differ():
    def hits(candidates: list[int]) -> Predictions:
        query, candidate = np.array([0, 0, 1]), np.array(candidates)
        return Predictions(PredictionManifest("row", (), ()), query, candidate, np.ones(3), {"queries": 3})

    differs, compared = _differing(hits([0, 1, 5]), hits([0, 2, 6]), 10)
    assert differs.tolist() == [False, True, False]
    assert compared.tolist() == [True, True, False]


def test_too_few_molecules_are_said_to_be_too_few(asked):
    data, molecules, question = asked
    found = too_few_queries("row", draw_controls(data, molecules, question, queries=19, seed=1))
    assert [finding.passed for finding in found] == [None] * 4
    assert too_few_queries("row", draw_controls(data, molecules, question, queries=20, seed=1)) == []


def test_questions_with_one_candidate_each_give_no_controls(asked):
    data, molecules, question = asked
    kept = np.unique(question.found.pool, return_index=True)[1]
    pool, candidate = question.found.pool[kept], question.found.candidate[kept]
    alone = replace(question.found, pool=pool, candidate=candidate)
    single = Question("library search", "library", alone, task_of(data, molecules, alone, "library"))
    controls = draw_controls(data, molecules, single, queries=50, seed=1)
    assert len(controls.question.found.queries) == 0
    assert len(controls.data) == len(data)
    assert too_few_queries("row", controls)


def test_copies_are_altered_as_they_say_and_the_data_stay(asked):
    data, molecules, question = asked
    controls = draw_controls(data, molecules, question, queries=30, seed=1)
    altered, rows = controls.data, controls.question.found.queries
    assert len(altered) == len(data) + 90 == len(altered.table)
    assert len(np.unique(altered.spectrum_id.astype(str))) == len(altered)
    for name in ("mz", "intensity"):
        assert np.array_equal(
            getattr(altered.columns, name)[: len(getattr(data.columns, name))], getattr(data.columns, name)
        )
        assert altered.table[name].to_pylist() == [
            getattr(altered.columns, name)[a:b].tolist()
            for a, b in zip(altered.columns.offsets[:-1], altered.columns.offsets[1:], strict=True)
        ]

    def peaks(row: int) -> list[float]:
        return altered.columns.mz[altered.columns.offsets[row] : altered.columns.offsets[row + 1]].tolist()

    for place, row in enumerate(rows):
        assert peaks(controls.masked[place]) == [MASK_MZ]
        assert peaks(controls.relabelled[place]) == peaks(row)
        assert peaks(controls.swapped[place]) != peaks(row)
        pool = controls.question.task.candidate_molecule[controls.question.found.pool == place]
        donor = next(r for r in rows if peaks(r) == peaks(controls.swapped[place]))
        assert data.molecule[donor] not in pool
    assert np.array_equal(altered.molecule[controls.masked], data.molecule[rows])
    assert not np.any(altered.molecule[controls.relabelled] == data.molecule[rows])
    blocks = [key[:14] for key in altered.table["inchikey"].to_pylist()]
    assert np.array_equal(altered.inchikey_block[altered.molecule], blocks)
    assert len(np.unique(data.molecule[rows])) == 30
    for name in ("precursor_mz", "polarity", "collision_energy"):
        assert np.array_equal(
            getattr(altered.columns, name)[controls.masked], getattr(data.columns, name)[rows], equal_nan=True
        )


def test_a_failed_audit_voids_the_row_and_a_failed_corpus_every_row_trained_on_it():
    entries = [
        Entry("a", "learned", (), trained_on=(Corpus("gems"),)),
        Entry("b", "learned", ()),
        Entry("gems", "learned", ()),
    ]
    failed = Finding(MASKED, "b", False, "it does.")
    assert set(void_reasons([failed], entries)) == {"b"}
    assert not void_reasons([replace(failed, passed=None), replace(failed, passed=True)], entries)
    assert set(void_reasons([Finding("spectra of the queries in a corpus", "gems", False, "there.")], entries)) == {"a"}


class WhereThereArePeaks(ByLabel):
    """Looks at the answer only for spectra that have fragments: without them it is as blind as others."""

    def __init__(self, data: EvaluationData) -> None:
        super().__init__(data, 2.0)
        self.has_peaks = data.columns.num_peaks > 1

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        blind = np.zeros((len(queries), len(library)))
        return np.where(self.has_peaks[queries][:, None], super().scores(queries, library), blind)


def test_the_peaks_of_another_spectrum_find_what_no_peaks_do_not(asked):
    found = audit(asked, WhereThereArePeaks)
    assert found[MASKED].passed is True
    assert found[SWAPPED].passed is False
