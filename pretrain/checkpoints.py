"""Checkpoints: weights, optimiser and position, checksummed and written whole; ``latest`` names the one to go on from.

A checkpoint is a folder ``step-N`` of safetensors and JSON files. Nothing in it depends on the number of processes but
the random states, and nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..artifacts import atomic_file, atomic_folder, sha256_of_file
from ..errors import InputError
from .parallel import sharded_like, whole

logger = logging.getLogger("ionbed")

LATEST = "latest"
MODEL, OPTIMIZER, AVERAGE, BEST, RNG, STATE = (
    "model.safetensors", "optimizer.safetensors", "average.safetensors", "best.safetensors", "rng.safetensors",
    "state.json",
)  # fmt: skip
CHECKSUMS = "sha256.json"
ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


class UnwrittenError(RuntimeError):
    """A checkpoint or a model could not be written; the checkpoints before it are whole."""


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a run: a module (sharded or not), its optimiser, averaged and best weights where they are kept."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, torch.Tensor] | None = None
    best: dict[str, torch.Tensor] | None = None

    @property
    def copies(self) -> dict[str, dict[str, torch.Tensor]]:
        """Weights that are kept beside those of the module, by the name of their file."""
        found = {AVERAGE: self.average, BEST: self.best}
        return {name: weights for name, weights in found.items() if weights is not None}


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Say of what goes wrong when ``path`` is written, what to do about it; see `UnwrittenError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnwrittenError(
            f"{path}: cannot be written ({' '.join(str(error).split())[:200]}); mend that (is the disk full?), then go "
            "on by --resume auto"
        ) from error


def save_checkpoint(
    folder: Path, run: Checkpoint, state: dict[str, Any], rng: dict[str, torch.Tensor], keep: int, *, write: bool = True
) -> Path:
    """Write ``step-N`` under ``folder``, move the ``latest`` pointer to it, and keep ``keep - 1`` others, the last.

    Where the module is sharded all processes must call this together; the one with ``write`` writes.

    Parameters
    ----------
    state : dict
        JSON values; ``state['step']`` names the checkpoint.
    rng : dict of uint8 tensors
        State of torch's random numbers of process N: ``process_N``, and ``cuda_N`` of its GPU.

    Raises
    ------
    UnwrittenError
        The disk is full, for example.
    """
    path = folder / f"step-{state['step']:08d}"
    weights = _gathered(run.module.state_dict(), keep=write)
    optimizer = _gathered(_optimizer_tensors(run.module, run.optimizer), keep=write)
    copies = {name: _gathered(tensors, keep=write) for name, tensors in run.copies.items()}
    if not write:
        return path
    with written(path):
        with atomic_folder(path, overwrite=True) as partial:
            save_file(weights, partial / MODEL)
            save_file(optimizer, partial / OPTIMIZER)
            for name, tensors in copies.items():
                save_file(tensors, partial / name)
            save_file(rng, partial / RNG)
            (partial / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            for file in partial.glob("*.safetensors"):  # its library lets nobody else read them, whatever the umask
                file.chmod((partial / STATE).stat().st_mode)
            sums = {file.name: sha256_of_file(file) for file in sorted(partial.iterdir())}
            (partial / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
        with atomic_file(folder / LATEST) as partial:
            partial.write_text(path.name + "\n", encoding="utf-8")
    others = [other for other in sorted(folder.glob("step-*")) if other != path]
    for old in others[: max(0, len(others) - (keep - 1))]:
        _remove(old)
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
        _remove(path)


def _remove(path: Path) -> None:
    """Delete a checkpoint that is no longer needed; what cannot be deleted does not end a run.

    On a networked file system a file that somebody has open, a backup for example, keeps its folder from going.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        logger.warning("%s: cannot be deleted (%s)", path, error.strerror)


