"""`ionbed prepare` on an input of any size: its memory, and the same bytes after being killed again and again.

    python benchmarks/prepare_scale.py                                   # 50,000 spectra, killed 3 times
    python benchmarks/prepare_scale.py --spectra 1000000 --kills 10      # some 1.5 GB of disk, some twenty minutes

The input is made up: molecules whose 60 peaks are repeated with noise. The resident memory is that of all processes of
the command together, sampled; pages that they share are counted in each. One run is left in peace; the next is killed
(SIGKILL to its process group) at random moments and started again until it ends, and the two stores are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from made_up_mgf import write_mgf


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "ionbed",
        "-q",
        "prepare",
        str(source),
        "--out",
        str(out),
        "--workers",
        str(workers),
    ]
    return subprocess.Popen(command, start_new_session=True)


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    try:
        main = psutil.Process(process.pid)
        return sum(p.memory_info().rss for p in [main, *main.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def run_in_peace(source: Path, out: Path, workers: int) -> tuple[float, int]:
    """Return seconds and the largest resident memory in bytes."""
    started, peak = time.perf_counter(), 0
    process = start(source, out, workers)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process))
        time.sleep(0.1)
    assert process.returncode == 0
    return time.perf_counter() - started, peak


def run_under_fire(source: Path, out: Path, workers: int, kills: int, seconds: float, seed: int) -> list[float]:
    """Kill the command at random moments, then let it end; return after how many seconds it was killed."""
    chance, moments = random.Random(seed), []
    for _ in range(kills):
        process = start(source, out, workers)
        moment = chance.uniform(0.5, 1.5 + seconds / kills)
        try:
            process.wait(moment)
            break  # done before its turn
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments.append(moment)
    assert start(source, out, workers).wait() in (0, 2)  # 2: it was done, and its folder is not overwritten
    return moments


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="prepare-scale-"))
    folder.mkdir(exist_ok=True)
    source = folder / f"made-up-{options.spectra}.mgf"
    print(f"{platform.processor() or platform.machine()}, {options.workers} workers, {time.strftime('%Y-%m-%d')}")
    if not source.exists():
        write_mgf(source, options.spectra)
    for name in ("peace", "fire"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.rmtree(folder / f".{name}.partial", ignore_errors=True)

    seconds, peak = run_in_peace(source, folder / "peace", options.workers)
    print(f"{options.spectra:,} spectra, {source.stat().st_size / 1e9:.2f} GB: {seconds:.0f} s, "
          f"{options.spectra / seconds:,.0f} spectra/s, at most {peak / 1e9:.2f} GB resident")  # fmt: skip
    moments = run_under_fire(source, folder / "fire", options.workers, options.kills, seconds, options.seed)
    same = digests(folder / "peace") == digests(folder / "fire")
    print(f"killed {len(moments)} times, after {', '.join(f'{moment:.1f}' for moment in moments)} s: "
          f"{'the same bytes' if same else 'OTHER BYTES'}")  # fmt: skip
    if not options.folder:
        shutil.rmtree(folder)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
