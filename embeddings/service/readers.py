"""The processes that read uploads and draw structures: how they are asked, and ended where they take too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from anyio import to_thread

from ...spectra.store import spectra_from_table
from ..queries import Query
from . import reading_process
from .failures import RequestError
from .settings import ServiceLimits
from .uploads import SMALL_BYTES

logger = logging.getLogger("ionbed")

DRAW_SECONDS = 10.0
_DRAWINGS_KEPT = 512
_START_SECONDS = 120.0
_LONGEST_LINE = 16 << 20
_ROOM_FOR_TABLES = 2


class Readers:
    """A few processes that take one task each; see `ionbed.embeddings.service.reading_process`.

    Parameters
    ----------
    number : int
    limits : ServiceLimits
    """

    def __init__(self, number: int, limits: ServiceLimits) -> None:
        self._number, self._limits = number, limits
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._folder = Path()
        self._drawn: dict[str, str] = {}
        self._spent: set[asyncio.subprocess.Process] = set()
        self._killed: set[asyncio.Task[int]] = set()

    async def start(self, folder: Path, *, warm: bool = True) -> None:
        """Start the processes, or have each started when it is needed; they put temporary files into ``folder``."""
        self._folder = folder
        for _ in range(self._number):
            self._idle.put_nowait(await self._started() if warm else None)

    async def stop(self) -> None:
        """End the processes; none may be at work."""
        while not self._idle.empty():
            await _ended(self._idle.get_nowait())
        await asyncio.gather(*self._killed)

    async def read(self, path: Path, most: int, *, seconds: float) -> list[Query]:
        """Return the queries of a file; those that cannot be used have a note.

        Parameters
        ----------
        path : Path
            In a folder of its own, where the process writes what it read.
        most : int
            Spectra that are taken.
        seconds : float
            That this may take.

        Raises
        ------
        RequestError
            The file is too large, takes too long, cannot be read, or holds no spectra.
        """
        task = {
            "task": "read",
            "path": str(path),
            "spectra": most,
            "peaks": self._limits.peaks,
            "unpacked_bytes": self._limits.unpacked_bytes,
        }
        await self._ask(task, seconds)
        written = (path.parent / name for name in (reading_process.QUERIES, reading_process.SPECTRA))
        if sum(file.stat().st_size for file in written) <= SMALL_BYTES:
            return _queries_in(path.parent)
        return await to_thread.run_sync(_queries_in, path.parent)

    async def draw(self, smiles: str) -> str:
        """Return the drawing of a structure as SVG.

        Raises
        ------
        RequestError
            It cannot be drawn.
        """
        if (svg := self._drawn.pop(smiles, None)) is None:
            svg = str((await self._ask({"task": "draw", "smiles": smiles}, DRAW_SECONDS))["svg"])
            while len(self._drawn) >= _DRAWINGS_KEPT:
                del self._drawn[next(iter(self._drawn))]
        self._drawn[smiles] = svg  # the last that was asked for stands last
        return svg

    async def _ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        has_begun = False
        try:
            async with asyncio.timeout(seconds), self._process() as process:
                has_begun = True
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(task).encode("ascii") + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
                if not line.endswith(b"\n"):
                    raise _DiedError
                told: dict[str, Any] = json.loads(line)
                if told["spent"]:
                    self._spent.add(process)
        except TimeoutError:
            if has_begun:
                raise RequestError(413, f"it takes longer than {seconds:.3g} s to read; send less at once") from None
            raise RequestError(503, "all that read files are busy; try again later", retry_after=5) from None
        except (_DiedError, ConnectionError, ValueError):
            logger.warning("a process that reads files has died of what it was given")
            raise RequestError(
                422, "it cannot be read: it is damaged, or needs more memory than there is for one request"
            ) from None
        if "error" in told:
            if "fault" in told:
                logger.warning("a file could not be read: %s", told["fault"])
            raise RequestError(told["status"], told["error"])
        return told

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Lend a process; one that did not end its task is replaced."""
        process = await self._idle.get()
        is_whole = False
        try:
            if process is None or process.returncode is not None:
                process = await self._started()
            yield process
            is_whole = process not in self._spent
        finally:
            if not is_whole and process is not None:
                self._spent.discard(process)
                self._kill(process)
            # A new one is started when it is needed: who waits for this one may have gone.
            self._idle.put_nowait(process if is_whole else None)

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        waiting = asyncio.create_task(process.wait())
        self._killed.add(waiting)
        waiting.add_done_callback(self._killed.discard)

    async def _started(self) -> asyncio.subprocess.Process:
        limits = self._limits
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # or modules would first be looked for in the working folder, among any files
            "-m",
            reading_process.__name__,
            str(limits.reader_bytes),
            str(_ROOM_FOR_TABLES * limits.unpacked_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LONGEST_LINE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self._folder)},
            start_new_session=True,  # Ctrl+C is for the service, which ends this process when it has its answer
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                if await process.stdout.readline() != b"ready\n":
                    logger.error("a process that reads files cannot be started")
                    raise RequestError(503, "files cannot be read now; try again later", retry_after=10)
        except BaseException:
            self._kill(process)
            raise
        return process


class _DiedError(Exception):
    """A process ended before its answer."""


async def _ended(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 2)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _queries_in(folder: Path) -> list[Query]:
    told = json.loads((folder / reading_process.QUERIES).read_text(encoding="utf-8"))
    with pa.memory_map(str(folder / reading_process.SPECTRA)) as source:
        spectra = spectra_from_table(pa.ipc.open_file(source).read_all())
        return [
            Query(query_id, next(spectra) if is_usable else None, note, position)
            for query_id, note, position, is_usable in told
        ]
