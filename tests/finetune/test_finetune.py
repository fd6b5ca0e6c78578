"""Fine-tuning as a whole: it separates molecules, resumes exactly, and two processes do what one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

import ionbed
from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.finetune.config import FinetuneConfig
from ionbed.finetune.run import finetune, finetuning_identity
from ionbed.finetune.task import ContrastiveTask
from ionbed.pretrain import loop
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.data import TrainingSpectra
from ionbed.pretrain.run import pretrain
from ionbed.spectra.molecule_features import FEATURES_VERSION
from ionbed.spectra.split import Split
from ionbed.spectra.store import SHARD_NAME, Store, write_shard

SIZE = ("hidden_size=32", "num_layers=2", "num_heads=4", "num_mz_wavelengths=16")
RANDOM = f"init.random={{{', '.join(item.replace('=', ': ') for item in SIZE)}}}"
SMALL = (
    "training.steps=8", "training.warmup_steps=2", "training.log_every=1", "training.validate_every=4",
    "training.checkpoint_every=3", "training.threads=1", "training.micro_batch_tokens=300", "sampling.anchors=6",
    "init.embedding_dim=16", "init.dropout=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(store, split, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("pretrained") / "run"
    training = ("training.steps=3", "training.warmup_steps=1", "training.threads=1", "training.batch_tokens=400")
    paths = (f"data.store={store}", f"data.split={split}", f"output={output}")
    changes = [*(f"model.{size}" for size in SIZE), *training, *paths]
    return pretrain(load_config(PretrainConfig, "pretrain-tiny", changes))


def overrides(store: Path, split: Path | None, model: Path | None, output: Path, *changes: str) -> list[str]:
    paths = [
        f"data.store={store}",
        f"data.split={split or 'null'}",
        f"output={output}",
        f"init.model={model or 'null'}",
    ]
    return [*SMALL, *paths, *changes]


def run(
    store: Path, split: Path | None, model: Path | None, output: Path, *changes: str, resume: str | None = None
) -> Path:
    return finetune(
        load_config(FinetuneConfig, "finetune-tiny", overrides(store, split, model, output, *changes)), resume=resume
    )


def losses_of(output: Path, name: str = "loss") -> list[float]:
    entries = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [entry[name] for entry in entries if name in entry]


def small_random_model(size: tuple[str, ...]) -> IonbedModel:
    torch.manual_seed(0)
    sizes = {name: int(value) for name, value in (item.split("=") for item in size)}
    return IonbedModel(IonbedConfig(**sizes, embedding_dim=16, precursor="hidden")).eval()


EVERYTHING = (
    "molecules.weight=1", "molecules.width=24", "molecules.isobars=2", "molecules.structures=16", "loss.fingerprint=1",
    "sampling.formula_negatives_per_anchor=1", "sampling.spread_conditions=true",
)  # fmt: skip
TERMS = {"contrast", "window", "structure", "fingerprint", "spectrum_to_structure", "structure_to_spectrum",
         "structure_in_window"}  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(store, split, pretrained, tmp_path_factory) -> Path:
    """A run with every term of the loss."""
    output = tmp_path_factory.mktemp("finetuned") / "whole"
    run(store, split, pretrained, output, *EVERYTHING)
    return output


def test_fine_tuning_starts_from_the_pretrained_encoder(whole_run, pretrained):
    before, after = load_file(pretrained / "model.safetensors"), load_file(whole_run / "model" / "model.safetensors")
    new = {name for name in after if not name.startswith("molecule_tower.")} - before.keys()
    assert new == {"projection.weight", "projection.bias"}
    name = "layers.0.qkv.weight"
    assert 0 < (after[name] - before[name]).abs().max() < 0.05
    config = ionbed.load_model(whole_run / "model").config
    assert (config.embedding_dim, config.precursor, config.hidden_size) == (16, "hidden", 32)
    assert [stage["command"] for stage in config.training] == ["pretrain", "finetune"]
    assert config.molecule_tower == 24
    assert "It maps structures (SMILES) to the same space" in (whole_run / "model" / "README.md").read_text()
    assert json.loads((whole_run / "log.jsonl").read_text().splitlines()[0]).keys() >= TERMS


@pytest.fixture(scope="module")
def learned(store, split, tmp_path_factory) -> Path:
    """A run from random weights that is long enough to learn its spectra and their structures."""
    output = tmp_path_factory.mktemp("learned") / "run"
    training = ("steps=150", "learning_rate=0.006", "validate_every=150", "checkpoint_every=150")
    changes = [RANDOM, "sampling.anchors=10", "init.embedding_dim=32", "molecules.weight=1", "molecules.width=32"]
    run(store, split, None, output, *changes, *(f"training.{item}" for item in training))
    return output


def trained_on(store, split) -> tuple[np.ndarray, pa.Table]:
    table = Store(store).table()
    train = Split.load(split).rows_in(table, ["train"])
    return train, table.take(train)


def test_a_spectrum_finds_its_structure(store, split, learned):
    train, table = trained_on(store, split)
    model = ionbed.load_model(learned / "model")
    structures = sorted(set(table["smiles"].to_pylist()))
    scores = model.embed(Store(store).spectra(train)) @ model.embed_molecules(structures).T
    found = np.array(structures)[scores.argmax(1)] == np.array(table["smiles"].to_pylist())
    assert len(structures) > 12 and found.mean() > 0.95
    for term in ("spectrum_to_structure", "structure_to_spectrum", "structure_in_window"):
        losses = losses_of(learned, term)
        assert sum(losses[-10:]) < 0.5 * sum(losses[:10]), term
        assert np.isfinite(losses_of(learned, f"validation_{term}")).all()


def test_spectra_of_one_molecule_come_together(store, split, learned):
    train, table = trained_on(store, split)
    molecule = np.array(table["inchikey"].to_pylist())
    vectors = ionbed.load_model(learned / "model").embed(Store(store).spectra(train))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (molecule[similarity.argmax(1)] == molecule).mean() > 0.9
    before = small_random_model(SIZE).embed(Store(store).spectra(train))
    unrelated = molecule[:, None] != molecule
    assert similarity[unrelated].mean() < (before @ before.T)[unrelated].mean() - 0.2
    losses = losses_of(learned)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_stopped_and_resumed_equals_uninterrupted(store, split, pretrained, tmp_path, killed_after_checkpoint):
    """With dropout, so that the random state of the checkpoint counts."""
    output, whole = tmp_path / "run", tmp_path / "whole"
    run(store, split, pretrained, whole, "init.dropout=0.1")
    with killed_after_checkpoint(2):
        run(store, split, pretrained, output, "init.dropout=0.1")
    assert not (output / "model").exists()
    run(store, split, pretrained, output, "init.dropout=0.1", resume="auto")
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (output, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert losses_of(output) == losses_of(whole)


def test_each_process_drops_out_its_own(store, split, pretrained, tmp_path, monkeypatch):
    seeds = []

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    monkeypatch.setattr(loop.Accelerator, "process_index", 3)
    monkeypatch.setattr(loop, "make_optimizer", stop)
    with pytest.raises(KeyboardInterrupt):
        run(store, split, pretrained, tmp_path / "run", "training.seed=7")
    assert seeds == [7, 10]  # the weights are the same on each, what is dropped is not


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2"])
def test_two_processes_give_the_loss_of_one(parallelism, store, split, pretrained, whole_run, tmp_path, torchrun):
    output = tmp_path / "two"
    # In many small parts, each of which is computed a second time.
    changes = (*EVERYTHING, f"training.parallelism={parallelism}", "training.micro_batch_tokens=24", "recompute=true")
    sets = [word for item in overrides(store, split, pretrained, output, *changes) for word in ("--set", item)]
    done = torchrun("-m", "ionbed", "finetune", "finetune-tiny", *sets)
    assert done.returncode == 0, done.stderr
    assert losses_of(output) == pytest.approx(losses_of(whole_run), abs=1e-4)
    assert losses_of(output, "validation_loss") == pytest.approx(losses_of(whole_run, "validation_loss"), abs=1e-3)


def test_another_pretrained_model_is_another_run(store, split, whole_run, pretrained):
    with pytest.raises(ionbed.InputError, match=r"other values of init\.model \(was \""):
        run(store, split, whole_run / "model", whole_run, resume="auto")


def test_what_does_not_decide_the_weights_may_change(store, split, pretrained, tmp_path):
    def identity(*changes):
        config = load_config(FinetuneConfig, "finetune-tiny", overrides(store, split, pretrained, tmp_path, *changes))
        return finetuning_identity(config, spectra)

    spectra = TrainingSpectra(load_config(FinetuneConfig, "finetune-tiny", overrides(
        store, split, pretrained, tmp_path)).data, tmp_path / "columns")  # fmt: skip
    for same in ("data.validation_spectra=3", "training.threads=2", "training.micro_batch_tokens=77", "recompute=true",
                 "molecules.isobars=9"):  # fmt: skip
        assert identity(same) == identity(), same
    for other in ("training.steps=9", "molecules.weight=1", "loss.fingerprint=1", "sampling.spread_conditions=true"):
        assert identity(other) != identity(), other
    assert not {"molecules", "recompute"} & identity().keys()  # a run from before there were these options goes on
    assert identity("molecules.weight=1") != identity("molecules.weight=1", "molecules.isobars=9")
    assert identity("molecules.weight=1")["molecules"]["structures_drawn_as"] == "parent molecules"
    assert identity("molecules.weight=1")["molecules"]["features_version"] == FEATURES_VERSION
    drop = "init.dropout=0.1"
    assert identity(drop, "training.micro_batch_tokens=77") != identity(drop)
    with pytest.raises(ionbed.InputError, match=r"unknown key 'training\.batch_tokens'"):
        identity("training.batch_tokens=3")


def write_store(folder: Path, table) -> None:
    folder.mkdir()
    path = folder / SHARD_NAME.format(0)
    write_shard(table, path)
    shard = {"file": path.name, "spectra": len(table), "sha256": sha256_of_file(path)}
    write_manifest(folder, {"command": "prepare", "counts": {}, "shards": [shard]})


def test_unlabelled_spectra_cannot_be_fine_tuned_on(store, split, tmp_path):
    folder, table = tmp_path / "unlabelled", Store(store).table()
    for name in ("inchikey", "smiles"):
        table = table.set_column(table.column_names.index(name), name, pa.nulls(len(table), pa.string()))
    write_store(folder, table)
    with pytest.raises(ionbed.InputError, match="no spectrum of the training folds has a structure"):
        run(folder, split, None, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["sampling.anchors=999"], "molecules have spectra; lower it"),
        (["init.model=nowhere"], "is not a model folder"),
        (["molecules.weight=1", "molecules.pool=none.smi", "molecules.pool_share=0.5"], "none.smi: no such file"),
    ],
)
def test_a_configuration_that_fails_leaves_nothing_and_can_be_corrected(
    store, split, pretrained, tmp_path, changes, words
):
    with pytest.raises(ionbed.InputError, match=words):
        run(store, split, pretrained, tmp_path / "run", *changes)
    assert not (tmp_path / "run").exists()


def test_structures_of_a_pool_are_trained_with_in_place_of_others(store, pretrained, tmp_path):
    """Without a validation fold, and stopped and resumed: the file decides, not its path."""
    pool, moved = tmp_path / "pool.smi", tmp_path / "moved.smi"
    pool.write_text("CCCCN butylamine\nCCCCC(=O)O valeric acid\nCCCCCO pentanol\nCC(C)CO isobutanol\n")
    changes = ["molecules.weight=1", "molecules.width=16", "molecules.structures=26",
               "molecules.pool_share=1"]  # fmt: skip
    output = tmp_path / "run"
    model = ionbed.load_model(run(store, None, pretrained, output, *changes, f"molecules.pool={pool}"))
    assert model.embed_molecules(["CCCCN"]).shape == (1, 16)
    assert losses_of(output, "spectrum_to_structure") and not losses_of(output, "validation_loss")
    pool.rename(moved)
    run(store, None, pretrained, output, *changes, f"molecules.pool={moved}", resume="auto")
    moved.write_text("CCCCN butylamine\n")
    with pytest.raises(ionbed.InputError, match=r"other values of molecules\.pool"):
        run(store, None, pretrained, output, *changes, f"molecules.pool={moved}", resume="auto")


def test_other_features_of_structures_are_another_run_and_another_model(store, split, tmp_path, monkeypatch):
    changes = ("molecules.weight=1", "molecules.width=16", "training.steps=3", "training.warmup_steps=1", RANDOM)
    output = tmp_path / "run"
    first = run(store, split, None, output, *changes)
    newer = FEATURES_VERSION + 1
    for module in ("finetune.run", "finetune.task", "encoder.modeling_ionbed"):
        monkeypatch.setattr(f"ionbed.{module}.FEATURES_VERSION", newer)
    with pytest.raises(ionbed.InputError, match=r"other values of molecules\.features_version \(was 1\)"):
        run(store, split, None, output, *changes, resume="auto")
    with pytest.raises(
        ionbed.InputError, match=rf"of version {FEATURES_VERSION}, this ionbed computes version {newer}"
    ):
        ionbed.load_model(first).embed_molecules(["CCO"])
    model = ionbed.load_model(run(store, split, None, tmp_path / "newer", *changes))
    assert model.config.molecule_features == newer and model.embed_molecules(["CCO"]).shape == (1, 16)


@pytest.mark.parametrize("off", ["molecules.weight=0", "molecules.pool_share=0"])
def test_a_pool_that_is_not_drawn_from_is_told(store, split, tmp_path, caplog, off):
    on = ("molecules.weight=1", "molecules.pool_share=0.5", "molecules.pool=some.smi")
    with pytest.raises(ionbed.InputError, match="is not a model folder"):
        run(store, split, tmp_path / "nowhere", tmp_path / "run", *on, off)
    assert "some.smi: is named as molecules.pool, but nothing is drawn from it" in caplog.text


def test_a_batch_too_small_for_all_processes_is_skipped_by_all(store, split, tmp_path):
    config = load_config(FinetuneConfig, "finetune-tiny", overrides(store, split, None, tmp_path / "run"))
    task = ContrastiveTask(config, TrainingSpectra(config.data, tmp_path / "columns"))
    rows = task.spectra.rows[:3]
    assert [len(task.micro_batches(rows, 0, process, 4)) for process in range(4)] == [0, 0, 0, 0]
    assert [len(task.micro_batches(rows, 0, process, 3)) for process in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_process_computes_equally_many_parts(processes, store, split, tmp_path):
    """Or else one that has fewer would not be there when the others gather sharded weights."""
    config = load_config(FinetuneConfig, "finetune-tiny", overrides(
        store, split, None, tmp_path / "run", "training.micro_batch_tokens=24"))  # fmt: skip
    task = ContrastiveTask(config, TrainingSpectra(config.data, tmp_path / "columns"))
    for rows in task.epoch_batches(0):
        shares = [task.micro_batches(rows, 0, process, processes)[0] for process in range(processes)]
        assert len({len(share.parts) for share in shares}) == 1
        assert all(part.num_slots <= 24 or len(part) == 1 for share in shares for part in share.parts)
        precursors = [part.mz_BL[:, 0] for share in shares for part in share.parts]
        expected = np.sort(task.spectra.precursor_mz[rows])
        assert torch.cat(precursors).sort().values.numpy() == pytest.approx(expected)


def test_compiled_fine_tuning_is_refused():
    with pytest.raises(ionbed.InputError, match="compile is true"):
        load_config(FinetuneConfig, "finetune-tiny", ["training.compile=true"])


def test_only_labelled_spectra_count_as_trained_on(store, split, tmp_path):
    folder, table = tmp_path / "half", Store(store).table()
    labelled = np.arange(len(table)) % 2 == 0
    for name in ("inchikey", "smiles"):
        values = [v if keep else None for v, keep in zip(table[name].to_pylist(), labelled, strict=True)]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    write_store(folder, table)
    run(folder, split, None, tmp_path / "run", "training.steps=2", "training.warmup_steps=1", RANDOM)
    trained = json.loads((tmp_path / "run" / "manifest.json").read_text())["training"]
    fold = Split.load(split).fold_of(table["inchikey"].to_pylist())
    assert trained["spectra"] == (labelled & (fold == "train")).sum() < (fold == "train").sum()


def test_one_molecule_in_the_validation_fold_is_no_reason_to_stop(store, split, pretrained, tmp_path):
    folds = dict(Split.load(split).folds)
    validation = sorted(block for block, fold in folds.items() if fold == "validation")
    changed = Split("inchikey-block", 0, {**folds, **dict.fromkeys(validation[1:], "train")})
    changed.save(tmp_path / "split.json")
    run(store, tmp_path / "split.json", pretrained, tmp_path / "run", "training.steps=3", "training.warmup_steps=1")
    assert len(losses_of(tmp_path / "run")) == 3 and not losses_of(tmp_path / "run", "validation_loss")
