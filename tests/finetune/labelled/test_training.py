"""Training on labels as a whole: frozen, LoRA and full; early stopping, resuming, the model folder, predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import ionbed
from ionbed.artifacts import sha256_of_file
from ionbed.configs.loading import to_tree
from ionbed.errors import InputError
from ionbed.finetune.labelled import lora
from ionbed.finetune.labelled.calibration import Calibration
from ionbed.finetune.labelled.config import EncoderConfig, names_a_task
from ionbed.finetune.labelled.examples import LabelledSpectra
from ionbed.finetune.labelled.model import load_labelled_model
from ionbed.finetune.labelled.predict import predict, prediction_table
from ionbed.finetune.labelled.run import calibrated, fit_head, train_on_labels
from ionbed.finetune.labelled.task import LabelledTask, starting_encoder
from ionbed.pretrain import loop
from ionbed.pretrain.runs import read_runs
from ionbed.pretrain.signals import StopSignal
from ionbed.spectra.split import Split
from ionbed.spectra.store import SHARD_NAME, Store, write_shard

from .conftest import RING

TRAINED = (
    "training.steps=6", "training.warmup_steps=1", "training.validate_every=2", "training.checkpoint_every=3",
    "training.learning_rate=0.003", "init.dropout=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def frozen(configured, tmp_path_factory):
    output = tmp_path_factory.mktemp("frozen") / "run"
    train_on_labels(configured("label-classification", output, *RING))
    return output


@pytest.fixture(scope="module")
def adapted(configured, tmp_path_factory):
    output = tmp_path_factory.mktemp("lora") / "run"
    train_on_labels(configured("label-regression", output, "init.train=lora", *TRAINED))
    return output


def test_a_frozen_encoder_stays_as_it_was_and_the_folder_is_an_encoder(frozen, small_encoder):
    before, after = (load_file(folder / "model.safetensors") for folder in (small_encoder, frozen / "model"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    encoder = ionbed.load_model(frozen / "model")
    assert encoder.model_hash() == ionbed.load_model(small_encoder).model_hash()
    stage = encoder.config.training[-1]
    assert (stage["command"], stage["task"], stage["folds"]) == ("finetune", "classification", ["train"])
    assert stage["split"] == Split.load(frozen / "split.json").hash
    card = (frozen / "model" / "README.md").read_text()
    assert "training on labels (classification)" in card and str(frozen) not in card
    assert "not trained to tell molecules apart" in card


def test_a_fitted_head_is_listed_among_the_runs(frozen):
    (run,) = read_runs([frozen])
    assert (run.state, run.stage, run.steps, run.terms, run.remarks) == ("finished", "finetune", 0, {"labels"}, ())
    assert run.validation > 0 and run.parameters > 1000 and run.config["task"] == "classification"


def test_another_run_does_not_replace_a_fitted_head(frozen, configured):
    before = (frozen / "model" / "head.json").read_text()
    other = configured("label-classification", frozen, "labels.computed=[]", "labels.smarts={acid: 'C(=O)[OH]'}")
    with pytest.raises(InputError, match="holds a model of other values of labels; choose another output"):
        train_on_labels(other, resume="auto")
    with pytest.raises(InputError, match="other values of split"):
        train_on_labels(configured("label-classification", frozen, *RING, "own_split.seed=3"), resume="auto")
    with pytest.raises(InputError, match=r"other values of training\.seed"):
        train_on_labels(configured("label-classification", frozen, *RING, "training.seed=1"), resume="auto")
    assert (frozen / "model" / "head.json").read_text() == before
    train_on_labels(configured("label-classification", frozen, *RING), resume="auto")
    assert (frozen / "model" / "head.json").read_text() == before


def test_spectra_or_an_encoder_that_were_changed_since_are_another_run(configured, tmp_path, store, small_encoder):
    for name, path in (("store", store), ("encoder", small_encoder)):
        shutil.copytree(path, tmp_path / name)
    paths = (f"data.store={tmp_path / 'store'}", f"init.model={tmp_path / 'encoder'}")
    config = configured("label-classification", tmp_path / "run", *RING, *paths)
    train_on_labels(config)
    starting_encoder(EncoderConfig(model=small_encoder, random_weights=True), 5).save_pretrained(tmp_path / "encoder")
    with pytest.raises(InputError, match=r"other values of init\.model \(its weights\)"):
        train_on_labels(config, resume="auto")
    table = Store(store).table()
    shifted = table.set_column(1, table.schema.field(1), pc.add(table["precursor_mz"], 1e-6))
    write_shard(shifted[:80], tmp_path / "store" / SHARD_NAME.format(0))
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    manifest["shards"][0]["sha256"] = sha256_of_file(tmp_path / "store" / SHARD_NAME.format(0))
    (tmp_path / "store" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"other values of data\.store \(its spectra\)"):
        train_on_labels(config, resume="auto")


def test_a_fusion_that_was_fitted_for_the_weights_stays_while_they_do(configured, tmp_path, small_encoder):
    encoder = ionbed.load_model(small_encoder)
    encoder.config.fusion = {"fitted": "for these weights"}
    encoder.save_pretrained(tmp_path / "fused")
    for train in ("frozen", "full"):
        config = configured("label-classification", tmp_path / train, *RING, *TRAINED, f"init.train={train}",
                            f"init.model={tmp_path / 'fused'}", "training.steps=2")  # fmt: skip
        found = ionbed.load_model(train_on_labels(config)).config.fusion
        assert found == ({"fitted": "for these weights"} if train == "frozen" else None)
    random = starting_encoder(EncoderConfig(model=tmp_path / "fused", random_weights=True), 0)
    assert random.config.fusion is None


def test_a_signal_ends_a_run_that_has_no_steps(configured, tmp_path):
    stop, config = StopSignal(), configured("label-classification", tmp_path / "run", *RING)
    stop.requested = True
    with pytest.raises(KeyboardInterrupt):
        train_on_labels(config, stop=stop)
    assert not (tmp_path / "run" / "model").exists()
    assert (train_on_labels(config, resume="auto") / "head.json").is_file()


def test_a_head_says_the_same_after_it_was_saved(frozen, store):
    model = load_labelled_model(frozen / "model")
    assert model.names == ("no benzene", "benzene") and model.calibration.kind == "platt"
    assert model.about["fitted"]["molecules"] >= 5
    split, table = Split.load(frozen / "split.json"), Store(store).table()
    train = split.rows_in(table, ["train"])
    found = model.predict(Store(store).spectra(train))
    has_ring = np.array(["c1" in table["smiles"][row].as_py() for row in train.tolist()])
    # what it was fitted on it should mostly know: the spectra are made up, but of peaks of their own
    assert (found.values.argmax(axis=1) == has_ring).mean() > 0.7
    assert found.values.sum(axis=1) == pytest.approx(np.ones(len(train)))


def test_lora_changes_the_matrices_it_is_to_change_and_is_merged(adapted, small_encoder):
    before, after = (load_file(folder / "model.safetensors") for folder in (small_encoder, adapted / "model"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed == {f"layers.{layer}.{name}.weight" for layer in range(2) for name in lora.LAYERS}
    for name in changed:  # of low rank
        assert torch.linalg.matrix_rank(after[name] - before[name], tol=1e-4) <= 8


def test_numbers_come_back_in_their_own_units_with_a_range(adapted, store):
    model = load_labelled_model(adapted / "model")
    found = model.predict(Store(store).spectra(np.arange(12)))
    assert found.names == ("logp", "tpsa")
    assert 20 < found.values[:, 1].mean() < 90  # A^2
    assert np.isfinite(found.half_width).all() or np.isinf(found.half_width).all()


@pytest.mark.parametrize("votes", ["molecule", "spectrum"])
def test_ranges_need_molecules_not_spectra(configured, tmp_path, votes):
    config = configured("label-regression", tmp_path / "run", f"head.votes={votes}")
    spectra = LabelledSpectra(config, tmp_path / "columns", quiet=True)
    encoder = starting_encoder(config.init, 0)
    head = fit_head(config, spectra, encoder)
    molecules = len(np.unique(spectra.molecule[spectra.validation_rows_all]))
    most = molecules / (molecules + 1)  # that so many can promise; their spectra, if each were another, could more
    for interval, is_told in ((most + 0.01, False), (most - 0.01, True)):
        model = calibrated(replace(config, head=replace(config.head, interval=interval)), spectra, encoder, head)
        assert (np.isfinite(model.half_width) == is_told).all()


def test_full_training_learns_more_than_a_head_alone(configured, tmp_path):
    changes = ("steps=60", "validate_every=60", "checkpoint_every=60", "learning_rate=0.01")
    config = configured("label-multilabel", tmp_path / "run", *RING, *TRAINED, "init.train=full", "init.dropout=0",
                        *(f"training.{change}" for change in changes))  # fmt: skip
    train_on_labels(config)
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["labels"] for entry in entries if "labels" in entry]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    assert ionbed.load_model(tmp_path / "run" / "model").config.training[-1]["steps"] == 60


def test_early_stopping_keeps_the_best_weights(configured, tmp_path, monkeypatch):
    """The validation loss is told: best at step 4, then worse twice."""
    told = iter([1.0, 0.5, 0.7, 0.6, 0.1])
    kept = []

    def validate(task, config, accelerator):
        kept.append(task.module.weight.detach().clone())
        return {"labels": (loss := next(told)), "loss": loss}

    monkeypatch.setattr(loop, "validate", validate)
    config = configured("label-classification", tmp_path / "run", *RING, *TRAINED, "init.train=full",
                        "training.steps=20", "head.patience=2")  # fmt: skip
    train_on_labels(config)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["steps"], manifest["best_step"], manifest["finished"]) == (8, 4, True)
    head = load_labelled_model(tmp_path / "run" / "model").head
    assert np.array_equal(head.weight, kept[1].numpy()) and not np.array_equal(head.weight, kept[2].numpy())
    again = train_on_labels(config, resume="auto")  # it is done, though 20 steps were allowed
    assert (
        json.loads((tmp_path / "run" / "manifest.json").read_text())["steps"] == 8 and (again / "head.json").is_file()
    )


def test_stopped_and_resumed_equals_uninterrupted(configured, tmp_path, killed_after_checkpoint):
    words = ("label-classification", *RING, *TRAINED, "init.train=lora", "init.lora_dropout=0.1", "head.patience=3")
    name, *changes = words
    whole, stopped = (configured(name, tmp_path / folder, *changes) for folder in ("whole", "stopped"))
    train_on_labels(whole)
    with killed_after_checkpoint():
        train_on_labels(stopped)
    assert not (tmp_path / "stopped" / "model").exists()
    train_on_labels(stopped, resume="auto")
    for file in ("model.safetensors", "head.safetensors"):
        mine, theirs = (load_file(tmp_path / folder / "model" / file) for folder in ("whole", "stopped"))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs), file
    other = configured(name, tmp_path / "stopped", *changes, "labels.smarts={acid: 'C(=O)[OH]'}")
    (tmp_path / "stopped" / "manifest.json").unlink()
    with pytest.raises(InputError, match="was made with other values of labels"):
        train_on_labels(other, resume="auto")


def test_the_best_weights_survive_a_kill(configured, tmp_path, monkeypatch):
    """Best at step 2, killed after the checkpoint of step 3, and worse ever after: patience counts from step 2."""
    told, kept = iter([0.1, 0.5, 0.6, 0.7, 0.8]), []

    def validate(task, config, accelerator):
        kept.append(task.module.weight.detach().clone())
        return {"labels": (loss := next(told)), "loss": loss}

    def save_then_die(*arguments, **options):
        saved(*arguments, **options)
        raise KeyboardInterrupt

    saved = loop.save_checkpoint
    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(loop, "save_checkpoint", save_then_die)
    config = configured("label-classification", tmp_path / "run", *RING, *TRAINED, "init.train=full",
                        "training.steps=20", "head.patience=3")  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train_on_labels(config)
    monkeypatch.setattr(loop, "save_checkpoint", saved)
    train_on_labels(config, resume="auto")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["steps"], manifest["best_step"]) == (8, 2)
    assert np.array_equal(load_labelled_model(tmp_path / "run" / "model").head.weight, kept[0].numpy())


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_batch_and_its_weights(configured, tmp_path, processes):
    config = configured("label-classification", tmp_path / "run", *RING, *TRAINED, "init.train=full", "init.dropout=0")
    spectra = LabelledSpectra(config, tmp_path / "columns")
    encoder = starting_encoder(config.init, 0)
    task = LabelledTask(config, spectra, encoder, fit_head(config, spectra, encoder))
    rows = task.epoch_batches(0)[0]

    def total(of: int) -> tuple[float, float]:
        batches = [batch for process in range(of) for batch in task.micro_batches(rows, 0, process, of)]
        losses = [float(task.module(batch)["labels"].detach()) for batch in batches]
        return sum(losses), sum(task.counts(batch)["labels"] for batch in batches)

    assert total(processes) == pytest.approx(total(1), rel=1e-4)
    assert total(1)[1] == pytest.approx(spectra.weight[rows].sum(), rel=1e-5)
    last = task.micro_batches(rows[:1], 0, 1, 2)[0]  # without a spectrum
    assert len(last) == 0 and float(task.module(last)["labels"].detach()) == 0 and task.counts(last)["labels"] == 0
    held_out = task.validation_batches()[0]
    first, again = (task.micro_batches(held_out, epoch, 0, 1)[0].spectra.mz_BL for epoch in (0, 1))
    assert torch.equal(first, again)  # not augmented
    first, again = (task.micro_batches(rows, epoch, 0, 1)[0].spectra.mz_BL for epoch in (0, 1))
    assert first.shape != again.shape or not torch.equal(first, again)


@pytest.mark.parametrize("measurement", [True, False])
def test_the_objective_scores_as_the_saved_head_does(configured, tmp_path, measurement):
    config = configured("label-classification", tmp_path / "run", *RING, "init.train=full",
                        f"head.measurement={str(measurement).lower()}")  # fmt: skip
    spectra = LabelledSpectra(config, tmp_path / "columns")
    encoder = starting_encoder(config.init, 0)
    task = LabelledTask(config, spectra, encoder, fit_head(config, spectra, encoder))
    model = calibrated(config, spectra, encoder.eval(), task.module.fitted_head())
    encoder.save_pretrained(tmp_path / "model")
    model.save_head(tmp_path / "model")
    rows = spectra.validation_rows_all
    found = load_labelled_model(tmp_path / "model").predict(spectra.columns(rows))
    assert model.head.weight.shape == (2, 16 + (261 if measurement else 0))
    label = spectra.labels.values[rows, 0].astype(int)
    log_p = found.scores - np.log(np.exp(found.scores).sum(axis=1, keepdims=True))
    expected = -(log_p[np.arange(len(rows)), label] * spectra.weight[rows]).sum()
    batches = [batch for held_out in task.validation_batches() for batch in task.micro_batches(held_out, 0, 0, 1)]
    with torch.no_grad():
        assert sum(float(task.module.eval()(batch)["labels"]) for batch in batches) == pytest.approx(expected, rel=1e-3)


def test_two_processes_train_what_one_does(configured, overrides, tmp_path, torchrun):
    """LoRA, by gloo: gathered losses, one adapter, one head, one split and one model folder."""
    changes = (*RING, *TRAINED, "init.train=lora", "init.dropout=0")
    train_on_labels(configured("label-classification", tmp_path / "one", *changes))
    sets = [word for item in overrides(tmp_path / "two", *changes) for word in ("--set", item)]
    done = torchrun("-m", "ionbed", "finetune", "label-classification", *sets)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2
    for file in ("model.safetensors", "head.safetensors"):
        mine, theirs = (load_file(tmp_path / folder / "model" / file) for folder in ("one", "two"))
        assert mine.keys() == theirs.keys()
        assert all(torch.allclose(mine[key], theirs[key], atol=1e-5) for key in mine), file


def test_what_encoder_training_starts_from(configured, tmp_path, small_encoder):
    config = configured("label-classification", tmp_path / "run").init
    source = ionbed.load_model(small_encoder)
    assert starting_encoder(config, 0).model_hash() == source.model_hash()
    for kind in ("frozen", "lora"):  # it would be asked what it was never taught
        with pytest.raises(InputError, match=r"trained with full, and init.train .* set init.train to full"):
            starting_encoder(replace(config, train=kind, precursor="hidden"), 0)
    assert starting_encoder(replace(config, precursor="full"), 0).model_hash() == source.model_hash()
    full = starting_encoder(replace(config, train="full", dropout=0.2, precursor="hidden"), 0)
    assert (full.config.dropout, full.config.precursor, full.config.molecule_tower) == (0.2, "hidden", 0)
    assert torch.equal(full.layers[0].qkv.weight, source.layers[0].qkv.weight)
    random = [starting_encoder(replace(config, random_weights=True), seed) for seed in (0, 0, 1)]
    assert random[0].model_hash() == random[1].model_hash() != random[2].model_hash()
    assert random[0].config.training == [] and random[0].config.hidden_size == 32


def test_a_head_of_inverse_frequencies_decides_before_calibration(configured, tmp_path, store):
    config = configured("label-classification", tmp_path / "run", *RING, "head.imbalance=inverse-frequency")
    train_on_labels(config)
    trained = load_labelled_model(tmp_path / "run" / "model")
    assert trained.balanced
    rare = Calibration("platt", np.ones(2), np.array([50.0, 0.0]))  # as where the second class is very rare
    model, spectra = replace(trained, calibration=rare), Store(store).spectra()
    found, other = model.predict(spectra), replace(model, balanced=False).predict(spectra)
    assert (found.chosen == found.scores.argmax(axis=1)).all() and 0 < found.chosen.sum() < 144
    assert (other.chosen == 0).all()
    table = prediction_table([s.spectrum_id for s in spectra], found)
    assert (np.array(table["predicted"].to_pylist()) == np.array(model.names)[found.chosen]).all()
    assert table["probability"].to_numpy() == pytest.approx(found.values[np.arange(144), found.chosen])


def test_predictions_as_tables(frozen, adapted, store, tmp_path):
    assert predict(frozen / "model", store, tmp_path / "p.tsv") == 144
    lines = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()]
    assert lines[0] == ["spectrum_id", "predicted", "probability", "p: no benzene", "p: benzene"]
    assert len(lines) == 145 and lines[1][0] == "S00-0"
    values = np.array([[float(cell) for cell in line[2:]] for line in lines[1:]])
    assert values[:, 1:].sum(axis=1) == pytest.approx(np.ones(144), abs=1e-4)
    assert values[:, 0] == pytest.approx(values[:, 1:].max(axis=1))
    predict(adapted / "model", store, tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert {"spectrum_id", "logp", "tpsa"} <= set(table.column_names) and len(table) == 144
    expected = load_labelled_model(adapted / "model").predict(Store(store).spectra(np.arange(3))).values
    assert table["logp"].to_numpy()[:3] == pytest.approx(expected[:, 0], abs=1e-4)


def test_records_without_a_prediction_are_counted(frozen, tmp_path, caplog):
    peaks = "".join(f"{60 + 7 * n}.1 {n + 1}\n" for n in range(9))
    records = ("TITLE=a\nPEPMASS=200.1\n" + peaks, "TITLE=no precursor\n" + peaks, "PEPMASS=210.1\n")
    (tmp_path / "x.mgf").write_text("".join(f"BEGIN IONS\n{record}END IONS\n\n" for record in records))
    with caplog.at_level("WARNING", "ionbed"):
        assert predict(frozen / "model", tmp_path / "x.mgf", tmp_path / "p.tsv") == 1
    assert "2 of 3 records have no prediction: 1 " in caplog.text
    assert len((tmp_path / "p.tsv").read_text().splitlines()) == 2


def test_what_cannot_predict_is_refused(frozen, small_encoder, store, tmp_path):
    def refused(model, message, out="p.tsv"):
        with pytest.raises(InputError, match=message) as caught:
            predict(model, store, tmp_path / out)
        assert "\n" not in str(caught.value) and not (tmp_path / out).exists()

    refused(small_encoder, "is an encoder without a head")
    refused(frozen / "model", "ends in .tsv or .parquet", "p.csv")
    changed = tmp_path / "changed"
    shutil.copytree(frozen / "model", changed)
    other = starting_encoder(EncoderConfig(model=small_encoder, random_weights=True), 5)
    other.save_pretrained(changed)
    refused(changed, "its head was trained with the encoder")
    for name, text in (("head.json", "{}"), ("head.json", "no JSON"), ("head.safetensors", "damaged")):
        damaged = tmp_path / f"damaged {len(text)} {name}"
        shutil.copytree(frozen / "model", damaged)
        (damaged / name).write_text(text)
        refused(damaged, "is damaged")


def test_lora_without_peft_is_one_line(configured, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match=r"needs peft; run pip install 'ionbed\[lora\]'"):
        train_on_labels(configured("label-regression", tmp_path / "run", "init.train=lora"))
    assert not (tmp_path / "run").exists()


def test_a_refused_run_leaves_nothing_behind(configured, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        train_on_labels(configured("label-regression", tmp_path / "run", "labels.computed=[]", "labels.file=x.csv"))
    assert not (tmp_path / "run").exists()


def test_the_task_of_a_configuration(configured, tmp_path):
    assert names_a_task("label-regression") and not names_a_task("finetune-tiny")
    assert names_a_task("finetune-tiny", ["task=regression"])
    assert to_tree(configured("label-regression", tmp_path))["task"] == "regression"
