"""The store: what is missing, cut off, changed or malformed is told in one line, and `verify` finds any change."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ionbed import InputError
from ionbed.spectra.store import Store


@pytest.fixture
def copy(store, tmp_path):
    return shutil.copytree(store, tmp_path / "store")


def refused(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value) and "ionbed prepare" in str(caught.value)
    return str(caught.value)


def test_a_whole_store_is_verified(copy):
    store = Store(copy)
    store.verify()
    assert len(list(store)) == len(store) == len(store.table()) == 144


@pytest.mark.parametrize("kept", [0, 3, 0.5, -1])
def test_a_shard_that_was_cut_off_is_told_at_once(copy, kept):
    shard = copy / "spectra-00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    assert str(shard) in refused(lambda: Store(copy))


def test_a_shard_of_another_store_is_told_at_once(copy):
    shutil.copy(copy / "spectra-00000.parquet", copy / "spectra-00001.parquet")
    assert "has 80 spectra, not 64" in refused(lambda: Store(copy))
    pq.write_table(pq.read_table(copy / "spectra-00000.parquet").drop_columns(["mz"]), copy / "spectra-00000.parquet")
    assert "no column mz" in refused(lambda: Store(copy))


def test_a_damaged_page_is_told_when_it_is_read_and_found_by_verify(copy):
    shard = copy / "spectra-00001.parquet"
    content = bytearray(shard.read_bytes())
    rng, told = np.random.default_rng(0), 0
    for start in rng.integers(4, len(content) - 8000, 60).tolist():
        damaged = content.copy()
        damaged[start : start + 40] = rng.bytes(40)
        shard.write_bytes(damaged)
        try:
            store = Store(copy)
            assert str(shard) in refused(store.verify)
            assert len(list(store)) == 144
            assert len(store.table()) == 144
        except InputError as error:
            assert str(shard) in str(error)
            told += 1
    assert told > 20


@pytest.mark.parametrize(
    "shards",
    [
        None, {}, [], ["spectra-00000.parquet"], [{"spectra": 80}], [{"file": "spectra-00000.parquet"}],
        [{"file": 5, "spectra": 80}], [{"file": "", "spectra": 80}], [{"file": "../x.parquet", "spectra": 80}],
        [{"file": "spectra-00000.parquet", "spectra": "80"}], [{"file": "spectra-00000.parquet", "spectra": -1}],
    ],
)  # fmt: skip
def test_a_malformed_list_of_shards_is_told(copy, shards):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.pop("shards")
    (copy / "manifest.json").write_text(json.dumps(manifest if shards is None else {**manifest, "shards": shards}))
    assert "its list of shards" in refused(lambda: Store(copy))


def test_what_has_no_checksum_is_not_called_verified(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["shards"][1]["sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "no checksum" in refused(Store(copy).verify)
