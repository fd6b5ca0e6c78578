"""A trained model of labels: an encoder, a linear head on its embeddings, and its calibration, in one folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ...artifacts import atomic_file
from ...encoder.loading import load_model
from ...encoder.modeling_ionbed import IonbedModel
from ...errors import InputError
from ...spectra.columns import SpectrumColumns
from ...spectra.measurement_features import MEASUREMENT_BLOCKS, measurement_features
from ...spectra.spectrum import Spectrum
from .calibration import Calibration
from .config import TaskKind
from .linear import LinearHead

HEAD_WEIGHTS, HEAD = "head.safetensors", "head.json"
"""Beside ``config.json`` and ``model.safetensors``, which stay those of an encoder."""
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N spectra.

    Attributes
    ----------
    task : 'classification', 'multi-label' or 'regression'
    names : tuple of str
        Of the K classes, labels or numbers.
    scores : float32 array of shape (N, K)
        As the head gives them: logits, or numbers.
    values : float64 array of shape (N, K)
        Calibrated probabilities, or numbers.
    chosen : int64 array of shape (N,), or None
        Of a classification: the class that is predicted, the most probable one; the one with the highest score where
        the head was trained with inverse frequencies, whose probabilities, calibrated, seldom favour a rare class.
    half_width : float64 array of shape (K,), or None
        Of a regression: so far a number lies from its prediction at most, with the probability ``interval``.
    interval : float
    """

    task: TaskKind
    names: tuple[str, ...]
    scores: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    chosen: np.ndarray | None = field(default=None, repr=False)
    half_width: np.ndarray | None = None
    interval: float = 0.9


def chosen_class(task: TaskKind, scores: np.ndarray, values: np.ndarray, *, balanced: bool) -> np.ndarray | None:
    """Return the class of each spectrum, None where there are no classes; see `Predictions`."""
    if task != "classification":
        return None
    best: np.ndarray = (scores if balanced else values).argmax(axis=1)
    return best


@dataclass(frozen=True, eq=False)
class LabelledModel:
    """An encoder with a head.

    Attributes
    ----------
    encoder : IonbedModel
    head : LinearHead
    task : 'classification', 'multi-label' or 'regression'
    names : tuple of str
    calibration : Calibration
    mean, spread : float64 arrays of shape (K,)
        Of the numbers of a regression in training; 0 and 1 else.
    half_width : float64 array of shape (K,)
        Of a regression; infinite where the validation fold was too small.
    interval : float
        Probability that a number lies within ``half_width`` of its prediction.
    measurement : bool
        Whether the head is told `measurement_features` beside the embedding.
    balanced : bool
        Whether it was trained with inverse frequencies.
    about : dict
        What it was fitted on, for the record.
    """

    encoder: IonbedModel
    head: LinearHead
    task: TaskKind
    names: tuple[str, ...]
    calibration: Calibration
    mean: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    half_width: np.ndarray = field(repr=False)
    interval: float
    measurement: bool
    balanced: bool
    about: dict[str, Any] = field(default_factory=dict, repr=False)

    def predict(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> Predictions:
        """Predict the labels of spectra."""
        columns = spectra if isinstance(spectra, SpectrumColumns) else SpectrumColumns.from_spectra(list(spectra))
        embeddings = self.encoder.embed(columns, progress=progress)
        scores = self.head(head_features(embeddings, columns, measurement=self.measurement))
        if self.task == "regression":
            values = scores.astype(np.float64) * self.spread + self.mean
            numbers = values.astype(np.float32)
            return Predictions(self.task, self.names, numbers, values, None, self.half_width, self.interval)
        values = self.calibration(self.task, scores)
        chosen = chosen_class(self.task, scores, values, balanced=self.balanced)
        return Predictions(self.task, self.names, scores, values, chosen)

    def save_head(self, folder: Path) -> None:
        """Write `HEAD_WEIGHTS` and `HEAD` into the folder of the encoder."""
        head = self.head
        tree = {
            "format": FORMAT,
            "encoder": self.encoder.model_hash(),
            "task": self.task,
            "names": list(self.names),
            "calibration": self.calibration.to_json(),
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
            "half_width": [value if np.isfinite(value) else None for value in self.half_width.tolist()],
            "interval": self.interval,
            "measurement": self.measurement,
            "balanced": self.balanced,
            **self.about,
        }
        tensors = {name: getattr(head, name) for name in ("mean", "scale", "weight", "bias")}
        with atomic_file(folder / HEAD_WEIGHTS) as partial:
            save_file({name: np.ascontiguousarray(of) for name, of in tensors.items()}, partial)
            partial.chmod((folder / "config.json").stat().st_mode)
        with atomic_file(folder / HEAD) as partial:
            partial.write_text(json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def head_features(embeddings: np.ndarray, columns: SpectrumColumns, *, measurement: bool) -> np.ndarray:
    """Return what a head reads of spectra, float32 of shape (N, D)."""
    return np.concatenate([embeddings, measurement_features(columns)], axis=1) if measurement else embeddings


def feature_blocks(encoder: IonbedModel, *, measurement: bool) -> tuple[int, ...]:
    """Return the numbers of features of each kind that `head_features` returns."""
    return (encoder.config.output_dim, *(MEASUREMENT_BLOCKS if measurement else ()))


def load_labelled_model(folder: str | os.PathLike[str]) -> LabelledModel:
    """Load a model of labels for inference, on the CPU.

    Raises
    ------
    InputError
        The folder holds no encoder or no head, or the head was trained with another encoder.
    """
    folder = Path(folder)
    encoder = load_model(folder)
    try:
        tree = json.loads((folder / HEAD).read_text(encoding="utf-8"))
        tensors = load_file(folder / HEAD_WEIGHTS)
        if tree["format"] != FORMAT:
            raise InputError(
                f"{folder / HEAD}: is of format {tree['format']}, this version reads {FORMAT}; update ionbed"
            )
        outputs = len(tree["names"])
        half_width = np.array([np.inf if value is None else value for value in tree["half_width"]], float)
        model = LabelledModel(
            encoder=encoder,
            head=LinearHead(tensors["mean"], tensors["scale"], tensors["weight"], tensors["bias"]),
            task=tree["task"],
            names=tuple(tree["names"]),
            calibration=Calibration.from_json(tree["calibration"]),
            mean=np.array(tree["mean"], float),
            spread=np.array(tree["spread"], float),
            half_width=half_width,
            interval=float(tree["interval"]),
            measurement=bool(tree["measurement"]),
            balanced=bool(tree["balanced"]),
            about={name: tree[name] for name in ("labels", "fitted") if name in tree},
        )
        blocks = feature_blocks(encoder, measurement=model.measurement)
        if model.head.weight.shape != (outputs, sum(blocks)) or len(model.mean) != outputs:
            raise ValueError(f"its head has the shape {model.head.weight.shape}")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: is an encoder without a head ({Path(error.filename or HEAD).name} is missing); name the model "
            "folder of a run of 'ionbed finetune' with a task (label-classification, for example)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder / HEAD}: is damaged ({' '.join(str(error).split())[:200]}); train again") from None
    if tree["encoder"] != (found := encoder.model_hash()):
        raise InputError(f"{folder}: its head was trained with the encoder {tree['encoder'][:12]}, not {found[:12]}, "
                         "which lies beside it; restore the encoder, or train again")  # fmt: skip
    return model


def move_to_device(model: LabelledModel, device: torch.device) -> None:
    """Let the encoder compute on ``device``."""
    encoder: Any = model.encoder  # transformers wraps `to` in a function without its types
    encoder.to(device)
