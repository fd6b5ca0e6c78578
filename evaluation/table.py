"""The tables of an evaluation as text: for the terminal, for Markdown, and cell by cell for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "same molecule": "Same molecule or not, precursors within the window, both molecules held out (ROC AUC)",
    "same molecule, any partner": "Same molecule or not, one molecule held out, the other of any fold (ROC AUC)",
    "library search": "Library search: the true molecule among the first k",
    "analogue search": "Analogue search: Tanimoto of the best hit, the query's molecule not in the library",
}
VERDICT_STYLES = {"beats": "green", "loses": "red", "unresolved": "yellow"}


def markdown(tree: Mapping[str, Any]) -> str:
    """Return the tables of ``results.json`` as Markdown."""
    lines = []
    for name, task in tree["tasks"].items():
        lines += [f"## {TITLES[name]}", "", count_line(task), ""]
        for header, body in tables(task):
            lines.append("| " + " | ".join(header) + " |")
            lines.append("|" + "|".join(["---"] * len(header)) + "|")
            lines += ["| " + " | ".join(row) + " |" for row in body]
            lines.append("")
    return "\n".join([*lines, footnote(tree), ""])


def print_tables(tree: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the tables of ``results.json`` to a terminal (standard output unless ``console`` is given)."""
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    for name, task in tree["tasks"].items():
        console.print(f"\n[bold]{TITLES[name]}[/bold]\n{count_line(task)}", highlight=False)
        for header, body in tables(task):
            table = Table(*header, box=None, padding=(0, 1, 0, 0), header_style="bold")
            for row in body:
                table.add_row(*row[:-1], row[-1], style=VERDICT_STYLES.get(row[-1]))
            console.print(table, highlight=False)
    console.print("\n" + footnote(tree), highlight=False, markup=False)


def tables(task: Mapping[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """Return (header, rows) of the table of a task and, where there are learned rows, of their differences."""
    metrics = [m for m in task["metrics"] if any(m in row["estimates"] for row in task["rows"])]
    if not metrics:
        return []
    measured = [[row["label"], *(number(row["estimates"].get(m)) for m in metrics)] for row in task["rows"]]
    differences = [
        [row["label"], metric, found["against"], number(found["estimate"], signed=True), found["verdict"]]
        for row in task["rows"]
        for metric, found in row["differences"].items()
    ]
    result = [(["", *metrics], measured)]
    if differences:
        result.append((["", "metric", "best look-up", "difference", "verdict"], differences))
    return result


def number(estimate: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    """Return an estimate as ``0.812 [0.790, 0.834]``, a dash where nothing was measured."""
    if estimate is None or estimate["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    if estimate["low"] is None:
        return f"{estimate['value']:{form}}"
    return f"{estimate['value']:{form}} [{estimate['low']:{form}}, {estimate['high']:{form}}]"


def count_line(task: Mapping[str, Any]) -> str:
    """Return what was compared, in one line."""
    words = [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.2f}"
        for name, value in task["counts"].items()
    ]
    return "; ".join(words) if task["rows"] else f"Nothing to measure: {'; '.join(words)}"


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    bootstrap, predicted = tree["config"]["bootstrap"], tree["inputs"]["predicted spectra"]
    text = (
        f"In brackets: {bootstrap['confidence']:.0%} intervals, {bootstrap['resamples']:,} bootstrap resamples of "
        "molecules. Ties count in expectation, an abstention is a miss. The best look-up is the one with the highest "
        "point estimate (the precursor alone included); differences to it are paired by resample."
    )
    if predicted:
        text += f" {predicted:,} of {tree['inputs']['spectra']:,} spectra were predicted by a program, not measured."
    return text
