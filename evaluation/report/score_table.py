"""The outcome of `ionbed score` in words and tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..strata import NAMES
from .table import AUDIT_WORDS, VERDICT_STYLES, number
from .verdicts import EXPOSED

if TYPE_CHECKING:
    from rich.console import Console

QUESTIONS = {
    "library": "Library search: the true molecule among candidates with nearly the same precursor m/z",
    "open": "Open-world search: as library search, but some queries have no answer",
    "analogue": "Analogue search: how alike is the best hit, where the molecule is not among the candidates",
    "retrieval": "Structure retrieval: the true structure among candidate structures",
    "pairs": "Same molecule or not: pairs of spectra with nearly the same precursor m/z",
}
VERDICTS = {"beats": "beats", "loses": "loses to", "unresolved": "cannot be told from"}

Table = tuple[str, list[str], list[list[str]]]


def sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return the audits that failed, the verdicts in words, what was left unanswered, what the tool may have seen."""
    name = tree["tool"]["name"]
    result = [
        f"Audit failed: {found['audit']} ({found['about']}): {found['sentence']}"
        for found in tree.get("audits", ())
        if found["passed"] is False
    ]
    if any(found["passed"] is False and found["about"] == name for found in tree.get("audits", ())):
        result.append(f"No verdict on '{name}' counts while an audit of it fails.")
    by_opponent: dict[str, dict[str, list[str]]] = {}
    for difference in tree["differences"]:
        opponent = by_opponent.setdefault(difference["against"], {})
        opponent.setdefault(difference["verdict"], []).append(difference["metric"])
    for against, by_verdict in by_opponent.items():
        other = "chance" if against == "random" else f"'{against}'"
        parts = [f"{words} {other} in {', '.join(by_verdict[v])}" for v, words in VERDICTS.items() if v in by_verdict]
        result.append(f"'{name}' {'; '.join(parts)}.")
    if not by_opponent:
        result.append("Guessing is perfect on this task; there is nothing to tell apart.")
    silent, queries = tree["counts"]["queries without any score"], tree["counts"]["queries"]
    if silent:
        result.append(f"{silent:,} of {queries:,} queries have no score; each counts as a miss.")
    tools = (tree["tool"], *(other["tool"] for other in tree["others"]))
    result += [
        f"{EXPOSED} '{tool['name']}' may have seen the molecules of the queries: {tool['exposure']}. "
        "Its figures may measure memory."
        for tool in tools
        if tool["exposure"]
    ]
    return result


def tables(tree: Mapping[str, Any]) -> list[Table]:
    """Return (title, header, rows) of every table that has a row."""
    found: list[Table] = [_metrics(tree["tool"], tree["metrics"])]
    found += [_metrics(other["tool"], other["metrics"]) for other in tree["others"]]
    rows = [
        [
            entry["metric"],
            entry["against"],
            number(entry["estimate"], signed=True),
            f"{entry['p']:.4f}",
            f"{entry['p corrected']:.4f}",
            entry["verdict"],
        ]
        for entry in tree["differences"]
    ]
    found.append(
        (
            "Audits",
            ["audit", "about", "result", "evidence"],
            [[f["audit"], f["about"], AUDIT_WORDS[f["passed"]], f["sentence"]] for f in tree.get("audits", ())],
        )
    )
    found.append(("Differences", ["metric", "against", "difference", "p", "p corrected", "verdict"], rows))
    if tree["confidence"] is not None:
        found.append(_thresholds(tree["confidence"]["thresholds"]))
        found.append(_confidence(tree["confidence"]))
    for name, stratum in tree["strata"].items():
        counted = "pairs" if tree["task"]["kind"] == "pairs" else "queries"
        cells = [
            [cell, f"{of[counted]:,}", number(of["micro"]), f"{of['random']:.3f}"]
            for cell, of in stratum["cells"].items()
        ]
        words = NAMES.get(name, name)
        found.append((f"{stratum['metric']} by {words}", [words, counted, stratum["metric"], "random"], cells))
    return [table for table in found if table[2]]


