"""The batches of a run in their order, collated ahead of the training step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator

from ..errors import InputError
from .stage import MicroBatch, Task

PREFETCH = 4


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
    task: Task, steps: int, start: Position, batches: list[np.ndarray], accelerator: Accelerator
) -> Iterator[tuple[Position, Sequence[MicroBatch], float]]:
    """Yield (position after the step, this process's micro-batches, seconds waited), collated in another thread."""
    ready: queue.Queue[Any] = queue.Queue(PREFETCH)
    closing = threading.Event()

    def put(item: Any) -> None:
        while not closing.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def produce() -> None:
        try:
            position, upcoming = start, batches
            while position.step < steps and not closing.is_set():
                if position.cursor == len(upcoming):
                    position = Position(position.step, position.epoch + 1, 0)
                    upcoming = checked_batches(task, position.epoch, accelerator.num_processes)
                rows = upcoming[position.cursor]
                micro = task.micro_batches(rows, position.epoch, accelerator.process_index, accelerator.num_processes)
                position = Position(position.step + 1, position.epoch, position.cursor + 1)
                put((position, micro))
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
