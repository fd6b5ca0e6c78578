"""Which choices of the encoder and of masking matter: each is changed alone, trained at equal compute, and judged.

    python benchmarks/ablation.py --store STORE --split SPLIT --out FOLDER [--size tiny] [--steps 800] [--seeds 1]
                                  [--default-seeds 3] [--only NAME...] [--set a.b=c]... [--plan] [--judge]

Equal compute: the forward operations of the encoder on real tokens (`ionbed.encoder.flops`); a variant that costs more
a token trains for fewer steps. The heads, under 5% of a step, are not counted. All variants of a seed see the same
spectra in the same order. Every run is judged three ways:

  validation loss   per masked peak, of the run's own masking: to be compared within a target (bins or value) and at
                    the same share, intensity_power and hide_intensity_share only,
  masked peaks      the share of hidden peaks whose m/z is predicted within 0.05 Da and within 0.5 Da, on the same
                    hidden peaks of the same validation spectra for all (those of the default masking),
  probe             `ionbed probe`: linear heads on frozen embeddings, and searches without training (zero-shot).

All on the validation fold: what a choice is made by is not the test fold. Intervals resample molecules; differences to
the default are paired. The default is trained --default-seeds times: the spread of those trainings is part of its
interval, and each stands in the table by itself, so that one sees what another seed alone does.

Started again, it keeps what is finished and goes on; --judge judges what is there and trains no more, --plan prints the
runs and their steps. Results: results.json and table.md in the folder. One core: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import ionbed
from ionbed.artifacts import atomic_file
from ionbed.configs.loading import load_config
from ionbed.encoder.flops import forward_flops
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.evaluation.dataset import EvaluationData, load_evaluation_data
from ionbed.evaluation.probe.run import ProbeOptions, probe
from ionbed.evaluation.statistics import (
    Estimate,
    Measured,
    combine_trainings,
    compare,
    estimate,
    molecule_weights,
    resampled_means,
    trainings_p,
)
from ionbed.pretrain.checkpoints import choose_checkpoint
from ionbed.pretrain.config import MaskingConfig, PretrainConfig
from ionbed.pretrain.masking import masked_batch
from ionbed.pretrain.objective import MaskedPeakObjective
from ionbed.pretrain.run import pretrain
from ionbed.spectra.split import Split
from ionbed.spectra.store import Store

DEFAULT = "default"
TOLERANCES = {"within 0.05 Da": 0.05, "within 0.5 Da": 0.5}
BATCH_TOKENS = 2048
"""Of a step: a short run learns more from many small steps than from few large ones."""


@dataclass(frozen=True)
class Variant:
    """One row of the table: what it changes, and in which words."""

    name: str
    changes: tuple[str, ...] = ()


VARIANTS = (
    Variant(DEFAULT),
    Variant("attention: no rotation", ("model.rotary_fraction=0",)),
    Variant("attention: pairwise bias, no rotation", ("model.rotary_fraction=0", "model.pairwise_bias=16")),
    Variant("masking: uniform", ("masking.intensity_power=0",)),
    Variant("target: m/z regressed", ("masking.mz_target=regression",)),
    Variant("target: no intensity", ("masking.hide_intensity_share=0",)),
    Variant(
        "objectives: two views contrasted",
        ("objectives.views=0.3", "objectives.share=0.4", "objectives.group_spectra=30", "objectives.drop_peaks=0.3"),
    ),
    Variant("m/z features: 0.01 to 1000 Da", ("model.mz_wavelengths=[0.01, 1000]",)),
    Variant("m/z features: 0.1 to 1000 Da", ("model.mz_wavelengths=[0.1, 1000]",)),
    Variant("m/z features: 1 to 10000 Da", ("model.mz_wavelengths=[1, 10000]",)),
    Variant("attention: pairwise bias and rotation", ("model.pairwise_bias=16",)),
    Variant("rotation: all dimensions", ("model.rotary_fraction=1",)),
    Variant("rotation: 0.001 to 1000 Da", ("model.rotary_wavelengths=[0.001, 1000]",)),
    Variant("rotation: 0.1 to 1000 Da", ("model.rotary_wavelengths=[0.1, 1000]",)),
    Variant("precursor: relative", ("model.precursor=relative",)),
    Variant("precursor: hidden", ("model.precursor=hidden",)),
    Variant("masking: 15% of peaks", ("masking.share=0.15",)),
    Variant("masking: 50% of peaks", ("masking.share=0.5",)),
)


@dataclass(frozen=True)
class Run:
    """One training of a variant."""

    variant: Variant
    seed: int
    config: PretrainConfig
    flops_per_spectrum: float

    @property
    def is_finished(self) -> bool:
        """Whether it has been trained to its last step."""
        return (self.config.output / "manifest.json").is_file()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a folder written by 'ionbed prepare'")
    parser.add_argument("--split", type=Path, help="a file written by 'ionbed split'")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--size", default="tiny", help="tiny, small or base")
    parser.add_argument("--steps", type=int, default=800, help="of the default; the others follow by compute")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
    parser.add_argument("--default-seeds", type=int, default=3, help="trainings of the default")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="variants to run, beside the default")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="a.b=c", help="for all variants")
    parser.add_argument("--train-spectra", type=int, default=10_000, help="that the probe's heads are trained on")
    parser.add_argument("--validation-spectra", type=int, default=2000, help="whose masked peaks are predicted")
    parser.add_argument("--plan", action="store_true", help="print the runs and their steps, and stop")
    parser.add_argument("--judge", action="store_true", help="judge the finished runs, and train none")
    arguments = parser.parse_args()
    if not (arguments.store and arguments.split):
        print("ablation: takes an hour and needs --store and --split; see --help")  # 'make bench' comes by here
        return
    unknown = set(arguments.only) - {variant.name for variant in VARIANTS}
    if unknown:
        parser.error(f"no variant is called {', '.join(sorted(unknown))}; there are {[v.name for v in VARIANTS]}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    runs = planned_runs(arguments)
    for run in runs if arguments.plan else ():
        steps, size = run.config.training.steps, run.flops_per_spectrum
        print(f"{run.config.output.name:<48} {steps:>6} steps {size:.3g} FLOP/spectrum {'done' * run.is_finished}")
    if arguments.plan:
        return
    for run in () if arguments.judge else runs:
        if not run.is_finished:
            pretrain(run.config, resume="auto")
            if not run.is_finished:  # stopped by a signal, which is meant for all
                return
    finished = [run for run in runs if run.is_finished]
    if not any(run.variant.name == DEFAULT for run in finished):
        parser.error(f"{arguments.out}: no training of the default is finished; run without --judge first")
    store, split = Store(arguments.store), Split.load(arguments.split)
    tree = judge(finished, load_evaluation_data(store, split), split, arguments)
    tree["plan"] = {run.config.output.name: run.config.training.steps for run in runs}
    for name, text in (("results.json", json.dumps(tree, indent=1) + "\n"), ("table.md", table(tree))):
        with atomic_file(arguments.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    print(table(tree))


def planned_runs(arguments: argparse.Namespace) -> list[Run]:
    """Return every training in the order in which it is done: all of the default, then seed by seed."""
    lengths = training_lengths(Store(arguments.store), Split.load(arguments.split))
    chosen = [v for v in VARIANTS if v.name == DEFAULT or not arguments.only or v.name in arguments.only]
    pairs = [(seed, VARIANTS[0]) for seed in range(max(arguments.seeds, arguments.default_seeds))]
    pairs += [(seed, variant) for seed in range(arguments.seeds) for variant in chosen[1:]]
    runs = []
    for seed, variant in pairs:
        folder = "".join(c if c.isalnum() or c == "." else "-" for c in variant.name).replace("--", "-")
        sets = [f"data.store={arguments.store}", f"data.split={arguments.split}", f"training.seed={seed}",
                f"output={arguments.out / f'{folder}-seed{seed}'}", "training.threads=1", "training.log_every=50",
                f"training.batch_tokens={BATCH_TOKENS}", f"training.micro_batch_tokens={BATCH_TOKENS}",
                *arguments.sets]  # fmt: skip
        plain, own = (
            load_config(PretrainConfig, f"pretrain-{arguments.size}", [*sets, *extra])
            for extra in ((), variant.changes)
        )
        flops, spent = (
            forward_flops(config.model.encoder_config(), np.minimum(lengths, config.model.max_peaks + 1)) / len(lengths)
            for config in (plain, own)
        )
        steps = max(1, round(arguments.steps * flops / spent))
        length = [f"training.steps={steps}", f"training.warmup_steps={min(100, steps // 8)}",
                  f"training.validate_every={steps}", "training.checkpoint_every=200",
                  "training.keep_checkpoints=1"]  # fmt: skip
        changes = [*sets, *variant.changes, *length]
        config = load_config(PretrainConfig, f"pretrain-{arguments.size}", changes)
        runs.append(Run(variant, seed, config, spent))
    return runs


def training_lengths(store: Store, split: Split) -> np.ndarray:
    """Return the tokens of each training spectrum, its weakest peaks (which a model may not read) counted."""
    table = store.table()
    peaks = np.array([len(mz) for mz in table["mz"]], np.int64)
    return peaks[split.fold_of_rows(table) == "train"] + 1


def judge(runs: Sequence[Run], data: EvaluationData, split: Split, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the finished runs are worth, as the content of ``results.json``."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.variant.name, []).append(run)
    started = time.perf_counter()
    peaks = judged_peaks(by_name, data, arguments.validation_spectra)
    models = {name: [ionbed.load_model(run.config.output / "model") for run in of] for name, of in by_name.items()}
    if len(models[DEFAULT]) > 1:
        models |= {f"{DEFAULT}, seed {run.seed}": [model]
                   for run, model in zip(by_name[DEFAULT], models[DEFAULT], strict=True)}  # fmt: skip
    options = ProbeOptions(fold="validation", reference=DEFAULT, max_train_spectra=arguments.train_spectra,
                           random_seeds=0, cache=arguments.out / "cache")  # fmt: skip
    probed = probe(models, data, split, options, seed=0).tree
    rows = {}
    for name, of in by_name.items():
        manifests = [json.loads((run.config.output / "manifest.json").read_text()) for run in of]
        rows[name] = {
            "changes": list(of[0].variant.changes),
            "seeds": [run.seed for run in of],
            "steps": [manifest["steps"] for manifest in manifests],
            "forward FLOP per spectrum": of[0].flops_per_spectrum,
            "tokens": [manifest["tokens"] for manifest in manifests],
            "seconds": [manifest["seconds"] for manifest in manifests],
            "parameters": sum(parameter.numel() for parameter in models[name][0].parameters()),
            "validation": mean_terms([manifest["validation"] for manifest in manifests]),
            "masked peaks": peaks[name],
        }
    return {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "size": arguments.size,
        "steps": arguments.steps,
        "batch_tokens": BATCH_TOKENS,
        "judging seconds": round(time.perf_counter() - started, 1),
        "variants": rows,
        "probe": probed,
    }


def mean_terms(validations: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each term over trainings."""
    return {name: float(np.mean([of[name] for of in validations])) for name in validations[0]}


