"""The options of pretraining, typed and checked; every key is explained in ``configs/pretrain-*.yaml``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..encoder.configuration_ionbed import IonbedConfig


@dataclass(frozen=True)
class DataConfig:
    """Which spectra to train on: those of a prepared store, in some folds of a split."""

    store: Path
    split: Path | None = None
    folds: tuple[str, ...] = ("train",)
    validation_spectra: int = 2000


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and preprocessing of the encoder; see `ionbed.encoder.configuration_ionbed.IonbedConfig`."""

    hidden_size: int = 256
    num_layers: int = 6
    num_heads: int = 8
    mlp_ratio: int = 4
    dropout: float = 0.0
    max_peaks: int = 64
    min_intensity: float = 0.001
    num_mz_wavelengths: int = 128
    mz_wavelengths: tuple[float, ...] = (1e-3, 1e3)
    rotary_wavelengths: tuple[float, ...] = (1e-2, 1e3)
    rotary_fraction: float = 0.5
    precursor: Literal["full", "relative", "hidden"] = "full"
    conditioning: tuple[str, ...] = ("polarity", "charge", "collision_energy")
    adducts: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mz_wavelengths", "rotary_wavelengths"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} must be two lengths in Da")
        self.encoder_config()

    def encoder_config(self) -> IonbedConfig:
        """Return the configuration of the encoder."""
        return IonbedConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class MaskingConfig:
    """What masked-peak modelling hides and how it weighs what is asked."""

    share: float = 0.3
    intensity_power: float = 0.5
    hide_intensity_share: float = 0.2
    metadata_dropout: float = 0.2
    max_mz: float = 1000.0
    bin_width: float = 0.05
    offset_weight: float = 1.0
    intensity_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("share", "hide_intensity_share", "metadata_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.share == 0:
            raise ValueError("share is 0; nothing would be masked")
        if self.bin_width <= 0 or abs(1 / self.bin_width - round(1 / self.bin_width)) > 1e-9:
            raise ValueError(f"bin_width is {self.bin_width} Da; it must divide 1 Da (0.05, 0.1, ...)")
        if self.max_mz < 1:
            raise ValueError(f"max_mz is {self.max_mz} Da; it must be at least 1")


@dataclass(frozen=True)
class TrainingConfig:
    """The loop: batches, optimiser, schedule, precision, checkpoints and logs."""

    steps: int
    batch_tokens: int = 16384
    micro_batch_tokens: int = 8192
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_learning_rate: float = 0.05
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.98)
    clip_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    threads: int | None = None
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "micro_batch_tokens", "log_every", "validate_every", "checkpoint_every",
                     "keep_checkpoints"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be fewer than steps ({self.steps})")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")
        if not 0 <= self.final_learning_rate <= 1:
            raise ValueError("final_learning_rate is a share of learning_rate; it must lie between 0 and 1")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError("betas must be two numbers from 0 to below 1")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything `ionbed.pretrain.run.pretrain` needs."""

    output: Path
    data: DataConfig
    training: TrainingConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
