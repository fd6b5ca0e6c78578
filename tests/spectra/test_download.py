"""Downloads from a server on 127.0.0.1 that drops connections, lies about sizes, changes files and serves errors."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

import ionbed
from ionbed.progress import unseen
from ionbed.spectra.public_data.download import Downloader, DownloadError, DownloadOptions
from ionbed.spectra.public_data.error_pages import refusal
from ionbed.spectra.public_data.partial_file import Expected, Received

from .http_server import BODY, ETAG, Handler, Server, error, redirect, serve

FAST = DownloadOptions(
    seconds_between_requests=0.0, timeout=5.0, attempts=4, first_pause=0.01, longest_pause=0.02, longest_wait=2.0
)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def fetch(url: str, target: Path, expected: Expected | None = None, options: DownloadOptions = FAST) -> Received:
    with unseen() as advance:
        return Downloader(options).file(url, target, expected or Expected(), advance=advance)


def partial_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def only(target: Path) -> bool:
    """Whether nothing but the file is left in its folder."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_comes_whole_with_its_checksum_and_a_polite_request(server, tmp_path):
    url, target = server.on("/a.mgf", serve()), tmp_path / "deep" / "a.mgf"
    received = fetch(url, target, Expected(len(BODY), hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()))
    assert target.read_bytes() == BODY
    assert received == Received(len(BODY), hashlib.sha256(BODY).hexdigest(), ETAG, None)
    assert only(target)
    (headers,) = server.requests_of("/a.mgf")
    assert headers["User-Agent"].startswith(f"ionbed/{ionbed.__version__}")
    assert headers["Accept-Encoding"] == "identity"
    assert "Range" not in headers


