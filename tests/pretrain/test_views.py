"""Two views of one spectrum: what differs between them, what they are contrasted with, and that it is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ionbed.configs.loading import load_config
from ionbed.pretrain.augmentation import jitter_intensities
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.data import TrainingSpectra
from ionbed.pretrain.run import pretrain
from ionbed.pretrain.task import MaskedPeakTask
from ionbed.pretrain.views import ViewBatch, Views
from ionbed.spectra.split import Split

SMALL = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    "training.steps=6", "training.batch_tokens=1200", "training.micro_batch_tokens=600", "training.warmup_steps=1",
    "training.log_every=1", "training.validate_every=3", "training.checkpoint_every=2", "training.threads=1",
    "model.max_peaks=24", "objectives.group_spectra=8", "objectives.views=0.5",
)  # fmt: skip


@pytest.fixture
def make_task(store, split, tmp_path):
    def make(*changes: str) -> MaskedPeakTask:
        config = config_for(store, split, tmp_path / "run", *changes)
        return MaskedPeakTask(config, TrainingSpectra(config.data, tmp_path / "columns"))

    return make


def config_for(store: Path, split: Path, output: Path, *changes: str) -> PretrainConfig:
    sets = [*SMALL, f"data.store={store}", f"data.split={split}", f"output={output}", *changes]
    return load_config(PretrainConfig, "pretrain-tiny", sets)


def view_batches(task: MaskedPeakTask, epoch: int = 0, process: int = 0, processes: int = 1) -> list[ViewBatch]:
    rows = task.epoch_batches(epoch)[0]
    return [b for b in task.micro_batches(rows, epoch, process, processes) if isinstance(b, ViewBatch)]


def test_views_are_beside_each_other_and_differ(make_task):
    task = make_task()
    batches = view_batches(task)
    assert batches
    differing = 0
    for batch in batches:
        spectra = batch.spectra
        assert len(batch) % 2 == 0 and batch.positive_NN.sum() == len(batch)
        pairs = batch.positive_NN.nonzero()
        assert all(abs(int(a) - int(b)) == 1 and int(a) // 2 == int(b) // 2 for a, b in pairs)
        assert torch.equal(spectra.mz_BL[::2, 0], spectra.mz_BL[1::2, 0])  # of one precursor
        differing += int((spectra.intensity_BL[::2] != spectra.intensity_BL[1::2]).any(1).sum())
        assert not (batch.negative_NN & batch.positive_NN).any()
        assert batch.negative_NN.any(1).all()
        polarity = spectra.polarity_B  # one of two views may not show it
        known = (polarity[:, None] > 0) & (polarity > 0)
        assert (polarity[:, None] == polarity)[batch.negative_NN & known].all()
    assert differing > 0.9 * sum(len(batch) // 2 for batch in batches)


def test_what_is_of_one_precursor_is_no_contrast():
    precursor = np.array([300.0, 300.001, 310.0, 320.0, 300.0])
    polarity = np.array([1, 1, 1, 1, -1])
    config = load_config(PretrainConfig, "pretrain-tiny", [*SMALL, "data.store=x", "output=y"]).objectives
    views = Views(np.arange(5), precursor, polarity, np.full(5, 9), config)
    rows = [0, 0, 1, 1, 2, 2, 4, 4]
    batch = views.batch([np.array(rows), np.array([3, 3])], spectra=None)
    for i, a in enumerate([*rows, 3, 3]):
        for j, b in enumerate([*rows, 3, 3]):
            in_group = (i < 8) == (j < 8)
            assert bool(batch.positive_NN[i, j]) == (a == b and i != j)
            apart = abs(precursor[a] - precursor[b]) > 1
            assert bool(batch.negative_NN[i, j]) == (in_group and apart and polarity[a] == polarity[b])
    drawn = [views.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert all(len({polarity[row] for row in group}) == 1 for group in drawn)
    assert all(not {0, 1} <= set(group.tolist()) for group in drawn)
    assert {row for group in drawn for row in group} == {0, 1, 2, 3}  # the only one of its polarity has no other


def test_views_do_not_depend_on_the_processes(make_task):
    task = make_task()
    every = [view_batches(task)] + [[b for p in range(n) for b in view_batches(task, 0, p, n)] for n in (2, 3)]
    masses = [sorted(float(mz) for b in batches for mz in b.spectra.mz_BL[:, 0]) for batches in every]
    peaks = [sorted(float(v) for b in batches for v in b.spectra.intensity_BL.sum(1)) for batches in every]
    assert masses[0] == masses[1] == masses[2]
    assert peaks[0] == pytest.approx(peaks[1]) and peaks[0] == pytest.approx(peaks[2])
    assert masses[0] != sorted(float(mz) for b in view_batches(task, 1) for mz in b.spectra.mz_BL[:, 0])


def test_only_the_folds_of_training_are_seen_and_validation_has_its_own(make_task, store, split):
    task = make_task()
    assert task.group_objectives is not None
    table, made = task.spectra, Split.load(split)
    fold = {name: set(rows.tolist()) for name, rows in
            (("train", table.rows), ("validation", table.validation_rows))}  # fmt: skip
    assert made.hash and fold["train"] and fold["validation"]
    drawn = {int(row) for seed in range(300) for row in task.group_objectives.sources["views"].draw(
        np.random.default_rng(seed))}  # fmt: skip
    assert drawn <= fold["train"] and len(drawn) > 0.5 * len(fold["train"])
    rows = task.validation_batches()[0]
    batches = [b for b in task.micro_batches(rows, 0, 0, 1) if isinstance(b, ViewBatch)]
    masses = {round(float(mz), 6) for b in batches for mz in b.spectra.mz_BL[:, 0]}
    assert masses and masses <= {round(float(table.precursor_mz[row]), 6) for row in fold["validation"]}


def test_intensities_change_together_and_keep_the_base_peak(make_task):
    columns = make_task().spectra.columns(np.arange(40))
    draws = np.arange(40)
    changed = jitter_intensities(columns, draws, 0.5, 0, 0)
    spectrum, _ = columns.peak_places()
    inside = (columns.intensity > 0) & (columns.intensity < 1)
    power = np.log(changed.intensity[inside]) / np.log(columns.intensity[inside])
    assert np.exp(-0.5) <= power.min() < 0.75 and 1.3 < power.max() <= np.exp(0.5) + 1e-4
    for row in np.unique(spectrum[inside]):
        own = power[spectrum[inside] == row]
        np.testing.assert_allclose(own, own[0], rtol=1e-3)
    assert (changed.intensity[columns.intensity == 1] == 1).all()
    again = jitter_intensities(columns.take(draws[::-1]), draws[::-1], 0.5, 0, 0)
    np.testing.assert_array_equal(again.take(draws[::-1]).intensity, changed.intensity)


def test_views_bring_spectra_apart_that_were_not_seen(store, split, tmp_path):
    """After training, the views of a spectrum of the validation fold are far more alike than those of others."""
    output = tmp_path / "run"
    pretrain(
        config_for(
            store,
            split,
            output,
            "training.steps=80",
            "objectives.share=0.5",
            "objectives.views=1",
            "training.learning_rate=0.003",
            "training.checkpoint_every=80",
            "training.validate_every=10",
        )
    )
    entries = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [e["validation_views"] for e in entries if "validation_views" in e]
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_with_views_resumes_to_the_same_bits(store, split, tmp_path, killed_after_checkpoint):
    from safetensors.torch import load_file

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    pretrain(config_for(store, split, whole))
    with killed_after_checkpoint():
        pretrain(config_for(store, split, stopped))
    pretrain(config_for(store, split, stopped), resume="auto")
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (stopped, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_view_does_not_show_a_hidden_precursor(make_task):
    task = make_task("objectives.hide_precursor=1")
    for batch in view_batches(task):
        spectra = batch.spectra
        assert spectra.hidden_mz_BL is not None and spectra.hidden_mz_BL[:, 0].all()
        mz = spectra.mz_BL.clone()
        mz[:, 0] += 50
        with torch.no_grad():
            one, other = (task.encoder.eval().embed_batch(b) for b in (spectra, replace(spectra, mz_BL=mz)))
        assert torch.equal(one, other)