def choose_checkpoint(folder: Path, resume: str) -> Path | None:
    """Return the checkpoint to go on from, whole, or None where there is none yet.

    Parameters
    ----------
    resume : 'auto' or path
        'auto': the one that ``latest`` names; if that is missing or damaged, the last before it that is whole, with a
        warning. A path: that one.

    Raises
    ------
    InputError
        The one that is named is damaged or no checkpoint; or there are some, but none is whole.
    """
    if resume != "auto":
        path = Path(resume)
        if not (path / CHECKSUMS).is_file():
            read_state(path)  # says of what is no checkpoint that it is none
        if problem := damage(path):
            raise InputError(f"{path}: {problem}; resume from an earlier step-N")
        return path
    found = sorted(folder.glob("step-*"), reverse=True)
    pointer = folder / LATEST
    if not found and not pointer.is_file():
        return None
    named = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    problems = []
    if named and folder / named not in found:
        problems.append(f"{named} is missing")
    for path in [p for p in found if not named or p.name <= named]:
        if not (problem := damage(path)):
            if problems:
                logger.warning("%s: %s; going on from %s", folder, "; ".join(problems), path.name)
            return path
        problems.append(f"{path.name}: {problem}")
    raise InputError(f"{folder}: no checkpoint is whole ({'; '.join(problems)}); start a new output")


def damage(path: Path) -> str:
    """Return in what a checkpoint differs from what was written, in words; empty if in nothing."""
    try:
        sums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        wrong = [name for name, expected in sums.items() if sha256_of_file(path / name) != expected]
    except (OSError, ValueError, AttributeError) as error:
        return f"is damaged ({' '.join(str(error).split())[:200]})"
    return f"is damaged ({', '.join(wrong)}: another checksum than when written)" if wrong else ""


def read_state(path: Path) -> dict[str, Any]:
    """Return the JSON state of a checkpoint."""
    try:
        return json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: is not a checkpoint ({STATE}: {why}); name a folder step-N") from None


@torch.no_grad()
def restore_checkpoint(run: Checkpoint, path: Path, process: int) -> None:
    """Load weights, optimiser and the random state of one process from ``path``.

    Raises
    ------
    InputError
        A file is missing, damaged, or of another model.
    """
    parameters = dict(run.module.named_parameters())
    try:
        _load_into(path / MODEL, run.module.state_dict())
        for name, tensors in run.copies.items():
            _load_into(path / name, tensors)
        with safe_open(path / OPTIMIZER, framework="pt") as tensors:
            for name in sorted({key.rpartition("|")[0] for key in tensors.keys()}):  # noqa: SIM118
                parameter = parameters[name]
                state = {key: tensors.get_tensor(f"{name}|{key}") for key in ADAM_STATE}
                run.optimizer.state[parameter] = {
                    # fused AdamW keeps the step beside the parameter too, as one number
                    key: value.to(parameter.device) if value.dim() == 0 else sharded_like(value, parameter)
                    for key, value in state.items()
                }
        with safe_open(path / RNG, framework="pt") as tensors:
            states = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be restored ({message}); resume from an earlier step-N") from None
    if f"process_{process}" in states:  # another number of processes: their dropout starts afresh
        torch.set_rng_state(states[f"process_{process}"])
    if f"cuda_{process}" in states and next(iter(parameters.values())).is_cuda:
        torch.cuda.set_rng_state(states[f"cuda_{process}"])


def _load_into(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Copy the tensors of a file into those of the same names; there must be all, of the same shapes, and no others."""
    with safe_open(file, framework="pt") as stored:
        names = set(stored.keys())
        if names != set(tensors):
            raise ValueError(f"{file.name} has other tensors: {', '.join(sorted(names ^ set(tensors))[:3])}")
        for name, tensor in tensors.items():
            value = stored.get_tensor(name)
            if value.shape != tensor.shape:
                raise ValueError(f"{name} is {tuple(value.shape)} in {file.name}, not {tuple(tensor.shape)}")
            tensor.copy_(sharded_like(value, tensor))


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimizer.state
    return {
        f"{name}|{key}": torch.as_tensor(value)
        for name, parameter in module.named_parameters()
        if parameter in state
        for key, value in state[parameter].items()
    }


def _gathered(tensors: dict[str, torch.Tensor], *, keep: bool) -> dict[str, torch.Tensor]:
    """Return tensors whole and on the CPU (empty without ``keep``), one after another, so that shards meet in order."""
    result = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            result[name] = full.cpu().contiguous()
    return result
