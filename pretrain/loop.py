"""The training loop, for pretraining and fine-tuning alike: batches, steps, logs, validation, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
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
from .loader import Position, checked_batches, prefetched
from .logs import Logs
from .meter import Meter, Totals
from .optimisation import learning_rate, make_optimizer
from .processes import gather_rng, global_counts, on_cpu
from .signals import StopSignal
from .stage import Task

logger = logging.getLogger("ionbed")


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
            norm = float(accelerator.clip_grad_norm_(module.parameters(), config.max_grad_norm))
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
