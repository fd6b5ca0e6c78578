"""Unpack what spectra come in: compressed streams, and archives with their members, one inside another."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Self, cast

from ...errors import InputError

HEAD_BYTES = 1 << 16
"""What is looked at to tell the format."""
MAX_NESTING = 3
"""How many archives, or compressed streams, may lie one inside another: a file can be made that holds itself."""

_SPOOL_BYTES = 32 << 20
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


class ByteStream(io.RawIOBase):
    """A stream of bytes that ends where it cannot be read further, whose first bytes can be looked at.

    Attributes
    ----------
    head : bytes
        The first `HEAD_BYTES` or fewer.
    """

    def __init__(self, stream: Any, inner: ByteStream | None = None) -> None:
        self._read_some: Callable[[int], bytes] = getattr(stream, "read1", stream.read)  # all there is before a damage
        self._inner = inner
        self._found_damage = False
        parts, size = [], 0
        while size < HEAD_BYTES and (part := self._next(HEAD_BYTES)):
            parts.append(part)
            size += len(part)
        self.head = b"".join(parts)
        self._first = memoryview(self.head)

    @property
    def is_damaged(self) -> bool:
        """Whether the stream could not be read to its end; known once it was read."""
        return self._found_damage or (self._inner is not None and self._inner.is_damaged)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is, up to the length of ``buffer``."""
        view = memoryview(buffer).cast("B")
        data = self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def read1(self, size: int) -> bytes:
        """Return some bytes, at most ``size``; none at the end."""
        if self._first:
            data, self._first = bytes(self._first[:size]), self._first[size:]
            return data
        return self._next(size)

    def _next(self, size: int) -> bytes:
        try:
            return self._read_some(size)
        except _DAMAGE:
            self._found_damage = True
        except OSError as error:
            if error.errno is not None:  # the disk or the network, not the contents
                raise InputError(f"cannot be read to its end ({error.strerror}); check the disk") from None
            self._found_damage = True
        return b""


@dataclass(frozen=True)
class Unpacked:
    """One file that is no archive.

    Attributes
    ----------
    name : str
        As its user would recognise it, for example ``archive.zip!inner.tar.gz!folder/member.txt``.
    stream : ByteStream
        Its bytes, decompressed. To be read before the next file is asked for.
    is_packed : bool
        Whether the bytes are no file of their own on disk.
    problem : str or None
        Why there are no bytes: 'truncated' or 'archive-too-deep'.
    """

    name: str
    stream: ByteStream
    is_packed: bool = True
    problem: str | None = None


def unpack(name: str, stream: IO[bytes], *, depth: int = 0) -> Iterator[Unpacked]:
    """Yield the files in ``stream``: itself, or the members of the archive that it is, whatever packed in.

    Names of members stand behind an exclamation mark. What is damaged costs itself only: an archive that is cut short
    gives its whole members and then a file with a problem. Hidden members are left out.

    Raises
    ------
    InputError
        The disk cannot be read, or there is no room for a temporary file (a zip archive inside another archive).
    """
    opened, is_compressed = _decompressed(stream)
    is_zip = opened.head.startswith((b"PK\x03\x04", b"PK\x05\x06"))
    is_tar = opened.head[257:262] == b"ustar"
    if not is_zip and not is_tar:
        yield Unpacked(name, opened, is_packed=is_compressed or depth > 0)
    elif depth == MAX_NESTING:
        yield _without_bytes(name, "archive-too-deep")
    elif is_tar:
        yield from _tar_members(name, opened, depth)
    elif is_compressed or depth > 0:
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            _copy(opened, spool)
            yield from _zip_members(name, cast("IO[bytes]", spool), depth)
    else:
        stream.seek(0)
        yield from _zip_members(name, stream, depth)


def _decompressed(stream: IO[bytes]) -> tuple[ByteStream, bool]:
    opened, is_compressed = ByteStream(stream), False
    for _ in range(MAX_NESTING):
        opener = next((opener for mark, opener in _OPENERS.items() if opened.head.startswith(mark)), None)
        if opener is None:
            break
        opened, is_compressed = ByteStream(opener(io.BufferedReader(opened)), opened), True
    return opened, is_compressed


def _open_zstandard(stream: io.BufferedReader) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")


_OPENERS: dict[bytes, Callable[[io.BufferedReader], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _open_zstandard,
}
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


class _CheckedMember(tarfile.TarInfo):
    """Takes note of a header that cannot be read, which tarfile takes for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ != "EOFHeaderError":  # the mark of the end
                archive.found_damage = True  # type: ignore[attr-defined]
            raise


def _tar_members(name: str, stream: ByteStream, depth: int) -> Iterator[Unpacked]:
    is_damaged = False
    try:
        with tarfile.open(fileobj=_ShortReads(stream), mode="r|", tarinfo=_CheckedMember) as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.isfile() and not is_hidden(member.name):
                    opened = archive.extractfile(member)
                    assert opened is not None
                    inner = member.name.encode("utf-8", "backslashreplace").decode()  # it may be in any encoding
                    yield from unpack(f"{name}!{inner}", opened, depth=depth + 1)
                archive.members.clear()  # an archive may have millions
            is_damaged = getattr(archive, "found_damage", False)
    except _DAMAGE:
        is_damaged = True
    if is_damaged or stream.is_damaged:
        yield _without_bytes(name, "truncated")


class _ShortReads:
    """What tarfile reads from: every read gives what there is before a damage shows."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        return self._stream.read1(size)


def _zip_members(name: str, stream: IO[bytes], depth: int) -> Iterator[Unpacked]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, ValueError, OSError):
        yield _without_bytes(name, "truncated")  # its directory, which stands at its end, is missing
        return
    with archive:
        for member in archive.infolist():
            if member.is_dir() or is_hidden(member.filename):
                continue
            inner = f"{name}!{member.filename}"
            try:
                opened = archive.open(member)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError):  # damaged, encrypted, unknown method
                yield _without_bytes(inner, "truncated")
                continue
            with opened:
                yield from unpack(inner, opened, depth=depth + 1)


def _copy(source: ByteStream, target: Any) -> None:
    try:
        while data := source.read1(1 << 20):
            target.write(data)
        target.seek(0)
    except OSError as error:
        folder = tempfile.gettempdir()
        raise InputError(
            f"an archive cannot be unpacked into {folder} ({error.strerror}); set TMPDIR to a folder with more room"
        ) from None


def is_hidden(name: str) -> bool:
    """Return whether a path with slashes has a part that begins with a point, or is what macOS adds to archives."""
    return any((part.startswith(".") and part.strip(".")) or part == "__MACOSX" for part in name.split("/"))


def _without_bytes(name: str, problem: str) -> Unpacked:
    return Unpacked(name, ByteStream(io.BytesIO()), problem=problem)
