"""The report of a model of labels: figures that can be made again from its own files, beside chance and baselines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ionbed import cli
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.errors import InputError
from ionbed.evaluation.labelled.run import _differences, write_report
from ionbed.evaluation.labelled.words import sentences, warnings
from ionbed.evaluation.probe.scores import Scored
from ionbed.evaluation.statistics import Measured
from ionbed.finetune.labelled.losses import vote_weights
from ionbed.finetune.labelled.own_split import PRECURSOR_GROUPS
from ionbed.spectra.store import Store

SMALL = (
    "labels.min_molecules=2", "own_split.test=0.3", "own_split.validation=0.3", "training.threads=1",
    "report.resamples=100", "init.random_weights=true", "labels.computed=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "model"
    config = IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, num_mz_wavelengths=16, embedding_dim=8)
    config.training = [{"command": "pretrain", "split": None, "folds": []}]
    IonbedModel(config).save_pretrained(folder)
    return folder


def run(store: Path, encoder: Path, output: Path, name: str, *changes: str) -> int:
    paths = (f"data.store={store}", f"output={output}", f"init.model={encoder}")
    words = [word for change in (*SMALL, *paths, *changes) for word in ("--set", change)]
    return cli.main(["finetune", name, *words])


@pytest.fixture(scope="module")
def classified(store, small_encoder, tmp_path_factory) -> Path:
    """A run on classes from a table of the user's, whose encoder is frozen, and not random but as it is loaded."""
    folder = tmp_path_factory.mktemp("classified")
    rows = [f"{name},{'heavy' if mz > 165 else 'light'}" for name, mz in named_precursors(store)]
    (folder / "labels.csv").write_text("\n".join(["spectrum_id,weight", *rows, "X1,light"]), encoding="utf-8")
    changes = (f"labels.file={folder / 'labels.csv'}", "init.random_weights=false")
    assert run(store, small_encoder, folder / "run", "label-classification", *changes) == 0
    return folder / "run"


def named_precursors(store: Path) -> list[tuple[str, float]]:
    table = Store(store).table(["spectrum_id", "precursor_mz"])
    return list(zip(table["spectrum_id"].to_pylist(), table["precursor_mz"].to_pylist(), strict=True))


def results(output: Path) -> dict:
    return json.loads((output / "report" / "results.json").read_text())


def test_the_report_stands_beside_the_model(classified):
    assert {path.name for path in (classified / "report").iterdir()} == {
        "results.json", "table.md", "report.html", "predictions.parquet", "manifest.json",
    }  # fmt: skip
    assert not (classified / "columns").exists()
    tree = results(classified)
    assert [row["label"] for row in tree["rows"]] == ["no spectrum", "precursor only", "binned peaks", "model"]
    assert tree["main"] == "ROC AUC" and tree["labels"] == ["heavy", "light"]
    assert tree["label counts"]["rows that match no spectrum"] == 1
    assert all(of["spectra"] == 6 * of["molecules"] > 0 for of in tree["counts"].values())
    chance, precursor = (row["metrics"]["ROC AUC"]["value"] for row in tree["rows"][:2])
    assert chance == pytest.approx(0.5) and precursor > 0.9  # the question is about the precursor
    assert "held out no molecules" in tree["exposure"]
    page = (classified / "report" / "report.html").read_text()
    for words in ("Reliability", "Confusions", "precursor only", "may have seen", "X1"):
        assert words in page
    assert page.count("<svg") == 2 and "http" not in page.replace("http://www.w3.org", "")
    assert "## The model against the baselines" in (classified / "report" / "table.md").read_text()


def test_figures_follow_from_the_predictions_that_are_written(classified):
    table = pq.read_table(classified / "report" / "predictions.parquet")
    tree = results(classified)
    truth = np.array([text == "light" for text in table["truth"].to_pylist()])
    molecule = np.array([name.split("-")[0] for name in table["spectrum_id"].to_pylist()])
    vote = vote_weights(np.unique(molecule, return_inverse=True)[1], "molecule")
    value = roc_auc_score(truth, table["p: light"].to_numpy().round(6), sample_weight=vote)
    assert tree["rows"][-1]["metrics"]["ROC AUC"]["value"] == pytest.approx(value)
    assert len(table) == tree["counts"]["test"]["spectra"]


def test_sentences_say_the_verdict_and_the_calibration(classified):
    first, second = sentences(results(classified))
    assert first.startswith("ROC AUC ") and "held-out spectra of" in first and "the model " in first
    assert second.startswith("Expected calibration error") and "(platt)" in second


