"""Batch jobs: taken, worked on beside requests, fetched in any format, cancelled, bounded in number and forgotten."""

from __future__ import annotations

import csv
import io
import shutil
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import HitRow
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.index_state import IndexState
from ionbed.embeddings.service.job_hits import JobHits
from ionbed.embeddings.service.reading_process import SPECTRA
from ionbed.embeddings.service.settings import ServiceLimits, ServiceSettings
from ionbed.spectra.store import table_from_spectra

from ..conftest import random_spectrum
from .conftest import as_peaks, mgf
from .test_refusals import _With, refused


def many(index, number: int) -> bytes:
    spectra = index.spectra([n % len(index) for n in range(number)])
    return mgf(*((f"q{n}", s.precursor_mz, as_peaks(s)) for n, s in enumerate(spectra)))


def begin(client, data: bytes, **form) -> str:
    answer = client.post("/api/jobs", files={"file": ("q.mgf", data)}, data=form)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ended(client, job_id: str) -> dict:
    for _ in range(400):
        told = client.get(f"/api/jobs/{job_id}").json()
        if told["state"] not in ("queued", "running"):
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def test_a_job_gives_what_a_search_gives(client, index):
    data = many(index, 15) + mgf(("mute", 150.0, []))
    expected = client.post("/api/search", files={"file": ("q.mgf", data)}, data={"k": "4"})
    expected_tsv = client.post("/api/search?format=tsv", files={"file": ("q.mgf", data)}, data={"k": "4"})
    expected_mgf = client.post("/api/search?format=mgf", files={"file": ("q.mgf", data)}, data={"k": "4"})
    job = begin(client, data, k="4")
    told = ended(client, job)
    assert (told["state"], told["queries"], told["done"], told["error"]) == ("done", 16, 16, None)
    assert told["expires_in"] > 0
    hits = client.get(f"/api/jobs/{job}/hits").json()
    assert hits["queries"] == expected.json()["queries"]
    assert hits["summary"]["with_hits"] == 15
    assert client.get(f"/api/jobs/{job}/hits?format=tsv").content == expected_tsv.content
    assert client.get(f"/api/jobs/{job}/hits?format=mgf").content == expected_mgf.content
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    assert refused(client.get(f"/api/jobs/{job}"), 404)
    assert refused(client.get(f"/api/jobs/{job}/hits"), 404)
    assert refused(client.delete(f"/api/jobs/{job}"), 404)


def test_a_job_takes_more_than_a_request(client, index):
    data = many(index, 120)
    assert "20 spectra" in refused(client.post("/api/search", files={"file": ("q.mgf", data)}), 413)
    job = begin(client, data, k="2")
    assert ended(client, job)["done"] == 120
    rows = csv.DictReader(io.StringIO(client.get(f"/api/jobs/{job}/hits?format=tsv").text), dialect="excel-tab")
    assert len({row["query_id"] for row in rows}) == 120
    client.delete(f"/api/jobs/{job}")


def test_the_hits_of_a_job_come_in_pages(client, index):
    unusable = b"BEGIN IONS\nTITLE=none\nPEPMASS=200\nEND IONS\n"
    nothing_near = b"BEGIN IONS\nTITLE=far\nPEPMASS=987.6\n100.1 5\n200.2 10\nEND IONS\n"
    job = begin(client, unusable + many(index, 5) + nothing_near + many(index, 3) + unusable, k="2", mode="identity")
    assert ended(client, job)["queries"] == 11
    path = f"/api/jobs/{job}/hits"
    whole = client.get(path).json()
    assert "page" not in whole
    with_hits = [query for query in whole["queries"] if query["hits"]]
    assert len(with_hits) == 8 and whole["summary"]["with_hits"] == 8
    for of, chosen in ((whole["queries"], {}), (with_hits, {"with_hits": True})):
        for offset in (0, 1, 4, 9, 11, 20):
            part = client.get(path, params={"offset": offset, "limit": 4, **chosen}).json()
            assert part["queries"] == of[offset : offset + 4]
            assert part["page"] == {"offset": offset, "total": len(of)}
            assert part["summary"] == whole["summary"]
    for wrong in ("limit=0", "limit=1001", "offset=-1&limit=1", "offset=1", "with_hits=true", "format=tsv&limit=1"):
        assert refused(client.get(f"{path}?{wrong}"), 422)
    client.delete(f"/api/jobs/{job}")


