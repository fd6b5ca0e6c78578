"""What a client may not ask: each limit, wrong word and bad file has one line of JSON and a status of its own."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
import time
import zipfile

import pytest
from fastapi.testclient import TestClient

from ionbed.embeddings.index import Index
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.index_state import IndexState
from ionbed.embeddings.service.settings import ServiceLimits, ServiceSettings
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.errors import InputError

from ..conftest import CountSketchModel
from ..test_structure_index import TowerModel
from .conftest import LIMITS, as_peaks, mgf


def refused(answer, status: int) -> str:
    """Return the line of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    message = answer.json()["error"]
    assert message
    assert "\n" not in message
    assert "/tmp" not in message
    assert "ionbed-serve" not in message, "a client learns where its file lay"
    return message


def upload(client, data: bytes, name: str = "q.mgf", **form):
    return client.post("/api/search", files={"file": (name, data)}, data=form)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peaks": []}, "peaks"),
        ({"peaks": [[100.0]]}, "peaks.0"),
        ({"peaks": [[100.0, "1"]]}, "peaks.0.1"),
        ({"peaks": [[-1.0, 1.0]]}, "no usable peaks"),
        ({"precursor_mz": 0}, "precursor_mz"),
        ({"precursor_mz": None}, "precursor_mz"),
        ({"k": 0}, "k"),
        ({"k": 21}, "20 hits"),
        ({"mode": "exact"}, "mode"),
        ({"score": "dot"}, "score"),
        ({"score": "fused"}, "fused score"),
        ({"score": "predicted"}, "score"),
        ({"formula": "C6H6"}, "formula"),
        ({"precursor_ppm": 5.0, "precursor_da": 1.0}, "exclude"),
        ({"mode": "open", "precursor_ppm": 5.0}, "open search"),
        ({"precursor_ppm": -1.0}, "precursor_ppm"),
        ({"filters": {"polarity": 2}}, "polarity"),
        ({"filters": {"energy": [30.0, 20.0]}}, "energy"),
        ({"filters": {"adducts": ["nonsense"]}}, "adduct"),
        ({"precursorppm": 5.0}, "precursorppm"),
        ({"x" * 1000: 5.0}, "xxx"),
    ],
)
def test_wrong_words(client, body, change, words):
    told = refused(client.post("/api/search/peaks", json={**body, **change}), 422)
    assert words in told
    assert len(told) < 200


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"a"', "NaN",
     '{"precursor_mz": NaN, "peaks": [[1, 1]]}',
     '{"precursor_mz": 1e999, "peaks": [[1, 1]]}',
     '{"precursor_mz": 200, "peaks": [[Infinity, 1]]}', '{"precursor_mz": 200, "name": "\\ud800", "peaks": [[1, 1]]}',
     '{"precursor_mz": ' + "9" * 5000 + ', "peaks": [[1, 1]]}', "[" * 30_000, "\xff\xfe", "{\"a\": 1" + ", " * 9],
)  # fmt: skip
def test_a_body_that_is_no_request(client, text):
    for body in (text.encode("utf-8", "surrogatepass"), text.encode("latin-1", "replace")):
        answer = client.post("/api/search/peaks", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
        refused(answer, answer.status_code)


@pytest.mark.parametrize("path", ["/api/search/peaks", "/api/search/usi", "/api/mirror"])
def test_a_request_without_a_body_or_that_ends_within_it(client, path, caplog):
    assert refused(client.post(path), 422) == "the request has no body; give it as JSON"
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path, "root_path": "",
             "query_string": b"", "headers": [(b"content-type", b"application/json"), (b"content-length", b"99")],
             "client": None, "server": ("testserver", 80)}  # fmt: skip
    comes = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return comes.pop(0)

    async def send(message):
        sent.append(message)

    client.portal.call(client.app, scope, receive, send)
    assert sent[0]["status"] == 400, "who hangs up is no fault of the service"
    assert "a request failed" not in caplog.text


def test_addresses_and_methods_that_there_are_not(client):
    assert refused(client.get("/nothing"), 404)
    assert refused(client.get("/api/search"), 405)
    assert refused(client.delete("/api/info"), 405)
    assert "row" in refused(client.get("/api/library/144"), 404)
    assert refused(client.get("/api/library/-1"), 422)
    assert refused(client.get("/api/library/99999999999999999999999"), 422)
    assert refused(client.get("/docs/../../pyproject.toml"), 404)
    assert refused(client.get("/docs/%2e%2e%2fapp.py"), 404)
    assert refused(client.get("/page/..%2f..%2fapp.py"), 404)


def test_structures_that_cannot_be_drawn(client):
    for smiles in ("C(", "", "X", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "C1CC"):
        refused(client.get("/api/structure.svg", params={"smiles": smiles}), 422)
    assert "200" in refused(client.get("/api/structure.svg", params={"smiles": "C" * 201}), 422)


