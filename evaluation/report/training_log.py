"""The losses that a training has logged: read, and drawn as curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .drawing import BLUE, ORANGE, Drawing, blank_figure, svg_element


def loss_curves(logs: Mapping[str, Path]) -> Drawing:
    """Draw the losses logged in JSONL files (lines with ``step`` and ``loss``), one panel per label.

    Raises
    ------
    InputError
        A log holds a broken line, or no loss at all.
    """
    panels = []
    colours = {"loss": BLUE, "validation_loss": ORANGE}
    for label, path in logs.items():
        figure = blank_figure(3.9, 2.6)
        axes = figure.add_subplot()
        for name, (steps, losses) in read_losses(path).items():
            axes.plot(steps, losses, linewidth=1.2, color=colours[name])
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.set_ylabel("loss", fontsize=9)
        panels.append(svg_element(figure))
    key = ((BLUE, "-", "on the training batches"), (ORANGE, "-", "on the molecules held out for validation"))
    return Drawing("Loss during training: it should fall and then level off.", tuple(panels), key)


def read_losses(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and values of every logged ``loss`` and ``validation_loss``; see `loss_curves`."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry: Any = json.loads(line)
            step = entry.get("step")
        except (json.JSONDecodeError, AttributeError):
            raise InputError(f"{path}: line {number} is not a JSON object; name a log.jsonl of a training") from None
        for name in ("loss", "validation_loss"):
            if step is not None and isinstance(entry.get(name), (int, float)):
                steps, losses = curves.setdefault(name, ([], []))
                steps.append(step)
                losses.append(entry[name])
    if not curves:
        raise InputError(f"{path}: no line has both 'step' and 'loss'; name a log.jsonl of a training")
    return curves
