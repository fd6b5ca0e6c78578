"""Find out what a path holds: the files in it, whatever it is packed in, and the format of each by its first bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ...errors import InputError
from .blocks import RecordFormat
from .massbank import MASSBANK
from .mgf import MGF
from .msp import MSP
from .mzml import MZML
from .mzxml import MZXML

FORMATS: dict[str, RecordFormat] = {f.name: f for f in (MASSBANK, MZML, MZXML, MGF, MSP)}
"""By name, in the order in which their marks are looked for: the surest first."""

HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.ReadError)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SourceFile:
    """One file's bytes, unpacked, line ends made single line feeds, a byte order mark left out.

    Attributes
    ----------
    name : str
        As its user would recognise it, for example ``archive.tar.gz!folder/member.txt``.
    head : bytes
        The first `HEAD_BYTES` or fewer.
    """

    def __init__(self, name: str, stream: IO[bytes] | gzip.GzipFile) -> None:
        self.name = name
        self._is_damaged = False
        self._stream = stream
        raw = self._read_at_least(HEAD_BYTES)
        if raw.startswith(b"\x1f\x8b"):
            self._stream = gzip.GzipFile(fileobj=io.BufferedReader(_Rejoined(raw, stream)))
            raw = self._read_at_least(HEAD_BYTES)
        self._first = raw.removeprefix(_BYTE_ORDER_MARK)
        self.head = self._first.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    @property
    def format(self) -> RecordFormat | None:
        """The format that the first bytes show, None where they show none."""
        return next((f for f in FORMATS.values() if f.looks_like(self.head)), None)

    @property
    def named_format(self) -> RecordFormat | None:
        """The format that the name promises."""
        extension = self.name.lower().removesuffix(".gz").rpartition(".")[2]
        return next((f for f in FORMATS.values() if extension in f.extensions), None)

    def found_damaged(self) -> bool:
        """Return whether the file could not be read to its end; known once `chunks` is used up."""
        return self._is_damaged

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, once."""
        carried, chunk = b"", self._first
        while chunk:
            chunk = carried + chunk
            carried = b"\r" if chunk.endswith(b"\r") else b""
            chunk = chunk.removesuffix(carried)
            yield chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk
            chunk = self._read()
        if carried:
            yield b"\n"

    def _read(self) -> bytes:
        read = getattr(self._stream, "read1", self._stream.read)  # read1 hands over what comes before the damage
        try:
            return read(_CHUNK_BYTES)
        except _DAMAGE:
            self._is_damaged = True
            return b""

    def _read_at_least(self, num_bytes: int) -> bytes:
        parts, size = [], 0
        while size < num_bytes and (part := self._read()):
            parts.append(part)
            size += len(part)
        return b"".join(parts)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were taken off and are put back, for streams that cannot seek."""

    def __init__(self, first: bytes, rest: IO[bytes] | gzip.GzipFile) -> None:
        self._first = memoryview(first)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if not self._first:
            data: bytes | memoryview = self._rest.read(len(view))
        else:
            data, self._first = self._first[: len(view)], self._first[len(view) :]
        view[: len(data)] = data
        return len(data)


class _ShortReads:
    """What tarfile reads from: every read gives what there is before a damage shows."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read1(size)


def source_files(path: Path, name: str | None = None) -> Iterator[SourceFile]:
    """Yield the files that ``path`` holds: itself, a folder's files by name, or an archive's members in their order.

    ``name`` is what a file is called in the place of its own name.

    Each must be read before the next is asked for. An archive that is cut short ends with a file that is damaged
    and empty.

    Raises
    ------
    InputError
        ``path`` is missing or cannot be opened.
    """
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
            with _open(file) as stream:
                yield SourceFile(f"{path.resolve().name}/{file.relative_to(path).as_posix()}", stream)
        return
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; check the name")
    name = path.name if name is None else name
    kind = _archive_kind(path)
    with _open(path) as stream:
        if kind == "zip":
            yield from _zip_members(path, name, stream)
        elif kind == "tar":
            yield from _tar_members(name, stream)
        else:
            yield SourceFile(name, stream)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _archive_kind(path: Path) -> str | None:
    with _open(path) as stream:
        head = stream.read(4)
        stream.seek(0)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return "zip"
        unpacked = gzip.GzipFile(fileobj=stream) if head.startswith(b"\x1f\x8b") else stream
        try:
            block = unpacked.read(512)
        except _DAMAGE:
            return None
    return "tar" if block[257:262] == b"ustar" else None


def _zip_members(path: Path, name: str, stream: IO[bytes]) -> Iterator[SourceFile]:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile:
        raise InputError(f"{path}: is a damaged zip archive (its directory is missing); get it anew") from None
    with archive:
        for member in archive.infolist():
            if not member.is_dir():
                try:
                    opened = archive.open(member)
                except (zipfile.BadZipFile, RuntimeError, NotImplementedError):  # damaged, encrypted, unknown method
                    yield _damaged(f"{name}!{member.filename}")
                    continue
                with opened:
                    yield SourceFile(f"{name}!{member.filename}", opened)


def _tar_members(name: str, stream: IO[bytes]) -> Iterator[SourceFile]:
    is_gzip = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    tar_stream = _ShortReads(gzip.GzipFile(fileobj=stream)) if is_gzip else stream
    try:
        with tarfile.open(fileobj=tar_stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.isfile():
                    opened = archive.extractfile(member)
                    assert opened is not None
                    yield SourceFile(f"{name}!{member.name}", opened)
                archive.members.clear()  # an archive may have millions
    except _DAMAGE:
        yield _damaged(name)


def _damaged(name: str) -> SourceFile:
    source = SourceFile(name, io.BytesIO())
    source._is_damaged = True
    return source
