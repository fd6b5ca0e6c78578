"""Load a model from a folder, from the Hugging Face hub, or the checkpoint that ships with the package."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import InputError
from .hub import can_be_downloaded, is_hub_id, reads_as_hub_id
from .modeling_ionbed import IonbedModel, without_progress_bars

DEFAULT_MODEL = "small"

UNUSABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, SafetensorError,
)  # fmt: skip
"""What transformers and torch raise where a config.json has values of wrong types, or the weights are damaged."""


def default_model_folder() -> Path:
    """Return where the package keeps its own checkpoint."""
    return Path(str(resources.files(__package__) / "checkpoints" / DEFAULT_MODEL))


def load_model(path_or_id: str | os.PathLike[str] | None = None) -> IonbedModel:
    """Load an encoder for inference, on the CPU.

    Parameters
    ----------
    path_or_id : path, or hub id such as ``owner/name``
        None for the checkpoint that ships with the package. Where there is a folder ``owner``, it is a path.

    Raises
    ------
    InputError
        There is no such folder, and no such model on the hub; or it does not hold an ionbed model.
    """
    source = default_model_folder() if path_or_id is None else path_or_id
    folder = Path(source)
    local_only = True
    if folder.exists() or not is_hub_id(str(source)):
        if not folder.exists():
            not_asked = (
                f" (the hub was not asked, for '{folder.parent}' is here)" if reads_as_hub_id(str(source)) else ""
            )
            raise InputError(f"{folder}: is not a model folder: there is nothing of that name{not_asked}; name one")
        if not all((folder / name).is_file() for name in ("config.json", "model.safetensors")):
            raise InputError(
                f"{folder}: is not a model folder (config.json and model.safetensors are needed); name one"
            )
    else:
        local_only = not can_be_downloaded(str(source))
    try:
        with without_progress_bars():
            loaded: Any = IonbedModel.from_pretrained(
                str(source), output_loading_info=True, local_files_only=local_only
            )
    except UNUSABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: cannot be loaded as an ionbed model ({reason}); name a model folder") from None
    model: IonbedModel
    model, report = loaded
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if wrong:
        raise InputError(
            f"{source}: its weights do not fit its config.json ({', '.join(wrong[:3])}...); is it an ionbed model?"
        )
    return model.float().eval()
