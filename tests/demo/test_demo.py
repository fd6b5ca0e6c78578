"""The demo: virtual laboratories, which folder it may replace, and the whole pipeline in small."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest

import ionbed
from ionbed.configs.loading import load_config
from ionbed.demo import run
from ionbed.demo.laboratories import LIBRARY, QUERIES, record
from ionbed.errors import InputError
from ionbed.evaluation.report import write
from ionbed.evaluation.report.verdicts import verdict_sentences
from ionbed.finetune.config import FinetuneConfig
from ionbed.pretrain.config import PretrainConfig
from ionbed.spectra.molecule_files import read_molecules
from ionbed.spectra.simulate import simulate_spectra


def test_laboratories_differ_and_repeat() -> None:
    [predicted] = simulate_spectra(
        [("Quinine", "COc1ccc2nccc(C(O)C3CC4CCN3CC4C=C)c2c1")], energies=(20,), adducts=("[M+H]+",)
    )
    a, b = (record(predicted, laboratory, seed=0) for laboratory in (LIBRARY, QUERIES))
    assert a.mz.tolist() != b.mz.tolist()
    assert a.laboratory != b.laboratory and a.predicted and b.predicted
    for spectrum in (a, b):
        assert spectrum.intensity.max() == 1.0 and (np.diff(spectrum.mz) >= 0).all()
        assert abs(spectrum.precursor_mz / predicted.precursor_mz - 1) < 10e-6
    assert record(predicted, QUERIES, seed=0).mz.tolist() == b.mz.tolist()
    assert record(predicted, QUERIES, seed=1).mz.tolist() != b.mz.tolist()


def test_a_folder_that_is_no_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="no demo"):
        run.run_demo(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    with pytest.raises(InputError, match="is a file"):
        run.run_demo(tmp_path / "thesis.tex")


def test_the_whole_pipeline_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        e
        for e in read_molecules(run.MOLECULES)
        if any(word in e.name.lower() for word in ("xanthine", "hydroxy", "methyl"))
    ]
    molecules = tmp_path / "some.tsv"
    molecules.write_text("name\tsmiles\n" + "".join(f"{e.name}\t{e.smiles}\n" for e in entries))
    monkeypatch.setattr(run, "MOLECULES", molecules)
    monkeypatch.setattr(run, "load_config", small_config)
    monkeypatch.setattr(write, "drawings", lambda *_, **__: [])  # half of the time; reports have tests of their own
    out = tmp_path / "demo"
    out.mkdir()
    (out / ".unfinished-demo").touch()  # what a killed demo leaves
    (out / "store").mkdir()

    run.run_demo(out, threads=1)

    printed = capsys.readouterr().out
    assert printed.count(" ".join(run.NOTICE.split()[:6])) == 2
    assert "Library search" in printed and "(predicted)" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"] == "demo" and not (out / ".unfinished-demo").exists()
    page = (out / "report.html").read_text()
    assert "predicted" in page and page.count("<svg") == len(list(out.glob("mirror-*.svg"))) >= 1
    in_scroll = re.findall("<div class='scroll[^>]*><table>", page)
    assert "name='viewport'" in page and page.count("<table>") == len(in_scroll) > 3
    results = json.loads((out / "evaluation" / "results.json").read_text())
    assert all(escape(sentence) in page for sentence in verdict_sentences(results))
    assert set(results["inputs"]["models"]) == {"pretrained only", "fine-tuned"}
    assert not any(model["exposure"] for model in results["inputs"]["models"].values())
    for stage, commands in (("pretraining", ["pretrain"]), ("finetuning", ["pretrain", "finetune"])):
        training = json.loads((out / stage / "model" / "config.json").read_text())["training"]
        assert [entry["command"] for entry in training] == commands
    assert (out / "evaluation" / "report.html").is_file()
    assert len((out / "hits.tsv").read_text().splitlines()) > 1
    assert all(spectrum.predicted for spectrum in ionbed.read(out / "laboratory-b.mgf"))
    laboratories = {spectrum.laboratory for spectrum in ionbed.read(out / "laboratory-a.msp")}
    assert laboratories == {LIBRARY.name}


def small_config(schema: type, name: str) -> PretrainConfig | FinetuneConfig:
    """Return the demo's configuration, for two steps of a smaller encoder."""
    config = load_config(schema, name)
    training = replace(config.training, steps=2, warmup_steps=1, log_every=1, validate_every=2, checkpoint_every=2)
    if isinstance(config, PretrainConfig):
        model = replace(config.model, hidden_size=32, num_layers=1, num_heads=2, num_mz_wavelengths=16)
        return replace(config, training=training, model=model)
    sampling = replace(config.sampling, anchors=4, spectra_per_molecule=2, negatives_per_anchor=1)
    return replace(config, training=training, sampling=sampling)