def markdown(tree: Mapping[str, Any]) -> str:
    """Return everything as Markdown."""
    lines = [f"# {QUESTIONS[tree['task']['kind']]}", "", _count_line(tree), ""]
    lines += [line for sentence in sentences(tree) for line in (sentence, "")]
    for title, header, rows in tables(tree):
        lines += [f"## {title}", "", "| " + " | ".join(header) + " |", "|" + "|".join(["---"] * len(header)) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join([*lines, footnote(tree), ""])


def print_score(tree: Mapping[str, Any], console: Console) -> None:
    """Print the verdict and all tables but those of the audits and the strata."""
    from rich.table import Table as RichTable

    for sentence in sentences(tree):
        console.print(sentence, style="bold", highlight=False, markup=False)
    console.print(f"\n{QUESTIONS[tree['task']['kind']]}\n{_count_line(tree)}", highlight=False, markup=False)
    for title, header, rows in tables({**tree, "strata": {}, "audits": []}):
        console.print(f"\n{title}", style="bold", highlight=False, markup=False)
        table = RichTable(*header, box=None, padding=(0, 2, 0, 0), header_style="bold")
        for row in rows:
            table.add_row(*row, style=VERDICT_STYLES.get(row[-1]))
        console.print(table, highlight=False)
    console.print("\n" + footnote(tree), highlight=False, markup=False)


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    bootstrap = tree["bootstrap"]
    return (
        f"In brackets: {bootstrap['confidence']:.0%} intervals, {bootstrap['resamples']:,} bootstrap resamples of "
        "molecules. Ties count in expectation, an abstention is a miss. 'beats' and 'loses' need an interval without 0 "
        "and a p-value that agrees, corrected (Holm) for all comparisons in the first metric, and in the others for "
        "all of those."
    )


def _metrics(tool: Mapping[str, Any], metrics: Mapping[str, Any]) -> Table:
    title = f"{tool['name']} {tool['version']}".strip() + (f" {EXPOSED}" if tool["exposure"] else "")
    if any("macro" not in of for of in metrics.values()):
        rows = [[name, number(of["micro"]), f"{of['random']:.3f}"] for name, of in metrics.items()]
        return title, ["", "pairs", "random"], rows
    rows = [
        [
            name,
            number(of["micro"]),
            number(of["macro"]),
            f"{of['worst case']:.3f} to {of['best case']:.3f}",
            f"{of['random']:.3f}",
            number(of["chance-corrected"]),
        ]
        for name, of in metrics.items()
    ]
    return title, ["", "per spectrum", "per molecule", "ties at worst and best", "random", "chance-corrected"], rows


def _thresholds(entries: list[dict[str, Any]]) -> Table:
    rows = []
    for entry in entries:
        if entry["threshold"] is None:
            rows.append([f"{entry['FDR']:.0%}", "none will do", "0", "-", "-"])
            continue
        rows.append(
            [
                f"{entry['FDR']:.0%}",
                f"{entry['threshold']:.6g}",
                f"{entry['accepted']:,}",
                f"{entry['measured']:.3f}",
                f"{entry['estimated']:.3f}",
            ]
        )
    header = ["FDR", "score threshold", "answers kept", "measured FDR", "estimated from second-best"]
    return "Thresholds for a false discovery rate", header, rows


def _confidence(confidence: Mapping[str, Any]) -> Table:
    rows = [
        ["area under the risk-coverage curve", f"{confidence['area under risk-coverage']:.3f}"],
        ["of this, above the best possible order", f"{confidence['excess area']:.3f}"],
    ]
    if confidence["calibration"] is not None:
        rows.append(["expected calibration error", f"{confidence['calibration']['error']:.3f}"])
    return "The score as a confidence", ["", ""], rows


def _count_line(tree: Mapping[str, Any]) -> str:
    words = [
        f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value:,}"
        for name, value in tree["task"]["counts"].items()
    ]
    return "; ".join([f"task {tree['task']['hash'][:12]}", *words])
