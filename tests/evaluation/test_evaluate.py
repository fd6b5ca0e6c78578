"""The whole evaluation: every question has its table, the report folder is whole, and what is wrong is refused."""

from __future__ import annotations

import html
import io
import json
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
from ionbed.evaluation.comparisons import KIND_OF, LIBRARY_SEARCH, RETRIEVAL_BY_MASS, SAME_MOLECULE
from ionbed.evaluation.provenance import UNKNOWN_ORIGIN, exposure
from ionbed.evaluation.report.table import markdown, print_tables
from ionbed.evaluation.run import EvaluationConfig, evaluate
from ionbed.spectra.molecules import standardise
from ionbed.spectra.split import Split

CONTROLLED = 4 * 32
"""Spectra that the controls may embed anew: altered copies of queries, and what they are compared with."""


def peaks_vector(columns, row: int) -> np.ndarray:
    """A spectrum as binned peaks: what an encoder that learned nothing else could give."""
    vector = np.zeros(2000)
    span = slice(columns.offsets[row], columns.offsets[row + 1])
    np.add.at(vector, np.round(columns.mz[span] * 10).astype(int), columns.intensity[span] ** 0.5)
    return vector


def ether(molecule: int) -> str:
    """A structure: the four molecules of a group are isomers."""
    group, place = divmod(molecule, 4)
    return f"{'C' * (place + 1)}O{'C' * (8 + group - place)}"


@pytest.fixture
def encoder(build: SimpleNamespace, config: EvaluationConfig, monkeypatch):
    """What every model of the configuration is: trained on the train fold of the evaluated split."""
    stage = {"command": "finetune", "split": Split.load(config.split).hash, "folds": ["train"]}
    encoder = build.encoder(peaks_vector, training=[stage])
    monkeypatch.setattr(run, "load_models", lambda config: {label: [encoder] for label in config.models})
    return encoder


@pytest.fixture
def config(build: SimpleNamespace, tmp_path: Path) -> EvaluationConfig:
    spectra, folds = build.isomers(16, per_molecule=2)
    proton = 1.007276
    spectra = [
        replace(s, smiles=structure, precursor_mz=standardise(structure).exact_mass + proton)
        for s in spectra
        for structure in [ether(int(s.spectrum_id.split("-")[0]))]
    ]
    store = build.write_store(tmp_path / "store", spectra)
    build.split_of(folds).save(tmp_path / "split.json")
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": s, "loss": 1 / (s + 1)}) + "\n" for s in range(20)))
    overrides = [
        f"dataset={store}",
        f"split={tmp_path / 'split.json'}",
        "bootstrap.resamples=100",
        "models={binned: somewhere}",
        "trained_baselines={trainings: 1, max_epochs: 1, hidden_size: 8, batch_size: 4}",
        "mces.max_queries=4",
        f"loss_logs.training={log}",
    ]
    return load_config(EvaluationConfig, "evaluate", overrides)


def test_every_question_has_its_table_and_the_folder_is_whole(config, encoder, tmp_path) -> None:
    out = tmp_path / "report"
    tree = evaluate(config, out)

    assert json.loads((out / "results.json").read_text()) == tree
    assert json.loads((out / "manifest.json").read_text())["command"] == "evaluate"
    assert encoder.num_embedded <= 32 + CONTROLLED  # every spectrum once, and once more for the controls
    assert list(tree["tasks"]) == list(config.tasks)
    lookups = ["cosine", "modified cosine", "spectral entropy", "hybrid entropy"]
    for name, task in tree["tasks"].items():
        kinds = {row["label"]: row["kind"] for row in task["rows"]}
        is_retrieval = KIND_OF[name] == "retrieval"
        assert [k for k, kind in kinds.items() if kind == "look-up"] == [
            f"{label}, analogue transfer" if is_retrieval else label for label in lookups
        ] + ["predicted spectra"] * is_retrieval
        assert ("binned, analogue transfer" if is_retrieval else "binned") in kinds
        assert {"random"} <= kinds.keys()
        assert list(kinds.values()).count("trained") == 2
        for row in task["rows"]:
            judged = row["kind"] in ("trained", "learned")
            assert {d["role"] for d in row["differences"]} <= {"best look-up", "best blind", "random"}
            assert bool(row["differences"]) == judged
            assert row["metrics"].keys() <= set(task["metrics"])
            assert task["main"] in row["metrics"]
        assert pq.read_table(out / f"{name.replace(',', '').replace(' ', '-')}.parquet").num_rows > 0
    controlled = {audit["about"] for audit in tree["audits"] if audit["sentence"].startswith(RETRIEVAL_BY_MASS)}
    assert "cosine, analogue transfer" in controlled and "cosine" not in controlled  # which scores no structures
    failed = [audit for audit in tree["audits"] if audit["passed"] is False]
    assert not failed
    written = io.StringIO()
    print_tables(tree, Console(file=written, width=100))
    (row,) = (row for row in tree["tasks"][LIBRARY_SEARCH]["rows"] if row["label"] == "binned")
    number = f"{row['metrics']['hit@1']['micro']['value']:.3f}"
    page = (out / "report.html").read_text()
    for text in (written.getvalue(), markdown(tree), (out / "table.md").read_text(), page):
        assert number in text
        assert "†" not in text


