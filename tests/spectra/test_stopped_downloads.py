"""Downloads that are killed, interrupted or begun twice, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .downloads import TEXT, manifest_of, names_in, registry
from .http_server import BODY, Handler, serve

pytestmark = pytest.mark.usefixtures("online")


def slowly(go_on: threading.Event | None = None) -> Callable[[Handler], None]:
    """Serve BODY a little at a time, ranges included; half of it only when told to go on."""

    def behave(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1]) if "Range" in handler.headers else 0
        handler.send_response(206 if start else 200)
        for name, value in (
            ("ETag", '"first"'), ("Content-Length", str(len(BODY) - start)),
            *([("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")] if start else []),
        ):  # fmt: skip
            handler.send_header(name, value)
        handler.end_headers()
        for place in range(start, len(BODY), 50_000):
            handler.wfile.write(BODY[place : place + 50_000])
            time.sleep(0.01)
            if go_on is not None and place > len(BODY) // 2:
                go_on.wait(20)

    return behave


def start(own: Path) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    words = [sys.executable, "-m", "ionbed", "data", "get", "mine", "--registry", str(own)]
    return subprocess.Popen(words, cwd=own.parent, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_part(folder: Path, size: int = 200_000) -> None:
    partial = folder / ".a.mgf.partial"
    for _ in range(1000):
        if partial.exists() and partial.stat().st_size >= size:
            return
        time.sleep(0.01)
    raise AssertionError("the download did not begin")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_run_that_is_stopped_goes_on_where_it_was(server, tmp_path, how):
    files = [
        {"path": "b.mgf", "url": server.on("/b.mgf", serve(TEXT))},
        {"path": "a.mgf", "url": server.on("/a.mgf", slowly())},
    ]
    own = registry(tmp_path, files)
    with start(own) as process:
        wait_for_part(tmp_path / "mine")
        process.send_signal(how)
        _, err = process.communicate(timeout=20)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), err
    assert "Traceback" not in err
    assert not (tmp_path / "mine" / "a.mgf").exists()
    part = (tmp_path / "mine" / ".a.mgf.partial").read_bytes()
    assert part == BODY[: len(part)]
    with start(own) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == BODY
    assert names_in(tmp_path / "mine") == ["a.mgf", "b.mgf", "manifest.json"]
    assert [entry["path"] for entry in manifest_of(tmp_path / "mine")["files"]] == ["a.mgf", "b.mgf"]
    assert server.ranges_of("/a.mgf") == [None, f"bytes={len(part)}-"]
    assert len(server.requests_of("/b.mgf")) == 1, "what was finished before the kill is known from the journal"


def test_ctrl_c_ends_a_wait_for_a_silent_server(server, tmp_path):
    silence = threading.Event()

    def half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:500_000])
        silence.wait(30)

    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", half)}])
    with start(own) as process:
        wait_for_part(tmp_path / "mine")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = process.communicate(timeout=20)
    silence.set()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "ionbed: interrupted"
    assert time.monotonic() - started < 10
    assert not (tmp_path / "mine" / "a.mgf").exists()


def test_two_processes_do_not_write_one_folder(server, tmp_path):
    go_on = threading.Event()
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", slowly(go_on))}])
    with start(own) as first:
        wait_for_part(tmp_path / "mine")
        with start(own) as second:
            _, err = second.communicate(timeout=20)
        assert second.returncode == 2
        assert "another process is writing this folder" in err.splitlines()[-1]
        go_on.set()
        _, err = first.communicate(timeout=20)
    assert first.returncode == 0, err
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == BODY
