"""How much faster two processes train than one, each with one thread on a core of its own.

    python benchmarks/scaling_speed.py [--store STORE] [--size small] [--processes 2] [--steps 40] [--rounds 3]
                                       [--parallelism ddp]

Each round trains masked peaks alone, with one process and then with all, on the same batches, and compares the tokens
per second of the log (without its first line, which holds the start). Use an idle machine with at least as many cores.
Without a store (--store, or the variable IONBED_STORE) the spectra are made up, of 60 peaks each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from made_up_mgf import write_mgf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=os.environ.get("IONBED_STORE"))
    parser.add_argument("--size", default="small", help="tiny, small or base")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--parallelism", default="ddp", choices=["ddp", "fsdp2"])
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) < arguments.processes:
        parser.error(f"{arguments.processes} processes need as many cores; this machine has {os.cpu_count()}")
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or made_up_store(Path(folder))
        ratios = []
        for number in range(arguments.rounds):
            rates = [train(arguments, store, Path(folder) / f"{number}-{n}", n) for n in (1, arguments.processes)]
            ratios.append(rates[1] / rates[0])
            print(f"round {number + 1}: {rates[0]:,.0f} tokens/s with 1 process, {rates[1]:,.0f} with "
                  f"{arguments.processes}: {ratios[-1]:.2f} times", flush=True)  # fmt: skip
    print(f"{arguments.size}, {arguments.parallelism}: {statistics.median(ratios):.2f} times (median)")


def made_up_store(folder: Path) -> Path:
    """Return a store of 20,000 made-up spectra."""
    from ionbed.spectra.prepare import prepare

    write_mgf(folder / "made-up.mgf", 20_000)
    prepare([folder / "made-up.mgf"], folder / "store")
    return folder / "store"


def train(arguments: argparse.Namespace, store: Path, output: Path, processes: int) -> float:
    """Return the tokens per second, over all processes, after the first logged line."""
    options = {
        "data.store": store, "output": output, "training.steps": arguments.steps, "training.warmup_steps": 1,
        "training.batch_tokens": arguments.batch_tokens, "training.micro_batch_tokens": 4096, "training.threads": 1,
        "training.precision": "fp32", "objectives.views": 0, "training.parallelism": arguments.parallelism,
        "training.log_every": max(1, arguments.steps // 4), "training.validate_every": 10**6,
        "training.checkpoint_every": 10**6,
    }  # fmt: skip
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [sys.executable, *launcher, "--module", "ionbed", "pretrain", f"pretrain-{arguments.size}", *sets]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line][1:]
    return statistics.mean(rates)


if __name__ == "__main__":
    main()
