"""The loop under what happens on a cluster: several processes, signals, damage, steps that are not finite."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

import ionbed
from ionbed.configs.loading import load_config
from ionbed.pretrain import checkpoints, loop, meter
from ionbed.pretrain.checkpoints import choose_checkpoint
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.meter import SpikeAlarm
from ionbed.pretrain.optimisation import MovingAverage
from ionbed.pretrain.run import pretrain
from ionbed.pretrain.signals import StopSignal

STEPS = 12
SMALL = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    f"training.steps={STEPS}", "training.batch_tokens=400", "training.micro_batch_tokens=200",
    "training.warmup_steps=2", "training.log_every=1", "training.validate_every=6", "training.checkpoint_every=4",
    "training.threads=1",
)  # fmt: skip


def options(store: Path, split: Path, output: Path, *changes: str) -> list[str]:
    return [*SMALL, f"data.store={store}", f"data.split={split}", f"output={output}", *changes]


def run(store: Path, split: Path, output: Path, *changes: str, resume: str | None = "auto") -> Path:
    config = load_config(PretrainConfig, "pretrain-tiny", options(store, split, output, *changes))
    return pretrain(config, resume=resume)


def watched(
    processes: int, store: Path, split: Path, output: Path, *changes: str, stop: tuple[int, int] = (0, 0)
) -> subprocess.CompletedProcess:
    """Run with so many processes; after step ``stop[0]`` the process ``stop[1]`` gets a signal."""
    script = Path(__file__).with_name("watched_run.py")
    output.mkdir(parents=True, exist_ok=True)
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"] if processes > 1 else []
    words = [sys.executable, *launcher, str(script),
             str(output.parent), str(stop[0]), str(stop[1]), *options(store, split, output, *changes)]  # fmt: skip
    return subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=280
    )


def log_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses(output: Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in log_of(output) if "loss" in entry}


def rows_by_step(folder: Path) -> dict[int, list[int]]:
    taken: dict[int, list[int]] = {}
    for file in folder.glob("rank-*.jsonl"):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            taken.setdefault(entry["step"], []).extend(entry["rows"])
    return {step: sorted(rows) for step, rows in taken.items()}


@pytest.fixture(scope="module")
def whole(store, split, tmp_path_factory) -> Path:
    """An uninterrupted run of one process, and the spectra of each of its steps."""
    folder = tmp_path_factory.mktemp("whole")
    done = watched(1, store, split, folder / "run")
    assert done.returncode == 0, done.stderr
    assert sorted(rows_by_step(folder)) == list(range(1, STEPS + 1))
    return folder


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_a_run_goes_on_with_another_number_of_processes(parallelism, store, split, whole, tmp_path):
    """One process, of two, is signalled; both stop after that step; a single one goes on; nobody sees a row twice."""
    output, change = tmp_path / "run", f"training.parallelism={parallelism}"
    stopped = watched(2, store, split, output, change, stop=(5, 1))
    assert stopped.returncode == 0, stopped.stderr
    marker = json.loads((output / "stopped.json").read_text())
    assert marker["step"] == 5
    checkpoint = choose_checkpoint(output / "checkpoints", "auto")
    assert checkpoint is not None and checkpoint.name == "step-00000005"
    with safe_open(checkpoint / "rng.safetensors", framework="pt") as tensors:
        assert {"process_0", "process_1"} <= set(tensors.keys())
    assert not (output / "model").exists()

    done = watched(1, store, split, output, change)
    assert done.returncode == 0, done.stderr
    assert not (output / "stopped.json").exists()
    assert rows_by_step(tmp_path) == rows_by_step(whole)
    assert losses(output) == pytest.approx(losses(whole / "run"), abs=1e-5)
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (output, whole / "run"))
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in theirs)


def test_a_checkpoint_of_one_process_is_sharded_over_two(store, split, whole, tmp_path):
    import shutil

    output = tmp_path / "run"
    shutil.copytree(whole / "run", output)
    shutil.rmtree(output / "model")
    (output / "manifest.json").unlink()
    (output / "checkpoints" / "latest").write_text("step-00000008\n")
    done = watched(2, store, split, output, "training.parallelism=fsdp2")
    assert done.returncode == 0, done.stderr
    assert losses(output) == pytest.approx(losses(whole / "run"), abs=1e-5)
    assert json.loads((output / "manifest.json").read_text())["processes"] == 2


@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json",
                                    "sha256.json"])  # fmt: skip
def test_a_damaged_checkpoint_gives_way_to_the_one_before(broken, whole, tmp_path, caplog):
    import shutil

    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "run" / "checkpoints", folder)
    newest, before = folder / "step-00000012", folder / "step-00000008"
    assert choose_checkpoint(folder, "auto") == newest
    data = bytearray((newest / broken).read_bytes())
    data[0 if broken == "state.json" else len(data) // 2] ^= 1  # the first of state.json: it is no JSON then
    (newest / broken).write_bytes(data)
    with caplog.at_level("WARNING", logger="ionbed"):
        assert choose_checkpoint(folder, "auto") == before
    assert "step-00000012: is damaged" in caplog.text and "going on from step-00000008" in caplog.text
    with pytest.raises(ionbed.InputError, match=r"step-00000012.*damaged"):
        choose_checkpoint(folder, str(newest))
    (before / "model.safetensors").unlink()
    with pytest.raises(ionbed.InputError, match="no checkpoint is whole"):
        choose_checkpoint(folder, "auto")


@pytest.mark.parametrize(("bf16", "warned"), [(1e10, True), (2e11, False)])
def test_imitated_bf16_is_a_warning(bf16, warned, monkeypatch, caplog):
    rates = {torch.bfloat16: bf16, torch.float32: 1e11}
    monkeypatch.setattr(meter, "matmul_peak", lambda torch, device, dtype, seconds: rates[dtype])
    accelerator = Accelerator(cpu=True)
    assert meter.measured_peak(accelerator, "fp32") == 1e11 and not caplog.records
    assert meter.measured_peak(accelerator, "bf16") == bf16
    assert ("takes 10.0 times as long as in fp32" in caplog.text) == bool(caplog.records) == warned


def test_a_processor_is_timed_by_a_small_product_whatever_its_name(monkeypatch):
    """Among several processes it is called 'cpu:0'; the product for a GPU would take it minutes."""
    sizes, randn = [], torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **named: (sizes.append(size), randn(1, 1, **named))[1])
    for device in ("cpu", "cpu:0"):
        meter.matmul_peak(torch, device, torch.float32, seconds=0.01)
    assert sizes == [(1024, 1024)] * 4


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(whole, tmp_path, monkeypatch):
    import shutil

    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "run" / "checkpoints", folder)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    module = torch.nn.Linear(2, 2)
    run = checkpoints.Checkpoint(module, torch.optim.AdamW(module.parameters()))
    with pytest.raises(checkpoints.UnwrittenError, match=r"step-00000099: cannot be written .*No space.*--resume auto"):
        checkpoints.save_checkpoint(folder, run, {"step": 99}, {}, keep=2)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before


def test_others_may_read_a_checkpoint_as_the_umask_says(tmp_path):
    module = torch.nn.Linear(2, 2)
    run = checkpoints.Checkpoint(module, torch.optim.AdamW(module.parameters()))
    path = checkpoints.save_checkpoint(tmp_path, run, {"step": 1}, {}, keep=2)
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1


def test_a_missing_checkpoint_gives_way_to_the_one_before(whole, tmp_path, caplog):
    import shutil

    folder = tmp_path / "checkpoints"
    shutil.copytree(whole / "run" / "checkpoints", folder)
    shutil.rmtree(folder / "step-00000012")
    assert choose_checkpoint(folder, "auto") == folder / "step-00000008"
    assert "step-00000012 is missing" in caplog.text
    assert choose_checkpoint(tmp_path / "none", "auto") is None


def test_a_run_goes_on_past_a_damaged_checkpoint_to_the_same_weights(store, split, whole, tmp_path):
    import shutil

    output = tmp_path / "run"
    shutil.copytree(whole / "run", output)
    shutil.rmtree(output / "model")
    (output / "manifest.json").unlink()
    weights = output / "checkpoints" / "step-00000012" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    run(store, split, output)
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (output, whole / "run"))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert losses(output) == losses(whole / "run")


def poison(monkeypatch, steps: set[int]) -> None:
    """Make the loss of these steps NaN."""
    step = loop.Trainer._step

    def poisoned(self, *arguments):
        if self.progress.position.step + 1 in steps:
            forward = self.model.forward
            self.model.forward = lambda batch: {k: v * math.nan for k, v in forward(batch).items()}
            try:
                return step(self, *arguments)
            finally:
                self.model.forward = forward
        return step(self, *arguments)

    monkeypatch.setattr(loop.Trainer, "_step", poisoned)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(store, split, tmp_path, monkeypatch, caplog):
    poison(monkeypatch, {3, 4})
    run(store, split, tmp_path / "run", "training.log_every=2", "training.ema_decay=0.9")
    entries = [e for e in log_of(tmp_path / "run") if "loss" in e]
    assert [e["skipped_steps"] for e in entries] == [0, 2, 2, 2, 2, 2]
    assert entries[1]["loss"] is None  # both of its steps were skipped
    assert all(math.isfinite(e["loss"]) for e in entries[2:])
    assert "step 3: the loss or its gradient is not finite; the step is skipped" in caplog.text
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["skipped_steps"] == 2
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_a_step_that_another_process_cannot_take_is_taken_by_none(store, split, tmp_path, monkeypatch):
    """The other one's gradient is not finite, after step 3, although this one's is."""
    reduce, messages = loop.Accelerator.reduce, []

    def reduced(self, tensor, reduction):
        result = reduce(self, tensor, reduction)
        if tensor.numel() == 5:  # three terms of the loss, whether to stop, the length of the gradient
            messages.append(result)
            if len(messages) == 3:
                result[-1] += math.nan
        return result

    monkeypatch.setattr(loop.Accelerator, "reduce", reduced)
    run(store, split, tmp_path / "run")
    assert len(messages) == STEPS
    assert [e["skipped_steps"] for e in log_of(tmp_path / "run") if "loss" in e] == [0, 0] + [1] * (STEPS - 2)


def test_a_setting_of_accelerate_does_not_scale_gradients(store, split, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    run(store, split, tmp_path / "run")
    norms = [
        [e["gradient_norm"] for e in log_of(output) if "loss" in e] for output in (tmp_path / "run", whole / "run")
    ]
    assert norms[0] == norms[1]


def test_a_run_that_never_is_finite_again_gives_up_with_its_checkpoints(store, split, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MOST_SKIPPED", 3)
    poison(monkeypatch, set(range(6, 100)))
    with pytest.raises(loop.TrainingDivergedError, match="step 8: 3 steps in a row"):
        run(store, split, tmp_path / "run")
    assert choose_checkpoint(tmp_path / "run" / "checkpoints", "auto").name == "step-00000004"
    monkeypatch.undo()
    run(store, split, tmp_path / "run")
    assert (tmp_path / "run" / "model").exists()


def test_the_alarm_knows_a_spike_from_noise_and_from_a_falling_loss():
    generator = torch.Generator().manual_seed(0)
    alarm = SpikeAlarm(6)
    for step in range(2000):
        loss = 3 + 5 * math.exp(-step / 100) + 0.05 * float(torch.randn((), generator=generator))
        assert alarm.heed(loss) is None
    assert alarm.heed(4.0) == pytest.approx(3, abs=0.05)
    assert alarm.heed(4.0) is not None, "a spike must not make the next one usual"
    again = SpikeAlarm(6)
    again.restore(json.loads(json.dumps(alarm.state())))
    assert again.spikes == 2 and again.heed(4.0) is not None and again.heed(3.0) is None
    higher = [alarm.heed(4.0) for _ in range(300)]
    assert higher[-1] is None, "what lasts is usual in the end"


def test_the_averaged_weights_are_written_and_survive_a_kill(store, split, tmp_path, killed_after_checkpoint):
    change, one, two = "training.ema_decay=0.8", tmp_path / "one", tmp_path / "two"
    run(store, split, one, change)
    trained = load_file(one / "checkpoints" / "step-00000012" / "model.safetensors")
    average = load_file(one / "checkpoints" / "step-00000012" / "average.safetensors")
    written = load_file(one / "model" / "model.safetensors")
    assert all(torch.equal(written[name], average[f"encoder.{name}"]) for name in written)
    assert any(not torch.equal(written[name], trained[f"encoder.{name}"]) for name in written)

    with killed_after_checkpoint():
        run(store, split, two, change)
    run(store, split, two, change)
    again = load_file(two / "model" / "model.safetensors")
    assert all(torch.equal(written[name], again[name]) for name in written)


def test_the_moving_average_is_that_of_its_formula():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 0.0)
    average = MovingAverage(module, 0.9)
    expected = 0.0
    for step in range(300):
        torch.nn.init.constant_(module.weight, float(step))
        average.update(module, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert float(average.weights["weight"]) == pytest.approx(expected, rel=1e-5)
    with average.in_place(module):
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 299 and float(average.weights["weight"]) == pytest.approx(expected, rel=1e-5)


def test_a_signal_before_the_first_step_stops_the_run_before_it(store, split, tmp_path):
    config = load_config(PretrainConfig, "pretrain-tiny", options(store, split, tmp_path / "run"))
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        pretrain(config, stop=stop)
    marker = json.loads((tmp_path / "run" / "stopped.json").read_text())
    assert (marker["step"], marker["signal"]) == (0, "SIGTERM")
    assert not (tmp_path / "run" / "model").exists()
    pretrain(config, resume="auto")
    assert (tmp_path / "run" / "model").exists() and not (tmp_path / "run" / "stopped.json").exists()


def test_a_run_that_is_stopped_saves_at_once_and_validates_when_it_goes_on(store, split, whole, tmp_path, monkeypatch):
    config = load_config(PretrainConfig, "pretrain-tiny", options(store, split, tmp_path / "run"))
    step = loop.Trainer._step

    def signalled(self, micro_batches, rate, stop):
        if self.progress.position.step + 1 == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, micro_batches, rate, stop)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", signalled)
        patch.setattr(loop.Trainer, "_validate", lambda *_: pytest.fail("the time left may be short"))
        pretrain(config)
    assert choose_checkpoint(tmp_path / "run" / "checkpoints", "auto").name == "step-00000006"
    pretrain(config, resume="auto")
    mine, theirs = ([(e["step"], e["validation_loss"]) for e in log_of(output) if "validation_loss" in e]
                    for output in (tmp_path / "run", whole / "run"))  # fmt: skip
    assert mine == theirs and [number for number, _ in mine] == [6, 12]


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_line_of_the_log_says_how_the_machine_is_used(whole):
    for entry in [e for e in log_of(whole / "run") if "loss" in e]:
        assert 0 < entry["mfu"] < 1
        assert 0 <= entry["padding_share"] < 0.5
        assert 0.05 < entry["memory_gb"] < 20
        assert entry["loss_max"] == pytest.approx(entry["loss"])  # of one process
        assert 0 <= entry["data_wait_share"] <= 1


def test_two_runs_do_not_write_one_output(store, split, tmp_path):
    from ionbed.artifacts import exclusive

    with exclusive(tmp_path / "run"), pytest.raises(ionbed.InputError, match="another process is writing"):
        run(store, split, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "deep" / "run"), pytest.raises(ionbed.InputError, match="another process is writing"):
        run(store, split, tmp_path / "deep" / "run")


def test_no_other_run_begins_while_the_model_is_written(store, split, tmp_path, monkeypatch):
    from ionbed.artifacts import exclusive
    from ionbed.pretrain import run as stage

    def write(*_):
        with pytest.raises(ionbed.InputError, match="another process is writing"), exclusive(tmp_path / "run"):
            pytest.fail("two at once")
        written.append(True)

    written: list[bool] = []
    monkeypatch.setattr(stage, "write_model_folder", write)
    with pytest.raises(FileNotFoundError):  # the weights, whose sum the manifest has
        run(store, split, tmp_path / "run", "training.steps=3")
    assert written


def test_an_output_in_use_ends_all_processes_with_one_line(store, split, tmp_path, torchrun):
    from ionbed.artifacts import exclusive

    sets = [word for item in options(store, split, tmp_path / "run") for word in ("--set", item)]
    with exclusive(tmp_path / "run"):
        done = torchrun("-m", "ionbed", "pretrain", "pretrain-tiny", *sets)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("ionbed:")]
    assert len(lines) == 1 and "another process is writing" in lines[0], lines  # and nobody misses the one who says so
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_redone_is_not_finished_until_its_end(store, split, whole, tmp_path, monkeypatch):
    import shutil

    output = tmp_path / "run"
    shutil.copytree(whole / "run", output)
    poison(monkeypatch, set(range(10, 100)))
    monkeypatch.setattr(loop, "MOST_SKIPPED", 1)
    with pytest.raises(loop.TrainingDivergedError):
        run(store, split, output, resume=str(output / "checkpoints" / "step-00000008"))
    assert not (output / "manifest.json").exists()
    monkeypatch.undo()
    run(store, split, output)
    assert (output / "manifest.json").exists()
