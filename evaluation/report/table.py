"""The tables of an evaluation as text: cell by cell for the page, as Markdown, and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .drawing import KINDS
from .explanations import KIND_TITLES, ROLES, TITLES
from .verdicts import (
    EXPOSED,
    VOID,
    audit_sentence,
    exposure_sentences,
    failed_audits,
    headline,
    measured,
    predicted_sentence,
    verdict_sentences,
    void_sentences,
    warnings,
)

if TYPE_CHECKING:
    from rich.console import Console

VERDICT_STYLES = {"beats": "green", "loses": "red", "unresolved": "yellow"}
AGAINST = {
    "best look-up": "against the best look-up",
    "without the model": "against the same without the model",
    "best blind": "against the best blind row",
    "random": "against guessing",
}
"""Columns of the table of verdicts, by role."""
NOT_IN_TERMINAL = ("hit@10",)
"""Metrics that have no place on 80 columns."""
SHORT_IN_TERMINAL = {"ROC AUC between laboratories": "AUC between labs"}
AUDIT_WORDS = {True: "passed", False: "failed", None: "could not be run"}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of tuple of str
    groups : tuple of str
        The kind of each row, where rows are grouped by it; else empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] = ()


def tables(task: Mapping[str, Any]) -> list[Table]:
    """Return every table of a question that has a row, the metrics first."""
    rows = ordered_rows(task)
    found = [metrics_table(task), further_table(task), differences_table(task)]
    found += [_spread_table(task), thresholds_table(rows), confidence_table(rows), unanswered_table(rows)]
    return [table for table in found if table.rows]


def ordered_rows(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows by kind, those of one kind in their own order."""
    return sorted(task["rows"], key=lambda row: KINDS.index(row["kind"]))


def metrics_of(task: Mapping[str, Any]) -> list[str]:
    """Return the metrics that any row has."""
    return [metric for metric in task["metrics"] if any(metric in row["metrics"] for row in task["rows"])]


def metrics_table(task: Mapping[str, Any]) -> Table:
    """Return every row's metrics over the queries (or pairs), with intervals."""
    metrics, rows = metrics_of(task), ordered_rows(task)
    return Table(
        "Per spectrum, with intervals" if task["kind"] != "pairs" else "With intervals",
        ("", *metrics),
        tuple((label_of(row), *(number(row["metrics"].get(m, {}).get("micro")) for m in metrics)) for row in rows),
        tuple(row["kind"] for row in rows),
    )


def further_table(task: Mapping[str, Any]) -> Table:
    """Return the main metric in other averages: over molecules, corrected for chance, with ties at worst and best."""
    main, rows = task["main"], [row for row in ordered_rows(task) if task["main"] in row["metrics"]]
    if task["kind"] == "pairs":
        return Table("", (), ())
    cells = []
    for row in rows:
        of = row["metrics"][main]
        cells.append(
            (
                label_of(row),
                number(of["macro"]),
                number(of["chance-corrected"]),
                f"{of['worst case']:.3f} to {of['best case']:.3f}",
                f"{of['random']:.3f}",
            )
        )
    return Table(
        f"{main}, averaged and bounded otherwise",
        ("", "per molecule", "chance-corrected", "ties at worst and best", "random"),
        tuple(cells),
        tuple(row["kind"] for row in rows),
    )


def differences_table(task: Mapping[str, Any]) -> Table:
    """Return what learned and trained rows differ by from what they are compared with: see `ROLES`."""
    metrics = metrics_of(task)

    def order(found: Mapping[str, Any]) -> tuple[bool, int, int]:
        metric = found["metric"]
        return metric != task["main"], metrics.index(metric), ROLES.index(found["role"])

    cells, groups = [], []
    for row in ordered_rows(task):
        for found in sorted(row["differences"], key=order):
            cells.append(
                (
                    label_of(row),
                    found["metric"],
                    found["against"] if found["role"] == found["against"] else f"{found['against']} ({found['role']})",
                    number(found["estimate"], signed=True),
                    f"{found['p']:.4f}",
                    f"{found['p corrected']:.4f}",
                    f"void {VOID}" if row["void"] else found["verdict"],
                )
            )
            groups.append(row["kind"])
    header = ("", "metric", "against", "difference", "p", "p corrected", "verdict")
    return Table("Differences", header, tuple(cells), tuple(groups))


