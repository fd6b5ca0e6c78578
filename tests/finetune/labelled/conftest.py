"""A small encoder, and runs on labels of the small store that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ionbed.configs.loading import load_config
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.finetune.labelled.config import LabelledConfig

SMALL = (
    "labels.min_molecules=2", "own_split.test=0.2", "own_split.validation=0.3", "training.threads=1",
    "training.batch_tokens=400", "training.micro_batch_tokens=200", "training.log_every=1", "report.resamples=100",
)  # fmt: skip
RING = ("labels.computed=[]", "labels.smarts={benzene: 'c1ccccc1'}")


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "model"
    config = IonbedConfig(hidden_size=32, num_layers=2, num_heads=4, num_mz_wavelengths=16, embedding_dim=16)
    IonbedModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def overrides(store: Path, small_encoder: Path):
    """Return a function from an output and changes to the words after --set."""

    def build(output: Path, *changes: str) -> list[str]:
        return [*SMALL, f"data.store={store}", f"output={output}", f"init.model={small_encoder}", *changes]

    return build


@pytest.fixture(scope="session")
def configured(overrides):
    """Return a function from the name of a configuration, an output and changes to a configuration."""

    def build(name: str, output: Path, *changes: str) -> LabelledConfig:
        return load_config(LabelledConfig, name, overrides(output, *changes))

    return build
