"""The demo's own page: what was run, some searches with their mirror plots, and the way to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..evaluation.page import STYLE
from ..evaluation.table import TITLES, count_line, footnote, tables
from .searches import COLUMNS, ShownSearch, hit_rows, query_line

NOTICE_STYLE = ".notice { background: #fff4d6; border-left: 4px solid #c98a00; padding: .7rem 1rem }"


def write_page(
    out: Path,
    notice: str,
    stages: Sequence[tuple[str, float, str]],
    shown: Sequence[ShownSearch],
    results: dict[str, Any],
) -> None:
    """Write ``report.html`` in ``out``, beside ``mirror-1.svg`` and the following (one per search of ``shown``)."""
    body = ["<h1>ionbed demo: predicted spectra</h1>", f"<p class='notice'>{escape(notice)}</p>"]
    body.append("<h2>What was run</h2>")
    body.append(_table(("stage", "seconds", "outcome"), [(n, f"{s:.0f}", said) for n, s, said in stages]))
    body.append("<h2>Searches, drawn at random where several molecules compete</h2>")
    for number, search in enumerate(shown, start=1):
        body.append(f"<h3>Query: {escape(query_line(search.query))}</h3>")
        body.append(_table(COLUMNS, hit_rows(search)))
        svg = (out / f"mirror-{number}.svg").read_text(encoding="utf-8")
        svg = svg[svg.index("<svg") :]
        body.append(
            f"<figure>{svg}<figcaption>The query (up) and its best hit (down), both predicted</figcaption></figure>"
        )
    body.append("<h2>Evaluation, on predicted spectra</h2>")
    body.append(
        "<p>Score distributions, loss curves and all figures: <a href='evaluation/report.html'>the report</a>.</p>"
    )
    for name, task in results["tasks"].items():
        body.append(f"<h3>{escape(TITLES[name])}</h3><p class='counts'>{escape(count_line(task))}</p>")
        body += [_table(header, cells) for header, cells in tables(task)]
    body.append(f"<p class='counts'>{escape(footnote(results))}</p>")
    head = f"<meta charset='utf-8'><title>ionbed demo</title><style>{STYLE}{NOTICE_STYLE}</style>"
    page = f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    (out / "report.html").write_text(page, encoding="utf-8")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
