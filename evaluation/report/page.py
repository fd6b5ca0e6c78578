"""The report as one HTML page that needs nothing beside itself: the verdict first, then each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .explanations import (
    LEARNED,
    METRICS,
    QUESTIONS,
    ROWS,
    exposure_sentences,
    predicted_sentence,
    verdict_sentences,
    verdicts,
)
from .table import EXPOSED, TITLES, count_line, footnote, number, tables

if TYPE_CHECKING:
    from .drawing import Drawing

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.4rem; border-top: 1px solid #ddd; padding-top: 1.2rem }
h3 { font-size: 1rem } p, dl, figcaption { max-width: 50rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0; font-size: .94rem }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd; white-space: nowrap;
         font-variant-numeric: tabular-nums }
td.words { white-space: normal; min-width: 14rem } tr.learned td { font-weight: 600 }
tr td.beats { color: #1b7837; font-weight: 600 } tr td.loses { color: #b2182b; font-weight: 600 }
tr td.unresolved { color: #6f5700; font-weight: 600 }
.verdict { font-size: 1.1rem } .warning { background: #fff4d6; border-left: 4px solid #c98a00; padding: .5rem .8rem }
.counts, figcaption, dd { color: #555 } .counts { font-size: .9rem }
dt { font-weight: 600; float: left; margin-right: .5em }
dd { margin: 0 0 .2rem 0 } dd::before { content: "– " }
figure { margin: 1.4rem 0 } .panels { display: flex; flex-wrap: wrap; gap: .4rem 1rem; overflow-x: auto }
svg { max-width: 100%; height: auto } .wide svg { min-width: 40rem }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .4rem 0; padding: 0;
       font-size: .9rem }
.key i { display: inline-block; width: 1.8em; border-top: 3px solid; vertical-align: middle; margin-right: .4em }
pre { background: #f6f6f6; padding: .8rem; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere }
@media (max-width: 46rem) {
  .interval { display: block; font-size: .82em; font-weight: 400; color: #555 } td, th { padding-right: .6rem }
  th { white-space: normal }
  .stacked table, .stacked tbody, .stacked tr, .stacked td { display: block } .stacked tr:first-child { display: none }
  .stacked tr { border-bottom: 1px solid #ddd; padding: .5rem 0 } .stacked td { border: 0; padding: .05rem 0 }
  .stacked td::before { content: attr(data-column) ": "; color: #555; font-weight: 400 }
  .stacked td:first-child { font-weight: 600 } .stacked td:first-child::before { content: "" }
  .stacked .interval { display: inline }
}
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; padding: 0 } h2, h3 { break-after: avoid }
  figure, tr, dl { break-inside: avoid } .scroll, .panels { overflow: visible } .wide svg { min-width: 0 }
  * { print-color-adjust: exact }
}
"""

LINES = {"-": "solid", "--": "dashed", ":": "dotted"}


def html_page(tree: Mapping[str, Any], drawings: Sequence[Drawing]) -> str:
    """Return the page.

    Parameters
    ----------
    tree : mapping
        The content of ``results.json``.
    drawings : sequence of Drawing
        Each stands with its task, or at the end.
    """
    body = ["<h1>ionbed evaluation</h1>", *_verdict(tree)]
    for name, task in tree["tasks"].items():
        body.append(f"<h2>{escape(TITLES[name])}</h2>")
        for position, (header, rows) in enumerate(tables(task)):
            kinds = [row["kind"] for row in task["rows"]] if position == 0 else []
            if position == 0:
                body.append(_definitions({metric: METRICS[metric] for metric in header[1:]}))
            else:
                body.append("<h3>Difference to the best look-up</h3>")
            body.append(_table(header, rows, kinds, stacked=position > 0))
        body.append(f"<p class='counts'>{escape(count_line(task))}</p>")
        body += [_figure(drawing) for drawing in drawings if drawing.task == name]
    if others := [drawing for drawing in drawings if drawing.task is None]:
        body += ["<h2>Training</h2>", *map(_figure, others)]
    body += ["<h2>How to read this page</h2>", f"<p>{escape(footnote(tree))}</p>", "<h3>The rows</h3>"]
    body.append(_definitions({**ROWS, **dict.fromkeys(tree["inputs"]["models"], LEARNED)}))
    made_from = json.dumps({"inputs": tree["inputs"], "config": tree["config"]}, indent=2, ensure_ascii=False)
    body.append(f"<h2>Inputs and configuration</h2><pre>{escape(made_from)}</pre>")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>ionbed evaluation</title><style>{STYLE}</style>"
    )
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _verdict(tree: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know first: a sentence on each model, and its figures beside the best look-up's."""
    parts = [f"<p class='verdict'>{escape(sentence)}</p>" for sentence in verdict_sentences(tree)]
    parts += [f"<p class='warning'>{escape(sentence)}</p>" for sentence in exposure_sentences(tree)]
    predicted = predicted_sentence(tree)
    parts += [f"<p class='warning'>{escape(predicted)}</p>"] if predicted else []
    rows = [
        [
            QUESTIONS[found["task"]],
            f"{label} {EXPOSED}" if tree["inputs"]["models"][label]["exposure"] else label,
            f"{found['metric']} {number(found['own'])}",
            f"{found['against']} {number(found['other'])}",
            found["verdict"],
        ]
        for label, of_model in verdicts(tree).items()
        for found in of_model
    ]
    if rows:
        header = ["question", "model", "its figure", "best look-up", "verdict"]
        parts.append(_table(header, rows, stacked=True))
        parts.append(
            "<p class='counts'>A model beats or loses where the interval of the difference leaves out zero; otherwise "
            "these data cannot tell, and the verdict is unresolved.</p>"
        )
    return parts


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = (), *, stacked: bool = False
) -> str:
    """Return a table; ``kinds`` are those of the rows, and a ``stacked`` one is a list of rows in a narrow window."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>"]
    for position, row in enumerate(rows):
        kind = f" class='{kinds[position]}'" if kinds else ""
        lines.append(f"<tr{kind}>" + "".join(map(_cell, row, header)) + "</tr>")
    return f"<div class='scroll{' stacked' if stacked else ''}'><table>" + "\n".join(lines) + "</table></div>"


def _cell(text: str, column: str) -> str:
    """Return a cell; its column's name and the interval are marked, for a narrow window to show them apart."""
    value, bracket, interval = text.partition(" [")
    shown = f"{escape(value)} <span class='interval'>[{escape(interval)}</span>" if bracket else escape(text)
    kind = text if column == "verdict" else "words" if column == "question" else ""
    marks = f" class='{kind}'" if kind else ""
    return f"<td{marks} data-column='{escape(column)}'>{shown}</td>"


def _definitions(meanings: Mapping[str, str]) -> str:
    return (
        "<dl>"
        + "".join(f"<dt>{escape(term)}</dt><dd>{escape(said)}.</dd>" for term, said in meanings.items())
        + "</dl>"
    )


def _figure(drawing: Drawing) -> str:
    key = "".join(
        f"<li><i style='border-top-color: {colour}; border-top-style: {LINES[line]}'></i>{escape(meaning)}</li>"
        for colour, line, meaning in drawing.key
    )
    label = f" role='img' aria-label='{escape(drawing.caption, quote=True)}'"
    panels = "".join(panel.replace("<svg", f"<svg{label}", 1) for panel in drawing.panels)
    return (
        f"<figure><div class='panels{' wide' if drawing.wide else ''}'>{panels}</div><ul class='key'>{key}</ul>"
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )
