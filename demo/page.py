"""The demo's own page: what was run, some searches with their mirror plots, and the way to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..evaluation.report.explanations import TITLES
from ..evaluation.report.markup import STYLE, html_document, html_table
from ..evaluation.report.table import Table, count_line, footnote, metrics_table
from ..evaluation.report.verdicts import verdict_sentences
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
    stage_rows = tuple((name, f"{seconds:.0f}", said) for name, seconds, said in stages)
    body.append(html_table(Table("", ("stage", "seconds", "outcome"), stage_rows)))
    body.append("<h2>Searches, drawn at random where several molecules compete</h2>")
    for number, search in enumerate(shown, start=1):
        body.append(f"<h3>Query: {escape(query_line(search.query))}</h3>")
        body.append(html_table(Table("", COLUMNS, tuple(hit_rows(search)))))
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
        if task["rows"]:
            body.append(html_table(metrics_table(task), caption=False))
    body.append(f"<p class='counts'>{escape(footnote(results))}</p>")
    page = html_document("ionbed demo", body, style=STYLE + DEMO_STYLE)
    (out / "report.html").write_text(page, encoding="utf-8")
