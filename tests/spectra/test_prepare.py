"""prepare: counts that add up, the same bytes from any number of workers, and nothing half-written after a kill."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed.spectra.prepare as module
from ionbed.configs.loading import load_config
from ionbed.errors import InputError
from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.grades import GradeOptions
from ionbed.spectra.near_duplicates import NearDuplicateOptions
from ionbed.spectra.preparation import assemble, curation, parts, runs, shuffle, units, workers
from ionbed.spectra.preparation.assemble import plan_shards
from ionbed.spectra.preparation.parts import make_part
from ionbed.spectra.prepare import PrepareOptions, prepare
from ionbed.spectra.readers import blocks, reading
from ionbed.spectra.store import Store

SMILES = ["CCO", "CCN", "CC(=O)O", "c1ccccc1O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "C[C@H](N)C(=O)O"]
SMALL_SHARDS = PrepareOptions(rows_per_shard=25)


def ions(title: str, **parameters: str) -> str:
    fields = {"TITLE": title, "PEPMASS": "195.0877", "CHARGE": "1+", "MSLEVEL": "2", **parameters}
    peaks = fields.pop("peaks", f"110.071 200\n138.066 1000\n{150 + len(title)}.5 {len(title)}0")
    return "BEGIN IONS\n" + "".join(f"{key}={value}\n" for key, value in fields.items()) + f"{peaks}\nEND IONS\n\n"


def write_library(path: Path, first: int, count: int = 20) -> Path:
    """Write spectra that differ, with labels, and one of each fault."""
    records = [
        ions(
            f"spectrum {i}",
            SMILES=SMILES[i % len(SMILES)],
            PEPMASS=f"{100 + i}.5",
            IONMODE=["positive", "negative"][i % 2],
        )
        for i in range(first, first + count)
    ]
    records[3:3] = [
        ions("no precursor", PEPMASS="N/A"),
        ions("survey scan", MSLEVEL="1"),
        ions("broken", peaks="110.0 200\nnonsense here"),
        ions("nothing left", peaks="110.0 0"),
    ]
    path.write_text("".join(records), encoding="utf-8")
    return path


@pytest.fixture
def libraries(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    # each shares five spectra with the one before
    return [write_library(folder / f"library-{i}.mgf", first=15 * i) for i in range(5)]


@pytest.fixture(autouse=True)
def units_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files would otherwise share a unit, and one worker would do all."""
    monkeypatch.setattr(units, "SMALLEST_UNIT_BYTES", 1)


def content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


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
    assert set(one) == {*shards, "dropped.tsv", "files.tsv", "manifest.json", "report.html"}
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


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
import ionbed.spectra.prepare as module

def die(*_):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def die_in(name, call):
    original, calls = getattr(module, name), 0
    def replacement(*arguments, **keywords):
        nonlocal calls
        calls += 1
        result = original(*arguments, **keywords)
        if calls == call:
            die()
        return result
    setattr(module, name, replacement)

if __name__ == "__main__":
    from ionbed.spectra.preparation import units

    units.SMALLEST_UNIT_BYTES = 1
    name, call, out, *inputs = sys.argv[1:]
    die_in(name, int(call))
    options = module.PrepareOptions(rows_per_shard=25)
    module.prepare([Path(p) for p in inputs], Path(out), options=options, workers=2, overwrite=True)
