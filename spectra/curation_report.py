"""The page that says what `ionbed prepare` read, kept and dropped, where and why."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from ..artifacts import atomic_file
from ..progress import counted
from .curation_figures import Plot, histogram_plots, mass_spread_plot

REPORT_FILE: Final = "report.html"
NUM_FILES: Final = 30
"""Files that each table of files names; the others are added up."""

STAGES: Final = {
    "read": ("Reading", "#7f3b08"),
    "harmonise": ("Harmonising", "#b35806"),
    "clean": ("Cleaning", "#e08214"),
    "grade": ("Grade", "#c2a5cf"),
    "duplicate": ("Exact duplicates", "#777777"),
    "near-duplicate": ("Near duplicates", "#bbbbbb"),
}
"""Name and colour of each stage at which records are dropped, in order."""

REASONS: Final = {
    "archive-too-deep": ("read", "an archive inside too many others"),
    "bad-binary-array": ("read", "a binary array of peaks cannot be decoded"),
    "bad-peak-line": ("read", "a line of the peak list cannot be read"),
    "deprecated": ("read", "withdrawn by its authors"),
    "malformed-json": ("read", "the JSON of the record is broken"),
    "malformed-row": ("read", "the row of the table has another number of cells than the table columns"),
    "malformed-xml": ("read", "the XML of the scan is broken"),
    "no-peaks": ("read", "the peak list is empty"),
    "packed-table": ("read", "a table or HDF5 file inside an archive, which must be unpacked first"),
    "truncated": ("read", "the file ends within the record"),
    "unknown-format": ("read", "named like spectra, but of no format that is read"),
    "unsupported-binary-encoding": ("read", "a compression or number type that is not supported"),
    "ms-level": ("harmonise", "of an MS level that is not wanted (survey scans, for example)"),
    "no-precursor-mz": ("harmonise", "no precursor m/z is given, and none can be computed"),
    "precursor-mass": ("harmonise", "the precursor m/z is not that of the molecule as the adduct"),
    "license": ("harmonise", "not under a licence that is wanted"),
    "profile": ("clean", "in profile mode, not centroided"),
    "too-few-peaks": ("clean", "too few peaks are left after cleaning"),
    "grade": ("grade", "of a worse grade than wanted"),
    "duplicate": ("duplicate", "the same measurement as a spectrum before it"),
    "near-duplicate": ("near-duplicate", "as good as the same as spectra that are kept"),
}
"""Stage and meaning of each reason; what is not named here is a problem of reading."""

_NOT_A_FAULT: Final = frozenset({"ms-level", "license", "deprecated", "grade", "duplicate", "near-duplicate"})
_KEPT_COLOUR: Final = "#0072b2"
_GRADE_COLOURS: Final = {"A": "#08519c", "B": "#4292c6", "C": "#9ecae1"}

STYLE: Final = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.4rem; border-top: 1px solid #ddd; padding-top: 1.2rem }
h3 { font-size: 1rem; margin-bottom: .3rem } p { max-width: 50rem } .sum { font-size: 1.1rem }
.note { color: #555; font-size: .9rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-size: .94rem }
table:has(.bars) { width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd }
th.number, td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr.total td { font-weight: 600; border-top: 2px solid #999 } td.file { overflow-wrap: anywhere; min-width: 9rem }
td.bars { width: 40%; min-width: 8rem; padding-top: .5rem }
.bar { display: flex; height: .95rem; background: #f1f1f1 } .bar i { display: block; min-width: 0 }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .4rem 0; padding: 0;
       font-size: .9rem }
.key i { display: inline-block; width: .9em; height: .9em; vertical-align: -.1em; margin-right: .4em }
.plots { display: flex; flex-wrap: wrap; gap: 1rem 1.4rem } .plots figure { margin: 0 }
svg { max-width: 100%; height: auto }
@media (max-width: 46rem) {
  th, td { padding-right: .5rem } table { font-size: .86rem } td.bars { width: 24%; min-width: 2.6rem }
  td.file { min-width: 7rem }
  .wide { display: none }
}
@media print { * { print-color-adjust: exact } figure, tr { break-inside: avoid } }
"""


