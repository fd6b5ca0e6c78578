"""Checkpoints: weights, optimiser and position as safetensors and JSON; written whole, found by a ``latest`` file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..artifacts import atomic_file, atomic_folder
from ..errors import InputError

LATEST = "latest"


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    rng: dict[str, torch.Tensor],
    keep: int,
) -> Path:
    """Write ``step-N`` under ``folder``, move the ``latest`` pointer to it, and keep ``keep - 1`` others, the last.

    Parameters
    ----------
    state : dict
        JSON values; ``state['step']`` names the checkpoint.
    rng : dict of uint8 tensors
        State of torch's random numbers of process N: ``process_N``, and ``cuda_N`` of its GPU.
    """
    path = folder / f"step-{state['step']:08d}"
    with atomic_folder(path, overwrite=True) as partial:
        save_file(_contiguous(module.state_dict()), partial / "model.safetensors")
        save_file(_optimizer_tensors(module, optimizer), partial / "optimizer.safetensors")
        save_file(rng, partial / "rng.safetensors")
        (partial / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    with atomic_file(folder / LATEST) as partial:
        partial.write_text(path.name + "\n", encoding="utf-8")
    others = [other for other in sorted(folder.glob("step-*")) if other != path]
    for old in others[: max(0, len(others) - (keep - 1))]:
        shutil.rmtree(old)
    return path


def forget_later_checkpoints(folder: Path, source: Path, step: int) -> None:
    """Delete the checkpoints past ``step``: a run that goes on from ``source`` will come to those steps again.

    ``latest`` is moved to ``source`` first (or removed where that lies elsewhere), so that it never names what is gone.
    """
    later = [path for path in folder.glob("step-*") if path.name > f"step-{step:08d}"]
    if not later:
        return
    if source.resolve().parent == folder.resolve():
        with atomic_file(folder / LATEST) as partial:
            partial.write_text(source.resolve().name + "\n", encoding="utf-8")
    else:
        (folder / LATEST).unlink(missing_ok=True)
    for path in later:
        shutil.rmtree(path)


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that ``latest`` names, or None where there is none.

    Raises
    ------
    InputError
        The pointer names a checkpoint that is not there.
    """
    pointer = folder / LATEST
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    if not (path / "state.json").is_file():
        raise InputError(f"{pointer}: names {path.name}, which is missing; write another step's name in it")
    return path


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON state of a checkpoint."""
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not a checkpoint ({error}); name a folder step-N") from None


def restore_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, process: int) -> None:
    """Load weights, optimiser and the random state of one process from ``path``.

    Raises
    ------
    InputError
        A file is missing, damaged, or of another model.
    """
    try:
        module.load_state_dict(load_file(path / "model.safetensors"), strict=True)
        tensors = load_file(path / "optimizer.safetensors")
        rng = load_file(path / "rng.safetensors")
        for name, parameter in module.named_parameters():
            if f"{name}|exp_avg" in tensors:  # fused AdamW keeps the step beside the parameter too
                optimizer.state[parameter] = {
                    key: tensors[f"{name}|{key}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq", "step")
                }
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be restored ({message}); resume from an earlier step-N") from None
    if f"process_{process}" in rng:  # another number of processes: their dropout starts afresh
        torch.set_rng_state(rng[f"process_{process}"])
    if f"cuda_{process}" in rng and next(module.parameters()).is_cuda:
        torch.cuda.set_rng_state(rng[f"cuda_{process}"])


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    tensors = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensors[f"{names[parameter]}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return tensors


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
