"""The report of a model of labels: its test fold, beside plain baselines, as tables, figures, JSON and Parquet."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...artifacts import atomic_folder, read_manifest, write_manifest
from ...configs.loading import build, to_tree
from ...errors import InputError
from ...finetune.labelled.calibration import uncalibrated
from ...finetune.labelled.config import LabelledConfig
from ...finetune.labelled.examples import LabelledSpectra
from ...finetune.labelled.model import HEAD, LabelledModel, Predictions, load_labelled_model, move_to_device
from ...finetune.labelled.predict import prediction_table
from ...finetune.labelled.run import train_on_labels
from ...pretrain.processes import process_state
from ...pretrain.run import COLUMNS, MODEL_FOLDER
from ...pretrain.signals import StopSignal
from ..probe.scores import Scored
from ..provenance import exposure, training_stages
from ..statistics import bootstrap_p, compare, confirmed, estimate, holm
from .baselines import KINDS, baseline_predictions
from .metrics import LOWER_IS_BETTER, LabelJudge, metrics_of, reliability

logger = logging.getLogger("ionbed")

REPORT = "report"
FORMAT = 1
"""Of ``results.json``."""
RESULTS, TABLE, PAGE, PREDICTIONS = "results.json", "table.md", "report.html", "predictions.parquet"
CONFIDENCE = 0.95
MODEL = "model"
"""Label of the row of the trained model."""


def train_and_report(config: LabelledConfig, *, resume: str | None = None, stop: StopSignal | None = None) -> Path:
    """Train a model of labels (`ionbed.finetune.labelled.run.train_on_labels`), then write its report.

    Returns
    -------
    Path
        The model folder; the report is beside it.
    """
    folder = train_on_labels(config, resume=resume, stop=stop)
    if process_state().is_main_process and (folder / HEAD).is_file():
        write_report(config.output)
    return folder


def write_report(output: Path) -> Path:
    """Write the report of a finished run into ``output / 'report'``.

    Parameters
    ----------
    output : Path
        Of ``ionbed finetune`` with a task.

    Raises
    ------
    InputError
        There is no finished run, or its store, split or labels have changed.
    """
    from .page import html_report, markdown_report
    from .words import sentences, warnings

    manifest = read_manifest(output, made_by="finetune")
    config = build(LabelledConfig, manifest["config"], str(output))
    model = load_labelled_model(output / MODEL_FOLDER)
    try:
        spectra = LabelledSpectra(config, output / COLUMNS, quiet=True)
        if spectra.labels.hash != model.about["labels"]["sha256"]:
            raise InputError(f"{output}: its labels have changed since it was trained; train again")
        if not len(spectra.test_rows):
            logger.warning("the fold 'test' of the split has no labelled spectrum: there is no report")
            return output / REPORT
        predictions, tree = results_of(config, model, spectra)
    finally:
        shutil.rmtree(output / COLUMNS, ignore_errors=True)
    tree = {"format": FORMAT, "config": to_tree(config), **tree}
    with atomic_folder(output / REPORT, overwrite=True) as folder:
        text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / RESULTS).write_text(text + "\n", encoding="utf-8")
        (folder / TABLE).write_text(markdown_report(tree), encoding="utf-8")
        (folder / PAGE).write_text(html_report(tree, predictions[MODEL], spectra), encoding="utf-8")
        pq.write_table(_table(predictions[MODEL], spectra), folder / PREDICTIONS, compression="zstd")
        inputs = {"model": manifest["model_hash"], "labels": spectra.labels.hash}
        entries = {"command": "finetune", "config": tree["config"], "seed": config.training.seed, "inputs": inputs}
        write_manifest(folder, entries)
    for sentence in sentences(tree):
        logger.info("%s", sentence)
    for warning in warnings(tree):
        logger.warning("%s", warning)
    logger.info("the report is %s", output / REPORT / PAGE)
    return output / REPORT


def results_of(
    config: LabelledConfig, model: LabelledModel, spectra: LabelledSpectra
) -> tuple[dict[str, Predictions], dict[str, Any]]:
    """Return the predictions of every row for the test fold, and what they are worth."""
    rows, labels = spectra.test_rows, spectra.labels
    move_to_device(model, process_state().device)
    predictions = baseline_predictions(config, spectra, rows)
    predictions[MODEL] = model.predict(spectra.columns(rows), progress=True)
    votes = spectra.votes(rows)
    judge = LabelJudge(
        config.task, labels.names, labels.values[rows], spectra.molecule[rows], votes,
        resamples=config.report.resamples, seed=config.training.seed,
    )  # fmt: skip
    scored = {label: judge(of.values, of.chosen) for label, of in predictions.items()}
    main = metrics_of(config.task, labels.num_outputs)[0]
    of_label = {
        name: {row: asdict(estimate(of.of_label[name], CONFIDENCE)) for row, of in scored.items()}
        for name in labels.names
        if name in scored[MODEL].of_label
    }
    tree: dict[str, Any] = {
        "task": config.task,
        "labels": list(labels.names),
        "source": labels.source,
        "label counts": labels.counts,
        "label notes": list(labels.notes),
        "counts": _counts(spectra),
        "split": spectra.split.kind if spectra.split else None,
        "test molecules trained on": len(np.intersect1d(spectra.molecule[rows], spectra.molecule[spectra.train_rows])),
        "trained": config.init.train,
        "fitted": {
            "model": model.about["fitted"]["spectra"],
            "baselines": min(len(spectra.train_rows), config.report.max_train_spectra),
        },
        "exposure": _exposure(model, spectra),
        "main": main,
        "metrics": list(scored[MODEL].metrics),
        "rows": [
            {
                "label": label,
                "kind": KINDS.get(label, "learned"),
                "metrics": {name: asdict(estimate(of, CONFIDENCE)) for name, of in scored[label].metrics.items()},
            }
            for label in predictions
        ],
        "differences": _differences(scored),
        "of label": of_label,
        "not asked": [name for name in labels.names if name not in of_label],
        "kind of calibration": model.calibration.kind,
    }
    if config.task == "regression":
        tree["ranges"] = _ranges(predictions[MODEL], labels.values[rows], votes, labels.names)
    else:
        tree["calibration"] = _calibration(model, predictions[MODEL], judge, labels.values[rows], votes)
    return predictions, tree


def _counts(spectra: LabelledSpectra) -> dict[str, dict[str, int]]:
    folds = {"train": spectra.train_rows, "validation": spectra.validation_rows_all, "test": spectra.test_rows}
    return {
        name: {"spectra": len(rows), "molecules": len(np.unique(spectra.molecule[rows]))}
        for name, rows in folds.items()
    }


def _exposure(model: LabelledModel, spectra: LabelledSpectra) -> str | None:
    """Return why an earlier stage of the encoder's training may have seen the molecules of the test fold."""
    stages = training_stages(model.encoder)[:-1]  # the last is that of the labels
    if not stages or spectra.split is None:
        return None
    return exposure(stages, spectra.split, "test")


