"""The whole evaluation: chance gets what chance gets, a perfect model everything, and the report says so."""

from __future__ import annotations

import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from ionbed.configs.loading import load_config
from ionbed.errors import InputError
from ionbed.evaluation import run
from ionbed.evaluation.measure import (
    ANALOGUE_SEARCH,
    LIBRARY_SEARCH,
    ORACLE,
    SAME_MOLECULE,
    SAME_MOLECULE_ANY_PARTNER,
    BootstrapOptions,
    TaskResult,
    measure_analogue_search,
    measure_library_search,
    measure_same_molecule,
)
from ionbed.evaluation.provenance import UNKNOWN_ORIGIN, exposure
from ionbed.evaluation.report.explanations import METRICS, ROWS, exposure_sentences, verdict_sentences
from ionbed.evaluation.report.mirror import matched_peaks, save_mirror
from ionbed.evaluation.report.table import markdown, print_tables
from ionbed.evaluation.run import EvaluationConfig, evaluate
from ionbed.evaluation.scorers import Chance, Kind, PrecursorOnly, score_pairs
from ionbed.evaluation.tasks import (
    AnalogueSearchOptions,
    LibrarySearchOptions,
    SameMoleculeOptions,
    analogue_search_task,
    library_search_task,
    same_molecule_task,
)
from ionbed.spectra.split import Split

BOOTSTRAP = BootstrapOptions(resamples=100)


class Table:
    """A scorer that reads its scores from a matrix over all spectra."""

    def __init__(self, label: str, matrix: np.ndarray, kind: Kind = "learned") -> None:
        self.label, self.kind, self.matrix = label, kind, matrix

    def scores(self, queries: np.ndarray, library: np.ndarray) -> np.ndarray:
        return self.matrix[np.ix_(queries, library)]


@pytest.fixture
def data(build: SimpleNamespace, make_data):
    return make_data(*build.isomers(40))


def run_all(data, scorers) -> dict[str, TaskResult]:
    tasks = (
        (measure_same_molecule, same_molecule_task(data, "test", SameMoleculeOptions(), seed=0)),
        (measure_library_search, library_search_task(data, "test", LibrarySearchOptions(), seed=0)),
        (measure_analogue_search, analogue_search_task(data, "test", AnalogueSearchOptions(), seed=0)),
    )
    results = [measure(data, task, scorers, BOOTSTRAP, seed=0) for measure, task in tasks]
    return {result.name: result for result in results}


def value(result: TaskResult, label: str, metric: str) -> float:
    (row,) = (row for row in result.rows if row.label == label)
    return row.estimates[metric].value


def test_a_constant_scorer_gets_the_expectation_of_chance_exactly(data) -> None:
    results = run_all(data, [Table("constant", np.full((len(data), len(data)), 0.7, np.float32)), Chance()])
    assert value(results[SAME_MOLECULE], "constant", "AUC") == 0.5
    candidates = results[LIBRARY_SEARCH].per_query["num_candidates"].to_numpy()
    assert value(results[LIBRARY_SEARCH], "constant", "hit@1") == pytest.approx(np.mean(1 / candidates))
    assert value(results[LIBRARY_SEARCH], "constant", "hit@20") == 1.0
    for name, metric in ((LIBRARY_SEARCH, "hit@1"), (ANALOGUE_SEARCH, "mean Tanimoto")):
        assert value(results[name], "constant", metric) == value(results[name], "random", metric)


def test_chance_in_the_analogue_search_is_the_mean_over_library_molecules(data) -> None:
    from ionbed.spectra.molecules import morgan_fingerprints, tanimoto_matrix

    result = run_all(data, [Chance()])[ANALOGUE_SEARCH]
    prints = morgan_fingerprints(list(data.smiles))
    is_library = np.unique(data.molecule[data.fold == "train"])
    of_molecule = tanimoto_matrix(prints, prints[is_library]).mean(axis=1)
    queried = np.searchsorted(data.inchikey_block, result.per_query["inchikey_block"].to_pylist())
    assert value(result, "random", "mean Tanimoto") == pytest.approx(of_molecule[queried].mean(), abs=1e-6)


def test_who_knows_the_molecules_gets_everything(data) -> None:
    knows = (data.molecule[:, None] == data.molecule[None, :]).astype(np.float32)
    results = run_all(data, [PrecursorOnly(data.columns), Table("knows", knows), Table("inverted", -knows)])
    assert value(results[SAME_MOLECULE], "knows", "AUC") == 1.0
    assert value(results[SAME_MOLECULE], "inverted", "AUC") == 0.0
    assert value(results[LIBRARY_SEARCH], "knows", "hit@1") == 1.0
    assert value(results[LIBRARY_SEARCH], "inverted", "hit@1") == 0.0
    for name, metric in ((SAME_MOLECULE, "AUC"), (LIBRARY_SEARCH, "hit@1")):
        rows = {row.label: row for row in results[name].rows}
        assert rows["knows"].differences[metric].verdict == "beats"
        assert rows["knows"].differences[metric].against == "precursor only"
        assert rows["inverted"].differences[metric].verdict == "loses"


