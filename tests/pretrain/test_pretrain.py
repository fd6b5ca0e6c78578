"""Pretraining as a whole: it learns, it resumes exactly after any kill, and two processes do what one does."""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ionbed
from ionbed.configs.loading import config_text, load_config, shipped_configs, to_tree
from ionbed.finetune.config import FinetuneConfig
from ionbed.pretrain import loop
from ionbed.pretrain.checkpoints import (
    Checkpoint,
    choose_checkpoint,
    forget_later_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from ionbed.pretrain.config import ModelConfig, PretrainConfig, TrainingConfig
from ionbed.pretrain.data import TrainingSpectra
from ionbed.pretrain.optimisation import learning_rate
from ionbed.pretrain.run import MaskedPeakTask, pretrain
from ionbed.spectra.split import Split

SMALL = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    "training.steps=12", "training.batch_tokens=400", "training.micro_batch_tokens=200", "training.warmup_steps=2",
    "training.log_every=1", "training.validate_every=6", "training.checkpoint_every=3", "training.threads=1",
)  # fmt: skip


def config_for(store: Path, split: Path, output: Path, *changes: str) -> PretrainConfig:
    return load_config(PretrainConfig, "pretrain-tiny", overrides(store, split, output, *changes))


def overrides(store: Path, split: Path, output: Path, *changes: str) -> list[str]:
    return [*SMALL, f"data.store={store}", f"data.split={split}", f"output={output}", *changes]


def words_for(store: Path, split: Path, output: Path, *changes: str) -> list[str]:
    sets = [word for item in overrides(store, split, output, *changes) for word in ("--set", item)]
    return ["-m", "ionbed", "pretrain", "pretrain-tiny", *sets]


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def whole_run(store, split, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(config_for(store, split, output))
    return output


def assert_same_run(output: Path, expected: Path) -> None:
    mine, theirs = weights_of(output), weights_of(expected)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    steps = [entry["step"] for entry in log_of(output) if "loss" in entry]
    assert steps == list(range(1, 13))
    losses = [[entry["loss"] for entry in log_of(run) if "loss" in entry] for run in (output, expected)]
    assert losses[0] == losses[1]


def test_a_run_leaves_a_model_a_log_and_a_manifest(whole_run, store, split):
    model = ionbed.load_model(whole_run / "model")
    manifest = json.loads((whole_run / "manifest.json").read_text())
    assert manifest["command"] == "pretrain"
    assert manifest["model_hash"] == model.model_hash()
    assert manifest["steps"] == 12 and manifest["finished"]
    assert 0 < manifest["training"]["molecules"] < 24  # the other folds are held out
    assert model.config.training == [manifest["training"]]
    assert manifest["training"]["split"] == Split.load(split).hash
    log = log_of(whole_run)
    assert {"step", "loss", "mz_bin", "mz_offset", "intensity", "tokens_per_second", "data_wait_share"} <= log[0].keys()
    assert [entry["step"] for entry in log if "validation_loss" in entry] == [6, 12]
    assert sorted(p.name for p in (whole_run / "checkpoints").glob("step-*")) == ["step-00000009", "step-00000012"]


def test_the_loss_falls(store, split, tmp_path):
    config = config_for(store, split, tmp_path / "run", "training.steps=120", "training.checkpoint_every=120",
                        "training.validate_every=120", "training.learning_rate=0.003")  # fmt: skip
    pretrain(config)
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_a_killed_run_resumes_to_the_same_bits(store, split, whole_run, tmp_path):
    output = tmp_path / "killed"
    kills = 0
    for step in (2, 7):  # before the first checkpoint, and between two
        process = subprocess.Popen(
            [sys.executable, *words_for(store, split, output), "--resume", "auto"], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            log = output / "log.jsonl"
            if log.exists() and f'"step": {step},' in log.read_text():
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.002)
        assert process.poll() is not None
    assert kills >= 1
    pretrain(config_for(store, split, output), resume="auto")
    assert_same_run(output, whole_run)


def test_a_signal_leaves_a_checkpoint_to_go_on_from(store, split, whole_run, tmp_path):
    output = tmp_path / "signalled"
    process = subprocess.Popen([sys.executable, *words_for(store, split, output)], stderr=subprocess.PIPE, text=True)
    while not (output / "log.jsonl").exists() or not (output / "log.jsonl").read_text():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=120) == 0
    assert choose_checkpoint(output / "checkpoints", "auto") is not None
    pretrain(config_for(store, split, output), resume="auto")
    assert_same_run(output, whole_run)


