"""The commits of an index of spectra: what its manifest names is the index, anything else a killed writer left behind.

Segments and lists of deleted rows are written once, under new names, and synced to disk; then the manifest is replaced
by a rename, which is the commit. Readers hold what they opened. One writer at a time holds the lock of the folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...artifacts import (
    MANIFEST,
    atomic_file,
    atomic_folder,
    exclusive,
    sha256_of_file,
    sha256_of_json,
    write_manifest,
)
from ...errors import InputError
from .. import index_folder
from .damage import MEND, changed
from .library import Library
from .numbers import map_npy, write_npy
from .segment import Segment

logger = logging.getLogger("ionbed")

FORMAT = 2
"""Of the folder; raised whenever an earlier version of ionbed could not read it."""

SEGMENTS, DELETED = "segments", "deleted"


@dataclass(frozen=True)
class Writer:
    """An index folder that this process alone may write, and its manifest as it is on disk.

    Attributes
    ----------
    folder : Path
    manifest : dict
        To be changed and given to `commit`.
    """

    folder: Path
    manifest: dict[str, Any]

    @contextmanager
    def new_segment(self) -> Iterator[Path]:
        """Yield an empty folder that becomes the next segment; then call `name_segment`."""
        with atomic_folder(self._next_segment) as partial:
            yield partial

    def name_segment(self, entry: Mapping[str, Any]) -> None:
        """Name the segment that was written in the manifest."""
        folder = self._next_segment
        self.manifest["segments"] = [
            *self.manifest["segments"],
            {"folder": folder.relative_to(self.folder).as_posix(), **entry},
        ]
        self.manifest["files"] |= index_folder.described(self.folder, sorted(folder.iterdir()))

    def delete(self, rows: np.ndarray) -> None:
        """Write a list of deleted rows and name it in the manifest."""
        number = 1 + max((int(Path(entry["file"]).stem) for entry in self.manifest["deleted"]), default=0)
        path = self.folder / DELETED / f"{number}.npy"
        with atomic_file(path) as partial:
            write_npy(partial, [rows], rows.shape, np.int64)
        entry = {"file": path.relative_to(self.folder).as_posix(), "rows": len(rows)}
        self.manifest["deleted"] = [*self.manifest["deleted"], entry]
        self.manifest["files"] |= index_folder.described(self.folder, [path])

    def drop_segments(self) -> None:
        """Name no segment and no deleted row any more; what was named is removed by `commit`."""
        gone = [entry["folder"] + "/" for entry in self.manifest["segments"]]
        gone += [entry["file"] for entry in self.manifest["deleted"]]
        self.manifest["last_segment"] = self._last_segment
        self.manifest["segments"], self.manifest["deleted"] = [], []
        self.manifest["files"] = {
            name: entry for name, entry in self.manifest["files"].items() if not name.startswith(tuple(gone))
        }

    def commit(self) -> None:
        """Replace the manifest: the index is now what it names. Then remove what it does not name."""
        write_index_manifest(self.folder, self.manifest)
        remove_rubbish(self.folder, self.manifest)

    @property
    def _last_segment(self) -> int:
        named = [int(Path(entry["folder"]).name) for entry in self.manifest["segments"]]
        return max([*named, self.manifest.get("last_segment", 0)])

    @property
    def _next_segment(self) -> Path:
        return self.folder / SEGMENTS / str(self._last_segment + 1)


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """Yield a `Writer` of the index in ``folder``; what killed writers left there is removed first.

    Raises
    ------
    InputError
        Another process is writing it, or it is no index of spectra, or is damaged, or may not be written.
    """
    folder = folder.resolve()  # the same lock, by whatever name it is called
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it should be a folder written by 'ionbed index build'")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: may be read and not written; check its permissions, or change a copy of it")
    with exclusive(folder):
        manifest = read_index_manifest(folder)
        remove_rubbish(folder, manifest)
        yield Writer(folder, manifest)


def new_manifest(model_hash: str, dim: int, open_search: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of an index without a row.

    Parameters
    ----------
    model_hash : str
    dim : int
        Of the embeddings.
    open_search : mapping
        The kind of index that is wanted, and the recall: `with_approximate` takes them.
    """
    return {
        "command": index_folder.COMMAND,
        "format": FORMAT,
        "model_hash": model_hash,
        "embedding_dim": dim,
        "open_search": dict(open_search),
        "inputs": [],
        "counts": {},
        "segments": [],
        "deleted": [],
        "files": {},
    }


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an index of spectra.

    Raises
    ------
    InputError
        The folder is no index, or its manifest is damaged or of an earlier version.
    """
    manifest = index_folder.read_index_manifest(folder)
    index_folder.refuse_other_kind(folder, manifest, "spectra")
    if "milvus" in manifest:
        raise InputError(
            f"{folder}: has its vectors in Milvus, where this cannot be done; it takes an index on this machine"
        )
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder}: was written by another version of ionbed; build it again with 'ionbed {index_folder.COMMAND}'"
        )
    if manifest.get("checksum") != _checksum(manifest):
        raise InputError(f"{folder / MANIFEST}: is damaged (its checksum differs); {MEND}")
    return manifest


def write_index_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of an index of spectra, with its checksum."""
    entries = json.loads(json.dumps({**manifest, "ionbed_version": __version__}, allow_nan=False))
    entries["checksum"] = _checksum(entries)
    write_manifest(folder, {name: value for name, value in entries.items() if name != "ionbed_version"})


def open_library(folder: Path, manifest: Mapping[str, Any]) -> Library:
    """Map the segments that a manifest names into memory.

    Raises
    ------
    InputError
        A file is damaged.
    """
    segments = [Segment(folder / entry["folder"], entry) for entry in manifest["segments"]]
    deleted = [map_npy(folder / entry["file"], (entry["rows"],), np.int64) for entry in manifest["deleted"]]
    rows = np.concatenate([np.empty(0, np.int64), *deleted])
    num_rows = sum(map(len, segments))
    for entry in manifest["deleted"]:
        if sha256_of_file(folder / entry["file"]) != manifest["files"][entry["file"]]["sha256"]:
            raise changed(folder / entry["file"])
    kept = manifest["counts"]["kept"] - manifest["counts"].get("deleted", 0)
    if kept != num_rows - len(rows):
        raise InputError(f"{folder}: its segments and its manifest differ in number; {MEND}")
    return Library(segments, rows)


def remove_rubbish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Remove what lies among segments and lists of deleted rows without being named."""
    named = {entry["folder"] for entry in manifest["segments"]} | {entry["file"] for entry in manifest["deleted"]}
    for place in (folder / SEGMENTS, folder / DELETED):
        for path in place.iterdir() if place.is_dir() else ():
            if path.relative_to(folder).as_posix() not in named:
                try:
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                except OSError as error:
                    # Of a network file system, whose files a reader may have open. What was committed is committed.
                    logger.warning("%s: cannot be removed yet (%s); the next writer will try again", path, error)
    (folder / f".{MANIFEST}.partial").unlink(missing_ok=True)


def _checksum(manifest: Mapping[str, Any]) -> str:
    return sha256_of_json({name: value for name, value in manifest.items() if name != "checksum"})
