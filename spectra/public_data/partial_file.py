"""The part of a file that is received so far, beside its place, with a note of what it is a part of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from ...artifacts import atomic_file

_READ_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Received:
    """What is known of a file that was received and checked."""

    bytes: int
    sha256: str
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True)
class Expected:
    """What a publisher states of a file; None where unknown.

    Attributes
    ----------
    size : int, optional
        In bytes.
    sha256, md5 : str, optional
        Hexadecimal.
    """

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None


def partial_path(target: Path) -> Path:
    """Return where the part of a file that is received so far lies."""
    return target.with_name(f".{target.name}.partial")


class PartialFile:
    """The part of a file that is received, with its checksums so far and a note of what it is a part of."""

    def __init__(self, target: Path, url: str, *, needs_md5: bool = False) -> None:
        self.path = partial_path(target)
        self._note = self.path.with_name(f"{self.path.name}.json")
        self._url = url
        self.is_resumed = self.path.exists()
        self.etag: str | None = None
        self.last_modified: str | None = None
        self.publisher_sha256: str | None = None
        self.total: int | None = None
        self._can_resume, self._needs_md5 = True, needs_md5
        self._read_note()

    def __enter__(self) -> PartialFile:
        self._handle = open(self.path, "a+b")
        self.sha256, self.md5, self.size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        self._handle.seek(0)
        while chunk := self._handle.read(_READ_BYTES):
            self._count(chunk)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()
        if not self.size:
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    @property
    def validator(self) -> str | None:
        """What If-Range takes: a strong ETag, else the date of the last change."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def can_resume(self, expected: Expected) -> bool:
        """Whether it could be told if the rest were of another file."""
        return self._can_resume and bool(self.validator or expected.sha256 or expected.md5 or self.publisher_sha256)

    def fits(self, response: requests.Response) -> bool:
        """Whether a partial response goes on where this ends, in the same file."""
        found = _content_range(response)
        if not found or int(found[1]) != self.size:
            return False
        is_same_size = self.total is None or found[3] in ("*", str(self.total))
        etag = response.headers.get("ETag")
        return is_same_size and (etag is None or self.etag is None or etag == self.etag)

    def note(self, response: requests.Response, total: int | None, *, can_resume: bool) -> None:
        """Write down what the coming bytes belong to, for a run that finds them."""
        if not self.size:  # a partial response need not state them again
            self.etag = self.last_modified = None
        self.etag = response.headers.get("ETag", self.etag) if can_resume else None
        self.last_modified = response.headers.get("Last-Modified", self.last_modified) if can_resume else None
        self.total, self._can_resume = total, can_resume
        self.publisher_sha256 = _linked_sha256(response) or self.publisher_sha256
        fields = ("etag", "last_modified", "total", "publisher_sha256")
        entries = {"url": self._url, "can_resume": can_resume, **{name: getattr(self, name) for name in fields}}
        with atomic_file(self._note) as path:
            path.write_text(json.dumps(entries), encoding="utf-8")

    def write(self, chunk: bytes) -> None:
        """Add the bytes that come next."""
        self._handle.write(chunk)
        self._count(chunk)

    def clear(self) -> None:
        """Forget what was received."""
        self._handle.truncate(0)
        self.sha256, self.md5, self.size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        self.is_resumed, self.total, self.publisher_sha256 = False, None, None
        self._note.unlink(missing_ok=True)

    def sync(self) -> None:
        """Write to disk what is received."""
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def forget(self) -> None:
        """Remove the note of a file that is in its place."""
        self._note.unlink(missing_ok=True)

    def _count(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        if self._needs_md5:
            self.md5.update(chunk)
        self.size += len(chunk)

    def _read_note(self) -> None:
        entries: Any = None
        with contextlib.suppress(FileNotFoundError, ValueError):
            entries = json.loads(self._note.read_text(encoding="utf-8"))
        if not isinstance(entries, dict) or entries.get("url") != self._url or not entries.get("can_resume"):
            self.path.unlink(missing_ok=True)  # nobody can tell what it is a part of
            self.is_resumed = False
            return
        self.etag, self.last_modified = entries.get("etag"), entries.get("last_modified")
        self.total, self.publisher_sha256 = entries.get("total"), entries.get("publisher_sha256")

    def difference(self, expected: Expected) -> str | None:
        """Return in which way this is not the whole of the file that is expected, None where it is."""
        if expected.size is not None and self.size != expected.size:
            return f"it has {self.size:,} bytes, {expected.size:,} are expected"
        if self.total is not None and self.size != self.total:
            return f"it has {self.size:,} bytes, the server states {self.total:,}"
        for name, found, stated in (
            ("SHA-256", self.sha256, expected.sha256),
            ("SHA-256", self.sha256, self.publisher_sha256),
            ("MD5", self.md5, expected.md5),
        ):
            if stated is not None and found.hexdigest() != stated.lower():
                return f"its {name} is {found.hexdigest()}, {stated.lower()} is expected"
        return None


def whole_size(response: requests.Response) -> int | None:
    """Return the size of the file of which a partial response (206) is a part, None where it is not stated."""
    found = _content_range(response)
    return int(found[3]) if found and found[3] != "*" else None


def whole_number(text: str) -> int | None:
    """Return what a header's digits say, None where they are none or more than any file needs."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def _content_range(response: requests.Response) -> re.Match[str] | None:
    return re.fullmatch(
        r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "")
    )


def _linked_sha256(response: requests.Response) -> str | None:
    """Return the SHA-256 that the Hugging Face hub states with the redirection to a large file."""
    for answer in (*response.history, response):
        if found := _SHA256.search(answer.headers.get("X-Linked-ETag", "")):
            return found[0]
    return None
