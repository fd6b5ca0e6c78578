"""Asks a service on this machine with many clients at once: statuses, throughput, and how long answers take.

Each client asks for one spectrum after the other, some as peak lists, some as small files, in requests that were
written before the clock began. Clients and service run on the same cores: what each of them took of these is told.
Without INDEX a library is made up and the model that ships embeds it. Usage:
python benchmarks/service_load.py [INDEX] [--clients 200] [--seconds 60] [--files 0.05] [--requests 256]
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import numpy as np
import psutil

from ionbed.embeddings.index import Index
from ionbed.spectra.spectrum import Spectrum

START_SECONDS = 120
ANSWER_SECONDS = 120


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


@dataclass(frozen=True)
class Served:
    """A service that runs.

    Attributes
    ----------
    url : str
    folder : Path
        Of the index.
    process : psutil.Process
    """

    url: str
    folder: Path
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return what the service and its processes have computed."""
        own = [self.process, *self.process.children(recursive=True)]
        return sum(times.user + times.system for times in (one.cpu_times() for one in own))


@contextmanager
def running(index: Path | AbstractContextManager[Path], *words: str) -> Iterator[Served]:
    """Serve an index in a process of its own."""
    with _given(index) if isinstance(index, Path) else index as folder, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "ionbed", "serve", str(folder), "--port", "0", "--no-access-log", *words]
        process = subprocess.Popen(command, stderr=log)
        try:
            yield Served(_address(process, log), folder, psutil.Process(process.pid))
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


def _post(host: str, path: str, kind: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def as_requests(url: str, asked: list[dict], options: dict) -> dict[str, list[bytes]]:
    """Return every request as it is sent, as a peak list and as a file."""
    host, boundary = urlsplit(url).netloc, "-" * 20 + "service-load"
    peaks, files = [], []
    for body in asked:
        peaks.append(_post(host, "/api/search/peaks", "application/json", json.dumps({**body, **options}).encode()))
        parts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in options.items()
        ) + (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="q.mgf"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        content = parts.encode() + as_mgf(body) + f"\r\n--{boundary}--\r\n".encode()
        files.append(_post(host, "/api/search", f"multipart/form-data; boundary={boundary}", content))
    return {"peaks": peaks, "file": files}


@dataclass
class Told:
    """What the clients were told: how often which status, and how long answers took, in s, by kind."""

    statuses: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=lambda: {"peaks": [], "file": []})


async def _answer(reader: asyncio.StreamReader) -> tuple[str, float, bool]:
    """Read an answer; return its status, the seconds to wait before asking again, and whether it is the last."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    wait = float(head.split(b"retry-after:", 1)[1].split(b"\r\n", 1)[0]) if b"retry-after:" in head else 1.0
    return head[9:12].decode(), wait, b"connection: close" in head


async def ask(url: str, requests: dict[str, list[bytes]], clients: int, seconds: float, share: float) -> Told:
    """Ask with so many clients for so long, on a connection each."""
    told, address = Told(), urlsplit(url)
    ends = time.monotonic() + seconds

    async def client(number: int) -> None:
        rng = np.random.default_rng(number)
        reader = writer = None
        while time.monotonic() < ends:
            kind = "file" if rng.random() < share else "peaks"
            request = requests[kind][int(rng.integers(len(requests[kind])))]
            started = time.monotonic()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 20)
                writer.write(request)
                status, wait, is_last = await asyncio.wait_for(_answer(reader), ANSWER_SECONDS)
            except (OSError, EOFError, ValueError, IndexError, TimeoutError) as error:
                status, wait, is_last = type(error).__name__, 1.0, True
            if is_last and writer is not None:
                writer.close()
                reader = writer = None
            told.statuses[status] += 1
            if status == "200":
                told.took[kind].append(time.monotonic() - started)
            else:
                await asyncio.sleep(wait)
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return told


def main() -> int:
    """Run it; 1 where an answer was an error other than 429 and 503."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--files", type=float, default=0.05, help="share of the requests that send a file")
    parser.add_argument("--requests", type=int, default=256, help="that the service works on at one time")
    parser.add_argument("--score", help="by which hits are ranked; default: the service's own choice")
    words = parser.parse_args()
    index = words.index if words.index is not None else made_up_index(2000)
    with running(index, "--limit", f"requests={words.requests}") as served:
        options = {} if words.score is None else {"score": words.score}
        requests = as_requests(served.url, bodies(served.folder), options)
        asyncio.run(ask(served.url, requests, 4, 2.0, words.files))  # what only the first requests wait for
        before = _batches(served.url)
        of_service, of_clients, started = served.cpu_seconds(), time.process_time(), time.monotonic()
        told = asyncio.run(ask(served.url, requests, words.clients, words.seconds, words.files))
        seconds = time.monotonic() - started
        of_service, of_clients = served.cpu_seconds() - of_service, time.process_time() - of_clients
        num_spectra, num_batches = (after - first for after, first in zip(_batches(served.url), before, strict=True))
        num_rows = Index.open(served.folder).num_rows
    statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(told.statuses.items()))
    number = max(sum(map(len, told.took.values())), 1)
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; {num_rows:,} rows")
    print(
        f"{words.clients} clients, {seconds:.0f} s: {statuses}; {number / seconds:.0f} answers/s; "
        f"{num_spectra / max(num_batches, 1):.1f} spectra a batch"
    )
    print(
        f"of a core: service {of_service / seconds:.0%}, clients {of_clients / seconds:.0%}; for an answer "
        f"the service computed {1000 * of_service / number:.2f} ms, the client {1000 * of_clients / number:.2f} ms"
    )
    for kind, of_kind in told.took.items():
        times = np.array(of_kind)
        if len(times):
            p50, p95, p99 = np.percentile(times, [50, 95, 99])
            text = f"p50 {p50:.3f} s, p95 {p95:.3f} s, p99 {p99:.3f} s, most {times.max():.3f} s"
            print(f"{kind:<5} {len(times):>7,} answers: {text}")
    return int(any(status not in ("200", "429", "503") for status in told.statuses))


def _batches(url: str) -> tuple[float, float]:
    """Return how many spectra were searched since the start, in how many batches."""
    import httpx

    text = httpx.get(f"{url}/metrics").text
    num_spectra, num_batches = (
        float(re.search(rf"ionbed_batch_spectra_{name} ([\d.e+]+)", text)[1]) for name in ("sum", "count")
    )
    return num_spectra, num_batches


if __name__ == "__main__":
    sys.exit(main())
