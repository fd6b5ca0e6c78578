"""The options of pretraining, typed and checked; every key is explained in ``configs/pretrain-*.yaml``."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..encoder.configuration_ionbed import IonbedConfig

Fold = Literal["train", "validation", "test"]


def check_least(config: Any, least: int, *names: str) -> None:
    """Raise ValueError if one of the named numbers of ``config`` is below ``least``, infinite or not a number."""
    for name in names:
        if not least <= (value := getattr(config, name)) < math.inf:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def check_positive(config: Any, *names: str) -> None:
    """Raise ValueError if one of the named numbers of ``config`` is not above 0, infinite or not a number."""
    for name in names:
        if not 0 < (value := getattr(config, name)) < math.inf:
            raise ValueError(f"{name} is {value}; it must be a finite number above 0")


def check_share(config: Any, *names: str) -> None:
    """Raise ValueError if one of the named numbers of ``config`` does not lie between 0 and 1."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"{name} is {value}; it must lie between 0 and 1")


@dataclass(frozen=True)
class DataConfig:
    """Which spectra to train on: those of a prepared store, in some folds of a split."""

    store: Path
    split: Path | None = None
    folds: tuple[Fold, ...] = ("train",)
    validation_spectra: int = 2000

    def __post_init__(self) -> None:
        check_least(self, 0, "validation_spectra")
        if not self.folds or len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds is [{', '.join(self.folds)}]; name at least one fold, and each once")
        if "validation" in self.folds:
            raise ValueError("folds names validation, whose loss is to tell how training fares on what it has not seen")
        if self.split is None and self.folds != ("train",):
            raise ValueError(f"folds is [{', '.join(self.folds)}], but there is no split; name its file under split")


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
    pairwise_bias: int = 0
    precursor: Literal["full", "relative", "hidden"] = "full"
    conditioning: tuple[str, ...] = ("polarity", "charge", "collision_energy")
    adducts: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mz_wavelengths", "rotary_wavelengths"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} must be two lengths in Da")
        for name, vocabulary in {"adduct": "adducts", "instrument": "instruments"}.items():
            if name in self.conditioning and not getattr(self, vocabulary):
                raise ValueError(f"conditioning names {name}, but {vocabulary} is empty; list those to tell apart")
        self.encoder_config()

    def encoder_config(self) -> IonbedConfig:
        """Return the configuration of the encoder; of instruments, the analysers that the encoder's input names."""
        from ..encoder.collator import analyser

        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        options["instruments"] = tuple(dict.fromkeys(analyser(instrument) for instrument in self.instruments))
        return IonbedConfig(**options)


@dataclass(frozen=True)
class MaskingConfig:
    """What masked-peak modelling hides and how it weighs what is asked."""

    share: float = 0.3
    intensity_power: float = 0.5
    hide_intensity_share: float = 0.2
    metadata_dropout: float = 0.2
    max_mz: float = 1000.0
    mz_target: Literal["bins", "regression"] = "bins"
    bin_width: float = 0.05
    offset_weight: float = 1.0
    intensity_weight: float = 1.0

    def __post_init__(self) -> None:
        check_share(self, "share", "hide_intensity_share", "metadata_dropout")
        check_least(self, 0, "intensity_power", "offset_weight", "intensity_weight")
        if self.share == 0:
            raise ValueError("share is 0; nothing would be masked")
        check_positive(self, "bin_width", "max_mz")
        if abs(1 / self.bin_width - round(1 / self.bin_width)) > 1e-9:
            raise ValueError(f"bin_width is {self.bin_width} Da; it must divide 1 Da (0.05, 0.1, ...)")
        if self.max_mz < 1:
            raise ValueError(f"max_mz is {self.max_mz} Da; it must be at least 1")


@dataclass(frozen=True)
class AugmentationConfig:
    """Changes to a spectrum that must not change its embedding."""

    drop_precursor_peak: float = 0.5
    drop_peaks: float = 0.2
    mz_jitter_ppm: float = 3.0
    metadata_dropout: float = 0.3

    def __post_init__(self) -> None:
        check_share(self, "drop_precursor_peak", "drop_peaks", "metadata_dropout")
        check_least(self, 0, "mz_jitter_ppm")


@dataclass(frozen=True)
class ObjectivesConfig:
    """Objectives that compare spectra, beside masked peaks; each is on where its weight is above 0."""

    views: float = 0.0
    neighbours: float = 0.0
    retention_order: float = 0.0
    share: float = 0.2
    group_spectra: int = 16
    hide_precursor: float = 0.5
    drop_peaks: float = 0.2
    intensity_jitter: float = 0.5
    temperature: float = 0.1
    coelution_time: float = 10.0
    min_time_difference: float = 15.0
    min_precursor_ppm: float = 50.0
    validation_runs: float = 0.05

    def __post_init__(self) -> None:
        check_least(
            self, 0, "views", "intensity_jitter", "neighbours", "retention_order", "coelution_time", "min_precursor_ppm"
        )
        check_share(self, "share", "hide_precursor", "drop_peaks", "validation_runs")
        check_positive(self, "temperature", "min_time_difference")
        if self.group_spectra < 4 or self.group_spectra % 2:
            raise ValueError(f"group_spectra is {self.group_spectra}; it must be an even number of at least 4")
        if self.share == 0 or self.share * len(self.names) >= 1:
            raise ValueError(f"share is {self.share}; it must be above 0, and leave something for masked peaks")
        if self.validation_runs == 1:
            raise ValueError("validation_runs is 1; no run would be left to train on")

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that are on."""
        return tuple(name for name in ("views", "neighbours", "retention_order") if getattr(self, name) > 0)

    @property
    def needs_runs(self) -> bool:
        """Whether an objective is on that compares spectra of one run."""
        return self.neighbours > 0 or self.retention_order > 0


@dataclass(frozen=True)
class LoopConfig:
    """The loop of every stage of training: optimiser, schedule, precision, checkpoints and logs."""

    steps: int
    micro_batch_tokens: int = 8192
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    decay_steps: int | None = None
    final_learning_rate_ratio: float = 0.05
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.98)
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    parallelism: Literal["ddp", "fsdp2"] = "ddp"
    compile: bool = False
    seed: int = 0
    threads: int | None = None
    loader_workers: int = 0
    spike_deviations: float = 6.0
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()

    def __post_init__(self) -> None:
        check_least(self, 1, "steps", "micro_batch_tokens", "log_every", "validate_every", "checkpoint_every",
                    "keep_checkpoints")  # fmt: skip
        check_least(self, 0, "warmup_steps", "weight_decay", "seed", "loader_workers")
        check_positive(self, "learning_rate", "max_grad_norm", "spike_deviations")
        if self.threads is not None:
            check_least(self, 1, "threads")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be fewer than steps ({self.steps})")
        if self.decay_steps is not None:
            check_least(self, 1, "decay_steps")
            if self.schedule != "wsd":
                raise ValueError(f"decay_steps is for the schedule wsd, not {self.schedule}; leave it null")
            if self.decay_steps > self.steps - self.warmup_steps:
                raise ValueError(
                    f"decay_steps ({self.decay_steps}) and warmup_steps are more than steps ({self.steps})"
                )
        check_share(self, "final_learning_rate_ratio")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie between 0 and 1, or be null")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError("betas must be two numbers from 0 to below 1")


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """The loop, with the size of a step's batch."""

    batch_tokens: int = 16384

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "batch_tokens")


@dataclass(frozen=True)
class PretrainConfig:
    """Everything `ionbed.pretrain.run.pretrain` needs."""

    output: Path
    data: DataConfig
    training: TrainingConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
