"""The options of fine-tuning, typed and checked; every key is explained in ``configs/finetune-*.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..pretrain.config import (
    AugmentationConfig,
    DataConfig,
    LoopConfig,
    ModelConfig,
    check_least,
    check_positive,
    check_share,
)

LEARNED_TEMPERATURES = (0.01, 1.0)
"""Between which the learned temperature is kept."""


@dataclass(frozen=True)
class FinetuneDataConfig(DataConfig):
    """Which spectra to train on: of those in the folds, the spectra of a share of the molecules."""

    molecules_share: float = 1.0
    molecules_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.molecules_share <= 1:
            raise ValueError(f"molecules_share is {self.molecules_share}; it must be above 0 and at most 1")
        check_least(self, 0, "molecules_seed")


@dataclass(frozen=True)
class InitConfig:
    """Where the encoder comes from, and what changes about it."""

    model: Path | None = None
    random: ModelConfig = field(default_factory=ModelConfig)
    embedding_dim: int = 256
    dropout: float = 0.1
    precursor: Literal["full", "relative", "hidden"] = "hidden"

    def __post_init__(self) -> None:
        check_least(self, 1, "embedding_dim")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie from 0 to below 1")


@dataclass(frozen=True)
class SamplingConfig:
    """What a contrastive batch is made of."""

    anchors: int = 48
    spectra_per_molecule: int = 4
    window_ppm: float = 10.0
    negatives_per_anchor: int = 3
    formula_negatives_per_anchor: int = 0
    analogues_per_anchor: int = 1
    spread_conditions: bool = False

    def __post_init__(self) -> None:
        if self.anchors < 2:
            raise ValueError(f"anchors is {self.anchors}; a contrast needs at least 2 molecules")
        if self.spectra_per_molecule < 2:
            raise ValueError(f"spectra_per_molecule is {self.spectra_per_molecule}; a positive pair needs 2")
        check_positive(self, "window_ppm")
        check_least(self, 0, "negatives_per_anchor", "formula_negatives_per_anchor", "analogues_per_anchor")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of the loss, and their temperatures."""

    contrast: float = 1.0
    window: float = 1.0
    structure: float = 1.0
    fingerprint: float = 0.0
    temperature: float = 0.07
    structure_temperature: float = 0.07

    def __post_init__(self) -> None:
        check_least(self, 0, "contrast", "window", "structure", "fingerprint")
        _check_temperature(self.temperature)
        check_positive(self, "structure_temperature")


@dataclass(frozen=True)
class MoleculesConfig:
    """Contrast of spectra with structures: a second tower, on where ``weight`` is above 0."""

    weight: float = 0.0
    window: float = 1.0
    width: int = 256
    temperature: float = 0.07
    isobars: int = 4
    structures: int = 512
    pool: Path | None = None
    pool_share: float = 0.0

    def __post_init__(self) -> None:
        check_least(self, 0, "weight", "window", "isobars", "structures")
        check_least(self, 1, "width")
        check_share(self, "pool_share")
        _check_temperature(self.temperature)
        if self.pool_share and self.pool is None:
            raise ValueError(f"pool_share is {self.pool_share} but there is no pool; name its file, or set it to 0")

    @property
    def pool_in_use(self) -> Path | None:
        """The file of further structures, where any are drawn."""
        return self.pool if self.weight and self.pool_share else None


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything `ionbed.finetune.run.finetune` needs."""

    output: Path
    data: FinetuneDataConfig
    training: LoopConfig
    init: InitConfig = field(default_factory=InitConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    molecules: MoleculesConfig = field(default_factory=MoleculesConfig)
    recompute: bool = False

    def __post_init__(self) -> None:
        loss = self.loss
        if loss.contrast + loss.window + loss.structure + loss.fingerprint + self.molecules.weight == 0:
            raise ValueError("the weights of loss and molecules.weight must not all be 0")
        if self.training.compile:
            raise ValueError(
                "training.compile is true; batches of fine-tuning have too many shapes for it, leave it false"
            )


def _check_temperature(temperature: float) -> None:
    low, high = LEARNED_TEMPERATURES
    if not low <= temperature <= high:
        raise ValueError(f"temperature is {temperature}; it is learned between {low} and {high}")