def write_report(folder: Path, curation: Mapping[str, Any]) -> None:
    """Write ``report.html`` into ``folder``; it needs nothing beside itself.

    Parameters
    ----------
    folder : path
    curation : mapping
        ``counts``: ``read``, ``kept``, ``dropped`` (by reason), ``repaired`` and ``flagged`` (by kind, each may be
        missing), ``grades`` (of the kept spectra). ``files``: of each its ``file`` (name), ``read``, ``kept``,
        ``dropped`` (by reason), ``grades`` (of its kept spectra), its own ``grade``, ``is_run`` and ``mass_spread``
        (see `ionbed.spectra.grades.FileStatistics`). ``histograms``: those of all files added up.
        ``near_duplicates``: named values, may be missing.

    Raises
    ------
    ValueError
        The records read are not those kept and dropped.
    """
    with atomic_file(Path(folder) / REPORT_FILE) as partial:
        partial.write_text(html_page(curation), encoding="utf-8", errors="replace")


def html_page(curation: Mapping[str, Any]) -> str:
    """Return the page; see `write_report`."""
    counts = curation["counts"]
    num_dropped = sum(counts["dropped"].values())
    if counts["read"] != counts["kept"] + num_dropped:
        raise ValueError(f"{counts['read']} records read are not {counts['kept']} kept and {num_dropped} dropped")
    body = [
        "<h1>What was kept and what was dropped</h1>",
        f"<p class='sum'><b>{counts['read']:,}</b> records read = <b>{counts['kept']:,}</b> kept + "
        f"<b>{num_dropped:,}</b> dropped, from {counted(len(curation['files']), 'files')}.</p>",
        *_losses(counts),
        *_grades(counts.get("grades", {}), counts["kept"]),
        *_files(curation["files"]),
        *_distributions(curation),
        *_mended("Repaired", "What was mended in kept spectra; one spectrum may count twice.", counts.get("repaired")),
        *_mended("Flagged", "What does not add up in kept spectra and was left as written.", counts.get("flagged")),
        *_near_duplicates(curation.get("near_duplicates") or {}),
    ]
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>ionbed prepare: what was kept and what was dropped</title><style>{STYLE}</style>"
    )
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _stage(reason: str) -> str:
    return REASONS[reason][0] if reason in REASONS else "read"


def _by_stage(dropped: Mapping[str, int]) -> Counter[str]:
    stages: Counter[str] = Counter()
    for reason, count in dropped.items():
        stages[_stage(reason)] += count
    return stages


def _losses(counts: Mapping[str, Any]) -> list[str]:
    """Return what each stage left over, and the reasons."""
    left, rows = counts["read"], []
    rows.append(["Records", "", _number(left), _bar([(left, _KEPT_COLOUR)], counts["read"])])
    stages = _by_stage(counts["dropped"])
    for stage, (title, colour) in STAGES.items():
        if not stages[stage]:
            continue
        left -= stages[stage]
        bar = _bar([(left, _KEPT_COLOUR), (stages[stage], colour)], counts["read"])
        rows.append([title, "−" + _number(stages[stage]), _number(left), bar])
    waterfall = _table(
        ["stage", "dropped", "left", ""], rows, ["", "number", "number", "bars"], total=["Kept", "", _number(left), ""]
    )
    reasons = sorted(
        counts["dropped"].items(), key=lambda item: (list(STAGES).index(_stage(item[0])), -item[1], item[0])
    )
    by_reason = [
        [
            STAGES[_stage(reason)][0],
            f"<b>{escape(reason)}</b> {escape(REASONS[reason][1] if reason in REASONS else '')}",
            _number(count),
            _share(count, counts["read"]),
        ]
        for reason, count in reasons
    ]
    num_dropped = sum(counts["dropped"].values())
    total = ["Dropped", "", _number(num_dropped), _share(num_dropped, counts["read"])]
    return [
        "<h2>Where records were dropped</h2>",
        waterfall,
        "<h3>Why</h3>" if by_reason else "<p>No record was dropped.</p>",
        _table(["stage", "reason", "records", "of all"], by_reason, ["", "", "number", "number"], total=total)
        if by_reason
        else "",
        "<p class='note'>Every dropped record is listed in dropped.tsv.</p>" if by_reason else "",
    ]


def _grades(grades: Mapping[str, int], kept: int) -> list[str]:
    if not grades:
        return []
    rows = [
        [grade, _number(count), _share(count, kept), _bar([(count, _GRADE_COLOURS.get(grade, "#999"))], kept)]
        for grade, count in sorted(grades.items())
    ]
    num_graded = sum(grades.values())
    return [
        "<h2>Grades of the kept spectra</h2>",
        "<p class='note'>A spectrum has the worse of its own grade and that of its file: A is the strictest, C is "
        "whatever cleaning keeps. The thresholds stand under options in manifest.json.</p>",
        _table(
            ["grade", "spectra", "of the kept", ""],
            rows,
            ["", "number", "number", "bars"],
            total=["All", _number(num_graded), _share(num_graded, kept), ""],
        ),
    ]


