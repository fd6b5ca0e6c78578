"""The processes of a run: where each computes, and what they tell each other."""

from __future__ import annotations

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env


def on_cpu() -> bool:
    """Return whether to train on the CPU: where nothing else computes in double precision, or accelerate is told to."""
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return True
    device = torch.accelerator.current_accelerator()
    return device is None or device.type not in {"cuda", "xpu"}  # MPS has no float64, which m/z need


def process_state() -> PartialState:
    """Return this process's place among those of the run, before there is an `Accelerator`."""
    return PartialState(cpu=on_cpu())


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
