"""The training loop, for pretraining and fine-tuning alike: batches, steps, logs, validation, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from ..artifacts import MANIFEST, atomic_file
from ..configs.loading import dotted
from ..errors import InputError
from ..progress import Advance, progress, unseen
from .checkpoints import (
    Checkpoint,
    choose_checkpoint,
    forget_later_checkpoints,
    read_state,
    restore_checkpoint,
    save_checkpoint,
)
from .config import LoopConfig
from .loader import Position, checked_batches, prefetched
from .logs import Logs
from .meter import Meter, SpikeAlarm, Totals, measured_peak
from .optimisation import BestWeights, MovingAverage, learning_rate, make_optimizer
from .parallel import distribute, equal_numbers, gradient_norm, reshard, synchronised
from .processes import gather_rng, lost_processes_named, on_cpu
from .run_record import STOPPED
from .signals import StopSignal, heeding
from .stage import MicroBatch, Task
from .turns import from_main, in_all

logger = logging.getLogger("ionbed")

MOST_SKIPPED = 50
"""Steps skipped one after another after which a run gives up: its weights no longer give finite gradients."""


class TrainingDivergedError(RuntimeError):
    """So many steps in a row had no finite gradient that going on is a waste."""


@dataclass
class Progress:
    """What a checkpoint keeps of a run besides weights, optimiser and random state; all processes have the same."""

    position: Position = field(default_factory=Position)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    totals: Totals = field(default_factory=Totals)
    validation: dict[str, float] = field(default_factory=dict)
    validation_due: bool = False
    """Put off by a signal to stop, until the run goes on: saving is more urgent."""


def train(
    task: Task,
    config: LoopConfig,
    output: Path,
    identity: Mapping[str, Any],
    resume: str | None,
    stop: StopSignal | None = None,
    about: Mapping[str, Any] | None = None,
    patience: int | None = None,
) -> dict[str, Any]:
    """Train ``task.module`` in place.

    The sequence of batches is a function of the configuration alone; a process that is killed and resumed at any
    moment gives the weights it would have given, bit for bit on a CPU.

    Parameters
    ----------
    output : Path
        Folder for ``checkpoints/``, ``log.jsonl`` and the marker `STOPPED`.
    identity : mapping
        What must not change between a run and its resumption; kept in the checkpoint.
    resume : {'auto', None} or path
        'auto': from the latest checkpoint that is whole, if there is one. None: from the start. Else a checkpoint.
    stop : StopSignal, optional
        Entered by the caller, who wants signals to be heeded before training too.
    about : mapping, optional
        ``command`` and ``config`` of the run, for its record; see `ionbed.pretrain.run_record.begin_record`.
    patience : int, optional
        Early stopping: so many validations in a row without a lower loss end the training, and ``task.module`` has the
        weights of the lowest in the end.

    Returns
    -------
    dict
        Summary of the whole run, also of what came before a resumption: steps (and how many are new), whether it is
        finished, spectra, tokens, seconds (without validation and checkpoints), the last validation losses. Where
        ``ema_decay`` is set, ``task.module`` holds the averaged weights in the end. With ``patience``, ``best_step`` is
        the step of the weights.

    Raises
    ------
    InputError
        A checkpoint cannot be resumed from.
    TrainingDivergedError
        `MOST_SKIPPED` steps in a row were not finite.
    """
    # oneDNN keeps 1,024 compiled products of other shapes, gigabytes of them; those of the last few steps are enough.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(task, config, output, identity, about, patience)
    trainer.resume(resume)
    with heeding(stop) as listening:
        return trainer.run(listening)


class Trainer:
    """A run in one process; see `train`."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        output: Path,
        identity: Mapping[str, Any],
        about: Mapping[str, Any] | None = None,
        patience: int | None = None,
    ) -> None:
        self.task, self.config, self.output, self.identity = task, config, output, identity
        self.about = about or {}
        self.accelerator = Accelerator(
            mixed_precision="bf16" if config.precision == "bf16" else "no",
            cpu=on_cpu(),
            # Gradients lie in the buffers that are exchanged, and not once more beside them.
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)],
        )
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        # The weights are made by now; each process drops out its own.
        torch.manual_seed(config.seed + self.accelerator.process_index)
        self.model = distribute(task.module, config, self.accelerator)
        self.optimizer = make_optimizer(task.module, config)
        self.average = MovingAverage(task.module, config.ema_decay) if config.ema_decay is not None else None
        self.best = BestWeights(task.module, patience) if patience is not None else None
        self.weights = dict(task.weights)
        self.alarm = SpikeAlarm(config.spike_deviations)
        self.progress = Progress()
        self.resumed_at = 0
        self.meter = Meter(self.weights, measured_peak(self.accelerator, config.precision))

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.output / "checkpoints"

    def resume(self, resume: str | None) -> None:
        """Go on from a checkpoint; see `train`."""
        if resume is None:
            return
        # One process looks, and all hear the same: a damaged checkpoint must not split them.
        source = from_main(lambda: choose_checkpoint(self.checkpoints, resume))
        if source is None:
            return
        state = in_all(lambda: self._restored(source))
        self.progress = Progress(
            position=Position(**state["position"]),
            skipped_steps=state["skipped_steps"],
            skipped_in_a_row=state["skipped_in_a_row"],
            totals=Totals(**state["totals"]),
            validation=state["validation"],
            validation_due=state.get("validation_due", False),
        )
        self.alarm.restore(state["alarm"])
        if self.best is not None:
            self.best.restore(state["best"])
        self.meter.restore(state["unlogged"], main_process=self.is_main)
        self.resumed_at = self.progress.position.step
        self.accelerator.wait_for_everyone()
        if self.is_main:
            forget_later_checkpoints(self.checkpoints, source, self.resumed_at)
            logger.info("resumed from %s", source)

    def _restored(self, source: Path) -> dict[str, Any]:
        """Load weights, optimiser and random state; return the rest of a checkpoint."""
        state = read_state(source)
        refuse_other_run(source, state["identity"], self.identity)
        restore_checkpoint(self._checkpoint(), source, self.accelerator.process_index)
        return state

    def run(self, stop: StopSignal) -> dict[str, Any]:
        """Train to the end, or until a signal asks to stop."""
        config, start = self.config, self.progress.position
        batches = checked_batches(self.task, start.epoch, self.accelerator.num_processes)
        about = {
            **self.about,
            "parameters": sum(p.numel() for p in self.task.module.parameters()),
            "processes": self.accelerator.num_processes,
            "device": str(self.device),
        }
        logs = in_all(lambda: Logs(self.output, config, start.step, enabled=self.is_main, about=about))
        bar = progress("train", config.steps, unit="steps", done=start.step) if self.is_main else unseen()
        if self.is_main:
            (self.output / STOPPED).unlink(missing_ok=True)
            if not self.is_done:  # redone from an earlier checkpoint, it is not finished
                (self.output / MANIFEST).unlink(missing_ok=True)
        stopping = self._any(stop.requested)
        ahead = prefetched(self.task, config.steps, start, batches, self.accelerator, config.loader_workers)
        with logs, bar as advance, closing(ahead) as upcoming, lost_processes_named():
            if self.progress.validation_due and not stopping:
                self._validate(logs)
            self.meter.started = time.perf_counter()
            for position, micro_batches, waited in () if stopping or self.is_done else upcoming:
                rate = learning_rate(config, position.step - 1)
                norm, stopping = self._step(micro_batches, rate, stop)
                self.progress.position = position
                self.meter.waited += waited
                done = position.step == config.steps
                self._log(logs, advance, rate, norm, now=done or position.step % config.log_every == 0)
                paused = time.perf_counter()
                self.progress.validation_due = done or position.step % config.validate_every == 0
                if self.progress.validation_due and (done or not stopping):
                    self._validate(logs)
                    advance(0, logs.status)
                    done = self.is_done
                if done or stopping or position.step % config.checkpoint_every == 0:
                    self._save(until=paused)
                self.meter.started += time.perf_counter() - paused  # the rates are those of training
                if stopping or done:
                    break
        if stopping and not self.is_done:
            self._leave_marker(stop)
        if self.best is not None and self.best.step:
            self.best.load_into(self.task.module)
        elif self.average is not None:
            self.average.swap(self.task.module)
        return self._summary()

    @property
    def is_done(self) -> bool:
        """Whether the last step is taken, or early stopping has ended the training before it."""
        stopped_early = self.best is not None and self.best.has_lost_patience
        return stopped_early or self.progress.position.step == self.config.steps

    def _step(self, micro_batches: Sequence[MicroBatch], rate: float, stop: StopSignal) -> tuple[float, bool]:
        """Take one step of the optimiser; return the gradient's norm and whether any process was told to stop."""
        names, processes, device = list(self.weights), self.accelerator.num_processes, self.device
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        own = [self.task.counts(micro_batch) for micro_batch in micro_batches]
        own_counts = torch.tensor([sum(c[n] for c in own) for n in names], dtype=torch.float64)
        counts = self.accelerator.reduce(own_counts.to(device, copy=True), "sum")
        # Losses are divided by counts over all processes; gradients are averaged over processes, hence the factor.
        factors = torch.tensor([self.weights[n] * processes for n in names], dtype=torch.float64).to(device)
        factors = (factors / counts.clamp_min(1)).float()
        sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = equal_numbers(micro_batches, self.config, self.accelerator)
        for number, (micro_batch, real) in enumerate(parts, 1):
            with synchronised(self.model, self.accelerator, last=number == len(parts)):
                with self.accelerator.autocast():
                    terms = self.model(micro_batch.to(device))
                    attended = self.task.attended_tokens(micro_batch)
                losses = torch.stack([terms[name].float() for name in names])
                # not by accelerate, whose environment may have it divide by a number of micro-batches
                ((losses * factors).sum() * float(real)).backward()
            if real:
                sums += losses.detach().double()
                self.meter.add_micro_batch(micro_batch, self.task.flops(micro_batch), attended)
        own_length = gradient_norm(self.task.module, self.config.max_grad_norm).double().reshape(1)
        # What the processes tell each other after a step goes in one message, and is waited for once.
        flag = torch.tensor([float(stop.requested)], dtype=torch.float64).to(device)
        # The length goes along: were it finite for some processes only, none must take the step.
        told = self.accelerator.reduce(torch.cat([sums, flag, own_length]), "sum")
        values = torch.cat([told, counts, sums, own_length]).tolist()
        size = len(names)
        total, stopping, lengths = values[:size], values[size] > 0, values[size + 1]
        count, own_total, length = values[size + 2 : 2 * size + 2], values[2 * size + 2 : -1], values[-1]
        if math.isfinite(lengths) and all(map(math.isfinite, total)):
            self.optimizer.step()
            self.progress.skipped_in_a_row = 0
            if self.average is not None:
                self.average.update(self.task.module, self.progress.position.step)
            own_count = own_counts.tolist()
            self.meter.add_step(*(dict(zip(names, v, strict=True)) for v in (own_total, count, own_count)))
            loss = sum(self.weights[n] * t / max(c, 1) for n, t, c in zip(names, total, count, strict=True))
            self._heed_spike(loss)
        else:
            self._skip()
        return length, stopping

    def _skip(self) -> None:
        """Count a step that has no finite gradient, on all processes alike."""
        run, step = self.progress, self.progress.position.step + 1
        run.skipped_steps += 1
        run.skipped_in_a_row += 1
        if self.is_main:
            logger.warning("step %d: the loss or its gradient is not finite; the step is skipped", step)
        if run.skipped_in_a_row >= MOST_SKIPPED:
            raise TrainingDivergedError(
                f"step {step}: {MOST_SKIPPED} steps in a row were not finite; go on from an earlier checkpoint "
                "(--resume CHECKPOINT), or start again with a lower training.learning_rate"
            )

    def _heed_spike(self, loss: float) -> None:
        usual = self.alarm.heed(loss)
        if usual is not None and self.is_main:
            step = self.progress.position.step + 1
            logger.warning("step %d: the loss jumped to %.4g, where %.4g is usual", step, loss, usual)

    def _log(self, logs: Logs, advance: Advance, rate: float, norm: float, *, now: bool) -> None:
        if not now:
            advance(1)
            return
        run = self.progress
        state = {"step": run.position.step, "epoch": run.position.epoch}
        end = {"learning_rate": rate, "gradient_norm": norm, "skipped_steps": run.skipped_steps,
               "loss_spikes": self.alarm.spikes}  # fmt: skip
        run.totals = run.totals.plus(self.meter.totals(self.accelerator))
        so_far = {"tokens": run.totals.tokens, "seconds": round(run.totals.seconds, 1)}
        logs.write({**state, **self.meter.entry(self.accelerator), **end, **so_far})
        self.meter = self.meter.fresh()
        advance(1, logs.status)

    def _validate(self, logs: Logs) -> None:
        with self.average.in_place(self.task.module) if self.average is not None else nullcontext():
            self.progress.validation = losses = validate(self.task, self.config, self.accelerator)
            if self.best is not None and losses:
                self.best.heed(losses["loss"], self.progress.position.step, self.task.module)
        self.progress.validation_due = False
        if losses:
            logs.write({"step": self.progress.position.step, **{f"validation_{k}": v for k, v in losses.items()}})

    def _save(self, until: float) -> None:
        accelerator, run = self.accelerator, self.progress
        state = {
            "step": run.position.step,
            "position": asdict(run.position),
            "identity": dict(self.identity),
            "skipped_steps": run.skipped_steps,
            "skipped_in_a_row": run.skipped_in_a_row,
            "totals": asdict(run.totals.plus(self.meter.totals(accelerator, until=until))),
            "unlogged": self.meter.unlogged(accelerator),
            "alarm": self.alarm.state(),
            "validation": run.validation,
            "validation_due": run.validation_due,
            **({"best": self.best.state()} if self.best is not None else {}),
        }
        save_checkpoint(
            self.checkpoints,
            self._checkpoint(),
            state,
            gather_rng(accelerator),
            self.config.keep_checkpoints,
            write=self.is_main,
        )
        accelerator.wait_for_everyone()

    def _checkpoint(self) -> Checkpoint:
        average, best = (kept.weights if kept is not None else None for kept in (self.average, self.best))
        return Checkpoint(self.task.module, self.optimizer, average, best)

    def _leave_marker(self, stop: StopSignal) -> None:
        step = self.progress.position.step
        if not self.is_main:
            return
        marker = {"step": step, "signal": stop.name, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        with atomic_file(self.output / STOPPED) as partial:
            partial.write_text(json.dumps(marker) + "\n", encoding="utf-8")
        logger.info("stopped on a signal at step %d; go on with --resume auto", step)

    def _any(self, flag: bool) -> bool:
        """Return whether ``flag`` is set in any process."""
        told = torch.tensor([float(flag)], device=self.device)
        return float(self.accelerator.reduce(told, "sum")) > 0

    def _summary(self) -> dict[str, Any]:
        run, step = self.progress, self.progress.position.step
        total = run.totals.plus(self.meter.totals(self.accelerator)) if self.meter.counts else run.totals
        return {
            "steps": step,
            "new_steps": step - self.resumed_at,
            "finished": self.is_done,
            **({"best_step": self.best.step or step} if self.best is not None else {}),
            "epochs": run.position.epoch,
            "skipped_steps": run.skipped_steps,
            "loss_spikes": self.alarm.spikes,
            "seconds": round(total.seconds, 1),
            "spectra": total.spectra,
            "tokens": total.tokens,
            "spectra_per_second": round(total.spectra / max(total.seconds, 1e-9), 1),
            "processes": self.accelerator.num_processes,
            "device": str(self.device),
            "validation": run.validation,
        }


def refuse_other_run(source: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `InputError` if a run's options differ from those of the checkpoint it is to go on from."""
    old, new = dotted(before), dotted(json.loads(json.dumps(now)))
    changed = [key for key in sorted({*old, *new}) if key not in old or key not in new or old[key] != new[key]]
    if changed:
        was = ", ".join(f"{key} (was {_short(old[key])})" if key in old else key for key in changed)
        raise InputError(f"{source}: was made with other values of {was}; restore them or start a new output")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def validate(task: Task, config: LoopConfig, accelerator: Accelerator) -> dict[str, float]:
    """Return the mean loss of each term over the validation batches, over all processes."""
    names, device = list(task.weights), accelerator.device
    totals = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    with evaluating(task):
        for rows in task.validation_batches():
            micro_batches = task.micro_batches(rows, 0, accelerator.process_index, accelerator.num_processes)
            spare = task.micro_batches(rows, 0, 0, 1)[:1] if not micro_batches else ()
            for micro_batch, real in equal_numbers(micro_batches, config, accelerator, spare):
                with accelerator.autocast():
                    terms = task.module(micro_batch.to(device))
                counts = task.counts(micro_batch)
                sums = torch.stack([terms[n].double() for n in names])
                own = torch.stack([sums, torch.tensor([counts[n] for n in names], dtype=torch.float64).to(device)])
                totals += own * float(real)
    sums, counts_all = accelerator.reduce(totals, "sum").tolist()
    means = {n: s / c for n, s, c in zip(names, sums, counts_all, strict=True) if c > 0}
    if means:
        means["loss"] = sum(task.weights[n] * v for n, v in means.items())
    return means


@contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """Switch dropout and gradients off within the context."""
    task.module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        task.module.train()
        reshard(task.module)
