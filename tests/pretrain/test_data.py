"""Training data: columns of a store in mapped files, batches of equal work, and processes that wait for one another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.encoder.batching import FixedShapes, even_lengths, shares_of_processes
from ionbed.errors import InputError
from ionbed.pretrain import mapped_store
from ionbed.pretrain.config import DataConfig, PretrainConfig
from ionbed.pretrain.data import TrainingSpectra, epoch_batches
from ionbed.pretrain.mapped_store import MappedStore, content_key
from ionbed.pretrain.task import MaskedPeakTask
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store


def library_lengths(count: int, max_peaks: int = 64) -> np.ndarray:
    peaks = np.random.default_rng(0).lognormal(2.4, 1.1, count).astype(np.int32)
    return np.minimum(np.maximum(peaks, 1), max_peaks) + 1


def assert_same_columns(mine: SpectrumColumns, theirs: SpectrumColumns) -> None:
    for field in fields(mine):
        one, other = getattr(mine, field.name), getattr(theirs, field.name)
        assert one.dtype == other.dtype, field.name
        np.testing.assert_array_equal(one, other, err_msg=field.name)


def test_mapped_columns_are_those_of_the_store(store, tmp_path):
    table = Store(store).table()
    mapped = MappedStore(Store(store), tmp_path)
    rows = np.random.default_rng(0).permutation(len(table))[:50]
    assert_same_columns(mapped.columns(rows), SpectrumColumns.from_table(table).take(rows))
    assert_same_columns(mapped.columns(rows[:0]), SpectrumColumns.from_table(table).take(rows[:0]))
    for name in mapped_store.TEXTS:
        assert mapped.texts(name).of(slice(None)).tolist() == table[name].to_pylist()


def test_unknown_texts_are_none(store, tmp_path):
    """Half the adducts of a copy of the store are unknown, and all the SMILES."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shutil.copytree(store, tmp_path / "store")
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        table = pq.read_table(folder / shard["file"])
        adducts = [value if row % 2 else None for row, value in enumerate(table["adduct"].to_pylist())]
        for name, values in {"adduct": adducts, "smiles": [None] * len(table)}.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
        pq.write_table(table, folder / shard["file"])
        shard["sha256"] = sha256_of_file(folder / shard["file"])
    write_manifest(folder, manifest)
    spectra = TrainingSpectra(DataConfig(folder), tmp_path / "columns")
    expected = Store(folder).table()
    assert spectra.columns(spectra.rows).adduct.tolist() == expected["adduct"].to_pylist()
    assert set(spectra.smiles) == {None}
    assert spectra.num_molecules(spectra.rows) == len({key[:14] for key in expected["inchikey"].to_pylist()})


