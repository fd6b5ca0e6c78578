"""Runs as a table for the terminal and as JSON."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .runs import Run, differences, unlike_terms

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE_STYLES = {"running": "green", "failed": "red", "silent": "yellow", "damaged": "red"}
COLUMNS = ("run", "stage", "size", "state", "step", "loss", "valid.", "report", "tokens/s", "MFU", "hours", "proc.")
TEXT_COLUMNS = ("run", "stage", "state", "report")
LEFT_OUT_FIRST = ("proc.", "size", "hours", "tokens/s", "stage")
"""Columns that a narrow terminal does without, in this order."""


def print_runs(runs: Sequence[Run], console: Console) -> None:
    """Print the table, below it in which options the runs differ, and what there is to remark on single runs."""
    console.print(runs_table(runs, console.width))
    if any((different := differences(runs)).values()):
        console.print(differences_table({run.name: different[run.path] for run in runs}))
    for line in remarks(runs):
        console.print(line, markup=False, highlight=False)


def runs_table(runs: Sequence[Run], width: int) -> Table:
    """Return the runs as a table of ``width`` characters; a column that is empty for all is left out."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    rows = [dict(zip(COLUMNS, run_cells(run), strict=True)) for run in runs]
    needs = {name: 2 + max(len(text) for text in (name, *(row[name] for row in rows)))
             for name in COLUMNS if any(row[name] for row in rows)}  # fmt: skip
    for name in LEFT_OUT_FIRST:
        if sum(needs.values()) + 1 > width:
            needs.pop(name, None)
    columns = []
    for name in needs:
        justify: Literal["left", "right"] = "left" if name in TEXT_COLUMNS else "right"
        columns.append(Column(name, justify=justify, no_wrap=True))
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for run, row in zip(runs, rows, strict=True):
        styles = {"state": STATE_STYLES.get(run.state, "")}
        table.add_row(*(Text(row[name], styles.get(name, "")) for name in needs))
    return table


def differences_table(different: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the options of each run by its name, as a table."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    columns = Column("run", no_wrap=True), Column("differs in", overflow="fold")
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, values in different.items():
        if values:
            table.add_row(Text(name), Text(difference_words(values)))
    return table


def run_cells(run: Run) -> list[str]:
    """Return what the table tells of a run, in the order of `COLUMNS`."""
    steps = f"{run.step:,}" if run.steps is None else f"{run.step:,}/{run.steps:,}" if run.steps else ""
    state = f"{run.state} {ago(time.time() - run.last_line)}" if run.state == "silent" else run.state
    return [
        run.name,
        run.stage or "",
        "" if run.parameters is None else amount(run.parameters),
        state,
        steps,
        _number(run.loss, "{:.3f}"),
        _number(run.validation, "{:.3f}"),
        "" if run.report is None else f"{run.report[0]} {run.report[1]:.3f}",
        _number(run.tokens_per_second, "{:,.0f}"),
        _number(run.mfu, "{:.0%}"),
        "<0.01" if run.hours is not None and run.hours < 0.005 else _number(run.hours, "{:,.2f}"),
        "" if run.processes is None else f"{run.processes:,}",
    ]


def remarks(runs: Sequence[Run]) -> list[str]:
    """Return what there is to say below the table: errors, unreadable lines, losses that do not compare."""
    return [*(f"{run.name}: {remark}" for run in runs for remark in run.remarks), *unlike_terms(runs)]


def difference_words(values: Mapping[str, Any]) -> str:
    """Return options and their values in one line."""
    return ", ".join(f"{key}={_value(value)}" for key, value in values.items())


def to_json(runs: Sequence[Run]) -> str:
    """Return all that is known of the runs, without their lines, as a JSON list."""
    different = differences(runs)
    trees = []
    for run in runs:
        tree = {f.name: getattr(run, f.name) for f in fields(run) if f.name != "lines"}
        trees.append({**tree, "path": str(run.path), "differs_in": different[run.path]})
    return json.dumps(_finite(trees), indent=2, ensure_ascii=False, allow_nan=False)


def amount(number: float) -> str:
    """Return a large number in three digits: 5.03M, 101M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            digits = 2 - min(2, int(math.log10(number / size * 1.0005)))
            return f"{number / size:.{digits}f}{letter}"
    return f"{number:.0f}"


def ago(seconds: float) -> str:
    """Return a time in its largest unit: 40 min, 3 h, 12 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size or unit == "min":
            return f"{seconds / size:.0f} {unit}"
    raise AssertionError


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _value(value: Any) -> str:
    if isinstance(value, str) and "/" in value:  # of a path, what tells it apart
        return Path(value).name
    return value if isinstance(value, str) else json.dumps(value)


def _finite(value: Any) -> Any:
    """Return a tree with null for what is no finite number, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
