"""The card in a model folder: written anew from the run, or given the figures of an evaluation."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..artifacts import MANIFEST, atomic_file, read_object, sha256_of_file
from ..encoder.loading import load_model
from ..errors import InputError
from ..pretrain.card import CARD, card_metadata, model_card, with_evaluation
from .evaluated import evaluation_text

logger = logging.getLogger("ionbed")

WEIGHTS = "model.safetensors"
COMMANDS = ("pretrain", "finetune")
"""Those whose manifest stands beside a model folder."""


def run_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the run that wrote the model folder, None where there is none beside it.

    Raises
    ------
    InputError
        It is damaged, or the weights are not those that the run has written.
    """
    path = folder.resolve().parent / MANIFEST
    try:
        manifest = read_object(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({' '.join(str(error).split())[:100]}); restore it") from None
    if manifest.get("command") not in COMMANDS:
        return None
    if (expected := manifest.get("model_sha256")) != sha256_of_file(folder / WEIGHTS):
        raise InputError(
            f"{folder / WEIGHTS}: is not what the run has written ({path} expects SHA-256 {str(expected)[:12]}...); "
            "restore it, or move the folder away from that manifest if the change is meant"
        )
    return manifest


def update_card(
    folder: str | os.PathLike[str], evaluations: Sequence[str | os.PathLike[str]] = (), *, overwrite: bool = False
) -> Path:
    """Write the card of a model folder where it has none, and put the figures of evaluations on it.

    What else stands on the card is kept: only the part between its two marks of an evaluation is replaced.

    Parameters
    ----------
    evaluations : sequence of path
        Folders that ``ionbed evaluate`` or ``ionbed probe`` has written, about this model.
    overwrite : bool
        Write the card anew from the run; what was added by hand is lost.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    InputError
        The folder holds no model, it has a card and nothing is to be added, or an evaluation is not about this model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a model folder, as 'ionbed pretrain' writes it")
    model = load_model(folder)
    path = folder / CARD
    if path.is_file() and not overwrite:
        if not evaluations:
            raise InputError(f"{path}: is there; name what to add by --evaluation, or write it anew by --overwrite")
        card = path.read_text(encoding="utf-8")
        card_metadata(card)
    else:
        manifest = run_manifest(folder)
        if manifest is None:
            logger.info("%s: no manifest of a run beside it; the card says what config.json records", folder)
        card = model_card(model.config, model.num_parameters(), model.model_hash(), manifest)
    if evaluations:
        card = with_evaluation(card, "\n\n".join(evaluation_text(e, model.model_hash()) for e in evaluations))
    with atomic_file(path) as partial:
        partial.write_text(card, encoding="utf-8")
    return path
