"""Append, delete and compact killed at random moments lose no committed row, and the next writer tidies up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ionbed.embeddings.index import Index

from .conftest import random_spectrum

APPENDED, DELETED = 12, ["lib-1-1", "lib-2-2", "new-4"]

WRITE_AND_DIE = """
import json, os, shutil, signal, sys
from pathlib import Path

here, work = sys.argv[1], Path(sys.argv[2])
moments, appended, deleted = json.loads(sys.argv[3])
sys.path.insert(0, here)
import numpy as np
from conftest import CountSketchModel, random_spectrum
from ionbed.embeddings.index import Index

def write(place, die_at):
    events = 0

    def count(event, arguments):
        nonlocal events
        # Files are opened, moved and removed at each step of a commit, and mapped and written in between.
        if event in {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "mmap.__new__", "fcntl.flock"}:
            events += 1
            if events == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    index = Index.open(place, CountSketchModel())
    rng = np.random.default_rng(9)
    done = open(str(place) + ".done", "w")
    for name, change in (
        ("append", lambda: index.append([random_spectrum(rng, f"new-{n}") for n in range(appended)])),
        ("delete", lambda: index.delete(deleted)),
        ("compact", index.compact),
    ):
        change()
        print(name, events, file=done, flush=True)

for number, die_at in enumerate(moments):
    place = work / str(number)
    shutil.copytree(work / "index", place)
    child = os.fork()
    if not child:
        try:
            write(place, die_at)
        finally:
            os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def write_in_process(work: Path, moments: list[int]) -> list[int]:
    command = [
        sys.executable,
        "-c",
        WRITE_AND_DIE,
        str(Path(__file__).parent),
        str(work),
        json.dumps([moments, APPENDED, DELETED]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def live_ids(index: Index) -> set[str]:
    return set(np.array(index.metadata["spectrum_id"].to_pylist())[index.live])


@pytest.mark.parametrize("num_moments", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_writers_killed_at_random_moments_lose_no_committed_row(model, library, tmp_path, num_moments):
    Index.build(model, library).save(tmp_path / "index")
    assert write_in_process(tmp_path, [0]) == [0]
    steps = dict(line.split() for line in (tmp_path / "0.done").read_text().splitlines())
    ends = [0, *map(int, steps.values())]
    assert list(steps) == ["append", "delete", "compact"] and ends == sorted(ends)
    rng = np.random.default_rng(2)
    # As many in each of the three, which differ in their number of steps.
    moments = [int(rng.integers(ends[part] + 1, ends[part + 1] + 1)) for part in np.arange(num_moments) % 3]
    for path in tmp_path.glob("0*"):
        path.rename(tmp_path / f"whole{path.suffix}")
    assert write_in_process(tmp_path, moments) == [-9] * num_moments

    before = {s.spectrum_id for s in library}
    appended = before | {f"new-{number}" for number in range(APPENDED)}
    states = [before, appended, appended - set(DELETED), appended - set(DELETED)]
    found_states = set()
    for number in range(num_moments):
        place, told = tmp_path / str(number), tmp_path / f"{number}.done"
        num_told = len(told.read_text().splitlines()) if told.exists() else 0
        index = Index.open(place, model)
        index.verify()
        ids = live_ids(index)
        assert ids in (states[num_told], states[min(num_told + 1, 3)])
        found_states.add(len(ids))
        expected = {s.spectrum_id: s for s in library}
        for spectrum in index.spectra(np.flatnonzero(index.live)):
            if spectrum.spectrum_id in expected:
                np.testing.assert_array_equal(spectrum.mz, expected[spectrum.spectrum_id].mz)
        index.append([random_spectrum(rng, "later")])
        assert live_ids(index) == ids | {"later"}
        named = {*index.manifest["files"], "manifest.json"}
        assert {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()} == named
    assert found_states == {60, 72, 69}
