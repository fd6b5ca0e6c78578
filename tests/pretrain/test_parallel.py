"""One model in several processes: what sharding leaves of its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed
from torch.distributed.tensor import DTensor

from ionbed.errors import InputError
from ionbed.pretrain.loop import evaluating
from ionbed.pretrain.optimisation import MovingAverage
from ionbed.pretrain.processes import refuse_other_loops
from ionbed.pretrain.run import sole_run


@pytest.fixture
def sharded(tmp_path: Path) -> Iterator[torch.nn.Module]:
    """Two linear layers, sharded as `distribute` does, over a group of this process alone."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        fully_shard(module[0], mesh=mesh)
        fully_shard(module, mesh=mesh)
        yield module
    finally:
        torch.distributed.destroy_process_group()


def test_averaged_weights_are_exchanged_with_sharded_ones_after_validation(sharded):
    sharded(torch.ones(2, 4)).sum().backward()
    trained = {name: p.full_tensor().clone() for name, p in sharded.named_parameters()}
    average = MovingAverage(sharded, 0.9)
    for weights in average.weights.values():
        weights.zero_()
    task = SimpleNamespace(module=sharded)
    with average.in_place(sharded):
        with evaluating(task):
            assert not sharded(torch.ones(2, 4)).any()
        assert all(isinstance(p, DTensor) for p in sharded.parameters())
    assert all(torch.equal(p.full_tensor(), trained[name]) for name, p in sharded.named_parameters())
    assert sharded(torch.ones(2, 4)).any()


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_would_shard_the_model_itself_is_refused_by_one_process(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "false")
    refuse_other_loops()
    monkeypatch.setenv(name, "true")
    with pytest.raises(InputError, match=rf"{name}: .*training\.parallelism") as caught, sole_run(tmp_path / "run"):
        pytest.fail("it began")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as left:
        refuse_other_loops()
    assert left.value.code == 2
