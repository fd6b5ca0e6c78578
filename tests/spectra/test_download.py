"""Downloads from a server on 127.0.0.1 that drops connections, changes files, redirects and asks for patience."""

from __future__ import annotations

import email.utils
import hashlib
import socket
import threading
import time

import pytest

import ionbed
from ionbed.progress import unseen
from ionbed.spectra.public_data.download import Downloader, DownloadError, DownloadOptions
from ionbed.spectra.public_data.partial_file import Expected, Received

from .downloads import FAST, fetch, only, partial_of
from .http_server import BODY, ETAG, Handler, error, redirect, serve


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


def test_redirections_are_followed_anew_on_each_attempt(server, tmp_path):
    url = server.on("/a.mgf", redirect("/store/1"), redirect("/store/2"))
    server.on("/store/1", serve(drop_after=700_000))
    server.on("/store/2", serve())
    fetch(url, tmp_path / "a.mgf")
    assert (tmp_path / "a.mgf").read_bytes() == BODY
    assert server.ranges_of("/store/2") == ["bytes=700000-"]
    with pytest.raises(DownloadError, match="redirects"):
        fetch(server.on("/loop.mgf", redirect("/loop.mgf")), tmp_path / "loop.mgf")


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
