"""A share of the training molecules: nested, by molecule, the same for both kinds of fine-tuning, and recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ionbed
from ionbed.configs.loading import load_config
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.finetune.config import FinetuneConfig
from ionbed.finetune.labelled.config import LabelledConfig
from ionbed.finetune.labelled.examples import LabelledSpectra
from ionbed.finetune.labelled.model import load_labelled_model
from ionbed.finetune.labelled.run import train_on_labels
from ionbed.finetune.molecule_share import in_share
from ionbed.finetune.run import finetune, finetuning_identity
from ionbed.finetune.splits import split_by_inchikey_block
from ionbed.finetune.task import ContrastiveTask
from ionbed.pretrain.data import TrainingSpectra
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

SHARE = ("data.molecules_share=0.5", "data.molecules_seed=3")
SIZE = "{hidden_size: 32, num_layers: 1, num_heads: 4, num_mz_wavelengths: 16}"
TRAINING = (
    "training.steps=2", "training.warmup_steps=1", "training.threads=1", "sampling.anchors=3", f"init.random={SIZE}",
    "init.embedding_dim=16", "init.model=null",
)  # fmt: skip
LABELS = ("labels.min_molecules=1", "training.threads=1", "labels.computed=[]", "labels.smarts={benzene: 'c1ccccc1'}")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder") / "model"
    config = IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, num_mz_wavelengths=16, embedding_dim=16)
    IonbedModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def contrastive(store, split, tmp_path):
    def configured(*changes: str) -> FinetuneConfig:
        paths = (f"data.store={store}", f"data.split={split}", f"output={tmp_path / 'run'}")
        return load_config(FinetuneConfig, "finetune-tiny", [*paths, *TRAINING, *changes])

    return configured


@pytest.fixture
def labelled(store, split, encoder, tmp_path):
    def configured(*changes: str, name: str = "label-classification") -> LabelledConfig:
        paths = (f"data.store={store}", f"data.split={split}", f"output={tmp_path / 'run'}", f"init.model={encoder}")
        return load_config(LabelledConfig, name, [*paths, *LABELS, *changes])

    return configured


def blocks_at(store: Path, rows: np.ndarray) -> set[str]:
    inchikey = Store(store).table(("inchikey",))["inchikey"].to_pylist()
    return {inchikey[row][:14] for row in rows.tolist()}


def test_shares_are_nested_and_drawn_apart_from_folds():
    names = [f"MOLECULE{number:06d}" for number in range(4000)]
    before = np.zeros(len(names), bool)
    for share in (0.01, 0.1, 0.5, 1.0):
        chosen = in_share(names, share, 0)
        assert abs(chosen.mean() - share) < 4 * (share * (1 - share) / len(names)) ** 0.5 + 1e-9
        assert (chosen >= before).all()
        before = chosen
    half = in_share(names, 0.5, 0)
    assert np.array_equal(in_share(names[::-1], 0.5, 0), half[::-1])  # whatever others there are, and their order
    assert 0.2 < (half & in_share(names, 0.5, 1)).mean() < 0.3
    folds = split_by_inchikey_block(names, seed=0, test=0.5, validation=0).folds
    train = np.array([folds[name] == "train" for name in names])
    assert 0.08 < in_share(names, 0.1, 0)[train].mean() < 0.12


def test_both_kinds_of_fine_tuning_use_the_same_molecules(contrastive, labelled, store, split, tmp_path):
    found = {}
    for share in ("0.3", "0.6", "1"):
        own = (f"data.molecules_share={share}", "data.molecules_seed=3")
        config = contrastive(*own, "molecules.weight=1", "molecules.structures=99")
        task = ContrastiveTask(config, TrainingSpectra(config.data, tmp_path / "columns"))
        spectra = LabelledSpectra(labelled(*own), tmp_path / "columns", quiet=True)
        found[share] = blocks_at(store, task.rows)
        assert blocks_at(store, spectra.train_rows) == found[share]
        assert set(np.concatenate(task.epoch_batches(0)).tolist()) <= set(task.rows.tolist())
        drawn = task.structures[False].draw(np.unique(task.molecule[task.rows]), np.random.default_rng(0))
        assert len(drawn) == len(found[share])  # nor as a structure that spectra are compared with
        fold = Split.load(split).fold_of_rows(Store(store).table())
        assert np.array_equal(spectra.validation_rows_all, np.flatnonzero(fold == "validation"))
        assert np.array_equal(spectra.test_rows, np.flatnonzero(fold == "test"))
    assert 0 < len(found["0.3"]) < len(found["0.6"]) < len(found["1"]) == 14
    assert found["0.3"] < found["0.6"] < found["1"] == blocks_at(store, np.flatnonzero(fold == "train"))


def test_a_share_is_another_run_but_a_whole_one_is_not(contrastive, tmp_path):
    spectra = TrainingSpectra(contrastive().data, tmp_path / "columns")

    def identity(*changes):
        return finetuning_identity(contrastive(*changes), spectra)

    assert identity("data.molecules_seed=5") == identity() and identity()["data"] == {"folds": ["train"]}
    assert identity(*SHARE)["data"] == {"folds": ["train"], "molecules_share": 0.5, "molecules_seed": 3}


def test_a_model_says_that_it_was_trained_on_a_share(contrastive, labelled, store, tmp_path):
    model = ionbed.load_model(finetune(contrastive(*SHARE)))
    stage = model.config.training[-1]
    assert (stage["molecules_share"], stage["molecules_seed"]) == (0.5, 3) and 0 < stage["molecules"] < 14
    assert "| share of the molecules, drawn (seed) | 0.5 (3) |" in (tmp_path / "run/model/README.md").read_text()
    with pytest.raises(ionbed.InputError, match=r"other values of data\.molecules_seed"):
        finetune(contrastive(SHARE[0], "data.molecules_seed=4"), resume="auto")


@pytest.mark.parametrize("train", ["frozen", "lora"])
def test_a_share_of_labels_is_another_run(labelled, tmp_path, train):
    own = (f"init.train={train}", "training.steps=2", "training.warmup_steps=1")
    stage = ionbed.load_model(train_on_labels(labelled(*SHARE, *own))).config.training[-1]
    assert stage["molecules_share"] == 0.5 and 0 < stage["molecules"] < 14
    assert load_labelled_model(tmp_path / "run" / "model").about["fitted"]["molecules"] == stage["molecules"]
    for other in (("data.molecules_share=0.6", SHARE[1]), (SHARE[0], "data.molecules_seed=4"), ()):
        with pytest.raises(ionbed.InputError, match=r"other values of data\.molecules_"):
            train_on_labels(labelled(*other, *own), resume="auto")
    train_on_labels(labelled(*SHARE, *own), resume="auto")


def test_the_questions_are_those_of_all_molecules(labelled, tmp_path):
    few = ("data.molecules_share=0.3", "data.molecules_seed=3", "labels.min_molecules=2")
    elements = ("labels.smarts={}", "labels.computed=[contains_sulfur, contains_nitrogen, contains_oxygen]")
    every, some = (LabelledSpectra(labelled(*elements, *own, name="label-multilabel"), tmp_path / "columns", quiet=True)
                   for own in (few[2:], few))  # fmt: skip
    assert every.labels.names == some.labels.names and every.labels.hash == some.labels.hash
    assert some.labels.counts["labels with one answer only in the share of the training fold"] > 0
    assert np.isfinite(some.weight).all() and some.weight[some.train_rows].mean() == pytest.approx(1)


def test_a_share_that_is_too_small_is_refused(contrastive, labelled, tmp_path):
    tiny = ("data.molecules_share=0.0001",)
    with pytest.raises(ionbed.InputError, match="leaves none of 14 molecules to train on; raise the share"):
        finetune(contrastive(*tiny))
    for name, changes in (
        ("label-classification", ()),
        ("label-regression", ("labels.smarts={}", "labels.computed=[logp]")),
    ):
        with pytest.raises(ionbed.InputError, match="leaves none of 14 molecules to train on; raise the share"):
            train_on_labels(labelled(*tiny, *changes, name=name))
        with pytest.raises(ionbed.InputError, match="too few answers to learn from"):
            train_on_labels(labelled("data.molecules_share=0.05", "data.molecules_seed=3", *changes, name=name))
    assert not (tmp_path / "run").exists()
    for wrong in ("0", "1.5", "-1", ".nan"):
        with pytest.raises(ionbed.InputError, match=r"molecules_share is .* must be above 0 and at most 1"):
            contrastive(f"data.molecules_share={wrong}")
