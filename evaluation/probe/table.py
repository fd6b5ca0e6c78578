"""The tables of a probe as Markdown, and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..judged import CHANCE
from ..report.table import Table, count_line, markdown_lines, number, print_table
from .features import BINNED_PEAKS, NO_SPECTRUM
from .results import UNTRAINED, ZERO_SHOT

if TYPE_CHECKING:
    from rich.console import Console

VERDICT_WORDS = {"beats": "is better than", "loses": "is worse than", "unresolved": "cannot be told from"}


def sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return for each model one sentence on its untrained twin, and one on binned peaks, in the main metrics."""
    found = []
    for label, model in tree["inputs"]["models"].items():
        if model["exposure"]:
            found.append(
                f"'{label}' may have seen the molecules that are asked about: {model['exposure']}. Its figures may "
                "measure memory."
            )
        for role, words in ((UNTRAINED, "its own architecture with random weights"), (BINNED_PEAKS, "binned peaks")):
            by_verdict: dict[str, list[str]] = {}
            for name, task in tree["tasks"].items():
                for difference in _row(task, label)["differences"]:
                    if difference["role"] == role and difference["metric"] == task["main"]:
                        by_verdict.setdefault(difference["verdict"], []).append(name)
            said = [
                f"{verb} {words} in {', '.join(by_verdict[verdict])}"
                for verdict, verb in VERDICT_WORDS.items()
                if verdict in by_verdict
            ]
            if said:
                found.append(f"'{label}' {'; '.join(said)}.")
    return found


def rows_table(task: Mapping[str, Any]) -> Table:
    """Return every row's metrics with intervals."""
    metrics = task["metrics"]
    cells = [(_shown(row), *(number(row["metrics"].get(metric)) for metric in metrics)) for row in task["rows"]]
    if task["kind"] == ZERO_SHOT:  # the expectation of guessing, the same for every row
        of = task["rows"][0]["metrics"]
        cells.insert(0, (CHANCE, *(f"{of[metric]['random']:.3f}" for metric in metrics)))
    return Table("", ("", *metrics), tuple(cells))


def differences_table(task: Mapping[str, Any], *, main_only: bool = False) -> Table:
    """Return what the models differ by from their twins, the baselines, guessing, and the reference."""
    cells = tuple(
        (
            row["label"],
            found["metric"],
            found["against"],
            number(found["estimate"], signed=True),
            f"{found['p corrected']:.4f}",
            found["verdict"],
        )
        for row in task["rows"]
        for found in row["differences"]
        if found["metric"] == task["main"] or not main_only
    )
    return Table("", ("", "metric", "against", "difference", "p corrected", "verdict"), cells)


def labels_table(task: Mapping[str, Any]) -> Table:
    """Return the main metric of each class, substructure or property, a column for each row of the table."""
    rows = task["rows"]
    cells = tuple((label, *(number(row["of label"][label]) for row in rows)) for label in task.get("labels", ()))
    return Table("", ("", *(str(row["label"]) for row in rows)), cells)


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables, and which could not be made."""
    missing = f"Not asked, since too few molecules have an answer: {', '.join(tree['not asked'])}. "
    return (missing if tree.get("not asked") else "") + (
        f"In brackets: 95% intervals, {tree['options']['resamples']:,} bootstrap resamples of molecules. In linear "
        "probes every molecule counts the same; searches count queries (or pairs), and ties count in expectation. "
        f"'{NO_SPECTRUM}' knows how frequent each answer is, and nothing else; '{CHANCE}' is guessing. Differences are "
        "paired by resample. 'beats' and 'loses' need an interval without 0 and a p-value of at most 0.05 after "
        "Holm's correction over all comparisons of the table in that metric; otherwise these data cannot tell."
    )


def markdown(tree: Mapping[str, Any]) -> str:
    """Return all tables of ``results.json`` as Markdown."""
    lines = [line for sentence in sentences(tree) for line in (sentence, "")]
    for name, task in tree["tasks"].items():
        lines += [f"## {name[0].upper()}{name[1:]} ({task['kind']})", "", count_line(task), ""]
        lines += [*markdown_lines(rows_table(task)), ""]
        lines += ["### Differences", "", *markdown_lines(differences_table(task)), ""]
        if task.get("labels") and not task["labels"][0].startswith("bit "):
            lines += [f"### {task['main'].removeprefix('macro ')} of each", "", *markdown_lines(labels_table(task)), ""]
    return "\n".join([*lines, footnote(tree), ""])


def print_tables(tree: Mapping[str, Any], console: Console) -> None:
    """Print the sentences and, of each task, the rows and the differences in its main metric."""
    for sentence in sentences(tree):
        console.print(sentence, style="bold", highlight=False, markup=False)
    for name, task in tree["tasks"].items():
        console.print(f"\n{name} ({task['kind']})", style="bold", highlight=False, markup=False)
        console.print(count_line(task), highlight=False, markup=False)
        main = {**task, "metrics": [metric for metric in task["metrics"] if metric in _IN_TERMINAL]}
        print_table(rows_table(main), console)
        print_table(differences_table(task, main_only=True), console)
    console.print("\n" + footnote(tree), highlight=False, markup=False)


_IN_TERMINAL = ("macro F1", "accuracy", "ROC AUC", "R2", "hit@1", "MRR", "Tanimoto@1")


def _shown(row: Mapping[str, Any]) -> str:
    trainings = f", {row['trainings']} trainings" if row["trainings"] > 1 else ""
    return f"{row['label']}{trainings}"


def _row(task: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    (row,) = (row for row in task["rows"] if row["label"] == label)
    return row