def test_dropped_connections_are_resumed_where_they_broke(server, tmp_path):
    url = server.on("/a.mgf", serve(drop_after=1_000_000), serve(drop_after=500_000), serve())
    fetch(url, tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    assert server.ranges_of("/a.mgf") == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [headers.get("If-Range") for headers in server.requests_of("/a.mgf")] == [None, ETAG, ETAG]


def test_a_server_that_always_drops_is_given_up_and_the_part_stays_for_the_next_run(server, tmp_path):
    target = tmp_path / "a.mgf"
    url = server.on("/a.mgf", serve(drop_after=10_000), serve(drop_after=0))
    with pytest.raises(DownloadError, match=r"connection (was lost|ended after 10,000 of).*given up after 4"):
        fetch(url, target)
    assert not target.exists()
    assert partial_of(target).read_bytes() == BODY[:10_000]
    server.on("/a.mgf", serve())
    fetch(url, target)
    assert target.read_bytes() == BODY
    assert server.ranges_of("/a.mgf")[-1] == "bytes=10000-"
    assert only(target)


def test_starting_again_is_no_progress(server, tmp_path):
    url = server.on("/a.mgf", serve(etag="", drop_after=2_000_000))
    with pytest.raises(DownloadError, match="given up after 4"):
        fetch(url, tmp_path / "a.mgf")
    assert len(server.log) == 4


def test_steady_progress_is_never_given_up(server, tmp_path):
    big = BODY * 3
    url = server.on("/a.mgf", *[serve(big, drop_after=1_100_000)] * 8, serve(big))
    fetch(url, tmp_path / "a.mgf", options=DownloadOptions(attempts=2, first_pause=0.0, seconds_between_requests=0.0))
    assert (tmp_path / "a.mgf").read_bytes() == big


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "ignores ranges"])
def test_a_file_that_changes_between_the_parts_is_not_glued(server, tmp_path, ranges):
    new = BODY[::-1]
    first, second = serve(drop_after=700_000), serve(new, etag='"second"', ranges=ranges)
    url = server.on("/a.mgf", first, second)
    received = fetch(url, tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == new
    assert received.etag == '"second"'


def test_a_server_that_ignores_if_range_is_found_out_by_the_etag_of_the_part(server, tmp_path):
    new = BODY[::-1]

    def careless(handler: Handler) -> None:
        if "Range" not in handler.headers:
            return serve(new, etag='"second"')(handler)
        start = int(handler.headers["Range"][6:-1])
        given = {"ETag": '"second"', "Content-Range": f"bytes {start}-{len(new) - 1}/{len(new)}"}
        return handler.send(206, new[start:], given)

    url = server.on("/a.mgf", serve(drop_after=700_000), careless)
    fetch(url, tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == new


def test_a_server_that_sends_less_than_the_range_is_asked_for_the_rest(server, tmp_path):
    def sparing(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        part = BODY[start : start + 1_000_000]
        handler.send(206, part, {"ETag": ETAG, "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(BODY)}"})

    fetch(server.on("/a.mgf", serve(drop_after=500_000), sparing), tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    assert server.ranges_of("/a.mgf") == [None, "bytes=500000-", "bytes=1500000-", "bytes=2500000-"]


def test_parts_need_not_state_the_validator_again(server, tmp_path):
    def forgetful(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1])
        given = {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
        handler.send(206, BODY[start:], given, drop_after=500_000)

    received = fetch(server.on("/a.mgf", serve(drop_after=500_000), forgetful, serve()), tmp_path / "a.mgf")
    assert [headers.get("If-Range") for headers in server.requests_of("/a.mgf")] == [None, ETAG, ETAG]
    assert received.etag == ETAG


def test_a_file_without_a_validator_starts_again_unless_its_checksum_is_known(server, tmp_path):
    url = server.on("/a.mgf", serve(etag="", drop_after=700_000), serve(etag=""))
    fetch(url, tmp_path / "a.mgf")
    assert server.ranges_of("/a.mgf") == [None, None]
    expected = Expected(sha256=hashlib.sha256(BODY).hexdigest())
    url = server.on("/b.mgf", serve(etag="", drop_after=700_000), serve(etag=""))
    fetch(url, tmp_path / "b.mgf", expected)
    assert server.ranges_of("/b.mgf") == [None, "bytes=700000-"]
    assert (tmp_path / "a.mgf").read_bytes() == (tmp_path / "b.mgf").read_bytes() == BODY


def test_parts_of_two_files_that_only_the_checksum_tells_apart_are_fetched_again(server, tmp_path):
    expected = Expected(sha256=hashlib.sha256(BODY).hexdigest())
    url = server.on("/a.mgf", serve(BODY[::-1], etag="", drop_after=700_000), serve(etag=""))
    fetch(url, tmp_path / "a.mgf", expected)
    assert (tmp_path / "a.mgf").read_bytes() == BODY


@pytest.mark.parametrize(
    "note", [None, "{", '{"url": "http://elsewhere/a.mgf", "can_resume": true, "etag": "\\"first\\""}']
)
def test_a_part_that_nobody_can_place_is_not_used(server, tmp_path, note):
    target = tmp_path / "a.mgf"
    partial_of(target).write_bytes(b"x" * 1000)
    if note is not None:
        partial_of(target).with_name(".a.mgf.partial.json").write_text(note)
    fetch(server.on("/a.mgf", serve()), target)
    assert target.read_bytes() == BODY
    assert server.ranges_of("/a.mgf") == [None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_errors_are_retried(server, tmp_path, status):
    fetch(server.on("/a.mgf", error(status), error(status), serve()), tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    assert len(server.requests_of("/a.mgf")) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server, tmp_path, as_date):
    wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"  # a date has whole seconds
    started = time.monotonic()
    fetch(server.on("/a.mgf", error(429, Retry_After=wait), serve()), tmp_path / "a.mgf")
    assert time.monotonic() - started >= 0.9


def test_a_date_to_wait_for_is_read_by_the_clock_of_the_server(server, tmp_path):
    tomorrow = time.time() + 86_400  # as seen from here

    def behave(handler: Handler) -> None:
        handler.date_time_string = lambda timestamp=None: email.utils.formatdate(tomorrow, usegmt=True)  # type: ignore
        error(429, Retry_After=email.utils.formatdate(tomorrow + 1, usegmt=True))(handler)

    fetch(server.on("/a.mgf", behave, serve()), tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY


def test_a_server_that_asks_for_too_long_a_wait_is_told(server, tmp_path):
    with pytest.raises(DownloadError, match=r"429 .*asks to wait 7,200 s"):
        fetch(server.on("/a.mgf", error(429, Retry_After="7200")), tmp_path / "a.mgf")
    assert len(server.log) == 1


@pytest.mark.parametrize(("status", "reason"), [(404, "may have moved"), (403, "consent"), (401, "account"), (418, "")])
def test_lasting_errors_are_not_retried(server, tmp_path, status, reason):
    with pytest.raises(DownloadError, match=rf"{status} .*{reason}"):
        fetch(server.on("/a.mgf", error(status)), tmp_path / "a.mgf")
    assert len(server.log) == 1
    assert list(tmp_path.iterdir()) == []


def test_attempts_are_counted(server, tmp_path):
    with pytest.raises(DownloadError, match=r"500 .*given up after 4 attempts"):
        fetch(server.on("/a.mgf", error(500)), tmp_path / "a.mgf")
    assert len(server.log) == 4


def test_a_host_that_does_not_answer_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.mgf"
    with pytest.raises(DownloadError, match=r"no answer from 127\.0\.0\.1.*refused.*given up") as caught:
        fetch(url, tmp_path / "a.mgf")
    assert "HTTPConnectionPool" not in str(caught.value)


def test_a_silent_server_runs_into_the_timeout(server, tmp_path):
    url = server.on("/a.mgf", lambda handler: time.sleep(1))
    with pytest.raises(DownloadError, match="timed out"):
        fetch(url, tmp_path / "a.mgf", options=DownloadOptions(timeout=0.1, attempts=1, seconds_between_requests=0.0))


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


def test_redirections_are_followed_anew_on_each_attempt(server, tmp_path):
    url = server.on("/a.mgf", redirect("/store/1"), redirect("/store/2"))
    server.on("/store/1", serve(drop_after=700_000))
    server.on("/store/2", serve())
    fetch(url, tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    assert server.ranges_of("/store/2") == ["bytes=700000-"]
    with pytest.raises(DownloadError, match="redirects"):
        fetch(server.on("/loop.mgf", redirect("/loop.mgf")), tmp_path / "loop.mgf")


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


def test_connections_to_one_host_and_their_rate_are_limited(server, tmp_path):
    def slow(handler: Handler) -> None:
        time.sleep(0.05)
        serve(b"BEGIN IONS\n")(handler)

    urls = [server.on(f"/{number}.mgf", slow) for number in range(8)]
    downloader = Downloader(DownloadOptions(connections_per_host=2, seconds_between_requests=0.02))

    def one(number: int) -> None:
        with unseen() as advance:
            downloader.file(urls[number], tmp_path / f"{number}.mgf", Expected(), advance=advance)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 8
    assert server.most_open <= 2
    assert time.monotonic() - started >= 7 * 0.02


def test_a_download_that_is_stopped_keeps_its_part(server, tmp_path):
    downloader, target = Downloader(FAST), tmp_path / "a.mgf"
    stopped = threading.Event()

    def advance(items: int, status: str = "") -> None:
        if items:
            downloader.stop()
            stopped.set()

    with pytest.raises(DownloadError, match="stopped"):
        downloader.file(server.on("/a.mgf", serve()), target, Expected(), advance=advance)
    assert stopped.is_set()
    size = partial_of(target).stat().st_size
    assert 0 < size < len(BODY)
    fetch(server.url + "/a.mgf", target)
    assert target.read_bytes() == BODY
    assert server.ranges_of("/a.mgf")[-1] == f"bytes={size}-"


def test_a_whole_part_is_moved_into_place_without_a_request(server, tmp_path):
    target = tmp_path / "a.mgf"
    url = server.on("/a.mgf", serve(drop_after=10_000), error(404))
    with pytest.raises(DownloadError, match="404"):
        fetch(url, target)
    partial_of(target).write_bytes(BODY)  # as a run leaves it that is killed before the file is moved
    requests = len(server.log)
    fetch(url, target)
    assert target.read_bytes() == BODY
    assert len(server.log) == requests


def test_texts_are_read_whole_or_refused(server):
    downloader = Downloader(FAST)
    assert (
        downloader.text(server.on("/list", error(500), serve(b"a\xffb", drop_after=1), serve(b"a\xffb"))) == "a\ufffdb"
    )
    with pytest.raises(DownloadError, match="404"):
        downloader.text(server.url + "/none")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("attempts", 0, "at least 1"), ("timeout", 0.0, "more than 0"), ("first_pause", -1.0, "must not be negative")],
)
def test_impossible_options_are_refused(key, value, message):
    with pytest.raises(ValueError, match=message):
        DownloadOptions(**{key: value})
