"""What a stage of training (pretraining, fine-tuning) brings to the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn


class MicroBatch(Protocol):
    """What one forward and backward pass takes."""

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""

    def to(self, device: torch.device) -> MicroBatch:
        """Return it on ``device``."""

    def pin_memory(self) -> MicroBatch:
        """Return it in page-locked memory, from which a GPU copies on its own."""

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

    def flops(self, micro_batch: Any) -> float:
        """Return the floating-point operations of the encoder's forward pass, on real tokens."""

    def attended_tokens(self, micro_batch: Any) -> int:
        """Return for how many tokens the encoder computes attention, padding among them."""

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch (empty where there is no validation fold)."""
