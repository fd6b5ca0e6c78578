"""The report of a model of labels as Markdown and as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ...finetune.labelled.examples import LabelledSpectra
from ...finetune.labelled.model import Predictions
from ..report.confidence_figures import reliability
from ..report.drawing import BLUE, GREY, ORANGE, Drawing, blank_figure, svg_element
from ..report.markup import html_document, html_figure, html_table, paragraphs
from ..report.table import markdown_lines
from .words import (
    counts_table,
    differences_table,
    footnote,
    join_table,
    labels_table,
    rows_table,
    sentences,
    warnings,
)

MOST_CLASSES = 20
"""Classes of which a table of confusions can be read."""
MOST_POINTS = 3000
MOST_PANELS = 6


def markdown_report(tree: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    lines = [f"# {_title(tree)}", ""]
    for sentence in (*sentences(tree), *warnings(tree)):
        lines += [sentence, ""]
    for table in (rows_table(tree), differences_table(tree), labels_table(tree), counts_table(tree), join_table(tree)):
        if table.rows:
            lines += [f"## {table.title}", "", *markdown_lines(table), ""]
    return "\n".join([*lines, footnote(tree), ""])


def html_report(tree: Mapping[str, Any], predictions: Predictions, spectra: LabelledSpectra) -> str:
    """Return the page.

    Parameters
    ----------
    tree : mapping
        The content of ``results.json``.
    predictions : Predictions
        Of the model, for the test fold of ``spectra``.
    """
    body = [f"<h1>{escape(_title(tree))}</h1>", *paragraphs(sentences(tree), "verdict")]
    body += paragraphs(warnings(tree), "warning")
    body += [html_table(rows_table(tree)), html_table(differences_table(tree), stacked=True)]
    body += [html_figure(drawing) for drawing in drawings(tree, predictions, spectra)]
    if tree["of label"]:
        body += ["<h2>Label by label</h2>", html_table(labels_table(tree))]
    body += ["<h2>Data</h2>", html_table(counts_table(tree)), html_table(join_table(tree))]
    body += paragraphs(list(tree["label notes"]), "counts")
    body += ["<h2>How to read this page</h2>", f"<p>{escape(footnote(tree))}</p>"]
    options = json.dumps(tree["config"], indent=2, ensure_ascii=False)
    body.append(f"<h2>Configuration</h2><pre>{escape(options)}</pre>")
    return html_document(_title(tree), body)


def drawings(tree: Mapping[str, Any], predictions: Predictions, spectra: LabelledSpectra) -> list[Drawing]:
    """Return the figures: reliability, confusions of classes, predicted against true numbers."""
    truth = spectra.labels.values[spectra.test_rows]
    if tree["task"] == "regression":
        return [_scatter(predictions, truth)]
    found = [_reliability(tree)]
    if predictions.chosen is not None and len(predictions.names) <= MOST_CLASSES:
        votes = spectra.votes(spectra.test_rows)
        found.append(_confusions(predictions.names, predictions.chosen, truth[:, 0].astype(np.int64), votes))
    return found


def _title(tree: Mapping[str, Any]) -> str:
    return f"ionbed: {tree['task']} of {tree['source']}"


def _reliability(tree: Mapping[str, Any]) -> Drawing:
    curves = []
    for when, colour, style in (("before", ORANGE, "--"), ("after", BLUE, "-")):
        of = tree["calibration"][when]
        curves.append((f"{when} calibration (error {of['error']:.3f})", colour, style, of["confidence"], of["share"]))
    caption = (
        "Reliability: answers of one stated probability should be right in that share of the cases, along the dotted "
        "line. Each point is a tenth of the votes; in brackets the expected calibration error."
    )
    return reliability(caption, curves)


def _confusions(names: tuple[str, ...], chosen: np.ndarray, truth: np.ndarray, votes: np.ndarray) -> Drawing:
    size = len(names)
    table = np.zeros((size, size))
    np.add.at(table, (truth, chosen), votes)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    side = 2.4 + 0.35 * size
    figure = blank_figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(shares >= 0.005).tolist():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    caption = "Confusions: of each true class (row), the share of the votes that was predicted to be of each class."
    return Drawing(caption, (svg_element(figure),))


def _scatter(predictions: Predictions, truth: np.ndarray) -> Drawing:
    panels = []
    shown = np.arange(len(truth))
    if len(shown) > MOST_POINTS:
        shown = np.random.default_rng(0).choice(shown, MOST_POINTS, replace=False)
    for k, name in enumerate(predictions.names[:MOST_PANELS]):
        figure = blank_figure(3.6, 3.5)
        axes = figure.add_subplot()
        axes.plot(truth[shown, k], predictions.values[shown, k], ".", color=BLUE, markersize=2.5, alpha=0.4)
        known = truth[~np.isnan(truth[:, k]), k]
        if len(known):
            ends = [float(known.min()), float(known.max())]
            axes.plot(ends, ends, ":", color=GREY, linewidth=1.2)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("true", fontsize=9)
        axes.set_ylabel("predicted", fontsize=9)
        panels.append(svg_element(figure))
    caption = "Predicted against true numbers of held-out spectra; on the dotted line both are equal."
    return Drawing(caption, tuple(panels))
