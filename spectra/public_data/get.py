"""Get a public data set, by name or accession, into a folder: whole, checked, and described by a manifest."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...artifacts import MANIFEST, exclusive, read_manifest, refuse_input_as_output
from ...errors import InputError
from ...progress import progress
from .accessions import ListedFile, Repository, list_files
from .download import Downloader, DownloadError, DownloadOptions, refuse_lack_of_space
from .error_pages import printable
from .folder import COMMAND, DataFolder, reason_of
from .registry import PublicFile, PublicSet, Registry, format_size, load_registry, same_name, total_size, unsafe

logger = logging.getLogger("ionbed")

_HUB = "https://huggingface.co/"
_MOST_SIZES_ASKED = 20
_SECONDS_TO_STOP = 2.0
"""For which an interrupted command waits for its threads; one that waits for a silent server ends with the process."""


def get_data(
    name: str,
    *,
    out: Path | None = None,
    mirror: Path | None = None,
    registry: str | os.PathLike[str] | None = None,
    include: Sequence[str] = (),
    yes: bool = False,
    confirm: Callable[[str], bool] | None = None,
) -> dict[str, Any]:
    """Download a set, or a repository's data set by its accession; return the manifest of the folder.

    A file that is there and has its checksum is not downloaded again; one that was begun is gone on with.

    Parameters
    ----------
    out : path, optional
        The folder; one of the set's name, here, where None.
    mirror : path, optional
        A folder that this command wrote elsewhere, or one that holds it: its files are copied and nothing is
        downloaded.
    registry : path, optional
        A YAML file of further sets.
    include : sequence of str
        Patterns as ``*.mzML``; a file whose path or name none of them matches is left out.
    yes : bool
        Do not ask before a download above `DownloadOptions.confirm_above`.
    confirm : callable, optional
        Asks the question it is given; without it, and without ``yes``, such a download is refused.

    Raises
    ------
    InputError
        There is no such set or file, the folder holds something else, or the download was not agreed to.
    DownloadError
        Some file cannot be had; those that can are in the folder.
    """
    known = load_registry(registry)
    out = Path(name) if out is None else out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, a folder is needed; choose another name")
    if mirror is not None:
        source = mirror / name if (mirror / name / MANIFEST).is_file() else mirror
        refuse_input_as_output(out, source)
        _repository_of(name, known)  # an unknown name is told before a missing folder
        return _copy_mirror(name, known, source, out, include)
    downloader = Downloader(known.download)
    data, failed = _resolve(name, known, include, downloader)
    num_files = len(data.files) + len(failed)
    with _locked(out):
        folder = DataFolder(name, out, data)
        missing = folder.missing()
        if missing:
            _refuse_offline(name)
            _agree(folder, missing, downloader, known.download, yes, confirm)
            out.mkdir(exist_ok=True)
            failed = {**failed, **download_files(folder, missing, downloader)}
        manifest = folder.finish(failed)
    _report(name, out, num_files, failed)
    return manifest


def _repository_of(name: str, known: Registry) -> Repository | None:
    """Return the repository whose accession ``name`` is, None where it is the name of a set."""
    if name in known.sets:
        return None
    for repository in known.repositories.values():
        if re.fullmatch(repository.accession, name):
            return repository
        if re.fullmatch(repository.accession, name.upper()):
            raise InputError(f"{name}: no public data set of that name; did you mean '{name.upper()}'?")
    wanted = name.casefold()
    like = [known_name for known_name in known.sets if name and known_name.casefold().startswith(wanted)]
    close = [wanted] if wanted in like else like or difflib.get_close_matches(wanted, known.sets, n=1)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "see 'ionbed data list'"
    raise InputError(f"{name}: no public data set of that name, and no accession; {hint}")


def _resolve(
    name: str, known: Registry, include: Sequence[str], downloader: Downloader
) -> tuple[PublicSet, dict[str, str]]:
    """Return the set with the files that are asked for, and why any of them cannot be had."""
    repository = _repository_of(name, known)
    if repository is None:
        data = known.sets[name]
        stated = [replace(file, url=_at_endpoint(file.url)) for file in data.files if _is_included(file.path, include)]
        if not stated:
            paths = ", ".join(file.path for file in data.files[:5])
            raise InputError(f"{name}: --include {' '.join(include)} leaves no file of {paths}")
        return replace(data, files=tuple(stated)), {}
    _refuse_offline(name)
    listed = list_files(repository, name, downloader)
    wanted = [file for file in listed if _is_included(file.path, include)]
    if not wanted:
        raise InputError(f"{name}: --include {' '.join(include)} leaves none of {len(listed):,} files")
    files, unusable = _usable(wanted)
    if not files:
        raise DownloadError(f"{name}: no file has a path that can be used ({next(iter(unusable.values()))})")
    about = (repository.description, repository.license, repository.citation, repository.homepage)
    return PublicSet(*about, format="as deposited", files=tuple(files)), unusable


def _usable(listed: Sequence[ListedFile]) -> tuple[list[PublicFile], dict[str, str]]:
    """Return the files whose paths can be written, and by path why the others cannot."""
    files: list[PublicFile] = []
    unusable: dict[str, str] = {}
    taken: dict[str, str] = {}
    for file in listed:
        if reason := unsafe(file.path):
            unusable[file.path] = f"its path {reason}"
        elif (first := taken.setdefault(same_name(file.path), file.path)) != file.path:
            unusable[file.path] = f"on many disks its path is that of {first}; take it into another folder by --include"
        else:
            files.append(PublicFile(file.path, file.url, file.size, file.approximate_size))
    return files, unusable


def _is_included(path: str, patterns: Sequence[str]) -> bool:
    names = (path, PurePosixPath(path).name)
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _at_endpoint(url: str) -> str:
    """Return the URL at the mirror of the Hugging Face hub that HF_ENDPOINT names, as its own tools do."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if not endpoint or not url.startswith(_HUB):
        return url
    if not endpoint.startswith(("https://", "http://")):
        raise InputError(f"HF_ENDPOINT is '{endpoint}'; it must begin with https://, or be unset")
    return f"{endpoint}/{url.removeprefix(_HUB)}"


