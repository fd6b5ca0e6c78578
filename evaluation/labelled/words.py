"""The results of a model of labels in sentences and tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...finetune.labelled.own_split import PRECURSOR_GROUPS
from ...finetune.molecule_share import share_in_use
from ..report.table import Table, number
from ..report.verdicts import listed
from .metrics import LOWER_IS_BETTER

VERBS = {"beats": "beats", "loses": "loses to", "unresolved": "cannot be told from"}
MOST_LABELS = 40
"""Labels that the page lists one by one."""


def sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know first: the verdict, and how far probabilities and ranges can be believed."""
    main = tree["main"]
    model = tree["rows"][-1]["metrics"][main]
    by_verdict: dict[str, list[str]] = {}
    for found in tree["differences"]:
        if found["metric"] == main:
            by_verdict.setdefault(found["verdict"], []).append(f"'{found['against']}'")
    against = "; ".join(f"{verb} {listed(by_verdict[v])}" for v, verb in VERBS.items() if v in by_verdict)
    test = tree["counts"]["test"]
    asked = f"on {test['spectra']:,} held-out spectra of {test['molecules']:,} molecules"
    if model["value"] is None:
        found = [f"{main} cannot be computed {asked}: their answers are all alike."]
    else:
        found = [f"{main} {number(model)} {asked}: the model {against}."]
    if calibration := tree.get("calibration"):
        before, after = (calibration[when] for when in ("before", "after"))
        found.append(
            f"Expected calibration error {before['error']:.3f} before and {after['error']:.3f} after calibration "
            f"({tree['kind of calibration']}); Brier score {before['Brier score']['value']:.3f} and "
            f"{after['Brier score']['value']:.3f}."
        )
    for name, of in tree.get("ranges", {}).items():
        if of["half width"] is not None:
            found.append(
                f"{name}: the range of {of['wanted']:.0%} is the prediction ± {of['half width']:.3g}, and holds "
                f"{of['held']:.0%} of the held-out numbers."
            )
    if drawn := share_in_use(tree["config"]["data"]):
        found.append(
            f"Model and baselines were trained on {tree['counts']['train']['molecules']:,} molecules: of those of the "
            f"training fold, a share of {drawn[0]:g} (seed {drawn[1]})."
        )
    return found


def warnings(tree: Mapping[str, Any]) -> list[str]:
    """Return what may mislead a reader of the tables."""
    found, test = [], tree["counts"]["test"]
    if tree["exposure"] is not None:
        found.append(
            "The encoder may have seen the held-out molecules before it was trained on these labels: "
            f"{tree['exposure']}. It has not seen these labels of theirs."
        )
    if shared := tree["test molecules trained on"]:
        found.append(
            f"The split does not keep molecules apart: {shared:,} of the {test['molecules']:,} held-out ones are "
            "trained on, and their labels may be remembered rather than predicted."
        )
    if tree["split"] == PRECURSOR_GROUPS:
        found.append("The split is by precursor: a molecule may be held out and trained on, as two adducts.")
    if test["molecules"] < 30:
        found.append("Fewer than 30 molecules are held out: other molecules may tell another story.")
    if tree["fitted"]["baselines"] < tree["fitted"]["model"]:
        found.append(
            f"The baselines were fitted on {tree['fitted']['baselines']:,} training spectra, drawn at random, the "
            f"model on {tree['fitted']['model']:,}: that may be a part of its lead. Raise report.max_train_spectra."
        )
    if tree["not asked"]:
        found.append(f"Not asked, since the test fold does not have both answers: {listed(tree['not asked'][:10])}"
                     f"{' and others' if len(tree['not asked']) > 10 else ''}.")  # fmt: skip
    return found


def rows_table(tree: Mapping[str, Any]) -> Table:
    """Return every row's metrics with intervals."""
    cells = tuple(
        (row["label"], *(number(row["metrics"].get(metric)) for metric in tree["metrics"])) for row in tree["rows"]
    )
    header = tuple(f"{metric} (lower is better)" if metric in LOWER_IS_BETTER else metric for metric in tree["metrics"])
    return Table("Held-out spectra, with intervals", ("", *header), cells, tuple(row["kind"] for row in tree["rows"]))


def differences_table(tree: Mapping[str, Any]) -> Table:
    """Return what the model differs by from every baseline."""
    cells = tuple(
        (
            found["metric"],
            found["against"],
            number(found["estimate"], signed=True),
            f"{found['p corrected']:.4f}",
            found["verdict"],
        )
        for found in tree["differences"]
    )
    return Table(
        "The model against the baselines", ("metric", "against", "difference", "p corrected", "verdict"), cells
    )


def labels_table(tree: Mapping[str, Any]) -> Table:
    """Return the main metric (of classes F1) of each label, a column for each row of the table."""
    rows = [row["label"] for row in tree["rows"]]
    shown = list(tree["of label"].items())[:MOST_LABELS]
    cells = tuple((name, *(number(of[row]) for row in rows)) for name, of in shown)
    metric = "F1" if tree["task"] == "classification" else tree["main"]
    return Table(f"{metric} of each", ("", *rows), cells)


def counts_table(tree: Mapping[str, Any]) -> Table:
    """Return spectra and molecules by fold."""
    cells = tuple((fold, f"{of['spectra']:,}", f"{of['molecules']:,}") for fold, of in tree["counts"].items())
    return Table("Labelled spectra", ("fold", "spectra", "molecules"), cells)


def join_table(tree: Mapping[str, Any]) -> Table:
    """Return what became of rows and spectra on the way to labels."""
    cells = tuple((what, f"{count:,}") for what, count in tree["label counts"].items())
    return Table("Labels", ("", "number"), cells)


def footnote(tree: Mapping[str, Any]) -> str:
    """Return how to read the tables."""
    told = (
        " The head on the encoder is told all that 'precursor only' knows."
        if tree["config"]["head"]["measurement"]
        else ""
    )
    votes = "molecule" if tree["config"]["head"]["votes"] == "molecule" else "spectrum"
    return (
        f"In brackets: 95% intervals, {tree['config']['report']['resamples']:,} bootstrap resamples of molecules "
        f"(fewer of many labels). Every {votes} has one vote. 'no spectrum' knows how frequent each answer "
        "is; 'precursor only' and 'binned peaks' are linear heads on the precursor m/z and on peaks in bins of 1 Da, "
        "both with polarity, charge and collision energy, fitted and calibrated as the model's head is."
        f"{told} 'beats' and "
        "'loses' need an interval of the difference without 0 and a p-value of at most 0.05 after Holm's correction."
    )
