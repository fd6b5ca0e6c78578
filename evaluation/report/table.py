"""The tables of an evaluation as text: for the terminal, for Markdown, and cell by cell for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..measure import ANALOGUE_SEARCH, LIBRARY_SEARCH, SAME_MOLECULE, SAME_MOLECULE_ANY_PARTNER
from .explanations import exposure_sentences, predicted_sentence, verdict_sentences

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    SAME_MOLECULE: "Same molecule or not, precursors within the window, both molecules held out (ROC AUC)",
    SAME_MOLECULE_ANY_PARTNER: "Same molecule or not, one molecule held out, the other of any fold (ROC AUC)",
    LIBRARY_SEARCH: "Library search: the true molecule among the first k",
    ANALOGUE_SEARCH: "Analogue search: Tanimoto of the best hit, the query's molecule not in the library",
}
VERDICT_STYLES = {"beats": "green", "loses": "red", "unresolved": "yellow"}
EXPOSED = "†"
"""Behind the label of a row whose model may have seen the molecules of the queries."""


def markdown(tree: Mapping[str, Any]) -> str:
    """Return the tables of ``results.json`` as Markdown."""
    lines = [line for sentence in verdict_sentences(tree) for line in (sentence, "")]
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
    for sentence in verdict_sentences(tree):
        console.print(sentence, style="bold", highlight=False, markup=False)
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
    measured = [[_label(row), *(number(row["estimates"].get(m)) for m in metrics)] for row in task["rows"]]
    differences = [
        [_label(row), metric, found["against"], number(found["estimate"], signed=True), found["verdict"]]
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
        f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value:.2f}"
        for name, value in task["counts"].items()
    ]
    return "; ".join(words) if task["rows"] else f"Nothing to measure: {'; '.join(words)}"


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    bootstrap = tree["config"]["bootstrap"]
    text = (
        f"In brackets: {bootstrap['confidence']:.0%} intervals, {bootstrap['resamples']:,} bootstrap resamples of "
        "molecules. Ties count in expectation, an abstention is a miss. The best look-up is the one with the highest "
        "point estimate (the precursor alone included); differences to it are paired by resample."
    )
    predicted = predicted_sentence(tree)
    exposed = [f"{EXPOSED} {sentence}" for sentence in exposure_sentences(tree)]
    return " ".join([text, *([predicted] if predicted else []), *exposed])


def _label(row: Mapping[str, Any]) -> str:
    """Return the label of a row, marked where its model may have seen the molecules of the queries."""
    return f"{row['label']} {EXPOSED}" if row["exposure"] else str(row["label"])
