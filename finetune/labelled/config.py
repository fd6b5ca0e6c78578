"""The options of training on labels, typed and checked; every key is explained in ``configs/label-*.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...configs.loading import load_tree
from ...pretrain.config import (
    AugmentationConfig,
    TrainingConfig,
    check_least,
    check_share,
)
from ..config import FinetuneDataConfig
from .computed import CLASS_LABELS, FINGERPRINT, PROPERTIES, check_computed, check_smarts

TaskKind = Literal["classification", "multi-label", "regression"]


@dataclass(frozen=True)
class LabelsConfig:
    """Where the labels come from: columns of a table; where none is named, the structures."""

    file: Path | None = None
    key: Literal["spectrum_id", "inchikey", "smiles", "name"] = "spectrum_id"
    columns: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    smarts: dict[str, str] = field(default_factory=dict)
    fingerprint_bits: int = 128
    min_molecules: int = 10

    def __post_init__(self) -> None:
        if self.file is None and self.columns:
            raise ValueError(f"columns names {', '.join(self.columns)}, but there is no file to have them")
        if self.file is not None and self.smarts:
            raise ValueError("smarts asks the structures, but labels come from file; leave one of the two out")
        if twice := set(self.smarts) & set(self.computed):
            raise ValueError(f"smarts and computed both name '{min(twice)}'; rename the pattern")
        if len(set(self.columns)) < len(self.columns) or len(set(self.computed)) < len(self.computed):
            raise ValueError("a label is named twice; name each once")
        check_computed(self.computed)
        check_smarts(self.smarts)
        check_least(self, 1, "fingerprint_bits", "min_molecules")


@dataclass(frozen=True)
class EncoderConfig:
    """Where the encoder comes from, and what of it is trained."""

    model: Path | None = None
    random_weights: bool = False
    dropout: float = 0.1
    precursor: Literal["full", "relative", "hidden"] | None = None
    train: Literal["frozen", "lora", "full"] = "frozen"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie from 0 to below 1")
        check_least(self, 1, "lora_rank", "lora_alpha")


@dataclass(frozen=True)
class HeadConfig:
    """What a head reads, how spectra and classes weigh in its loss, its calibration, and when training stops."""

    measurement: bool = True
    imbalance: Literal["none", "inverse-frequency", "focal"] = "none"
    focal_gamma: float = 2.0
    votes: Literal["molecule", "spectrum"] = "molecule"
    calibration: Literal["none", "temperature", "platt", "isotonic"] = "platt"
    interval: float = 0.9
    patience: int | None = 5

    def __post_init__(self) -> None:
        check_least(self, 0, "focal_gamma")
        if not 0 < self.interval < 1:
            raise ValueError(f"interval is {self.interval}; it must lie between 0 and 1")
        if self.patience is not None:
            check_least(self, 1, "patience")


@dataclass(frozen=True)
class OwnSplitConfig:
    """The split that is made where none is given."""

    test: float = 0.1
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self, "test", "validation")
        if not (self.test > 0 and self.validation > 0 and self.test + self.validation < 1):
            raise ValueError(
                f"test is {self.test} and validation {self.validation}; both must be above 0 and leave some to train on"
            )


@dataclass(frozen=True)
class ReportConfig:
    """What the report is made of."""

    resamples: int = 1000
    max_train_spectra: int = 20_000

    def __post_init__(self) -> None:
        check_least(self, 100, "resamples", "max_train_spectra")


@dataclass(frozen=True)
class LabelledConfig:
    """Everything `ionbed.finetune.labelled.run.train_on_labels` needs."""

    task: TaskKind
    output: Path
    data: FinetuneDataConfig
    labels: LabelsConfig
    training: TrainingConfig
    init: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    own_split: OwnSplitConfig = field(default_factory=OwnSplitConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if self.data.folds != ("train",):
            raise ValueError("data.folds must be [train]: calibration and report need the folds validation and test")
        if self.training.compile:
            raise ValueError("training.compile is true; training on labels does not compile, leave it false")
        if self.init.train == "lora" and self.training.parallelism == "fsdp2":
            raise ValueError("training.parallelism is fsdp2; LoRA trains few weights and runs with ddp")
        labels = self.labels
        if labels.file is None and not labels.computed and not labels.smarts:
            raise ValueError("labels names no source; give labels.file, labels.computed or labels.smarts")
        if self.task == "regression" and self.head.imbalance != "none":
            raise ValueError(f"head.imbalance is {self.head.imbalance}; regression has no classes, set it to none")
        if self.task == "classification" and labels.file is not None and len(labels.columns) > 1:
            raise ValueError("labels.columns names several; classification takes one (multi-label takes several)")
        if labels.file is None:
            check_kinds(self.task, labels)


def check_kinds(task: TaskKind, labels: LabelsConfig) -> None:
    """Raise ValueError where the labels that are computed are not of the kind of ``task``."""
    if task == "classification" and len(labels.computed) + len(labels.smarts) > 1:
        raise ValueError("labels.computed names several; classification takes one (multi-label takes several)")
    if FINGERPRINT in labels.computed and (task != "multi-label" or len(labels.computed) > 1 or labels.smarts):
        raise ValueError("labels.computed names fingerprint, whose bits are a multi-label task of their own")
    for name in labels.computed:
        is_number = name in PROPERTIES
        if is_number != (task == "regression"):
            kind = "a number, of task regression" if is_number else "no number, of task classification or multi-label"
            raise ValueError(f"labels.computed names {name}, which is {kind}; task is {task}")
        if name in CLASS_LABELS and task != "classification":
            raise ValueError(f"labels.computed names {name}, whose classes exclude each other; task is {task}")
    if labels.smarts and task == "regression":
        raise ValueError("labels.smarts asks yes or no; set task to classification or multi-label")


def names_a_task(source: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> bool:
    """Return whether a configuration of ``ionbed finetune`` is one of training on labels: it has the key ``task``.

    Raises
    ------
    InputError
        As `ionbed.configs.loading.load_config` does for a source that cannot be read.
    """
    return "task" in load_tree(source, overrides)[1]
