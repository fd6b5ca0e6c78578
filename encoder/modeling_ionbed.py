"""The encoder: a transformer whose attention sees mass differences, one token per peak and one for the precursor.

Shape suffixes: B spectra, L tokens (the precursor first), D hidden size, H heads, K dimensions of a head,
R rotated pairs of a head, W wavelengths, E embedding dimensions, T real tokens of a batch without padding between.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ..errors import InputError
from ..progress import progress as show_progress
from ..progress import unseen
from ..spectra.columns import SpectrumColumns
from ..spectra.matchms_spectra import as_spectra
from ..spectra.molecule_features import FEATURES_VERSION, MoleculeFeatures, UnreadableStructureError
from ..spectra.spectrum import Spectrum
from .attention import Packing, Rotation, attend, attended_tokens, packing_for, rotated_qkv
from .batching import token_budget_batches
from .collator import MAX_CHARGE, EncoderBatch, collate, select_peaks
from .configuration_ionbed import IonbedConfig
from .molecule_tower import MoleculeTower
from .pairwise import PairwiseBias
from .remote_code import AUTO_MAP, write_remote_code

NUM_INTENSITY_FEATURES = 3
MOLECULES_AT_ONCE = 1024
MOST_COMPILED = 64
"""Shapes of micro-batches up to which layers are compiled; torch's own limit is 8 and ends the run."""


