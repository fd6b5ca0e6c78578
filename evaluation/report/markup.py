"""The pieces of a report's HTML: its style, tables, figures and lists of definitions."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from .explanations import KIND_TITLES, VERDICT_WORDS
from .table import Table

if TYPE_CHECKING:
    from .drawing import Drawing

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.6rem; border-top: 1px solid #ccc; padding-top: 1.2rem }
h3 { font-size: 1rem; margin: 1.6rem 0 .2rem } p, dl, figcaption { max-width: 50rem } a { color: #00518a }
nav ul { padding-left: 1.2rem; columns: 22rem; margin: .3rem 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: .6rem 0; font-size: .94rem }
caption { text-align: left; font-weight: 600; padding: .2rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd;
         white-space: nowrap; font-variant-numeric: tabular-nums; font-weight: 400 }
thead th { font-weight: 600; vertical-align: bottom }
tbody th[scope=row] { position: sticky; left: 0; background: #fff }
th.group { font-size: .85rem; color: #555; padding-top: .7rem; font-style: italic }
td.words { white-space: normal; min-width: 14rem } tbody.learned th[scope=row], tbody.learned td { font-weight: 600 }
.interval { display: block; font-size: .8em; font-weight: 400; color: #555 }
td.beats { color: #1b7837; font-weight: 600 } td.loses, td.failed, td.void { color: #b2182b; font-weight: 600 }
td.unresolved, td.unknown { color: #6f5700; font-weight: 600 } td.passed { color: #1b7837 }
td.beats, td.loses, td.unresolved, .stacked th[scope=row] { white-space: normal }
.verdict { font-size: 1.1rem; margin: .5rem 0 }
.warning { background: #fff4d6; border-left: 4px solid #c98a00; padding: .5rem .8rem }
.alarm { background: #fde8e8; border-left: 6px solid #b2182b; padding: .6rem .8rem; color: #6d0d1b }
.counts, figcaption, dd { color: #555 } .counts { font-size: .9rem }
dl > div { margin: 0 0 .15rem } dt { font-weight: 600; display: inline } dd { margin: 0; display: inline }
dd::before { content: "– " } details { margin: .6rem 0 } summary { cursor: pointer; font-weight: 600 }
figure { margin: 1.4rem 0 } .panels { display: flex; flex-wrap: wrap; gap: .4rem 1rem; overflow-x: auto }
svg { max-width: 100%; height: auto } .wide svg:first-child { min-width: 40rem }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.4rem; margin: .4rem 0; padding: 0;
       font-size: .9rem }
.key i { display: inline-block; width: 1.8em; border-top: 3px solid; vertical-align: middle; margin-right: .4em }
pre { background: #f6f6f6; padding: .8rem; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere }
@media (max-width: 46rem) {
  td, th { padding-right: .6rem } thead th { white-space: normal } body { margin: 1rem auto }
  .stacked table, .stacked tbody, .stacked tr, .stacked td, .stacked tbody th { display: block; white-space: normal }
  .stacked thead { position: absolute; left: -999rem } .stacked caption { display: block }
  .stacked tr { border-bottom: 1px solid #ddd; padding: .5rem 0 }
  .stacked td, .stacked tbody th { border: 0; padding: .05rem 0; position: static; min-width: 0 }
  .stacked td::before { content: attr(data-column) ": "; color: #555; font-weight: 400 }
  .stacked th[scope=row] { font-weight: 600 } .stacked .interval { display: inline }
}
@media print {
  html { font-size: 9.5pt } body { font-size: 1rem; margin: 0; max-width: none; padding: 0 }
  h2, h3, caption { break-after: avoid }
  figure, tr, dl > div, .alarm, .warning { break-inside: avoid } .scroll, .panels { overflow: visible }
  thead { display: table-header-group } .wide svg:first-child { min-width: 0 } nav { display: none }
  table { font-size: 8pt } th, td { padding-right: .5rem; white-space: normal } td.words { min-width: 0 }
  details::details-content { content-visibility: visible; block-size: auto } summary { list-style: none }
  * { print-color-adjust: exact }
}
"""

LINES = {"-": "solid", "--": "dashed", ":": "dotted"}

WORDY = ("evidence", "outcome")
"""Columns whose text may take several lines."""


