"""prepare: counts that add up, the same bytes from any number of workers, and nothing half-written after a kill."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.configs.loading import load_config
from ionbed.errors import InputError
from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.grades import GradeOptions
from ionbed.spectra.near_duplicates import NearDuplicateOptions
from ionbed.spectra.preparation import curation, parts, runs, shuffle, units, workers
from ionbed.spectra.preparation.assemble import plan_shards
from ionbed.spectra.preparation.parts import make_part
from ionbed.spectra.prepare import PrepareOptions, prepare
from ionbed.spectra.readers import blocks, reading
from ionbed.spectra.store import Store

from .prepare_inputs import SMALL_SHARDS, content, ions

pytestmark = pytest.mark.usefixtures("units_of_one_file")


def test_counts_add_up_and_every_drop_has_its_reason(libraries: list[Path], tmp_path: Path) -> None:
    manifest = prepare(libraries, tmp_path / "store", options=SMALL_SHARDS, workers=1)
    counts = manifest["counts"]
    assert counts["read"] == 5 * 24
    assert counts["dropped"] == {
        "duplicate": 20, "bad-peak-line": 5, "ms-level": 5, "no-precursor-mz": 5, "too-few-peaks": 5,
    }  # fmt: skip
    assert counts["kept"] == 80 == counts["read"] - sum(counts["dropped"].values())
    assert counts["repaired"]["charge-sign"] == 40  # negative mode with CHARGE=1+; duplicates do not count
    with open(tmp_path / "store" / "dropped.tsv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 40
    assert rows[0] == {
        "source_file": "library-0.mgf", "position": "4", "native_id": "no precursor", "reason": "no-precursor-mz",
        "detail": "N/A",
    }  # fmt: skip
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["counts"] == counts


def test_the_store_holds_what_was_written(libraries: list[Path], tmp_path: Path) -> None:
    prepare(libraries, tmp_path / "store", options=SMALL_SHARDS, workers=1)
    store = Store(tmp_path / "store")
    assert [shard["spectra"] for shard in store.manifest["shards"]] == [20, 20, 20, 20]  # as many as divide by 4
    spectra = list(store)
    assert [s.native_id for s in spectra] == [f"spectrum {i}" for i in range(80)]
    assert spectra[1].polarity == -1
    assert spectra[1].charge == -1
    assert spectra[4].smiles == "Cn1c(=O)c2c(ncn2C)n(C)c1=O"
    assert store.manifest["inputs"][0]["sha256"] == hashlib.sha256(libraries[0].read_bytes()).hexdigest()


def test_any_number_of_workers_writes_the_same_bytes(libraries: list[Path], tmp_path: Path) -> None:
    for count in (1, 2, 3):
        prepare(libraries, tmp_path / f"store-{count}", options=SMALL_SHARDS, workers=count)
    one = content(tmp_path / "store-1")
    shards = [f"spectra-{i:05d}.parquet" for i in range(4)]
    assert set(one) == {*shards, "README.md", "dropped.tsv", "files.tsv", "manifest.json", "report.html"}
    assert one == content(tmp_path / "store-2") == content(tmp_path / "store-3")


def test_ids_are_unique_even_where_titles_are_not(tmp_path: Path) -> None:
    library = tmp_path / "a.mgf"
    library.write_text(
        ions("same")
        + ions("same", PEPMASS="200.1")
        + ions("same#2", PEPMASS="201.1")
        + ions("other").replace("TITLE=other\n", "")
    )
    prepare([library], tmp_path / "store", workers=1)
    ids = [spectrum.spectrum_id for spectrum in Store(tmp_path / "store")]
    assert ids == ["same", "same#2", "same#2#2", "a.mgf#4"]


def test_license_list(tmp_path: Path) -> None:
    library = tmp_path / "a.mgf"
    licenses = ["CC BY", "cc-by-4.0", "CC BY-NC-SA", "CC0", "CC BY-SA"]
    library.write_text(
        "".join(ions(text, LICENSE=text, PEPMASS=f"{200 + i}.1") for i, text in enumerate(licenses)) + ions("without")
    )
    options = PrepareOptions(licenses=("CC BY", "CC0"))
    manifest = prepare([library], tmp_path / "store", options=options, workers=1)
    assert [s.license for s in Store(tmp_path / "store")] == ["CC BY", "cc-by-4.0", "CC0"]
    assert manifest["counts"]["dropped"] == {"license": 3}
    assert manifest["options"]["licenses"] == ["CC BY", "CC0"]


def test_options_reach_the_workers(libraries: list[Path], tmp_path: Path) -> None:
    options = PrepareOptions(ms_levels=(1,), cleaning=CleaningOptions(max_peaks=2))
    manifest = prepare(libraries, tmp_path / "store", options=options, workers=2)
    assert manifest["counts"]["kept"] == 1  # one survey scan, written five times
    assert len(next(iter(Store(tmp_path / "store")))) == 2


def test_wrong_input_is_one_line_and_leaves_nothing(libraries: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "store"
    useless = tmp_path / "useless.mgf"
    useless.write_text(ions("a", PEPMASS="N/A") * 3)
    wrong: list[tuple[list[Path], Path, str]] = [
        ([], out, "no input"),
        ([*libraries, tmp_path / "missing.mgf"], out, "missing.mgf"),
        ([useless], out, r"none of 3 records can be used \(no-precursor-mz: 3\)"),
        ([libraries[0].parent], libraries[0].parent / "store", "lies in the input"),
    ]
    for inputs, target, message in wrong:
        with pytest.raises(InputError, match=message) as caught:
            prepare(inputs, target, workers=1)
        assert "\n" not in str(caught.value)
        assert not target.exists()
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(InputError, match="workers"):
        prepare(libraries, out, workers=0)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        prepare(libraries, out, workers=1)
    assert content(out).keys() == {"thesis.txt"}


@pytest.mark.parametrize("wrong", [{"ms_levels": ()}, {"ms_levels": (0,)}, {"licenses": ()}, {"rows_per_shard": 0}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PrepareOptions(**wrong)


def test_small_groups_and_ranges_change_nothing(
    libraries: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PrepareOptions(rows_per_shard=7, near_duplicates=NearDuplicateOptions(keep=1, similarity=0.5))
    libraries[1].write_text(libraries[1].read_text().replace("TITLE=spectrum", "TITLE=same") * 2)
    prepare(libraries, tmp_path / "one", options=options, workers=1)
    monkeypatch.setattr(parts, "ROWS_PER_GROUP", 10)
    monkeypatch.setattr(shuffle, "SMALLEST_RANGE", 3)
    monkeypatch.setattr(shuffle, "MOST_PEAKS", 60)
    prepare(libraries, tmp_path / "many", options=options, workers=1)
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_near_duplicates_are_found_across_files(tmp_path: Path) -> None:
    def repeats(first: int) -> str:
        return "".join(
            ions(f"repeat {i}", PEPMASS="195.0877", peaks=f"110.07{i:02d} {200 + i}\n138.066 1000\n")
            for i in range(first, first + 6)
        )

    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.mgf").write_text(repeats(6 * i) + ions(f"other {i}", PEPMASS=f"{300 + i}.1"))
    options = PrepareOptions(near_duplicates=NearDuplicateOptions(keep=4))
    manifest = prepare([tmp_path / "in"], tmp_path / "store", options=options, workers=1)
    assert manifest["counts"]["dropped"] == {"near-duplicate": 14}
    kept = [s.native_id for s in Store(tmp_path / "store")]
    assert kept == ["repeat 0", "repeat 1", "repeat 2", "repeat 3", "other 0", "other 1", "other 2"]
    off = PrepareOptions(near_duplicates=NearDuplicateOptions(keep=None))
    assert prepare([tmp_path / "in"], tmp_path / "all", options=off, workers=1)["counts"]["kept"] == 21


def test_a_least_grade_drops_the_rest(libraries: list[Path], tmp_path: Path) -> None:
    everything = prepare(libraries, tmp_path / "all", workers=1)["counts"]
    assert set(everything["grades"]) > {"C"}
    assert everything["kept"] == sum(everything["grades"].values())
    options = PrepareOptions(grades=GradeOptions(minimum="B"))
    counts = prepare(libraries, tmp_path / "better", options=options, workers=1)["counts"]
    assert counts["grades"] == {g: n for g, n in everything["grades"].items() if g != "C"}
    assert counts["kept"] + sum(counts["dropped"].values()) == counts["read"]
    assert {s.grade for s in Store(tmp_path / "better")} == set(counts["grades"])


def test_the_table_of_files_adds_up(libraries: list[Path], tmp_path: Path) -> None:
    counts = prepare(libraries, tmp_path / "store", workers=1)["counts"]
    with open(tmp_path / "store" / "files.tsv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["file"] for row in rows] == [path.name for path in libraries]
    assert sum(int(row["read"]) for row in rows) == counts["read"]
    assert sum(int(row["kept"]) for row in rows) == counts["kept"]
    for row in rows:
        dropped = sum(int(entry.rpartition(": ")[2]) for entry in row["dropped"].split(", "))
        assert int(row["read"]) == int(row["kept"]) + dropped


@pytest.mark.parametrize(
    ("num_rows", "per_shard", "expected"),
    [
        (1, 10, [1]),
        (10, 10, [10]),
        (11, 10, [5, 6]),
        (21, 10, [5, 5, 5, 6]),
        (3, 1, [1, 1, 1]),
        (641, 10, [5] * 127 + [6]),
    ],
)
def test_shards_divide_among_processes(num_rows: int, per_shard: int, expected: list[int]) -> None:
    shards = plan_shards(np.array([num_rows]), per_shard)
    assert sorted(shard.num_rows for shard in shards) == sorted(expected)
    assert len(shards) in (1, 2, 4, 8, 16, 32, num_rows) or len(shards) % 64 == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 12))
def test_shards_cover_every_kept_row_once(kept: list[int], per_shard: int) -> None:
    rows = [(part, row) for part, count in enumerate(kept) for row in range(count)]
    found = []
    for shard in plan_shards(np.array(kept), per_shard) if rows else []:
        mine = [(part, row) for part in shard.parts for row in range(kept[part])]
        found += mine[shard.skip : shard.skip + shard.num_rows]
    assert found == rows


def test_a_dask_cluster_writes_the_same_bytes(libraries: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    prepare(libraries, tmp_path / "here", options=SMALL_SHARDS, workers=1)
    prepare(libraries, tmp_path / "there", options=SMALL_SHARDS, workers=2, cluster="local")
    assert content(tmp_path / "here") == content(tmp_path / "there")


@pytest.mark.parametrize(("cluster", "message"), [("nowhere", "neither"), ("tcp://127.0.0.1:1", "no Dask cluster")])
def test_a_wrong_cluster_is_told(
    libraries: list[Path], tmp_path: Path, cluster: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "SCHEDULER_TIMEOUT", 1.0)
    with pytest.raises(InputError, match=message):
        prepare(libraries, tmp_path / "store", cluster=cluster)
    assert not (tmp_path / "store").exists()


def test_a_folder_that_holds_the_input_is_not_overwritten(libraries):
    before = libraries[0].read_bytes()
    with pytest.raises(InputError, match="holds the input"):
        prepare([libraries[0]], libraries[0].parent, workers=1, overwrite=True)
    assert libraries[0].read_bytes() == before


def test_files_of_one_name_are_told_apart_and_none_is_read_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, folder in enumerate(("one/run", "two/run", "three")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mgf").write_text(ions("x", PEPMASS=f"{200 + i}.1"))
    inputs = [tmp_path / "one/run/a.mgf", tmp_path / "two/run/a.mgf", tmp_path / "three", tmp_path / "three/a.mgf"]
    manifest = prepare(inputs, tmp_path / "store", workers=1)
    assert [s.source_file for s in Store(tmp_path / "store")] == ["one/run/a.mgf", "two/run/a.mgf", "three/a.mgf"]
    assert manifest["counts"]["read"] == 3
    assert "each is read once" in caplog.text


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    for number, byte in enumerate((b"\xe9", b"\xe8")):
        with open(os.fsencode(tmp_path) + b"/a" + byte + b".mgf", "w") as stream:
            stream.write(ions("x", PEPMASS=f"{200 + number}.1"))
    member = ions("y", PEPMASS="250.1").encode()
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        entry = tarfile.TarInfo("ä.mgf")
        entry.size = len(member)
        archive.addfile(entry, io.BytesIO(member))
    prepare(sorted(tmp_path.iterdir()), tmp_path / "store", workers=1)
    names = [s.source_file for s in Store(tmp_path / "store")]
    assert sorted(names) == ["a\\udce8.mgf", "a\\udce9.mgf", "b.tar!\\udce4.mgf"]


def test_a_pipe_is_refused_by_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mgf")
    with pytest.raises(InputError, match="is a pipe"):
        prepare([tmp_path / "pipe.mgf"], tmp_path / "store", workers=1)


def test_rows_are_taken_without_copying_the_whole_part(tmp_path: Path) -> None:
    spectra = [ions(f"s{i}", PEPMASS=f"{100 + i / 10:.4f}") for i in range(400)]
    (tmp_path / "a.mgf").write_text("".join(spectra))
    unit = units.Unit(0, files=(("a.mgf", tmp_path / "a.mgf"),))
    make_part(unit, folder=tmp_path, options=PrepareOptions())
    made = parts.Parts(tmp_path, (0, 400))
    os.link(tmp_path / "part-000000.arrow", tmp_path / "part-000001.arrow")
    rows = np.array([3, 77, 399])
    assert made.take(1, rows, ["native_id"])["native_id"].to_pylist() == ["s3", "s77", "s399"]
    assert [first for first, _ in made.batches(1, ["position"])] == [0]


def test_files_of_few_spectra_share_a_task_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ROWS_PER_TASK", 10)
    monkeypatch.setattr(runs, "LARGEST_RUN", 20)
    sizes = [3, 1, 4, 2, 21, 2, 15, 5, 5, 1]
    starts = np.cumsum([0, *sizes]).tolist()
    spans = [(str(i), starts[i], size) for i, size in enumerate(sizes)]
    groups = [[name for name, _, _ in group] for group in runs._in_groups(spans)]
    assert groups == [["0", "2", "3"], ["5"], ["6"], ["7", "8"]]


def test_the_mass_spread_of_a_file_does_not_depend_on_what_else_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 2000)
    run = "".join(ions(f"scan {i}", RTINSECONDS=str(i), peaks=f"110.07{i % 7} 900\n138.066 1000\n") for i in range(100))
    (tmp_path / "run.mgf").write_text(run)
    found = []
    for smallest in (1, 4 << 20):  # a large share of the input is cut where it is steered, a small one is not
        monkeypatch.setattr(units, "SMALLEST_UNIT_BYTES", smallest)
        cut = list(units.cut_into_units(units.input_files([tmp_path / "run.mgf"]), []))
        folder = tmp_path / f"parts-{len(cut)}"
        folder.mkdir()
        for unit in cut:
            make_part(unit, folder=folder, options=PrepareOptions())
        rows = tuple(parts.read_summary(folder, unit.number)["rows"] for unit in cut)
        ((name, statistics),) = curation._merged(parts.Parts(folder, rows))
        found.append((len(cut), name, statistics.to_json()))
    assert found[0][0] > 1 == found[1][0]
    assert found[0][1:] == found[1][1:]
    assert found[0][2]["deviations"]


def test_a_full_disk_is_told_in_a_sentence(
    libraries: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shuffle, "_save", full)
    with pytest.raises(InputError, match=r"store: the disk is full.*is kept"):
        prepare(libraries, tmp_path / "store", workers=1)
    assert list((tmp_path / ".store.partial").glob(".scratch-*/part-*.json"))


def test_a_place_that_cannot_be_written_is_told(libraries: list[Path]) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        prepare(libraries[:1], libraries[1] / "store", workers=1)


def test_the_file_of_options_holds_the_defaults() -> None:
    assert load_config(PrepareOptions, "prepare") == PrepareOptions()
