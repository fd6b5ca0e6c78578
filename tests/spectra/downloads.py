"""What the tests of public data share: quick options, one download, and a registry of a made-up set."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ionbed.progress import unseen
from ionbed.spectra.public_data.download import Downloader, DownloadOptions
from ionbed.spectra.public_data.partial_file import Expected, Received

FAST = DownloadOptions(
    seconds_between_requests=0.0, timeout=5.0, attempts=4, first_pause=0.01, longest_pause=0.02, longest_wait=2.0
)


def fetch(url: str, target: Path, expected: Expected | None = None, options: DownloadOptions = FAST) -> Received:
    with unseen() as advance:
        return Downloader(options).file(url, target, expected or Expected(), advance=advance)


def partial_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def only(target: Path) -> bool:
    """Whether nothing but the file is left in its folder."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


TEXT = b"BEGIN IONS\nPEPMASS=100\n50 1\nEND IONS\n"
ABOUT = {"description": "d", "license": "CC0", "citation": "c", "homepage": "h"}
QUICK = {"attempts": 3, "first_pause": 0.01, "longest_pause": 0.02, "seconds_between_requests": 0.0}


def registry(tmp_path: Path, files: list[dict[str, object]], **more: object) -> Path:
    path = tmp_path / "my.yaml"
    own = {"sets": {"mine": {**ABOUT, "format": "MGF", "files": files}}, "download": QUICK, **more}
    path.write_text(yaml.safe_dump(own))
    return path


def manifest_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text())


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
