"""The training loop, for pretraining and fine-tuning alike: batches, steps, logs, validation, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from torch import nn

from ..errors import InputError
from ..progress import progress, unseen
from .checkpoints import (
    forget_later_checkpoints,
    latest_checkpoint,
    read_state,
    restore_checkpoint,
    save_checkpoint,
)
from .config import LoopConfig
from .logs import Logs

logger = logging.getLogger("ionbed")

PREFETCH = 4


class MicroBatch(Protocol):
    """What one forward and backward pass takes."""

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""

    def to(self, device: torch.device) -> MicroBatch:
        """Return it on ``device``."""

    def __len__(self) -> int:
        """Return the number of spectra."""


class Task(Protocol):
    """What a stage of training brings to the loop."""

    @property
    def module(self) -> nn.Module:
        """What is trained: ``module(micro_batch)`` returns the summed loss of each term."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each term of the loss."""

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch, over all processes; a function of seed and epoch alone."""

    def micro_batches(self, rows: np.ndarray, epoch: int, process: int, processes: int) -> Sequence[MicroBatch]:
        """Collate this process's part of a batch."""

    def counts(self, micro_batch: Any) -> dict[str, float]:
        """Return over how many items each term's sum goes."""

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch (empty where there is no validation fold)."""


@dataclass
class Position:
    """Where training stands: steps done, epoch, and batches of that epoch consumed."""

    step: int = 0
    epoch: int = 0
    cursor: int = 0


def train(
    task: Task, config: LoopConfig, output: Path, identity: Mapping[str, Any], resume: str | None
) -> dict[str, Any]:
    """Train ``task.module`` in place.

    The sequence of batches is a function of the configuration alone; a process that is killed and resumed at any
    moment gives the weights it would have given, bit for bit on a CPU.

    Parameters
    ----------
    output : Path
        Folder for ``checkpoints/`` and ``log.jsonl``.
    identity : mapping
        What must not change between a run and its resumption; kept in the checkpoint.
    resume : {'auto', None} or path
        'auto': from the latest checkpoint if there is one. None: from the start. Else a checkpoint.

    Returns
    -------
    dict
        Summary of the whole run, also of what came before a resumption: steps (and how many are new), whether it is
        finished, spectra, tokens, seconds (without validation and checkpoints), the last validation losses.
    """
    # oneDNN keeps 1,024 compiled products of other shapes, gigabytes of them; those of the last few steps are enough.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no", cpu=on_cpu())
    torch.manual_seed(config.seed + accelerator.process_index)  # the weights are made; each process drops out its own
    optimizer = make_optimizer(task.module, config)
    checkpoints = output / "checkpoints"
    source = find_checkpoint(checkpoints, resume)
    position, skipped, before, validation = Position(), 0, Totals(), dict[str, float]()
    if source:
        state = read_state(source)
        refuse_other_run(source, state["identity"], identity)
        position, skipped = Position(**state["position"]), state["skipped_steps"]
        before, validation = Totals(**state["totals"]), state["validation"]
    resumed_at = position.step
    module, optimizer = accelerator.prepare(task.module, optimizer)
    if source:
        restore_checkpoint(source, task.module, optimizer.optimizer, accelerator.process_index)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            forget_later_checkpoints(checkpoints, source, position.step)
            logger.info("resumed from %s", source)
    batches = checked_batches(task, position.epoch, accelerator.num_processes)
    logs = Logs(output, config, position.step, enabled=accelerator.is_main_process)
    stop = StopSignal()
    weights = task.weights
    bar = progress("train", config.steps, unit="steps", done=position.step)
    meter, total = Meter(weights), before
    if source:
        meter.restore(state["unlogged"], main_process=accelerator.is_main_process)
    with stop, logs, bar if accelerator.is_main_process else unseen() as advance:
        for rows_position, micro_batches, waited in prefetched(task, config.steps, position, batches, accelerator):
            rate = learning_rate(config, position.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            sums, counts, stopping = global_counts(task, micro_batches, stop.requested, accelerator)
            optimizer.zero_grad(set_to_none=True)
            for number, micro_batch in enumerate(micro_batches, 1):
                last = number == len(micro_batches)
                with nullcontext() if last else accelerator.no_sync(module):
                    terms = module(micro_batch.to(accelerator.device))
                    # Divide by counts over all processes; gradients are averaged over processes, hence the factor.
                    loss = sum(w * terms[k] / max(counts[k], 1) for k, w in weights.items())
                    accelerator.backward(loss * accelerator.num_processes)
                for name, value in terms.items():
                    sums[name] += float(value.detach())
                meter.tokens += micro_batch.num_tokens
                meter.spectra += len(micro_batch)
            norm = float(accelerator.clip_grad_norm_(module.parameters(), config.clip_norm))
            if math.isfinite(norm):
                optimizer.step()
            else:
                skipped += 1
                if accelerator.is_main_process:
                    logger.warning("step %d: the gradient is not finite; the step is skipped", position.step + 1)
            position = rows_position
            meter.waited += waited
            meter.add(sums, counts)
            status = ""
            if position.step % config.log_every == 0 or position.step == config.steps:
                entry = meter.entry(position, rate, norm, skipped, accelerator)
                logs.write(entry)
                total = total.plus(meter.totals(accelerator))
                meter = Meter(weights)
                status = f"loss {entry['loss']:.3f}"
            advance(1, status)
            done = position.step == config.steps
            paused = time.perf_counter()
            if done or position.step % config.validate_every == 0:
                validation = validate(task, module, accelerator)
                if validation:
                    logs.write({"step": position.step, **{f"validation_{k}": v for k, v in validation.items()}})
            if done or stopping or position.step % config.checkpoint_every == 0:
                rng = gather_rng(accelerator)
                totals, unlogged = total.plus(meter.totals(accelerator, until=paused)), meter.unlogged(accelerator)
                if accelerator.is_main_process:
                    state = {"step": position.step, "position": vars(position), "identity": dict(identity),
                             "skipped_steps": skipped, "totals": vars(totals), "unlogged": unlogged,
                             "validation": validation}  # fmt: skip
                    save_checkpoint(checkpoints, task.module, optimizer.optimizer, state, rng, config.keep_checkpoints)
                accelerator.wait_for_everyone()
            meter.started += time.perf_counter() - paused  # the rates are those of training
            if stopping and not done:
                if accelerator.is_main_process:
                    logger.info("stopped on a signal at step %d; go on with --resume auto", position.step)
                break
    if meter.counts:
        total = total.plus(meter.totals(accelerator))
    return {
        "steps": position.step,
        "new_steps": position.step - resumed_at,
        "finished": position.step == config.steps,
        "epochs": position.epoch,
        "skipped_steps": skipped,
        "seconds": round(total.seconds, 1),
        "spectra": total.spectra,
        "tokens": total.tokens,
        "spectra_per_second": round(total.spectra / max(total.seconds, 1e-9), 1),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "validation": validation,
    }


def on_cpu() -> bool:
    """Return whether to train on the CPU: where nothing else computes in double precision, or accelerate is told to."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return True
    device = torch.accelerator.current_accelerator()
    return device is None or device.type not in {"cuda", "xpu"}  # MPS has no float64, which m/z need


