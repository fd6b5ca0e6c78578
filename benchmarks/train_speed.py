"""What share of the matrix-product peak of this machine pretraining reaches: the forward pass, and the training step.

    python benchmarks/train_speed.py [--sizes base small] [--store STORE] [--device cuda] [--rounds 3] [--json]

Each size is timed on spectra of 60 peaks, and on spectra with the lengths of real ones: those of a store (--store, or
the variable IONBED_STORE), else random with lengths like those of public libraries. A round measures the peak, runs the
forward pass of a step's spectra or the whole step (forward, backward, clipping, optimiser; masked peaks), and measures
the peak again; the median round counts. Operations are those of the encoder's matrix products on real tokens
(`ionbed.encoder.flops`), three forward passes in a step: what padding, the heads and all else cost lowers the share.
fp32 on a CPU, bf16 (mixed) on CUDA, unless told otherwise. Use an idle machine; on a busy one, --cpu-time counts the
time of this process alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path

import numpy as np
import torch
from embed_speed import random_spectra, sample_of_store

from ionbed.configs.loading import load_config
from ionbed.doctor import matmul_peak
from ionbed.encoder.batching import padding_share
from ionbed.encoder.collator import EncoderBatch, select_peaks
from ionbed.encoder.flops import forward_flops
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.data import epoch_batches
from ionbed.pretrain.masking import masked_batch
from ionbed.pretrain.objective import MaskedPeakObjective
from ionbed.pretrain.optimisation import make_optimizer
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

NUM_PEAKS = 60
BACKWARD_AND_FORWARD = 3
"""A backward pass has two products for each of the forward pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], help="tiny, small, base")
    store = os.environ.get("IONBED_STORE")
    parser.add_argument("--store", type=Path, default=store, help="a folder written by 'ionbed prepare'")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="fp32 on a CPU, else bf16")
    parser.add_argument("--step-tokens", type=int, help="tokens of a step; 4096 on a CPU, else 131072")
    parser.add_argument("--micro-batch-tokens", type=int, help="computed at once; 2048 on a CPU, else 32768")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="count the time of this process, not the clock's")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    on_cpu = arguments.device == "cpu"
    step_tokens = arguments.step_tokens or (4096 if on_cpu else 131072)
    micro_batch_tokens = arguments.micro_batch_tokens or (2048 if on_cpu else 32768)
    precision = arguments.precision or ("fp32" if on_cpu else "bf16")

    rows = []
    for size in arguments.sizes:
        overrides = ["data.store=unused", "output=unused", f"training.micro_batch_tokens={micro_batch_tokens}"]
        config = load_config(PretrainConfig, f"pretrain-{size}", overrides)
        lengths_from = arguments.store.name if arguments.store else "random"
        candidates = sample_of_store(arguments.store, step_tokens) if arguments.store else random_spectra(step_tokens)
        for label, columns in (
            (f"{NUM_PEAKS} peaks", spectra_of_length(NUM_PEAKS, step_tokens // (NUM_PEAKS + 1))),
            (f"lengths of {lengths_from}", candidates),
        ):
            for measured in measure(config, columns, step_tokens, arguments.device, precision, arguments.rounds, clock):
                rows.append({"size": size, "spectra": label, **measured})
                if not arguments.json:
                    print_row(rows[-1], header=len(rows) == 1)
    machine = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(arguments.device) if not on_cpu else "CPU",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "tokens of a step": step_tokens,
        "tokens computed at once": micro_batch_tokens,
    }
    if arguments.json:
        print(json.dumps({**machine, "rows": rows}, indent=2))
    else:
        print("\n" + ", ".join(f"{name}: {value}" for name, value in machine.items()))


def spectra_of_length(num_peaks: int, count: int) -> SpectrumColumns:
    """Return ``count`` spectra of ``num_peaks`` random peaks."""
    rng = np.random.default_rng(0)
    return SpectrumColumns.from_spectra(
        [
            Spectrum(
                f"random-{i}",
                900.0,
                np.sort(rng.uniform(50, 900, num_peaks)).astype(np.float32),
                rng.uniform(0.01, 1, num_peaks).astype(np.float32),
                polarity=1,
                charge=1,
            )
            for i in range(count)
        ]
    )


def micro_batches_of_a_step(lengths: np.ndarray, micro_batch_tokens: int, step_tokens: int) -> list[np.ndarray]:
    """Return micro-batches as training makes them, of the short, middling and long spectra in due numbers.

    A step of training has spectra of about one length; what is returned stands for many steps.
    """
    batches = epoch_batches(np.arange(len(lengths)), lengths, micro_batch_tokens, seed=0, epoch=0)
    batches.sort(key=lambda rows: float(lengths[rows].mean()))
    number = min(len(batches), max(1, step_tokens // micro_batch_tokens))
    return [batches[len(batches) * (2 * i + 1) // (2 * number)] for i in range(number)]


def measure(
    config: PretrainConfig,
    columns: SpectrumColumns,
    step_tokens: int,
    device: str,
    precision: str,
    rounds: int,
    clock: Callable[[], float],
) -> list[dict[str, str | int | float]]:
    """Time the forward pass and the training step on some of ``columns``, ``rounds`` times each, after one untimed."""
    torch.manual_seed(0)
    encoder = IonbedModel(config.model.encoder_config())
    objective = MaskedPeakObjective(encoder, config.masking).to(device)
    optimizer = make_optimizer(objective, config.training)
    selected, _ = select_peaks(columns, encoder.config)
    all_lengths = selected.num_peaks + 1
    parts = micro_batches_of_a_step(all_lengths, config.training.micro_batch_tokens, step_tokens)
    lengths = all_lengths[np.concatenate(parts)]
    batches = [
        masked_batch(columns.take(part), part, encoder.config, config.masking, 0, 0).to(device) for part in parts
    ]

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bf16" else nullcontext()

    def forward() -> None:
        with torch.inference_mode(), autocast():
            for batch in batches:
                encoder(batch)

    def step() -> None:
        training_step(objective, optimizer, batches, config.training.max_grad_norm, autocast)

    operations = forward_flops(encoder.config, lengths)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows: list[dict[str, str | int | float]] = []
    for label, run, times in (("forward", forward, 1), ("training step", step, BACKWARD_AND_FORWARD)):
        seconds, peaks = timed(run, device, dtype, rounds, clock)
        shares = [times * operations / s / peak for s, peak in zip(seconds, peaks, strict=True)]
        median = statistics.median(seconds)
        rows.append(
            {
                "what": label,
                "parameters": sum(p.numel() for p in encoder.parameters()),
                "number of spectra": len(lengths),
                "padding, share of tokens": padding_share(all_lengths, parts),
                "seconds": median,
                "spectra/s": len(lengths) / median,
                "tokens/s without padding": float(lengths.sum()) / median,
                "GFLOP/s": times * operations / median / 1e9,
                "matrix-product peak, GFLOP/s": statistics.median(peaks) / 1e9,
                "share of the peak": statistics.median(shares),
                "share of the peak, lowest round": min(shares),
            }
        )
    return rows


def training_step(
    objective: MaskedPeakObjective,
    optimizer: torch.optim.Optimizer,
    batches: list[EncoderBatch],
    max_grad_norm: float,
    autocast: Callable[[], AbstractContextManager[object]],
) -> None:
    """Do what a step of the training loop does on one process."""
    optimizer.zero_grad(set_to_none=True)
    counts = [objective.counts(batch) for batch in batches]
    totals = {name: max(sum(count[name] for count in counts), 1) for name in objective.weights}
    for batch in batches:
        with autocast():
            terms = objective(batch)
        torch.stack(
            [weight * terms[name] / totals[name] for name, weight in objective.weights.items()]
        ).sum().backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), max_grad_norm)
    optimizer.step()


def timed(
    run: Callable[[], None], device: str, dtype: torch.dtype, rounds: int, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Return the seconds of each round, and the mean of the peaks measured before and after it (FLOP/s)."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    run()
    seconds, peaks = [], []
    for _ in range(rounds):
        before = matmul_peak(torch, device, dtype, clock=clock)
        wait()
        start = clock()
        run()
        wait()
        seconds.append(clock() - start)
        peaks.append((before + matmul_peak(torch, device, dtype, clock=clock)) / 2)
    return seconds, peaks


def print_row(row: dict[str, str | int | float], *, header: bool) -> None:
    """Print one line of the table, the header before the first."""
    if header:
        print(f"{'size':<6} {'spectra':<22} {'what':<14} {'seconds':>8} {'tokens/s':>10} {'GFLOP/s':>10} {'peak':>10} "
              f"{'share':>6} {'lowest':>6} {'padding':>7}")  # fmt: skip
    print(
        f"{row['size']:<6} {row['spectra']:<22} {row['what']:<14} {row['seconds']:>8.3f} "
        f"{row['tokens/s without padding']:>10,.0f} {row['GFLOP/s']:>10,.1f} "
        f"{row['matrix-product peak, GFLOP/s']:>10,.1f} {row['share of the peak']:>6.3f} "
        f"{row['share of the peak, lowest round']:>6.3f} {row['padding, share of tokens']:>7.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