def test_the_oracle_is_the_most_that_a_ranking_by_similarity_can_reach(data) -> None:
    from ionbed.spectra.molecules import morgan_fingerprints, tanimoto_matrix

    prints = morgan_fingerprints(list(data.smiles))
    similarity = tanimoto_matrix(prints, prints)[np.ix_(data.molecule, data.molecule)]
    result = run_all(data, [Table("by structure", similarity), Chance()])[ANALOGUE_SEARCH]
    best = value(result, ORACLE, "mean Tanimoto")
    assert value(result, "by structure", "mean Tanimoto") == pytest.approx(best)
    assert value(result, "random", "mean Tanimoto") < best
    (oracle,) = (row for row in result.rows if row.label == ORACLE)
    assert oracle.kind == "reference"
    assert not oracle.differences


def test_a_scorer_without_knowledge_is_unresolved_against_another(data) -> None:
    rng = np.random.default_rng(0)
    labels = [
        Table(name, rng.random((len(data), len(data))), kind) for name, kind in (("a", "look-up"), ("b", "learned"))
    ]
    for result in run_all(data, labels).values():
        (row,) = (row for row in result.rows if row.label == "b")
        assert {difference.verdict for difference in row.differences.values()} == {"unresolved"}


def test_an_abstention_is_a_miss_and_stays_in_the_denominator(data) -> None:
    knows = (data.molecule[:, None] == data.molecule[None, :]).astype(np.float32)
    silent = np.where((np.arange(len(data)) % 2 == 0)[:, None], np.nan, knows)
    full, half = (run_all(data, [Table("x", scores)]) for scores in (knows, silent))
    answered = np.mean(
        [int(name.split("-")[1]) % 2 for name in half[LIBRARY_SEARCH].per_query["spectrum_id"].to_pylist()]
    )
    assert 0 < answered < 1
    assert half[LIBRARY_SEARCH].per_query.num_rows == full[LIBRARY_SEARCH].per_query.num_rows
    assert value(half[LIBRARY_SEARCH], "x", "hit@1") == pytest.approx(answered)
    assert value(half[ANALOGUE_SEARCH], "x", "mean Tanimoto") < value(full[ANALOGUE_SEARCH], "x", "mean Tanimoto")


def test_the_order_of_the_store_changes_no_metric(build: SimpleNamespace, make_data, tmp_path) -> None:
    from ionbed.evaluation.dataset import load_evaluation_data
    from ionbed.spectra.store import Store

    spectra, folds = build.isomers(24, per_molecule=2)
    data = make_data(spectra, folds)
    order = np.random.default_rng(3).permutation(len(spectra))
    store = build.write_store(tmp_path / "shuffled", [spectra[i] for i in order])
    shuffled = load_evaluation_data(Store(store), build.split_of(folds))
    rng = np.random.default_rng(0)
    scores = np.round(rng.random((len(data), len(data))), 1)
    for label in ("library search", "analogue search"):
        first = run_all(data, [Table("x", scores)])[label]
        second = run_all(shuffled, [Table("x", scores[np.ix_(order, order)])])[label]
        for metric in first.metrics:
            assert value(first, "x", metric) == pytest.approx(value(second, "x", metric))


def test_listed_pairs_get_the_scores_of_the_matrix(data) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.random((len(data), len(data)))
    first, second = rng.integers(0, len(data), (2, 500))
    found = score_pairs(Table("x", matrix), first, second, data.columns.precursor_mz, label="x")
    assert found == pytest.approx(matrix[first, second], abs=1e-6)


def peaks_vector(columns, row: int) -> np.ndarray:
    """A spectrum as binned peaks: what an encoder that learned nothing else could give."""
    vector = np.zeros(2000)
    span = slice(columns.offsets[row], columns.offsets[row + 1])
    np.add.at(vector, np.round(columns.mz[span] * 10).astype(int), columns.intensity[span] ** 0.5)
    return vector


@pytest.fixture
def encoder(build: SimpleNamespace, config: EvaluationConfig, monkeypatch):
    """What every model of the configuration is: trained on the train fold of the evaluated split."""
    stage = {"command": "finetune", "split": Split.load(config.split).hash, "folds": ["train"]}
    encoder = build.encoder(peaks_vector, training=[stage])
    monkeypatch.setattr(run, "_load", lambda source: encoder)
    return encoder


