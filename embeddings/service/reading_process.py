"""The process that reads what clients send: files of spectra and structures to draw, within limits on all it may use.

Files from anybody go through decoders of many kinds. A process of their own keeps what a made or damaged file does to
them (a crash, gigabytes of memory, hours of time) away from the index and from all other requests. It is told one task
a line, in JSON, and answers with one line; spectra go through a file of Arrow. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

import psutil
import pyarrow as pa

from ...errors import InputError
from ...spectra.deduplication import UniqueNames
from ...spectra.molecules import standardise
from ...spectra.readers.hdf5_guard import read_directly
from ...spectra.readers.unpacking import unpack
from ...spectra.spectrum import Spectrum
from ...spectra.store import table_from_spectra
from ..queries import queries_of
from .drawing import svg_of

MOST_MEMBERS = 20_000
"""Files in an archive."""
MOST_LETTERS = 500
"""Of the id of a query, which every hit repeats: of a made file the answer would be thousands of times as large."""
QUERIES, SPECTRA = "queries.json", "spectra.arrow"

_READ_BYTES = 1 << 20
_BATCH_ROWS = 8192
_OPEN_FILES = 256
_SPENT_SHARE = 0.25
"""Of the memory that a process may still take when it begins: one that keeps more is replaced after its answer."""


class RefusedError(ValueError):
    """What was sent is not taken.

    Attributes
    ----------
    status : int
        413 or 422.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read(task: dict[str, Any]) -> dict[str, Any]:
    """Read the queries of a file into ``queries.json`` and ``spectra.arrow`` beside it.

    Parameters
    ----------
    task : dict
        ``path``, and the limits ``spectra``, ``peaks`` and ``unpacked_bytes``.

    Raises
    ------
    RefusedError
        It is too large, or holds no spectra.
    InputError
        It cannot be read.
    """
    path, most_peaks = Path(task["path"]), task["peaks"]
    _refuse_much(path, task["unpacked_bytes"])
    names = UniqueNames()
    told: list[list[Any]] = []
    spectra: list[Spectrum] = []
    for query in queries_of(path)[0]:
        if len(told) == task["spectra"]:
            raise RefusedError(413, f"the file holds more than the {task['spectra']:,} spectra that are taken")
        spectrum, note = query.spectrum, query.note
        if spectrum is not None and len(spectrum) > most_peaks:
            note = f"has {len(spectrum):,} peaks; {most_peaks:,} are taken"
            spectrum = None
        told.append([names.assign(query.query_id[:MOST_LETTERS]), note, query.position, spectrum is not None])
        if spectrum is not None:
            spectra.append(spectrum)
    if not told:
        raise RefusedError(422, "the file holds no MS/MS spectra")
    table = table_from_spectra(spectra)
    with pa.OSFile(str(path.with_name(SPECTRA)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, _BATCH_ROWS)
    path.with_name(QUERIES).write_text(json.dumps(told), encoding="utf-8")
    return {"spectra": len(spectra)}


def draw(task: dict[str, Any]) -> dict[str, Any]:
    """Draw the structure ``smiles``.

    Raises
    ------
    InputError
        It cannot be drawn.
    """
    return {"svg": svg_of(task["smiles"])}


def _refuse_much(path: Path, most_bytes: int) -> None:
    """Raise `RefusedError` if a file unpacks to more than is taken; it is unpacked to nowhere, to see."""
    num_bytes = num_members = 0
    with path.open("rb") as stream:
        for member in unpack(path.name, stream):
            num_members += 1
            if num_members > MOST_MEMBERS:
                raise RefusedError(413, f"the archive holds more than the {MOST_MEMBERS:,} files that are taken")
            while data := member.stream.read1(_READ_BYTES):
                num_bytes += len(data)
                if num_bytes > most_bytes:
                    raise RefusedError(413, f"the file unpacks to more than the {most_bytes:,} bytes that are taken")


def _warm_up() -> None:
    """Load what the first task would wait for."""
    standardise("C")
    svg_of("C")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "warm-up.mgf"
        path.write_text("BEGIN IONS\nPEPMASS=200\n100 1\nEND IONS\n", encoding="ascii")
        read({"path": str(path), "spectra": 1, "peaks": 1, "unpacked_bytes": 1000})


_TASKS = {"read": read, "draw": draw}


def answer(line: str) -> dict[str, Any]:
    """Do the task of a line and return the answer: what it gives, or ``status`` and ``error``."""
    task = json.loads(line)
    try:
        return _TASKS[task["task"]](task)
    except RefusedError as error:
        return {"status": error.status, "error": str(error)}
    except InputError as error:
        # The path is ours, and says nothing to who sent the file.
        return {"status": 422, "error": str(error).replace(str(task.get("path")), "the file")}
    except MemoryError:
        return {"status": 413, "error": "the file needs more memory than there is for one; split it", "spent": True}
    except Exception as error:
        return {"status": 422, "error": f"cannot be read ({type(error).__name__})", "fault": repr(error)}


def main(memory_bytes: int, file_bytes: int) -> None:
    """Answer tasks from standard input until it ends."""
    told: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a decoder prints is no answer
    read_directly()  # this process is the one that is ended
    _warm_up()
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    own = psutil.Process()
    at_start = own.memory_info().vms
    told.write("ready\n")
    told.flush()
    for line in sys.stdin:
        done = answer(line)
        # What a large file has taken is not all given back, and the next one would find too little.
        spent = own.memory_info().vms > at_start + (memory_bytes - at_start) * _SPENT_SHARE
        told.write(json.dumps({"spent": spent, **done}) + "\n")
        told.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
