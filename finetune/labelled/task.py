"""Training of encoder and head on labels, as `ionbed.pretrain.loop.train` takes it: LoRA or full fine-tuning."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...encoder.batching import shares_of_processes, token_budget_batches
from ...encoder.collator import EncoderBatch, collate
from ...encoder.configuration_ionbed import IonbedConfig
from ...encoder.flops import forward_flops
from ...encoder.loading import load_model
from ...encoder.modeling_ionbed import IonbedModel
from ...errors import InputError
from ...pretrain.augmentation import augment
from ...pretrain.data import epoch_batches
from ...pretrain.masking import hide_metadata
from ...pretrain.parallel import whole
from ...spectra.measurement_features import measurement_features
from .config import EncoderConfig, HeadConfig, LabelledConfig, TaskKind
from .examples import LabelledSpectra
from .linear import LinearHead
from .lora import Adapter
from .losses import class_weights, loss_of_spectra

TERM = "labels"
"""Name of the one term of the loss."""


@dataclass(frozen=True, eq=False)
class LabelledBatch:
    """Spectra with answers: B spectra, T columns of the truth, X features beside the embedding.

    Attributes
    ----------
    spectra : EncoderBatch
    features_BX : float32 tensor
        `measurement_features`, if the head is told them; else X = 0.
    truth_BT : float32 tensor
        NaN where unknown.
    weight_B : float32 tensor
    """

    spectra: EncoderBatch
    features_BX: torch.Tensor
    truth_BT: torch.Tensor
    weight_B: torch.Tensor

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self.spectra)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""
        return self.spectra.num_tokens

    def to(self, device: torch.device) -> LabelledBatch:
        """Return the batch on ``device``."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True), self.spectra.to(device))

    def pin_memory(self) -> LabelledBatch:
        """Return the batch in page-locked memory."""
        return self._mapped(torch.Tensor.pin_memory, self.spectra.pin_memory())

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], spectra: EncoderBatch) -> LabelledBatch:
        return LabelledBatch(spectra, change(self.features_BX), change(self.truth_BT), change(self.weight_B))


