"""The files of a data set that a repository holds under an accession: MassIVE or GNPS, MetaboLights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Literal
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

from ...errors import InputError
from .download import Downloader, DownloadError

MOST_FOLDERS = 2000
MOST_FILES = 200_000
_MOST_BYTES = 1 << 60

_SIZE = re.compile(r"\s([0-9]{1,12}(?:\.[0-9]+)?)([KMGT]?)\s*$")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Repository:
    """Where a repository lists and keeps the files of a data set.

    Attributes
    ----------
    accession, example : str
        A regular expression that its accessions match; one of them.
    listing : str
        ``gnps-dataset-cache``: the table of files of the GNPS2 dataset cache (Datasette's JSON);
        ``web-folder``: the pages of a folder that a web server lists.
    listing_url, download_url : str
        May hold ``{accession}``; the latter holds ``{path}`` as well.
    license : str
        What is known of the terms.
    """

    accession: str
    example: str
    listing: Literal["gnps-dataset-cache", "web-folder"]
    listing_url: str
    download_url: str
    description: str
    license: str
    citation: str
    homepage: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.accession)
        except re.error as error:
            raise ValueError(f"accession '{self.accession}' is not a regular expression ({error})") from None
        if not re.fullmatch(self.accession, self.example):
            raise ValueError(f"example '{self.example}' does not match accession '{self.accession}'")
        try:
            self.listing_url.format(accession="")
            self.download_url.format(accession="", path="")
        except (KeyError, IndexError, ValueError):
            raise ValueError("listing_url and download_url must hold no braces but {accession} and {path}") from None
        if "{path}" not in self.download_url:
            raise ValueError(f"download_url '{self.download_url}' does not hold {{path}}")


@dataclass(frozen=True)
class ListedFile:
    """A file of a listing: its path in the data set, its URL, its size in bytes where it is stated."""

    path: str
    url: str
    size: int | None = None
    approximate_size: int | None = None


def list_files(repository: Repository, accession: str, downloader: Downloader) -> list[ListedFile]:
    """Return the files of ``accession``, by path.

    Raises
    ------
    InputError
        The repository lists no file under this accession.
    DownloadError
        The listing cannot be had or read.
    """
    listing = _cached_files if repository.listing == "gnps-dataset-cache" else _folder_files
    files: dict[str, ListedFile] = {}
    for number, file in enumerate(listing(repository, accession, downloader), start=1):
        files.setdefault(file.path, file)
        if number > MOST_FILES:
            raise DownloadError(f"{accession}: has more than {MOST_FILES:,} files; they are not all listed")
    if not files:
        raise InputError(f"{accession}: {repository.homepage} lists no file under this accession; check its number")
    return [files[path] for path in sorted(files)]


def _cached_files(repository: Repository, accession: str, downloader: Downloader) -> Iterator[ListedFile]:
    """Yield the rows of the dataset cache's table ``filename``, page by page.

    Its paths begin with the accession: ``MSV000084008/ccms_peak/run.mzML``.
    """
    query = {"dataset__exact": accession, "_sort": "filepath", "_size": "1000", "_shape": "objects"}
    base, page = repository.listing_url.format(accession=accession), ""
    while True:
        page_url = f"{base}?{urlencode({**query, **({'_next': page} if page else {})})}"
        try:
            answer = json.loads(downloader.text(page_url))
            rows, following = answer["rows"], answer.get("next")
            for row in rows:
                path, size = str(row["filepath"]).removeprefix(f"{accession}/"), row.get("size")
                path = path.encode("utf-8", "replace").decode()  # JSON can hold what is no text
                url = repository.download_url.format(accession=accession, path=quote(path))
                yield ListedFile(path, url, size if isinstance(size, int) and 0 < size < _MOST_BYTES else None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DownloadError(f"{page_url}: is not a listing of the dataset cache") from None
        if not following or following == page or not rows:
            return
        page = str(following)


def _folder_files(repository: Repository, accession: str, downloader: Downloader) -> Iterator[ListedFile]:
    """Yield the files that a web server's folder pages list, subfolders included."""
    root = repository.listing_url.format(accession=accession)
    waiting, seen = [root], {root}
    while waiting:
        folder = waiting.pop()
        for url, text in _links(folder, downloader.text(folder)):
            path = unquote(url.removeprefix(root))
            if url.endswith("/"):
                if url not in seen:
                    seen.add(url)
                    waiting.append(url)
                if len(seen) > MOST_FOLDERS:
                    raise DownloadError(f"{root}: has more than {MOST_FOLDERS:,} folders; they are not all listed")
            else:
                file_url = repository.download_url.format(accession=accession, path=quote(path))
                yield ListedFile(path, file_url, approximate_size=_stated_size(text))


def _links(folder: str, page: str) -> list[tuple[str, str]]:
    """Return the links of a page that lead below it, with the text up to the next link; no link leads elsewhere."""
    parser = _LinkParser()
    parser.feed(page)
    parser.close()
    links = []
    for href, text in parser.links:
        try:
            parts = urlsplit(urljoin(folder, href))
        except ValueError:
            continue
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        is_plain = "?" not in href and "#" not in href
        if is_plain and url.startswith(folder) and url != folder and ".." not in unquote(parts.path).split("/"):
            links.append((url, text))
    return links


def _stated_size(text: str) -> int | None:
    """Return the size in bytes that a folder page states behind a name, rounded as it is there: '1.2M'."""
    found = _SIZE.search(text.rstrip())
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


class _LinkParser(HTMLParser):
    """Collects the links of a page, each with the text behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.links.append((href, ""))
            self._is_inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self.links and not self._is_inside:
            href, text = self.links[-1]
            self.links[-1] = (href, text + " " + data if len(text) < 200 else text)
