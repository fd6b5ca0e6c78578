"""A made-up evaluation for the report: every kind of question and of row, scorers of known strength, real judging."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ionbed.evaluation.candidates import Candidates, candidate_molecules
from ionbed.evaluation.comparisons import Comparisons
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.measure import QuestionResult, measure
from ionbed.evaluation.query_properties import nearest_train_tanimoto
from ionbed.evaluation.question import Question, task_of
from ionbed.evaluation.report.results import file_name
from ionbed.evaluation.report.write import write_outcomes, write_report
from ionbed.evaluation.scorers import Kind
from ionbed.evaluation.statistics import BootstrapOptions
from ionbed.evaluation.task_files import TaskKind
from ionbed.spectra.store import Store

ROWS: tuple[tuple[str, Kind, float], ...] = (
    ("random", "reference", 0.0),
    ("precursor only", "blind", 0.15),
    ("database order", "blind", 0.0),
    ("cosine", "look-up", 0.5),
    ("spectral entropy", "look-up", 0.7),
    ("fingerprint network", "trained", 0.4),
    ("small", "learned", 1.6),
    ("tiny", "learned", 0.3),
)
"""Label, kind, and by how many standard deviations the true candidate stands out."""

KINDS: dict[str, TaskKind] = {
    "same molecule": "pairs",
    "library search": "library",
    "open-world search": "open",
    "analogue search": "analogue",
    "retrieval by mass": "retrieval",
}
BOOTSTRAP = BootstrapOptions(resamples=200)


@dataclass
class Evaluated:
    """What `write_report` is given."""

    tree: dict[str, Any]
    results: list[QuestionResult]
    data: EvaluationData
    molecules: Candidates


def comparisons(data: EvaluationData, kind: TaskKind) -> Comparisons:
    """Queries are the test spectra; candidates are those of one precursor window, or the training spectra."""
    queries = data.rows_in("test")
    window = np.round(data.columns.precursor_mz / 20).astype(int)
    if kind == "analogue":
        library = data.rows_in("train")
        zeros = np.zeros(len(queries), np.int64)
        return Comparisons(queries, zeros, np.zeros(len(library), np.int64), library, {"queries": len(queries)})
    pool, candidate = [], []
    unanswerable = set(np.unique(data.molecule[queries])[::2].tolist()) if kind == "open" else set()
    for place, query in enumerate(queries):
        near = np.flatnonzero((window == window[query]) & (np.arange(len(data)) != query))
        if data.molecule[query] in unanswerable:
            near = near[data.molecule[near] != data.molecule[query]]
        found = np.unique(data.molecule[near]) if kind == "retrieval" else near
        pool += [place] * len(found)
        candidate += found.tolist()
    counts = {"pairs" if kind == "pairs" else "queries": len(candidate if kind == "pairs" else queries)}
    return Comparisons(
        queries, np.arange(len(queries)), np.array(pool), np.array(candidate), {**counts, "mean candidates": 2.5}
    )


class MadeUp:
    """Noise, and more for spectra and structures of the query's own molecule; 'tiny' abstains on every tenth query."""

    def __init__(self, label: str, kind: Kind, strength: float, data: EvaluationData, seed: int) -> None:
        self.label, self.kind = label, kind
        rng = np.random.default_rng([seed, *label.encode()])
        num_molecules = len(data.inchikey_block)
        noise = rng.normal(0, 0.1, (len(data), num_molecules)) if label != "random" else 0.0
        same = data.molecule[:, None] == np.arange(num_molecules)
        self._structures = np.round(0.4 + noise + 0.1 * strength * same, 3)
        if label == "tiny":
            self._structures[::10] = np.nan
        self._molecule = data.molecule

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self._structures[np.ix_(queries, self._molecule[library])]

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        return self._structures[query, molecule]


