"""The optimiser, the schedule of its learning rate, the moving average of the weights, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .config import LoopConfig


def make_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.AdamW:
    """Return AdamW; weight decay applies to matrices alone."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    beta1, beta2 = config.betas
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(beta1, beta2), fused=True)


def learning_rate(config: LoopConfig, step: int) -> float:
    """Return the rate of the step after ``step`` steps: a linear warm-up, then the schedule, down to its final ratio.

    After the warm-up 'cosine' falls by half a cosine, 'linear' in a line, 'constant' not at all, and 'wsd'
    (warm-up, stable, decay; Hu et al. 2024, MiniCPM) in a line over the last ``decay_steps``.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    after = config.steps - config.warmup_steps
    share = (step - config.warmup_steps) / max(1, after)
    match config.schedule:
        case "cosine":
            height = 0.5 * (1 + math.cos(math.pi * share))
        case "linear":
            height = 1 - share
        case "constant":
            return config.learning_rate
        case "wsd":
            decay = config.decay_steps or max(1, after // 10)
            height = min(1.0, (config.steps - step) / decay)
    floor = config.final_learning_rate_ratio
    return config.learning_rate * (floor + (1 - floor) * height)


class MovingAverage:
    """Exponential moving average of a module's weights, in their own precision and sharding.

    The first steps are averaged with a smaller decay, ``(1 + t) / (10 + t)``, so that the random start is forgotten
    (as TensorFlow's ExponentialMovingAverage does with ``num_updates``).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the weights of ``module`` after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own = list(self.weights.values())
        torch._foreach_lerp_(own, [p.detach() for _, p in module.named_parameters()], 1 - decay)

    @contextmanager
    def in_place(self, module: nn.Module) -> Iterator[None]:
        """Give ``module`` the averaged weights within the context."""
        self.swap(module)
        try:
            yield
        finally:
            self.swap(module)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the averaged weights and those of ``module``."""
        for name, parameter in module.named_parameters():
            own = self.weights[name]
            trained = parameter.detach().clone()
            parameter.copy_(own)
            own.copy_(trained)


class BestWeights:
    """A module's weights as they were at the lowest validation loss, and when to stop waiting for a lower one.

    Parameters
    ----------
    module : nn.Module
    patience : int
        Validations in a row without a lower loss after which training ends.
    """

    def __init__(self, module: nn.Module, patience: int) -> None:
        self.patience = patience
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.step, self.loss, self.waited = 0, math.inf, 0

    @property
    def has_lost_patience(self) -> bool:
        """Whether training should end."""
        return self.waited >= self.patience

    @torch.no_grad()
    def heed(self, loss: float, step: int, module: nn.Module) -> None:
        """Keep the weights if ``loss`` is the lowest so far; a loss that is no number is not."""
        if not loss < self.loss:
            self.waited += 1
            return
        self.step, self.loss, self.waited = step, loss, 0
        for name, parameter in module.named_parameters():
            self.weights[name].copy_(parameter)

    @torch.no_grad()
    def load_into(self, module: nn.Module) -> None:
        """Give ``module`` the weights that were kept."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides the weights."""
        return {"step": self.step, "loss": self.loss if self.step else None, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set what `state` has returned."""
        self.step, self.waited = state["step"], state["waited"]
        self.loss = math.inf if state["loss"] is None else state["loss"]
