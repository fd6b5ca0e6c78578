"""The job scripts on a real Slurm of two nodes: through requeues to the same weights, and in parts to the same table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ionbed.cli import main

from .conftest import Slurm, read

pytestmark = pytest.mark.slow

TINY = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    "training.steps=120", "training.batch_tokens=400", "training.micro_batch_tokens=200", "training.warmup_steps=2",
    "training.log_every=1", "training.validate_every=60", "training.checkpoint_every=25", "training.threads=1",
)  # fmt: skip


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def logged_steps(output: Path) -> list[int]:
    lines = [line for line in read(output / "log.jsonl").splitlines() if line.endswith("}")]
    return [entry["step"] for entry in map(json.loads, lines) if "loss" in entry]


def pretrain(slurm: Slurm, store: Path, split: Path, output: Path) -> tuple[str, Path]:
    """Submit a pretraining run on both nodes; return the number of the job and its log."""
    log = output.with_suffix(".log")
    words = ["pretrain-tiny", output, *sets(*TINY, f"data.store={store}", f"data.split={split}")]
    return slurm.submit("pretrain.sbatch", *words, options=["--nodes=2"], log=log), log


def assert_same_run(output: Path, expected: Path) -> None:
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (output, expected))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert logged_steps(output) == logged_steps(expected) == list(range(1, 121))


@pytest.fixture(scope="module")
def whole_run(slurm, store, split, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    job, log = pretrain(slurm, store, split, output)
    slurm.wait_until_ended(job, log)
    assert read(log).endswith(f"finished: {output}\n")
    return output


def test_two_nodes_train_together(whole_run):
    manifest = json.loads((whole_run / "manifest.json").read_text())
    assert manifest["processes"] == 2 and manifest["finished"]


def test_a_run_that_is_requeued_in_the_middle_gives_the_same_weights(slurm, store, split, whole_run, tmp_path):
    output = tmp_path / "requeued"
    job, log = pretrain(slurm, store, split, output)
    slurm.wait_for(lambda: len(logged_steps(output)) >= 30, log)
    slurm.run("scontrol", "requeue", job)
    slurm.wait_until_ended(job, log)
    assert slurm.show(job)["Restarts"] == "1"
    assert "resumed from" in read(log)
    assert_same_run(output, whole_run)


def test_a_warning_stops_saves_and_requeues(slurm, store, split, whole_run, tmp_path):
    output = tmp_path / "warned"
    job, log = pretrain(slurm, store, split, output)
    slurm.wait_for(lambda: len(logged_steps(output)) >= 30, log)
    slurm.run("scancel", "--signal=USR1", job)
    slurm.wait_for(lambda: (output / "stopped.json").exists(), log)
    stopped_at = json.loads((output / "stopped.json").read_text())["step"]
    assert 30 <= stopped_at < 120
    slurm.wait_until_ended(job, log)
    assert slurm.show(job)["Restarts"] == "1"
    assert f"unfinished at step-{stopped_at:08d}" in read(log) and f"step-{stopped_at:08d}\n" in read(log)
    assert not (output / "stopped.json").exists()
    assert_same_run(output, whole_run)
