"""Asks a service on this machine with many clients at once: statuses, throughput, and how long answers take.

Each client asks for one spectrum after the other, some as peak lists, some as small files. Without INDEX a library is
made up and the model that ships embeds it. Clients and service run on the same cores. Usage:
python benchmarks/service_load.py [INDEX] [--clients 200] [--seconds 60] [--files 0.05] [--requests 256]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ionbed.embeddings.index import Index
from ionbed.spectra.spectrum import Spectrum

START_SECONDS = 120


def made_up(number: int, seed: int = 0) -> list[Spectrum]:
    """Return spectra of random peaks."""
    rng = np.random.default_rng(seed)
    spectra = []
    for n in range(number):
        mz = np.unique(rng.uniform(50, 500, int(rng.integers(5, 60))).astype(np.float32))
        intensity = rng.uniform(0.01, 1, len(mz)).astype(np.float32)
        precursor_mz = float(rng.uniform(150, 600))
        spectra.append(
            Spectrum(f"made-{n}", precursor_mz, mz, intensity / intensity.max(), polarity=1, charge=1, adduct="[M+H]+")
        )
    return spectra


@contextmanager
def made_up_index(number: int) -> Iterator[Path]:
    """Build an index of made-up spectra with the model that ships; yield its folder."""
    from ionbed.encoder.loading import load_model

    with tempfile.TemporaryDirectory() as folder:
        Index.build(load_model(), made_up(number)).save(Path(folder) / "library")
        yield Path(folder) / "library"


@contextmanager
def running(index: Path | AbstractContextManager[Path], *words: str) -> Iterator[tuple[str, Path]]:
    """Serve an index in a process of its own; yield the address and the folder of the index."""
    with _given(index) if isinstance(index, Path) else index as folder, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "ionbed", "serve", str(folder), "--port", "0", "--no-access-log", *words]
        process = subprocess.Popen(command, stderr=log)
        try:
            yield _address(process, log), folder
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)
            log.seek(0)
            lines = log.readlines()
            print(f"the service ended with {process.returncode}; its log has {len(lines):,} lines", file=sys.stderr)
            if "Traceback" in "".join(lines):
                print("".join(lines), file=sys.stderr)


def _address(process: subprocess.Popen, log: IO[str]) -> str:
    """Return the address of the service once it is ready."""
    import httpx

    for _ in range(START_SECONDS * 10):
        time.sleep(0.1)
        log.seek(0)
        told = log.read()
        if process.poll() is not None:
            raise SystemExit(f"the service does not start: {told}")
        if (match := re.search(r"http://[\d.]+:\d+", told)) is None:
            continue
        try:
            if httpx.get(f"{match[0]}/health/ready").status_code == 200:
                return match[0]
        except httpx.HTTPError:
            pass
    raise SystemExit(f"the service is never ready: {told}")


@contextmanager
def _given(folder: Path) -> Iterator[Path]:
    yield folder


def bodies(index: Path, number: int = 200) -> list[dict]:
    """Return spectra of the index as requests."""
    opened = Index.open(index)
    rows = np.linspace(0, opened.num_rows - 1, min(number, opened.num_rows)).astype(int)
    return [
        {
            "precursor_mz": spectrum.precursor_mz,
            "polarity": spectrum.polarity,
            "peaks": [[float(m), float(i)] for m, i in zip(spectrum.mz, spectrum.intensity, strict=True)],
        }
        for spectrum in opened.spectra(rows)
    ]


def as_mgf(body: dict) -> bytes:
    """Return a request as a file."""
    peaks = "".join(f"{mz} {intensity}\n" for mz, intensity in body["peaks"])
    return f"BEGIN IONS\nTITLE=q\nPEPMASS={body['precursor_mz']}\n{peaks}END IONS\n".encode()


async def ask(
    url: str, asked: list[dict], clients: int, seconds: float, share: float
) -> tuple[Counter[str], list[tuple[float, str]]]:
    """Ask with so many clients for so long; return the statuses and how long each answer took, in s, by kind."""
    import httpx

    statuses: Counter[str] = Counter()
    took: list[tuple[float, str]] = []
    ends = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async def client(number: int, connection: httpx.AsyncClient) -> None:
        rng = np.random.default_rng(number)
        while time.monotonic() < ends:
            body = asked[int(rng.integers(len(asked)))]
            is_file = rng.random() < share
            started = time.monotonic()
            try:
                if is_file:
                    answer = await connection.post(f"{url}/api/search", files={"file": ("q.mgf", as_mgf(body))})
                else:
                    answer = await connection.post(f"{url}/api/search/peaks", json=body)
                status = str(answer.status_code)
            except httpx.HTTPError as error:
                answer, status = None, type(error).__name__
            statuses[status] += 1
            if status == "200":
                took.append((time.monotonic() - started, "file" if is_file else "peaks"))
            else:
                await asyncio.sleep(float(answer.headers.get("retry-after", 1)) if answer is not None else 1)

    async with httpx.AsyncClient(timeout=120, limits=limits) as connection:
        await asyncio.gather(*(client(number, connection) for number in range(clients)))
    return statuses, took


def main() -> int:
    """Run it; 1 where an answer was an error other than 429 and 503."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=float, default=0.05, help="share of the requests that send a file")
    parser.add_argument("--requests", type=int, default=256, help="that the service works on at one time")
    words = parser.parse_args()
    index = words.index if words.index is not None else made_up_index(2000)
    with running(index, "--limit", f"requests={words.requests}") as (url, folder):
        asked = bodies(folder)
        asyncio.run(ask(url, asked, 4, 2.0, words.files))  # what only the first requests wait for
        started = time.monotonic()
        statuses, took = asyncio.run(ask(url, asked, words.clients, words.seconds, words.files))
        seconds = time.monotonic() - started
        metrics = _metrics(url)
        num_rows = Index.open(folder).num_rows
    told = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {num_rows:,} rows")
    print(f"{words.clients} clients, {seconds:.0f} s: {told}; {len(took) / seconds:.0f} answers/s; {metrics}")
    for kind in ("peaks", "file"):
        times = np.array([time for time, of in took if of == kind])
        if len(times):
            p50, p95, p99 = np.percentile(times, [50, 95, 99])
            told = f"p50 {p50:.3f} s, p95 {p95:.3f} s, p99 {p99:.3f} s, most {times.max():.3f} s"
            print(f"{kind:<5} {len(times):>7,} answers: {told}")
    return int(any(status not in ("200", "429", "503") for status in statuses))


def _metrics(url: str) -> str:
    import httpx

    text = httpx.get(f"{url}/metrics").text
    spectra, batches = (
        float(re.search(rf"ionbed_batch_spectra_{name} ([\d.e+]+)", text)[1]) for name in ("sum", "count")
    )
    return f"{spectra / batches:.1f} spectra a batch"


if __name__ == "__main__":
    sys.exit(main())
