"""Fine-tune an encoder for retrieval by supervised contrast: ``ionbed finetune CONFIG``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..configs.loading import to_tree
from ..encoder.batching import shares_of_processes
from ..encoder.collator import EncoderBatch, collate
from ..encoder.configuration_ionbed import IonbedConfig
from ..encoder.flops import forward_flops
from ..encoder.loading import load_model
from ..encoder.modeling_ionbed import IonbedModel
from ..errors import InputError
from ..pretrain.augmentation import augment
from ..pretrain.contrast import contrast_anchors, contrastive_loss
from ..pretrain.data import TrainingSpectra
from ..pretrain.loop import train
from ..pretrain.masking import hide_metadata
from ..pretrain.run import open_training_spectra, run_identity, sole_run, write_model
from ..pretrain.signals import StopSignal, heeding
from ..pretrain.trackers import check_trackers
from ..spectra.molecules import tanimoto_matrix
from .config import LEARNED_TEMPERATURES, FinetuneConfig, InitConfig, SamplingConfig
from .losses import gather_embeddings, structure_loss
from .sampling import MoleculeBatches, molecule_fingerprints


@dataclass(frozen=True, eq=False)
class ContrastiveBatch:
    """The A spectra of this process in a batch of N, in parts of about equal length, and how the batch is related.

    Attributes
    ----------
    parts : list of EncoderBatch
    sizes : list of int
        Spectra of each process.
    positive_AN, window_AN, other_AN : bool tensors
        Same molecule (not itself); another molecule within the precursor window; another molecule.
    tanimoto_AN : float32 tensor
    """

    parts: list[EncoderBatch]
    sizes: list[int]
    positive_AN: torch.Tensor
    window_AN: torch.Tensor
    other_AN: torch.Tensor
    tanimoto_AN: torch.Tensor

    def __len__(self) -> int:
        """Return the number of this process's spectra."""
        return len(self.positive_AN)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""
        return sum(part.num_tokens for part in self.parts)

    def to(self, device: torch.device) -> ContrastiveBatch:
        """Return the batch on ``device``."""
        return self._mapped(lambda t: t.to(device, non_blocking=True), [part.to(device) for part in self.parts])

    def pin_memory(self) -> ContrastiveBatch:
        """Return the batch in page-locked memory."""
        return self._mapped(torch.Tensor.pin_memory, [part.pin_memory() for part in self.parts])

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], parts: list[EncoderBatch]) -> ContrastiveBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, parts=parts, **changed)