def html_document(title: str, body: list[str], *, style: str = STYLE) -> str:
    """Return a whole page that needs nothing beside itself."""
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    inner = "\n".join(body)
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body><main>\n{inner}\n</main></body></html>\n"


def paragraphs(sentences: list[str], kind: str) -> list[str]:
    """Return each sentence as a paragraph of the class ``kind``."""
    return [f"<p class='{kind}'>{escape(sentence)}</p>" for sentence in sentences]


def html_table(table: Table, *, stacked: bool = False, caption: bool = True) -> str:
    """Return a table; rows of one group stand together, and a ``stacked`` one is a list of rows in a narrow window."""
    head = "".join(f"<th scope='col'>{escape(cell) or '<span></span>'}</th>" for cell in table.header)
    numbered = enumerate(table.rows)
    body = []
    for group, members in groupby(numbered, key=lambda pair: table.groups[pair[0]] if table.groups else ""):
        lines = [_row(row, table.header) for _, row in members]
        title = ""
        if group:
            text = escape(KIND_TITLES[group])
            title = f"<tr><th class='group' scope='rowgroup' colspan='{len(table.header)}'>{text}</th></tr>"
        body.append(f"<tbody class='{group}'>{title}" + "\n".join(lines) + "</tbody>")
    named = f"<caption>{escape(table.title)}</caption>" if caption and table.title else ""
    # What scrolls must be reached by the keyboard, and must have a name.
    region = f" role='region' aria-label='{escape(table.title, quote=True)}' tabindex='0'" if table.title else ""
    return (
        f"<div class='scroll{' stacked' if stacked else ''}'{region}><table>{named}<thead><tr>{head}</tr></thead>"
        + "\n".join(body)
        + "</table></div>"
    )


def folded(summary: str, *parts: str) -> str:
    """Return parts that a reader may unfold; a printed page shows them."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"


def definitions(meanings: Mapping[str, str]) -> str:
    """Return terms with their meanings."""
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{escape(term)}</dt> <dd>{escape(said.rstrip('.'))}.</dd></div>"
            for term, said in meanings.items()
        )
        + "</dl>"
    )


def html_figure(drawing: Drawing) -> str:
    """Return a figure with its key and caption; each panel tells a screen reader what it is."""
    key = "".join(
        f"<li><i style='border-top-color: {colour}; border-top-style: {LINES[line]}'></i>{escape(meaning)}</li>"
        for colour, line, meaning in drawing.key
    )
    label = f" role='img' aria-label='{escape(drawing.caption, quote=True)}'"
    panels = "".join(panel.replace("<svg", f"<svg{label}", 1) for panel in drawing.panels)
    listed = f"<ul class='key'>{key}</ul>" if key else ""
    return (
        f"<figure><div class='panels{' wide' if drawing.wide else ''}'>{panels}</div>{listed}"
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>"
    )


def _row(row: tuple[str, ...], header: tuple[str, ...]) -> str:
    first = f"<th scope='row'>{_shown(row[0])}</th>"
    return f"<tr>{first}{''.join(map(_cell, row[1:], header[1:]))}</tr>"


def _cell(text: str, column: str) -> str:
    kind = _kind(text, column)
    marks = f" class='{kind}'" if kind else ""
    return f"<td{marks} data-column='{escape(column, quote=True)}'>{_shown(text)}</td>"


def _shown(text: str) -> str:
    """Return a cell's text; its interval, or the opponent of a verdict, is marked to be shown smaller."""
    verdict, colon, opponent = text.partition(": ")
    if colon and verdict in VERDICT_WORDS:
        return f"{escape(verdict)} <span class='interval'>{escape(opponent)}</span>"
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)} <span class='interval'>[{escape(interval)}</span>" if bracket else escape(text)


def _kind(text: str, column: str) -> str:
    """Return the class of a cell: the verdict or the outcome of an audit that it states, or that it holds words."""
    for verdict in VERDICT_WORDS:
        if text == verdict or text.startswith(f"{verdict}: "):
            return verdict
    if text.startswith("void "):
        return "void"
    if column == "result":
        return {"passed": "passed", "failed": "failed"}.get(text, "unknown")
    return "words" if column in WORDY else ""
