"""Masked peaks together with the objectives that compare spectra: one module, one loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..encoder.collator import EncoderBatch
from ..encoder.modeling_ionbed import IonbedModel
from .config import ObjectivesConfig
from .neighbours import NeighbourBatch, neighbour_count, neighbour_loss
from .objective import MaskedPeakObjective
from .retention_order import OrderBatch, RetentionOrderHead, order_count, order_loss

JointBatch = EncoderBatch | NeighbourBatch | OrderBatch
"""A micro-batch is of one objective: masked peaks, neighbours (or views, which are of the same form), or order."""


class JointObjective(nn.Module):
    """Masked-peak modelling, and what is compared between spectra, on one encoder."""

    def __init__(self, masked: MaskedPeakObjective, config: ObjectivesConfig) -> None:
        super().__init__()
        self.masked = masked
        self.config = config
        self.order_head = (
            RetentionOrderHead(masked.encoder.config.output_dim) if "retention_order" in config.names else None
        )

    @property
    def encoder(self) -> IonbedModel:
        """The encoder that all objectives train."""
        return self.masked.encoder

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        return self.masked.weights | {name: getattr(self.config, name) for name in self.config.names}

    def counts(self, batch: JointBatch) -> dict[str, float]:
        """Return over how many masked peaks, spectra or pairs of them each term of `forward` is a sum."""
        if isinstance(batch, NeighbourBatch):
            counted = {batch.TERM: neighbour_count(batch)}
        elif isinstance(batch, OrderBatch):
            counted = {"retention_order": order_count(batch)}
        else:
            counted = self.masked.counts(batch)
        return dict.fromkeys(self.weights, 0.0) | counted

    def forward(self, batch: JointBatch) -> dict[str, torch.Tensor]:
        """Return the summed loss of each term; 0 for those that this micro-batch is not of."""
        if isinstance(batch, EncoderBatch):
            return self._terms(self.masked(batch), unused=[self.order_head])
        embedded_NE = self.encoder.embed_batch(batch.spectra)[: len(batch)]  # without those that fill up a shape
        unused = [child for name, child in self.masked.named_children() if name != "encoder"]
        if isinstance(batch, NeighbourBatch):
            with torch.autocast(embedded_NE.device.type, enabled=False):  # bf16 would round a logit by up to 0.1
                loss = neighbour_loss(embedded_NE, batch, self.config.temperature)
            return self._terms({batch.TERM: loss}, unused=[*unused, self.order_head])
        assert self.order_head is not None
        loss = order_loss(self.order_head(embedded_NE), batch)
        return self._terms({"retention_order": loss}, unused=unused)

    def _terms(self, losses: dict[str, torch.Tensor], unused: Sequence[nn.Module | None]) -> dict[str, torch.Tensor]:
        """Return all terms; the parameters of ``unused`` get a gradient of 0, for which distributed training waits."""
        zero = next(iter(losses.values())).new_zeros(())
        for module in unused:
            for parameter in module.parameters() if module is not None else ():
                zero = zero + parameter.sum() * 0
        return {name: losses.get(name, zero) for name in self.weights}