def test_folds_are_those_of_the_split(store, split, tmp_path):
    table, made = Store(store).table(), Split.load(split)
    spectra = TrainingSpectra(DataConfig(store, split, ("train", "test")), tmp_path)
    assert spectra.rows.tolist() == made.rows_in(table, ["train", "test"]).tolist()
    assert spectra.validation_rows.tolist() == made.rows_in(table, ["validation"]).tolist()


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_conversion_is_made_once_and_goes_on_where_it_was_killed(store, tmp_path, monkeypatch):
    opened = Store(store)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    monkeypatch.setattr(mapped_store, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(mapped_store, "BATCHES_PER_FILE", 2)
    MappedStore(opened, whole)
    blocks, read = Store.blocks, []

    def killed_in_the_third(self, columns, rows, size):
        for table in blocks(self, columns, rows, size):
            yield table
            if rows.start == 40:
                raise KeyboardInterrupt

    def counted(self, columns, rows, size):
        for table in blocks(self, columns, rows, size):
            read.append(len(table))
            yield table

    monkeypatch.setattr(Store, "blocks", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        MappedStore(opened, resumed)
    monkeypatch.setattr(Store, "blocks", counted)
    MappedStore(opened, resumed)
    assert sum(read) == len(opened) - 40
    assert files_of(resumed / content_key(opened)) == files_of(whole / content_key(opened))
    MappedStore(opened, resumed)
    assert sum(read) == len(opened) - 40  # not once more


def test_rows_are_gathered_over_batches_and_files(store, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_store, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(mapped_store, "BATCHES_PER_FILE", 3)
    table = Store(store).table()
    mapped = MappedStore(Store(store), tmp_path)
    assert len(mapped.datasets) == 7 and sum(map(len, mapped.datasets)) == len(mapped) == len(table)
    expected = SpectrumColumns.from_table(table)
    for rows in (np.arange(len(table)), np.random.default_rng(1).permutation(len(table))[:60], np.array([143, 0, 20])):
        assert_same_columns(mapped.columns(rows), expected.take(rows))
    assert_same_columns(mapped.columns(np.empty(0, np.int64)), expected.take(np.empty(0, np.int64)))
    for name in ("precursor_mz", "polarity"):
        np.testing.assert_array_equal(mapped.numbers(name), getattr(expected, name))
    np.testing.assert_array_equal(mapped.numbers("num_peaks"), expected.num_peaks)
    for name in mapped_store.TEXTS:
        assert mapped.texts(name).of(slice(None)).tolist() == table[name].to_pylist()


def test_damaged_files_are_named(store, tmp_path):
    MappedStore(Store(store), tmp_path)
    path = tmp_path / content_key(Store(store)) / "spectra-00000.arrow"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"is damaged \(.*\); remove it"):
        MappedStore(Store(store), tmp_path)


def test_a_place_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        MappedStore(Store(store), tmp_path / "file" / "columns")


@given(st.lists(st.integers(1, 65), min_size=1, max_size=300), st.integers(1, 400), st.booleans())
def test_an_epoch_has_every_row_once(lengths, batch_tokens, fixed):
    num_tokens = np.array([9, *lengths], np.int32)  # row 0 is not trained on
    rows = np.arange(1, len(num_tokens), dtype=np.int32)
    lengths = even_lengths(num_tokens, 4) if fixed else None
    batches = epoch_batches(rows, num_tokens, batch_tokens, 3, 1, lengths)
    assert Counter(np.concatenate(batches).tolist()) == Counter(rows.tolist())
    assert all(len(batch) for batch in batches)
    again = epoch_batches(rows, num_tokens, batch_tokens, 3, 1, lengths)
    assert [b.tolist() for b in batches] == [b.tolist() for b in again]


@pytest.mark.parametrize("fixed", [False, True])
def test_epochs_differ(fixed):
    num_tokens = library_lengths(500)
    lengths = even_lengths(num_tokens) if fixed else None
    first, second = (epoch_batches(np.arange(500), num_tokens, 600, 0, epoch, lengths) for epoch in (0, 1))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_steps_are_of_one_size_and_hold_little_padding(processes):
    """On lengths like those of public libraries, with the sizes of `pretrain-small`."""
    num_tokens = library_lengths(40_000)
    batches = epoch_batches(np.arange(40_000), num_tokens, 32_768, 0, 0)
    tokens = np.array([num_tokens[rows].sum() for rows in batches])
    assert tokens.max() <= 32_768 and tokens.min() > 0.8 * 32_768
    slots = 0
    for rows in batches:
        shares = shares_of_processes(num_tokens[rows], 8192, processes)
        own = [sum(int(num_tokens[rows[p]].max()) * len(p) for p in share) for share in shares]
        assert max(own) < 1.06 * np.mean(own)
        slots += sum(own)
    assert 1 - tokens.sum() / slots < 0.03


def test_a_whole_pool_has_no_tiny_batch():
    """Row numbers of one length: 100 batches of 10 rows and three rows left over."""
    batches = epoch_batches(np.arange(1003), np.full(1003, 10), 104, 0, 0)
    assert {len(batch) for batch in batches} <= {9, 10, 11}


def test_what_is_left_of_each_length_is_no_tiny_batch():
    num_tokens = np.array([4] * 251 + [8] * 125)  # batches of 250 and 125 spectra, and one spectrum of four tokens
    batches = epoch_batches(np.arange(376), num_tokens, 1000, 0, 0, np.array([4, 8]))
    assert sorted(len(batch) for batch in batches) == [125, 251] or sorted(map(len, batches)) == [126, 250]


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_a_compiled_model_is_given_full_shapes(processes):
    num_tokens = library_lengths(150_000)
    lengths = even_lengths(num_tokens)
    shapes = FixedShapes.of_run(lengths, 32_768, 8192, processes)
    slots, seen = 0, set()
    for rows in epoch_batches(np.arange(150_000), num_tokens, 32_768, 0, 0, lengths):
        for share in shapes.shares_of_processes(num_tokens[rows], processes):
            for part in share:
                shape = shapes.shape_of(int(num_tokens[rows[part]].max(initial=1)))
                slots += int(np.prod(shape))
                seen.add(shape)
    assert len(seen) == len(lengths) == 8
    by_lengths = int(lengths[np.searchsorted(lengths, num_tokens)].sum())
    assert by_lengths / slots > 0.96  # empty spectra: for what is left of each length at the end of an epoch


def test_losses_do_not_depend_on_the_shapes_of_a_compiled_model_or_on_the_processes(store, split, tmp_path):
    def losses(compiled: bool, processes: int) -> tuple[dict[str, float], dict[str, float], set]:
        config = load_config(PretrainConfig, "pretrain-tiny", [
            f"data.store={store}", f"data.split={split}", f"output={tmp_path}", "training.batch_tokens=400",
            "training.micro_batch_tokens=120", f"training.compile={str(compiled).lower()}", "model.hidden_size=32",
            "model.num_layers=1", "model.num_heads=4", "model.num_mz_wavelengths=16",
        ])  # fmt: skip
        task = MaskedPeakTask(config, TrainingSpectra(config.data, tmp_path / "columns"))
        sums, counts, shapes = Counter(), Counter(), set()
        for process in range(processes):
            for micro in task.micro_batches(task.spectra.rows[:37], 0, process, processes):
                shapes.add(tuple(micro.mask_BL.shape))
                with torch.no_grad():
                    sums.update({name: float(value) for name, value in task.module(micro).items()})
                counts.update({**task.counts(micro), "spectra": len(micro), "tokens": micro.num_tokens})
        return sums, counts, shapes

    sums, counts, _ = losses(False, 1)
    assert counts["spectra"] == 37 and counts["mz_bin"] > 37
    for compiled, processes in ((True, 1), (False, 3), (True, 3)):
        other_sums, other_counts, shapes = losses(compiled, processes)
        assert other_counts == counts
        assert other_sums == pytest.approx(sums, rel=1e-5)
        assert not compiled or len({length for _, length in shapes}) == len(shapes)  # one B for each L


WAITING = textwrap.dedent(
    """
    import os, sys, time, torch
    from datetime import timedelta
    from pathlib import Path
    from accelerate import PartialState
    from ionbed.errors import InputError
    from ionbed.pretrain import processes, turns

    state = PartialState(cpu=True, timeout=timedelta(seconds=10))
    turns.PULSE, turns.PATIENCE = 0.2, 2

    def work():
        if state.is_main_process:
            time.sleep(13 if kind == "slow" else 0.3)  # longer than collectives wait, and than the others' patience
            if kind == "refused":
                raise InputError("the store is bad")
            if kind == "broken":
                raise OSError("no such thing")
            if kind == "dead":
                os.kill(os.getpid(), 9)
        elif kind == "other":
            raise InputError("the other cannot read it")
        return state.process_index

    def chosen():
        assert state.is_main_process
        if kind == "none":
            raise InputError("there is none")
        return {"checkpoint": 7}

    for kind in ("chosen", "none", "slow", "refused", "other", "broken", "dead"):
        try:
            by_main = kind in ("chosen", "none")
            outcome = f"did {turns.from_main(chosen) if by_main else turns.main_first(work, Path(sys.argv[1]) / kind)}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        print(f"{kind}: {outcome}", flush=True)
    try:
        with processes.lost_processes_named():
            torch.distributed.all_reduce(torch.zeros(1))
    except processes.LostProcessError as error:
        print(f"alone: {str(error)[:42]}", flush=True)
    """
)


def test_processes_wait_for_the_main_one_without_a_limit_and_its_errors_end_all(tmp_path):
    """Two processes without a launcher that would end one with the other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
                   "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}  # fmt: skip
    started = [
        subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                         stderr=subprocess.PIPE, env={**environment, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]  # fmt: skip
    told = [process.communicate(timeout=120) for process in started]
    first, second = (output.splitlines() for output, _ in told)
    assert first == [
        "chosen: did {'checkpoint': 7}", "none: InputError: there is none",
        "slow: did 0", "refused: InputError: the store is bad", "other: SystemExit: 2", "broken: OSError: no such thing"
    ], told[0][1]  # fmt: skip
    assert second == [
        "chosen: did {'checkpoint': 7}",
        "none: SystemExit: 2",
        "slow: did 1",
        "refused: SystemExit: 2",
        "other: InputError: the other cannot read it",
        "broken: RuntimeError: the main process has failed; its own error says why",
        f"dead: RuntimeError: the main process has given no sign of life in {tmp_path / 'dead'} for 2 s",
        "alone: another process of the run has ended or do",
    ], told[1][1]
    assert started[0].returncode == -signal.SIGKILL
    assert not list((tmp_path / "slow").iterdir())
