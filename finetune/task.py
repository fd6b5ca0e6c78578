"""Contrastive fine-tuning as the loop takes it: what is sampled, and how a batch is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, replace

import numpy as np
import torch

from ..encoder.batching import shares_of_processes
from ..encoder.collator import collate
from ..encoder.configuration_ionbed import IonbedConfig
from ..encoder.flops import forward_flops
from ..encoder.loading import load_model
from ..encoder.modeling_ionbed import IonbedModel
from ..errors import InputError
from ..pretrain.augmentation import augment
from ..pretrain.data import TrainingSpectra
from ..pretrain.masking import hide_metadata
from ..spectra.molecule_features import FEATURES_VERSION
from ..spectra.molecules import element_formula, morgan_fingerprints, tanimoto_matrix
from ..spectra.store import Store
from .batch import ContrastiveBatch, StructureBatch
from .config import FinetuneConfig, SamplingConfig
from .molecule_share import rows_of_share
from .objective import ContrastiveObjective, term_counts
from .pool import Pool
from .sampling import MoleculeBatches, condition_codes, numbered_molecules
from .structures import StructureSampler, TrainingStructures, parents_of

_STRUCTURES = 201
"""Stream of random numbers from which the structures of a batch are drawn."""
RARE_BIT = 0.01
"""Bits of the fingerprint that fewer training molecules have, or lack, are not predicted."""


class ContrastiveTask:
    """Contrastive training on the labelled spectra of a store, as `ionbed.pretrain.loop.train` takes it.

    Parameters
    ----------
    config : FinetuneConfig
    spectra : TrainingSpectra
    pool : Pool, optional
        Further structures, where ``config.molecules.pool_share`` is above 0.

    Raises
    ------
    InputError
        No training spectrum has a structure, there are too few molecules, or the initial model is unusable.
    """

    def __init__(self, config: FinetuneConfig, spectra: TrainingSpectra, pool: Pool | None = None) -> None:
        torch.manual_seed(config.training.seed)
        self.config = config
        self.spectra = spectra
        self.encoder = initial_encoder(config)
        self.num_tokens = np.minimum(spectra.num_peaks, self.encoder.config.max_peaks) + 1
        self.molecule, structures = numbered_molecules(spectra.inchikey, spectra.smiles)
        smiles = list(structures.values())
        self.fingerprints = morgan_fingerprints(smiles)
        train_rows, validation_rows = (r[self.molecule[r] >= 0] for r in (spectra.rows, spectra.validation_rows))
        if not len(train_rows):
            raise InputError(f"{config.data.store}: no spectrum of the training folds has a structure to learn from")
        self.rows = rows_of_share(config.data, train_rows, self.molecule, list(structures))
        self.predicted_bits = self._predicted_bits()
        self.module = ContrastiveObjective(self.encoder, config, len(self.predicted_bits))
        self.weights = self.module.weights
        sampling = config.sampling
        self.formula: np.ndarray | None = None
        if sampling.formula_negatives_per_anchor:
            self.formula = np.array([element_formula(text) for text in smiles], object)
        self.conditions = self._conditions() if sampling.spread_conditions else None
        self.batches = self._sampler(self.rows, config.sampling)
        # A validation fold may be smaller than a batch; one molecule is no contrast at all.
        polarity = spectra.polarity[validation_rows]
        molecules = max(len(np.unique(self.molecule[validation_rows[polarity == sign]])) for sign in (1, -1, 0))
        sampling = replace(config.sampling, anchors=min(config.sampling.anchors, max(2, molecules)))
        self.validation = self._sampler(validation_rows, sampling) if molecules >= 2 else None
        self.is_validation = np.zeros(len(self.molecule), bool)
        self.is_validation[validation_rows] = True
        self.structures: dict[bool, StructureSampler] = {}
        if config.molecules.weight:
            self.structures = self._structure_samplers(structures, validation_rows, pool)

    def _structure_samplers(
        self, structures: Mapping[str, str], validation_rows: np.ndarray, pool: Pool | None
    ) -> dict[bool, StructureSampler]:
        """Return what draws structures for training (False) and for validation (True), each from its own fold."""
        parents = parents_of(structures)
        if pool is not None:
            pool = self._unknown(pool, {block for block, _ in parents})
        used = np.unique(self.molecule[np.concatenate([self.rows, validation_rows])])
        found = TrainingStructures.of(used, parents, pool)
        window, molecules = self.config.sampling.window_ppm, self.config.molecules
        return {
            held_out: StructureSampler(found, self.molecule[rows], window, molecules, use_pool=not held_out)
            for held_out, rows in ((False, self.rows), (True, validation_rows))
        }

    def _unknown(self, pool: Pool, parents: Set[str]) -> Pool:
        """Return the pool without what is in the store, is trained on by its spectra or must not be seen, or held out.

        ``parents`` are the first InChIKey blocks of the store's structures as a pool has them, without their salts.

        Raises
        ------
        InputError
            Nothing is left.
        """
        split = self.spectra.split
        in_store = {key[:14] for key in self.spectra.inchikey.tolist() if key}  # also where there is no SMILES
        left = pool.without({*in_store, *parents, *(split.folds if split is not None else ())})
        if not len(left.blocks):
            raise InputError(
                f"{self.config.molecules.pool}: store and split know all of its {len(pool.blocks):,} molecules; name "
                "another file as molecules.pool, or set molecules.pool_share to 0"
            )
        return left

    def _sampler(self, rows: np.ndarray, sampling: SamplingConfig) -> MoleculeBatches:
        spectra = self.spectra
        return MoleculeBatches(
            rows, self.molecule, spectra.precursor_mz, spectra.polarity, self.fingerprints, sampling,
            formula=self.formula, conditions=self.conditions,
        )  # fmt: skip

    def _predicted_bits(self) -> np.ndarray:
        """Return which bits of the fingerprint are predicted."""
        if not self.config.loss.fingerprint:
            return np.empty(0, np.int64)
        share = self.fingerprints[np.unique(self.molecule[self.rows])].mean(0)
        bits = np.flatnonzero((share >= RARE_BIT) & (share <= 1 - RARE_BIT))
        if not len(bits):
            raise InputError("loss.fingerprint: the training molecules have all bits in common; set it to 0")
        return bits

    def _conditions(self) -> np.ndarray:
        """Return under what conditions each spectrum of the store was made; see `condition_codes`."""
        names = ("laboratory", "instrument_type", "collision_energy")
        table = Store(self.config.data.store).table(names)
        laboratory, instrument_type = (np.array(table[name].to_pylist(), object) for name in names[:2])
        energy = np.array([np.nan if value is None else value for value in table[names[2]].to_pylist()], np.float64)
        return condition_codes(laboratory, instrument_type, energy)

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
        bits = fingerprints[self.molecule[own]][:, self.predicted_bits].astype(bool)
        return [
            ContrastiveBatch(
                parts=parts,
                sizes=[len(share) for share in shares],
                positive_AN=torch.from_numpy(same & ~itself),
                window_AN=torch.from_numpy(near & ~same),
                other_AN=torch.from_numpy(~same),
                tanimoto_AN=torch.from_numpy(tanimoto.astype(np.float32)),
                fingerprint_AK=torch.from_numpy(bits) if self.module.fingerprint_head is not None else None,
                structures=self._structures(rows, own, everyone, epoch, process, processes),
            )
        ]

    def _structures(
        self, rows: np.ndarray, own: np.ndarray, everyone: np.ndarray, epoch: int, process: int, processes: int
    ) -> StructureBatch | None:
        """Draw the structures of a batch (by all processes alike) and give this process its part of them."""
        if not self.structures:
            return None
        sampler = self.structures[bool(self.is_validation[rows[0]])]
        seed = [self.config.training.seed, epoch, _STRUCTURES, int(rows.min()), int(rows.max())]
        numbers = sampler.draw(np.unique(self.molecule[rows]), np.random.default_rng(seed))
        shares = np.array_split(numbers, processes)
        own_number, number = (sampler.structures.number_of[self.molecule[r]] for r in (own, everyone))
        return StructureBatch(
            features_SF=torch.from_numpy(sampler.structures.features.dense(shares[process])),
            sizes=[len(share) for share in shares],
            own_AM=torch.from_numpy(own_number[:, None] == numbers),
            near_AM=torch.from_numpy(sampler.are_near(own_number, numbers)),
            spectra_SN=torch.from_numpy(shares[process][:, None] == number),
        )

    def counts(self, micro_batch: ContrastiveBatch) -> dict[str, float]:
        """Return the number of anchors that each term sums over."""
        return term_counts(micro_batch, self.weights)

    def flops(self, micro_batch: ContrastiveBatch) -> float:
        """Return the operations of the encoder's forward pass on real tokens."""
        return sum(forward_flops(self.encoder.config, part.lengths) for part in micro_batch.parts)

    def attended_tokens(self, micro_batch: ContrastiveBatch) -> int:
        """Return for how many tokens the encoder computes attention, padding among them."""
        return sum(self.encoder.attended_tokens(part) for part in micro_batch.parts)


def initial_encoder(config: FinetuneConfig) -> IonbedModel:
    """Return the encoder that fine-tuning starts from; its projection and its molecule tower are new."""
    init, tower = config.init, config.molecules.width if config.molecules.weight else 0
    source = load_model(init.model) if init.model is not None else None
    before = source.config if source is not None else init.random.encoder_config()
    options = {f.name: getattr(before, f.name) for f in fields(type(init.random))}
    options |= {"embedding_dim": init.embedding_dim, "dropout": init.dropout, "precursor": init.precursor}
    options |= {"molecule_tower": tower, "molecule_features": FEATURES_VERSION}
    encoder = IonbedModel(IonbedConfig(**options, training=before.training))
    new = ("projection.", "molecule_tower.")
    if source is not None:
        weights = {k: v for k, v in source.state_dict().items() if not k.startswith(new)}
        result = encoder.load_state_dict(weights, strict=False)
        assert not result.unexpected_keys and all(k.startswith(new) for k in result.missing_keys)
    for parameter in (encoder.peak_embedding.hidden_mz, encoder.peak_embedding.hidden_intensity):
        parameter.requires_grad_(False)  # of masked-peak modelling alone; unused parameters stop distributed training
    return encoder.train()
