"""Loading ahead: the same batches with any number of loading processes, and none of them left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from ionbed.configs.loading import load_config
from ionbed.encoder.collator import EncoderBatch, collate
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.errors import InputError
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.loader import Position, checked_batches, prefetched
from ionbed.pretrain.run import pretrain
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

FORK = multiprocessing.get_context("fork")
ONE_OF_TWO = SimpleNamespace(device=torch.device("cpu"), process_index=1, num_processes=2)


BEFORE: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def _children_of_other_tests():
    """Other tests may have left a process that serves until the end, such as that of multiprocessing's resources."""
    BEFORE.clear()
    BEFORE.update(psutil.Process().children())


def own_children() -> list[psutil.Process]:
    """Return the processes that this test has started and that are there."""
    return [child for child in psutil.Process().children() if child not in BEFORE]


class Spectra:
    """A task whose spectra have one peak, of the row's number; four batches an epoch."""

    def __init__(self, bad_row: int | None = None) -> None:
        self.bad_row = bad_row

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        return np.split(np.random.default_rng(epoch).permutation(24), 4)

    def micro_batches(self, rows, epoch, process, processes):
        own = rows[process::processes]
        if self.bad_row in own:
            raise InputError("the row cannot be read")
        spectra = [Spectrum(str(row), 100.0 + epoch, np.array([50.0 + row], np.float32), np.ones(1, np.float32))
                   for row in own.tolist()]  # fmt: skip
        return [collate(SpectrumColumns.from_spectra(part), IonbedConfig()) for part in (spectra[:2], spectra[2:])]


def seen(workers: int, start: Position, steps: int = 10, task: Spectra | None = None) -> list[tuple]:
    task = task or Spectra()
    batches = checked_batches(task, start.epoch, 2)
    return [
        (position, [{name: getattr(batch, name) for name in ("mz_BL", "mask_BL", "collision_energy_B", "num_empty")}
                    for batch in micro])
        for position, micro, waited in prefetched(task, steps, start, batches, ONE_OF_TWO, workers)
        if waited >= 0
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_loaded_does_not_depend_on_the_loading_processes(workers):
    start = Position(step=3, epoch=1, cursor=2)
    expected, loaded = seen(0, start), seen(workers, start)
    assert [position for position, _ in loaded] == [position for position, _ in expected]
    assert [(p.step, p.epoch, p.cursor) for p, _ in expected] == [
        (4, 1, 3), (5, 1, 4), (6, 2, 1), (7, 2, 2), (8, 2, 3), (9, 2, 4), (10, 3, 1)
    ]  # fmt: skip
    for (_, mine), (_, theirs) in zip(loaded, expected, strict=True):
        for batch, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(batch, other, rtol=0, atol=0, equal_nan=True)
    assert not own_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_takes_nothing_of_the_random_numbers_of_the_run(workers):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    seen(workers, Position())
    assert torch.equal(torch.rand(3), expected)


def test_a_run_gives_the_same_weights_with_loading_processes(store, split, tmp_path):
    """With dropout, whose random numbers follow the training process's own generator."""
    weights = []
    for workers in (0, 2):
        output = tmp_path / str(workers)
        pretrain(load_config(PretrainConfig, "pretrain-tiny", [
            f"data.store={store}", f"data.split={split}", f"output={output}", f"training.loader_workers={workers}",
            "model.hidden_size=32", "model.num_layers=1", "model.num_heads=4", "model.num_mz_wavelengths=16",
            "model.dropout=0.1", "training.steps=5", "training.warmup_steps=1", "training.batch_tokens=400",
        ]))  # fmt: skip
        weights.append(load_file(output / "model" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not own_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_for_a_gpu_batches_lie_in_pinned_memory(workers, monkeypatch):
    monkeypatch.setattr(EncoderBatch, "pin_memory", lambda batch: ("pinned", os.getpid(), len(batch)))
    task, gpu = Spectra(), SimpleNamespace(device=torch.device("cuda"), process_index=0, num_processes=1)
    loaded = [micro for _, micro, _ in prefetched(task, 2, Position(), checked_batches(task, 0, 1), gpu, workers)]
    assert loaded == [[("pinned", os.getpid(), 2), ("pinned", os.getpid(), 4)]] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_loading_is_one_line_and_ends_the_processes(workers):
    with pytest.raises(InputError, match=r"^the row cannot be read$"):
        seen(workers, Position(), task=Spectra(bad_row=5))
    assert not own_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_ends_when_training_does(workers):
    task = Spectra()
    ahead = prefetched(task, 1000, Position(), checked_batches(task, 0, 2), ONE_OF_TWO, workers)
    next(ahead)
    assert len(own_children()) == workers
    ahead.close()
    assert not own_children()


def test_a_loading_process_that_dies_ends_the_run():
    task = Spectra()
    ahead = prefetched(task, 10_000, Position(), checked_batches(task, 0, 2), ONE_OF_TWO, 2)
    next(ahead)
    own_children()[0].kill()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        for _ in ahead:
            time.sleep(0.001)
    ahead.close()
    assert not own_children()


def endless(told: Connection, end: str) -> None:
    task = Spectra()
    ahead = prefetched(task, 10**6, Position(), checked_batches(task, 0, 2), ONE_OF_TWO, 2)
    for _ in range(2):  # a batch of each: both have begun, and know which signals are not for them
        next(ahead)
    told.send([child.pid for child in own_children()])
    if end == "leave":
        raise SystemExit(3)  # without closing anything
    while True:
        next(ahead)
        time.sleep(0.01)


def start_endless(end: str) -> tuple[multiprocessing.Process, list[psutil.Process]]:
    mine, its = FORK.Pipe()
    process = FORK.Process(target=endless, args=(its, end))
    process.start()
    assert mine.poll(60)
    return process, [psutil.Process(pid) for pid in mine.recv()]


def test_loading_processes_do_not_outlive_a_process_that_is_killed():
    process, workers = start_endless("killed")
    assert len(workers) == 2
    for worker in workers:  # the cluster warns every process of a job: these go on
        worker.send_signal(signal.SIGUSR1)
        worker.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert all(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    process.kill()
    process.join()
    assert psutil.wait_procs(workers, timeout=20)[1] == []


def test_a_process_that_leaves_without_closing_is_not_held_up():
    process, workers = start_endless("leave")
    process.join(60)
    assert process.exitcode == 3
    assert psutil.wait_procs(workers, timeout=20)[1] == []