class LabelObjective(nn.Module):
    """An encoder with a head that starts from a fitted one, so that first steps spoil nothing (Kumar et al. 2022)."""

    def __init__(
        self, encoder: IonbedModel, head: LinearHead, task: TaskKind, weight_AK: np.ndarray, config: HeadConfig
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.task = task
        self.gamma = config.focal_gamma if config.imbalance == "focal" else 0.0
        self.weight = nn.Parameter(torch.from_numpy(head.weight.copy()))
        self.bias = nn.Parameter(torch.from_numpy(head.bias.copy()))
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.answer_weight: torch.Tensor
        for name, value in {"mean": head.mean, "scale": head.scale, "answer_weight": weight_AK}.items():
            self.register_buffer(name, torch.from_numpy(value.copy()))

    def forward(self, batch: LabelledBatch) -> dict[str, torch.Tensor]:
        """Return the summed weighted loss of the batch."""
        vectors_BE = self.encoder.embed_batch(batch.spectra)[: len(batch)]
        with torch.autocast(vectors_BE.device.type, enabled=False):
            read_BD = torch.cat([vectors_BE.float(), batch.features_BX], dim=1)
            scaled_BD = (read_BD - self.mean) * self.scale
            loss_B = loss_of_spectra(self.task, F.linear(scaled_BD, self.weight, self.bias), batch.truth_BT,
                                     self.answer_weight, self.gamma)  # fmt: skip
        return {TERM: (loss_B * batch.weight_B).sum()}

    def fitted_head(self) -> LinearHead:
        """Return the head as it is now; all processes must call this together where it is sharded."""
        mean, scale, weight, bias = (
            whole(tensor.detach()).cpu().float().numpy().copy()
            for tensor in (self.mean, self.scale, self.weight, self.bias)
        )
        return LinearHead(mean, scale, weight, bias)


class LabelledTask:
    """Training on labelled spectra, as `ionbed.pretrain.loop.train` takes it.

    Parameters
    ----------
    config : LabelledConfig
    spectra : LabelledSpectra
    encoder : IonbedModel
    head : LinearHead
        From which training starts.
    """

    def __init__(
        self, config: LabelledConfig, spectra: LabelledSpectra, encoder: IonbedModel, head: LinearHead
    ) -> None:
        self.config, self.spectra, self.encoder = config, spectra, encoder
        self.rows = spectra.train_rows
        truth, weight = spectra.scaled_values, spectra.weight
        weight_AK = class_weights(
            config.task, truth[self.rows], weight[self.rows], spectra.labels.num_outputs, config.head
        )
        torch.manual_seed(config.training.seed)
        self.adapter = Adapter(encoder, config.init) if config.init.train == "lora" else None
        self.module = LabelObjective(encoder, head, config.task, weight_AK, config.head)
        self.weights = {TERM: 1.0}
        self.truth, self.weight = torch.from_numpy(truth), torch.from_numpy(weight)
        self.num_tokens = np.minimum(spectra.num_peaks, encoder.config.max_peaks) + 1
        self.held_out = spectra.few_validation_rows
        self._is_held_out = np.zeros(len(truth), bool)
        self._is_held_out[self.held_out] = True

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        training = self.config.training
        return epoch_batches(self.rows, self.num_tokens, training.batch_tokens, training.seed, epoch)

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch."""
        batches = token_budget_batches(self.num_tokens[self.held_out], self.config.training.batch_tokens)
        return [self.held_out[batch] for batch in batches]

    def micro_batches(self, rows: np.ndarray, epoch: int, process: int, processes: int) -> Sequence[LabelledBatch]:
        """Collate this process's part of a batch; augmented, unless it is of the validation fold."""
        training, augmentation, encoder = self.config.training, self.config.augmentation, self.encoder.config
        batches = []
        for part in shares_of_processes(self.num_tokens[rows], training.micro_batch_tokens, processes)[process]:
            own = rows[part]
            columns = self.spectra.columns(own)
            if self._is_held_out[rows[0]]:
                batch = collate(columns, encoder)
            else:
                batch = collate(augment(columns, own, augmentation, training.seed, epoch), encoder)
                batch = hide_metadata(batch, own, augmentation.metadata_dropout, training.seed, epoch)
            if not len(own):  # a process without a spectrum takes part all the same
                batch = batch.padded_to(1, 1)
            tells = self.config.head.measurement
            features = measurement_features(columns) if tells else np.zeros((len(own), 0), np.float32)
            batches.append(LabelledBatch(batch, torch.from_numpy(features), self.truth[own], self.weight[own]))
        return batches

    def counts(self, micro_batch: LabelledBatch) -> dict[str, float]:
        """Return the summed weight of the spectra."""
        return {TERM: float(micro_batch.weight_B.sum())}

    def flops(self, micro_batch: LabelledBatch) -> float:
        """Return the operations of the encoder's forward pass on real tokens."""
        return forward_flops(self.encoder.config, micro_batch.spectra.lengths)

    def attended_tokens(self, micro_batch: LabelledBatch) -> int:
        """Return for how many tokens the encoder computes attention, padding among them."""
        return self.encoder.attended_tokens(micro_batch.spectra)


def starting_encoder(config: EncoderConfig, seed: int) -> IonbedModel:
    """Return the encoder that training on labels starts from, with the configured changes.

    A frozen one is what was loaded, a molecule tower included; what is trained loses its tower, which would no longer
    fit to it.

    Raises
    ------
    InputError
        There is no such model, or it was trained with another view of the precursor, which it keeps.
    """
    source = load_model(config.model)
    changes: dict[str, Any] = {}
    if config.precursor not in (None, source.config.precursor):
        if config.train != "full" and not config.random_weights:
            raise InputError(
                f"init.precursor is {config.precursor}, but the encoder was trained with {source.config.precursor}, "
                f"and init.train {config.train} teaches it no other; set init.train to full, or init.precursor to null"
            )
        changes["precursor"] = config.precursor
    if config.train != "frozen":
        changes |= {"dropout": config.dropout, "molecule_tower": 0}
    if not changes and not config.random_weights:
        return source
    before = source.config
    names = {*inspect.signature(IonbedConfig.__init__).parameters} - {"self", "kwargs", "training", "fusion"}
    options = {name: getattr(before, name) for name in names}
    torch.manual_seed(seed)
    encoder = IonbedModel(IonbedConfig(**{**options, **changes}))
    if not config.random_weights:
        kept = encoder.state_dict().keys()
        encoder.load_state_dict({name: of for name, of in source.state_dict().items() if name in kept})
        encoder.config.training = list(before.training)
    for parameter in (encoder.peak_embedding.hidden_mz, encoder.peak_embedding.hidden_intensity):
        parameter.requires_grad_(False)  # of masked-peak modelling alone; unused parameters stop distributed training
    return encoder