def test_the_same_configuration_gives_the_same_results(config, encoder, tmp_path) -> None:
    # A solver that runs out of time may find less on a busy machine, and says so: it is left out here.
    names = ("same molecule", "library search", "analogue search")
    config = replace(config, tasks=names, mces=replace(config.mces, max_queries=0))
    first, second = evaluate(config, tmp_path / "a"), evaluate(config, tmp_path / "b")
    assert first == second
    for name in ("same-molecule.parquet", "library-search.parquet", "analogue-search.parquet", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_data_with_nothing_to_compare_give_a_report_that_says_so(build: SimpleNamespace, config, tmp_path) -> None:
    spectra = [build.spectrum(m, 0, precursor_mz=200 + 10 * m, mz=(50, 60, 70 + m)) for m in range(4)]
    store = build.write_store(tmp_path / "few", spectra)
    build.split_of({0: "test", 1: "test", 2: "train", 3: "train"}).save(tmp_path / "few.json")
    networks = replace(config.trained_baselines, trainings=0)
    few = replace(config, dataset=store, split=tmp_path / "few.json", models={}, trained_baselines=networks)
    tree = evaluate(few, tmp_path / "out")
    unasked = tree["inputs"]["tasks without a query"]
    assert {SAME_MOLECULE, LIBRARY_SEARCH, RETRIEVAL_BY_MASS} <= set(unasked)
    assert LIBRARY_SEARCH in (tmp_path / "out" / "table.md").read_text()
    (random, *_) = tree["tasks"]["analogue search"]["rows"]
    assert random["metrics"]["Tanimoto@1"]["micro"]["low"] is None  # two molecules are too few for an interval


def test_folds_that_share_molecules_are_asked_about_known_molecules(config, encoder, tmp_path) -> None:
    folds = {f"{molecule}-{number}": ("train", "test")[number] for molecule in range(16) for number in range(2)}
    split = Split("random-spectrum", 0, folds, unit="spectrum", shares=("molecules",))
    split.save(tmp_path / "shared.json")
    encoder.config.training = [{"command": "finetune", "split": split.hash, "folds": ["train"]}]
    config = replace(config, split=tmp_path / "shared.json", tasks=(LIBRARY_SEARCH, "analogue search"))
    tree = evaluate(config, tmp_path / "out")
    assert list(tree["tasks"]) == [LIBRARY_SEARCH]
    assert tree["tasks"][LIBRARY_SEARCH]["counts"]["queries"] == 16
    assert "share molecules" in (tmp_path / "out" / "table.md").read_text()
    with pytest.raises(InputError, match="an analogue search asks about molecules that the library does not hold"):
        evaluate(replace(config, tasks=("analogue search",)), tmp_path / "never")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("models={cosine: somewhere}", "label of another row"),
        ("models={'cosine, analogue transfer': somewhere}", "label of another row"),
        ("audits={corpora: {x: nowhere}}", "nowhere: no such file or folder; it is the corpus named 'x'"),
        ("retrieval={pools: [nowhere.smi]}", "nowhere.smi"),
        ("tasks=[library]", "'tasks' holds 'library'; it may hold same molecule"),
        ("tasks=[retrieval from lists]", "'retrieval.lists' names no file"),
        ("tasks=[library search, library search]", "'tasks' holds 'library search' twice"),
        ("models={binned: []}", "'models.binned' names no model"),
        ("models={binned: ''}", "'models.binned' names no model"),
        ("analogue_search={library_fold: trian}", "must be one of train, validation"),
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

    with pytest.raises(InputError, match=message):
        evaluate(
            build_config(EvaluationConfig, {**to_tree(config), key: yaml.safe_load(text)}, "test"), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["analogue_search", "transfer"])
def test_queries_are_not_searched_among_themselves(config, key: str) -> None:
    wrong = replace(getattr(config, key), library_fold="validation")
    with pytest.raises(ValueError, match=f"'{key}.library_fold' is 'validation', the fold of the queries"):
        replace(config, fold="validation", **{key: wrong})


@pytest.mark.parametrize("read", ["dataset", "split", "models", "loss_logs", "cache"])
def test_a_report_never_replaces_what_is_read(config, encoder, tmp_path, read: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("precious")
    config = replace(config, models={"binned": str(model)}, cache=tmp_path / "cache")
    inside = {"models": model, "loss_logs": config.loss_logs["training"].parent}.get(read) or getattr(config, read)
    inside.mkdir(exist_ok=True) if read == "cache" else None
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"is the input itself|holds the input|is a file"):
        evaluate(config, inside, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("change", [{"pools": (Path("nowhere.smi"),)}, {"lists": Path("nowhere.json")}])
def test_missing_candidates_are_told_before_the_long_work(config, encoder, tmp_path, monkeypatch, change) -> None:
    monkeypatch.setattr(run, "load_evaluation_data", lambda *_: pytest.fail("the long work has begun"))
    config = replace(
        config,
        tasks=("retrieval by mass", "retrieval from lists"),
        retrieval=replace(
            config.retrieval,
            **{
                "lists": config.split,
                **change,
            },
        ),
    )
    with pytest.raises(InputError, match=r"nowhere\.\w+: no such file"):
        evaluate(config, tmp_path / "out")


def test_a_taken_label_is_told_before_anything_is_trained(config, encoder, tmp_path, monkeypatch) -> None:
    from ionbed.evaluation.baselines import networks

    monkeypatch.setattr(networks, "trained_entries", lambda *_, **__: pytest.fail("networks are trained"))
    for label in ("DeepSets", "SMILES classifier", "random", "cosine, analogue transfer"):
        with pytest.raises(InputError, match=f"models: '{label}' is the label of another row"):
            evaluate(replace(config, models={label: "somewhere"}), tmp_path / "out")


def test_a_log_that_is_no_log_is_refused(config, encoder, tmp_path) -> None:
    config.loss_logs["training"].write_text("not json\n")
    with pytest.raises(InputError, match="line 1 is not a JSON object"):
        evaluate(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
    config = replace(config, allow_other_split=True, tasks=(LIBRARY_SEARCH, RETRIEVAL_BY_MASS))
    tree = evaluate(config, tmp_path / "out")
    assert tree["inputs"]["models"]["binned"]["exposure"] == UNKNOWN_ORIGIN
    for task in tree["tasks"].values():
        assert {row["label"] for row in task["rows"] if row["exposure"]} <= {"binned", "binned, analogue transfer"}
    written = io.StringIO()
    print_tables(tree, Console(file=written, width=100))
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (written.getvalue(), (tmp_path / "out" / "table.md").read_text(), html.unescape(page)):
        assert "binned †" in text
        assert UNKNOWN_ORIGIN in " ".join(text.split())


def test_a_row_whose_audit_failed_is_void_in_the_results(config, encoder, tmp_path) -> None:
    """The model's record names a stage 'finetune', and the corpus of that name holds the molecules of the queries."""
    audits = replace(config.audits, corpora={"finetune": config.dataset}, control_queries=0)
    networks = replace(config.trained_baselines, trainings=0)
    names, mces = (LIBRARY_SEARCH, RETRIEVAL_BY_MASS), replace(config.mces, max_queries=0)
    evaluate(replace(config, audits=audits, trained_baselines=networks, tasks=names, mces=mces), tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "results.json").read_text())
    for question in tree["tasks"].values():
        void = {row["label"]: row["void"] for row in question["rows"] if row["void"]}
        assert set(void) == {"binned" if question["kind"] == "library" else "binned, analogue transfer"}
        assert all("structures of the queries in a corpus: " in reason for reason in void.values())


def test_one_training_that_may_have_seen_the_queries_is_enough(build, config, encoder, tmp_path, monkeypatch) -> None:
    unknown = build.encoder(peaks_vector)
    config = replace(config, models={"binned": ("first", "second")})
    monkeypatch.setattr(run, "load_models", lambda config: {"binned": [encoder, unknown]})
    with pytest.raises(InputError, match=r"model 'binned' \(second\) may have seen the molecules of the queries"):
        evaluate(config, tmp_path / "out")