def judged_peaks(by_name: Mapping[str, Sequence[Run]], data: EvaluationData, limit: int) -> dict[str, dict[str, Any]]:
    """Return how often the m/z of a hidden peak is predicted, for the same hidden peaks of every run."""
    rows = data.rows_in("validation")
    rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64)]
    errors = {name: [peak_errors(run, data, rows) for run in of] for name, of in by_name.items()}
    spectrum = errors[DEFAULT][0][1]
    # A spectrum may have no hidden peak: molecules are numbered among those that have.
    molecules, molecule = np.unique(data.molecule[rows[spectrum]], return_inverse=True)
    weights = molecule_weights(len(molecules), resamples=1000, seed=0)

    def measured(name: str, tolerance: float) -> list[Measured]:
        hits = [(error <= tolerance).astype(np.float64) for error, _ in errors[name]]
        return [Measured(float(h.mean()), resampled_means(h, molecule, weights), len(molecules)) for h in hits]

    found: dict[str, dict[str, Any]] = {}
    for name in by_name:
        found[name] = {"peaks": len(molecule), "median error, Da": [float(np.median(e)) for e, _ in errors[name]]}
        for label, tolerance in TOLERANCES.items():
            own, default = measured(name, tolerance), measured(DEFAULT, tolerance)
            combined = combine_trainings(own, (0, 1))
            found[name][label] = {**tree_of(estimate(combined)), "trainings": [part.value for part in own]}
            if name != DEFAULT:
                difference = compare(combined, combine_trainings(default, (0, 1)), DEFAULT)
                found[name][label]["difference"] = {
                    **tree_of(difference.estimate), "p": trainings_p(own, default), "verdict": difference.verdict,
                }  # fmt: skip
    return found


