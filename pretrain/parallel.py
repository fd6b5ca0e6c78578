"""One model in several processes: DDP or FSDP2, their gradients, and tensors that are whole or sharded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ..encoder.modeling_ionbed import IonbedModel
from .config import LoopConfig
from .stage import MicroBatch


def distribute(module: nn.Module, config: LoopConfig, accelerator: Accelerator) -> nn.Module:
    """Move a module to its device and return what a training step calls.

    'ddp' gives every process all weights; 'fsdp2' shards weights, gradients and the optimiser's state over the
    processes, layer by layer (`torch.distributed.fsdp.fully_shard`; weights stay fp32, autocast decides the precision
    of products as it does for 'ddp'). The optimiser is to be made afterwards: sharding replaces the parameters.
    """
    module.to(accelerator.device)
    if config.compile:
        encoder: Any = module.encoder
        encoder.compile_layers()
    if config.parallelism == "fsdp2" and accelerator.num_processes > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        encoder = module.encoder
        for layer in encoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module
    with warnings.catch_warnings():
        # What torch would have instead of `broadcast_buffers` cannot be said through accelerate.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        prepared: nn.Module = accelerator.prepare_model(module)
    return prepared


def is_sharded(module: nn.Module) -> bool:
    """Return whether `distribute` has sharded the module."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def reshard(module: nn.Module) -> None:
    """Let go of whole weights that a pass without gradients leaves of a sharded module.

    Of the outermost module FSDP keeps them for the backward pass, and has them as its parameters until then.
    """
    if is_sharded(module):
        sharded: Any = module
        sharded.reshard()


@contextmanager
def synchronised(model: nn.Module, accelerator: Accelerator, *, last: bool) -> Iterator[None]:
    """Exchange gradients between processes in the backward pass within the context only if it is the last of a step.

    Sharded gradients are exchanged every time: keeping them whole until the last pass would take the memory that
    sharding is to save.
    """
    if last or is_sharded(model):
        yield
        return
    with accelerator.no_sync(model):
        yield


def equal_numbers(
    micro_batches: Sequence[MicroBatch],
    config: LoopConfig,
    accelerator: Accelerator,
    spare: Sequence[MicroBatch] = (),
) -> list[tuple[MicroBatch, bool]]:
    """Return micro-batches, each with whether it counts, as many in every process where that is needed.

    With 'fsdp2' each pass gathers weights from all processes: one with fewer micro-batches repeats its last (or the
    ``spare`` one), for nothing.
    """
    parts = [(micro_batch, True) for micro_batch in micro_batches]
    if config.parallelism != "fsdp2" or accelerator.num_processes == 1:
        return parts
    numbers = accelerator.gather(torch.tensor([len(parts)], device=accelerator.device))
    missing = int(numbers.max()) - len(parts)
    return parts + [((micro_batches or spare)[-1], False)] * missing


def gradient_norm(module: nn.Module, longest: float) -> torch.Tensor:
    """Scale gradients down so that all together are no longer than ``longest``; return their length before that."""
    norm: Any = torch.nn.utils.clip_grad_norm_(module.parameters(), longest)
    return whole(norm)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as it is without sharding; all processes must call this together."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor on the device, and in the sharding, of ``parameter``."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor


def unsharded(encoder: IonbedModel) -> IonbedModel:
    """Return an encoder with whole weights, itself if it has them; all processes must call this together."""
    state = encoder.state_dict()
    gathered = {name: whole(tensor) for name, tensor in state.items()}
    if all(gathered[name] is state[name] for name in state):
        return encoder
    plain = IonbedModel(encoder.config)
    plain.load_state_dict({name: tensor.cpu() for name, tensor in gathered.items()})
    return plain.train(encoder.training)
