"""Made-up libraries for the tests of prepare, and what a store's bytes are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ionbed.spectra.prepare import PrepareOptions

SMILES = ["CCO", "CCN", "CC(=O)O", "c1ccccc1O", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "C[C@H](N)C(=O)O"]
SMALL_SHARDS = PrepareOptions(rows_per_shard=25)


def ions(title: str, **parameters: str) -> str:
    fields = {"TITLE": title, "PEPMASS": "195.0877", "CHARGE": "1+", "MSLEVEL": "2", **parameters}
    peaks = fields.pop("peaks", f"110.071 200\n138.066 1000\n{150 + len(title)}.5 {len(title)}0")
    return "BEGIN IONS\n" + "".join(f"{key}={value}\n" for key, value in fields.items()) + f"{peaks}\nEND IONS\n\n"


def write_library(path: Path, first: int, count: int = 20) -> Path:
    """Write spectra that differ, with labels, and one of each fault."""
    records = [
        ions(
            f"spectrum {i}",
            SMILES=SMILES[i % len(SMILES)],
            PEPMASS=f"{100 + i}.5",
            IONMODE=["positive", "negative"][i % 2],
        )
        for i in range(first, first + count)
    ]
    records[3:3] = [
        ions("no precursor", PEPMASS="N/A"),
        ions("survey scan", MSLEVEL="1"),
        ions("broken", peaks="110.0 200\nnonsense here"),
        ions("nothing left", peaks="110.0 0"),
    ]
    path.write_text("".join(records), encoding="utf-8")
    return path


def content(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
