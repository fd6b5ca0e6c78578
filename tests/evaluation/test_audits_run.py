"""The door to all audits: every row is controlled on every kind of question it answers, and options are checked."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ionbed.configs.loading import build as build_config
from ionbed.errors import InputError
from ionbed.evaluation.audits.findings import (
    CANDIDATE_ORDER,
    CORPUS_AUDITS,
    CORPUS_STRUCTURES,
    LABEL_BLIND,
    MASKED,
    ORACLE_USE,
    SHARED_FOLDS,
    SWAPPED,
    TRUTH_PLACE,
    Finding,
    void_reasons,
)
from ionbed.evaluation.audits.run import AuditOptions, run_audits
from ionbed.evaluation.baselines.lookups import lookup_entries
from ionbed.evaluation.candidates import Candidates, candidate_molecules
from ionbed.evaluation.comparisons import Comparisons
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.entries import Entry
from ionbed.evaluation.predictions import Corpus
from ionbed.evaluation.question import Question, task_of
from ionbed.evaluation.scorers import Chance, Embedder, PrecursorOnly, _num_shared
from ionbed.evaluation.tasks import (
    AnalogueSearchOptions,
    LibrarySearchOptions,
    analogue_search_task,
    library_search_task,
)
from ionbed.finetune.splits import SplitOptions, make_split
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.harmonise import harmonise
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.readers import read_records
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import Store

NUM_MOLECULES = 112
DATA = os.environ.get("IONBED_DATA", "")


class ByPeaks:
    """Overlap of binned peaks, with spectra and with what was measured of a candidate structure."""

    label, kind = "honest", "learned"

    def __init__(self, data: EvaluationData, known: EvaluationData, help: float = 0.0) -> None:
        self.vectors, self.data, self.help = vectors(data), data, help
        self.of_molecule = np.zeros((len(known.inchikey_block), self.vectors.shape[1]))
        np.add.at(self.of_molecule, known.molecule, vectors(known))

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self.vectors[queries] @ self.vectors[library].T

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        overlap = np.einsum("ij,ij->i", self.vectors[query], self.of_molecule[molecule])
        return overlap + self.help * (self.data.molecule[query] == molecule)


class ByPlace(ByPeaks):
    """Prefers the structures that come early."""

    def score_structures(self, query: np.ndarray, molecule: np.ndarray) -> np.ndarray:
        return super().score_structures(query, molecule) - 1e-3 * np.arange(len(molecule))


def vectors(data: EvaluationData) -> np.ndarray:
    columns = data.columns
    result = np.zeros((len(columns), 400))
    spectrum = np.repeat(np.arange(len(columns)), columns.num_peaks)
    np.add.at(result, (spectrum, (columns.mz * 2).astype(int) % 400), columns.intensity)
    return result / np.linalg.norm(result, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, build_module: SimpleNamespace) -> SimpleNamespace:
    spectra, folds = build_module.isomers(NUM_MOLECULES)
    split = build_module.split_of(folds)
    store = Store(build_module.write_store(tmp_path_factory.mktemp("audits") / "store", spectra))
    data = load_evaluation_data(store, split)
    molecules = candidate_molecules(data)
    task = library_search_task(data, "test", LibrarySearchOptions(), seed=0)
    library = Comparisons(task.queries, np.arange(len(task.queries)), task.query, task.library, task.counts)
    rng = np.random.default_rng(0)
    rows = data.rows_in("test")[::4]
    # The true structure among molecules of the training fold, in any order.
    train = np.unique(data.molecule[data.rows_in("train")])
    lists = [rng.permutation([data.molecule[row], *rng.choice(train, 7, replace=False)]) for row in rows]
    pool = np.repeat(np.arange(len(rows)), 8)
    retrieval = Comparisons(rows, np.arange(len(rows)), pool, np.concatenate(lists), {})
    questions = [
        Question("library search", "library", library, task_of(data, molecules, library, "library")),
        Question("retrieval by mass", "retrieval", retrieval, task_of(data, molecules, retrieval, "retrieval")),
    ]
    return SimpleNamespace(split=split, store=store, data=data, molecules=molecules, questions=questions)


@pytest.fixture(scope="module")
def build_module() -> SimpleNamespace:
    """The builders of the conftest for a whole module."""
    import importlib.util

    path = Path(__file__).with_name("conftest.py")
    spec = importlib.util.spec_from_file_location("evaluation_builders", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(isomers=module.isomers, split_of=module.split_of, write_store=module.write_store)


def entry(label: str, make: Callable[[EvaluationData], Any], kind: Any = "learned", **rest: Any) -> Entry:
    def build(data: EvaluationData, molecules: Candidates, rows: np.ndarray) -> Any:
        return make(data)

    return Entry(label, kind, (build,), **rest)


def audited(world: SimpleNamespace, entries: Sequence[Entry], **options: Any) -> list[Finding]:
    return run_audits(
        world.data,
        world.molecules,
        world.questions,
        entries,
        store=world.store,
        split=world.split,
        fold="test",
        options=AuditOptions(**options),
        seed=0,
    )


def test_a_clean_evaluation_passes_every_audit(world, tmp_path):
    (tmp_path / "corpus.smi").write_text("OCCOCCO\n")
    rows = [
        entry("random", lambda data: Chance(), "reference"),
        entry("oracle", lambda data: Chance(), "reference", known=("truth",)),
        entry("precursor only", lambda data: PrecursorOnly(data.columns), "blind", known=("precursor_mz",)),
        entry("honest", lambda data: ByPeaks(data, world.data), known=("precursor_mz",)),
    ]
    found = audited(world, rows, corpora={"corpus": tmp_path / "corpus.smi"}, control_queries=60)
    assert not [finding for finding in found if finding.passed is False], found
    assert {finding.audit for finding in found} >= {
        SHARED_FOLDS,
        TRUTH_PLACE,
        MASKED,
        SWAPPED,
        LABEL_BLIND,
        *CORPUS_AUDITS,
    }
    masked = [finding for finding in found if finding.audit == MASKED]
    assert [(f.about, f.evidence["question"]) for f in masked] == [
        ("honest", "library search"),
        ("honest", "retrieval by mass"),
    ]
    assert ("oracle", ORACLE_USE, True) in {(f.about, f.audit, f.passed) for f in found}
    assert not void_reasons(found, rows)


def test_rows_that_cheat_with_structures_are_found_and_void(world):
    rows = [
        entry("label", lambda data: ByPeaks(data, world.data, help=5.0)),
        entry("place", lambda data: ByPlace(data, world.data)),
        entry("told", lambda data: ByPeaks(data, world.data), known=("truth",)),
    ]
    found = audited(world, rows, control_queries=60)
    failed = {(f.about, f.audit) for f in found if f.passed is False and f.about in ("label", "place", "told")}
    assert failed >= {("label", MASKED), ("label", SWAPPED), ("label", LABEL_BLIND), ("label", ORACLE_USE)}
    assert failed >= {("place", CANDIDATE_ORDER), ("told", ORACLE_USE)}
    assert set(void_reasons(found, rows)) == {"label", "place", "told"}


def test_a_corpus_that_no_row_names_is_told_so(world):
    told = {}
    for name in ("pretrain", "pretraining"):
        row = entry("told", lambda data: ByPeaks(data, world.data), trained_on=(Corpus("pretrain"),))
        found = audited(world, [row], corpora={name: world.store.folder}, control_queries=0)
        (structures,) = [f for f in found if f.audit == CORPUS_STRUCTURES]
        assert structures.passed is False
        told[name] = structures.sentence, set(void_reasons(found, [row]))
    assert told["pretrain"][1] == {"told"}
    assert "No row says" not in told["pretrain"][0]
    assert told["pretraining"][1] == set()
    assert told["pretraining"][0].endswith("No row says that it was trained on 'pretraining'.")


def test_a_row_that_ranks_nothing_is_said_to_be_unaudited(world):
    never = entry("pairs only", lambda data: ByPeaks(data, world.data), kinds=frozenset({"pairs"}))
    found = [finding for finding in audited(world, [never]) if finding.about == "pairs only"]
    assert [finding.passed for finding in found] == [None]


def test_a_row_that_scores_spectra_alone_is_not_asked_about_structures(world):
    row = entry("spectra", lambda data: PrecursorOnly(data.columns))
    found = [finding for finding in audited(world, [row], control_queries=60) if finding.about == "spectra"]
    assert {finding.evidence["question"] for finding in found if finding.audit == MASKED} == {"library search"}


def test_a_model_embeds_only_what_the_controls_altered(world, build):
    def vector(columns: SpectrumColumns, row: int) -> np.ndarray:
        span = slice(columns.offsets[row], columns.offsets[row + 1])
        return np.bincount((columns.mz[span] * 2).astype(int) % 400, columns.intensity[span], 400)

    encoder = build.encoder(vector)
    embedder = Embedder("model", encoder)
    embedder(world.data.columns, np.arange(len(world.data)))
    rows = [
        Entry("model", "learned", (lambda data, molecules, rows: embedder(data.columns, rows),)),
        Entry("again", "learned", (lambda data, molecules, rows: embedder(data.columns, rows),)),
    ]
    found = audited(world, rows, control_queries=40)
    copies, num_questions = 3 * 40, 2
    assert encoder.num_embedded <= len(world.data) + copies * num_questions * len(rows)
    assert not [finding for finding in found if finding.passed is False]


def test_what_is_embedded_is_kept_up_to_the_first_spectrum_that_differs(world):
    columns = world.data.columns
    assert _num_shared(columns, columns) == len(columns)
    for name in ("mz", "intensity", "precursor_mz", "collision_energy", "adduct"):
        values = getattr(columns, name).copy()
        place = columns.offsets[7] + 1 if name in ("mz", "intensity") else 7
        values[place] = "[M+Na]+" if name == "adduct" else 77.0
        assert _num_shared(columns, replace(columns, **{name: values})) == 7
    assert _num_shared(columns, columns.take(np.arange(9))) == 9
    assert _num_shared(columns.take(np.array([0, 1, 5])), columns) == 2
    assert _num_shared(columns, columns.take(np.array([], np.int64))) == 0


def test_controls_can_be_left_out(world):
    row = entry("label", lambda data: ByPeaks(data, world.data, help=5.0))
    assert not [finding for finding in audited(world, [row], control_queries=0) if finding.about == "label"]


def test_options_are_checked(tmp_path):
    options = build_config(AuditOptions, {"corpora": {"pretrain": str(tmp_path)}, "control_queries": 5}, "mine.yaml")
    assert options == AuditOptions({"pretrain": tmp_path}, 5)
    with pytest.raises(InputError, match="'control_queries' is -1"):
        build_config(AuditOptions, {"control_queries": -1}, "mine.yaml")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
def test_real_spectra_under_a_fair_split_pass(build, tmp_path):
    """The look-ups, on an analogue search: few molecules share a window among so few records."""
    records = itertools.islice(read_records(Path(DATA) / "massbank-records.tar.gz"), 1200)
    spectra = [found for found in map(harmonise, records) if isinstance(found, Spectrum) and found.inchikey]
    store = Store(build.write_store(tmp_path / "store", spectra))
    split = make_split(store.table(), SplitOptions(kind="inchikey-block", test=0.4, validation=0.0))
    data = load_evaluation_data(store, split)
    molecules = candidate_molecules(data)
    task = analogue_search_task(data, "test", AnalogueSearchOptions(), seed=0)
    sizes, libraries = [len(rows) for rows in task.queries], [len(rows) for rows in task.libraries]
    found = Comparisons(
        np.concatenate(task.queries),
        np.repeat(np.arange(len(sizes)), sizes),
        np.repeat(np.arange(len(libraries)), libraries),
        np.concatenate(task.libraries),
        {},
    )
    question = Question("analogue search", "analogue", found, task_of(data, molecules, found, "analogue"))
    real = SimpleNamespace(split=split, store=store, data=data, molecules=molecules, questions=[question])
    findings = audited(real, lookup_entries(LookupOptions(), workers=1))
    assert not [finding for finding in findings if finding.passed is False], findings
    masked = [finding for finding in findings if finding.audit == MASKED]
    assert len(masked) == 4
    assert all(f.evidence["as it is"] > f.evidence["control"] for f in masked), masked