def _spread_table(task: Mapping[str, Any]) -> Table:
    rows = [row for row in ordered_rows(task) if row.get("spread")]
    metrics = [metric for metric in metrics_of(task) if any(metric in row["spread"] for row in rows)]
    cells = [
        (
            f"{label_of(row)}, {row['trainings']} trainings",
            *(f"{of['least']:.3f} to {of['most']:.3f}" if (of := row["spread"].get(m)) else "-" for m in metrics),
        )
        for row in rows
    ]
    return Table("Least and most of the trainings", ("", *metrics), tuple(cells))


def thresholds_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the score thresholds at which a share of the accepted answers is wrong."""
    cells, groups = [], []
    for row in rows:
        for entry in (row["confidence"] or {}).get("thresholds", ()):
            kept = (
                ("none will do", "0", "-", "-")
                if entry["threshold"] is None
                else (
                    f"{entry['threshold']:.6g}",
                    f"{entry['accepted']:,}",
                    f"{entry['measured']:.3f}",
                    f"{entry['estimated']:.3f}",
                )
            )
            cells.append((label_of(row), f"{entry['FDR']:.0%}", *kept))
            groups.append(row["kind"])
    header = ("", "FDR", "score threshold", "answers kept", "measured FDR", "estimated from second-best")
    return Table("Thresholds for a false discovery rate", header, tuple(cells), tuple(groups))


def confidence_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return what the scores are worth as a confidence."""
    known = [row for row in rows if row["confidence"]]
    cells = [
        (
            label_of(row),
            f"{row['confidence']['area under risk-coverage']:.3f}",
            f"{row['confidence']['excess area']:.3f}",
            f"{row['confidence']['calibration']['error']:.3f}"
            if row["confidence"]["calibration"]
            else "no probability",
        )
        for row in known
    ]
    header = ("", "area under risk-coverage", "of this, above the best order", "expected calibration error")
    return Table("The score as a confidence", header, tuple(cells), tuple(row["kind"] for row in known))


