"""Spectra by USI: from the one resolver that is configured, bounded in time and size, whatever the client writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient

from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.settings import ServiceSettings

from .conftest import LIMITS, as_peaks
from .test_refusals import refused

SECONDS = 1.0


class Resolver(ThreadingHTTPServer):
    """Answers with what a test sets, and takes note of what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.status, self.content, self.location, self.drips = 200, b"", "", False


class Handler(BaseHTTPRequestHandler):
    server: Resolver

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        if self.server.drips:
            for _ in range(100):
                self.wfile.write(b" ")
                time.sleep(0.1)
        self.wfile.write(self.server.content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def resolver() -> Iterator[Resolver]:
    server = Resolver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def usi_client(index, resolver) -> Iterator[TestClient]:
    address = f"http://127.0.0.1:{resolver.server_port}/json/?usi={{usi}}"
    settings = ServiceSettings(
        limits=LIMITS, usi_resolver=address, usi_seconds=SECONDS, usi_bytes=20_000, readers=1, warm=False
    )
    with TestClient(create_app(index, settings)) as client:
        yield client


@pytest.fixture
def answers(resolver):
    """Sets what the resolver answers."""

    def set_answer(content=b"", status=200, location="", drips=False):
        resolver.content = content if isinstance(content, bytes) else json.dumps(content).encode()
        resolver.status, resolver.location, resolver.drips = status, location, drips
        resolver.asked.clear()

    return set_answer


def ask(client, usi="mzspec:GNPS:GNPS-LIBRARY:accession:CCMSLIB00000000001", **options):
    return client.post("/api/search/usi", json={"usi": usi, **options})


def test_it_is_off_unless_asked_for(client):
    assert "without --usi" in refused(ask(client), 403)


@pytest.mark.parametrize("kind", ["gnps", "proxi"])
def test_the_spectrum_that_the_resolver_gives_is_searched(usi_client, resolver, answers, spectrum, kind):
    peaks = as_peaks(spectrum)
    if kind == "gnps":
        answers({"peaks": peaks, "precursor_mz": str(spectrum.precursor_mz), "precursor_charge": 1, "splash": "x"})
    else:
        attributes = [
            {"accession": "MS:1000744", "value": str(spectrum.precursor_mz)},
            {"accession": "MS:1000041", "value": "1"},
        ]
        answers([{"mzs": [m for m, _ in peaks], "intensities": [i for _, i in peaks], "attributes": attributes}])
    usi = "mzspec:MSV000084132:a b/ü?usi=x&host=elsewhere#z:scan:1"
    assert refused(ask(usi_client, usi), 422)  # a blank
    usi = usi.replace(" ", "_").replace("ü", "u")
    answer = ask(usi_client, usi, k=2)
    assert answer.status_code == 200, answer.text
    (query,) = answer.json()["queries"]
    assert query["query_id"] == usi
    assert query["hits"][0]["library_id"] == spectrum.spectrum_id
    assert resolver.asked == [
        "/json/?usi=mzspec%3AMSV000084132%3Aa_b%2Fu%3Fusi%3Dx%26host%3Delsewhere%23z%3Ascan%3A1"
    ], "the USI is one value of the query, and nothing else of the address is the client's"


@pytest.mark.parametrize(
    "usi", ["http://127.0.0.1/", "file:///etc/passwd", "mzspec:", "mzspec:a\r\nHost: x", "mzspec:" + "a" * 500, ""]
)
def test_what_is_no_usi_is_not_asked_for(usi_client, resolver, answers, usi):
    answers(b"{}")
    assert "usi" in refused(ask(usi_client, usi), 422)
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("content", "status", "expected", "words"),
    [
        (b"not json", 200, 422, "no spectrum"),
        ({}, 200, 422, "no spectrum"),
        ([], 200, 422, "no spectrum"),
        ("text", 200, 422, "no spectrum"),
        (b"[" * 15_000, 200, 422, "no spectrum"),
        ({"peaks": [], "precursor_mz": 200.0}, 200, 422, "no spectrum"),
        ({"peaks": [[1]], "precursor_mz": 200.0}, 200, 422, "no spectrum"),
        ({"peaks": [["a", "b"]], "precursor_mz": 200.0}, 200, 422, "no spectrum"),
        (b'{"peaks": [[NaN, 1]], "precursor_mz": 200.0}', 200, 422, "no spectrum"),
        ({"peaks": [[100, 1]], "precursor_mz": 0}, 200, 422, "no spectrum"),
        ({"peaks": [[100, 0]], "precursor_mz": 200}, 200, 422, "no usable peaks"),
        ({"peaks": [[100, 1]], "precursor_mz": 200, "precursor_charge": "many"}, 200, 422, "no spectrum"),
        (b"x" * 30_000, 200, 422, "more than 20,000 bytes"),
        (b"", 404, 404, "knows no such"),
        (b"", 400, 404, "knows no such"),
        (b"", 500, 503, "does not answer"),
        (b"", 204, 503, "does not answer"),
    ],
)  # fmt: skip
def test_answers_that_are_none(usi_client, answers, content, status, expected, words):
    answers(content, status)
    answer = ask(usi_client)
    assert words in refused(answer, expected)
    assert ("retry-after" in answer.headers) == (expected == 503)


def test_redirects_are_not_followed(usi_client, resolver, answers, body):
    answers(
        {"peaks": body["peaks"], "precursor_mz": 200.0}, 302, location=f"http://127.0.0.1:{resolver.server_port}/inner"
    )
    refused(ask(usi_client), 503)
    assert len(resolver.asked) == 1


def test_a_resolver_that_drips_is_not_waited_for(usi_client, answers):
    answers(b"{}", drips=True)
    started = time.monotonic()
    refused(ask(usi_client), 503)
    assert time.monotonic() - started < 4 * SECONDS


def test_a_resolver_that_is_not_there(index):
    settings = ServiceSettings(usi_resolver="http://127.0.0.1:9/{usi}", usi_seconds=SECONDS, readers=1, warm=False)
    with TestClient(create_app(index, settings)) as client:
        assert client.get("/api/info").json()["usi"] is True
        assert "127.0.0.1" not in refused(ask(client), 503), "a client learns where the resolver is"
