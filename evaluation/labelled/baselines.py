"""What a model of labels has to beat: chance, the precursor alone, and binned peaks, each under a linear head."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...finetune.labelled.calibration import fit_calibration
from ...finetune.labelled.config import LabelledConfig
from ...finetune.labelled.examples import LabelledSpectra
from ...finetune.labelled.linear import fit_linear
from ...finetune.labelled.model import Predictions, chosen_class
from ...finetune.labelled.run import drawn, examples_of
from ...spectra.columns import SpectrumColumns
from ...spectra.measurement_features import MEASUREMENT_BLOCKS, condition_features, measurement_features
from ..probe.features import BINNED_PEAKS, NO_SPECTRUM, binned_peaks
from ..scorers import PrecursorOnly

KINDS = {NO_SPECTRUM: "reference", PrecursorOnly.label: "blind", BINNED_PEAKS: "trained"}
"""Labels of the rows, and their kind in the tables."""


def baseline_predictions(config: LabelledConfig, spectra: LabelledSpectra, rows: np.ndarray) -> dict[str, Predictions]:
    """Return what each baseline says of ``rows``, by its label.

    Heads are fitted and calibrated as the model's is, on at most ``report.max_train_spectra`` training spectra. All but
    the one without a spectrum are also told polarity, charge and collision energy, as an encoder may be.
    """
    train = drawn(spectra.train_rows, config.report.max_train_spectra, config.training.seed)
    return {label: _predictions(config, spectra, train, rows, *of) for label, of in _FEATURES.items()}


def _predictions(
    config: LabelledConfig,
    spectra: LabelledSpectra,
    train: np.ndarray,
    rows: np.ndarray,
    features: Callable[[SpectrumColumns], np.ndarray],
    num_conditions: int,
) -> Predictions:
    labels, validation = spectra.labels, spectra.validation_rows_all
    train_ND, validation_ND, test_ND = (features(spectra.columns(of)) for of in (train, validation, rows))
    examples = (examples_of(spectra, train, train_ND), examples_of(spectra, validation, validation_ND))
    blocks = (train_ND.shape[1] - num_conditions, num_conditions)
    head = fit_linear(config.task, labels.num_outputs, *examples, config.head, blocks)
    scores = head(test_ND)
    if config.task == "regression":
        values = scores * spectra.spread + spectra.mean
        return Predictions(config.task, labels.names, scores, values)
    calibration = fit_calibration(
        config.task, config.head.calibration, head(validation_ND), labels.values[validation], spectra.votes(validation)
    )
    values = calibration(config.task, scores)
    balanced = config.head.imbalance == "inverse-frequency"
    chosen = chosen_class(config.task, scores, values, balanced=balanced)
    return Predictions(config.task, labels.names, scores, values, chosen)


def _nothing(columns: SpectrumColumns) -> np.ndarray:
    return np.zeros((len(columns), 0), np.float32)


def _peaks(columns: SpectrumColumns) -> np.ndarray:
    return np.concatenate([binned_peaks(columns), condition_features(columns)], axis=1)


_FEATURES: dict[str, tuple[Callable[[SpectrumColumns], np.ndarray], int]] = {
    NO_SPECTRUM: (_nothing, 0),
    PrecursorOnly.label: (measurement_features, MEASUREMENT_BLOCKS[-1]),
    BINNED_PEAKS: (_peaks, MEASUREMENT_BLOCKS[-1]),
}
"""Features of each row, and how many of the last are conditions of measurement."""