def unanswered_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the rows that left queries without any score, each of which counts as a miss."""
    silent = [row for row in rows if row["counts"].get("queries without any score")]
    cells = [
        (label_of(row), f"{row['counts']['queries without any score']:,}", f"{row['counts']['queries']:,}")
        for row in silent
    ]
    return Table("Queries without any score, each a miss", ("", "without a score", "of"), tuple(cells))


def audits_table(tree: Mapping[str, Any]) -> Table:
    """Return every finding of the audits: the failed first, then those that could not be run."""
    order = [False, None, True]
    found = sorted(tree["audits"], key=lambda finding: order.index(finding["passed"]))
    cells = tuple((f["audit"], f["about"], AUDIT_WORDS[f["passed"]], f["sentence"]) for f in found)
    return Table("Audits", ("audit", "about", "result", "evidence"), cells)


def audit_counts_table(tree: Mapping[str, Any]) -> Table:
    """Return how many findings of each audit passed, failed, and could not be run."""
    counts: dict[str, dict[bool | None, int]] = {}
    for finding in tree["audits"]:
        of_audit = counts.setdefault(finding["audit"], dict.fromkeys(AUDIT_WORDS, 0))
        of_audit[finding["passed"]] += 1
    order = (True, False, None)
    cells = tuple((audit, *(f"{of[passed]:,}" for passed in order)) for audit, of in counts.items())
    return Table("Audits", ("audit", *(AUDIT_WORDS[passed] for passed in order)), cells)


def verdict_table(tree: Mapping[str, Any]) -> Table:
    """Return the main figure of every model in every question, and what it was found to be against each opponent."""
    cells = []
    asked = {role for _, task in measured(tree) for row in task["rows"] for role in headline(task, row)}
    roles = [role for role in ROLES if role != "without the model" or role in asked]
    for name, task in measured(tree):
        rows = {row["label"]: row for row in task["rows"]}
        for row in ordered_rows(task):
            if row["kind"] != "learned" or task["main"] not in row["metrics"]:
                continue
            own = row["metrics"][task["main"]]
            against = []
            for role in roles:
                found = headline(task, row).get(role)
                if found is None:
                    against.append("-")
                elif row["void"]:
                    against.append(f"void {VOID}")
                else:
                    other = rows.get(found["against"])
                    figure = own["random"] if other is None else other["metrics"][task["main"]]["micro"]["value"]
                    against.append(f"{found['verdict']}: {found['against']} {_bare(figure)}")
            cells.append((name, label_of(row), f"{task['main']} {number(own['micro'])}", *against))
    return Table("Verdicts", ("question", "model", "its figure", *(AGAINST[role] for role in roles)), tuple(cells))


def number(estimate: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    """Return an estimate as ``0.812 [0.790, 0.834]``, a dash where nothing was measured."""
    if estimate is None or estimate["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    if estimate["low"] is None:
        return f"{estimate['value']:{form}}"
    return f"{estimate['value']:{form}} [{estimate['low']:{form}}, {estimate['high']:{form}}]"


def label_of(row: Mapping[str, Any]) -> str:
    """Return the label of a row, marked where its model may have seen the queries or where an audit made it void."""
    marks = [mark for mark, of in ((EXPOSED, row["exposure"]), (VOID, row["void"])) if of]
    return " ".join([str(row["label"]), *marks])


def exact_sentence(task: Mapping[str, Any]) -> str | None:
    """Return how many of the MCES distances are exact, or None where none was measured."""
    shares = [of["exact"] for row in task["rows"] for of in row["metrics"].values() if "exact" in of]
    if not shares:
        return None
    queries = max(row["metrics"]["MCES@1"]["queries"] for row in task["rows"] if "MCES@1" in row["metrics"])
    span = f"{min(shares):.1%}" if min(shares) == max(shares) else f"{min(shares):.1%} to {max(shares):.1%}, by row,"
    return f"MCES@1 is measured on {queries:,} queries; {span} of the distances are exact."


def count_line(task: Mapping[str, Any]) -> str:
    """Return what was compared, in one line."""
    words = [
        f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value:,}"
        for name, value in task["counts"].items()
    ]
    return "; ".join(words) if task["rows"] else f"Nothing to measure: {'; '.join(words)}"


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    bootstrap = tree["config"]["bootstrap"]
    units = {"molecule": "molecules", "mces-cluster": "clusters of like molecules", "scaffold": "scaffolds"}
    text = (
        f"In brackets: {bootstrap['confidence']:.0%} intervals, {bootstrap['resamples']:,} bootstrap resamples of "
        f"{units.get(bootstrap.get('unit', 'molecule'), 'molecules')}. Ties count in expectation, an abstention is a "
        "miss. The best look-up and the best blind row are those with the best figure in the metric; differences are "
        "paired by resample. 'beats' and 'loses' need an interval without 0 and a p-value that agrees, corrected "
        "(Holm) for all comparisons in the main metric, and in the other metrics for all of those; otherwise these "
        "data cannot tell, and the verdict is unresolved."
    )
    marks = [f"{VOID} {sentence}" for sentence in void_sentences(tree)]
    marks += [f"{EXPOSED} {sentence}" for sentence in exposure_sentences(tree)]
    predicted = predicted_sentence(tree)
    return " ".join([text, *([predicted] if predicted else []), *marks])


def markdown(tree: Mapping[str, Any]) -> str:
    """Return the verdict and all tables of ``results.json`` as Markdown."""
    lines = []
    for finding in failed_audits(tree):
        lines += [f"**Audit failed: {finding['audit']} ({finding['about']}).** {finding['sentence']}", ""]
    for sentence in [*verdict_sentences(tree), *warnings(tree), audit_sentence(tree)]:
        lines += [sentence, ""]
    for name, task in tree["tasks"].items():
        lines += [f"## {TITLES.get(name, name)}", "", count_line(task), ""]
        if exact := exact_sentence(task):
            lines += [exact, ""]
        for table in tables(task) if task["rows"] else ():
            lines += [f"### {table.title}", "", *markdown_lines(table), ""]
    audits = audits_table(tree)
    if audits.rows:
        lines += ["## Audits", "", *markdown_lines(audits), ""]
    return "\n".join([*lines, footnote(tree), ""])


def markdown_lines(table: Table) -> list[str]:
    """Return the lines of one table as Markdown."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (table.header, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "|" + "|".join(["---"] * len(table.header)) + "|", *lines[1:]]