def test_two_processes_give_the_loss_of_one(store, split, whole_run, tmp_path, torchrun):
    output = tmp_path / "two"
    done = torchrun(*words_for(store, split, output))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert json.loads((output / "manifest.json").read_text())["processes"] == 2
    one, two = ([entry["loss"] for entry in log_of(run) if "loss" in entry] for run in (whole_run, output))
    assert one == pytest.approx(two, abs=1e-4)
    validation = [[e["validation_loss"] for e in log_of(run) if "validation_loss" in e] for run in (whole_run, output)]
    assert validation[0] == pytest.approx(validation[1], abs=1e-4)


def test_a_run_does_not_overwrite_or_continue_another(store, split, whole_run, tmp_path):
    before = shutil.copytree(whole_run, tmp_path / "before")
    with pytest.raises(ionbed.InputError, match="--resume auto"):
        pretrain(config_for(store, split, whole_run))
    with pytest.raises(ionbed.InputError, match=r"other values of training\.learning_rate \(was 0\.00"):
        pretrain(config_for(store, split, whole_run, "training.learning_rate=0.5"), resume="auto")
    assert_same_run(whole_run, before)


def test_resuming_a_finished_run_changes_nothing(store, split, whole_run, tmp_path):
    config = config_for(store, split, whole_run)
    before = (whole_run / "manifest.json").read_bytes()
    state = json.loads((whole_run / "checkpoints" / "step-00000012" / "state.json").read_text())
    manifest = json.loads(before)
    assert {name: manifest[name] for name in ("spectra", "tokens")} == {
        name: state["totals"][name] for name in ("spectra", "tokens")
    }
    assert manifest["validation"] == state["validation"] and manifest["validation"]["loss"] > 0
    pretrain(config, resume="auto")
    assert (whole_run / "manifest.json").read_bytes() == before
    assert not (whole_run / "columns").exists()


def test_totals_are_those_of_the_whole_run(store, split, whole_run, tmp_path):
    output = Path(shutil.copytree(whole_run, tmp_path / "on"))
    pretrain(config_for(store, split, output), resume=str(output / "checkpoints" / "step-00000009"))
    mine, theirs = (json.loads((run / "manifest.json").read_text()) for run in (output, whole_run))
    assert [mine[name] for name in ("steps", "spectra", "tokens")] == [
        theirs[name] for name in ("steps", "spectra", "tokens")
    ]
    assert mine["seconds"] > 0 and mine["validation"] == theirs["validation"]


