"""What a run has done and how fast: sums between two log lines, and totals over the whole run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from .loader import Position


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