def print_tables(tree: Mapping[str, Any], console: Console | None = None) -> None:
    """Print verdicts and the main tables of ``results.json`` (to standard output unless ``console`` is given).

    A terminal is narrow: only the main metric has its interval, and only its differences are printed; ``table.md``
    and ``report.html`` have everything.
    """
    from rich.console import Console

    console = console or Console()
    for finding in failed_audits(tree):
        text = f"AUDIT FAILED: {finding['audit']} ({finding['about']}): {finding['sentence']}"
        console.print(text, style="bold red", highlight=False, markup=False)
    for sentence in verdict_sentences(tree):
        console.print(sentence, style="bold", highlight=False, markup=False)
    for sentence in [*warnings(tree), audit_sentence(tree)]:
        console.print(sentence, highlight=False, markup=False)
    for name, task in tree["tasks"].items():
        console.print(f"\n{TITLES.get(name, name)}", style="bold", highlight=False, markup=False)
        console.print(count_line(task), highlight=False, markup=False)
        if not task["rows"]:
            continue
        metrics = [metric for metric in metrics_of(task) if metric not in NOT_IN_TERMINAL]
        rows = []
        for row in ordered_rows(task):
            shown = [_in_terminal(row, metric, task["main"]) for metric in metrics]
            rows.append((label_of(row), *shown))
        header = ("", *(SHORT_IN_TERMINAL.get(metric, metric) for metric in metrics))
        print_table(Table("", header, tuple(rows), tuple(r["kind"] for r in ordered_rows(task))), console)
        differences = differences_table(task)
        main = tuple((row[0], *row[2:4], row[5], row[6]) for row in differences.rows if row[1] == task["main"])
        if main:
            print_table(Table("", ("", f"{task['main']} against", "difference", "p corr.", "verdict"), main), console)
    console.print("\n" + footnote(tree), highlight=False, markup=False)


def print_table(table: Table, console: Console) -> None:
    """Print one table to a terminal, its groups under their headings, verdicts in colour."""
    from rich.table import Table as RichTable

    printed = RichTable(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for column, name in enumerate(table.header):
        is_number = column > 0 and all(_is_number(row[column]) for row in table.rows)
        printed.add_column(name, no_wrap=is_number)
    group = None
    for position, row in enumerate(table.rows):
        if table.groups and table.groups[position] != group:
            group = table.groups[position]
            printed.add_row(f"[dim]{KIND_TITLES[group].partition(':')[0].partition(',')[0]}[/dim]")
        printed.add_row(*(_escaped(cell) for cell in row), style=VERDICT_STYLES.get(row[-1]))
    console.print(printed, highlight=False)


def _is_number(cell: str) -> bool:
    return not cell.strip("0123456789.,+-[] %")


def _escaped(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


def _in_terminal(row: Mapping[str, Any], metric: str, main: str) -> str:
    micro = row["metrics"].get(metric, {}).get("micro")
    return number(micro) if metric == main else _bare(None if micro is None else micro["value"])


def _bare(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
