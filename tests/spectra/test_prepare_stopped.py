"""prepare when it is stopped: killed, interrupted, or with inputs that change or fail meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import ionbed.spectra.prepare as module
from ionbed.errors import InputError
from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.preparation import assemble, units
from ionbed.spectra.preparation.parts import make_part
from ionbed.spectra.prepare import PrepareOptions, prepare

from .prepare_inputs import SMALL_SHARDS, content, write_library

pytestmark = pytest.mark.usefixtures("units_of_one_file")


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
    assert "fewer --workers: what is done is kept" in run.stdout, run.stderr
    assert not out.exists()


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
