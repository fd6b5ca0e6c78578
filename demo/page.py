"""The demo's own page: what was run, some searches with their mirror plots, and the way to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..evaluation.report.explanations import verdict_sentences
from ..evaluation.report.page import STYLE
from ..evaluation.report.table import TITLES, count_line, footnote, tables
from .searches import COLUMNS, ShownSearch, hit_rows, query_line

DEMO_STYLE = """
.notice { background: #fff4d6; border-left: 4px solid #c98a00; padding: .7rem 1rem }
td.words { min-width: 16rem }
"""


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
    body += [f"<p class='verdict'>{escape(sentence)}</p>" for sentence in verdict_sentences(results)]
    body.append(
        "<p>Score distributions, loss curves and all figures: <a href='evaluation/report.html'>the report</a>.</p>"
    )
    for name, task in results["tasks"].items():
        body.append(f"<h3>{escape(TITLES[name])}</h3><p class='counts'>{escape(count_line(task))}</p>")
        body += [_table(header, cells) for header, cells in tables(task)]
    body.append(f"<p class='counts'>{escape(footnote(results))}</p>")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>ionbed demo</title><style>{STYLE}{DEMO_STYLE}</style>"
    )
    page = f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    (out / "report.html").write_text(page, encoding="utf-8")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls by itself in a narrow window; what a stage said may take several lines."""
    marks = [" class='words'" if name == "outcome" else "" for name in header]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"
