"""What a run has done and how fast: sums between two log lines, totals over the whole run, and its usual loss."""

from __future__ import annotations

import logging
import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ..doctor import matmul_peak
from .stage import MicroBatch

logger = logging.getLogger("ionbed")

BACKWARD_FACTOR = 3
"""Operations of a training step over those of its forward pass: the backward pass takes twice as many."""


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
    """Sums since the last log line; spectra, tokens and losses are this process's own.

    Parameters
    ----------
    weights : mapping
        Weight of each term of the loss.
    peak : float
        FLOP/s of all processes together in a large matrix product; see `measured_peak`.
    """

    def __init__(self, weights: Mapping[str, float], peak: float) -> None:
        self.weights, self.peak = weights, peak
        self.spectra = self.tokens = self.attended = 0
        self.flops = self.waited = 0.0
        self.started = time.perf_counter()
        self.sums: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.own_counts: dict[str, float] = {}

    def fresh(self) -> Meter:
        """Return an empty one."""
        return Meter(self.weights, self.peak)

    def add_micro_batch(self, micro_batch: MicroBatch, flops: float, attended_tokens: int) -> None:
        """Add what this process has computed; ``flops`` are those of the forward pass."""
        self.spectra += len(micro_batch)
        self.tokens += micro_batch.num_tokens
        self.attended += attended_tokens
        self.flops += BACKWARD_FACTOR * flops

    def add_step(self, sums: Mapping[str, float], counts: Mapping[str, float], own_counts: Mapping[str, float]) -> None:
        """Add a step's own loss sums, its counts over all processes, and its own counts."""
        for mine, given in ((self.sums, sums), (self.counts, counts), (self.own_counts, own_counts)):
            for name, value in given.items():
                mine[name] = mine.get(name, 0.0) + value

    def entry(self, accelerator: Accelerator) -> dict[str, Any]:
        """Return one log line.

        Losses are means over all processes, ``loss_max`` is that of the process with the highest; ``mfu`` is the share
        of the measured peak that the encoder's products on real tokens come to (`ionbed.encoder.flops`), forward and
        backward; ``padding_share`` is of the tokens that attention is computed for; ``data_wait_share`` of the time,
        over all processes; ``memory_gb`` that of the process with the most: of the GPU, or else resident, at most
        since its start.
        """
        seconds = time.perf_counter() - self.started
        own_loss = sum(self.weights[n] * s / max(self.own_counts[n], 1) for n, s in self.sums.items())
        own = torch.tensor(
            [self.spectra, self.tokens, self.attended, self.flops, self.waited, own_loss, memory_gb(accelerator)],
            dtype=torch.float64,
        )
        everyone = accelerator.gather(own.to(accelerator.device).unsqueeze(0)).cpu()
        spectra, tokens, attended, flops, waited = everyone[:, :5].sum(0).tolist()
        sums = self.unlogged(accelerator)["sums"]
        losses = {name: value / self.counts[name] for name, value in sums.items() if self.counts[name] > 0}
        return {
            "loss": sum(self.weights[n] * v for n, v in losses.items()) if losses else math.nan,
            "loss_max": float(everyone[:, 5].max()) if losses else math.nan,
            **losses,
            "tokens_per_second": round(tokens / seconds, 1),
            "spectra_per_second": round(spectra / seconds, 1),
            "mfu": round(flops / seconds / self.peak, 4),
            "padding_share": round(1 - tokens / max(attended, 1), 4),
            "data_wait_share": round(waited / len(everyone) / seconds, 4),
            "memory_gb": round(float(everyone[:, 6].max()), 3),
        }

    def unlogged(self, accelerator: Accelerator) -> dict[str, dict[str, float]]:
        """Return the loss sums over all processes, and their counts, since the last log line."""
        names = list(self.sums)
        values = torch.tensor(list(self.sums.values()), dtype=torch.float64).to(accelerator.device)
        sums = accelerator.reduce(values, "sum").tolist()
        return {"sums": dict(zip(names, sums, strict=True)), "counts": dict(self.counts)}

    def restore(self, unlogged: Mapping[str, Mapping[str, float]], *, main_process: bool) -> None:
        """Go on from what `unlogged` returned, so that the next log line covers its whole interval."""
        share = 1.0 if main_process else 0.0  # of what came before, the main process speaks for all
        self.sums = {name: value * share for name, value in unlogged["sums"].items()}
        self.counts = dict(unlogged["counts"])
        self.own_counts = {name: value * share for name, value in unlogged["counts"].items()}

    def totals(self, accelerator: Accelerator, until: float | None = None) -> Totals:
        """Return what all processes have done since the last log line (``until`` a time of `time.perf_counter`)."""
        seconds = (time.perf_counter() if until is None else until) - self.started
        counts = torch.tensor([self.spectra, self.tokens], dtype=torch.float64).to(accelerator.device)
        spectra, tokens = accelerator.reduce(counts, "sum").tolist()
        return Totals(int(spectra), int(tokens), seconds)


class SpikeAlarm:
    """Tells when a loss lies far above what is usual: its exponential mean and deviation over some hundred steps.

    Parameters
    ----------
    deviations : float
        Standard deviations above the mean from which on a loss is a spike.
    """

    MEMORY = 0.98
    """Weight of what came before, in each step."""
    FIRST = 50
    """Steps before the first alarm: the mean and the deviation are not known before, and the loss falls fast."""

    def __init__(self, deviations: float) -> None:
        self.deviations = deviations
        self.mean = self.variance = 0.0
        self.steps = self.spikes = 0

    def heed(self, loss: float) -> float | None:
        """Take a step's loss; return the usual loss if this one is a spike, else None."""
        limit = self.mean + self.deviations * max(math.sqrt(self.variance), 0.01 * abs(self.mean))
        usual = self.mean if self.steps >= self.FIRST and loss > limit else None
        if usual is not None:
            self.spikes += 1
            loss = limit  # a spike must not make the next one usual
        weight = max(1 - self.MEMORY, 1 / (self.steps + 1))
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference**2)
        self.steps += 1
        return usual

    def state(self) -> dict[str, float]:
        """Return what `restore` takes."""
        return {"mean": self.mean, "variance": self.variance, "steps": self.steps, "spikes": self.spikes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.mean, self.variance = float(state["mean"]), float(state["variance"])
        self.steps, self.spikes = int(state["steps"]), int(state["spikes"])


def measured_peak(accelerator: Accelerator, precision: str) -> float:
    """Return FLOP/s of a large matrix product in the precision of training, summed over all processes.

    Warns where bf16 is slower than fp32: processors without instructions for it only imitate it.
    """
    device = str(accelerator.device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    own = matmul_peak(torch, device, dtype, seconds=PEAK_SECONDS)
    if precision == "bf16" and accelerator.is_main_process:
        full = matmul_peak(torch, device, torch.float32, seconds=PEAK_SECONDS)
        if full > SLOW_BF16 * own:
            logger.warning(
                "training.precision: a matrix product in bf16 takes %.1f times as long as in fp32 here; fp32 is faster",
                full / own,
            )
    peaks = accelerator.gather(torch.tensor([own], dtype=torch.float64).to(accelerator.device))
    return float(peaks.sum())


PEAK_SECONDS = 0.2
SLOW_BF16 = 1.2
"""Times of a matrix product in bf16 over that in fp32 from which on a run warns."""


def memory_gb(accelerator: Accelerator) -> float:
    """Return the most memory held so far, GB: of this process's GPU, or else its resident memory."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
