"""Whether a model can have seen the molecules of the queries, by the record of its training in its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..spectra.split import Split

HASH_DIGITS = 12
"""Digits of a split's hash that a message shows."""

UNKNOWN_ORIGIN = "its configuration does not say what it was trained on"


def training_stages(model: object) -> list[Mapping[str, Any]]:
    """Return the record of each training stage of ``model`` (``model.config.training``), oldest first.

    Empty for a model of unknown origin.
    """
    stages: Sequence[Mapping[str, Any]] = getattr(getattr(model, "config", None), "training", ())
    return list(stages)


def exposure(stages: Sequence[Mapping[str, Any]], split: Split, fold: str) -> str | None:
    """Return why the molecules of ``fold`` may have been seen in training, or None where they were held out.

    They were held out where every stage used this very split, and not this fold of it.

    Parameters
    ----------
    stages : sequence of mapping
        As `training_stages` returns them; ``split`` is the hash of the split that a stage used, None for none, and
        ``folds`` the folds that it was trained on.
    """
    return exposure_to(stages, split.hash, fold) if stages else UNKNOWN_ORIGIN


def exposure_to(stages: Sequence[Mapping[str, Any]], split_hash: str, fold: str) -> str | None:
    """Return as `exposure` does, by the hash of the split; None where there are no stages."""
    for stage in stages:
        command, used, folds = stage.get("command", "training"), stage.get("split"), stage.get("folds") or ()
        if used is None:
            return f"its stage '{command}' held out no molecules (no split)"
        if used != split_hash:
            return f"its stage '{command}' used another split ({used[:HASH_DIGITS]}, not {split_hash[:HASH_DIGITS]})"
        if fold in folds:
            return f"its stage '{command}' was trained on the fold '{fold}'"
        if not folds:
            return f"its stage '{command}' does not say which folds it was trained on"
    return None


def check_exposure(
    label: str, source: str, model: object, split: Split, fold: str, *, allow: bool, option: str
) -> str | None:
    """Return `exposure` of a model where ``allow`` is true; refuse the model otherwise.

    Parameters
    ----------
    label, source : str
        Of the model, for the message.
    option : str
        What the command is to be given to allow it.

    Raises
    ------
    InputError
        The model may have seen the molecules of the queries, and ``allow`` is false.
    """
    reason = exposure(training_stages(model), split, fold)
    if reason is not None and not allow:
        raise InputError(
            f"model '{label}' ({source}) may have seen the molecules of the queries: {reason}; name the split and a "
            f"held-out fold of its training, train it with this split, or pass {option} and the result will say so"
        )
    return reason
