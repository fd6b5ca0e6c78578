"""The process that calls libhdf5 for another one; see `ionbed.spectra.readers.hdf5_guard`."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from .blocks import UnreadableTableError
from .hdf5_guard import READY
from .hdf5_rows import columns_of, shape_of


def _answer(task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    path = Path(task["path"])
    try:
        if "start" not in task:
            return shape_of(path)._asdict(), b""
        batch = columns_of(path, range(task["start"], task["stop"]))
    except UnreadableTableError as error:
        return {"problem": error.problem, "message": str(error)}, b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return {}, sink.getvalue().to_pybytes()


def main() -> None:
    """Answer tasks from standard input until it ends."""
    import h5py  # noqa: F401 - so that 'ready' says that it is there

    told: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a plugin of libhdf5 prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    told.write(READY)
    told.flush()
    for line in sys.stdin.buffer:
        task = json.loads(line)
        _limit(task["seconds"])
        answer, data = _answer(task)
        told.write(json.dumps({**answer, "bytes": len(data)}).encode() + b"\n")
        told.write(data)
        told.flush()


def _limit(seconds: float) -> None:
    """Let the system end this process, by SIGXCPU, after some seconds of processor time from now."""
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    stop = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (stop if most == resource.RLIM_INFINITY else min(stop, most), most))


if __name__ == "__main__":
    main()
