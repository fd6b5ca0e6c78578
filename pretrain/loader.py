"""The batches of a run in their order, collated ahead of the training step in a thread or in processes of their own."""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..errors import InputError
from .stage import MicroBatch, Task

PREFETCH = 4
"""Steps that lie ready; each loading process is besides `STEPS_PER_WORKER` ahead."""
STEPS_PER_WORKER = 2


@dataclass
class Position:
    """Where training stands: steps done, epoch, and batches of that epoch consumed."""

    step: int = 0
    epoch: int = 0
    cursor: int = 0


def checked_batches(task: Task, epoch: int, processes: int) -> list[np.ndarray]:
    """Return the batches of an epoch.

    Raises
    ------
    InputError
        One has fewer spectra than there are processes: those without any would wait for the others for ever. All
        processes see the same batches, so all raise.
    """
    batches = task.epoch_batches(epoch)
    fewest = min((len(rows) for rows in batches), default=0)
    if fewest < processes:
        raise InputError(
            f"a batch has {fewest} spectra for {processes} processes; start fewer, or raise the size of a batch "
            "(training.batch_tokens, in fine-tuning sampling.anchors)"
        )
    return batches


def prefetched(
    task: Task, steps: int, start: Position, batches: list[np.ndarray], accelerator: Accelerator, workers: int = 0
) -> Generator[tuple[Position, Sequence[MicroBatch], float], None, None]:
    """Yield (position after the step, this process's micro-batches, seconds waited), collated ahead.

    Parameters
    ----------
    task : Task
    steps : int
        Of the whole run.
    start : Position
    batches : list of int arrays
        Of the epoch of ``start``.
    accelerator : Accelerator
        Whose process this is; for a CUDA device the micro-batches lie in pinned memory.
    workers : int
        Processes that collate; 0: a thread of this one. Batches and their order do not depend on it.

    Raises
    ------
    InputError
        As `checked_batches` or the task's collation does.
    RuntimeError
        A loading process has died.
    """
    ready: queue.Queue[Any] = queue.Queue(PREFETCH)
    closing = threading.Event()
    pinned = accelerator.device.type == "cuda"
    loader = DataLoader(
        _Collation(task, accelerator.process_index, accelerator.num_processes),
        sampler=_upcoming(task, steps, start, batches, accelerator.num_processes),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=STEPS_PER_WORKER if workers else None,
        multiprocessing_context="fork" if workers else None,  # nothing of the task is copied
        worker_init_fn=partial(_live_as_long_as, os.getpid()),
        generator=torch.Generator(),  # of its own: the run's random numbers do not depend on the loading
    )
    iterator = iter(loader)  # starts the processes: here, before there is another thread

    def put(item: Any) -> None:
        while not closing.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            while not closing.is_set() and (item := next(iterator, None)) is not None:
                position, collated = _unpacked(item)
                put((position, [batch.pin_memory() for batch in collated] if pinned else collated))
            put(None)
        except BaseException as error:  # handed to the training thread, which raises it
            put(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            begun = time.perf_counter()
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield *item, time.perf_counter() - begun
    finally:
        closing.set()
        thread.join()
        if workers:  # now, not when the last reference goes: an error's traceback may hold one
            iterator._shutdown_workers()  # type: ignore[attr-defined]


def _upcoming(
    task: Task, steps: int, start: Position, batches: list[np.ndarray], processes: int
) -> Iterator[tuple[Position, np.ndarray]]:
    """Yield the position after each step that is left, and the rows of its batch."""
    position = start
    while position.step < steps:
        if position.cursor == len(batches):
            position = Position(position.step, position.epoch + 1, 0)
            batches = checked_batches(task, position.epoch, processes)
        position = Position(position.step + 1, position.epoch, position.cursor + 1)
        yield position, batches[position.cursor - 1]


class _Collation(Dataset):
    """Micro-batches of one process, by position and rows."""

    def __init__(self, task: Task, process: int, processes: int) -> None:
        self.task, self.process, self.processes = task, process, processes

    def __getitem__(self, item: tuple[Position, np.ndarray]) -> Any:
        position, rows = item
        in_worker = get_worker_info() is not None
        try:
            collated: Any = self.task.micro_batches(rows, position.epoch, self.process, self.processes)
        except InputError as error:
            if not in_worker:
                raise
            collated = error  # raised by `_unpacked`: DataLoader would make a traceback of it
        return _packed((position, collated)) if in_worker else (position, collated)


class _TensorsAsArrays(pickle.Pickler):
    """Pickles tensors by value.

    Torch's own way passes each in shared memory, by a file descriptor: a step of many micro-batches needs more of them
    than a process may have, and containers have little shared memory.
    """

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return _tensor, (item.numpy(),)
        return NotImplemented


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


def _packed(item: Any) -> bytes:
    buffer = io.BytesIO()
    _TensorsAsArrays(buffer, protocol=5).dump(item)
    return buffer.getvalue()


def _unpacked(item: Any) -> tuple[Position, Sequence[Any]]:
    """Return what `_Collation` has collated, or raise its error; bytes come from a process that this one started."""
    position, collated = pickle.loads(item) if isinstance(item, bytes) else item  # noqa: S301
    if isinstance(collated, InputError):
        raise collated
    return position, collated


def _as_it_is(item: Any) -> Any:
    return item


def _live_as_long_as(parent: int, worker: int) -> None:
    """Let a loading process outlive signals that are meant for the run, and not outlive the process it works for.

    A cluster sends its warning to all processes of a job; the one that trains still needs batches to end its step. And
    a process that is killed cannot end its own.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def watch() -> None:
        while os.getppid() == parent:
            sent = signal.sigtimedwait({signal.SIGTERM}, 1)
            if sent is not None and sent.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