def _refuse_offline(name: str) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(f"{name}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or pass --mirror DIR")


def _locked(out: Path) -> AbstractContextManager[None]:
    """Keep other processes from ``out``: beside it, or in it where an administrator gave only the folder itself."""
    place = out.resolve()
    parent = next(folder for folder in place.parents if folder.is_dir())
    if os.access(parent, os.W_OK):
        place.parent.mkdir(parents=True, exist_ok=True)
        return exclusive(place)
    if out.is_dir() and os.access(out, os.W_OK):
        return exclusive(place / "downloads")
    raise InputError(f"{out}: cannot be written, nor can {parent}; choose another folder with --out")


def _agree(
    folder: DataFolder,
    missing: Sequence[PublicFile],
    downloader: Downloader,
    options: DownloadOptions,
    yes: bool,
    confirm: Callable[[str], bool] | None,
) -> None:
    """Say how much is to be downloaded; above a limit, ask."""
    unknown = [file for file in missing if file.size is None and file.approximate_size is None]
    if len(unknown) <= _MOST_SIZES_ASKED:
        asked = _sizes(unknown, downloader)
        missing = [replace(file, approximate_size=asked.get(file.path, file.approximate_size)) for file in missing]
    sizes = [file.size if file.size is not None else file.approximate_size for file in missing]
    stated, num_unknown = sum(size for size in sizes if size is not None), sizes.count(None)
    is_exact = all(file.size is not None for file in missing if file.size or file.approximate_size)
    text = format_size(stated, is_exact=is_exact) if stated or not num_unknown else "of unknown size"
    if stated and num_unknown:
        text += f", and {num_unknown:,} files of unknown size"
    what = f"{len(missing):,} files" if len(missing) > 1 else missing[0].path
    name = folder.name
    logger.info("%s: %s, %s", name, what, text)
    refuse_lack_of_space(folder.out / missing[0].path, stated - folder.num_bytes_begun(missing))
    if stated <= options.confirm_above or yes:
        return
    if confirm is None:
        raise InputError(f"{name}: {what} to download, {text}; pass --yes to do it, or --include to take a part")
    if not confirm(f"{name}: download {text}?"):
        raise InputError(f"{name}: nothing was downloaded")


def _sizes(files: Sequence[PublicFile], downloader: Downloader) -> dict[str, int | None]:
    """Ask for the sizes of files, until a server does not answer: the downloads will say so."""
    sizes = {}
    for file in files:
        try:
            sizes[file.path] = downloader.size_of(file.url)
        except DownloadError as error:
            logger.debug("%s", error)
            break
    return sizes


