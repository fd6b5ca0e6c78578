"""How fast training spectra are loaded, masked and collated, beside what a training step consumes; and in what memory.

    python benchmarks/load_speed.py --store STORE [--split SPLIT] [--size small] [--workers 2] [--accelerator-tflops T]
    python benchmarks/load_speed.py --memory 1000000 10000000

The first form times the loading of one process, and of `--workers` loading processes with the way to the training
process. A training step consumes at most as many spectra as there are if it ran at the whole matrix-product peak of
this machine's CPU (measured in the same minutes), or at the rate of an accelerator that is given in TFLOP/s. Without a
store (--store, or the variable IONBED_STORE) spectra are made up, with lengths like those of public libraries.

The second form makes stores of so many spectra of four peaks, and says how much memory a process holds of its own once
it has opened one and planned an epoch: mapped pages, which all processes share and the system may drop, do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pyarrow as pa
import torch

from ionbed.artifacts import sha256_of_file, write_manifest
from ionbed.configs.loading import load_config
from ionbed.doctor import matmul_peak
from ionbed.pretrain.config import DataConfig, PretrainConfig
from ionbed.pretrain.data import TrainingSpectra, epoch_batches
from ionbed.pretrain.loader import Position, prefetched
from ionbed.pretrain.task import MaskedPeakTask
from ionbed.spectra.store import SCHEMA, SHARD_NAME, write_shard

ROWS_PER_SHARD = 500_000
BATCH_TOKENS = 1_048_576


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=os.environ.get("IONBED_STORE"))
    parser.add_argument("--split", type=Path)
    parser.add_argument("--size", default="small", help="tiny, small or base")
    parser.add_argument("--batch-tokens", type=int, help="of a step; the size's own by default")
    parser.add_argument("--compile", action="store_true", help="the fixed shapes of a compiled model")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--accelerator-tflops", type=float, help="what a training step reaches on the accelerator")
    parser.add_argument("--folder", type=Path, help="where made-up stores and mapped files lie; temporary by default")
    parser.add_argument("--memory", type=int, nargs="+", metavar="SPECTRA", help="measure memory instead")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-speed-") as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.memory_of:
            print(json.dumps(memory_of(arguments.memory_of, folder)))
        elif arguments.memory:
            memory(arguments.memory, folder)
        else:
            speed(arguments, folder)


def speed(arguments: argparse.Namespace, folder: Path) -> None:
    store = arguments.store
    if store is None:
        lengths = np.random.default_rng(0).lognormal(2.4, 1.1, 60_000).astype(np.int64).clip(1, 500)
        store = made_up_store(folder / "store", lengths)
    changes = [f"data.store={store}", f"output={folder}", f"training.compile={str(arguments.compile).lower()}"]
    changes += [f"data.split={arguments.split}"] if arguments.split else []
    changes += [f"training.batch_tokens={arguments.batch_tokens}"] if arguments.batch_tokens else []
    config = load_config(PretrainConfig, f"pretrain-{arguments.size}", changes)
    spectra = TrainingSpectra(config.data, folder / "columns")
    task = MaskedPeakTask(config, spectra)
    batches = task.epoch_batches(0)[: arguments.steps]
    num_spectra = sum(map(len, batches))

    def collate_all() -> list:
        return [micro for rows in batches for micro in task.micro_batches(rows, 0, 0, 1)]

    micro = collate_all()
    tokens, attended = (sum(map(count, micro)) for count in (lambda batch: batch.num_tokens, task.attended_tokens))
    flops = 3 * sum(task.flops(batch) for batch in micro) / num_spectra  # a backward pass takes two forward ones
    rates: dict[str, list[float]] = {"read": [], "collated": [], "workers": [], "peak": []}
    process = SimpleNamespace(device=torch.device("cpu"), process_index=0, num_processes=1)
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        for rows in batches:
            spectra.columns(rows)
        rates["read"].append(num_spectra / (time.perf_counter() - started))
        started = time.perf_counter()
        collate_all()
        rates["collated"].append(num_spectra / (time.perf_counter() - started))
        ahead = prefetched(task, len(batches), Position(), batches, process, arguments.workers)  # type: ignore[arg-type]
        next(ahead)
        started, count = time.perf_counter(), 0
        for _, loaded, _ in ahead:
            count += sum(map(len, loaded))
        rates["workers"].append(count / (time.perf_counter() - started))
        rates["peak"].append(matmul_peak(torch, "cpu", torch.float32))
    median = {name: statistics.median(values) for name, values in rates.items()}
    cores = len(os.sched_getaffinity(0))
    rows = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {cores} cores, {torch.get_num_threads()} threads",
        "model": f"{arguments.size}, {config.training.batch_tokens:,} tokens a step",
        "spectra, tokens each": f"{num_spectra:,}, {tokens / num_spectra:.1f}",
        "padding, share of the tokens attended to": f"{1 - tokens / attended:.3f}",
        "read alone, spectra/s": f"{median['read']:,.0f}",
        "read, masked, collated by one process, spectra/s": f"{median['collated']:,.0f}",
        f"by {arguments.workers} loading processes, spectra/s": f"{median['workers']:,.0f}",
        "matrix-product peak, GFLOP/s": f"{median['peak'] / 1e9:,.0f}",
        "a training step at that peak, spectra/s": f"{median['peak'] / flops:,.0f}",
        "one loading process keeps up with so many peaks": f"{median['collated'] * flops / median['peak']:.1f}",
    }
    if arguments.accelerator_tflops:
        consumed = arguments.accelerator_tflops * 1e12 / flops
        rows[f"a training step at {arguments.accelerator_tflops:g} TFLOP/s, spectra/s"] = f"{consumed:,.0f}"
        rows["loading processes that keep up with it"] = f"{consumed / median['collated']:.1f}"
    for name, value in rows.items():
        print(f"{name:<50} {value}")


def memory(sizes: list[int], folder: Path) -> None:
    print(f"{'spectra':>12} {'own memory, MB':>15} {'at most, MB':>12} {'open, s':>8} {'epoch, s':>9}")
    found = []
    for size in sizes:
        store = folder / f"made-up-{size}"
        if not store.exists():
            made_up_store(store, np.full(size, 4))
        command = [sys.executable, __file__, "--memory-of", str(store), "--folder", str(folder)]
        subprocess.run(command, check=True, capture_output=True)  # makes the mapped files
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout))
        own, most, opened, planned = (found[-1][name] for name in ("own", "most", "open", "epoch"))
        print(f"{size:>12,} {own / 1e6:>15,.0f} {most / 1e6:>12,.0f} {opened:>8.1f} {planned:>9.1f}", flush=True)
    for name in ("own", "most") if len(sizes) > 1 else ():
        slope = (found[-1][name] - found[0][name]) / (sizes[-1] - sizes[0])
        print(f"{name}: {slope:.1f} bytes for each spectrum more")


def memory_of(store: Path, folder: Path) -> dict[str, float]:
    """Open a store, plan an epoch and read some of its batches; return bytes of this process's own, and seconds.

    The most that it held at a time is the system's figure of resident memory, mapped pages included.
    """
    started = time.perf_counter()
    spectra = TrainingSpectra(DataConfig(store), folder / "columns")
    opened = time.perf_counter()
    num_tokens = np.minimum(spectra.num_peaks, 64) + 1
    batches = epoch_batches(spectra.rows, num_tokens, BATCH_TOKENS, 0, 0)
    planned = time.perf_counter()
    for rows in batches[:3]:
        spectra.columns(rows)
    own = psutil.Process().memory_full_info().uss - mapped_alone()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"own": own, "most": most, "open": opened - started, "epoch": planned - opened}


def mapped_alone() -> int:
    """Return the bytes of mapped files that only this process has open now; the system may drop them at any time."""
    maps = psutil.Process().memory_maps()
    return sum(m.private_clean for m in maps if m.path.startswith("/") and "/columns/" in m.path)


def made_up_store(folder: Path, lengths: np.ndarray) -> Path:
    """Write a store of unlabelled spectra with so many peaks each."""
    folder.mkdir(parents=True)
    generator, shards = np.random.default_rng(0), []
    for number, start in enumerate(range(0, len(lengths), ROWS_PER_SHARD)):
        counts = lengths[start : start + ROWS_PER_SHARD]
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        peaks = int(counts.sum())
        none = pa.ListArray.from_arrays(pa.array(np.zeros(len(counts) + 1, np.int32)), pa.array([], pa.string()))
        mz = np.repeat(generator.integers(50, 90, len(counts)), counts) + np.arange(peaks, dtype=np.int64) % 500
        values = {
            "spectrum_id": pa.array([f"S{row}" for row in range(start, start + len(counts))]),
            "precursor_mz": pa.array(generator.uniform(100, 900, len(counts)).round(2)),
            "predicted": pa.array(np.zeros(len(counts), bool)),
            "repairs": none,
            "flags": none,
            "mz": pa.ListArray.from_arrays(offsets, pa.array(mz.astype(np.float32))),
            "intensity": pa.ListArray.from_arrays(offsets, pa.array(np.linspace(0.01, 1, peaks, dtype=np.float32))),
        }
        columns = [values.get(f.name, pa.nulls(len(counts), f.type)) for f in SCHEMA]
        path = folder / SHARD_NAME.format(number)
        write_shard(pa.table(columns, schema=SCHEMA), path)
        shards.append({"file": path.name, "spectra": len(counts), "sha256": sha256_of_file(path)})
    write_manifest(folder, {"command": "prepare", "inputs": [], "options": {}, "counts": {}, "shards": shards})
    return folder


if __name__ == "__main__":
    main()
