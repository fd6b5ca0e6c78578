"""The report as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from .table import TITLES, count_line, footnote, tables

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .8rem 0 }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #ddd;
         font-variant-numeric: tabular-nums }
.beats { color: #1b7837; font-weight: 600 } .loses { color: #b2182b; font-weight: 600 } .unresolved { color: #8a6d00 }
.counts { color: #555 } svg { max-width: 100%; height: auto } figure { margin: 1.2rem 0 }
figcaption { color: #555 } pre { background: #f6f6f6; padding: .8rem; overflow: auto; font-size: 12px }
"""


def html_page(tree: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    tree : mapping
        The content of ``results.json``.
    figures : mapping of str to str
        SVG elements by caption.
    """
    body = ["<h1>ionbed evaluation</h1>"]
    for name, task in tree["tasks"].items():
        body.append(f"<h2>{escape(TITLES[name])}</h2><p class='counts'>{escape(count_line(task))}</p>")
        for header, rows in tables(task):
            body.append("<table><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>")
            body += ["<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows]
            body.append("</table>")
    body.append(f"<p class='counts'>{escape(footnote(tree))}</p>")
    body += [f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for caption, svg in figures.items()]
    made_from = json.dumps({"inputs": tree["inputs"], "config": tree["config"]}, indent=2, ensure_ascii=False)
    body.append(f"<h2>Inputs and configuration</h2><pre>{escape(made_from)}</pre>")
    head = f"<meta charset='utf-8'><title>ionbed evaluation</title><style>{STYLE}</style>"
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _cell(text: str) -> str:
    verdict = f" class='{text}'" if text in ("beats", "loses", "unresolved") else ""
    return f"<td{verdict}>{escape(text)}</td>"
