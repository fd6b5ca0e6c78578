"""Pages of other sites get no answer: neither under a name that they made point to this machine, nor by a form."""

from __future__ import annotations

import dataclasses

import pytest
from fastapi.testclient import TestClient

from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.callers import allowed_names, refusal
from ionbed.embeddings.service.serving import own_names
from ionbed.embeddings.service.settings import ServiceSettings
from ionbed.errors import InputError

from .conftest import as_peaks, mgf

ALLOWED = allowed_names(["spectra.example.org"])
SETTINGS = ServiceSettings(readers=1, warm=False, allowed_hosts=ALLOWED)


def asked(*headers: tuple[str, str], changes: bool = False, allowed: frozenset[str] | None = ALLOWED) -> str | None:
    return refusal([(name.encode(), value.encode()) for name, value in headers], allowed, changes=changes)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "10.1.2.3:80", "spectra.example.org.",
     "Spectra.Example.org:443", "a.localhost:8000"],
)  # fmt: skip
def test_own_names_and_addresses(host):
    assert asked(("host", host)) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:127.0.0.1", "", "[evil]",
     "spectra.example.org.evil.example", "xspectra.example.org", "127.0.0.1@evil.example", "localhost evil.example"],
)  # fmt: skip
def test_names_of_others(host):
    assert "--allowed-host" in asked(("host", host))
    assert asked(("host", host), allowed=None) is None
    assert "--allowed-host" in asked(("host", "localhost"), ("host", host)), "the second of two counts too"


def test_a_request_that_changes_something_comes_from_no_other_site():
    host = ("host", "127.0.0.1:8000")
    for origin in ("http://127.0.0.1:8000", "https://spectra.example.org", "https://spectra.example.org:8443"):
        assert asked(host, ("origin", origin), changes=True) is None
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9000", "http://localhost:8000", "", "file://",
                   "http://[evil", "http://[evil]:8000", "http://127.0.0.1:8000/evil"):  # fmt: skip
        assert "another site" in asked(host, ("origin", origin), changes=True)
        assert asked(host, ("origin", origin)) is None, "a link"
    # Behind a proxy that calls us by our address and not by its name browsers say themselves that it is the same site.
    proxied = ("origin", "https://other.example.org")
    assert asked(host, proxied, ("sec-fetch-site", "same-origin"), changes=True) is None
    assert "another site" in asked(host, proxied, ("sec-fetch-site", "cross-site"), changes=True)
    assert asked(changes=True) is None, "a program"


def test_the_service_refuses_them_in_one_line_whatever_they_ask(index, body, spectrum):
    with TestClient(create_app(index, SETTINGS), base_url="http://127.0.0.1:8000") as client:
        assert client.post("/api/search/peaks", json=body).status_code == 200
        foreign = {"Host": "evil.example:8000"}
        for path in ("/", "/api/info", "/api/library/0", "/metrics", "/health/live", "/docs", "/nothing"):
            answer = client.get(path, headers=foreign)
            assert answer.status_code == 403, path
            assert answer.json()["error"].startswith("Host: 'evil.example:8000' is no name")
        upload = {"file": ("q.mgf", mgf(("a", spectrum.precursor_mz, as_peaks(spectrum))))}
        assert client.post("/api/search", files=upload, headers=foreign).status_code == 403
        assert client.post("/api/jobs", files=upload, headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.post("/api/jobs", files=upload, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 202
        named = {"Host": "spectra.example.org", "Origin": "https://spectra.example.org"}
        assert client.post("/api/search/peaks", json=body, headers=named).status_code == 200
    with TestClient(create_app(index, dataclasses.replace(SETTINGS, allowed_hosts=None))) as client:
        assert client.get("/api/info", headers=foreign).status_code == 200


def test_names_that_are_given():
    assert own_names("127.0.0.1", ["*"]) is None
    assert {"spectra.example.org", "lab-server"} <= own_names("Lab-Server", ["Spectra.example.org."])
    for name in ("https://spectra.example.org", "spectra.example.org:8000", "a b", "", "*.example.org"):
        with pytest.raises(InputError, match="--allowed-host"):
            own_names("127.0.0.1", [name])