def _files(files: Sequence[Mapping[str, Any]]) -> list[str]:
    largest = heapq.nsmallest(NUM_FILES, files, key=lambda file: (-file["read"], file["file"]))
    at_fault = [file for file in files if _num_faults(file)]
    worst = heapq.nsmallest(NUM_FILES, at_fault, key=lambda file: (-_num_faults(file), file["file"]))
    present = {stage for file in files for stage in map(_stage, file["dropped"])}
    kept = {grade for file in files for grade in file["grades"]}
    key = [
        *((f"kept, grade {g}", _GRADE_COLOURS[g]) for g in sorted(kept)),
        *(STAGES[stage] for stage in STAGES if stage in present),
    ]
    parts = [
        "<h2>Files</h2>",
        _file_grades(files),
        "<h3>The largest</h3>",
        "<ul class='key'>" + "".join(f"<li><i style='background:{c}'></i>{escape(t)}</li>" for t, c in key) + "</ul>",
        _file_table(largest, files, "of all files"),
    ]
    if worst:
        parts += [
            "<h3>With the most records that cannot be used</h3>",
            "<p class='note'>Not counted here: records of other MS levels or licences, withdrawn ones, duplicates, and "
            "those dropped for their grade.</p>",
            _fault_table(worst, at_fault),
        ]
    return parts


def _num_faults(file: Mapping[str, Any]) -> int:
    return sum(count for reason, count in file["dropped"].items() if reason not in _NOT_A_FAULT)


def _file_grades(files: Sequence[Mapping[str, Any]]) -> str:
    tally = Counter((file["is_run"], file["grade"]) for file in files)
    grades = sorted({grade for _, grade in tally})
    rows = [
        [
            title,
            *(_number(tally[is_run, grade]) for grade in grades),
            _number(sum(tally[is_run, g] for g in grades)),
        ]
        for is_run, title in ((True, "runs"), (False, "libraries and lists of spectra"))
    ]
    sums = [sum(tally[is_run, grade] for is_run in (True, False)) for grade in grades]
    note = (
        "<p class='note'>The grade of a file is the best that its spectra can have. A run is graded by the order of "
        "its scans, the number of its spectra, its mass accuracy and its damaged records; a library has no order of "
        "scans and may mix instruments, so that damaged records alone count. A folder of files with one record each "
        "is counted as one file.</p>"
    )
    return f"<h3>Grades of the files</h3>{note}" + _table(
        ["files", *(f"grade {grade}" for grade in grades), "all"],
        rows,
        ["", *["number"] * (len(grades) + 1)],
        total=["all", *map(_number, sums), _number(sum(sums))],
    )


def _file_table(chosen: Sequence[Mapping[str, Any]], files: Sequence[Mapping[str, Any]], of_all: str) -> str:
    num_largest = max((file["read"] for file in chosen), default=0)
    rows = []
    for file in chosen:
        stages = _by_stage(file["dropped"])
        of_grade, grade = file["grades"], escape(file["grade"]) if file["kept"] else ""
        parts = [
            *((of_grade[grade], _GRADE_COLOURS[grade]) for grade in sorted(of_grade)),
            *((stages[stage], colour) for stage, (_, colour) in STAGES.items()),
        ]
        rows.append([_name(file), *_file_numbers([file]), _bar(parts, num_largest), grade, _spread(file)])
    total_read = sum(file["read"] for file in files)
    if len(files) > len(chosen):
        others = [total - shown for total, shown in zip(_file_sums(files), _file_sums(chosen), strict=True)]
        rows.append([counted(len(files) - len(chosen), "other files"), *map(_number, others), "", "", ""])
    total = ["all", *_file_numbers(files), "", "", ""]
    header = ["file", "read", "kept", "dropped", "", "grade", "mass spread (mDa)"]
    return _table(
        header,
        rows,
        ["file", "number", "number", "number", "bars", "", "number wide"],
        total=total if total_read else None,
    )


