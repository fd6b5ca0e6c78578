"""What lies on disk: damage is named wherever a bit flips, runs are merged in order, rows come from several batches."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ionbed import InputError
from ionbed.embeddings.index import Index
from ionbed.embeddings.library_rows import embedded, gathered
from ionbed.embeddings.segments import commits
from ionbed.embeddings.segments.runs import SpilledRun, blocks, sorted_with_unique_ids, spill
from ionbed.spectra.deduplication import UniqueNames
from ionbed.spectra.store import SCHEMA, table_from_spectra

from .conftest import random_spectrum

MODULES_WITH_BLOCKS = ("numbers", "table", "runs", "segment", "library")


@pytest.fixture
def small_blocks(monkeypatch):
    for module in MODULES_WITH_BLOCKS:
        monkeypatch.setattr(f"ionbed.embeddings.segments.{module}.ROWS_PER_BLOCK", 16)


@pytest.fixture
def folder(model, library, tmp_path, small_blocks):
    """An index of two segments with deleted rows, of several blocks each."""
    Index.build(model, library).save(tmp_path / "index")
    index = Index.open(tmp_path / "index", model)
    rng = np.random.default_rng(0)
    index.append([random_spectrum(rng, f"new-{number}") for number in range(20)])
    index.delete(["lib-0-0", "new-3"])
    return tmp_path / "index"


def use_everything(folder, model) -> tuple:
    """Open an index and read all that a search, a list of hits or a service reads of it."""
    index = Index.open(folder, model)
    queries = index.spectra(np.arange(index.num_rows))
    found = index.search(queries, k=3), index.search(queries, k=3, precursor_ppm=None)
    return [[hit.metadata for hit in hits] for both in found for hits in both], index.info()["licenses"], queries


def test_a_bit_that_flips_in_any_file_is_named(folder, model, monkeypatch):
    expected = use_everything(folder, model)
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 0)  # as if every file were large
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "model"]
    assert {path.name for path in files} == {
        "vectors.npy", "library.arrow", "precursor_mz.npy", "polarity.npy", "checksums.npy", "1.npy", "manifest.json",
    }  # fmt: skip
    rng = np.random.default_rng(5)
    for path in files:
        whole = path.read_bytes()
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 12).tolist()}
        for place in sorted(places):
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            try:
                found = use_everything(folder, model)
                # What is never interpreted, as the bytes that fill a buffer up, is found by `verify` alone.
                assert repr(found) == repr(expected), f"{path}: a bit of byte {place} changed what is read"
                with pytest.raises(InputError, match=str(path)):
                    Index.open(folder, model).verify()
            except InputError as error:
                assert str(error).startswith(str(folder)) and "\n" not in str(error), str(error)
        path.write_bytes(whole)
    assert repr(use_everything(folder, model)) == repr(expected)


def test_damage_is_named_by_file_and_rows_when_it_is_first_read(folder, model, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 0)
    vectors = folder / "segments/1/vectors.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    index = Index.open(folder, model)
    assert index.vectors[:16].shape == (16, 16)
    for rows in (slice(50, 55), np.array([3, -21]), np.arange(index.num_rows) == 59):
        with pytest.raises(InputError, match=r"1/vectors\.npy: is damaged \(rows 48 to 59: not as written"):
            index.vectors[rows]
    assert index.vectors[np.array([[61, 2], [70, 47]])].shape == (2, 2, 16)
    vectors.write_bytes(whole)
    table = folder / "segments/2/library.arrow"
    whole = table.read_bytes()
    place = whole.rindex(b"new-1")
    table.write_bytes(whole[:place] + b"NEW-1" + whole[place + 5 :])
    index = Index.open(folder, model)
    assert len(index.rows([79, 61], ["precursor_mz"])) == 2
    with pytest.raises(InputError, match=r"2/library\.arrow: is damaged \(spectrum_id of rows \d+ to \d+"):
        index.rows(np.arange(60, 80), ["spectrum_id"])


def test_vectors_of_several_segments_are_taken_as_from_one_array(folder, model):
    index = Index.open(folder, model)
    whole = np.array(index.vectors)
    assert whole.shape == index.vectors.shape == (80, 16)
    slices = [slice(None), slice(5, 9), slice(58, 63), slice(60, 80, 3), slice(70, 5, -4), slice(9, 9)]
    arrays = [np.array([[79, 0], [59, 60]]), np.empty(0, int), whole[:, 0] > 0]
    for rows in (*slices, *arrays, -1):
        np.testing.assert_array_equal(index.vectors[rows], whole[rows])
    assert not index.vectors[3:5].flags.writeable
    for rows in (np.array([80]), np.array([0, -81])):
        with pytest.raises(IndexError):
            index.vectors[rows]


def test_rows_of_several_segments_come_in_the_order_asked(folder, model, library):
    index = Index.open(folder, model)
    ids = index.metadata["spectrum_id"].to_pylist()
    rows = np.random.default_rng(0).permutation(80)[:50].repeat(2)
    table = index.rows(rows, ["name", "spectrum_id", "mz"])
    assert table["spectrum_id"].to_pylist() == [ids[row] for row in rows]
    by_id = {s.spectrum_id: s for s in library}
    for name, mz in zip(table["spectrum_id"].to_pylist(), table["mz"].to_pylist(), strict=True):
        if name in by_id:
            np.testing.assert_array_equal(np.float32(mz), by_id[name].mz)
    assert len(index.rows([])) == 0
    with pytest.raises(IndexError):
        index.rows([80])


@pytest.mark.parametrize("rows_per_run", [3, 20, 1000])
def test_runs_are_merged_in_order_whatever_their_size(tmp_path, library, small_blocks, rows_per_run):
    table = table_from_spectra(library)
    expected = table.sort_by([("precursor_mz", "ascending"), ("spectrum_id", "ascending")])
    runs = spill([table[:7], table[7:8], table[8:]], tmp_path, rows_per_run=rows_per_run)
    assert len(runs) == -(-60 // rows_per_run)
    if rows_per_run == 1000:  # but few bytes
        (tmp_path / "small").mkdir()
        runs = spill([table[:30], table[30:31], table[31:]], tmp_path / "small", bytes_per_run=table[:20].nbytes)
        assert list(map(len, runs)) == [30, 30]
    merged = [block for block, _ in blocks(sorted_with_unique_ids(runs))]
    assert [len(block) for block in merged] == [16, 16, 16, 12]
    assert pa.concat_tables(merged).combine_chunks().equals(expected.combine_chunks())


def test_copies_of_an_id_get_numbers_by_precursor_and_none_that_another_has(tmp_path):
    rng = np.random.default_rng(0)
    names = ["x", "y", "x", "x#2", "x", "y#2", "y", "z"]
    spectra = [random_spectrum(rng, name, precursor_mz=900.0 - place) for place, name in enumerate(names)]
    runs = spill([table_from_spectra(spectra)], tmp_path, rows_per_run=3)
    [(table, _)] = blocks(sorted_with_unique_ids(runs))
    found = dict(zip(table["precursor_mz"].to_pylist(), table["spectrum_id"].to_pylist(), strict=True))
    assert [found[900.0 - place] for place in range(8)] == ["x#4", "y#3", "x#3", "x#2", "x", "y#2", "y", "z"]
    many = UniqueNames()
    assert len({many.assign(name) for name in found.values()} & set(found.values())) == 8


def test_what_was_gathered_is_embedded_block_by_block_and_cleaned_up(tmp_path, model, library, small_blocks):
    with gathered(library, tmp_path) as found:
        assert found.num_bytes > 1000 and list(tmp_path.iterdir())
        parts = list(embedded(found.rows, model))
    assert list(tmp_path.iterdir()) == []
    table = pa.concat_tables([rows for rows, _ in parts])
    assert table.schema.equals(SCHEMA) and len(table) == 60
    by_id = {s.spectrum_id: s for s in library}
    expected = model.embed([by_id[name] for name in table["spectrum_id"].to_pylist()])
    np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in parts]), expected)


def test_what_a_killed_writer_left_is_removed_by_the_next(folder, model):
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    shutil.copytree(folder / "segments/1", folder / "segments/.7.partial")
    shutil.copytree(folder / "segments/1", folder / "segments/7")
    (folder / "deleted/9.npy").write_bytes(b"half")
    (folder / ".manifest.json.partial").write_text("{")
    expected = len(Index.open(folder, model))
    with pytest.raises(InputError, match="no spectrum nobody"):
        Index.open(folder, model).delete(["nobody"])
    assert {path.relative_to(folder) for path in folder.rglob("*")} == before
    assert len(Index.open(folder, model)) == expected


def test_what_cannot_be_removed_yet_undoes_no_commit(folder, model, monkeypatch, caplog):
    index = Index.open(folder, model)
    expected, before = len(index), {path.name for path in (folder / "segments").iterdir()}

    def busy(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(
                errno.ENOTEMPTY, "Directory not empty", str(path)
            )  # as NFS does while a reader has files open

    with monkeypatch.context() as patch:
        patch.setattr(commits.shutil, "rmtree", busy)
        index.compact()
    assert "cannot be removed yet" in caplog.text
    assert len(index) == len(Index.open(folder, model)) == expected
    assert {path.name for path in (folder / "segments").iterdir()} > before
    with pytest.raises(InputError, match="no spectrum nobody"):
        index.delete(["nobody"])
    assert len(list((folder / "segments").iterdir())) == 1


def test_ids_are_looked_up_in_all_batches_at_once(folder, model, monkeypatch):
    calls, is_in = [], pc.is_in
    monkeypatch.setattr(pc, "is_in", lambda *words, **options: (calls.append(1), is_in(*words, **options))[1])
    library = Index.open(folder, model).library
    assert len(list(library.batches(["spectrum_id"]))) > 1
    names = library.columns(["spectrum_id"])["spectrum_id"]
    live = np.arange(library.num_rows) if library.live is None else np.flatnonzero(library.live)
    np.testing.assert_array_equal(library.rows_where("spectrum_id", names), live)
    assert len(calls) == 1


@pytest.mark.parametrize("step", [1, 2, 30])
def test_of_a_library_most_of_which_is_gone_little_is_read(tmp_path, small_blocks, step):
    rng = np.random.default_rng(0)
    table = table_from_spectra([random_spectrum(rng, f"{number:03}") for number in range(400)])
    runs = [Watched(run.table) for run in spill([table], tmp_path, rows_per_run=200)]
    whole = sorted_with_unique_ids(runs)
    left = replace(whole, order=whole.order[rng.permutation(400)[: 400 // step]])
    merged = [(block, numbers) for block, numbers in blocks(left, ["spectrum_id", "mz"])]
    everything = pa.concat_tables([run.table for run in runs]).select(["spectrum_id", "mz"])
    for block, numbers in merged:
        assert block.equals(everything.take(pa.array(numbers)).combine_chunks())
    assert sum(len(numbers) for _, numbers in merged) == 400 // step
    assert sum(run.num_read for run in runs) <= len(merged) * 16 * 17


class Watched(SpilledRun):
    """A run that counts the rows that are read of it."""

    num_read = 0

    def slice(self, start, stop, names):
        object.__setattr__(self, "num_read", self.num_read + stop - start)
        return super().slice(start, stop, names)
