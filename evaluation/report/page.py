"""The report as one HTML page that needs nothing beside itself: failed audits and the verdict first, then the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .explanations import METRICS, QUESTIONS, TITLES, explained_row
from .markup import definitions, folded, html_document, html_figure, html_table, paragraphs
from .results import file_name
from .table import (
    AUDIT_WORDS,
    Table,
    audit_counts_table,
    audits_table,
    count_line,
    exact_sentence,
    footnote,
    metrics_of,
    metrics_table,
    ordered_rows,
    tables,
    verdict_table,
)
from .trust import trust_sentences
from .verdicts import audit_sentence, failed_audits, measured, verdict_sentences, warnings

if TYPE_CHECKING:
    from .drawing import Drawing


def html_page(tree: Mapping[str, Any], drawings: Sequence[Drawing]) -> str:
    """Return the page.

    Parameters
    ----------
    tree : mapping
        The content of ``results.json``.
    drawings : sequence of Drawing
        Each stands with its question, or at the end.
    """
    body = ["<h1>ionbed evaluation</h1>", f"<p class='counts'>{escape(_subject(tree))}</p>", *_verdict(tree)]
    body += _contents(tree, drawings)
    for name, task in tree["tasks"].items():
        body += _question(name, task, [drawing for drawing in drawings if drawing.task == name])
    body += _audits(tree)
    if others := [drawing for drawing in drawings if drawing.task is None]:
        body += ["<h2 id='training'>Training</h2>", *map(html_figure, others)]
    body += ["<h2 id='reading'>How to read this page</h2>", f"<p>{escape(footnote(tree))}</p>", "<h3>The rows</h3>"]
    rows = {str(row["label"]): explained_row(row) for _, task in measured(tree) for row in ordered_rows(task)}
    body.append(definitions(rows))
    if "look-ups" in tree["inputs"]:
        body += _lookups(tree["inputs"]["look-ups"])
    made_from = json.dumps({"inputs": tree["inputs"], "config": tree["config"]}, indent=2, ensure_ascii=False)
    body.append(f"<h2 id='inputs'>Inputs and configuration</h2><pre>{escape(made_from)}</pre>")
    return html_document("ionbed evaluation", body)


def _subject(tree: Mapping[str, Any]) -> str:
    """Return what was evaluated on what, in one line."""
    inputs, config = tree["inputs"], tree["config"]
    parts = []
    if "spectra" in inputs:
        parts.append(f"{inputs['spectra']:,} spectra of {inputs['molecules']:,} molecules")
    if split := inputs.get("split"):
        parts.append(f"split {split['kind']} ({split['hash'][:12]}), fold '{config.get('fold', 'test')}'")
    return "; ".join(parts)


def _verdict(tree: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know first."""
    parts = [
        f"<p class='alarm' role='alert'><strong>Audit failed: {escape(found['audit'])} ({escape(found['about'])})."
        f"</strong> {escape(found['sentence'])}</p>"
        for found in failed_audits(tree)
    ]
    parts += paragraphs(verdict_sentences(tree), "verdict")
    parts += paragraphs(warnings(tree), "warning")
    table = verdict_table(tree)
    if table.rows:
        parts.append(html_table(table, stacked=True, caption=False))
    parts.append(f"<p class='counts'>{escape(audit_sentence(tree))} <a href='#audits'>All audits</a></p>")
    return parts


def _contents(tree: Mapping[str, Any], drawings: Sequence[Drawing]) -> list[str]:
    entries = [(file_name(name), TITLES.get(name, name)) for name in tree["tasks"]]
    entries.append(("audits", "Audits"))
    if any(drawing.task is None for drawing in drawings):
        entries.append(("training", "Training"))
    entries += [("reading", "How to read this page"), ("inputs", "Inputs and configuration")]
    links = "".join(f"<li><a href='#{to}'>{escape(title)}</a></li>" for to, title in entries)
    return [f"<nav aria-label='Contents'><ul>{links}</ul></nav>"]


def _audits(tree: Mapping[str, Any]) -> list[str]:
    """Return how many audits passed, and every finding: those that did not pass stand open."""
    body = ["<h2 id='audits'>Audits</h2>", f"<p>{escape(audit_sentence(tree))}</p>"]
    table = audits_table(tree)
    if not table.rows:
        return body
    body.append(html_table(audit_counts_table(tree), caption=False))
    for result, title, is_open in (
        (AUDIT_WORDS[False], "Failed", True),
        (AUDIT_WORDS[None], "Could not be run", False),
        (AUDIT_WORDS[True], "Passed", False),
    ):
        rows = tuple(row for row in table.rows if row[2] == result)
        if rows:
            shown = html_table(Table("", table.header, rows), stacked=True)
            body.append(f"<h3>{title}</h3>{shown}" if is_open else folded(f"{title} ({len(rows):,})", shown))
    return body


def _lookups(record: Mapping[str, Any]) -> list[str]:
    """Return what the look-ups do to spectra, step by step, and how far they agree with the published programs."""
    steps = "".join(f"<li>{escape(step)}</li>" for step in record["steps"])
    body = ["<h3>What the look-ups do to a spectrum</h3>", f"<ol>{steps}</ol>"]
    body.append(definitions(record["scores"]))
    rows = tuple(
        (label, str(of["against"]), f"{of['pairs']:,}", f"{of['largest_difference']:.2g}")
        for label, of in record["agreement"].items()
    )
    header = ("", "published function", "pairs compared", "largest difference")
    body.append(html_table(Table("Agreement with the published programs, on spectra of this data set", header, rows)))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return [*body, f"<p class='counts'>{escape(versions)}</p>"]


def _question(name: str, task: Mapping[str, Any], drawings: Sequence[Drawing]) -> list[str]:
    body = [f"<h2 id='{file_name(name)}'>{escape(TITLES.get(name, name))}</h2>"]
    if name in QUESTIONS:
        body.append(f"<p>{escape(QUESTIONS[name])}</p>")
    if not task["rows"]:
        return [*body, f"<p class='counts'>{escape(count_line(task))}</p>"]
    body.append(html_table(metrics_table(task)))
    body.append(f"<p class='counts'>{escape(count_line(task))}</p>")
    if exact := exact_sentence(task):
        body.append(f"<p class='counts'>{escape(exact)}</p>")
    body.append(definitions({metric: METRICS.get(metric, "") for metric in metrics_of(task)}))
    body += [
        folded(table.title, html_table(table, stacked=table.title == "Differences", caption=False))
        for table in tables(task)[1:]
    ]
    body += [html_figure(drawing) for drawing in drawings]
    trusted = [sentence for row in ordered_rows(task) for sentence in trust_of(row)]
    if trusted:
        body += ["<h3>Where the predictions can be trusted</h3>", *paragraphs(trusted, "trust")]
    return body


def trust_of(row: Mapping[str, Any]) -> list[str]:
    """Return where a model can be trusted, in words; empty for all other rows, and where an audit has failed."""
    if row["kind"] != "learned" or row["void"] or not row.get("trust"):
        return []
    return trust_sentences(str(row["label"]), row["trust"])
