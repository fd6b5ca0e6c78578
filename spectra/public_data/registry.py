"""The registry of public data sets: what there is, where, under which licence; a YAML file that users can add to."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...artifacts import MANIFEST
from ...configs.loading import load_config
from .accessions import Repository
from .download import DownloadOptions
from .partial_file import Expected

if TYPE_CHECKING:
    from rich.table import Table

REGISTRY = "public-data"
_CHECKSUM = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class PublicFile:
    """One file of a set.

    Attributes
    ----------
    path : str
        Below the output folder, with ``/``.
    size, approximate_size : int, optional
        In bytes: as the publisher states it, or rounded by whoever reports it.
    sha256, md5 : str, optional
        As the publisher states them, hexadecimal.
    """

    path: str
    url: str
    size: int | None = None
    approximate_size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        if reason := unsafe(self.path):
            raise ValueError(f"path '{self.path}' {reason}")
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url '{self.url}' does not begin with https:// or http://")
        if "@" in self.url.split("/")[2]:
            raise ValueError(f"the url of {self.path} holds a password; keep it in ~/.netrc")
        for name, length in _CHECKSUM.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
                raise ValueError(f"{name} of {self.path} is '{value}'; it must be {length} hexadecimal digits")
        for name in ("size", "approximate_size"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name} of {self.path} is {getattr(self, name)}; it must not be negative")

    @property
    def expected(self) -> Expected:
        """What a download must turn out to be."""
        return Expected(self.size, self.sha256, self.md5)


@dataclass(frozen=True)
class PublicSet:
    """A data set: its files, and what its users have to know of it."""

    description: str
    license: str
    citation: str
    homepage: str
    format: str
    files: tuple[PublicFile, ...]

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("files is empty; name at least one")
        if len({same_name(file.path) for file in self.files}) < len(self.files):
            raise ValueError("two files have the same path, or paths that are the same on many disks")


@dataclass(frozen=True)
class Registry:
    """The sets that are known by name, and the repositories whose accessions are."""

    download: DownloadOptions = field(default_factory=DownloadOptions)
    sets: dict[str, PublicSet] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sets:
            if unsafe(name) or "/" in name:
                raise ValueError(f"the name '{name}' cannot be that of a folder")


def load_registry(own: str | os.PathLike[str] | None = None) -> Registry:
    """Return the shipped registry; with a file of the same form, what that adds or replaces as well."""
    shipped = load_config(Registry, REGISTRY)
    if own is None:
        return shipped
    added = load_config(Registry, own)
    return Registry(added.download, {**shipped.sets, **added.sets}, {**shipped.repositories, **added.repositories})


def list_data(registry: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """Return an entry for each set and each repository: name, size in bytes (None: unknown), licence and so on.

    That of a repository has an ``accession``, the regular expression that its accessions match, and an ``example``.
    """
    known = load_registry(registry)
    entries: list[dict[str, Any]] = []
    for name, data in known.sets.items():
        size, is_exact = total_size(data.files)
        about = {"bytes": size, "bytes_exact": is_exact, "files": len(data.files), "format": data.format}
        entries.append({"name": name, **about, **_provenance(data)})
    for name, repository in known.repositories.items():
        about = {"accession": repository.accession, "example": repository.example, "format": "as deposited"}
        entries.append({"name": name, **about, **_provenance(repository)})
    return entries


def _provenance(source: PublicSet | Repository) -> dict[str, str]:
    names = ("description", "license", "citation", "homepage")
    return {name: getattr(source, name) for name in names}


def format_list(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the entries of `list_data` as a table that holds whole names however narrow the terminal is."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("name", no_wrap=True), Column("size", no_wrap=True), "what, and its licence", box=box.SIMPLE_HEAD
    )
    for entry in entries:
        if "accession" in entry:
            name, size = f"such as {entry['example']}", "as listed"
        else:
            name, size = entry["name"], format_size(entry["bytes"], is_exact=entry["bytes_exact"])
        table.add_row(Text(name), size, Text(f"{entry['description']}\nlicence: {entry['license']}"))
    return table


def same_name(path: str) -> str:
    """Return a form in which paths are equal that name one file on disks that ignore case or the form of accents."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def unsafe(path: str) -> str | None:
    """Return why a path from a registry or a listing must not be written below a folder, None where it may."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or re.match(r"[A-Za-z]:", path):
        return "is not a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder"
    if any(part.startswith(".") for part in parts) or path == MANIFEST:
        return "is a name that is kept for other uses"
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in path):
        return "holds control characters"
    if any(len(part.encode()) > 220 for part in parts) or len(path.encode()) > 1000:
        return "is too long"
    return None


def format_size(num_bytes: int | None, *, is_exact: bool = True) -> str:
    """Return a size in decimal units, as '14.6 GB'; 'about' marks one that is rounded or in part unknown."""
    if num_bytes is None:
        return "unknown"
    size, unit = float(num_bytes), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    text = f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.95 else f"{size:.1f} {unit}"
    return text if is_exact else f"about {text}"


def total_size(files: Sequence[PublicFile]) -> tuple[int | None, bool]:
    """Return the size of the files, None where that of one is unknown, and whether it is exact."""
    sizes = [file.size if file.size is not None else file.approximate_size for file in files]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return total, all(file.size is not None for file in files)
