"""How fast the encoder embeds real spectra, beside the matrix-product peak of the same machine in the same minutes.

    python benchmarks/embed_speed.py --store STORE [--size small] [--model FOLDER] [--spectra 4000] [--rounds 5]

A round measures the peak, embeds the spectra, and measures the peak again; the median round counts. Use an idle
machine: the peak is the best of many short products, the embedding one long run. The weights do not change the speed,
so a size is enough. Without a store (--store, or the variable IONBED_STORE) the spectra are random, with lengths like
those of public libraries (log-normal, median 11 peaks).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ionbed.configs.loading import load_config
from ionbed.doctor import matmul_peak
from ionbed.encoder.batching import padding_share, token_budget_batches
from ionbed.encoder.collator import select_peaks
from ionbed.encoder.loading import load_model
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.pretrain.config import PretrainConfig
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import Store

BATCH_TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    store = os.environ.get("IONBED_STORE")
    parser.add_argument("--store", type=Path, default=store, help="a folder written by 'ionbed prepare'")
    parser.add_argument("--size", default="small", help="tiny, small or base")
    parser.add_argument("--model", type=Path, help="a model folder, instead of a size")
    parser.add_argument("--spectra", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()

    if arguments.model:
        model = load_model(arguments.model)
    else:
        overrides = ["data.store=unused", "output=unused"]
        config = load_config(PretrainConfig, f"pretrain-{arguments.size}", overrides)
        torch.manual_seed(0)
        model = IonbedModel(config.model.encoder_config()).eval()
    model = model.to(arguments.device)
    columns = (
        sample_of_store(arguments.store, arguments.spectra) if arguments.store else random_spectra(arguments.spectra)
    )
    result = measure(model, columns, arguments.rounds, arguments.batch_tokens, arguments.device)
    result = {"spectra source": str(arguments.store.name if arguments.store else "random"), **result}
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name:<32} {value:,.3g}" if isinstance(value, float) else f"{name:<32} {value}")


def sample_of_store(folder: Path, count: int) -> SpectrumColumns:
    """Return ``count`` spectra of a store, drawn with a fixed seed."""
    table = Store(folder).table(list(SpectrumColumns.TABLE_COLUMNS))
    columns = SpectrumColumns.from_table(table)
    rows = np.random.default_rng(0).permutation(len(columns))[:count]
    return columns.take(np.sort(rows))


def random_spectra(count: int) -> SpectrumColumns:
    """Return spectra of random peaks whose numbers of peaks are log-normal with median 11."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(11), 1.0, count)), 1, 500).astype(int)
    return SpectrumColumns.from_spectra(
        [
            Spectrum(
                f"random-{i}",
                float(rng.uniform(150, 900)),
                np.sort(rng.uniform(50, 900, n)).astype(np.float32),
                rng.uniform(0.01, 1, n).astype(np.float32),
                polarity=1,
                charge=1,
            )
            for i, n in enumerate(lengths)
        ]
    )


def measure(
    model: IonbedModel, columns: SpectrumColumns, rounds: int, batch_tokens: int, device: str
) -> dict[str, str | int | float]:
    """Time ``rounds`` embeddings of all spectra, each between two measurements of the matrix-product peak."""
    selected, _ = select_peaks(columns, model.config)
    tokens_per_spectrum = selected.num_peaks + 1
    tokens = int(tokens_per_spectrum.sum())
    padding = padding_share(tokens_per_spectrum, token_budget_batches(tokens_per_spectrum, batch_tokens))
    counter = FlopCounterMode(display=False)
    with counter:
        model.embed(columns, batch_tokens=batch_tokens)
    operations = counter.get_total_flops()

    seconds, peaks = [], []
    for _ in range(rounds):
        before = matmul_peak(torch, device, model.dtype)
        start = time.perf_counter()
        model.embed(columns, batch_tokens=batch_tokens)
        seconds.append(time.perf_counter() - start)
        peaks.append((before + matmul_peak(torch, device, model.dtype)) / 2)
    shares = [operations / s / peak for s, peak in zip(seconds, peaks, strict=True)]
    median = statistics.median(seconds)
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "precision": str(model.dtype).removeprefix("torch."),
        "spectra": len(columns),
        "median tokens per spectrum": float(np.median(tokens_per_spectrum)),
        "mean tokens per spectrum": tokens / len(columns),
        "padding, share of tokens": padding,
        "spectra/s": len(columns) / median,
        "tokens/s without padding": tokens / median,
        "GFLOP/s": operations / median / 1e9,
        "matrix-product peak, GFLOP/s": statistics.median(peaks) / 1e9,
        "share of the peak": statistics.median(shares),
        "share of the peak, lowest round": min(shares),
    }


if __name__ == "__main__":
    main()
