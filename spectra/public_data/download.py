"""Download files over HTTP: resumed, retried, checked, and moved into place only when they are whole."""

from __future__ import annotations

import email.utils
import logging
import random
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3

from ...artifacts import move_into_place
from ...progress import Advance
from .error_pages import HEAD_BYTES, printable, refusal
from .partial_file import Expected, PartialFile, Received, whole_number, whole_size

logger = logging.getLogger("ionbed")

T = TypeVar("T")

_CHUNK_BYTES = 1 << 18
_STEADY_BYTES = 1 << 20
"""An attempt that gets this much further is progress: the count of failed attempts starts again."""
_MOST_TEXT_BYTES = 1 << 26
_SLOWEST = 100.0
"""Bytes per second, over `DownloadOptions.timeout`; what is slower counts as a lost connection."""
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class DownloadOptions:
    """How patient and how polite downloads are; the keys of ``download`` in ``ionbed configs public-data``."""

    connections: int = 4
    connections_per_host: int = 2
    seconds_between_requests: float = 0.2
    timeout: float = 60.0
    attempts: int = 6
    first_pause: float = 1.0
    longest_pause: float = 60.0
    longest_wait: float = 600.0
    confirm_above: int = 10_000_000_000

    def __post_init__(self) -> None:
        for name in ("connections", "connections_per_host", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("seconds_between_requests", "first_pause", "longest_pause", "longest_wait", "confirm_above"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout}; it must be more than 0 seconds")


class DownloadError(RuntimeError):
    """A file cannot be had from its publisher; the message says which and why, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote what a server sent


def refuse_lack_of_space(target: Path, num_bytes: int) -> None:
    """Raise `DownloadError` if fewer bytes are free on the disk that ``target`` is to be written to."""
    folder = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DownloadError(f"{target}: needs {num_bytes:,} bytes, {free:,} are free on that disk")


class _Transient(Exception):  # noqa: N818 - it never leaves this module
    """An attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Downloader:
    """Sessions, and what is known of each host: how many connections are open and when the next request may start.

    Its methods may be called from several threads.
    """

    def __init__(self, options: DownloadOptions) -> None:
        self.options = options
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._places: dict[str, threading.Semaphore] = {}
        self._next_start: dict[str, float] = {}
        self._local = threading.local()

    def stop(self) -> None:
        """End every download soon; what is received stays for the next run."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def text(self, url: str) -> str:
        """Return a text of at most 64 MiB; raises `DownloadError`."""

        def attempt() -> str:
            with self._request("GET", url, {}) as response:
                self._refuse_status(url, response)
                if "gzip" in response.headers.get("Content-Encoding", ""):
                    raise DownloadError(f"{url}: is sent compressed although it was not asked for")
                body = bytearray()
                for chunk in self._chunks(response):
                    body += chunk
                    if len(body) > _MOST_TEXT_BYTES:
                        raise DownloadError(f"{url}: is longer than {_MOST_TEXT_BYTES:,} bytes")
                length = _length(response)
                if length is not None and len(body) < length:
                    raise _Transient(f"the connection ended after {len(body):,} of {length:,} bytes")
                return body.decode("utf-8", "replace")

        return self._retried(url, attempt, lambda: 0)

    def size_of(self, url: str) -> int | None:
        """Return the size in bytes that the server states, None where it states none.

        Raises
        ------
        DownloadError
            The server does not answer.
        """
        try:
            with self._request("HEAD", url, {}) as response:
                if response.status_code != 200 or "gzip" in response.headers.get("Content-Encoding", ""):
                    return None
                linked = (whole_number(answer.headers.get("X-Linked-Size", "")) for answer in response.history)
                return next((size for size in linked if size is not None), _length(response))
        except _Transient as error:
            raise DownloadError(f"{url}: {error}") from None

    def file(
        self,
        url: str,
        target: Path,
        expected: Expected,
        *,
        advance: Advance,
        verified: Callable[[Received], None] = lambda received: None,
    ) -> Received:
        """Download ``url`` to ``target``, going on where an earlier run was stopped.

        What is received lies in ``.NAME.partial`` beside the target until it is whole and checked; ``verified`` is
        called just before it is moved into place. A part of an earlier run is used only if the server's validator
        (RFC 9110, If-Range), or a stated checksum, can tell that it belongs to the same file.

        Raises
        ------
        DownloadError
            The server does not have it, sends something else, or failed `DownloadOptions.attempts` times.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(target, url, needs_md5=expected.md5 is not None) as partial:
            advance(partial.size)

            def attempt() -> Received:
                return self._attempt(url, target, expected, partial, advance)

            received = self._retried(url, attempt, lambda: partial.size)
            if not received.bytes and expected.size is None:
                logger.warning("%s: is empty", url)
            partial.sync()
            verified(received)
            move_into_place(partial.path, target)
            partial.forget()
        return received

    def _attempt(self, url: str, target: Path, expected: Expected, partial: PartialFile, advance: Advance) -> Received:
        def start_again() -> None:
            advance(-partial.size)
            partial.clear()

        if partial.size and not partial.can_resume(expected):
            start_again()
        if not (partial.size and partial.size == partial.total):
            self._receive(url, target, expected, partial, advance, start_again)
        received = Received(partial.size, partial.sha256.hexdigest(), partial.etag, partial.last_modified)
        if wrong := partial.difference(expected):
            was_resumed = partial.is_resumed
            start_again()
            if was_resumed:
                raise _Transient(f"the parts do not make the file ({wrong})")
            raise DownloadError(f"{url}: {wrong}; it is damaged or has been replaced by its publisher")
        return received

    def _receive(
        self,
        url: str,
        target: Path,
        expected: Expected,
        partial: PartialFile,
        advance: Advance,
        start_again: Callable[[], None],
    ) -> None:
        headers = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        if partial.size and partial.validator:
            headers["If-Range"] = partial.validator
        with self._request("GET", url, headers) as response:
            if response.status_code == 416 or (response.status_code == 206 and not partial.fits(response)):
                start_again()
                raise _Transient("the file is another one than before")
            self._refuse_status(url, response)
            partial.is_resumed = partial.is_resumed or response.status_code == 206
            if response.status_code == 200 and partial.size:  # ranges are ignored, or the file has changed
                start_again()
            is_encoded = self._is_encoded(url, response, target.name)
            length = None if is_encoded else _length(response)
            total = None if length is None else partial.size + length
            if response.status_code == 206:
                total = whole_size(response) or total
            if total is not None and expected.size is not None and total != expected.size:
                raise DownloadError(f"{url}: has {total:,} bytes at the server, {expected.size:,} are expected")
            refuse_lack_of_space(target, (total or expected.size or 0) - partial.size)
            partial.note(response, total, can_resume=not is_encoded)
            most = total if total is not None else expected.size
            sent = self._chunks(response)
            for chunk in self._checked(url, target.name, _decoded(sent) if is_encoded else sent, partial):
                partial.write(chunk)
                advance(len(chunk), target.name)
                if most is not None and partial.size > most:
                    start_again()
                    raise DownloadError(f"{url}: more than the {most:,} bytes of the file are sent")
            if total is not None and partial.size < total:
                raise _Transient(f"the connection ended after {partial.size:,} of {total:,} bytes")
            if total is None and expected == Expected(None, None, None) and not _is_delimited(response):
                logger.warning("%s: the server does not say how long it is; see that nothing is missing", url)

    def _checked(self, url: str, name: str, chunks: Iterator[bytes], partial: PartialFile) -> Iterator[bytes]:
        """Yield the chunks, the first of them only after a look at what they are."""
        head, is_looking = b"", partial.size == 0
        for chunk in chunks:
            if self._stopped.is_set():
                raise DownloadError(f"{url}: stopped")
            if not is_looking:
                yield chunk
                continue
            head += chunk
            if len(head) >= HEAD_BYTES:
                self._refuse_content(url, name, head, is_whole=False)
                is_looking = False
                yield head
        if is_looking:
            self._refuse_content(url, name, head, is_whole=True)
            yield head

    @staticmethod
    def _refuse_content(url: str, name: str, head: bytes, *, is_whole: bool) -> None:
        if what := refusal(head, name, is_whole):
            raise DownloadError(f"{url}: the server sent {what}; try again later, or see whether it has moved")

    @staticmethod
    def _is_encoded(url: str, response: requests.Response, name: str) -> bool:
        """Whether the body must be unpacked to be the file; a .gz file marked as gzip is sent as it is."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("", "identity") or name.lower().endswith((".gz", ".tgz")):
            return False
        if encoding in ("gzip", "x-gzip"):
            return True
        raise DownloadError(f"{url}: is sent in the encoding '{encoding}', which was not asked for")

    @staticmethod
    def _refuse_status(url: str, response: requests.Response) -> None:
        status = response.status_code
        if urlsplit(url).scheme == "https":
            for answer in (*response.history, response):
                if urlsplit(answer.url).scheme != "https":
                    raise DownloadError(f"{url}: leads to {answer.url}, which is not encrypted")
        if status in (200, 206):
            return
        if status in _TRANSIENT:
            raise _Transient(f"{status} {response.reason}", _retry_after(response))
        hint = {
            401: "it needs an account",
            403: "it needs an account, or consent on its page",
            404: "it may have moved",
        }
        reason = f"{status} {response.reason}".strip()
        raise DownloadError(f"{url}: {reason}{f' ({hint[status]})' if status in hint else ''}")

    def _retried(self, url: str, attempt: Callable[[], T], size: Callable[[], int]) -> T:
        failures, most = 0, size()
        while True:
            try:
                return attempt()
            except _Transient as error:
                is_steady = size() >= most + _STEADY_BYTES  # more than there ever was: starting again is no progress
                failures, most = 1 if is_steady else failures + 1, max(most, size())
                if failures >= self.options.attempts:
                    raise DownloadError(f"{url}: {error}; given up after {failures} attempts") from None
                if error.wait > self.options.longest_wait:
                    raise DownloadError(
                        f"{url}: {error}; it asks to wait {error.wait:,.0f} s, try again then"
                    ) from None
                pause = min(self.options.longest_pause, self.options.first_pause * 2 ** (failures - 1))
                pause = max(error.wait, pause * random.uniform(0.5, 1.0))
                logger.info("%s: %s; next attempt in %.0f s", url, printable(str(error)), pause)
                if error.wait:
                    self._postpone(url, error.wait)
                if self._stopped.wait(pause):
                    raise DownloadError(f"{url}: stopped") from None

    @contextmanager
    def _request(self, method: str, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        host, timeouts = urlsplit(url).netloc, (min(20.0, self.options.timeout), self.options.timeout)
        with self._lock:
            place = self._places.setdefault(host, threading.Semaphore(self.options.connections_per_host))
        with place:
            self._wait_for_turn(host)
            try:
                response = self._session().request(method, url, headers=headers, stream=True, timeout=timeouts)
            except (requests.TooManyRedirects, requests.exceptions.InvalidSchema, ValueError) as error:
                raise DownloadError(f"{url}: {_cause(error)}") from None  # ValueError: an URL that is none
            except requests.RequestException as error:
                if _is_of_certificate(error):
                    hint = "see the clock, and REQUESTS_CA_BUNDLE if your site has certificates of its own"
                    raise DownloadError(f"{url}: {_cause(error)}; {hint}") from None
                raise _Transient(f"no answer from {host} ({_cause(error)})") from None
            with response:
                yield response

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            from ... import __version__

            session = requests.Session()
            session.max_redirects = 10
            session.headers.update(
                {"User-Agent": f"ionbed/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
            )
            self._local.session = session
        session = self._local.session
        assert isinstance(session, requests.Session)
        return session

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the bytes as they are sent, as soon as they come."""
        started, num_bytes = time.monotonic(), 0
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                yield chunk
                num_bytes += len(chunk)
                elapsed = time.monotonic() - started
                if elapsed > self.options.timeout:
                    if num_bytes < _SLOWEST * elapsed:
                        raise _Transient(f"only {num_bytes:,} bytes came in {elapsed:.0f} s")
                    started, num_bytes = time.monotonic(), 0
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Transient(f"the connection was lost ({_cause(error)})") from None

    def _wait_for_turn(self, host: str) -> None:
        with self._lock:
            start = max(time.monotonic(), self._next_start.get(host, 0.0))
            self._next_start[host] = start + self.options.seconds_between_requests
        if self._stopped.wait(max(0.0, start - time.monotonic())):
            raise DownloadError(f"{host}: stopped")

    def _postpone(self, url: str, seconds: float) -> None:
        host = urlsplit(url).netloc
        with self._lock:
            self._next_start[host] = max(self._next_start.get(host, 0.0), time.monotonic() + seconds)


def _decoded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes that a gzip content encoding holds, a little at a time however far it was compressed."""
    decoder = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            while chunk:
                if decoder.eof:  # gzip may hold several parts (RFC 1952, 2.2)
                    decoder = zlib.decompressobj(wbits=31)
                yield decoder.decompress(chunk, _CHUNK_BYTES)
                chunk = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    except zlib.error as error:
        raise _Transient(f"the gzip encoding is damaged ({error})") from None
    if not decoder.eof:
        raise _Transient("the connection ended before the file did")


def _length(response: requests.Response) -> int | None:
    return whole_number(response.headers.get("Content-Length", ""))


def _is_delimited(response: requests.Response) -> bool:
    """Whether the end of a body without a length can be told from a lost connection."""
    coding = response.headers.get("Transfer-Encoding", "") + response.headers.get("Content-Encoding", "")
    return "chunked" in coding.lower() or "gzip" in coding.lower()


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that the server asks to wait, 0 where it asks for none (RFC 9110, 10.2.3).

    A date is compared with the server's own clock, where it states it: the clock here may be wrong.
    """
    text = response.headers.get("Retry-After", "").strip()
    if (seconds := whole_number(text)) is not None:
        return float(seconds)
    until, now = _timestamp(text), _timestamp(response.headers.get("Date", ""))
    return 0.0 if until is None else max(0.0, until - (time.time() if now is None else now))


def _timestamp(http_date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(http_date).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_of_certificate(error: BaseException) -> bool:
    """Whether a failure is of the server's certificate, which will not change; other failures of TLS may pass."""
    return isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _cause(error: BaseException) -> str:
    """Return the innermost reason in a few words; requests and urllib3 wrap it several times."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = " ".join(str(error).split())
    text = re.sub(r"^(<.*?>|HTTPS?Connection(Pool)?\(.*?\)): ", "", text)
    return (text or type(error).__name__)[:160]