def tree_of(found: Estimate) -> dict[str, float | None]:
    """Return an estimate as JSON."""
    return {"value": found.value, "low": found.low, "high": found.high}


@torch.no_grad()
def peak_errors(run: Run, data: EvaluationData, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the error (Da) of each hidden peak's m/z, and its place among ``rows``; the default masking decides."""
    checkpoint = choose_checkpoint(run.config.output / "checkpoints", "auto")
    assert checkpoint is not None
    objective = MaskedPeakObjective(IonbedModel(run.config.model.encoder_config()), run.config.masking).eval()
    weights = load_file(checkpoint / "model.safetensors")  # beside other objectives, masked peaks are a part
    objective.load_state_dict({name.removeprefix("masked."): weight for name, weight in weights.items()})
    masking = MaskingConfig(hide_intensity_share=0.0, metadata_dropout=0.0)
    errors, spectra = [], []
    for begin in range(0, len(rows), 256):
        part = rows[begin : begin + 256]
        batch = masked_batch(data.columns.take(part), part, objective.encoder.config, masking, seed=0, epoch=0)
        assert batch.hidden_mz_BL is not None
        errors.append((objective.predict_mz(batch) - batch.mz_BL[batch.hidden_mz_BL]).abs().numpy())
        spectra.append(batch.hidden_mz_BL.nonzero()[:, 0].numpy() + begin)
    return np.concatenate(errors), np.concatenate(spectra)


def table(tree: Mapping[str, Any]) -> str:
    """Return the results as Markdown: one table of losses and masked peaks, one of the probe."""
    rows = tree["variants"]
    lines = [f"`{tree['size']}`, {tree['steps']} steps of {tree['batch_tokens']} tokens for the default, the "
             f"same forward operations for all; {tree['date']}, torch {tree['torch']}, {tree['threads']} thread(s). "
             "In brackets: 95% intervals over molecules (for the default over trainings too). A star: the difference "
             "to the default, paired by molecule, leaves out 0.", "",
             "| | trainings | steps | m/z loss | offset loss | intensity loss "
             "| hidden peaks within 0.05 Da | within 0.5 Da |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, row in rows.items():
        terms = row["validation"]
        bins = f"{terms['mz_bin']:.3f} nats" if "mz_bin" in terms else f"{terms['mz_value']:.3f} × 100 Da"
        others = [f"{terms[term]:.4f}" if term in terms else "" for term in ("mz_offset", "intensity")]
        hits = [shown(row["masked peaks"][label], row["masked peaks"][label].get("difference")) for label in TOLERANCES]
        cells = [name, str(len(row["seeds"])), str(row["steps"][0]), bins, *others, *hits]
        lines.append("| " + " | ".join(cells) + " |")
    hits = rows[DEFAULT]["masked peaks"]
    single = [f"{label}: {', '.join(f'{v:.3f}' for v in hits[label]['trainings'])}" for label in TOLERANCES]
    lines += ["", f"Single trainings of the default, {'; '.join(single)}."]
    tasks = tree["probe"]["tasks"]
    header = ["", *(f"{name}, {task['main']}" for name, task in tasks.items())]
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for label in [row["label"] for row in next(iter(tasks.values()))["rows"]]:
        cells = [label]
        for task in tasks.values():
            found = [row for row in task["rows"] if row["label"] == label]
            value = found[0]["metrics"].get(task["main"]) if found else None
            against = [d for row in found for d in row.get("differences", ())
                       if d["role"] == "reference" and d["metric"] == task["main"]]  # fmt: skip
            cells.append(shown(value, against[0] if against else None) if value else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def shown(value: Mapping[str, Any], difference: Mapping[str, Any] | None) -> str:
    """Return a figure with its interval, and a star where it differs from the default's."""
    if value["value"] is None:
        return ""
    star = "*" if difference and difference["verdict"] != "unresolved" else ""
    interval = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value['value']:.3f}{star}{interval}"


if __name__ == "__main__":
    main()