def evaluated(data: EvaluationData, *, seed: int = 0, strengths: dict[str, float] | None = None) -> Evaluated:
    """Let every row of `ROWS` answer every question of `KINDS`."""
    molecules = candidate_molecules(data)
    questions = []
    for name, kind in KINDS.items():
        found = comparisons(data, kind)
        questions.append(Question(name, kind, found, task_of(data, molecules, found, kind)))
    entries = []
    for label, kind, strength in ROWS:
        scorer = MadeUp(label, kind, (strengths or {}).get(label, strength), data, seed)
        entries.append(Entry(label, kind, (lambda *_, scorer=scorer: scorer,)))
    nearest_train = nearest_train_tanimoto(data, molecules.fingerprint)
    results = measure(questions, data, molecules, entries, BOOTSTRAP, seed=0, nearest_train=nearest_train)
    tree = {
        "format": 2,
        "config": {"bootstrap": {"resamples": 200, "confidence": 0.95}, "fold": "test", "seed": 0},
        "inputs": {
            "store": ["0" * 64],
            "spectra": len(data),
            "molecules": len(data.inchikey_block),
            "predicted spectra": 0,
            "split": {"kind": "inchikey-block", "seed": 0, "hash": "1" * 64},
            "models": {"small": {"exposure": None}, "tiny": {"exposure": None}},
        },
        "tasks": {result.question.name: result.tree for result in results},
        "audits": [
            {
                "audit": "near-duplicate spectra across folds",
                "about": "split",
                "passed": True,
                "sentence": "No spectrum of the test fold is a near-duplicate of one of the train fold.",
                "evidence": {"pairs": 0},
            },
            {
                "audit": "overlap with a corpus",
                "about": "pretraining",
                "passed": None,
                "sentence": "The corpus has no structures.",
                "evidence": {},
            },
        ],
    }
    return Evaluated(tree, results, data, molecules)


@pytest.fixture(scope="session")
def made() -> dict[Any, Any]:
    """What was evaluated once for all tests: they take copies of its tree where they change it."""
    return {}


@pytest.fixture
def evaluate_made_up(build: SimpleNamespace, tmp_path: Path, made: dict[Any, Any]) -> Callable[..., Evaluated]:
    """Evaluate made-up molecules; the tree is the test's own."""

    def evaluate(num_molecules: int = 40, *, seed: int = 0, **strengths: float) -> Evaluated:
        key = num_molecules, seed, tuple(sorted(strengths.items()))
        if key not in made:
            spectra, folds = build.isomers(num_molecules)
            store = Store(build.write_store(tmp_path / f"store-{len(made)}", spectra))
            made[key] = evaluated(load_evaluation_data(store, build.split_of(folds)), seed=seed, strengths=strengths)
        return own_copy(made[key])

    return evaluate


def own_copy(of: Evaluated) -> Evaluated:
    """The same with trees that a test may change: those of the results are parts of the whole one."""
    tree = copy.deepcopy(of.tree)
    results = []
    for result in of.results:
        question = tree["tasks"][result.question.name]
        rows = tuple(replace(row, tree=own) for row, own in zip(result.rows, question["rows"], strict=True))
        results.append(replace(result, rows=rows, tree=question))
    return Evaluated(tree, results, of.data, of.molecules)


@pytest.fixture
def report_page(
    evaluate_made_up: Callable[..., Evaluated], tmp_path_factory: pytest.TempPathFactory, made: Any
) -> Path:
    """The report folder of the evaluation that all tests share, written once."""
    if "folder" not in made:
        of = evaluate_made_up()
        folder = tmp_path_factory.mktemp("report")
        write_report(folder, of.tree, of.results, of.data, of.molecules, loss_logs={}, seed=0)
        made["folder"] = folder
    return made["folder"]


@pytest.fixture
def report_of(tmp_path: Path) -> Callable[..., Path]:
    """Write what can be read back of an evaluation into a folder of this name: no page and no figures."""

    def write(of: Evaluated, name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(of.tree))
        for result in of.results:
            write_outcomes(folder / f"{file_name(result.question.name)}.parquet", result)
        return folder

    return write
