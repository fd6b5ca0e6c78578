"""The folder that a public data set is written to: which files it holds, by manifest, journal and checksum."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from ...artifacts import MANIFEST, move_into_place, read_manifest, sha256_of_file, write_manifest
from ...errors import InputError
from ...progress import Advance
from .download import Downloader, DownloadError
from .partial_file import Received, partial_path
from .registry import PublicFile, PublicSet

logger = logging.getLogger("ionbed")

COMMAND = "data get"
_JOURNAL = ".downloads.jsonl"
_COPY_BYTES = 1 << 20
_ENTRY = ("path", "url", "bytes", "sha256", "etag", "last_modified", "downloaded")


class DataFolder:
    """What is in the folder, by its manifest and by the journal of a run that was stopped."""

    def __init__(self, name: str, out: Path, data: PublicSet) -> None:
        self.name, self.out, self.data = name, out, data
        self._lock = Lock()
        self.entries: dict[str, dict[str, Any]] = {}
        if (out / MANIFEST).exists():
            manifest = read_manifest(out, made_by=COMMAND)
            if manifest.get("name") != name:
                raise InputError(f"{out}: holds '{manifest.get('name')}'; choose another folder with --out")
            try:  # of a file that could not be had again, the checksum that it came with before still holds
                known = [*manifest["files"], *(entry for entry in manifest.get("failed", ()) if "sha256" in entry)]
                self.entries = {entry["path"]: {key: entry[key] for key in _ENTRY} for entry in known}
            except (KeyError, TypeError):
                raise InputError(f"{out / MANIFEST}: is damaged; choose another folder with --out") from None
        if (out / _JOURNAL).exists():
            for line in (out / _JOURNAL).read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the run was killed while it wrote this line
                self.entries[entry["path"]] = entry

    def missing(self) -> list[PublicFile]:
        """Return the files that are not there, or not as they were received; raises `InputError` on foreign ones."""
        missing = []
        if self.entries:
            logger.info("%s: checking what is there", self.out)
        for file in self.data.files:
            target, entry = self.out / file.path, self.entries.get(file.path)
            if not target.exists():
                missing.append(file)
                continue
            found = sha256_of_file(target)
            stated = file.sha256 or (entry["sha256"] if entry else None)
            if stated is None:
                raise InputError(
                    f"{target}: is there but was not downloaded by ionbed; move it, or choose another --out"
                )
            if found != stated:
                logger.warning("%s: is not as it was received; it is downloaded again", target)
                missing.append(file)
            elif entry is None:
                self.entries[file.path] = _entry(file, Received(target.stat().st_size, found))
        return missing

    def num_bytes_begun(self, files: Sequence[PublicFile]) -> int:
        """Return the size of what an earlier run has received of files that are missing."""
        partials = (partial_path(self.out / file.path) for file in files)
        return sum(partial.stat().st_size for partial in partials if partial.is_file())

    def receive(self, file: PublicFile, downloader: Downloader, advance: Advance) -> None:
        """Download one file; a file that came before must come with the same checksum."""
        earlier = self.entries.get(file.path)
        expected = file.expected
        if earlier is not None and expected.sha256 is None:
            expected = replace(expected, sha256=earlier["sha256"])
        try:
            downloader.file(
                file.url, self.out / file.path, expected, advance=advance, verified=lambda got: self._note(file, got)
            )
        except DownloadError as error:
            if earlier is not None and file.sha256 is None and "SHA-256" in str(error):
                raise DownloadError(
                    f"{error}; it was another on {earlier['downloaded'][:10]}: download the set to another folder"
                ) from None
            raise

    def copy(self, file: PublicFile, source: Path, advance: Advance) -> None:
        """Copy one file of a mirror; raises `DownloadError` where it is not what the mirror's manifest says."""
        if not source.is_file():
            raise DownloadError(f"{source}: is missing in the mirror")
        target = self.out / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, digest, size = partial_path(target), hashlib.sha256(), 0
        with open(source, "rb") as original, open(partial, "wb") as handle:
            while chunk := original.read(_COPY_BYTES):
                handle.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                advance(len(chunk), target.name)
        if digest.hexdigest() != file.sha256:
            partial.unlink()
            raise DownloadError(f"{source}: its SHA-256 is {digest.hexdigest()}, {file.sha256} is expected")
        self._note(file, Received(size, digest.hexdigest()))
        move_into_place(partial, target)

    def finish(self, failed: Mapping[str, str]) -> dict[str, Any]:
        """Write the manifest; the journal has served. Raises `DownloadError` where the disk is full."""
        present = {path: entry for path, entry in sorted(self.entries.items()) if (self.out / path).is_file()}
        manifest = {
            "command": COMMAND,
            "name": self.name,
            "description": self.data.description,
            "license": self.data.license,
            "citation": self.data.citation,
            "homepage": self.data.homepage,
            "format": self.data.format,
            "files": [entry for path, entry in present.items() if path not in failed],
            "failed": [
                {**self.entries.get(path, {"path": path}), "reason": why} for path, why in sorted(failed.items())
            ],
        }
        try:
            self.out.mkdir(exist_ok=True)
            write_manifest(self.out, manifest)
        except OSError as error:
            why = f"cannot be written ({reason_of(error)})"
            raise DownloadError(f"{self.out / MANIFEST}: {why}; see to the disk and run the command again") from None
        (self.out / _JOURNAL).unlink(missing_ok=True)
        return manifest

    def _note(self, file: PublicFile, received: Received) -> None:
        entry = _entry(file, received)
        with self._lock:
            self.entries[file.path] = entry
            with open(self.out / _JOURNAL, "a", encoding="utf-8") as journal:
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
                os.fsync(journal.fileno())


def reason_of(error: Exception) -> str:
    """Return what failed, without the number of an error of the system."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error)


def _entry(file: PublicFile, received: Received) -> dict[str, Any]:
    return {
        "path": file.path,
        "url": file.url,
        "bytes": received.bytes,
        "sha256": received.sha256,
        "etag": received.etag,
        "last_modified": received.last_modified,
        "downloaded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