def geometric_wavelengths(
    wavelength_range: tuple[float, float], count: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return ``count`` wavelengths over a range (Da) in geometric progression, float64.

    They are made where they are used and are no buffers: ``model.to(torch.bfloat16)`` must not round them.
    """
    low, high = wavelength_range
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64, device=device)


def phase_angles(mz: torch.Tensor, wavelengths: torch.Tensor) -> torch.Tensor:
    """Return ``2 pi (mz / wavelength mod 1)`` in float32, computed and range-reduced in float64.

    At m/z 1000 and a wavelength of 1e-3 Da there are 1e6 turns: float32 would leave no digit of the phase.
    The shape is that of ``mz`` with one more axis, over the wavelengths.
    """
    turns = mz.double().unsqueeze(-1) / wavelengths
    return (turns - turns.floor()).float().mul_(2 * math.pi)


class PeakEmbedding(nn.Module):
    """Tokens from m/z and intensity, and from the precursor with its metadata."""

    def __init__(self, config: IonbedConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.mz_in = nn.Linear(2 * config.num_mz_wavelengths, size)
        self.intensity_in = nn.Linear(NUM_INTENSITY_FEATURES, size, bias=False)
        self.out = nn.Linear(size, size)
        self.hidden_mz = nn.Parameter(torch.empty(size))
        self.hidden_intensity = nn.Parameter(torch.empty(size))
        self.precursor = nn.Parameter(torch.empty(size))
        tables = {
            "polarity": 3,
            "charge": MAX_CHARGE + 1,
            "adduct": len(config.adducts) + 1,
            "instrument": len(config.instruments) + 1,
        }
        self.tables = nn.ModuleDict({k: nn.Embedding(n, size) for k, n in tables.items() if k in config.conditioning})
        if "collision_energy" in config.conditioning:
            self.energy_in = nn.Sequential(nn.Linear(2, size), nn.SiLU(), nn.Linear(size, size))
            self.unknown_energy = nn.Parameter(torch.empty(size))

    def forward(self, batch: EncoderBatch) -> torch.Tensor:
        """Return tokens of shape (B, L, D)."""
        config = self.config
        wavelengths_W = geometric_wavelengths(config.mz_wavelengths, config.num_mz_wavelengths, batch.mz_BL.device)
        angles_BLW = phase_angles(batch.mz_BL, wavelengths_W)
        features = torch.cat([angles_BLW.sin(), angles_BLW.cos()], dim=-1).to(self.out.weight.dtype)
        mz_BLD = self.mz_in(features)
        if batch.hidden_mz_BL is not None:
            mz_BLD = torch.where(batch.hidden_mz_BL.unsqueeze(-1), self.hidden_mz.to(mz_BLD.dtype), mz_BLD)
        intensity_BL = batch.intensity_BL
        intensity_features = torch.stack(
            [intensity_BL, intensity_BL.sqrt(), intensity_BL.clamp_min(1e-4).log10() / 4 + 1], dim=-1
        )
        intensity_BLD = self.intensity_in(intensity_features)
        if batch.hidden_intensity_BL is not None:
            hidden = batch.hidden_intensity_BL.unsqueeze(-1)
            intensity_BLD = torch.where(hidden, self.hidden_intensity.to(intensity_BLD.dtype), intensity_BLD)
        tokens_BLD = self.out(F.silu(mz_BLD + intensity_BLD)).float()
        precursor_BD = self.precursor + self._metadata(batch)
        if self.config.precursor == "full":
            precursor_BD = precursor_BD + tokens_BLD[:, 0]
        return torch.cat([precursor_BD.unsqueeze(1), tokens_BLD[:, 1:]], dim=1)

    def _metadata(self, batch: EncoderBatch) -> torch.Tensor:
        """Return the sum of the embedded metadata, (B, D)."""
        total_BD = torch.zeros(len(batch.mz_BL), self.config.hidden_size, device=batch.mz_BL.device)
        for name, table in self.tables.items():
            total_BD = total_BD + table(getattr(batch, f"{name}_B"))
        if "collision_energy" in self.config.conditioning:
            energy_B = batch.collision_energy_B
            unknown_B = energy_B.isnan()
            energy_B = energy_B.nan_to_num(0.0).clamp(0, 300)
            energy_BD = self.energy_in(torch.stack([energy_B / 50, energy_B.add(1).log() / 4], dim=-1)).float()
            total_BD = total_BD + torch.where(unknown_B.unsqueeze(-1), self.unknown_energy, energy_BD)
        return total_BD


def rotation_by(mz: torch.Tensor, config: IonbedConfig, dtype: torch.dtype) -> Rotation:
    """Return the rotation of each head's dimensions by m/z (of any shape).

    Queries and keys so rotated give scores that depend on the mass difference of two tokens (rotary embedding with
    m/z as the position; Su et al. 2021, RoFormer). Each head has its own wavelengths, interleaved so that every head
    spans the whole range.
    """
    shape = (config.num_rotary, config.num_heads)
    wavelengths = geometric_wavelengths(config.rotary_wavelengths, math.prod(shape), mz.device)
    angles = phase_angles(mz, wavelengths.reshape(shape).T.flatten()).unflatten(-1, shape[::-1])
    return Rotation.of(angles, config.hidden_size // config.num_heads, dtype)


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: IonbedConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.compile_backend: str | None = None
        self.attention_norm = nn.LayerNorm(size)
        self.qkv = nn.Linear(size, 3 * size)
        self.attention_out = nn.Linear(size, size)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp_in = nn.Linear(size, config.mlp_ratio * size)
        self.mlp_out = nn.Linear(config.mlp_ratio * size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, *inputs: Any) -> torch.Tensor:
        """Return what `compute` does; compiled, in training, where there is a backend for it."""
        if self.compile_backend is not None and self.training:
            return compiled_layer(self.compile_backend)(self, *inputs)
        return self.compute(*inputs)

    def compute(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        key_mask: torch.Tensor | None,
        packing: Packing | None = None,
    ) -> torch.Tensor:
        """Return tokens of the shape of ``x``: (B, L, D), or (T, D) with a packing.

        ``key_mask`` is that of `attend`; None where nothing is padded, or with a packing.
        """
        qkv = rotated_qkv(self.qkv(self.attention_norm(x)), rotation)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in qkv)
        if packing is not None:
            mixed = packing.attend(q, k, v)
        else:
            mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), key_mask).transpose(1, 2)
        x = x + self.dropout(self.attention_out(mixed.flatten(-2)))
        wide = F.silu(self.mlp_in(self.mlp_norm(x)), inplace=not torch.is_grad_enabled())
        return x + self.dropout(self.mlp_out(wide))


@cache
def compiled_layer(backend: str) -> Callable[..., torch.Tensor]:
    """Return `Block.compute` compiled: once for every shape, for all layers together.

    A function is compiled and not the module: what runs around a layer (FSDP gathers its weights) stays outside.
    """
    from torch._dynamo import config as dynamo

    dynamo.recompile_limit = max(dynamo.recompile_limit, MOST_COMPILED)
    return torch.compile(Block.compute, backend=backend, fullgraph=True, dynamic=False)


class IonbedModel(PreTrainedModel):
    """Encoder of MS/MS spectra.

    ``forward`` gives the hidden state of every token; `embed` the unit vectors that search and evaluation use.
    Loadable by ``transformers.AutoModel`` once this module is imported, or with ``trust_remote_code=True``.
    """

    config: IonbedConfig
    config_class = IonbedConfig
    base_model_prefix = "ionbed"

    def __init__(self, config: IonbedConfig) -> None:
        super().__init__(config)
        self.peak_embedding = PeakEmbedding(config)
        self.pairwise_bias = PairwiseBias(config) if config.pairwise_bias else None
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.projection = (
            nn.Linear(2 * config.hidden_size, config.embedding_dim) if config.embedding_dim is not None else None
        )
        self.molecule_tower = MoleculeTower(config) if config.molecule_tower else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, PeakEmbedding):
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter, std=std)

    def forward(self, batch: EncoderBatch) -> torch.Tensor:
        """Return the hidden states, (B, L, D); those of padded tokens mean nothing."""
        dtype = self._compute_dtype(batch.mz_BL.device.type)
        key_mask: torch.Tensor | None = batch.mask_BL[:, None, None, :]
        packing = None
        if self.pairwise_bias is not None:
            key_mask = self._biases(batch).to(dtype)
        elif not self._wants_one_shape:
            packing = packing_for(batch.mask_BL, dtype, self._head_size)
            if packing is not None or bool(batch.mask_BL.all()):
                key_mask = None
        x, position = self.peak_embedding(batch), self._positions(batch)
        if packing is not None:
            x, position = packing.pack(x), packing.pack(position)
        rotation = rotation_by(position, self.config, dtype) if self.config.num_rotary else None
        for layer in self.layers:
            x = layer(x, rotation, key_mask, packing)
        x = self.norm(x)
        return x if packing is None else packing.unpack(x)

    def attended_tokens(self, batch: EncoderBatch) -> int:
        """Return for how many tokens `forward` computes attention, padding among them."""
        if self.pairwise_bias is not None or self._wants_one_shape:
            return batch.num_slots
        dtype = self._compute_dtype(self.device.type)
        lengths = batch.mask_BL.sum(1).cpu().numpy()
        return attended_tokens(lengths, batch.num_slots, self.device, dtype, self._head_size)

    @property
    def _head_size(self) -> int:
        return int(self.config.hidden_size // self.config.num_heads)

    @property
    def _wants_one_shape(self) -> bool:
        """Whether layers are compiled: for one shape and one kind of mask each."""
        return bool(self.training and self.layers[0].compile_backend)

    def compile_layers(self, backend: str = "inductor") -> None:
        """Let `torch.compile` make the layers faster in training; evaluation and `embed` are left as they are.

        Every shape of a micro-batch is compiled anew, a minute or so each: keep to a few, with padding
        (`ionbed.encoder.batching.FixedShapes`).

        Parameters
        ----------
        backend : str
            Of `torch.compile`.
        """
        for layer in self.layers:
            assert isinstance(layer, Block)
            layer.compile_backend = backend

    def pool(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (B, E): the precursor token and the mean over the peaks, projected if configured."""
        hidden_BLD = hidden_BLD.float()
        weight_BL1 = mask_BL.unsqueeze(-1).float()
        total_BD = (hidden_BLD * weight_BL1).sum(1)
        if self.projection is None:
            return F.normalize(total_BD / weight_BL1.sum(1), dim=-1)
        peaks_BD = (total_BD - hidden_BLD[:, 0]) / (weight_BL1.sum(1) - 1).clamp_min(1)
        return F.normalize(self.projection(torch.cat([hidden_BLD[:, 0], peaks_BD], dim=-1)).float(), dim=-1)

    def embed_batch(self, batch: EncoderBatch) -> torch.Tensor:
        """Return unit vectors of shape (B, E), with gradients where enabled."""
        return self.pool(self(batch), batch.mask_BL)

    @torch.inference_mode()
    def embed(
        self, spectra: Iterable[Spectrum] | SpectrumColumns, *, batch_tokens: int = 4096, progress: bool = False
    ) -> np.ndarray:
        """Embed spectra.

        Parameters
        ----------
        spectra : iterable of Spectrum (or of matchms.Spectrum), or SpectrumColumns
        batch_tokens : int
            Tokens computed at once; the result does not depend on it (to 1e-5).
        progress : bool
            Show the progress on stderr.

        Returns
        -------
        float32 array of shape (n_spectra, dim)
            Rows of unit length, in the order given.
        """
        columns = (
            spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(as_spectra(spectra)))
        )
        columns, _ = select_peaks(columns, self.config)
        result = np.empty((len(columns), self.config.output_dim), np.float32)
        batches = token_budget_batches(columns.num_peaks + 1, batch_tokens)
        was_training = self.training
        self.eval()
        try:
            with show_progress("embed", len(columns)) if progress else unseen() as advance:
                for rows in batches:
                    batch = collate(columns.take(rows), self.config, peaks_selected=True).to(self.device)
                    result[rows] = self.embed_batch(batch).float().cpu().numpy()
                    advance(len(rows))
        finally:
            self.train(was_training)
        return result

    def embed_molecules(self, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        """Embed structures; the inner product with a spectrum's embedding tells how well they fit.

        Parameters
        ----------
        smiles : sequence of str
            As `ionbed.spectra.molecules.standardise` draws them: the model was trained with those.
        workers : int or None
            Processes that read many structures; see `ionbed.spectra.molecule_features.molecule_features`.
        progress : bool
            Show the progress on stderr.

        Returns
        -------
        float32 array of shape (n_molecules, dim)
            Rows of unit length, in the order given.

        Raises
        ------
        InputError
            The model has no molecule tower, or one of other features; or a SMILES cannot be read, or there is one text
            in place of several.
        """
        tower = self.molecule_tower
        if tower is None:
            raise InputError("the model was not trained with structures; fine-tune with molecules.weight above 0")
        if self.config.molecule_features != FEATURES_VERSION:
            raise InputError(
                f"the model reads features of structures of version {self.config.molecule_features}, this ionbed "
                f"computes version {FEATURES_VERSION}; use the ionbed that trained it, or fine-tune again"
            )
        if isinstance(smiles, str):  # whose letters would be read as structures: those of CCO as three
            raise InputError(f"{smiles!r} is one text; give a list of SMILES")
        try:
            features = MoleculeFeatures.of(smiles, workers=workers, progress=progress)
        except UnreadableStructureError as error:
            where = f"structure {error.position + 1:,} of {len(smiles):,}"
            raise InputError(f"{where}: {error}; correct it or leave it out") from None
        result = np.empty((len(features), self.config.output_dim), np.float32)
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(features), MOLECULES_AT_ONCE):
                    rows = slice(start, start + MOLECULES_AT_ONCE)
                    result[rows] = tower(torch.from_numpy(features.dense(rows)).to(self.device)).cpu().numpy()
        finally:
            self.train(was_training)
        return result

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **options: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``, as `transformers.PreTrainedModel.save_pretrained` does.

        Beside them the module by which `transformers.AutoModel` finds the installed ionbed (`write_remote_code`).
        """
        self.config.auto_map = dict(AUTO_MAP)
        with without_progress_bars():
            super().save_pretrained(save_directory, *args, **options)
        write_remote_code(save_directory)
        mask = os.umask(0)
        os.umask(mask)
        for weights in Path(save_directory).glob("*.safetensors"):
            weights.chmod(0o666 & ~mask)  # safetensors makes them private to the user, who may want to share a model

    def model_hash(self) -> str:
        """Return SHA-256 over the weights and the configuration: two models with one hash embed alike."""
        digest = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _identity(self) -> dict[str, Any]:
        import inspect

        names = [*inspect.signature(IonbedConfig.__init__).parameters]
        # A model without a bias, or a tower, keeps the hash it had before there were these options.
        bias = () if self.config.pairwise_bias else ("pairwise_bias",)
        tower = () if self.config.molecule_tower else ("molecule_tower", "molecule_features")
        for name in ("self", "training", "fusion", "kwargs", *bias, *tower):
            names.remove(name)
        return {name: getattr(self.config, name) for name in names}

    def _biases(self, batch: EncoderBatch) -> torch.Tensor:
        """Return what `PairwiseBias` adds to the scores of attention, (B, H, L, L)."""
        assert self.pairwise_bias is not None
        config, unseen_BL = self.config, torch.zeros_like(batch.mask_BL)
        if batch.hidden_mz_BL is not None:
            unseen_BL |= batch.hidden_mz_BL
        if config.precursor == "hidden":
            unseen_BL[:, 0] = True
        wavelengths_W = geometric_wavelengths(config.rotary_wavelengths, config.num_mz_wavelengths, batch.mz_BL.device)
        return self.pairwise_bias(phase_angles(batch.mz_BL, wavelengths_W), unseen_BL, batch.mask_BL)

    def _positions(self, batch: EncoderBatch) -> torch.Tensor:
        """Return the m/z that each token rotates by: 0 where the model must not know it."""
        position_BL = batch.mz_BL
        if batch.hidden_mz_BL is not None:
            position_BL = position_BL.masked_fill(batch.hidden_mz_BL, 0.0)
        if self.config.precursor == "hidden":
            position_BL = torch.cat([torch.zeros_like(position_BL[:, :1]), position_BL[:, 1:]], dim=1)
        return position_BL

    def _compute_dtype(self, device_type: str) -> torch.dtype:
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
        return self.dtype


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars for the few files of a model."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


AutoConfig.register("ionbed", IonbedConfig)
AutoModel.register(IonbedConfig, IonbedModel)
