"""``ionbed serve`` as a process: it answers, finishes what runs when it is told to end, and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ionbed import cli
from ionbed.embeddings.index import Index
from ionbed.embeddings.milvus_index import MilvusIndex

from .conftest import as_peaks, mgf

KEY = "0123456789abcdef-key"


@contextmanager
def served(folder: Path, temporary: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run the command on a free port; yield the process and the port."""
    environment = {**os.environ, "TMPDIR": str(temporary), **environment}
    command = [sys.executable, "-m", "ionbed", "serve", str(folder), "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)  .*library: 144 rows", line)
        assert match, line
        yield process, int(match[1])
    finally:
        process.kill()
        process.wait()


def wait_until_ready(port: int) -> None:
    for _ in range(2000):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("it is never ready")


def test_it_serves_and_finishes_what_runs(folder, tmp_path):
    spectrum = Index.open(folder).spectra([5])[0]
    body = json.dumps(
        {"precursor_mz": spectrum.precursor_mz, "polarity": 1, "peaks": as_peaks(spectrum), "k": 3}
    ).encode()
    with served(folder, tmp_path, "--limit", "upload_bytes=1000000", "--allowed-host", "spectra.example.org") as (
        process,
        port,
    ):
        wait_until_ready(port)
        url = f"http://127.0.0.1:{port}"
        hits = httpx.post(f"{url}/api/search/peaks", content=body, headers={"Content-Type": "application/json"}).json()
        assert hits["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id
        for name, status in (("evil.example", 403), ("spectra.example.org", 200), (f"localhost:{port}", 200)):
            assert httpx.get(f"{url}/api/info", headers={"Host": name}).status_code == status
        data = mgf(("a", spectrum.precursor_mz, as_peaks(spectrum)))
        answer = httpx.post(f"{url}/api/search", files={"file": ("a.mgf", data)}, timeout=60)
        assert answer.json()["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id

        # A body larger than is taken is refused while it comes: not a tenth of it can be sent.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            sent = 0
            try:
                while sent < 50 << 20:
                    client.sendall(part)
                    sent += len(part)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert sent < 20 << 20, "the service reads on and on"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")

        # The signal comes while a request is half sent; it is answered, and then the process ends.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            head = "POST /api/search/peaks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:50])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            client.sendall(body[50:])
            answer = b""
            while part := client.recv(1 << 16):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert spectrum.spectrum_id.encode() in answer
        assert process.wait(60) == 0
        log = process.stderr.read()
    assert "POST /api/search/peaks 200" in log
    assert "no longer served" in log
    assert "Traceback" not in log
    assert list(tmp_path.iterdir()) == [], "temporary files are left"


def test_it_ends_at_once_by_ctrl_c_and_takes_its_key_from_the_environment(folder, tmp_path):
    with served(folder, tmp_path, "--no-access-log", IONBED_API_KEY=KEY) as (process, port):
        wait_until_ready(port)
        url = f"http://127.0.0.1:{port}/api/info"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"X-API-Key": KEY}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "GET" not in process.stderr.read()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "spectre=3"], "there is no limit of this name"),
        (["--limit", "spectra=many"], "not a whole number"),
        (["--limit", "spectra=0"], "must be above 0"),
        (["--api-key-file", "nowhere.txt"], "cannot be read"),
        (["--usi", "file:///etc/{usi}"], "no address of a USI resolver"),
        (["--port", "TAKEN"], "cannot be listened at"),
        (["--host", "no.such.host.invalid"], "cannot be listened at"),
    ],
)
def test_words_that_are_wrong(folder, capsys, words, message):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [word.replace("TAKEN", str(taken.getsockname()[1])) for word in words]
        assert cli.main(["serve", str(folder), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_model_that_is_damaged_is_told_in_one_line(folder, capsys, tmp_path):
    copy = tmp_path / "library"
    shutil.copytree(folder, copy)
    for weights in copy.rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    assert cli.main(["-q", "serve", str(copy), "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ionbed: ")


def test_an_index_in_milvus_is_refused(folder, capsys, monkeypatch):
    in_milvus = object.__new__(MilvusIndex)
    monkeypatch.setattr("ionbed.embeddings.service.serving.open_index", lambda path: in_milvus)
    assert cli.main(["serve", str(folder)]) == 2
    assert "vectors in Milvus, which is not served" in capsys.readouterr().err


def test_what_is_not_installed_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.service.find_spec", lambda name: None if name == "uvicorn" else name)
    assert cli.main(["serve", str(folder)]) == 2
    assert "the service needs uvicorn; pip install 'ionbed[serve]'" in capsys.readouterr().err
