"""Pretraining as the loop takes it: the objective, the order of the spectra, and the collation of their batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..encoder.batching import FixedShapes, even_lengths, shares_of_processes, token_budget_batches
from ..encoder.collator import EncoderBatch
from ..encoder.flops import forward_flops
from ..encoder.modeling_ionbed import IonbedModel
from .config import PretrainConfig
from .data import TrainingSpectra, epoch_batches
from .group_objectives import GroupObjectives
from .joint_objective import JointBatch, JointObjective
from .masking import masked_batch
from .objective import MaskedPeakObjective


class MaskedPeakTask:
    """Masked-peak modelling of the spectra of a store, as `ionbed.pretrain.loop.train` takes it."""

    def __init__(self, config: PretrainConfig, spectra: TrainingSpectra) -> None:
        torch.manual_seed(config.training.seed)
        self.config = config
        self.spectra = spectra
        self.encoder = IonbedModel(config.model.encoder_config())
        masked = MaskedPeakObjective(self.encoder, config.masking)
        self.num_tokens = np.minimum(spectra.num_peaks, config.model.max_peaks) + 1
        self.group_objectives = (
            GroupObjectives(config, spectra, self.num_tokens, self.encoder.config) if config.objectives.names else None
        )
        self.module: MaskedPeakObjective | JointObjective = (
            JointObjective(masked, config.objectives) if self.group_objectives else masked
        )
        self.rows = self.group_objectives.rows if self.group_objectives else spectra.rows
        share = self.group_objectives.share if self.group_objectives else 0.0
        self.masked_tokens = round((1 - share) * config.training.batch_tokens)  # the rest goes to groups
        self.weights = self.module.weights
        longest = self.num_tokens.max()  # of the whole store: the validation fold is padded to the same lengths
        seen = np.append(self.num_tokens[spectra.rows], longest)
        self.lengths = even_lengths(seen) if config.training.compile else None

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        training = self.config.training
        return epoch_batches(self.rows, self.num_tokens, self.masked_tokens, training.seed, epoch,
                             self.lengths)  # fmt: skip

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch: of the validation fold, then of the runs held out."""
        rows = self.spectra.validation_rows
        fold = [rows[b] for b in token_budget_batches(self.num_tokens[rows], self.config.training.batch_tokens)]
        return fold + (self.group_objectives.validation_batches() if self.group_objectives else [])

    def micro_batches(self, rows: np.ndarray, epoch: int, process: int, processes: int) -> Sequence[JointBatch]:
        """Collate this process's part of a batch: of masked peaks, and of groups of spectra."""
        shapes = None
        if self.lengths is not None:
            budget = self.config.training.micro_batch_tokens
            shapes = FixedShapes.of_run(self.lengths, self.masked_tokens, budget, processes)
        groups: list[JointBatch] = []
        if self.group_objectives is not None:
            groups += self.group_objectives.micro_batches(rows, epoch, process, processes, shapes)
            if self.group_objectives.are_held_out(rows):
                return groups
        return [*self._masked(rows, epoch, process, processes, shapes), *groups]

    def _masked(
        self, rows: np.ndarray, epoch: int, process: int, processes: int, shapes: FixedShapes | None
    ) -> list[EncoderBatch]:
        """Collate and mask this process's part of a batch."""
        config, training = self.config, self.config.training
        num_tokens = self.num_tokens[rows]
        if shapes is None:
            parts = shares_of_processes(num_tokens, training.micro_batch_tokens, processes)[process]
        else:
            parts = shapes.shares_of_processes(num_tokens, processes)[process]
        batches = []
        for part in parts:
            own = rows[part]
            batch = masked_batch(self.spectra.columns(own), own, self.encoder.config, config.masking,
                                 training.seed, epoch)  # fmt: skip
            if shapes:
                batch = batch.padded_to(*shapes.shape_of(int(num_tokens[part].max(initial=1))))
            elif not len(part):  # a process without a spectrum takes part all the same
                batch = batch.padded_to(1, 1)
            batches.append(batch)
        return batches

    def counts(self, micro_batch: Any) -> dict[str, float]:
        """Return the number of masked peaks, spectra or pairs that each term sums over."""
        return self.module.counts(micro_batch)

    def flops(self, micro_batch: JointBatch) -> float:
        """Return the operations of the encoder's forward pass on real tokens."""
        return forward_flops(self.encoder.config, micro_batch.lengths)

    def attended_tokens(self, micro_batch: JointBatch) -> int:
        """Return for how many tokens the encoder computes attention, padding among them."""
        spectra = micro_batch if isinstance(micro_batch, EncoderBatch) else micro_batch.spectra
        return self.encoder.attended_tokens(spectra)
