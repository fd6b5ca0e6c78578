"""Embeddings in parts: merged they are the table of one process, byte by byte; what does not fit is refused."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ionbed import InputError
from ionbed.cli import main
from ionbed.embeddings import encode
from ionbed.embeddings.encode import Part, choose_device, embed_file, embed_part, merge_parts
from ionbed.encoder.loading import load_model

from .conftest import CountSketchModel


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(encode, "SPECTRA_AT_ONCE", 10)  # 144 spectra in two shards: 15 blocks


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "e.parquet"


def test_the_rows_of_parts_follow_one_another_and_are_all(monkeypatch):
    for num_spectra, of in itertools.product((0, 1, 9, 10, 11, 144, 150), (1, 2, 3, 16, 40)):
        rows = [Part(number, of).rows(num_spectra) for number in range(1, of + 1)]
        assert list(itertools.chain(*rows)) == list(range(num_spectra))
        assert all(part.start % 10 == 0 for part in rows if part)
        sizes = [-(-len(part) // 10) for part in rows]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("of", [1, 3, 16])
def test_merged_parts_are_the_table_of_one_process(store, out, tmp_path, of):
    model = load_model()
    assert embed_file(store, tmp_path / "one.parquet", model) == 144
    counts = [embed_part(store, out, model, Part(number, of)) for number in reversed(range(1, of + 1))]
    assert sum(counts) == 144 and not out.exists()
    assert merge_parts(store, out, model) == 144
    assert out.read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert sorted(os.listdir(out.parent)) == [out.name, "one.parquet"]  # the parts are gone
    assert merge_parts(store, out, model) == 144  # as a job that is put back does


def test_blocks_are_the_rows_of_the_store(store, model, out):
    embed_file(store, out, model)
    from ionbed.spectra.store import Store

    spectra = Store(store).spectra()
    table = pq.read_table(out)
    assert table["spectrum_id"].to_pylist() == [s.spectrum_id for s in spectra]
    np.testing.assert_allclose(
        np.stack(table["embedding"].to_numpy(zero_copy_only=False)), model.embed(spectra), atol=1e-6
    )


def test_a_part_that_is_there_is_kept_and_a_damaged_one_made_anew(store, model, out, caplog):
    path = Part(2, 3).path(out)
    embed_part(store, out, model, Part(2, 3))
    before = path.stat().st_mtime_ns, path.read_bytes()
    embed_part(store, out, model, Part(2, 3))
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    path.write_bytes(before[1][:-5])
    embed_part(store, out, model, Part(2, 3))
    assert path.read_bytes() == before[1]
    embed_part(store, out, CountSketchModel(seed=1), Part(2, 3))
    assert path.read_bytes() != before[1]


def test_what_does_not_fit_together_is_not_merged(store, model, out, tmp_path):
    with pytest.raises(InputError, match="no parts"):
        merge_parts(store, out, model)
    for number in (1, 3):
        embed_part(store, out, model, Part(number, 3))
    with pytest.raises(InputError, match=r"1 of 3 parts are missing \(2\).* --part 2/3"):
        merge_parts(store, out, model)
    embed_part(store, out, CountSketchModel(seed=1), Part(2, 3))
    with pytest.raises(InputError, match=r"00002-of-00003.*another model.*--part 2/3"):
        merge_parts(store, out, model)
    shutil.copyfile(Part(1, 3).path(out), Part(2, 3).path(out))
    with pytest.raises(InputError, match=r"00002-of-00003.*other rows"):
        merge_parts(store, out, model)
    embed_part(store, out, model, Part(2, 3))
    other = Path(shutil.copytree(store, tmp_path / "other"))
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sha256": "', '"sha256": "f', 1))
    with pytest.raises(InputError, match="another store"):
        merge_parts(other, out, model)
    embed_part(store, out, model, Part(1, 4))
    with pytest.raises(InputError, match="parts of 3 and parts of 4"):
        merge_parts(store, out, model)
    Part(1, 4).path(out).unlink()
    damaged = bytearray(Part(1, 3).path(out).read_bytes())
    damaged[200] ^= 1  # within the first page
    Part(1, 3).path(out).write_bytes(damaged)
    with pytest.raises(InputError, match="damaged"):
        merge_parts(store, out, model)
    assert not out.exists()


def test_parts_are_of_a_store(model, store, out, tmp_path):
    (tmp_path / "x.mgf").write_text("BEGIN IONS\nPEPMASS=100\n50 1\nEND IONS\n")
    for call in (
        lambda: embed_part(tmp_path / "x.mgf", out, model, Part(1, 2)),
        lambda: merge_parts(tmp_path / "x.mgf", out, model),
    ):
        with pytest.raises(InputError, match="prepare"):
            call()
    with pytest.raises(InputError, match="input"):
        embed_part(store, store / "e.parquet", model, Part(1, 2))
    for text in ("0/3", "4/3", "3", "a/b", "1/2/3", "-1/2"):
        with pytest.raises(InputError, match=f"--part {text}"):
            Part.parse(text)


def test_a_damaged_store_is_told_and_leaves_nothing(store, model, out, tmp_path):
    damaged = Path(shutil.copytree(store, tmp_path / "damaged"))
    shard = damaged / "spectra-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)  # its end, where the shape stands, stays
    shard.write_bytes(content)
    embed_part(damaged, out, model, Part(1, 3))  # which lies in the other shard
    for call in (lambda: embed_file(damaged, out, model), lambda: embed_part(damaged, out, model, Part(3, 3))):
        with pytest.raises(InputError, match=r"spectra-00001\.parquet: is damaged"):
            call()
    assert not out.exists() and os.listdir(f"{out}.parts") == [Part(1, 3).path(out).name]


def test_the_command_makes_parts_and_merges_them(store, out, tmp_path, capsys):
    words = ["embed", str(store), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--part", "1/2", "--merge"]) == 2
    assert main([*words, "--part", "3/2"]) == 2
    assert main([*words, "--merge"]) == 2
    assert main([*words, "--part", "1/2"]) == 0 and main([*words, "--part", "2/2"]) == 0
    assert main([*words, "--merge"]) == 0
    assert main(["embed", str(store), "--out", str(tmp_path / "one.parquet"), "--device", "cpu"]) == 0
    assert out.read_bytes() == (tmp_path / "one.parquet").read_bytes()


def test_devices():
    assert choose_device("cpu").type == "cpu"
    for name in ("cuda:99", "nonsense", "meta"):
        with pytest.raises(InputError, match=f"--device {name}"):
            choose_device(name)