class ContrastiveObjective(nn.Module):
    """The encoder with a learned temperature, as `ionbed.pretrain.loop.train` takes it."""

    def __init__(self, encoder: IonbedModel, config: FinetuneConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config.loss
        self.log_temperature = nn.Parameter(torch.tensor([math.log(config.loss.temperature)]))  # a shard has an axis

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        loss = self.config
        weights = {"contrast": loss.contrast, "window": loss.window, "structure": loss.structure}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def forward(self, batch: ContrastiveBatch) -> dict[str, torch.Tensor]:
        """Return the summed loss of each term over this process's anchors; see `ionbed.finetune.losses`."""
        own_AE = torch.cat([self.encoder.embed_batch(part) for part in batch.parts])
        with torch.autocast(own_AE.device.type, enabled=False):  # bf16 would round a logit by up to 0.1
            return self._terms(own_AE @ gather_embeddings(own_AE, batch.sizes).T, batch)

    def _terms(self, similarity_AN: torch.Tensor, batch: ContrastiveBatch) -> dict[str, torch.Tensor]:
        low, high = LEARNED_TEMPERATURES
        temperature = self.log_temperature.clamp(math.log(low), math.log(high)).exp()
        positive, window, other = batch.positive_AN, batch.window_AN, batch.other_AN
        terms = {
            "contrast": lambda: contrastive_loss(similarity_AN, positive, other, temperature),
            "window": lambda: contrastive_loss(similarity_AN, positive, window, temperature),
            "structure": lambda: structure_loss(
                similarity_AN, batch.tanimoto_AN, other, temperature, self.config.structure_temperature
            ),
        }
        return {name: terms[name]() for name in self.weights}


class ContrastiveTask:
    """Contrastive training on the labelled spectra of a store, as `ionbed.pretrain.loop.train` takes it."""

    def __init__(self, config: FinetuneConfig, spectra: TrainingSpectra) -> None:
        torch.manual_seed(config.training.seed)
        self.config = config
        self.spectra = spectra
        self.encoder = initial_encoder(config.init)
        self.module = ContrastiveObjective(self.encoder, config)
        self.weights = self.module.weights
        self.num_tokens = np.minimum(spectra.num_peaks, self.encoder.config.max_peaks) + 1
        self.molecule, self.fingerprints = molecule_fingerprints(spectra.inchikey, spectra.smiles)
        train_rows, validation_rows = (r[self.molecule[r] >= 0] for r in (spectra.rows, spectra.validation_rows))
        if not len(train_rows):
            raise InputError(f"{config.data.store}: no spectrum of the training folds has a structure to learn from")
        self.rows = train_rows
        self.batches = self._sampler(train_rows, config.sampling)
        # A validation fold may be smaller than a batch; one molecule is no contrast at all.
        polarity = spectra.polarity[validation_rows]
        molecules = max(len(np.unique(self.molecule[validation_rows[polarity == sign]])) for sign in (1, -1, 0))
        sampling = replace(config.sampling, anchors=min(config.sampling.anchors, max(2, molecules)))
        self.validation = self._sampler(validation_rows, sampling) if molecules >= 2 else None

    def _sampler(self, rows: np.ndarray, sampling: SamplingConfig) -> MoleculeBatches:
        spectra = self.spectra
        return MoleculeBatches(rows, self.molecule, spectra.precursor_mz, spectra.polarity, self.fingerprints, sampling)

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch."""
        return self.batches.epoch(self.config.training.seed, epoch)

    def validation_batches(self) -> list[np.ndarray]:
        """Return the rows of each validation batch, the same every time."""
        return self.validation.epoch(self.config.training.seed, 0) if self.validation else []

    def micro_batches(self, rows: np.ndarray, epoch: int, process: int, processes: int) -> Sequence[ContrastiveBatch]:
        """Collate this process's part of a batch, augmented; the losses need the whole batch, so there is one.

        None, on all processes alike, where the batch has too few spectra to give one to each.
        """
        if len(rows) < processes:
            return []
        training, augmentation = self.config.training, self.config.augmentation
        # Equally many parts for each process: sharded weights are gathered for each, by all processes together.
        divided = shares_of_processes(self.num_tokens[rows], training.micro_batch_tokens, processes)
        shares = [rows[np.concatenate(places)] for places in divided]
        own, everyone = shares[process], np.concatenate(shares)
        parts = []
        for places in divided[process]:
            part = rows[places]
            columns = augment(self.spectra.columns(part), part, augmentation, training.seed, epoch)
            batch = collate(columns, self.encoder.config)
            parts.append(hide_metadata(batch, part, augmentation.metadata_dropout, training.seed, epoch))
        same = self.molecule[own][:, None] == self.molecule[everyone]
        itself = own[:, None] == everyone
        precursor, polarity = self.spectra.precursor_mz, self.spectra.polarity
        near = (
            np.abs(np.log(precursor[own])[:, None] - np.log(precursor[everyone]))
            <= self.config.sampling.window_ppm * 1e-6
        )
        near &= polarity[own][:, None] == polarity[everyone]
        fingerprints = self.fingerprints
        tanimoto = tanimoto_matrix(fingerprints[self.molecule[own]], fingerprints[self.molecule[everyone]])
        return [
            ContrastiveBatch(
                parts=parts,
                sizes=[len(share) for share in shares],
                positive_AN=torch.from_numpy(same & ~itself),
                window_AN=torch.from_numpy(near & ~same),
                other_AN=torch.from_numpy(~same),
                tanimoto_AN=torch.from_numpy(tanimoto.astype(np.float32)),
            )
        ]

    def counts(self, micro_batch: ContrastiveBatch) -> dict[str, float]:
        """Return the number of anchors that each term sums over."""
        positive, window, other = micro_batch.positive_AN, micro_batch.window_AN, micro_batch.other_AN
        counts = {
            "contrast": contrast_anchors(positive, other | positive),
            "window": contrast_anchors(positive, window | positive),
            "structure": other.any(1),
        }
        return {name: float(counts[name].sum()) for name in self.weights}

    def flops(self, micro_batch: ContrastiveBatch) -> float:
        """Return the operations of the encoder's forward pass on real tokens."""
        return sum(forward_flops(self.encoder.config, part.lengths) for part in micro_batch.parts)

    def attended_tokens(self, micro_batch: ContrastiveBatch) -> int:
        """Return for how many tokens the encoder computes attention, padding among them."""
        return sum(self.encoder.attended_tokens(part) for part in micro_batch.parts)


def initial_encoder(config: InitConfig) -> IonbedModel:
    """Return the encoder that fine-tuning starts from, with its projection new and the configured changes."""
    source = load_model(config.model) if config.model is not None else None
    before = source.config if source is not None else config.random.encoder_config()
    options = {f.name: getattr(before, f.name) for f in fields(type(config.random))}
    options |= {"embedding_dim": config.embedding_dim, "dropout": config.dropout, "precursor": config.precursor}
    encoder = IonbedModel(IonbedConfig(**options, training=before.training))
    if source is not None:
        weights = {k: v for k, v in source.state_dict().items() if not k.startswith("projection.")}
        result = encoder.load_state_dict(weights, strict=False)
        assert not result.unexpected_keys and all(k.startswith("projection.") for k in result.missing_keys)
    for parameter in (encoder.peak_embedding.hidden_mz, encoder.peak_embedding.hidden_intensity):
        parameter.requires_grad_(False)  # of masked-peak modelling alone; unused parameters stop distributed training
    return encoder.train()


def finetune(config: FinetuneConfig, *, resume: str | None = None, stop: StopSignal | None = None) -> Path:
    """Fine-tune an encoder by supervised contrast and write its model folder.

    Positives are spectra of one molecule (first InChIKey block); negatives include its isobars within the precursor
    window. See `ionbed.pretrain.run.pretrain` for the parameters, the result and the errors.
    """
    with sole_run(config.output), heeding(stop) as stop:
        check_trackers(config.training.trackers)  # now, not when the data has been made ready
        spectra = open_training_spectra(config.output, resume, lambda cache: TrainingSpectra(config.data, cache))
        task = ContrastiveTask(config, spectra)
        tree = to_tree(config)
        identity = run_identity(config, spectra, dropout=config.init.dropout)
        if config.init.model:
            identity["init"]["model"] = load_model(config.init.model).model_hash()
            del identity["init"]["random"]
        about = {"command": "finetune", "config": tree}
        summary = train(task, config.training, config.output, identity, resume, stop, about)
    return write_model(task.encoder, config.output, "finetune", tree, spectra, task.rows, summary, task.weights)
