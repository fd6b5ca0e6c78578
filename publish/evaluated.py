"""The evaluation on a model card: what a report, or a probe, has measured of this very model, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts import MANIFEST, read_object, read_object_or_empty
from ..errors import InputError
from ..evaluation.report.explanations import TRANSFER
from ..evaluation.report.results import RESULTS, load_results
from ..evaluation.report.table import Table, markdown_lines, number, verdict_table
from ..evaluation.report.verdicts import (
    audit_sentence,
    exposure_sentences,
    failed_audits,
    predicted_sentence,
    verdict_sentences,
    void_sentences,
)

PROBE = "probe"
"""What the manifest of a probe calls the command."""


def evaluation_text(folder: str | os.PathLike[str], model_hash: str) -> str:
    """Return, as Markdown, what the results in ``folder`` say of the model of ``model_hash``.

    Parameters
    ----------
    folder : path
        Written by ``ionbed evaluate`` (a report) or ``ionbed probe``.

    Raises
    ------
    InputError
        There are no such results, they are about other models, or about the mean of several trainings.
    """
    if read_object_or_empty(Path(folder) / MANIFEST).get("command") == PROBE:
        tree = _load_probe(Path(folder))
        return _probe_text(tree, _label(tree, model_hash, folder), folder)
    tree = load_results(folder)
    return _report_text(tree, _label(tree, model_hash, folder), folder)


def _label(tree: Mapping[str, Any], model_hash: str, folder: str | os.PathLike[str]) -> str:
    """Return under which name the results speak of the model."""
    models = tree["inputs"].get("models", {})
    for label, about in models.items():
        hashes = about.get("hash") or []
        if model_hash in hashes:
            if len(hashes) > 1:
                raise InputError(
                    f"{folder}: the figures of '{label}' are means over {len(hashes)} trainings, this model is one of "
                    "them; evaluate it by itself"
                )
            return str(label)
    raise InputError(
        f"{folder}: holds no figures of this model (hash {model_hash[:12]}), only of {', '.join(models) or 'none'}; "
        "evaluate this one"
    )


def _report_text(tree: Mapping[str, Any], label: str, folder: str | os.PathLike[str]) -> str:
    inputs, split = tree["inputs"], tree["inputs"]["split"]
    whole = verdict_table(tree)
    rows = [row for row in whole.rows if _unmarked(row[1]) in (label, label + TRANSFER)]
    if not rows:
        raise InputError(f"{folder}: nothing was measured of '{label}'; run an evaluation that asks it something")
    table = Table("", ("question", "row", *whole.header[2:]), tuple(rows))
    sentences = [*verdict_sentences(tree), *void_sentences(tree), *exposure_sentences(tree)]
    said = [sentence for sentence in sentences if _is_about(sentence, label)]
    parts = [
        f"'{label}' in the table is this model. Measured by `ionbed evaluate` (ionbed {_version(Path(folder))}) on "
        f"the fold '{tree['config']['fold']}' of {inputs['spectra']:,} spectra of {inputs['molecules']:,} molecules, "
        f"by a split of kind {split['kind']} (hash `{split['hash'][:12]}`). Intervals (95%) are over molecules.",
        "\n".join(markdown_lines(table)),
        "\n".join(f"- {sentence}" for sentence in [*said, audit_sentence(tree)]),
    ]
    if failed := failed_audits(tree):
        parts.append("\n".join(f"- Audit failed: {f['audit']} ({f['about']}): {f['sentence']}" for f in failed))
    if predicted := predicted_sentence(tree):
        parts.append(predicted)
    return "\n\n".join(parts)


def _probe_text(tree: Mapping[str, Any], label: str, folder: str | os.PathLike[str]) -> str:
    inputs, split = tree["inputs"], tree["inputs"]["split"]
    found = [(name, task, row) for name, task in tree["tasks"].items() for row in task["rows"] if row["label"] == label]
    if not found:
        raise InputError(f"{folder}: nothing was measured of '{label}'; run the probe again")
    roles = list(dict.fromkeys(d["role"] for _, task, row in found for d in row["differences"]))
    rows = [
        (name, f"{task['main']} {number(row['metrics'][task['main']])}", *(_against(task, row, r) for r in roles))
        for name, task, row in found
    ]
    table = Table("", ("task", "this model", *(f"against {role}" for role in roles)), tuple(rows))
    exposed = inputs["models"][label].get("exposure")
    parts = [
        f"The frozen encoder, probed by linear heads and searches (ionbed {_version(Path(folder))}): heads trained on "
        f"{inputs['spectra']['train']:,} spectra of {inputs['molecules']['train']:,} molecules, asked about "
        f"{inputs['spectra']['asked']:,} spectra of {inputs['molecules']['asked']:,} molecules of the fold "
        f"'{tree['options']['fold']}'; the split is of kind {split['kind']}, hash `{split['hash'][:12]}`. Intervals "
        "(95%) are over molecules.",
        "\n".join(markdown_lines(table)),
    ]
    if exposed:
        parts.append(f"The model may have seen the molecules that are asked about: {exposed}.")
    return "\n\n".join(parts)


def _against(task: Mapping[str, Any], row: Mapping[str, Any], role: str) -> str:
    """Return the verdict of a row of a probe in the main metric against what has a role, with the other's figure."""
    for difference in row["differences"]:
        if difference["role"] == role and difference["metric"] == task["main"]:
            others = [r for r in task["rows"] if r["label"] == difference["against"]]
            own = row["metrics"][task["main"]]  # of a search it tells what guessing gives
            estimate = (
                others[0]["metrics"][task["main"]] if others else {"value": own.get(difference["against"]), "low": None}
            )
            figure = f" {number(estimate)}" if estimate["value"] is not None else ""
            return f"{difference['verdict']}: {difference['against']}{figure}"
    return "-"


def _unmarked(label: str) -> str:
    """Return the label of a row without the signs of exposure or of a void."""
    return label.rstrip(" †‡")


def _is_about(sentence: str, label: str) -> bool:
    named = (f"'{label}' ", f"'{label}':", f"The figures of '{label}' ", f"The figures of '{label}{TRANSFER}' ")
    return sentence.startswith(named)


def _version(folder: Path) -> str:
    return str(read_object_or_empty(folder / MANIFEST).get("ionbed_version", "of unknown version"))


def _load_probe(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    try:
        tree = read_object(path)
        if not {"inputs", "tasks", "options"} <= set(tree):
            raise ValueError("inputs, tasks or options are missing")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:100]}); run the probe again"
        ) from None
    return tree
