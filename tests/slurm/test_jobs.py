"""The job scripts on a real Slurm of two nodes: the same weights through requeues, the same table from parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import ionbed
from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.embeddings.encode import SPECTRA_AT_ONCE, embed_file
from ionbed.embeddings.milvus_index import MilvusIndex
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.prepare import prepare
from ionbed.spectra.store import SHARD_NAME, Store, write_shard
from ionbed.spectra.writers import write_mgf

from .conftest import Slurm, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each process takes seconds to import torch

TINY = (
    "model.hidden_size=32", "model.num_layers=2", "model.num_heads=4", "model.num_mz_wavelengths=16",
    "training.steps=120", "training.batch_tokens=400", "training.micro_batch_tokens=200", "training.warmup_steps=2",
    "training.log_every=1", "training.validate_every=60", "training.checkpoint_every=25", "training.threads=1",
)  # fmt: skip


def sets(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


def logged_steps(output: Path) -> list[int]:
    lines = [line for line in read(output / "log.jsonl").splitlines() if line.endswith("}")]
    return [entry["step"] for entry in map(json.loads, lines) if "loss" in entry]


def pretrain(slurm: Slurm, store: Path, split: Path, output: Path, *changes: str) -> tuple[str, Path]:
    """Submit a pretraining run on both nodes; return the number of the job and its log."""
    log = output.with_suffix(".log")
    words = ["pretrain-tiny", output, *sets(*TINY, f"data.store={store}", f"data.split={split}", *changes)]
    return slurm.submit("pretrain.sbatch", *words, options=["--nodes=2"], log=log), log


def assert_same_run(output: Path, expected: Path) -> None:
    mine, theirs = (load_file(run / "model" / "model.safetensors") for run in (output, expected))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert logged_steps(output) == logged_steps(expected) == list(range(1, 121))


@pytest.fixture(scope="module")
def whole_run(slurm, store, split, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    job, log = pretrain(slurm, store, split, output)
    slurm.wait_until_ended(job, log)
    assert read(log).endswith(f"finished: {output}\n")
    return output


def test_two_nodes_train_together(whole_run):
    manifest = json.loads((whole_run / "manifest.json").read_text())
    assert manifest["processes"] == 2 and manifest["finished"]


def test_a_run_that_is_requeued_in_the_middle_gives_the_same_weights(slurm, store, split, whole_run, tmp_path):
    output = tmp_path / "requeued"
    job, log = pretrain(slurm, store, split, output)
    slurm.wait_for(lambda: len(logged_steps(output)) >= 30, log)
    slurm.run("scontrol", "requeue", job)
    slurm.wait_until_ended(job, log)
    assert slurm.show(job)["Restarts"] == "1"
    assert "stopped on a signal at step" in read(log) and "resumed from" in read(log)
    assert_same_run(output, whole_run)


def test_a_warning_stops_saves_and_requeues(slurm, store, split, whole_run, tmp_path):
    """Slurm gives the signal to every process of the job, those that load batches among them."""
    output = tmp_path / "warned"
    job, log = pretrain(slurm, store, split, output, "training.loader_workers=1")
    slurm.wait_for(lambda: len(logged_steps(output)) >= 30, log)
    slurm.run("scancel", "--signal=USR1", job)
    slurm.wait_for(lambda: (output / "stopped.json").exists(), log)
    stopped_at = json.loads((output / "stopped.json").read_text())["step"]
    assert 30 <= stopped_at < 120
    slurm.wait_until_ended(job, log)
    assert slurm.show(job)["Restarts"] == "1"
    assert f"unfinished at step-{stopped_at:08d}" in read(log) and f"step-{stopped_at:08d}\n" in read(log)
    assert not (output / "stopped.json").exists()
    assert_same_run(output, whole_run)


def test_finetuning_runs_on_two_nodes(slurm, store, split, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    changes = (
        f"data.store={store}", f"data.split={split}", "init.model=null", "init.random={hidden_size: 32, num_layers: 1}",
        "init.embedding_dim=16", "training.steps=4", "training.warmup_steps=1", "training.threads=1",
        "sampling.anchors=6",
    )  # fmt: skip
    job = slurm.submit("finetune.sbatch", "finetune-tiny", output, *sets(*changes), options=["--nodes=2"], log=log)
    slurm.wait_until_ended(job, log)
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["command"] == "finetune" and manifest["processes"] == 2
    assert ionbed.load_model(output / "model").config.embedding_dim == 16


@pytest.fixture(scope="module")
def large_store(store, tmp_path_factory) -> Path:
    """A store that holds enough spectra for three parts: those of the small one, again and again."""
    folder = tmp_path_factory.mktemp("data") / "large"
    folder.mkdir()
    small = Store(store).table()
    table = pa.concat_tables([small] * (2 * SPECTRA_AT_ONCE // len(small) + 5)).combine_chunks()
    table = table.set_column(0, table.schema.field(0), pa.array([f"S{row}" for row in range(len(table))]))
    name = SHARD_NAME.format(0)
    write_shard(table, folder / name)
    shard = {"file": name, "spectra": len(table), "sha256": sha256_of_file(folder / name)}
    counts = {"read": len(table), "kept": len(table), "dropped": {}, "repaired": {}}
    write_manifest(folder, {"command": "prepare", "inputs": [], "options": {}, "counts": counts, "shards": [shard]})
    return folder


def test_an_array_of_jobs_embeds_as_one_process_does(slurm, large_store, tmp_path):
    torch.manual_seed(0)
    IonbedModel(IonbedConfig(hidden_size=16, num_layers=1, num_heads=2, num_mz_wavelengths=8)).save_pretrained(
        tmp_path / "model"
    )
    out, log = tmp_path / "e.parquet", tmp_path / "log"
    words = [large_store, out, "--model", tmp_path / "model"]
    array = slurm.submit("embed.sbatch", *words, options=["--array=1-3"], log=log)
    merge = slurm.submit("embed.sbatch", *words, "--merge", options=[f"--dependency=afterok:{array}"], log=log)
    slurm.wait_until_ended(merge, log)
    embed_file(large_store, tmp_path / "one.parquet", ionbed.load_model(tmp_path / "model"))
    merged, whole = (pq.read_table(path) for path in (out, tmp_path / "one.parquet"))
    assert merged["spectrum_id"].to_pylist() == whole["spectrum_id"].to_pylist()
    vectors = [
        np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False)) for table in (merged, whole)
    ]
    np.testing.assert_allclose(*vectors, atol=1e-6)
    assert merged.schema.metadata == whole.schema.metadata
    assert not list(tmp_path.glob("*.parts"))


def test_an_array_of_jobs_fills_milvus_and_merged_embeddings_an_index(slurm, store, tmp_path):
    """Tasks run one after the other here, as a file of milvus-lite has one process at a time; a server has many."""
    pytest.importorskip("milvus_lite")
    torch.manual_seed(0)
    model, log = tmp_path / "model", tmp_path / "log"
    IonbedModel(IonbedConfig(hidden_size=16, num_layers=1, num_heads=2, num_mz_wavelengths=8)).save_pretrained(model)
    words = ["build", store, "--out", tmp_path / "there", "--model", model, "--milvus", tmp_path / "m.db", "--empty"]
    subprocess.run([sys.executable, "-m", "ionbed", "index", *map(str, words)], check=True, timeout=100)
    words = ["append", tmp_path / "there", store]
    array = slurm.submit("index.sbatch", *words, options=["--array=1-2%1"], log=log)
    out = tmp_path / "e.parquet"
    merge = slurm.submit("embed.sbatch", store, out, "--model", model, log=log)
    words = ["build", store, "--out", tmp_path / "here", "--model", model, "--embeddings", out]
    built = slurm.submit("index.sbatch", *words, options=[f"--dependency=afterok:{merge}:{array}"], log=log)
    slurm.wait_until_ended(built, log)
    there, here = MilvusIndex.open(tmp_path / "there"), ionbed.Index.open(tmp_path / "here")
    assert len(there) == len(here) == len(Store(store))
    query = Store(store).spectra(np.array([0, 90]))
    scores = [index.search(query, 3, 10.0).scores for index in (there, here)]
    np.testing.assert_allclose(*scores, atol=1e-5)
    there.store.close()


def test_a_store_is_prepared_on_two_nodes_as_in_one_process(slurm, store, tmp_path):
    write_mgf(Store(store).spectra(), tmp_path / "x.mgf")
    log = tmp_path / "log"
    words = [tmp_path / "x.mgf", "--out", tmp_path / "store"]
    job = slurm.submit("prepare.sbatch", *words, options=["--nodes=2"], log=log)
    slurm.wait_until_ended(job, log)
    prepare([tmp_path / "x.mgf"], tmp_path / "expected", workers=1)
    mine, theirs = (Store(tmp_path / name).manifest["shards"] for name in ("store", "expected"))
    assert mine == theirs