def test_a_page_reads_the_batches_of_its_spectra(tmp_path):
    spectra = [random_spectrum(np.random.default_rng(number), f"s{number}") for number in range(23)]
    table = table_from_spectra(spectra)
    with pa.OSFile(str(tmp_path / SPECTRA), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, 5)
    hits = JobHits(tmp_path, HitRow)
    rows = [HitRow("q", rank=1), HitRow("q", note="none")]
    given = [QueryResult(f"q{n}", spectra[n // 2] if n % 2 else None, [rows[n % 3 == 0]], n) for n in range(46)]
    hits.append(given[:9])
    hits.append(given[9:])
    assert (hits.count(with_hits=False), hits.count(with_hits=True)) == (46, 30)
    for of, with_hits in ((given, False), ([answer for n, answer in enumerate(given) if n % 3], True)):
        for offset in range(0, 46, 3):
            page = [_told(answer) for answer in hits.page(offset, 13, with_hits=with_hits)]
            assert page == [_told(answer) for answer in of[offset : offset + 13]]


def _told(answer: QueryResult) -> tuple[str, str | None, int | None, str]:
    (row,) = answer.rows
    return answer.query_id, answer.spectrum and answer.spectrum.spectrum_id, row.rank, row.note


@pytest.mark.parametrize(("data", "words"), [(b"nonsense", "no format"), (None, "200 spectra")])
def test_a_job_that_fails_says_why(client, index, data, words):
    job = begin(client, many(index, 201) if data is None else data)
    told = ended(client, job)
    assert told["state"] == "failed"
    assert words in told["error"]
    assert "failed" in refused(client.get(f"/api/jobs/{job}/hits"), 409)
    client.delete(f"/api/jobs/{job}")


def test_progress_cancel_number_and_a_request_in_between(index, body):
    limits = ServiceLimits(jobs=2, job_kept_seconds=600)
    app = create_app(index, ServiceSettings(limits=limits, readers=1, warm=False))
    with TestClient(app) as client:
        service = app.state.service
        go_on, calls = threading.Semaphore(0), []

        def slow(spectra, **options):
            if len(spectra) > 1:
                calls.append(len(spectra))
                assert go_on.acquire(timeout=10)
            return index.embed(spectra, **options)

        service.watch.state = IndexState(_With(index, embed=slow))
        data = many(index, 100)
        first, second = begin(client, data), begin(client, data)
        assert "jobs are kept" in refused(client.post("/api/jobs", files={"file": ("q.mgf", data)}), 429)
        go_on.release()
        for _ in range(300):
            told = client.get(f"/api/jobs/{first}").json()
            if told["done"]:
                break
            time.sleep(0.02)
        assert (told["state"], told["queries"], told["done"]) == ("running", 100, 32)
        assert "running" in refused(client.get(f"/api/jobs/{first}/hits"), 409)
        assert client.get(f"/api/jobs/{second}").json()["state"] == "queued"
        assert client.delete(f"/api/jobs/{first}").status_code == 204
        go_on.release(9)
        assert ended(client, second)["done"] == 100
        assert len(calls) <= 2 + 4, "the job that was deleted was worked on to its end"
        assert client.post("/api/search/peaks", json=body).status_code == 200
        assert 'ionbed_jobs{state="done"} 1.0' in client.get("/metrics").text
        third = begin(client, data)  # the place of the one that was deleted
        assert third not in (first, second)
        folder = service.folder
        assert list(folder.rglob("hits.jsonl"))
    assert not folder.exists(), "the service leaves files behind"


def test_jobs_are_forgotten(index):
    app = create_app(index, ServiceSettings(limits=ServiceLimits(jobs=1, job_kept_seconds=0.3), readers=1, warm=False))
    with TestClient(app) as client:
        job = begin(client, many(index, 2))
        for _ in range(100):
            answer = client.get(f"/api/jobs/{job}")
            if answer.status_code == 404:
                break
            time.sleep(0.02)
        assert "expired" in refused(answer, 404)
        begin(client, many(index, 2))
        for _ in range(200):  # and without anybody asking
            if not list(app.state.service.folder.iterdir()):
                break
            time.sleep(0.02)
        assert not list(app.state.service.folder.iterdir()), "the files of a job that was forgotten are still there"
        begin(client, many(index, 2))


def test_a_job_that_is_deleted_while_its_hits_are_fetched(client, index):
    job = begin(client, many(index, 2))
    assert ended(client, job)["state"] == "done"
    shutil.rmtree(client.app.state.service.jobs.get(job).path.parent)
    assert "deleted" in refused(client.get(f"/api/jobs/{job}/hits"), 404)
    client.delete(f"/api/jobs/{job}")


def test_a_job_of_too_many_hits_or_too_much_time(index):
    limits = ServiceLimits(job_hits=99, job_seconds=3)
    app = create_app(index, ServiceSettings(limits=limits, readers=1, warm=False))
    with TestClient(app) as client:
        assert "100 hits are more than the 99" in ended(client, begin(client, many(index, 10), k="10"))["error"]
        go_on = threading.Event()
        app.state.service.watch.state = IndexState(_With(index, embed=lambda *words, **options: go_on.wait(10)))
        assert "longer than 3 s" in ended(client, begin(client, many(index, 3)))["error"]
        go_on.set()
