"""Each code by which a record is counted as dropped, repaired or flagged is explained to who reads it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ionbed.spectra.curation_report import REASONS

PACKAGE = Path(__file__).parents[2]
DOCUMENTATION = PACKAGE / "docs" / "prepare.md"
MODULES = ("ion", "labels", "precursor", "harmonise", "cleaning", "prepare", "record")
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+|truncated|deprecated|centroided")
NO_CODES = {"utf-8", "latin-1", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"}


def sources() -> list[Path]:
    spectra = PACKAGE / "spectra"
    folders = [path for folder in ("readers", "preparation") for path in (spectra / folder).glob("*.py")]
    return [*(spectra / f"{name}.py" for name in MODULES), *folders]


def codes_in_use() -> set[str]:
    """Return every word of the sources that has the form of a code: a new one is found without being listed."""
    words = {
        node.value
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {word for word in words if CODE.fullmatch(word)} - NO_CODES


def documented(heading: str) -> set[str]:
    section = DOCUMENTATION.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


def test_every_code_is_in_the_documentation() -> None:
    codes = codes_in_use()
    assert {"bad-peak", "truncated", "adduct-from-mass", "precursor-mass", "near-duplicate"} <= codes
    assert not codes - documented("What is dropped") - documented("What is mended") - documented("What is flagged")


def test_every_reason_has_its_stage_and_meaning_in_the_report() -> None:
    assert documented("What is dropped") == set(REASONS)


def test_no_code_is_explained_that_nothing_uses() -> None:
    explained = documented("What is dropped") | documented("What is mended") | documented("What is flagged")
    single_words = {"duplicate", "grade", "license", "profile"}  # ordinary words elsewhere in the sources
    assert explained - single_words == codes_in_use()