def download_files(folder: DataFolder, files: Sequence[PublicFile], downloader: Downloader) -> dict[str, str]:
    """Download files in threads; return why some could not be."""
    failed: dict[str, str] = {}
    lock = threading.Lock()
    waiting: queue.SimpleQueue[PublicFile] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[PublicFile, Exception | None]] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)

    with progress(folder.name, total_size(files)[0], unit="bytes") as advance:

        def advance_alone(items: int, status: str = "") -> None:
            with lock:
                advance(items, status)

        def work() -> None:
            while not downloader.is_stopped and not waiting.empty():
                try:
                    file = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    folder.receive(file, downloader, advance_alone)
                except Exception as error:
                    done.put((file, error))
                else:
                    done.put((file, None))

        count = min(downloader.options.connections, len(files))
        threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for _ in files:
                file, error = done.get()
                if isinstance(error, (DownloadError, OSError)):
                    failed[file.path] = reason_of(error)
                    logger.warning("%s: %s", folder.out / file.path, failed[file.path])
                elif error is not None:
                    raise error
        except BaseException:
            downloader.stop()
            end = time.monotonic() + _SECONDS_TO_STOP
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            raise
    return failed


def _report(name: str, out: Path, num_files: int, failed: Mapping[str, str]) -> None:
    if failed:
        reasons = "; ".join(f"{path[-80:]}: {reason}" for path, reason in list(failed.items())[:3])
        more = f"; and {len(failed) - 3:,} more, see {out / MANIFEST}" if len(failed) > 3 else ""
        rest = f"the rest is in {out}; " if num_files > len(failed) else ""
        missing = f"{len(failed):,} of {num_files:,} files are missing ({reasons}{more})"
        raise DownloadError(f"{name}: {missing}; {rest}run the command again to go on")


def _copy_mirror(name: str, known: Registry, mirror: Path, out: Path, include: Sequence[str]) -> dict[str, Any]:
    """Copy the files of a folder that this command wrote; what they are is checked against its manifest."""
    data = _mirrored_set(name, known, mirror)
    files = tuple(file for file in data.files if _is_included(file.path, include))
    if not files:
        raise InputError(f"{mirror}: --include {' '.join(include)} leaves none of {len(data.files):,} files")
    failed: dict[str, str] = {}
    with _locked(out):
        folder = DataFolder(name, out, replace(data, files=files))
        missing = folder.missing()
        num_bytes = total_size(missing)[0] or 0
        logger.info(
            "%s: %s of %s files to copy, %s", name, f"{len(missing):,}", f"{len(files):,}", format_size(num_bytes)
        )
        if missing:
            refuse_lack_of_space(out / missing[0].path, num_bytes)
        with progress(name, num_bytes, unit="bytes") as advance:
            for file in missing:
                try:
                    folder.copy(file, mirror / file.path, advance)
                except (DownloadError, OSError) as error:
                    failed[file.path] = reason_of(error)
                    logger.warning("%s: %s", out / file.path, failed[file.path])
        manifest = folder.finish(failed)
    _report(name, out, len(files), failed)
    return manifest


def _mirrored_set(name: str, known: Registry, mirror: Path) -> PublicSet:
    """Return the set that the manifest of a mirror describes; raises `InputError` where it is another or damaged."""
    manifest = read_manifest(mirror, made_by=COMMAND)
    if manifest.get("name") != name:
        raise InputError(f"{mirror}: holds '{manifest.get('name')}', not '{name}'")
    keys = ("description", "license", "citation", "homepage", "format")
    try:
        files = [
            PublicFile(entry["path"], entry["url"], entry["bytes"], sha256=entry["sha256"])
            for entry in manifest["files"]
        ]
        data = PublicSet(**{key: str(manifest[key]) for key in keys}, files=tuple(files))
        lacking = [str(entry["path"]) for entry in manifest.get("failed", ())]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{mirror / MANIFEST}: is damaged or holds no file ({error}); make the mirror again") from None
    for path in lacking:
        logger.warning("%s: lacks %s", mirror, printable(path))
    pinned = {file.path: file.sha256 for file in known.sets[name].files} if name in known.sets else {}
    for file in files:
        if pinned.get(file.path) not in (None, file.sha256):
            raise InputError(f"{mirror / file.path}: is not the version that is registered; make the mirror again")
    return data