def process_state() -> PartialState:
    """Return this process's place among those of the run, before there is an `Accelerator`."""
    return PartialState(cpu=on_cpu())


def make_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """Return AdamW; weight decay applies to matrices alone."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    beta1, beta2 = config.betas
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(beta1, beta2), fused=True)


def learning_rate(config: LoopConfig, step: int) -> float:
    """Return the rate of the step after ``step`` steps: linear warm-up, then a half cosine to the final share."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress_share = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress_share)))


def find_checkpoint(folder: Path, resume: str | None) -> Path | None:
    """Return the checkpoint to start from; see `train`."""
    if resume is None:
        return None
    return latest_checkpoint(folder) if resume == "auto" else Path(resume)


def refuse_other_run(source: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `InputError` if a run's options differ from those of the checkpoint it is to go on from."""
    old, new = _dotted(before), _dotted(json.loads(json.dumps(now)))
    changed = [key for key in sorted({*old, *new}) if key not in old or key not in new or old[key] != new[key]]
    if changed:
        raise InputError(
            f"{source}: was made with other values of {', '.join(changed)}; restore them or start a new output"
        )


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


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


def global_counts(
    task: Task, micro_batches: Sequence[MicroBatch], stop: bool, accelerator: Accelerator
) -> tuple[dict[str, float], dict[str, float], bool]:
    """Return zeroed sums, the counts of each term over all processes, and whether any process was told to stop."""
    names = list(task.weights)
    local = [task.counts(micro_batch) for micro_batch in micro_batches]
    values = [sum(count[name] for count in local) for name in names] + [float(stop)]
    reduced = accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=accelerator.device), "sum").tolist()
    return dict.fromkeys(names, 0.0), dict(zip(names, reduced, strict=False)), reduced[-1] > 0


