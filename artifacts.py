"""Files and folders that appear whole or not at all, and the manifest every written folder carries."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

logger = logging.getLogger("ionbed")

MANIFEST = "manifest.json"
_RESUME_KEY = ".resume-key"


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success sync it to disk and rename it into place.

    A process killed at any moment leaves either the old file or the new one. The temporary file of a failed or
    killed run is replaced by the next.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """Sync the file ``partial`` to disk and rename it to ``path``, in the same folder."""
    _sync(partial)
    os.replace(partial, path)
    _sync(path.parent)


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], *, overwrite: bool = False, resume_key: str | None = None
) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; on success sync it and move it into place.

    What a killed run left behind is cleared by the next. Two runs that write the same folder at once exclude
    each other by a file lock, which the kernel releases when its holder dies.

    Parameters
    ----------
    overwrite : bool
        Replace what is in ``path``.
    resume_key : str, optional
        Says what is being written, from what. The folder that is yielded then holds what an earlier run with the same
        key had written when it was stopped, and is kept when this one fails, for whatever reason, unless it is empty.

    Raises
    ------
    InputError
        ``path`` exists and is not empty (unless ``overwrite``), or another process is writing it now.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()  # what the link leads to is replaced, under its own lock, and not the link
    refuse_existing(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.partial")
    retired = path.with_name(f".{path.name}.retired")
    with exclusive(path):
        try:
            if retired.exists() and not path.exists():  # killed between the two renames below
                os.replace(retired, path)
            shutil.rmtree(retired, ignore_errors=True)
            if resume_key is None or _resume_key_in(partial) != resume_key:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                if resume_key is not None:
                    (partial / _RESUME_KEY).write_text(resume_key, encoding="utf-8")
            yield partial
            for file in sorted(partial.rglob("*")):
                _sync(file)
            (partial / _RESUME_KEY).unlink(missing_ok=True)
            _sync(partial)
            if path.exists():
                os.replace(path, retired)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            if resume_key is None or not _holds_work(partial):
                shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def _holds_work(partial: Path) -> bool:
    return partial.is_dir() and any(file.name != _RESUME_KEY for file in partial.iterdir())


def _resume_key_in(partial: Path) -> str | None:
    try:
        return (partial / _RESUME_KEY).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from writing the folder ``path`` meanwhile, by a locked file beside it.

    Raises
    ------
    InputError
        Another process is writing it now, or nothing can be written there.
    """
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_path.touch()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another place, or check its permissions"
        ) from None
    with open(lock_path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(lock.fileno(), lock_path):
                raise BlockingIOError  # its holder has just removed the file that we opened
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing this folder; wait for it or choose another") from None
        except OSError as error:
            _warn_of_no_locks(str(error))
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raise `InputError` if ``path`` is a file, or a folder with something in it, unless ``overwrite``."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, a folder is needed; choose another name")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path}: already exists and is not empty; choose another folder or pass --overwrite")


def refuse_input_as_output(out: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
    """Raise `InputError` if writing ``out`` would replace an input, a part of one, or a folder that holds one."""
    target = Path(out).resolve()
    for given in inputs:
        source = Path(given).resolve()
        if not source.exists():
            continue  # whoever reads it says so
        if target == source or (target.exists() and target.samefile(source)):
            raise InputError(f"{out}: is the input itself; name another place to write to")
        if source in target.parents:
            raise InputError(f"{out}: lies in the input {given}; name a place outside it to write to")
        if target in source.parents:
            raise InputError(f"{out}: holds the input {given}; name another place to write to")


def write_manifest(folder: str | os.PathLike[str], entries: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` in ``folder``: what made it (version first), from what, with which counts."""
    from . import __version__

    with atomic_file(Path(folder) / MANIFEST) as partial:
        text = json.dumps({"ionbed_version": __version__, **entries}, indent=2, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | os.PathLike[str], *, made_by: str) -> dict[str, Any]:
    """Return the manifest of ``folder``.

    Raises
    ------
    InputError
        There is no such folder, it has no readable manifest, or a command other than ``made_by`` wrote it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {found}; it should be a folder written by 'ionbed {made_by}'")
    try:
        manifest = read_object(folder / MANIFEST)
    except FileNotFoundError:
        raise InputError(f"{folder}: has no {MANIFEST}; it should be a folder written by 'ionbed {made_by}'") from None
    except ValueError as error:
        raise InputError(f"{folder / MANIFEST}: is damaged ({error}); run 'ionbed {made_by}' again") from None
    if (command := manifest.get("command")) != made_by:
        raise InputError(
            f"{folder}: was written by 'ionbed {command}', not by 'ionbed {made_by}'; name the right folder"
        )
    return manifest


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is not JSON in UTF-8, or is no object.
    """
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_object_or_empty(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in a file, an empty one where there is none that can be read."""
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def describe_input(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return path, SHA-256 and size of an input, for a manifest.

    The hash of a folder is over the relative name and the hash of each of its files.
    """
    path = Path(path)
    shown = str(path).encode("utf-8", "backslashreplace").decode()  # a file system may hold names that are not UTF-8
    if not path.is_dir():
        return {"path": shown, "sha256": sha256_of_file(path), "bytes": path.stat().st_size}
    digest, size = hashlib.sha256(), 0
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        digest.update(f"{name}\t{sha256_of_file(file)}\n".encode("utf-8", "surrogateescape"))
        size += file.stat().st_size
    return {"path": shown, "sha256": digest.hexdigest(), "bytes": size}


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache  # once for each reason
def _warn_of_no_locks(reason: str) -> None:
    logger.warning("no file can be locked here (%s); see that no two commands write one folder at once", reason)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
