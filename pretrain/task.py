"""Pretraining as the loop takes it: the objective, the order of the spectra, and the collation of their batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..encoder.batching import token_budget_batches
from ..encoder.collator import EncoderBatch
from ..encoder.modeling_ionbed import IonbedModel
from .config import PretrainConfig
from .data import TrainingSpectra, epoch_batches
from .masking import masked_batch
from .objective import MaskedPeakObjective


class MaskedPeakTask:
    """Masked-peak modelling of the spectra of a store, as `ionbed.pretrain.loop.train` takes it."""

    def __init__(self, config: PretrainConfig, spectra: TrainingSpectra) -> None:
        torch.manual_seed(config.training.seed)
        self.config = config
        self.spectra = spectra
        self.encoder = IonbedModel(config.model.encoder_config())
        self.module = MaskedPeakObjective(self.encoder, config.masking)
        self.weights = self.module.weights
        self.num_tokens = np.minimum(spectra.num_peaks, config.model.max_peaks) + 1

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        training = self.config.training
        return epoch_batches(self.spectra.rows, self.num_tokens, training.batch_tokens, training.seed, epoch)

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch."""
        rows = self.spectra.validation_rows
        return [rows[b] for b in token_budget_batches(self.num_tokens[rows], self.config.training.batch_tokens)]

    def micro_batches(self, rows: np.ndarray, epoch: int, process: int, processes: int) -> Sequence[EncoderBatch]:
        """Collate and mask this process's part of a batch."""
        own = rows[process::processes]
        config = self.config
        parts = token_budget_batches(self.num_tokens[own], config.training.micro_batch_tokens)
        return [
            masked_batch(self.spectra.columns(own[part]), own[part], self.encoder.config, config.masking,
                         config.training.seed, epoch)
            for part in parts
        ]  # fmt: skip

    def counts(self, micro_batch: EncoderBatch) -> dict[str, float]:
        """Return the number of masked peaks that each term sums over."""
        return self.module.counts(micro_batch)