@pytest.fixture
def config(build: SimpleNamespace, tmp_path: Path) -> EvaluationConfig:
    spectra, folds = build.isomers(16, per_molecule=2)
    store = build.write_store(tmp_path / "store", spectra)
    build.split_of(folds).save(tmp_path / "split.json")
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": s, "loss": 1 / (s + 1)}) + "\n" for s in range(20)))
    overrides = [
        f"dataset={store}",
        f"split={tmp_path / 'split.json'}",
        "bootstrap.resamples=100",
        "models={binned: somewhere}",
        f"loss_logs.training={log}",
    ]
    return load_config(EvaluationConfig, "evaluate", overrides)


def test_the_report_folder_is_whole_and_says_one_thing(config, encoder, tmp_path) -> None:
    out = tmp_path / "report"
    tree = evaluate(config, out)

    assert json.loads((out / "results.json").read_text()) == tree
    assert json.loads((out / "manifest.json").read_text())["command"] == "evaluate"
    assert encoder.num_embedded <= 32  # every spectrum at most once
    for name, task in tree["tasks"].items():
        labels = [row["label"] for row in task["rows"]]
        assert labels[:7] == [
            "random", "precursor only", "cosine", "modified cosine", "spectral entropy", "hybrid entropy", "binned",
        ]  # fmt: skip
        assert {d["verdict"] for d in task["rows"][6]["differences"].values()} <= {"beats", "loses", "unresolved"}
        table = pq.read_table(out / f"{name.replace(',', '').replace(' ', '-')}.parquet")
        assert len(table) == task["counts"]["pairs" if name.startswith(SAME_MOLECULE) else "queries"] > 0
    page = (out / "report.html").read_text()
    # the scores of six rows and the ROC curves, for two tasks; three of the library search; analogues, loss, mirror
    assert page.count("<svg") == 2 * (6 + 1) + 3 + 3
    # nothing is fetched: what is named on the network are XML namespaces and the DTD, which no browser loads
    assert not re.search(r"(src|href)=.(http|//)|url\(.?http|@import", page)
    assert set(re.findall(r"https?://[^/'\"]+", page)) <= {"http://www.w3.org"}
    for drawing in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")
    ElementTree.parse(out / "mirror.svg")
    (sentence,) = verdict_sentences(tree)
    assert page.index("<h1>") < page.index(sentence.replace("'", "&#x27;")) < page.index("<table>")

    written = io.StringIO()
    print_tables(tree, Console(file=written, width=100))
    number = f"{tree['tasks'][LIBRARY_SEARCH]['rows'][6]['estimates']['hit@1']['value']:.3f}"
    assert " ".join(written.getvalue().split()).startswith(sentence)
    for text in (written.getvalue(), markdown(tree), (out / "table.md").read_text(), page):
        assert number in text
        assert "†" not in text
        assert "nearest-neighbour oracle" in text


