"""``index build`` killed at several points leaves no half index, and a rerun gives the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ionbed import InputError
from ionbed.embeddings.index import Index, build

BUILD_AND_DIE = """
import os, signal, sys
from pathlib import Path

here, work, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, here)
import pyarrow.parquet
from conftest import CountSketchModel
from ionbed.embeddings.index import build

events = 0

def count(event, arguments):
    global events
    if event in {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove"} and str(arguments[0]).startswith(work):
        events += 1
        if events == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
build(work + "/library.mgf", work + "/index", CountSketchModel())
print(events)
"""

MGF = "".join(
    f"BEGIN IONS\nTITLE=s{i}\nPEPMASS={900 - i * 7.01}\nCHARGE=1+\n{50 + i}.5 1\n{200 + i}.25 7\nEND IONS\n"
    for i in range(40)
)


def build_in_process(work: Path, die_at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BUILD_AND_DIE, str(Path(__file__).parent), str(work), str(die_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_killed_build_leaves_no_index_and_a_rerun_finishes_it(model, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "library.mgf").write_text(MGF)
    whole = build_in_process(work, 0)
    assert whole.returncode == 0, whole.stderr
    expected, num_events = contents(work / "index"), int(whole.stdout)
    assert set(expected) == {
        *(f"segments/1/{name}.npy" for name in ("vectors", "precursor_mz", "polarity", "checksums")),
        "segments/1/library.arrow", "model/config.json", "manifest.json",
    }  # fmt: skip

    appeared = []
    for die_at in sorted({1, *range(4, num_events, num_events // 5), num_events}):
        shutil.rmtree(work / "index")
        killed = build_in_process(work, die_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        appeared.append((work / "index").exists())
        if appeared[-1]:
            assert contents(work / "index") == expected
        else:
            with pytest.raises(InputError, match="no such folder"):
                Index.open(work / "index")
        build(work / "library.mgf", work / "index", model, overwrite=appeared[-1])
        assert contents(work / "index") == expected
        assert sorted(path.name for path in work.iterdir()) == ["index", "library.mgf"]
    assert appeared.count(False) >= 4
