"""The contrastive objective: an encoder, its molecule tower, learned temperatures, and the terms of the loss.

Shape suffixes: A spectra of this process, N of all processes, S structures of this process, M of all processes,
E embedding dimensions, K bits of a fingerprint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..encoder.collator import EncoderBatch
from ..encoder.modeling_ionbed import IonbedModel
from ..pretrain.contrast import contrast_anchors, contrastive_loss
from .batch import ContrastiveBatch, StructureBatch
from .config import LEARNED_TEMPERATURES, FinetuneConfig
from .losses import fingerprint_loss, gather_embeddings, gather_two, structure_loss


class ContrastiveObjective(nn.Module):
    """The encoder with what is trained beside it, as `ionbed.pretrain.loop.train` takes it.

    Parameters
    ----------
    encoder : IonbedModel
        With a molecule tower where ``config.molecules.weight`` is above 0.
    config : FinetuneConfig
    num_bits : int
        Bits of the fingerprint to predict, where ``config.loss.fingerprint`` is above 0.
    """

    def __init__(self, encoder: IonbedModel, config: FinetuneConfig, num_bits: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config.loss
        self.recompute = config.recompute
        self.weights = term_weights(config)
        # Temperatures are vectors of one element: a sharded parameter needs an axis.
        self.log_temperature = nn.Parameter(torch.tensor([math.log(config.loss.temperature)]))
        # Unused parameters stop distributed training.
        self.log_temperature.requires_grad_(bool(self.weights.keys() & {"contrast", "window", "structure"}))
        if config.molecules.weight:
            self.log_molecule_temperature = nn.Parameter(torch.tensor([math.log(config.molecules.temperature)]))
        self.fingerprint_head = (
            nn.Linear(encoder.config.output_dim, num_bits) if "fingerprint" in self.weights else None
        )

    def forward(self, batch: ContrastiveBatch) -> dict[str, torch.Tensor]:
        """Return the summed loss of each term over this process's anchors; see `ionbed.finetune.losses`."""
        own_AE = torch.cat([self._embedded(part) for part in batch.parts])
        terms: dict[str, torch.Tensor] = {}
        if self.fingerprint_head is not None:
            assert batch.fingerprint_AK is not None
            # Of a unit vector each number is about 1 / sqrt(E).
            logits_AK = self.fingerprint_head(own_AE * math.sqrt(own_AE.shape[1]))
            terms["fingerprint"] = fingerprint_loss(logits_AK.float(), batch.fingerprint_AK)
        structures = batch.structures
        if structures is not None:
            tower = self.encoder.molecule_tower
            assert tower is not None
            own_SE = tower(structures.features_SF)
        with torch.autocast(own_AE.device.type, enabled=False):  # bf16 would round a logit by up to 0.1
            if structures is None:
                all_NE = gather_embeddings(own_AE, batch.sizes)
            else:
                all_NE, all_ME = gather_two(own_AE, own_SE, batch.sizes, structures.sizes)
                terms |= self._structure_terms(own_AE @ all_ME.T, own_SE @ all_NE.T, structures)
            terms |= self._spectrum_terms(own_AE @ all_NE.T, batch)
        return terms

    def _embedded(self, part: EncoderBatch) -> torch.Tensor:
        """Return unit vectors of spectra; where configured, what lies between is computed again for the gradient."""
        if not (self.recompute and torch.is_grad_enabled()):
            return self.encoder.embed_batch(part)
        # The tensor beside the batch tells on which device the random state is to be kept, for dropout.
        embedded: torch.Tensor = checkpoint(
            lambda part, _: self.encoder.embed_batch(part), part, part.mz_BL, use_reentrant=False
        )
        return embedded

    def _spectrum_terms(self, similarity_AN: torch.Tensor, batch: ContrastiveBatch) -> dict[str, torch.Tensor]:
        temperature = _temperature(self.log_temperature)
        positive, window, other = batch.positive_AN, batch.window_AN, batch.other_AN
        return self._wanted({
            "contrast": lambda: contrastive_loss(similarity_AN, positive, other, temperature),
            "window": lambda: contrastive_loss(similarity_AN, positive, window, temperature),
            "structure": lambda: structure_loss(
                similarity_AN, batch.tanimoto_AN, other, temperature, self.config.structure_temperature
            ),
        })  # fmt: skip

    def _structure_terms(
        self, similarity_AM: torch.Tensor, similarity_SN: torch.Tensor, batch: StructureBatch
    ) -> dict[str, torch.Tensor]:
        temperature = _temperature(self.log_molecule_temperature)
        own, spectra = batch.own_AM, batch.spectra_SN
        return self._wanted({
            "spectrum_to_structure": lambda: contrastive_loss(similarity_AM, own, ~own, temperature),
            "structure_to_spectrum": lambda: contrastive_loss(similarity_SN, spectra, ~spectra, temperature),
            "structure_in_window": lambda: contrastive_loss(similarity_AM, own, batch.near_AM, temperature),
        })  # fmt: skip

    def _wanted(self, terms: Mapping[str, Callable[[], torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: term() for name, term in terms.items() if name in self.weights}


def term_weights(config: FinetuneConfig) -> dict[str, float]:
    """Return the weight of each term of the loss that is on."""
    loss, molecules = config.loss, config.molecules
    weights = {
        "contrast": loss.contrast,
        "window": loss.window,
        "structure": loss.structure,
        "fingerprint": loss.fingerprint,
        "spectrum_to_structure": molecules.weight / 2,
        "structure_to_spectrum": molecules.weight / 2,
        "structure_in_window": molecules.weight * molecules.window,
    }
    return {name: weight for name, weight in weights.items() if weight > 0}


def term_counts(batch: ContrastiveBatch, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the number of anchors that each term sums over."""
    positive, window, other = batch.positive_AN, batch.window_AN, batch.other_AN
    counts = {
        "contrast": contrast_anchors(positive, other | positive),
        "window": contrast_anchors(positive, window | positive),
        "structure": other.any(1),
        "fingerprint": torch.ones(len(batch)),
    }
    if batch.structures is not None:
        own, near, spectra = batch.structures.own_AM, batch.structures.near_AM, batch.structures.spectra_SN
        counts["spectrum_to_structure"] = contrast_anchors(own, ~own)
        counts["structure_to_spectrum"] = contrast_anchors(spectra, ~spectra)
        counts["structure_in_window"] = contrast_anchors(own, near)
    return {name: float(counts[name].sum()) for name in weights}


def _temperature(log_temperature: torch.Tensor) -> torch.Tensor:
    low, high = LEARNED_TEMPERATURES
    return log_temperature.clamp(math.log(low), math.log(high)).exp()
