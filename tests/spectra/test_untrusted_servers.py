"""Servers that lie about sizes, send errors as data, or mean harm: nothing of it is taken for the file."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable

import pytest
import requests

from ionbed.spectra.public_data.download import Downloader, DownloadError, DownloadOptions
from ionbed.spectra.public_data.error_pages import refusal
from ionbed.spectra.public_data.partial_file import Expected

from .downloads import FAST, fetch, only
from .http_server import BODY, Handler, redirect, serve


@pytest.mark.parametrize("lie", [-1000, 1000], ids=["too short", "too long"])
def test_a_length_that_lies_is_found_out(server, tmp_path, lie):
    stated = str(len(BODY) + lie)
    url = server.on("/a.mgf", serve(headers={"Content-Length": stated, "Connection": "close"}, drop_after=len(BODY)))
    with pytest.raises(DownloadError, match=f"{int(stated):,} bytes at the server, 3,000,000 are expected"):
        fetch(url, tmp_path / "a.mgf", Expected(size=len(BODY)))
    if lie > 0:  # with no size to compare, the missing bytes tell
        with pytest.raises(DownloadError, match=r"(connection was lost|another one than before).*given up after"):
            fetch(url, tmp_path / "a.mgf")
    else:  # and a checksum tells of missing bytes that no length tells of
        with pytest.raises(DownloadError, match="SHA-256"):
            fetch(url, tmp_path / "a.mgf", Expected(sha256=hashlib.sha256(BODY).hexdigest()))
    assert not (tmp_path / "a.mgf").exists()


@pytest.mark.parametrize(
    ("expected", "message"),
    [(Expected(sha256="0" * 64), "SHA-256"), (Expected(md5="0" * 32), "MD5"), (Expected(size=7), "7 are expected")],
)
def test_a_file_that_is_another_one_is_refused_and_leaves_nothing(server, tmp_path, expected, message):
    with pytest.raises(DownloadError, match=message):
        fetch(server.on("/a.mgf", serve()), tmp_path / "a.mgf", expected)
    assert list(tmp_path.iterdir()) == []


def chunked(body: bytes, *, drop_after: int | None = None, **headers: str) -> Callable[[Handler], None]:
    def behave(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        sent = body if drop_after is None else body[:drop_after]
        for start in range(0, len(sent), 100_000):
            part = sent[start : start + 100_000]
            handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if drop_after is None:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.drop()

    return behave


def test_gzip_of_several_parts_or_of_a_bomb_is_unpacked_a_little_at_a_time(server, tmp_path):
    text = b"BEGIN IONS\n" * 2_000
    parts = gzip.compress(text) + gzip.compress(b"\n" * 50_000_000) + gzip.compress(text)
    url = server.on("/a.mgf", serve(parts, headers={"Content-Encoding": "gzip"}))
    largest = 0

    def advance(items: int, status: str = "") -> None:
        nonlocal largest
        largest = max(largest, items)

    received = Downloader(FAST).file(url, tmp_path / "a.mgf", Expected(), advance=advance)
    assert received.bytes == 50_000_000 + 2 * len(text)
    assert largest <= 1 << 20


def test_an_empty_file_is_told(server, tmp_path, caplog):
    fetch(server.on("/a.mgf", serve(b"")), tmp_path / "a.mgf")
    assert "a.mgf: is empty" in caplog.text
    assert only(tmp_path / "a.mgf")


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, tmp_path):
    def crawl(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    options = DownloadOptions(timeout=0.3, attempts=1, seconds_between_requests=0.0)
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in 0 s"):
        fetch(server.on("/a.mgf", crawl), tmp_path / "a.mgf", options=options)
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in 0 s"):
        Downloader(options).text(server.url + "/a.mgf")
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("header", "value"),
    [("Content-Length", "9" * 5000), ("X-Linked-Size", "9" * 5000), ("Content-Range", f"bytes 0-1/{'9' * 5000}"),
     ("Retry-After", "9" * 5000), ("Retry-After", "Fri, 31 Dec 99999 23:59:59 GMT"), ("ETag", '"\xe9\x80"')],
)  # fmt: skip
def test_headers_that_make_no_sense_are_no_more_than_an_error(server, tmp_path, header, value):
    def behave(handler: Handler) -> None:
        status = {"Content-Range": 206, "Retry-After": 429}.get(header, 200)
        handler.send(status, BODY, {header: value}, drop_after=1000)

    url = server.on("/a.mgf", behave)
    server.on("/to", redirect(url, **{header.replace("-", "_"): value}))
    if header == "Content-Length":
        assert Downloader(FAST).size_of(url) is None
        return
    with pytest.raises(DownloadError, match=r"given up|asks to wait"):
        fetch(url, tmp_path / "a.mgf")
    Downloader(FAST).size_of(server.url + "/to")


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[::1", "http://127.0.0.1:99999/", "/\xff\xfe"],
)
def test_a_redirection_to_what_is_no_web_address_is_told_at_once(server, tmp_path, place):
    with pytest.raises(DownloadError) as caught:
        fetch(server.on("/a.mgf", redirect(place)), tmp_path / "a.mgf")
    assert len(server.log) <= 2
    assert list(tmp_path.iterdir()) == []
    assert len(str(caught.value).splitlines()) == 1


def test_a_way_that_leaves_encryption_is_refused_even_where_it_comes_back():
    def answer(url: str) -> requests.Response:
        response = requests.Response()
        response.url, response.status_code = url, 200
        return response

    last = answer("https://host/c")
    Downloader._refuse_status("https://host/a", last)
    last.history = [answer("https://host/a"), answer("http://host/b")]
    with pytest.raises(DownloadError, match=r"leads to http://host/b, which is not encrypted"):
        Downloader._refuse_status("https://host/a", last)


def test_a_connection_that_breaks_while_it_is_encrypted_is_tried_again(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def close_at_once() -> None:
            while len(accepted) < FAST.attempts:
                connection, _ = listener.accept()
                accepted.append(connection.recv(10))
                connection.close()

        thread = threading.Thread(target=close_at_once, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a.mgf"
        with pytest.raises(DownloadError, match="given up after 4 attempts"):
            fetch(url, tmp_path / "a.mgf")
    assert len(accepted) == 4


def test_nothing_that_a_server_sends_steers_the_terminal(server, tmp_path):
    def sly(handler: Handler) -> None:
        handler.send_response(404, "Not\x1b[2J\x9bFound")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(DownloadError, match="404") as caught:
        fetch(server.on("/a.mgf", sly), tmp_path / "a.mgf")
    assert str(caught.value).isprintable()


def test_chunked_answers_have_an_end_and_a_size(server, tmp_path):
    fetch(server.on("/a.mgf", chunked(BODY, drop_after=500_000), chunked(BODY)), tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    with pytest.raises(DownloadError, match="more than the 1,000,000 bytes"):
        fetch(server.on("/b.mgf", chunked(BODY)), tmp_path / "b.mgf", Expected(size=1_000_000))
    assert only(tmp_path / "a.mgf")


def test_an_end_that_could_be_a_lost_connection_is_told(server, tmp_path, caplog):
    def undelimited(handler: Handler) -> None:
        handler.send(200, BODY, {"Content-Length": "", "Connection": "close"}, drop_after=len(BODY))

    fetch(server.on("/a.mgf", undelimited), tmp_path / "a.mgf")
    assert "does not say how long it is" in caplog.text
    caplog.clear()
    fetch(server.on("/b.mgf", undelimited), tmp_path / "b.mgf", Expected(size=len(BODY)))
    assert caplog.text == ""


def test_gzip_as_a_content_encoding_is_unpacked_and_as_a_file_it_is_not(server, tmp_path):
    text = b"BEGIN IONS\n" * 100_000
    packed = gzip.compress(text)
    encoded = serve(packed, headers={"Content-Encoding": "gzip"})
    fetch(server.on("/a.mgf", encoded), tmp_path / "a.mgf", Expected(size=len(text)))
    assert (tmp_path / "a.mgf").read_bytes() == text
    fetch(server.on("/a.mgf.gz", encoded), tmp_path / "a.mgf.gz", Expected(size=len(packed)))
    assert (tmp_path / "a.mgf.gz").read_bytes() == packed
    url = server.on("/b.mgf", serve(packed, headers={"Content-Encoding": "gzip"}, drop_after=len(packed) // 2), encoded)
    fetch(url, tmp_path / "b.mgf", Expected(sha256=hashlib.sha256(text).hexdigest()))
    assert server.ranges_of("/b.mgf") == [None, None], "a part of what is unpacked is no range of what is sent"
    with pytest.raises(DownloadError, match="encoding 'br'"):
        fetch(server.on("/c.mgf", serve(headers={"Content-Encoding": "br"})), tmp_path / "c.mgf")


PAGE = b"<!DOCTYPE html>\n<html><head><title>Down for maintenance</title></head></html>"


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        (PAGE, "a.mgf", r"an HTML page, not data \('Down for maintenance'\)"),
        (b"\xef\xbb\xbf  <HTML>", "a.tsv", "HTML"),
        (PAGE, "a.mzML", "HTML"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "a.mgf", "XML"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "a.mzML", "XML"),
        (b'{"error": "no such file"}', "a.json", r"JSON message.*no such file"),
        (b'{"message": "gone", "status": 404}', "a.mgf", "JSON"),
        (PAGE, "a.zip", r"HTML page .*, not a \.zip file"),
        (b"hello", "a.hdf5", r"something else, not a \.hdf5 file"),
        (b'{"detail": "rate limit"}', "a.tar.gz", r"JSON message .*, not a \.gz file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a.tsv", "Git LFS"),
        (b"", "a.zip", r"nothing at all, not a \.zip file"),
        (b"<?xml version='1.0'?><Error/>", "MSScan.xsd", "XML"),
    ],
)
def test_what_is_not_data_is_refused_with_what_came(server, tmp_path, body, name, message):
    with pytest.raises(DownloadError, match=message):
        fetch(server.on(f"/{name}", serve(body)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"BEGIN IONS\n", "a.mgf"),
        (b'<?xml version="1.0"?>\n<!-- a run --><indexedmzML>', "a.mzML"),
        (PAGE, "page.html"),
        (b'[{"spectrum_id": "CCMSLIB1"}]', "a.json"),
        (b'{"CCO": ["CCO", "COC"]}', "candidates.json"),
        (b"{}", "a.json"),
        (b"PK\x03\x04", "a.zip"),
        (b"\x89HDF\r\n\x1a\n", "a.hdf5"),
        (b"", "empty.mgf"),
        (b"", "empty.json"),
        (b'<?xml version="1.0"?><xs:schema>', "MSScan.xsd"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><method>', "Acq.METHOD"),
    ],
)
def test_data_is_taken_for_data(body, name):
    assert refusal(body, name, is_whole=True) is None


@pytest.mark.parametrize("is_right", [True, False])
def test_the_checksum_that_the_hub_states_is_checked(server, tmp_path, is_right):
    digest = hashlib.sha256(BODY if is_right else b"").hexdigest()
    url = server.on("/a.mgf", redirect("/store/1", X_Linked_ETag=f'"{digest}"', X_Linked_Size=str(len(BODY))))
    server.on("/store/1", serve(etag=""))
    assert Downloader(FAST).size_of(url) == len(BODY)
    if is_right:
        fetch(url, tmp_path / "a.mgf")
    else:
        with pytest.raises(DownloadError, match="SHA-256"):
            fetch(url, tmp_path / "a.mgf")


def test_a_disk_that_is_too_small_is_told_before_the_download(server, tmp_path):
    many = str(10**18)

    def huge(handler: Handler) -> None:
        handler.send(200, b"BEGIN IONS\n", {"Content-Length": many}, drop_after=11)

    with pytest.raises(DownloadError, match=f"needs {10**18:,} bytes, .* are free"):
        fetch(server.on("/a.mgf", huge), tmp_path / "a.mgf")
    assert list(tmp_path.iterdir()) == []


def test_passwords_and_tokens_go_to_no_other_host(server, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    elsewhere = server.url.replace("127.0.0.1", "localhost") + "/b.mgf"
    server.on("/b.mgf", serve(b"BEGIN IONS\n"))
    fetch(server.on("/a.mgf", redirect(elsewhere)), tmp_path / "a.mgf")
    first, second = server.log
    assert first[2]["Authorization"].startswith("Basic ")
    assert second[2]["Host"].startswith("localhost")
    assert "Authorization" not in second[2] and "secret" not in str(second)