def test_uploads_that_are_no_spectra(client):
    assert "no format" in refused(upload(client, b"hello"), 422)
    assert refused(upload(client, b""), 422)
    assert refused(upload(client, b"PK\x03\x04 and then nothing", "a.zip"), 422)
    assert refused(upload(client, b"PAR1 and then nothing", "a.parquet"), 422)
    assert refused(upload(client, b"\x89HDF\r\n\x1a\n" + b"\x00" * 99, "a.hdf5"), 422)
    assert "file" in refused(client.post("/api/search", data={"k": "3"}), 422)
    assert refused(
        client.post("/api/search", content=b"nonsense", headers={"Content-Type": "multipart/form-data"}), 400
    )
    assert "kk" in refused(upload(client, mgf(("a", 200.0, [(1, 1)])), kk="3"), 422)
    assert "k" in refused(upload(client, mgf(("a", 200.0, [(1, 1)])), k="many"), 422)


def test_an_upload_that_is_too_large_is_refused_while_it_comes(client):
    assert "bytes" in refused(upload(client, b"x" * (LIMITS.upload_bytes + 100_000)), 413)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": "100"}
    # A client that states a small size and sends more: the bytes are what counts.
    parts = (b"x" * (1 << 16) for _ in range(40))
    answer = client.post("/api/search", content=parts, headers=headers)
    assert "bytes" in refused(answer, 413)
    headers["Content-Length"] = "9" * 30
    assert "bytes" in refused(client.post("/api/search", content=b"", headers=headers), 413)
    large = json.dumps({"precursor_mz": 200.0, "peaks": [[100.0, 1.0]] * 6000})
    assert "bytes" in refused(client.post("/api/search/peaks", content=large), 413)


def test_what_unpacks_to_too_much(client):
    zeros = b" " * (LIMITS.unpacked_bytes + 1)
    assert "unpacks" in refused(upload(client, gzip.compress(zeros), "a.mgf.gz"), 413)
    assert "unpacks" in refused(upload(client, gzip.compress(gzip.compress(zeros)), "a.mgf.gz"), 413)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):  # each is small enough
            archive.writestr(f"{number}.mgf", b" " * (1 << 20))
    assert "unpacks" in refused(upload(client, packed.getvalue(), "a.zip"), 413)
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.zip", packed.getvalue())
    assert "unpacks" in refused(upload(client, nested.getvalue(), "a.zip"), 413)


