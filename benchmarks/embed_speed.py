"""How fast the encoder embeds real spectra, beside plain transformers and the matrix-product peak of the same minutes.

    python benchmarks/embed_speed.py --store STORE [--size small] [--model FOLDER] [--spectra 4000] [--rounds 5]

A round measures the peak, embeds the spectra with each program, and measures the peak again; the median round counts.
The plain ones are torch's `nn.TransformerEncoder` of the same sizes over the same tokens, as it is used most: spectra
in their order, so many at a time, padded to the longest, padding masked. One has its norms first, as ours has; the
other has them last, for which alone torch has a fast path in inference: it leaves padding out. Operations are those of
matrix products on real tokens.

Use an idle machine: the peak is the best of many short products, the embedding one long run. On a busy one, --cpu-time
counts the time of this process alone. The weights do not change the speed, so a size is enough. Without a store
(--store, or the variable IONBED_STORE) the spectra are random, with lengths like those of public libraries (log-normal,
median 11 peaks).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ionbed.configs.loading import load_config
from ionbed.doctor import matmul_peak
from ionbed.encoder.batching import padding_share, token_budget_batches
from ionbed.encoder.collator import EncoderBatch, collate, select_peaks
from ionbed.encoder.flops import forward_flops
from ionbed.encoder.loading import load_model
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.pretrain.config import PretrainConfig
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import Store

BATCH_TOKENS = 4096
PLAIN_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    store = os.environ.get("IONBED_STORE")
    parser.add_argument("--store", type=Path, default=store, help="a folder written by 'ionbed prepare'")
    parser.add_argument("--size", default="small", help="tiny, small or base")
    parser.add_argument("--model", type=Path, help="a model folder, instead of a size")
    parser.add_argument("--spectra", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--plain-batch", type=int, default=PLAIN_BATCH, help="spectra at a time; 0: no plain ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="count the time of this process, not the clock's")
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
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    result = measure(
        model, columns, arguments.rounds, arguments.batch_tokens, arguments.plain_batch, arguments.device, clock
    )
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


class PlainEncoder(nn.Module):
    """A model's tokens through `nn.TransformerEncoder`, and the mean over them: no rotation, padding computed."""

    def __init__(self, model: IonbedModel, *, norm_first: bool) -> None:
        super().__init__()
        config = model.config
        self.tokens = model.peak_embedding
        layer = nn.TransformerEncoderLayer(
            config.hidden_size, config.num_heads, config.mlp_ratio * config.hidden_size, dropout=config.dropout,
            activation="gelu", batch_first=True, norm_first=norm_first,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=not norm_first)

    def forward(self, batch: EncoderBatch) -> torch.Tensor:
        """Return unit vectors, (B, D)."""
        hidden_BLD = self.layers(self.tokens(batch), src_key_padding_mask=~batch.mask_BL)
        return F.normalize((hidden_BLD * batch.mask_BL.unsqueeze(-1)).sum(1), dim=-1)


@torch.inference_mode()
def embed_plainly(plain: PlainEncoder, columns: SpectrumColumns, model: IonbedModel, batch_size: int) -> np.ndarray:
    """Return the vectors of spectra, ``batch_size`` at a time, in their order."""
    columns, _ = select_peaks(columns, model.config)
    parts = np.split(np.arange(len(columns)), np.arange(batch_size, len(columns), batch_size))
    batches = (collate(columns.take(part), model.config, peaks_selected=True).to(model.device) for part in parts)
    return np.concatenate([plain(batch).float().cpu().numpy() for batch in batches])


def measure(
    model: IonbedModel,
    columns: SpectrumColumns,
    rounds: int,
    batch_tokens: int,
    plain_batch: int,
    device: str,
    clock: Callable[[], float],
) -> dict[str, str | int | float]:
    """Time ``rounds`` embeddings of all spectra, each between two measurements of the matrix-product peak."""
    selected, _ = select_peaks(columns, model.config)
    lengths = selected.num_peaks + 1
    tokens, operations = int(lengths.sum()), forward_flops(model.config, lengths)
    in_order = np.split(np.arange(len(lengths)), np.arange(plain_batch or len(lengths), len(lengths), plain_batch or 1))
    programs: dict[str, Callable[[], np.ndarray]] = {"ionbed": lambda: model.embed(columns, batch_tokens=batch_tokens)}
    for label, norm_first in (("norms first", True), ("norms last", False)) if plain_batch else ():
        plain = PlainEncoder(model, norm_first=norm_first).to(device).eval()
        programs[label] = functools.partial(embed_plainly, plain, columns, model, plain_batch)
    for program in programs.values():
        program()

    seconds: dict[str, list[float]] = {label: [] for label in programs}
    peaks = []
    for _ in range(rounds):
        before = matmul_peak(torch, device, model.dtype, clock=clock)
        for label, program in programs.items():
            start = clock()
            program()
            seconds[label].append(clock() - start)
        peaks.append((before + matmul_peak(torch, device, model.dtype, clock=clock)) / 2)
    shares = [operations / s / peak for s, peak in zip(seconds["ionbed"], peaks, strict=True)]
    median = statistics.median(seconds["ionbed"])
    result: dict[str, str | int | float] = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "precision": str(model.dtype).removeprefix("torch."),
        "spectra": len(columns),
        "median tokens per spectrum": float(np.median(lengths)),
        "mean tokens per spectrum": tokens / len(columns),
        "padding, share of tokens": padding_share(lengths, token_budget_batches(lengths, batch_tokens)),
        "spectra/s": len(columns) / median,
        "tokens/s without padding": tokens / median,
        "GFLOP/s": operations / median / 1e9,
        "matrix-product peak, GFLOP/s": statistics.median(peaks) / 1e9,
        "share of the peak": statistics.median(shares),
        "share of the peak, lowest round": min(shares),
    }
    if plain_batch:
        result["plain: spectra at a time"] = plain_batch
        result["plain: padding, share of tokens"] = padding_share(lengths, in_order)
    for label in [label for label in programs if label != "ionbed"]:
        times = [theirs / ours for theirs, ours in zip(seconds[label], seconds["ionbed"], strict=True)]
        result[f"plain, {label}: spectra/s"] = len(columns) / statistics.median(seconds[label])
        result[f"plain, {label}: times as long"] = statistics.median(times)
        result[f"plain, {label}: times, lowest"] = min(times)
    return result


if __name__ == "__main__":
    main()
