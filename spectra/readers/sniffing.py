"""Find out what a path holds: the files in it, however packed, and the format of each by its first bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO

from ...artifacts import MANIFEST, read_manifest
from ...errors import InputError
from .blocks import RecordFormat, TableFormat
from .gnps_json import GNPS_JSON
from .hdf5 import HDF5
from .massbank import MASSBANK
from .massspecgym import MASSSPECGYM
from .mgf import MGF
from .mona_json import MONA_JSON
from .msp import MSP
from .mzml import MZML
from .mzspeclib import MZSPECLIB
from .mzxml import MZXML
from .parquet import PARQUET
from .unpacking import COMPRESSED_SUFFIXES, Unpacked, is_hidden, unpack

FORMATS: dict[str, RecordFormat | TableFormat] = {
    f.name: f for f in (HDF5, PARQUET, MASSBANK, MZML, MZXML, MZSPECLIB, GNPS_JSON, MONA_JSON, MASSSPECGYM, MGF, MSP)
}
"""By name, in the order in which their marks are looked for: the surest first."""

_WEB_PAGE = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+)?html\b", re.IGNORECASE | re.DOTALL)
_CHUNK_BYTES = 1 << 18
_BYTE_ORDER_MARKS = {  # those of UTF-32 before those of UTF-16, which they begin with
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_DECLARED_ENCODING = re.compile(r"""(\A\s*<\?xml[^>]*encoding\s*=\s*["'])[A-Za-z0-9._-]+""")


class SourceFile:
    """One file's bytes, unpacked; as text in UTF-8, line ends made single line feeds, a byte order mark left out.

    Attributes
    ----------
    name : str
        As its user would recognise it, for example ``archive.tar.gz!folder/member.txt``.
    path : Path or None
        The file itself, where it is not packed in anything.
    problem : str or None
        Why there is nothing to read: 'truncated' or 'archive-too-deep'.
    head : bytes
        The first 64 kB or fewer.
    """

    def __init__(self, unpacked: Unpacked, path: Path | None = None) -> None:
        self.name = unpacked.name
        self.path = None if unpacked.is_packed else path
        self.problem = unpacked.problem
        self._stream = unpacked.stream
        first = self._stream.head
        mark = next((mark for mark in _BYTE_ORDER_MARKS if first.startswith(mark)), b"")
        encoding = _BYTE_ORDER_MARKS.get(mark, "utf-8")
        self._mark = mark
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("replace")
        self.head = _single_line_feeds(_transcoded(first[len(mark) :], encoding))

    @cached_property
    def format(self) -> RecordFormat | TableFormat | None:
        """The format that the first bytes show, None where they show none; a web page shows what it speaks of."""
        if _WEB_PAGE.match(self.head):
            return None
        for known in FORMATS.values():
            if known.looks_like(self._stream.head if isinstance(known, TableFormat) else self.head):
                return known
        return None

    @property
    def named_format(self) -> RecordFormat | TableFormat | None:
        """The format that the name promises."""
        name = self.name.lower()
        for suffix in COMPRESSED_SUFFIXES:
            name = name.removesuffix(suffix)
        extension = name.rpartition(".")[2]
        return next((known for known in FORMATS.values() if extension in known.extensions), None)

    def found_damaged(self) -> bool:
        """Return whether the file could not be read to its end; known once `chunks` is used up."""
        return self._stream.is_damaged

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes from the start, once."""
        carried = b""
        for decoded in self._decoded():
            chunk = carried + decoded
            carried = b"\r" if chunk.endswith(b"\r") else b""
            yield _single_line_feeds(chunk.removesuffix(carried))
        if carried:
            yield b"\n"

    def _decoded(self) -> Iterator[bytes]:
        chunk = self._stream.read1(max(len(self._stream.head), 1)).removeprefix(self._mark)
        if self._decoder is None:
            while chunk:
                yield chunk
                chunk = self._stream.read1(_CHUNK_BYTES)
            return
        yield _DECLARED_ENCODING.sub(r"\1UTF-8", self._decoder.decode(chunk)).encode("utf-8", "replace")
        while chunk := self._stream.read1(_CHUNK_BYTES):
            yield self._decoder.decode(chunk).encode("utf-8", "replace")
        yield self._decoder.decode(b"", final=True).encode("utf-8", "replace")


def _transcoded(data: bytes, encoding: str) -> bytes:
    return data if encoding == "utf-8" else data.decode(encoding, "replace").encode("utf-8", "replace")


def _single_line_feeds(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def source_files(path: Path, name: str | None = None) -> Iterator[SourceFile]:
    """Yield the files that ``path`` holds: itself, a folder's files by name, or an archive's members in their order.

    Archives are looked into wherever they lie, also inside one another. Each file must be read before the next is asked
    for. An archive that is cut short ends with a file that has a problem.

    Parameters
    ----------
    path : Path
    name : str, optional
        What to call a single file; by default its name.

    Raises
    ------
    InputError
        ``path`` is missing or cannot be opened, is a damaged zip archive, or is a damaged store.
    """
    for file_name, file in files_of(path, name):
        yield from _unpacked_sources(file_name, file)


def files_of(path: Path, name: str | None = None) -> list[tuple[str, Path]]:
    """Return the files that ``path`` holds, each with the name by which its user would recognise it.

    Of a folder all files at any depth, by name, but for hidden ones; of a store that ``ionbed prepare`` wrote only its
    shards. Archives are not looked into.

    Raises
    ------
    InputError
        ``path`` is missing, or is a damaged store.
    """
    if not path.is_dir():
        if not path.is_file():
            if path.exists():
                raise InputError(f"{path}: is a pipe or a device; write what it gives to a file, and name that")
            raise InputError(f"{path}: no such file or folder; check the name")
        return [(name or path.name, path)]
    folder_name = path.resolve().name
    if _shard_names(path) is not None:
        from ..store import Store

        return [(f"{folder_name}/{shard.name}", shard) for shard in Store(path).shards]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not is_hidden(p.relative_to(path).as_posix()))
    stores = {p.parent: shards for p in files if p.name == MANIFEST and (shards := _shard_names(p.parent)) is not None}
    return [
        (f"{folder_name}/{file.relative_to(path).as_posix()}", file)
        for file in files
        if file.parent not in stores or file.name in stores[file.parent]
    ]


def _shard_names(folder: Path) -> set[str] | None:
    """Return the names of a store's shards, None where ``folder`` is no store."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(folder, made_by="prepare")
    except InputError:
        return None
    entries = manifest.get("shards")
    return {str(e.get("file")) for e in entries if isinstance(e, dict)} if isinstance(entries, list) else set()


def _unpacked_sources(name: str, path: Path) -> Iterator[SourceFile]:
    with _open(path) as stream:
        try:
            for unpacked in unpack(name, stream):
                yield SourceFile(unpacked, path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
