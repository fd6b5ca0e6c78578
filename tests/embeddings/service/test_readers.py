"""The processes that read files: one that dies, takes too long or wants too much memory costs its own request only."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest
from anyio import to_thread

from ionbed.embeddings.service import readers as service_readers
from ionbed.embeddings.service import reading_process
from ionbed.embeddings.service.failures import RequestError
from ionbed.embeddings.service.readers import Readers
from ionbed.embeddings.service.settings import MEBIBYTE, ServiceLimits

from .conftest import mgf

GOOD = mgf(("a", 200.0, [(100.0, 1.0), (120.0, 2.0)]), ("b", 300.0, []))
LONG_RECORD = b"BEGIN IONS\nPEPMASS=200\n" + b"100.0 1.0\n" * 6_000_000


def with_readers(tmp_path: Path, steps, **limits) -> None:
    """Run ``steps`` with one process; they get a function that reads a file of some bytes."""

    async def run() -> None:
        readers = Readers(1, ServiceLimits(**limits))
        await readers.start(tmp_path, warm=False)
        number = 0

        async def read(data: bytes, seconds: float = 60):
            nonlocal number
            number += 1
            folder = tmp_path / f"upload-{number}"
            folder.mkdir()
            path = folder / "upload.mgf"
            path.write_bytes(data)
            return await readers.read(path, 10, seconds=seconds)

        try:
            await steps(readers, read)
        finally:
            await readers.stop()

    asyncio.run(run())


def test_a_reader_that_dies_is_replaced(tmp_path):
    async def steps(readers, read):
        assert [query.query_id for query in await read(GOOD)] == ["a", "b"]
        process = readers._idle.get_nowait()
        readers._idle.put_nowait(process)
        process.kill()  # between two requests
        await process.wait()
        assert len(await read(GOOD)) == 2

        reading = asyncio.create_task(read(LONG_RECORD))
        while not readers._idle.empty():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        _end_child(tmp_path)
        with pytest.raises(RequestError, match="cannot be read") as refused:
            await reading
        assert refused.value.status_code == 422
        assert len(await read(GOOD)) == 2

    with_readers(tmp_path, steps)


def _end_child(tmp_path: Path) -> None:
    """Kill the process that reads: the one whose temporary files go to ``tmp_path``."""
    import psutil

    children = psutil.Process().children()
    ours = [child for child in children if child.environ().get("TMPDIR") == str(tmp_path)]
    assert len(ours) == 1
    ours[0].kill()


def test_no_module_of_the_working_folder_is_run(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)

    async def steps(_readers, read):
        assert [query.query_id for query in await read(GOOD)] == ["a", "b"]

    with_readers(tmp_path, steps)


def test_much_that_is_read_is_taken_over_in_a_thread(tmp_path, monkeypatch):
    mute = b"".join(mgf((f"{n}" * 400, 200.0, [])) for n in range(9))  # notes, and not one spectrum
    threads, run_sync = [], to_thread.run_sync

    async def noted(function, *words):
        threads.append(function.__name__)
        return await run_sync(function, *words)

    monkeypatch.setattr(to_thread, "run_sync", noted)

    async def steps(readers, read):
        assert len(await read(mute)) == 9
        assert "_queries_in" not in threads
        small = (tmp_path / "upload-1" / reading_process.SPECTRA).stat().st_size + 1000
        monkeypatch.setattr(service_readers, "SMALL_BYTES", small)
        assert len(await read(mute)) == 9
        assert "_queries_in" in threads

    with_readers(tmp_path, steps)


def test_what_takes_too_long_is_ended(tmp_path):
    async def steps(readers, read):
        assert len(await read(GOOD)) == 2
        with pytest.raises(RequestError, match=r"longer than 0\.2 s to read") as refused:
            await read(LONG_RECORD, seconds=0.2)
        assert refused.value.status_code == 413
        assert len(await read(GOOD)) == 2

    with_readers(tmp_path, steps)


def test_who_waits_too_long_for_a_reader_is_told_to_come_back(tmp_path):
    async def steps(readers, read):
        process = await readers._idle.get()
        with pytest.raises(RequestError, match="busy") as refused:
            await read(GOOD, seconds=0.1)
        assert refused.value.status_code == 503
        assert refused.value.headers["Retry-After"]
        readers._idle.put_nowait(process)
        assert len(await read(GOOD)) == 2

    with_readers(tmp_path, steps)


def test_what_wants_too_much_memory_is_refused(tmp_path):
    async def steps(readers, read):
        with pytest.raises(RequestError, match="memory") as refused:
            await read(gzip.compress(b"BEGIN IONS\nPEPMASS=200\n" + b"100.0 1.0\n" * 30_000_000, 1))
        assert refused.value.status_code in (413, 422)
        assert len(await read(GOOD)) == 2

    with_readers(tmp_path, steps, reader_bytes=2500 * MEBIBYTE)
