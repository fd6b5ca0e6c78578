"""The processes of a run: where each computes, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env

from ..errors import InputError


def on_cpu() -> bool:
    """Return whether to train on the CPU: where nothing else computes in double precision, or accelerate is told to."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return True
    device = torch.accelerator.current_accelerator()
    return device is None or device.type not in {"cuda", "xpu"}  # MPS has no float64, which m/z need


OTHER_LOOPS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism",
}
"""Settings of ``accelerate launch`` for loops that hand their model over to it, and what they switch on."""


def refuse_other_loops() -> None:
    """Raise `InputError` if accelerate was told to shard the model: the loop does so itself, as its options say.

    Of several processes the first says so; the others leave quietly with the same exit code, 2.
    """
    asked = [name for name in OTHER_LOOPS if parse_flag_from_env(name)]
    if not asked:
        return
    if os.environ.get("RANK", "0") != "0":
        raise SystemExit(2)
    raise InputError(
        f"{asked[0]}: accelerate is told to use {OTHER_LOOPS[asked[0]]} of its own; switch that off (by 'accelerate "
        "config', or other options of 'accelerate launch') and set training.parallelism: ddp, or fsdp2 to shard a model"
    )


def process_state() -> PartialState:
    """Return this process's place among those of the run, before there is an `Accelerator`."""
    return PartialState(cpu=on_cpu())


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""


SIGNS_OF_LOSS = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "NCCL")
"""What gloo says of it, whose errors have no type of their own, and what NCCL's begin with."""


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """Say in a line that another process has ended, where the backend tells that it waits for one in vain.

    Raises
    ------
    LostProcessError
        With gloo at once, with NCCL after its time limit.
    """
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        if not isinstance(error, torch.distributed.DistError) and not any(sign in told for sign in SIGNS_OF_LOSS):
            raise
        raise LostProcessError(
            "another process of the run has ended or does not answer, and its own lines say why; --resume auto goes on "
            f"from the latest checkpoint (the backend: {' '.join(told.split())[:200]})"
        ) from error


def gather_rng(accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Return the torch random state of every process, and of its GPU; see `save_checkpoint`."""
    states = {"process": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    gathered: dict[str, torch.Tensor] = {}
    for kind, state in states.items():
        rows = accelerator.gather(state.to(accelerator.device).unsqueeze(0)).cpu()
        gathered |= {f"{kind}_{number}": row.clone() for number, row in enumerate(rows)}
    return gathered