def validate(task: Task, module: nn.Module, accelerator: Accelerator) -> dict[str, float]:
    """Return the mean loss of each term over the validation batches, over all processes."""
    names = list(task.weights)
    totals = torch.zeros(2, len(names), dtype=torch.float64, device=accelerator.device)
    module.eval()
    for rows in task.validation_batches():
        for micro in task.micro_batches(rows, 0, accelerator.process_index, accelerator.num_processes):
            with torch.no_grad():
                terms = task.module(micro.to(accelerator.device))
            counts = task.counts(micro)
            totals += torch.tensor([[float(terms[n]) for n in names], [counts[n] for n in names]],
                                   dtype=torch.float64, device=accelerator.device)  # fmt: skip
    module.train()
    sums, counts_all = accelerator.reduce(totals, "sum").tolist()
    means = {n: s / c for n, s, c in zip(names, sums, counts_all, strict=True) if c > 0}
    if means:
        means["loss"] = sum(task.weights[n] * v for n, v in means.items())
    return means


def gather_rng(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Return the torch random state of every process, and of its GPU; see `save_checkpoint`."""
    states = {"process": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    gathered: dict[str, torch.Tensor] = {}
    for kind, state in states.items():
        rows = accelerator.gather(state.to(accelerator.device).unsqueeze(0)).cpu()
        gathered |= {f"{kind}_{number}": row.clone() for number, row in enumerate(rows)}
    return gathered


@dataclass(frozen=True)
class Totals:
    """What a run has seen, over all processes and resumptions, and the seconds that this took."""

    spectra: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def plus(self, other: Totals) -> Totals:
        """Return the sum."""
        return Totals(self.spectra + other.spectra, self.tokens + other.tokens, self.seconds + other.seconds)


class Meter:
    """Sums since the last log line; spectra, tokens and losses are this process's own."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.spectra = self.tokens = 0
        self.waited = 0.0
        self.started = time.perf_counter()
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}

    def add(self, sums: Mapping[str, float], counts: Mapping[str, float]) -> None:
        """Add a step's own loss sums and its counts over all processes."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0.0) + counts[name]

    def entry(
        self, position: Position, rate: float, norm: float, skipped: int, accelerator: Accelerator
    ) -> dict[str, Any]:
        """Return one log line: losses over all processes, rates, and the share of time spent waiting for data."""
        totals, sums = self.totals(accelerator), self.unlogged(accelerator)["sums"]
        losses = {name: value / self.counts[name] for name, value in sums.items() if self.counts[name] > 0}
        return {
            "step": position.step,
            "epoch": position.epoch,
            "loss": sum(self.weights[n] * v for n, v in losses.items()),
            **losses,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens_per_second": round(totals.tokens / totals.seconds, 1),
            "spectra_per_second": round(totals.spectra / totals.seconds, 1),
            "data_wait_share": round(self.waited / totals.seconds, 4),
            "skipped_steps": skipped,
        }

    def unlogged(self, accelerator: Accelerator) -> dict[str, dict[str, float]]:
        """Return the loss sums over all processes, and their counts, since the last log line."""
        names = list(self.sums)
        values = torch.tensor(list(self.sums.values()), dtype=torch.float64, device=accelerator.device)
        sums = accelerator.reduce(values, "sum").tolist()
        return {"sums": dict(zip(names, sums, strict=True)), "counts": dict(self.counts)}

    def restore(self, unlogged: Mapping[str, Mapping[str, float]], *, main_process: bool) -> None:
        """Go on from what `unlogged` returned, so that the next log line covers its whole interval."""
        self.sums = {name: value if main_process else 0.0 for name, value in unlogged["sums"].items()}
        self.counts = dict(unlogged["counts"])

    def totals(self, accelerator: Accelerator, until: float | None = None) -> Totals:
        """Return what all processes have done since the last log line (``until`` a time of `time.perf_counter`)."""
        seconds = (time.perf_counter() if until is None else until) - self.started
        counts = torch.tensor([self.spectra, self.tokens], dtype=torch.float64, device=accelerator.device)
        spectra, tokens = accelerator.reduce(counts, "sum").tolist()
        return Totals(int(spectra), int(tokens), seconds)


class StopSignal:
    """Turns SIGTERM and SIGUSR1 (a cluster's warning before it preempts) into a request to stop after the step."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._request) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