"""


@pytest.mark.parametrize(
    ("moment", "before"),
    [
        (("is_made", "4"), "nothing"),  # the workers are reading
        (("_make_parts", "1"), "nothing"),
        (("_decide", "1"), "an older store"),
        (("plan_shards", "1"), "an older store"),
        (("write_manifest", "1"), "an older store"),
    ],
)
def test_a_killed_run_leaves_what_was_there_and_a_rerun_goes_on(
    libraries: list[Path], tmp_path: Path, moment: tuple[str, str], before: str
) -> None:
    out = tmp_path / "store"
    if before == "an older store":
        prepare(libraries[:1], out, workers=1)
    older = content(out) if out.exists() else None
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    run = subprocess.run(
        [sys.executable, script, *moment, out, *libraries], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == -9, run.stderr
    assert (content(out) if out.exists() else None) == older
    workers = [int(pid) for pid in run.stdout.split()]
    assert workers
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its killed parent"
        time.sleep(0.05)
    (scratch,) = (tmp_path / ".store.partial").glob(".scratch-*")
    made = {path.name: path.stat().st_mtime_ns for path in scratch.glob("part-*.json")}
    assert len(made) == 5 or moment[0] == "is_made"

    again: list[str] = []
    watched = make_part

    def note(unit: units.Unit, **keywords: Any) -> int:
        again.append(f"part-{unit.number:06d}.json")
        return watched(unit, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_part", note)
        prepare(libraries, out, options=SMALL_SHARDS, workers=1, overwrite=True)
    assert len(again) + len(made) == 5  # what was read is not read again
    assert not set(again) & set(made)
    prepare(libraries, tmp_path / "reference", options=SMALL_SHARDS, workers=1)
    assert content(out) == content(tmp_path / "reference")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "killed.py", "reference", "store"]


def test_a_changed_input_or_option_is_not_mixed_with_what_was_read(libraries: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "store"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for change in ("input", "option"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_decide", stop)
            with pytest.raises(KeyboardInterrupt):
                prepare(libraries, out, options=SMALL_SHARDS, workers=1, overwrite=True)
        assert list((tmp_path / ".store.partial").glob(".scratch-*/part-000004.json"))
        options = SMALL_SHARDS
        if change == "input":
            write_library(libraries[2], first=200, count=30)
        else:
            options = PrepareOptions(rows_per_shard=25, cleaning=CleaningOptions(max_peaks=2))
        prepare(libraries, out, options=options, workers=1, overwrite=True)
        prepare(libraries, tmp_path / "reference", options=options, workers=1, overwrite=True)
        assert content(out) == content(tmp_path / "reference")


def test_a_damaged_part_is_made_again(libraries: list[Path], tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_decide", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(libraries, tmp_path / "store", workers=1)
    (part,) = (tmp_path / ".store.partial").glob(".scratch-*/part-000002.arrow")
    part.write_bytes(part.read_bytes()[:-100])
    prepare(libraries, tmp_path / "store", workers=1)
    prepare(libraries, tmp_path / "reference", workers=1)
    assert content(tmp_path / "store") == content(tmp_path / "reference")


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


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_dead_worker_is_an_error_not_a_hang(libraries: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "import ionbed.spectra.prepare as module\n"
        "def crash(unit, folder, options):\n"
        "    os._exit(9)\n"
        "if __name__ == '__main__':\n"
        "    module.make_part = crash\n"
        "    try:\n"
        "        module.prepare([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]), workers=2)\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
    )
    out = tmp_path / "store"
    run = subprocess.run(
        [sys.executable, script, out, *libraries], capture_output=True, text=True, check=False, timeout=120
    )
    assert "fewer --workers" in run.stdout, run.stderr
    assert not out.exists()


def test_a_folder_that_holds_the_input_is_not_overwritten(libraries):
    before = libraries[0].read_bytes()
    with pytest.raises(InputError, match="holds the input"):
        prepare([libraries[0]], libraries[0].parent, workers=1, overwrite=True)
    assert libraries[0].read_bytes() == before


def test_a_file_that_fails_half_way_costs_nothing_of_what_was_read(libraries: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "store"

    def lost_disk(unit: units.Unit, **keywords: Any) -> int:
        if unit.number == 3:
            raise InputError("library-3.mgf: cannot be read to its end (Input/output error); check the disk")
        return make_part(unit, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_part", lost_disk)
        with pytest.raises(InputError, match="check the disk"):
            prepare(libraries, out, options=SMALL_SHARDS, workers=1)
    assert len(list((tmp_path / ".store.partial").glob(".scratch-*/part-*.json"))) == 3
    prepare(libraries, out, options=SMALL_SHARDS, workers=1)
    prepare(libraries, tmp_path / "reference", options=SMALL_SHARDS, workers=1)
    assert content(out) == content(tmp_path / "reference")


def test_what_a_killed_worker_left_is_not_in_the_store(libraries: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "store"

    def killed(table: Any, path: Path) -> None:
        path.write_bytes(b"PAR1 half of it")
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(libraries, out, options=SMALL_SHARDS, workers=1)
    prepare(libraries, out, options=SMALL_SHARDS, workers=1)
    prepare(libraries, tmp_path / "reference", options=SMALL_SHARDS, workers=1)
    assert content(out) == content(tmp_path / "reference")


def test_an_input_that_is_written_to_meanwhile_is_refused(libraries: list[Path], tmp_path: Path) -> None:
    def read_and_change(unit: units.Unit, **keywords: Any) -> int:
        with open(libraries[0], "a") as stream:
            stream.write("\n")
        return make_part(unit, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_part", read_and_change)
        with pytest.raises(InputError, match="changed while it was read"):
            prepare(libraries, tmp_path / "store", workers=1)
    assert not (tmp_path / "store").exists()


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
