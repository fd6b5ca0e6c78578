"""The curation report: its numbers are those given and add up, whatever the names of files, and it stays small."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ionbed.spectra import curation_report
from ionbed.spectra.curation_report import NUM_FILES, REASONS, REPORT_FILE, STAGES, html_page, write_report


class Page(HTMLParser):
    """The rows of every table of a page, its text, and whether its elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and "table" in self.open and "tr" in self.open:
            self.tables[-1][-1][-1] += data

    def table(self, *header: str) -> list[list[str]]:
        """The rows below the header that starts so."""
        return next(rows[1:] for rows in self.tables if tuple(rows[0][: len(header)]) == header)


def file(name: str, *, kept: int = 90, mass_spread: float | None = None, **dropped: int) -> dict[str, Any]:
    reasons = {reason.replace("_", "-"): count for reason, count in dropped.items()}
    return {
        "file": name,
        "read": kept + sum(reasons.values()),
        "kept": kept,
        "dropped": reasons,
        "grade": "A",
        "grades": {"A": kept // 2, "B": kept - kept // 2} if kept else {},
        "is_run": name.endswith(".mzML"),
        "mass_spread": mass_spread,
    }


def curation(files: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    grades: Counter[str] = Counter()
    for one in files:
        dropped.update(one["dropped"])
        grades.update(one["grades"])
    counts = {"kept": grades.total(), "dropped": dict(dropped), "grades": dict(grades)}
    counts["read"] = sum(one["read"] for one in files)
    histograms = {
        "peaks": {"1": 30, "10": 110, "200": 40},
        "precursor_mz": {"150": 100, "300": 79, "2000": 1},
        "retention_time": {"-1": 80, "60": 100},
        "collision_energy": {"-1": 180},
        "polarity": {"-1": 60, "0": 20, "1": 100},
        "charge": {"-1": 60, "0": 20, "1": 99, "2": 1},
        "ms_level": {"1": 10, "2": 180},
    }
    return {"counts": counts, "files": files, "histograms": histograms} | more


def number(text: str) -> int:
    return int(text.replace(",", "").replace("−", "-"))


RUN = file("run.mzML", kept=1234, mass_spread=0.1, ms_level=400, no_precursor_mz=3, duplicate=20, near_duplicate=7)
LIBRARY = file("library.mgf", kept=80, bad_peak_line=2, truncated=1, too_few_peaks=5, grade=9, profile=4, license=2)


def test_the_numbers_are_those_given_and_add_up() -> None:
    given = curation([RUN, LIBRARY])
    page = Page(html_page(given))
    counts = given["counts"]
    assert f"{counts['read']:,} records read = {counts['kept']:,} kept + {453} dropped, from 2 files." in page.text

    stages = page.table("stage", "dropped", "left")
    assert [row[0] for row in stages] == ["Records", *(title for title, _ in STAGES.values()), "Kept"]
    left = number(stages[0][2])
    assert left == counts["read"]
    for _, dropped, after, _ in stages[1:-1]:
        left += number(dropped)
        assert left == number(after)
    assert left == number(stages[-1][2]) == counts["kept"]

    reasons = page.table("stage", "reason", "records")
    assert {row[1].split()[0]: number(row[2]) for row in reasons[:-1]} == counts["dropped"]
    assert number(reasons[-1][2]) == sum(number(row[2]) for row in reasons[:-1])

    grades = page.table("grade", "spectra")
    assert {row[0]: number(row[1]) for row in grades[:-1]} == counts["grades"]
    assert number(grades[-1][1]) == counts["kept"]

    files = page.table("file", "read", "kept", "dropped")
    assert [row[0] for row in files] == ["run.mzML", "library.mgf", "all"]
    for row in files:
        assert number(row[1]) == number(row[2]) + number(row[3])
    assert number(files[-1][1]) == counts["read"]

    faults = page.table("file", "read", "unusable")
    assert faults[0] == ["library.mgf", "103", "12", "too-few-peaks 5, profile 4, bad-peak-line 2, truncated 1"]
    assert faults[1][2:] == ["3", "no-precursor-mz 3"]


def test_numbers_that_do_not_add_up_are_refused() -> None:
    given = curation([RUN])
    given["counts"]["kept"] += 1
    with pytest.raises(ValueError, match="1664 records read are not 1235 kept and 430 dropped"):
        html_page(given)


def test_every_histogram_that_holds_something_is_drawn_and_said_in_words() -> None:
    page = html_page(curation([RUN, LIBRARY]))
    labels = re.findall(r"aria-label='([^']*)'", page)
    assert labels[0] == (
        "peaks per spectrum (spectra): 1: 30, 2: 0, 3–4: 0, 5–9: 0, 10–19: 110, 20–49: 0, 50–99: 0, 100–199: 0, "
        "200+: 40"
    )
    assert "polarity (spectra): negative: 60, positive: 100, not known: 20" in labels
    assert "charge (spectra): −1: 60, +1: 99, +2: 1, not known: 20" in labels
    assert "MS level (records): MS1: 10, MS2: 180" in labels
    assert "retention time (min), 100 spectra in bins of 1, most (100) from 1; 80 not known" in labels
    assert not any("collision energy" in label for label in labels)  # nothing is known of it
    assert any(label.startswith("mass spread (mDa) (files): &lt; 0.01: 0, ") for label in labels)
    assert page.count("<svg") == len(labels) == 7
    assert "180 spectra after cleaning" in page
    assert "last bar: 2000 and above" in page


def test_names_and_reasons_are_escaped() -> None:
    name = "a<b>&\"'<script>alert(1)</script>.mzML"
    given = curation([file(name, new_one=3)], near_duplicates={"<i>": "<u>"})
    given["counts"] |= {"repaired": {"<r>": 1}, "flagged": {"<f>": 2}}
    given["counts"]["dropped"] = {"<d>": 3}
    given["files"][0]["dropped"] = {"<d>": 3}
    page = html_page(given)
    assert not re.search(r"<(script|u|r|f|d|i)>", page)
    read = Page(page)
    assert read.table("file", "read")[0][0] == name
    assert "<d> 3" in read.text
    assert "<u>" in read.text


@pytest.mark.parametrize("dropped", [{}, {"truncated": 5}])
def test_nothing_kept_or_nothing_dropped(dropped: dict[str, int]) -> None:
    given = curation([file("x.mzML", kept=0, **dropped)])
    given["histograms"] = {}
    page = Page(html_page(given))
    assert f"{len(dropped) and 5} records read = 0 kept + {len(dropped) and 5} dropped, from 1 file." in page.text
    assert ("No record was dropped." in page.text) == (not dropped)


def test_no_file_at_all() -> None:
    page = Page(html_page(curation([]) | {"histograms": {}}))
    assert "0 records read = 0 kept + 0 dropped, from 0 files." in page.text


def test_the_elements_are_closed_in_order() -> None:
    given = curation([RUN, LIBRARY], near_duplicates={"largest_bucket": 17, "recall": 0.99})
    given["counts"] |= {"repaired": {"decimal-comma": 4}, "flagged": {"precursor-mass": 2}}
    page = Page(html_page(given))
    assert page.open == []
    assert page.table("kind", "spectra") == [["decimal-comma", "4"]]
    assert page.table("", "value") == [["largest bucket", "17"], ["recall", "0.99"]]


def test_a_hundred_thousand_files_make_a_small_page() -> None:
    files = [
        file(f"{'folder/' * 9}{number:06}.mzML", kept=number % 50, mass_spread=0.5, truncated=1)
        for number in range(100_000)
    ]
    text = html_page(curation(files))
    assert len(text) < 200_000
    page = Page(text)
    rows = page.table("file", "read", "kept", "dropped")
    assert len(rows) == NUM_FILES + 2
    assert rows[-2][0] == f"{100_000 - NUM_FILES:,} other files"
    assert sum(number(row[1]) for row in rows[:-1]) == number(rows[-1][1]) == sum(one["read"] for one in files)
    faults = page.table("file", "read", "unusable")
    assert sum(number(row[2]) for row in faults[:-1]) == number(faults[-1][2]) == 100_000


def test_the_file_needs_nothing_beside_itself_and_is_the_same_each_time(tmp_path: Path) -> None:
    given = curation([RUN, LIBRARY])
    write_report(tmp_path, given)
    first = (tmp_path / REPORT_FILE).read_bytes()
    write_report(tmp_path, given)
    assert (tmp_path / REPORT_FILE).read_bytes() == first
    text = first.decode("utf-8")
    assert not re.search(r"(?:src|href)=[\"']?(?!#)\w", re.sub(r"xlink:href=\"#", "", text))
    assert not re.search(r"url\((?!#)", text)
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_FILE]


def test_each_reason_belongs_to_a_stage() -> None:
    assert {stage for stage, _ in REASONS.values()} == set(STAGES)


@pytest.mark.parametrize(("spread", "shown"), [(None, ""), (0.0294, "0.029"), (9.94, "9.9"), (288.7, "289")])
def test_a_mass_spread_is_shown_as_a_plain_number(spread: float | None, shown: str) -> None:
    assert curation_report._spread({"mass_spread": spread}) == shown
