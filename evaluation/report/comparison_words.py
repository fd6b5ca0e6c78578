"""The comparison of two reports in words and tables: for the terminal, as Markdown, and as a page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...artifacts import atomic_folder, write_manifest
from .explanations import TITLES, VERDICT_WORDS
from .markup import html_document, html_table, paragraphs
from .table import Table, markdown_lines, number, print_table
from .verdicts import VOID, listed

if TYPE_CHECKING:
    from rich.console import Console

UNPAIRED = "unpaired"


def comparison_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return for each pair of rows where the second report beats, loses to, or cannot be told from the first."""
    said: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, question in tree["questions"].items():
        for row in question["rows"]:
            by_verdict = said.setdefault((row["first"], row["second"]), {})
            for found in row["differences"]:
                if found["metric"] == question["main"] and not row["void"]:
                    where = name.replace(",", " with") + ("" if question["paired"] else f" ({UNPAIRED})")
                    by_verdict.setdefault(found["verdict"], []).append(where)
    sentences = []
    for (first, second), by_verdict in said.items():
        if first == second and _is_same(tree, first):
            sentences.append(f"'{first}' has the same figures in both reports.")
            continue
        parts = [
            f"{words} '{first}' of the first in {listed(by_verdict[verdict])}"
            for verdict, words in VERDICT_WORDS.items()
            if verdict in by_verdict
        ]
        sentences.append(f"'{second}' of the second report {'; '.join(parts) or 'cannot be judged'}.")
    return sentences


def _is_same(tree: Mapping[str, Any], label: str) -> bool:
    """Return whether nothing at all differs between the rows ``label`` of both reports."""
    rows = [row for question in tree["questions"].values() for row in question["rows"]]
    found = [of for row in rows if (row["first"], row["second"]) == (label, label) for of in row["differences"]]
    is_paired = all(question["paired"] for question in tree["questions"].values())
    return is_paired and all(of["first"] == of["second"] and of["estimate"]["value"] == 0 for of in found)


def comparison_warnings(tree: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know beside the verdicts: unlike inputs, unpaired questions, marked rows."""
    found = list(tree["unlike"])
    unpaired = [name for name, question in tree["questions"].items() if not question["paired"]]
    if unpaired:
        found.append(
            f"The queries or candidates of {listed(unpaired)} are not the same in both reports: their differences are "
            "unpaired, and may lie in the questions rather than in the rows."
        )
    marks = [f"{mark}." for question in tree["questions"].values() for row in question["rows"] for mark in row["marks"]]
    found += [*tree["controls"], *dict.fromkeys(marks)]
    if tree["only in one"]:
        found.append(f"Only in one of the reports, and left out: {listed(tree['only in one'])}.")
    return found


def comparison_tables(tree: Mapping[str, Any]) -> list[Table]:
    """Return a table of each question: every metric of every pair of rows."""
    header = ("", "metric", "first report", "second report", "second minus first", "p", "p corrected", "verdict")
    tables = []
    for name, question in tree["questions"].items():
        cells = []
        for row in question["rows"]:
            label = row["second"] if row["first"] == row["second"] else f"{row['first']} → {row['second']}"
            cells += [
                (
                    label,
                    found["metric"],
                    number(found["first"]),
                    number(found["second"]),
                    number(found["estimate"], signed=True),
                    f"{found['p']:.4f}",
                    f"{found['p corrected']:.4f}",
                    f"void {VOID}" if row["void"] else found["verdict"],
                )
                for found in row["differences"]
            ]
        title = TITLES.get(name, name) + ("" if question["paired"] else f" ({UNPAIRED})")
        tables.append(Table(title, header, tuple(cells)))
    return tables


def comparison_footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    bootstrap = tree["bootstrap"]
    return (
        f"First report: {tree['first']['path']}; second: {tree['second']['path']}. In brackets: "
        f"{bootstrap['confidence']:.0%} intervals, {bootstrap['resamples']:,} bootstrap resamples of molecules; of "
        "paired questions both rows are resampled alike. 'beats' and 'loses' need an interval without 0 and a p-value "
        "(permutation of whole molecules; unpaired: bootstrap) that agrees after correction for everything compared "
        "(Holm). Where lower is better, the verdict says so with the sign turned."
    )


def comparison_markdown(tree: Mapping[str, Any]) -> str:
    """Return everything as Markdown."""
    lines = []
    for sentence in [*comparison_sentences(tree), *comparison_warnings(tree)]:
        lines += [sentence, ""]
    for table in comparison_tables(tree):
        lines += [f"## {table.title}", "", *markdown_lines(table), ""]
    return "\n".join([*lines, comparison_footnote(tree), ""])


def print_comparison(tree: Mapping[str, Any], console: Console) -> None:
    """Print verdicts, warnings and tables to a terminal."""
    for sentence in comparison_sentences(tree):
        console.print(sentence, style="bold", highlight=False, markup=False)
    for sentence in comparison_warnings(tree):
        console.print(sentence, style="yellow", highlight=False, markup=False)
    for table, question in zip(comparison_tables(tree), tree["questions"].values(), strict=True):
        console.print(f"\n{table.title}: {question['main']}", style="bold", highlight=False, markup=False)
        # A terminal is narrow: the other metrics and the raw p-values are in the files.
        narrow = tuple((row[0], *row[2:5], *row[6:]) for row in table.rows if row[1] == question["main"])
        print_table(Table("", ("", "first", "second", "difference", "p corr.", "verdict"), narrow), console)
    console.print("\n" + comparison_footnote(tree), highlight=False, markup=False)


def comparison_page(tree: Mapping[str, Any]) -> str:
    """Return a page that needs nothing beside itself."""
    body = ["<h1>Two ionbed evaluations compared</h1>"]
    body.append(f"<p class='counts'>{escape(tree['first']['path'])} and {escape(tree['second']['path'])}</p>")
    body += paragraphs(comparison_sentences(tree), "verdict") + paragraphs(comparison_warnings(tree), "warning")
    for table in comparison_tables(tree):
        body.append(f"<h2>{escape(table.title)}</h2>")
        body.append(html_table(table, stacked=True, caption=False))
    body += ["<h2>How to read this page</h2>", f"<p>{escape(comparison_footnote(tree))}</p>"]
    return html_document("ionbed evaluations compared", body)


def write_comparison(tree: Mapping[str, Any], out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write ``comparison.json``, ``comparison.md``, ``comparison.html`` and a manifest into the folder ``out``.

    Raises
    ------
    InputError
        ``out`` is taken.
    """
    with atomic_folder(out, overwrite=overwrite) as folder:
        text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (Path(folder) / "comparison.json").write_text(text, encoding="utf-8")
        (Path(folder) / "comparison.md").write_text(comparison_markdown(tree), encoding="utf-8")
        (Path(folder) / "comparison.html").write_text(comparison_page(tree), encoding="utf-8")
        inputs = {which: tree[which]["path"] for which in ("first", "second")}
        write_manifest(folder, {"command": "evaluate compare", "inputs": inputs, "bootstrap": tree["bootstrap"]})