def test_a_share_of_the_training_molecules_is_said(classified):
    tree = results(classified)
    tree["config"]["data"] |= {"molecules_share": 0.25, "molecules_seed": 7}
    said = sentences(tree)[-1]
    assert f"trained on {tree['counts']['train']['molecules']} molecules" in said and "share of 0.25 (seed 7)" in said


def test_labels_that_cannot_be_asked_are_said_and_no_error(store, small_encoder, tmp_path, capsys):
    """Every held-out molecule is of phenyl, and of no other answer."""
    few = ("own_split.test=0.05", "own_split.validation=0.1", "own_split.seed=0", "labels.smarts={ring: 'c1ccccc1'}")
    assert run(store, small_encoder, tmp_path / "run", "label-multilabel", *few, "report.max_train_spectra=100") == 0
    tree, said = results(tmp_path / "run"), " ".join(capsys.readouterr().err.split())
    assert tree["not asked"] == ["ring"] and tree["rows"][-1]["metrics"]["ROC AUC"]["value"] is None
    assert tree["rows"][-1]["metrics"]["Brier score"]["value"] is not None
    assert "ROC AUC cannot be computed on 18 held-out spectra of 3 molecules: their answers are all alike." in said
    assert "Not asked, since the test fold does not have both answers: ring" in said
    assert tree["fitted"]["baselines"] == 100 < tree["fitted"]["model"]
    assert (
        "baselines were fitted on 100 training spectra, drawn at random, the model on" in said
        and "Fewer than 30 molecules are held out" in said
    )


def test_a_split_that_parts_molecules_is_told(classified):
    tree = results(classified)
    assert (tree["split"], tree["test molecules trained on"]) == ("inchikey-block", 0)
    said = " ".join(warnings(tree))
    assert "keep molecules apart" not in said and "by precursor" not in said
    said = " ".join(warnings({**tree, "split": PRECURSOR_GROUPS, "test molecules trained on": 3}))
    molecules = tree["counts"]["test"]["molecules"]
    assert f"3 of the {molecules} held-out ones are trained on" in said and "as two adducts" in said


def test_a_lower_brier_score_is_better():
    rng = np.random.default_rng(0)

    def scored(value: float) -> Scored:
        metrics = {name: Measured(value, value + rng.normal(0, 0.001, 200), 50) for name in ("ROC AUC", "Brier score")}
        return Scored(metrics, {})

    found = {of["metric"]: of["verdict"] for of in _differences({"no spectrum": scored(0.5), "model": scored(0.2)})}
    assert found == {"ROC AUC": "loses", "Brier score": "beats"}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("label-regression", ("labels.computed=[tpsa]",)),
        ("label-multilabel", ("labels.smarts={ring: 'c1ccccc1', acid: 'C(=O)[OH]'}", "head.calibration=isotonic")),
    ],
)
def test_reports_of_the_other_tasks(store, small_encoder, tmp_path, name, changes):
    assert run(store, small_encoder, tmp_path / "run", name, *changes) == 0
    tree = results(tmp_path / "run")
    table = pq.read_table(tmp_path / "run" / "report" / "predictions.parquet")
    if name == "label-regression":
        assert tree["metrics"] == ["R2", "mean absolute error"] and set(tree["ranges"]) == {"tpsa"}
        assert "truth: tpsa" in table.column_names and "calibration" not in tree
    else:
        assert tree["metrics"] == ["ROC AUC", "average precision", "Brier score"]
        assert {"before", "after"} == set(tree["calibration"]) and "p: ring" in table.column_names
    assert (tmp_path / "run" / "report" / "report.html").read_text().count("<svg") == 1


def test_labels_that_have_changed_since_are_refused(classified):
    path = classified.parent / "labels.csv"
    before = path.read_text()
    first, *others = before.splitlines()[1:]
    changed = f"{first.split(',')[0]},{'light' if first.endswith('heavy') else 'heavy'}"
    path.write_text("\n".join(["spectrum_id,weight", changed, *others]))
    try:
        with pytest.raises(InputError, match="its labels have changed since it was trained"):
            write_report(classified)
    finally:
        path.write_text(before)
    assert not (classified / "columns").exists()


def test_predict_from_the_command_line(classified, store, tmp_path, capsys):
    capsys.readouterr()
    assert cli.main(["predict", str(classified / "model"), str(store), "--out", str(tmp_path / "p.tsv")]) == 0
    assert (tmp_path / "p.tsv").read_text().startswith("spectrum_id\tpredicted\tprobability\tp: heavy\tp: light\n")
    assert cli.main(["predict", str(classified), str(store), "--out", str(tmp_path / "q.tsv")]) == 2
    assert "is not a model folder" in capsys.readouterr().err.splitlines()[-1]
