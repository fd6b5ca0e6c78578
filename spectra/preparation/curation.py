"""What became of every file of the input: the counts of the manifest, the table of files, the data of the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...artifacts import atomic_file
from ..grades import FileStatistics, Grade, GradeOptions, grade_of_file, worse
from .parts import Parts, scratch_file
from .shuffle import GRADES_FILE

FILES_FILE = "files.tsv"
"""Lists every file of the input: what was read, kept and dropped, its grade, and how precise its m/z are."""


@dataclass
class Library:
    """What became of one file; of a folder where its files have one record each.

    Attributes
    ----------
    grade : str
        The best grade that its spectra can have.
    mass_spread : float or None
        In mDa, see `FileStatistics.mass_spread`.
    is_run : bool
        Whether it is a run of an instrument.
    dropped : Counter of str
        By reason, at every stage.
    grades : Counter of str
        Spectra that are kept, by their grade.
    """

    grade: Grade
    mass_spread: float | None
    is_run: bool
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    grades: Counter[str] = field(default_factory=Counter)


class Curation:
    """Counts that are filled stage by stage.

    Attributes
    ----------
    libraries : dict of str to Library
        In input order.
    histograms : dict
        See `ionbed.spectra.file_statistics.HISTOGRAMS`; of the spectra that were read well, duplicates included.
    """

    def __init__(self, parts: Parts, options: GradeOptions) -> None:
        self.libraries: dict[str, Library] = {}
        self.repaired: Counter[str] = Counter()
        self.flagged: Counter[str] = Counter()
        self.histograms: dict[str, Counter[str]] = {}
        for name, statistics in _merged(parts):
            self._add(name, statistics, options)
        path = parts.folder / GRADES_FILE
        grades = {name: library.grade for name, library in self.libraries.items()}
        with scratch_file(path) as partial_file:
            partial_file.write_text(json.dumps(grades), encoding="utf-8")

    def _add(self, name: str, statistics: FileStatistics, options: GradeOptions) -> None:
        grade = grade_of_file(statistics, options)
        library = self.libraries.get(name)
        if library is None:
            library = self.libraries[name] = Library(grade, statistics.mass_spread, statistics.is_run)
        library.grade = worse(library.grade, grade)  # two inputs may have one name
        library.read += statistics.read
        library.dropped.update(statistics.dropped)
        for histogram, counts in statistics.to_json()["histograms"].items():
            self.histograms.setdefault(histogram, Counter()).update(counts)

    def add_decisions(self, counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
        """Add what `ionbed.spectra.preparation.assemble.list_dropped` yields."""
        for name, seen in counts.items():
            self.libraries[name].dropped.update(seen["dropped"])
            self.libraries[name].grades.update(seen["grades"])

    def add_shard(self, written: Mapping[str, Any]) -> None:
        """Add what `ionbed.spectra.preparation.assemble.write_shards` yields."""
        self.repaired.update(written["repaired"])
        self.flagged.update(written["flagged"])

    def counts(self) -> dict[str, Any]:
        """Return the counts of the manifest, reasons from the most to the least frequent."""
        dropped, grades = Counter[str](), Counter[str]()
        for library in self.libraries.values():
            dropped.update(library.dropped)
            grades.update(library.grades)
        return {
            "read": sum(library.read for library in self.libraries.values()),
            "kept": grades.total(),
            "dropped": _by_count(dropped),
            "repaired": _by_count(self.repaired),
            "flagged": _by_count(self.flagged),
            "grades": dict(sorted(grades.items())),
        }

    def files(self) -> Iterator[dict[str, Any]]:
        """Yield for each file its name, counts, grade and precision."""
        for name, library in self.libraries.items():
            yield {
                "file": name,
                "read": library.read,
                "kept": library.grades.total(),
                "dropped": _by_count(library.dropped),
                "grade": library.grade,
                "grades": dict(sorted(library.grades.items())),
                "is_run": library.is_run,
                "mass_spread": library.mass_spread,
            }

    def write_files(self, path: Path) -> None:
        """Write the table of files."""
        with atomic_file(path) as partial_file, open(partial_file, "w", encoding="utf-8") as stream:
            stream.write("file\tread\tkept\tgrade\tkept_a\tkept_b\tkept_c\trun\tmass_spread_mda\tdropped\n")
            for file in self.files():
                spread = "" if file["mass_spread"] is None else f"{file['mass_spread']:.3g}"
                kept = [file["grades"].get(grade, 0) for grade in "ABC"]
                dropped = ", ".join(f"{reason}: {count}" for reason, count in file["dropped"].items())
                run = "yes" if file["is_run"] else "no"
                row = [file["file"], file["read"], file["kept"], file["grade"], *kept, run, spread, dropped]
                stream.write("\t".join(" ".join(str(value).split()) for value in row) + "\n")


def _merged(parts: Parts) -> Iterator[tuple[str, FileStatistics]]:
    """Yield the statistics of each file, merged over the parts that it goes through."""
    name, statistics = None, FileStatistics()
    for entry in _entries(parts):
        later = FileStatistics.from_json(entry["statistics"])
        if entry["name"] == name:
            statistics.merge(later)
            continue
        if name is not None:
            yield name, statistics
        name, statistics = entry["name"], later
    if name is not None:
        yield name, statistics


def _entries(parts: Parts) -> Iterable[dict[str, Any]]:
    for number in range(len(parts.num_rows)):
        yield from parts.summary(number)["libraries"]


def _by_count(counter: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