def _differences(scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """Return the model's paired differences from every baseline, in every metric that both have."""
    found = []
    own = scored[MODEL].metrics
    for metric in own:
        others = [label for label in scored if label != MODEL]
        p_values = [
            bootstrap_p(
                own[metric].value - scored[label].metrics[metric].value,
                own[metric].resampled - scored[label].metrics[metric].resampled,
            )
            for label in others
        ]
        for label, p, corrected in zip(others, p_values, holm(p_values), strict=True):
            sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
            difference = compare(own[metric], scored[label].metrics[metric], label, CONFIDENCE)
            verdict = confirmed(difference, corrected, CONFIDENCE)
            if sign < 0:
                verdict = {"beats": "loses", "loses": "beats"}.get(verdict, verdict)  # type: ignore[assignment]
            found.append(
                {
                    "metric": metric, "against": label, "estimate": asdict(difference.estimate), "p": p,
                    "p corrected": corrected, "verdict": verdict,
                }
            )  # fmt: skip
    return found


def _calibration(
    model: LabelledModel, predictions: Predictions, judge: LabelJudge, truth: np.ndarray, votes: np.ndarray
) -> dict[str, Any]:
    """Return how far probabilities can be believed, before and after calibration."""
    before = uncalibrated(len(model.names))(model.task, predictions.scores)
    return {
        when: {
            **reliability(model.task, values, truth, votes),
            "Brier score": asdict(estimate(judge(values).metrics["Brier score"], CONFIDENCE)),
        }
        for when, values in {"before": before, "after": predictions.values}.items()
    }


def _ranges(
    predictions: Predictions, truth: np.ndarray, votes: np.ndarray, names: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    """Return of each number the half width of its range, and in which share of the test fold it holds the truth."""
    assert predictions.half_width is not None
    found: dict[str, dict[str, float | None]] = {}
    for k, name in enumerate(names):
        known, width = ~np.isnan(truth[:, k]), float(predictions.half_width[k])
        if not np.isfinite(width) or not known.any():
            found[name] = {"wanted": predictions.interval, "half width": None, "held": None}
            continue
        within = np.abs(truth[known, k] - predictions.values[known, k]) <= width
        share = float(votes[known] @ within / votes[known].sum())
        found[name] = {"wanted": predictions.interval, "half width": width, "held": share}
    return found


def _table(predictions: Predictions, spectra: LabelledSpectra) -> pa.Table:
    """Return predictions beside the truth, a row for each spectrum of the test fold."""
    rows, labels = spectra.test_rows, spectra.labels
    table = prediction_table(spectra.spectrum_id[rows].tolist(), predictions)
    truth = labels.values[rows]
    if labels.task == "classification":
        words = pa.array([labels.names[int(value)] for value in truth[:, 0].tolist()], pa.string())
        return table.append_column("truth", words)
    for k, name in enumerate(labels.names):
        column = truth[:, k].astype(np.float64)
        table = table.append_column(f"truth: {name}", pa.array(column, mask=np.isnan(column)))
    return table
