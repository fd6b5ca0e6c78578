"""The loss on a small task of real molecules falls along a curve that is kept: a change of what is learned shows.

The spectra are the rule-based fragments of 200 molecules. After a change that is meant to change the curve, write it
anew: python tests/pretrain/test_golden_curve.py
"""

from __future__ import annotations

import csv
import json
import tempfile
from importlib import resources
from pathlib import Path

import pytest

from ionbed.configs.loading import load_config
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.run import pretrain
from ionbed.spectra.prepare import prepare
from ionbed.spectra.simulate import simulate

GOLDEN = Path(__file__).with_name("golden_curve.json")
MOLECULES = 200
OPTIONS = (
    "model.hidden_size=64", "model.num_layers=3", "model.num_heads=4", "model.num_mz_wavelengths=32",
    "training.steps=160", "training.batch_tokens=2048", "training.micro_batch_tokens=2048", "training.warmup_steps=20",
    "training.learning_rate=0.003", "training.log_every=20", "training.checkpoint_every=160", "training.threads=1",
)  # fmt: skip


def curve(folder: Path) -> dict[str, list[float]]:
    """Return each term of the loss at every twentieth step."""
    with resources.files("ionbed.demo").joinpath("molecules.tsv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[: MOLECULES + 1]
    molecules = folder / "molecules.tsv"
    molecules.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    simulate(molecules, folder / "library.msp")
    prepare([folder / "library.msp"], folder / "store", workers=1)
    output = folder / "run"
    pretrain(load_config(PretrainConfig, "pretrain-tiny", [*OPTIONS, f"data.store={folder / 'store'}",
                                                           f"output={output}"]))  # fmt: skip
    entries = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {name: [round(e[name], 4) for e in entries] for name in ("loss", "mz_bin", "mz_offset", "intensity")}


def test_the_loss_falls_along_the_golden_curve(tmp_path):
    measured, golden = curve(tmp_path), json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert measured.keys() == golden.keys()
    for name, values in golden.items():
        # Kernels of other processors round otherwise, and training amplifies it a little.
        assert measured[name] == pytest.approx(values, rel=0.02, abs=0.003), name
    assert measured["loss"][-1] < 0.7 * measured["loss"][0]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(curve(Path(folder)), indent=1) + "\n", encoding="utf-8")
