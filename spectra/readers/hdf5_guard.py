"""libhdf5 in a process of its own, because in a damaged file it may loop for ever, or crash.

No limit of Python ends a loop in C. So each process that reads HDF5 has another that calls libhdf5 for it, within a
limit on processor time, which a busy machine, a slow disk and a suspended job do not use up. One that ends is replaced.
It is told one slice a line, in JSON, and answers with a line, and columns in Arrow's stream format; nothing is pickled.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import InputError
from .blocks import UnreadableTableError
from .hdf5_rows import Shape
from .hdf5_rows import columns_of as columns_read_here
from .hdf5_rows import shape_of as shape_read_here

CPU_SECONDS = 10.0
"""That one answer may take, for a small file: hundreds of times what a slice of a few megabytes takes."""
BYTES_PER_SECOND = 50e6
"""By which a larger file may take longer: one chunk can be all of it."""

READY = b"ready\n"
_MODULE = f"{__package__}.hdf5_process"
_is_direct = False


class ReadingEndedError(Exception):
    """The process ended before its answer; the message is why."""


def read_directly() -> None:
    """Call libhdf5 in this process from now on: for one that is itself ended when it takes too long."""
    global _is_direct
    _is_direct = True


def shape_of(path: Path) -> Shape:
    """Return what `ionbed.spectra.readers.hdf5_rows.shape_of` does, in bounded time.

    Raises
    ------
    UnreadableTableError
        The file is damaged, or laid out otherwise.
    ReadingEndedError
        It took too long, or the process crashed.
    """
    if _is_direct:
        return shape_read_here(path)
    return Shape(**_ask(path, {})[0])


def columns_of(path: Path, rows: range) -> pa.RecordBatch:
    """Return what `ionbed.spectra.readers.hdf5_rows.columns_of` does, in bounded time.

    Raises
    ------
    UnreadableTableError
        A chunk cannot be read.
    ReadingEndedError
        It took too long, or the process crashed.
    """
    if _is_direct:
        return columns_read_here(path, rows)
    data = _ask(path, {"start": rows.start, "stop": rows.stop})[1]
    with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        return stream.read_next_batch()


class _Reader:
    """One process that reads, started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, path: Path, line: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the answer to a line, and the bytes that follow it."""
        with self._lock:
            process = self._process or self._started(path)
            self._process = None  # put back when it has answered in full
            try:
                told, data = self._answered(process, line)
            except BaseException as error:
                process.kill()
                self.closed(process)
                if isinstance(error, (OSError, _EndedError)):
                    raise ReadingEndedError(_why(process.returncode)) from None
                raise
            self._process = process
        return told, data

    @staticmethod
    def _answered(process: subprocess.Popen[bytes], line: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer.endswith(b"\n"):
            process.wait()
            raise _EndedError
        told: dict[str, Any] = json.loads(answer)
        size = told.pop("bytes")
        data = process.stdout.read(size)
        if len(data) < size:
            process.wait()
            raise _EndedError
        return told, data

    @staticmethod
    def _started(path: Path) -> subprocess.Popen[bytes]:
        # With this process's places of modules: '-m' would first look for them in the working folder, among any files.
        begin = f"import sys; sys.path[:] = {list(map(str, sys.path))!r}; from {_MODULE} import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", begin],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C is for the one that asks, which closes this one's input when it ends
        )
        assert process.stdout is not None
        if process.stdout.readline() != READY:
            process.kill()
            _Reader.closed(process)
            raise InputError(
                f"{path}: the process that reads HDF5 cannot be started; see why with: {sys.executable} -m {_MODULE}"
            )
        return process

    @staticmethod
    def closed(process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a process that has been killed or told to end."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.wait()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self.closed(self._process)
            self._process = None


class _EndedError(Exception):
    """The answer is not whole."""


_readers: dict[int, _Reader] = {}
"""By the process that asks: a fork must not share its parent's."""


def _ask(path: Path, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    own = os.getpid()
    if (reader := _readers.get(own)) is None:
        reader = _readers.setdefault(own, _Reader())
    seconds = CPU_SECONDS + path.stat().st_size / BYTES_PER_SECOND
    told, data = reader.ask(
        path, json.dumps({"path": str(path.absolute()), "seconds": seconds, **asked}).encode() + b"\n"
    )
    if "problem" in told:
        raise UnreadableTableError(told["problem"], told["message"])
    return told, data


@atexit.register
def _close_own() -> None:
    if (reader := _readers.pop(os.getpid(), None)) is not None:
        reader.close()


def _why(returncode: int) -> str:
    if returncode == -signal.SIGXCPU:
        return "libhdf5 does not come to an end with it"
    return "libhdf5 crashes on it, or needs more memory than there is"