def test_the_same_configuration_gives_the_same_results(config, encoder, tmp_path) -> None:
    first, second = evaluate(config, tmp_path / "a"), evaluate(config, tmp_path / "b")
    assert first == second
    for name in ("same-molecule.parquet", "library-search.parquet", "analogue-search.parquet", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_data_with_nothing_to_compare_give_a_report_that_says_so(build: SimpleNamespace, tmp_path) -> None:
    spectra = [build.spectrum(m, 0, precursor_mz=200 + 10 * m, mz=(50, 60, 70 + m)) for m in range(4)]
    store = build.write_store(tmp_path / "store", spectra)
    build.split_of({0: "test", 1: "test", 2: "train", 3: "train"}).save(tmp_path / "split.json")
    tree = evaluate(EvaluationConfig(store, tmp_path / "split.json"), tmp_path / "out")
    assert tree["tasks"][SAME_MOLECULE]["rows"] == []
    assert tree["tasks"][LIBRARY_SEARCH]["rows"] == []
    assert "Nothing to measure" in (tmp_path / "out" / "table.md").read_text()
    (random, *_) = tree["tasks"][ANALOGUE_SEARCH]["rows"]
    assert random["estimates"]["mean Tanimoto"]["low"] is None  # two molecules are too few for an interval


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("models={cosine: somewhere}", "label of a row that is always there"),
        ("loss_logs={x: nowhere.jsonl}", "nowhere.jsonl: no such file"),
        ("split=nowhere.json", "nowhere.json: no such file"),
        ("dataset=nowhere", "nowhere: no such folder"),
        ("fold=validation", "no evaluable spectrum is in fold 'validation'"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_half_written(
    config, encoder, tmp_path, change: str, message: str
) -> None:
    from ionbed.configs.loading import build as build_config
    from ionbed.configs.loading import to_tree

    key, _, text = change.partition("=")
    import yaml

    changed = build_config(EvaluationConfig, {**to_tree(config), key: yaml.safe_load(text)}, "test")
    with pytest.raises(InputError, match=message):
        evaluate(changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_log_that_is_no_log_is_refused(config, encoder, tmp_path) -> None:
    config.loss_logs["training"].write_text("not json\n")
    with pytest.raises(InputError, match="line 1 is not a JSON object"):
        evaluate(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_mirror_plots_are_written_by_their_ending(build: SimpleNamespace, tmp_path) -> None:
    upper = build.spectrum(0, 0)
    lower = build.spectrum(1, 0, mz=(100.01, 160.0), intensity=(1.0, 0.2))
    assert [m.tolist() for m in matched_peaks(upper.mz, lower.mz, 0.02)] == [[True, False, False], [True, False]]
    assert save_mirror(upper, lower, tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"
    ElementTree.parse(save_mirror(upper, lower, tmp_path / "m.svg"))


def exposing(hash_of_split: str) -> list[tuple[list[dict[str, object]], str]]:
    """Records of training that did not hold out the fold 'test' of the split, and what is wrong with each."""
    held_out = {"command": "pretrain", "split": hash_of_split, "folds": ["train"]}
    return [
        ([], "does not say what it was trained on"),
        ([held_out, {**held_out, "command": "finetune", "split": "0" * 64}], "'finetune' used another split (0000"),
        ([{**held_out, "split": None, "folds": []}, held_out], "'pretrain' held out no molecules"),
        ([held_out, {**held_out, "folds": ["train", "test"]}], "was trained on the fold 'test'"),
        ([{**held_out, "folds": []}], "does not say which folds"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_model_that_may_have_seen_the_queries_is_refused(config, encoder, tmp_path, number: int) -> None:
    encoder.config.training, reason = exposing(Split.load(config.split).hash)[number]
    with pytest.raises(InputError) as refusal:
        evaluate(config, tmp_path / "out")
    for part in ("model 'binned' (somewhere)", reason, "allow_other_split=true"):
        assert part in str(refusal.value)
    assert encoder.num_embedded == 0  # before the long work
    assert not (tmp_path / "out").exists()


def test_another_fold_of_the_same_split_decides_who_was_held_out(config) -> None:
    split = Split.load(config.split)
    stages = [{"command": "finetune", "split": split.hash, "folds": ["train", "validation"]}]
    assert exposure(stages, split, "test") is None
    assert "trained on the fold 'validation'" in (exposure(stages, split, "validation") or "")


def test_an_exposed_model_that_is_allowed_is_marked_wherever_it_stands(config, encoder, tmp_path) -> None:
    encoder.config.training = []
    tree = evaluate(replace(config, allow_other_split=True), tmp_path / "out")
    assert tree["inputs"]["models"]["binned"]["exposure"] == UNKNOWN_ORIGIN
    for task in tree["tasks"].values():
        assert [row["label"] for row in task["rows"] if row["exposure"]] == ["binned"]
    written = io.StringIO()
    print_tables(tree, Console(file=written, width=100))
    (warning,) = exposure_sentences(tree)
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (written.getvalue(), (tmp_path / "out" / "table.md").read_text(), html.unescape(page)):
        assert "binned †" in text
        assert warning in " ".join(text.split())
    assert page.count("class='warning'") == 1


@pytest.mark.parametrize(
    ("verdicts_of_tasks", "sentence"),
    [
        (("beats", "beats", "beats"), "'x' beats the best look-up in all 3 tasks."),
        (
            ("beats", "loses", "beats"),
            "'x' beats the best look-up in same molecule and analogue search, "
            "loses to the best look-up in same molecule with any partner.",
        ),
        (("unresolved", None, None), "'x' cannot be told from the best look-up in same molecule."),
        ((None, None, None), "'x': nothing could be measured."),
    ],
)
def test_the_verdict_in_words(verdicts_of_tasks, sentence: str) -> None:
    names = (SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER, ANALOGUE_SEARCH)
    tasks = {}
    for name, verdict in zip(names, verdicts_of_tasks, strict=True):
        row = {
            "label": "x",
            "estimates": {"AUC": {}},
            "differences": {"AUC": {"against": "cosine", "verdict": verdict}},
        }
        rows = [] if verdict is None else [{"label": "cosine", "estimates": {"AUC": {}}, "differences": {}}, row]
        tasks[name] = {"metrics": ["AUC"], "rows": rows}
    assert verdict_sentences({"inputs": {"models": {"x": {}}}, "tasks": tasks}) == [sentence]


def test_every_row_and_every_metric_is_explained(config, encoder, tmp_path) -> None:
    for task in evaluate(config, tmp_path / "out")["tasks"].values():
        assert set(task["metrics"]) <= METRICS.keys()
        assert {row["label"] for row in task["rows"]} <= ROWS.keys() | {"binned"}