def test_pauses_do_not_count_as_training(store, split, tmp_path, monkeypatch):
    """Lines of two steps, validation after the first of the next two: neither it nor the checkpoint lowers a rate."""
    for name in ("validate", "save_checkpoint"):
        real = getattr(loop, name)
        monkeypatch.setattr(loop, name, lambda *a, real=real, **b: (time.sleep(1.5), real(*a, **b))[1])
    pretrain(config_for(store, split, tmp_path / "run", "training.steps=6", "training.log_every=2",
                        "training.validate_every=3", "training.checkpoint_every=3"))  # fmt: skip
    rates = [entry["tokens_per_second"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert len(rates) == 3 and min(rates) > 800 / 1.5
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["seconds"] < 3


def test_only_the_main_process_speaks(store, split, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loop.Accelerator, "is_main_process", False)
    monkeypatch.setattr(loop, "progress", lambda *_, **__: _Undrawable())
    with caplog.at_level("INFO", logger="ionbed"):
        config = config_for(store, split, tmp_path / "run", "training.steps=3")
        task = MaskedPeakTask(config, TrainingSpectra(config.data, tmp_path / "columns"))
        loop.train(task, config.training, tmp_path / "run", {}, None)
    assert not caplog.records


class _Undrawable:
    def __enter__(self):
        pytest.fail("progress was shown")

    def __exit__(self, *_):
        pass


def test_a_damaged_checkpoint_is_named(store, split, whole_run, tmp_path):
    output = tmp_path / "damaged"
    shutil.copytree(whole_run, output)
    weights = output / "checkpoints" / "step-00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ionbed.InputError, match=r"step-00000012: is damaged \(model.safetensors: another checksum"):
        pretrain(config_for(store, split, output), resume=str(weights.parent))


def test_a_run_goes_on_from_an_earlier_checkpoint(store, split, whole_run, tmp_path, monkeypatch):
    output = tmp_path / "earlier"
    shutil.copytree(whole_run, output)
    checkpoints = output / "checkpoints"
    earlier, seen = (checkpoints / "step-00000012").rename(checkpoints / "step-00000099"), []
    (checkpoints / "latest").write_text(f"{earlier.name}\n")
    save = loop.save_checkpoint

    def save_and_look(*arguments, **options):
        written = save(*arguments, **options)
        seen.append((written.exists(), choose_checkpoint(checkpoints, "auto") == written))
        return written

    monkeypatch.setattr(loop, "save_checkpoint", save_and_look)
    pretrain(config_for(store, split, output), resume=str(checkpoints / "step-00000009"))
    assert seen == [(True, True)]
    assert sorted(p.name for p in checkpoints.glob("step-*")) == ["step-00000009", "step-00000012"]
    assert_same_run(output, whole_run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.stepz=3", "did you mean 'training.steps'"),
        ("training.warmup_steps=99", "fewer than steps"),
        ("masking.share=7", "between 0 and 1"),
        ("model.num_heads=5", "multiple of"),
        ("training.precision=fp8", "fp32, bf16"),
        ("data.split=nowhere.json", "no such file"),
        ("data.store=nowhere", "no such folder"),
        ("data.folds=[holdout]", "must be one of train, validation, test"),
        ("data.folds=[]", "at least one fold"),
        ("data.folds=[train, train]", "each once"),
        ("data.folds=[train, validation]", "names validation"),
        ("data.validation_spectra=-1", "data: validation_spectra is -1; it must be at least 0"),
        ("model.num_heads=0", "num_heads is 0; it must be at least 1"),
        ("model.hidden_size=0", "hidden_size is 0"),
        ("model.num_layers=0", "num_layers is 0"),
        ("model.mlp_ratio=0", "mlp_ratio is 0"),
        ("model.num_mz_wavelengths=0", "num_mz_wavelengths is 0"),
        ("model.min_intensity=1", "min_intensity is 1.0; it must lie from 0 to below 1"),
        ("model.dropout=1", "dropout is 1.0"),
        ("model.conditioning=[adduct]", "adducts is empty"),
        ("model.conditioning=[instrument]", "instruments is empty"),
        ("masking.offset_weight=-1", "offset_weight is -1.0; it must be at least 0"),
        ("masking.intensity_weight=-1", "intensity_weight"),
        ("masking.max_mz=.inf", "max_mz is inf"),
        ("training.threads=0", "threads is 0; it must be at least 1"),
        ("training.seed=-1", "seed is -1; it must be at least 0"),
        ("training.max_grad_norm=0", "max_grad_norm is 0.0; it must be a finite number above 0"),
        ("training.learning_rate=.inf", "learning_rate is inf"),
        ("training.learning_rate=.nan", "learning_rate is nan"),
        ("training.weight_decay=-0.1", "weight_decay is -0.1"),
        ("training.warmup_steps=-1", "warmup_steps is -1"),
        ("training.batch_tokens=0", "batch_tokens is 0"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(store, split, tmp_path, change, words):
    with pytest.raises(ionbed.InputError, match=words) as caught:
        pretrain(config_for(store, split, tmp_path / "runs" / "run", change))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_folds_without_a_split_are_refused(store, split, tmp_path):
    with pytest.raises(ionbed.InputError, match="there is no split"):
        config_for(store, split, tmp_path / "run", "data.split=null", "data.folds=[train, test]")


def test_instruments_are_known_by_their_analyser():
    config = ModelConfig(conditioning=("instrument",), instruments=("LC-ESI-QTOF", "itft", "QTOF"))
    assert config.encoder_config().instruments == ("QTOF", "ITFT")


def test_what_a_run_leaves_that_was_killed_before_its_first_step_is_no_run(store, split, tmp_path):
    output = tmp_path / "run"
    (output / "columns" / "0123.partial").mkdir(parents=True)
    (output / "log.jsonl").touch()
    (output / "run.json").touch()
    (output / "tensorboard").mkdir()
    pretrain(config_for(store, split, output, "training.steps=3"))
    assert len(log_of(output)) >= 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ionbed.InputError, match="already exists"):
        pretrain(config_for(store, split, tmp_path / "other"))
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_batch_with_fewer_spectra_than_processes_is_refused(store, split, tmp_path, torchrun):
    output = tmp_path / "two"
    done = torchrun(*words_for(store, split, output, "training.batch_tokens=5"))
    assert done.returncode != 0 and "a batch has 1 spectra for 2 processes" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("name", [n for n in shipped_configs() if n.startswith(("pretrain-", "finetune-"))])
def test_every_key_is_explained(name):
    text = config_text(name)
    assert [line for line in text.splitlines() if line.startswith("  ") and "#" not in line] == []
    tree = to_tree(load_config(PretrainConfig if name.startswith("pretrain-") else FinetuneConfig, name))
    written = yaml.safe_load(text)
    assert written.keys() == tree.keys()
    for section, values in tree.items():
        if isinstance(values, dict):
            assert written[section].keys() == values.keys()


def test_the_learning_rate_warms_up_and_decays():
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_ratio=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def tiny_training() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_a_checkpoint_that_is_latest_is_never_pruned(tmp_path):
    module, optimizer = tiny_training()
    for step, left in ((5, [5]), (9, [5, 9]), (7, [7, 9]), (8, [8, 9])):
        path = save_checkpoint(
            tmp_path, Checkpoint(module, optimizer), {"step": step}, {"process_0": torch.get_rng_state()}, 2
        )
        assert choose_checkpoint(tmp_path, "auto") == path
        assert sorted(int(p.name[5:]) for p in tmp_path.glob("step-*")) == left
    forget_later_checkpoints(tmp_path, path, 8)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000008"]
    forget_later_checkpoints(tmp_path, Path("elsewhere/step-00000003"), 3)
    assert choose_checkpoint(tmp_path, "auto") is None and not list(tmp_path.glob("step-*"))


def test_a_checkpoint_that_cannot_be_deleted_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    module, optimizer = tiny_training()
    run, rng = Checkpoint(module, optimizer), {"process_0": torch.get_rng_state()}
    save_checkpoint(tmp_path, run, {"step": 1}, rng, 1)
    rmtree = shutil.rmtree

    def busy(path, ignore_errors=False):
        if not Path(path).name.startswith("step-"):
            return rmtree(path, ignore_errors=ignore_errors)
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(shutil, "rmtree", busy)
    path = save_checkpoint(tmp_path, run, {"step": 2}, rng, 1)
    assert choose_checkpoint(tmp_path, "auto") == path
    assert "step-00000001: cannot be deleted (Directory not empty)" in caplog.text
    forget_later_checkpoints(tmp_path, tmp_path / "step-00000001", 1)
    assert choose_checkpoint(tmp_path, "auto") == tmp_path / "step-00000001"
    monkeypatch.undo()
    save_checkpoint(tmp_path, run, {"step": 3}, rng, 1)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-00000003"]


def test_a_checkpoint_before_the_first_step_of_the_optimiser_is_restored(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    path = save_checkpoint(
        tmp_path, Checkpoint(module, optimizer), {"step": 1}, {"process_0": torch.get_rng_state()}, 1
    )
    other = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(other.parameters(), fused=True)
    restore_checkpoint(Checkpoint(other, optimizer), path, 0)
    assert torch.equal(other.weight, module.weight) and not optimizer.state


@pytest.mark.filterwarnings("ignore::UserWarning")  # copying weights to the meta device does nothing, torch says
def test_the_whole_state_of_the_optimiser_is_restored_to_the_device_of_the_parameter(tmp_path):
    module, optimizer = tiny_training()
    path = save_checkpoint(
        tmp_path, Checkpoint(module, optimizer), {"step": 1}, {"process_0": torch.get_rng_state()}, 1
    )
    module = torch.nn.Linear(3, 2, device="meta")
    optimizer = torch.optim.AdamW(module.parameters())
    restore_checkpoint(Checkpoint(module, optimizer), path, 0)
    assert {value.device.type for state in optimizer.state.values() for value in state.values()} == {"meta"}


@pytest.mark.parametrize(("kind", "expected"), [("cuda", False), ("xpu", False), ("mps", True), (None, True)])
def test_only_devices_with_double_precision_are_trained_on(monkeypatch, kind, expected):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *_: torch.device(kind) if kind else None)
    assert loop.on_cpu() is expected
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert loop.on_cpu()


def test_a_log_line_covers_its_interval_across_a_resumption(store, split, tmp_path, killed_after_checkpoint):
    changes, whole, stopped = ("training.log_every=5",), tmp_path / "whole", tmp_path / "stopped"
    pretrain(config_for(store, split, whole, *changes))
    with killed_after_checkpoint():  # after step 3: three steps are in no log line yet
        pretrain(config_for(store, split, stopped, *changes))
    pretrain(config_for(store, split, stopped, *changes), resume="auto")
    lines = [[(e["step"], e["loss"]) for e in log_of(run) if "loss" in e] for run in (whole, stopped)]
    assert [step for step, _ in lines[0]] == [5, 10, 12]
    assert lines[0] == lines[1]


def test_a_changed_shard_is_not_trained_on(store, split, tmp_path):
    import shutil

    changed = tmp_path / "store"
    shutil.copytree(store, changed)
    shards = sorted(changed.glob("*.parquet"))
    data = bytearray(shards[0].read_bytes())
    data[200] ^= 1
    shards[0].write_bytes(data)
    with pytest.raises(ionbed.InputError, match=shards[0].name):
        pretrain(config_for(changed, split, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