def _fault_table(worst: Sequence[Mapping[str, Any]], at_fault: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for file in worst:
        faults = {reason: count for reason, count in file["dropped"].items() if reason not in _NOT_A_FAULT}
        said = ", ".join(f"{escape(reason)} {count:,}" for reason, count in sorted(faults.items(), key=lambda f: -f[1]))
        rows.append([_name(file), _number(file["read"]), _number(_num_faults(file)), said])
    if len(at_fault) > len(worst):
        others = sum(map(_num_faults, at_fault)) - sum(map(_num_faults, worst))
        read = sum(file["read"] for file in at_fault) - sum(file["read"] for file in worst)
        rows.append([counted(len(at_fault) - len(worst), "other files"), _number(read), _number(others), ""])
    total = [
        counted(len(at_fault), "files"),
        _number(sum(file["read"] for file in at_fault)),
        _number(sum(map(_num_faults, at_fault))),
        "",
    ]
    return _table(["file", "read", "unusable", "why"], rows, ["file", "number", "number", ""], total=total)


def _file_sums(files: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    return (
        sum(file["read"] for file in files),
        sum(file["kept"] for file in files),
        sum(sum(file["dropped"].values()) for file in files),
    )


def _file_numbers(files: Sequence[Mapping[str, Any]]) -> list[str]:
    return [_number(value) for value in _file_sums(files)]


def _distributions(curation: Mapping[str, Any]) -> list[str]:
    histograms = curation["histograms"]
    plots = histogram_plots(histograms)
    spreads = [file["mass_spread"] for file in curation["files"] if file["mass_spread"] is not None]
    parts = []
    if plots:
        num_spectra = sum(histograms.get("peaks", {}).values())
        parts += [
            "<h2>The spectra</h2>",
            f"<p class='note'>{num_spectra:,} spectra after cleaning, before any is dropped for its grade or as a "
            "duplicate; MS levels are of all records that state one.</p>",
            _panels(plots),
        ]
    if (plot := mass_spread_plot(spreads)) is not None:
        parts += [
            "<h2>Mass accuracy of the files</h2>",
            f"<p class='note'>Standard deviation of the m/z of strong fragments between repeats of a precursor, of "
            f"{counted(len(spreads), 'files')} in which a precursor is repeated; "
            f"{len(curation['files']) - len(spreads):,} others have none. About 0.1 mDa is an Orbitrap, 1 mDa a "
            "time-of-flight instrument, more than 10 mDa a quadrupole or an ion trap.</p>",
            _panels([plot]),
        ]
    return parts


def _panels(plots: Sequence[Plot]) -> str:
    figures = []
    for plot in plots:
        label = f"<svg role='img' aria-label='{escape(plot.description, quote=True)}'"
        figures.append(f"<figure>{plot.svg.replace('<svg', label, 1)}</figure>")
    return "<div class='plots'>" + "".join(figures) + "</div>"


def _mended(title: str, note: str, counts: Mapping[str, int] | None) -> list[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [[escape(kind), _number(count)] for kind, count in ordered]
    return [f"<h2>{title}</h2><p class='note'>{note}</p>", _table(["kind", "spectra"], rows, ["", "number"])]


def _near_duplicates(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [
        [escape(str(name).replace("_", " ")), _number(value) if isinstance(value, int) else escape(str(value))]
        for name, value in values.items()
    ]
    return ["<h2>Near duplicates</h2>", _table(["", "value"], rows, ["", "number"])]


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str], *, total: Sequence[str] | None = None
) -> str:
    """Return a table of cells that are HTML already; ``kinds`` are the classes of the columns."""

    def row(cells: Sequence[str], tag: str, marks: str = "") -> str:
        made = "".join(f"<{tag} class='{kind}'>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr{marks}>{made}</tr>"

    lines = [row(header, "th"), *(row(cells, "td") for cells in rows)]
    if total is not None:
        lines.append(row(total, "td", " class='total'"))
    return "<div class='scroll'><table>" + "\n".join(lines) + "</table></div>"


def _bar(parts: Sequence[tuple[int, str]], whole: int) -> str:
    """Return a stacked bar; its full length is ``whole``."""
    pieces = "".join(
        f"<i style='width:{100 * count / whole:.2f}%;background:{colour}'></i>" for count, colour in parts if count
    )
    return f"<div class='bar'>{pieces}</div>"


def _name(file: Mapping[str, Any]) -> str:
    return escape(file["file"])


def _spread(file: Mapping[str, Any]) -> str:
    spread = file["mass_spread"]
    if spread is None:
        return ""
    return f"{spread:.2g}" if spread < 10 else f"{spread:,.0f}"


def _number(value: int) -> str:
    return f"{value:,}"


def _share(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f} %" if whole else ""
