"""What this machine has and what will not work on it: the checks behind ``ionbed doctor``."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "note", "missing"]

MINIMUM_MEMORY_GB = 4
MINIMUM_DISK_GB = 5
MATMUL_SECONDS = 0.5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
    status : 'ok', 'note' or 'missing'
        A note is a limit; something missing stops the main work.
    value : str
        What was found.
    consequence : str
        What will not work, or will be slow, and how to mend it; empty where all is well.
    """

    name: str
    status: Status
    value: str
    consequence: str = ""


def report() -> list[Check]:
    """Look at the machine and at the installation; takes about two seconds."""
    return [*_machine(), *_required(), *_accelerators(), *_optional(), _slurm()]


def works(checks: Sequence[Check]) -> bool:
    """Whether nothing that the main work needs is missing."""
    return all(check.status != "missing" for check in checks)


def to_json(checks: Sequence[Check]) -> str:
    """Return the checks as JSON."""
    return json.dumps({"works": works(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def as_text(checks: Sequence[Check], *, width: int | None = None) -> str:
    """Return the checks as a table for a terminal, and one closing line.

    Parameters
    ----------
    checks : sequence of Check
    width : int
        In characters; that of the terminal where None.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": Text("ok", "green"), "note": Text("note", "yellow"), "missing": Text("missing", "bold red")}
    table = Table("", "what", "found", "what that means", box=None, pad_edge=False, header_style="dim")
    for check in checks:
        table.add_row(marks[check.status], check.name, Text(check.value), Text(check.consequence))
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
        missing = [check.name for check in checks if check.status == "missing"]
        closing = f"Missing: {', '.join(missing)}." if missing else "All that the main work needs is here."
        console.print(Text(f"\n{closing}"), end="")
    return capture.get()


def _machine() -> Iterator[Check]:
    import psutil

    version = platform.python_version()
    yield Check(
        "Python",
        "ok" if sys.version_info >= (3, 11) else "missing",
        f"{version} on {platform.system()} {platform.machine()}",
    )
    yield Check("cores", "ok", f"{_usable_cores()} usable, {psutil.cpu_count(logical=False) or '?'} physical")
    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    small = total < MINIMUM_MEMORY_GB
    yield Check(
        "memory", "note" if small else "ok", f"{total:.0f} GB, {free:.0f} GB free",
        "only the tiny size; prepare with --workers 1" if small else "",
    )  # fmt: skip
    for name, folder in (("disk here", Path.cwd()), ("temporary disk", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free / 1e9
        yield Check(
            name, "note" if free < MINIMUM_DISK_GB else "ok", f"{free:.0f} GB free at {folder}",
            "little room for a store or checkpoints; work elsewhere" if free < MINIMUM_DISK_GB else "",
        )  # fmt: skip


def _required() -> Iterator[Check]:
    for distribution, module, consequence in (
        ("torch", "torch", "no model runs"),
        ("transformers", "transformers", "no model can be loaded"),
        ("accelerate", "accelerate", "no training"),
        ("faiss-cpu", "faiss", "no index and no search"),
        ("rdkit", "rdkit.Chem", "no molecules: structures are neither read nor compared"),
        ("pyarrow", "pyarrow.parquet", "no store"),
        ("lxml", "lxml.etree", "mzML and mzXML cannot be read"),
    ):
        version, problem = _import(distribution, module)
        if problem:
            yield Check(distribution, "missing", problem, f"{consequence}; install ionbed again")
        else:
            yield Check(distribution, "ok", version)
    torch, problem = _torch()
    if torch is not None:
        yield Check(
            "torch threads",
            "ok",
            f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})",
        )
        instructions = torch.backends.cpu.get_cpu_capability()
        yield Check("CPU instructions", "ok", f"{instructions}, {_bf16_on_cpu(torch)}")
        yield Check("matrix product, CPU", "ok", f"{matmul_peak(torch, 'cpu', torch.float32) / 1e9:,.0f} GFLOP/s fp32")


def _accelerators() -> Iterator[Check]:
    torch, _ = _torch()
    if torch is None:
        return
    if not torch.cuda.is_available():
        build = "a CPU build of torch" if torch.version.cuda is None else f"torch for CUDA {torch.version.cuda}"
        yield Check(
            "GPU", "note", f"none ({build})", "base size and large pretraining are out of reach; tiny and small work"
        )
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        peak = matmul_peak(torch, f"cuda:{index}", torch.bfloat16) / 1e12
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Check(
            f"GPU {index}", "ok" if bf16 else "note",
            f"{device.name}, {device.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}, {peak:,.0f} TFLOP/s bf16",
            "" if bf16 else "no bf16: train with training.precision: fp32",
        )  # fmt: skip


def _optional() -> Iterator[Check]:
    for distribution, extra, consequence in (
        ("matchms", "evaluate", "no evaluate, fuse and demo"),
        ("tensorboard", "track", "training.trackers cannot name it"),
        ("wandb", "track", "training.trackers cannot name it"),
        ("trackio", "track", "training.trackers cannot name it"),
        ("peft", "lora", "training on labels with init.train: lora is refused"),
        ("fastapi", "serve", "no HTTP service"),
    ):
        try:
            yield Check(distribution, "ok", metadata.version(distribution))
        except metadata.PackageNotFoundError:
            yield Check(distribution, "note", "not installed", f"{consequence}; pip install 'ionbed[{extra}]'")


def _slurm() -> Check:
    if shutil.which("sbatch"):
        return Check(
            "Slurm", "ok", "sbatch found" + (f", inside job {job}" if (job := os.environ.get("SLURM_JOB_ID")) else "")
        )
    return Check("Slurm", "note", "not found", "training runs on this machine only")


def matmul_peak(
    torch: Any,
    device: str,
    dtype: Any,
    *,
    size: int | None = None,
    seconds: float = MATMUL_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the rate of a square matrix product, the best of several, in FLOP/s.

    Parameters
    ----------
    torch : module
    device : str
        For example ``cpu`` or ``cuda:0``; one process of several may compute on ``cpu:0``.
    dtype : torch.dtype
    size : int
        Rows and columns; where None, large enough to reach the peak on that device.
    seconds : float
        How long to try.
    clock : function
        In seconds; `time.process_time` on a machine that is busy with other work.
    """
    n = size or (1024 if torch.device(device).type == "cpu" else 8192)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    a @ b
    wait()
    best, stop = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = clock()
        a @ b
        wait()
        best = min(best, clock() - start)
    return 2 * n**3 / best


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch() -> tuple[Any, str]:
    try:
        return importlib.import_module("torch"), ""
    except (ImportError, OSError) as error:  # OSError: a shared library of the build is missing
        return None, str(error)


def _import(distribution: str, module: str) -> tuple[str, str]:
    """Return the version of a distribution whose module imports, and otherwise why it does not."""
    try:
        importlib.import_module(module)
        return metadata.version(distribution), ""
    except (ImportError, OSError, metadata.PackageNotFoundError) as error:
        return "", " ".join(str(error).split())


def _bf16_on_cpu(torch: Any) -> str:
    cpu = torch.cpu
    if getattr(cpu, "_is_amx_tile_supported", lambda: False)():
        return "bf16 by AMX"
    if getattr(cpu, "_is_avx512_bf16_supported", lambda: False)():
        return "bf16 by AVX-512"
    return "no fast bf16 (train with training.precision: fp32)"