def test_links_and_paths_in_archives_lead_nowhere(client, spectrum, tmp_path):
    secret = tmp_path / "secret.mgf"
    secret.write_bytes(mgf(("secret", spectrum.precursor_mz, as_peaks(spectrum))))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("link.mgf")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
        data = mgf(("mine", spectrum.precursor_mz, as_peaks(spectrum)))
        for name in ("/etc/mine.mgf", "../../mine.mgf"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    answer = upload(client, packed.getvalue(), "../../../a.tar")
    assert [query["query_id"] for query in answer.json()["queries"]] == ["mine", "mine#2"]


def test_more_spectra_or_peaks_than_are_taken(client, spectrum):
    peaks = as_peaks(spectrum)
    many = mgf(*((f"q{n}", spectrum.precursor_mz, peaks) for n in range(21)))
    assert "20 spectra" in refused(upload(client, many), 413)
    wide = [(50 + n * 0.37, 1 + n % 7) for n in range(301)]
    answer = upload(client, mgf(("wide", 999.0, wide), ("mine", spectrum.precursor_mz, peaks))).json()
    assert "301 peaks; 300 are taken" in answer["queries"][0]["note"]
    assert answer["queries"][1]["hits"]
    asked = {"precursor_mz": 999.0, "peaks": [list(peak) for peak in wide]}
    assert "300" in refused(client.post("/api/search/peaks", json=asked), 422)


def test_more_at_once_than_is_taken(index, body):
    limits = ServiceLimits(requests=1, seconds=20)
    app = create_app(index, ServiceSettings(limits=limits, readers=1, warm=False))
    entered, go_on = threading.Event(), threading.Event()
    with TestClient(app) as client:
        search = index.search

        def slow(*words, **options):
            entered.set()
            go_on.wait(10)
            return search(*words, **options)

        app.state.service.watch.state = IndexState(_With(index, search=slow))
        first = []
        thread = threading.Thread(target=lambda: first.append(client.post("/api/search/peaks", json=body)))
        thread.start()
        assert entered.wait(10)
        answer = client.post("/api/search/peaks", json=body)
        assert "try again" in refused(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/health/live").status_code == 200
        go_on.set()
        thread.join()
        assert first[0].status_code == 200
        assert client.post("/api/search/peaks", json=body).status_code == 200


def test_a_search_that_takes_too_long(index, body):
    app = create_app(index, ServiceSettings(limits=ServiceLimits(seconds=0.3), readers=1, warm=False))
    with TestClient(app) as client:
        app.state.service.watch.state = IndexState(_With(index, search=lambda *words, **options: time.sleep(0.8)))
        answer = client.post("/api/search/peaks", json=body)
        assert "longer than" in refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1


def test_a_fault_of_the_service_tells_nothing_of_it(index, body, caplog):
    app = create_app(index, ServiceSettings(readers=1, warm=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        app.state.service.watch.state = IndexState(_With(index, search=lambda *words, **options: 1 / 0))
        assert refused(client.post("/api/search/peaks", json=body), 500) == "the service failed; its log says why"
        assert "ZeroDivisionError" in caplog.text
        app.state.service.watch.state = IndexState(index)
        assert client.post("/api/search/peaks", json=body).status_code == 200, "the thread of the model has died"


class _With:
    """An index with some of its methods replaced."""

    def __new__(cls, index, **methods):
        other = object.__new__(type(index))
        other.__dict__.update(index.__dict__)
        other.__dict__.update(methods)
        return other


KEY = "a-key-of-more-than-16-characters"


def test_the_key(index, body):
    with TestClient(create_app(index, ServiceSettings(api_key=KEY, readers=1, warm=False))) as client:
        for headers in (
            {},
            {"X-API-Key": KEY[:-1]},
            {"X-API-Key": ""},
            {"Authorization": f"Basic {KEY}"},
            {"X-API-Key": "é"},
        ):
            answer = client.post("/api/search/peaks", json=body, headers={n: v.encode() for n, v in headers.items()})
            assert "key" in refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.post("/api/search/peaks", json=body, headers={"X-API-Key": KEY}).status_code == 200
        assert client.get("/api/info", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        for path in (
            "/api/info",
            "/api/example",
            "/metrics",
            "/api/structure.svg?smiles=C",
            "/api/jobs/abc",
            "/api/library/1",
        ):
            assert client.get(path).status_code == 401, path
        for path in ("/", "/health/live", "/health/ready", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
            assert client.get(path).status_code == 200, path


def test_settings_that_cannot_be():
    for wrong in (
        {"seconds": 0},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"spectra": -1},
        {"spectra": 10_000},
    ):
        with pytest.raises(InputError):
            ServiceLimits(**wrong)
    for wrong in (
        {"api_key": "short"},
        {"usi_resolver": "ftp://host/{usi}"},
        {"usi_resolver": "https://{usi}/a"},
        {"usi_resolver": "https://host/a"},
    ):
        with pytest.raises(InputError):
            ServiceSettings(**wrong)


def test_headers_that_browsers_heed(client):
    for path in ("/", "/docs", "/api/info", "/nothing", "/health/live"):
        answer = client.get(path, headers={"Origin": "https://elsewhere.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy or "script-src" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "access-control-allow-origin" not in answer.headers


def test_the_log_holds_no_data_of_a_query(client, body, caplog):
    caplog.set_level("INFO", logger="ionbed.access")
    client.post("/api/search/peaks?format=tsv", json={**body, "name": "a-secret-name"})
    client.get("/api/structure.svg", params={"smiles": "CCCCCCO"})
    client.get("/api/jobs/my-secret-job")
    lines = [record.getMessage() for record in caplog.records if record.name == "ionbed.access"]
    assert len(lines) == 3
    assert lines[0].startswith("POST /api/search/peaks 200 ")
    assert lines[2].startswith("GET /api/jobs/{job_id} 404 ")
    assert not any("secret" in line or "CCCC" in line for line in lines)


def test_a_form_of_another_site_is_refused_and_a_link_from_there_is_not(client, spectrum):
    files = {"file": ("q.mgf", mgf(("a", spectrum.precursor_mz, as_peaks(spectrum))))}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        headers = {"Sec-Fetch-Site": site}
        assert client.post("/api/search", files=files, headers=headers).status_code == status
        assert client.get("/api/info", headers=headers).status_code == 200


def test_a_damaged_index_is_the_fault_of_no_client_and_names_no_path(index, body, tmp_path, caplog):
    index.save(tmp_path / "library")
    damaged = Index.open(tmp_path / "library", CountSketchModel())
    for path in (tmp_path / "library" / "segments" / "1").glob("[lv]*"):
        data = bytearray(path.read_bytes())
        data[4096:8192] = bytes(byte ^ 0xFF for byte in data[4096:8192])
        path.write_bytes(data)  # into the file that is mapped
    with TestClient(create_app(damaged, ServiceSettings(readers=1, warm=False))) as client:
        assert "index is damaged" in refused(client.post("/api/search/peaks", json={**body, "mode": "open"}), 500)
        assert "index is damaged" in refused(client.get("/api/library/0"), 500)
    assert "vectors.npy: is damaged" in caplog.text
    assert "library.arrow: is damaged" in caplog.text


def test_an_index_that_lacks_a_score_is_not_named_by_its_path(tmp_path):
    StructureIndex.build(TowerModel(), ["CCO", "CCN"]).save(tmp_path / "molecules")
    index = StructureIndex.open(tmp_path / "molecules", TowerModel())
    with TestClient(create_app(index, ServiceSettings(readers=1, warm=False))) as client:
        words = {"precursor_mz": 47.0, "polarity": 1, "peaks": [[29.0, 1.0]], "score": "predicted"}
        assert "the index: holds no predicted spectra" in refused(client.post("/api/search/peaks", json=words), 422)
