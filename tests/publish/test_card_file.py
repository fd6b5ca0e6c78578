"""The figures of an evaluation on a model's card: those of this very model, as the report has them, and no others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ionbed import cli
from ionbed.artifacts import write_manifest
from ionbed.encoder.loading import load_model

HASH_OF_ANOTHER = "f" * 64


def estimate(value: float, *, micro: bool = True) -> dict:
    figure = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return {"micro": figure, "random": 0.5} if micro else figure


def row(label: str, kind: str, value: float, differences: tuple = (), **more: object) -> dict:
    return {"label": label, "kind": kind, "exposure": None, "void": None, "metrics": {"hit@1": estimate(value)},
            "differences": list(differences), **more}  # fmt: skip


def difference(role: str, against: str, verdict: str) -> dict:
    estimate_ = {"value": 0.1, "low": 0.0, "high": 0.2}
    return {"metric": "hit@1", "role": role, "against": against, "estimate": estimate_, "p": 0.01,
            "p corrected": 0.01, "verdict": verdict}  # fmt: skip


def report(folder: Path, model_hash: str) -> Path:
    """A report, as 'ionbed evaluate' writes it, of this model under the name 'ours', and of 'theirs'."""
    ours = (difference("best look-up", "cosine", "loses"), difference("random", "random", "beats"))
    theirs = (difference("best look-up", "cosine", "beats"),)
    warned = "its stage 'pretrain' held out no molecules (no split)"
    tree = {
        "format": 2,
        "config": {"fold": "test"},
        "inputs": {
            "spectra": 1234, "molecules": 56, "predicted spectra": 0,
            "split": {"kind": "inchikey-block", "seed": 0, "hash": "ab" * 32, "shares": []},
            "models": {"ours": {"hash": [model_hash]}, "theirs": {"hash": [HASH_OF_ANOTHER]}},
        },
        "tasks": {
            "library search": {
                "kind": "library", "main": "hit@1", "metrics": ["hit@1"],
                "rows": [
                    row("random", "reference", 0.5), row("cosine", "look-up", 0.8),
                    row("ours", "learned", 0.75, ours, exposure=warned), row("theirs", "learned", 0.97, theirs),
                ],
            }
        },
        "audits": [{"audit": "leak", "about": "library search", "passed": False, "sentence": "it leaks"}],
    }  # fmt: skip
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(tree))
    write_manifest(folder, {"command": "evaluate"})
    return folder


def probe(folder: Path, model_hash: str) -> Path:
    """A probe, as 'ionbed probe' writes it."""
    untrained = difference("untrained", "ours, untrained", "beats")
    chance = difference("random", "random", "beats")
    rows = [row("ours, untrained", "untrained", 0.3), row("ours", "learned", 0.6, (untrained, chance))]
    for one in rows:
        one["metrics"] = {"hit@1": {**one["metrics"]["hit@1"]["micro"], "random": 0.25}}
    tree = {
        "format": 1, "options": {"fold": "test"}, "seed": 0,
        "inputs": {
            "spectra": {"train": 1000, "validation": 5, "asked": 40},
            "molecules": {"train": 90, "validation": 5, "asked": 8},
            "split": {"kind": "inchikey-block", "seed": 0, "hash": "cd" * 32, "shares": []},
            "models": {"ours": {"hash": [model_hash], "exposure": None}},
        },
        "tasks": {"chemical class": {"main": "hit@1", "rows": rows}},
    }  # fmt: skip
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(tree))
    write_manifest(folder, {"command": "probe"})
    return folder


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model, with the manifest of its run."""
    shutil.copytree(trained / "model", tmp_path / "run" / "model")
    shutil.copy(trained / "manifest.json", tmp_path / "run")
    return tmp_path / "run" / "model"


def card(capsys, *words: object, code: int = 0) -> str:
    assert cli.main([str(word) for word in ("card", *words)]) == code
    err = capsys.readouterr().err
    if code:
        assert len(err.splitlines()) == 1
    return err


def test_the_figures_of_a_report_stand_on_the_card(capsys, model, tmp_path):
    before = (model / "README.md").read_text()
    first = report(tmp_path / "report", load_model(model).model_hash())
    card(capsys, model, "--evaluation", first)
    text = (model / "README.md").read_text()
    assert (
        "| library search | ours † | hit@1 0.750 [0.740, 0.760] | loses: cosine 0.800 | - | beats: random 0.500 |"
        in text
    )
    assert "1,234 spectra of 56 molecules" in text and "`abababababab`" in text
    assert "'ours' loses to the best look-up in library search." in text
    assert "'ours' may have seen the molecules" in text
    assert "Audit failed: leak (library search): it leaks" in text and "0 of 1 audits passed, 1 failed" in text
    assert "theirs" not in text and "0.97" not in text and "Not evaluated" not in text
    assert text.split("<!-- end of evaluation -->")[1] == before.split("<!-- end of evaluation -->")[1]

    card(capsys, model, "--evaluation", first, "--evaluation", probe(tmp_path / "p", load_model(model).model_hash()))
    text = (model / "README.md").read_text()
    assert text.count("library search | ours") == 1
    assert (
        "| chemical class | hit@1 0.600 [0.590, 0.610] | beats: ours, untrained 0.300 [0.290, 0.310] "
        "| beats: random 0.250 |" in text
    )
    assert "1,000 spectra of 90 molecules, asked about 40 spectra of 8 molecules" in text

    (model / "README.md").write_text(text.replace("## Limits", "## Mine\n\nBy hand.\n\n## Limits"))
    card(capsys, model, "--evaluation", first)
    assert "By hand." in (model / "README.md").read_text() and "chemical class" not in (model / "README.md").read_text()
    card(capsys, model, "--overwrite")
    assert (model / "README.md").read_text() == before


def test_an_evaluation_that_is_not_of_this_model_is_refused(capsys, model, tmp_path):
    before = (model / "README.md").read_text()
    own = load_model(model).model_hash()
    other = report(tmp_path / "other", HASH_OF_ANOTHER)
    line = card(capsys, model, "--evaluation", other, code=2)
    assert "no figures of this model" in line and "ours, theirs" in line
    several = report(tmp_path / "several", own)
    tree = json.loads((several / "results.json").read_text())
    tree["inputs"]["models"]["ours"]["hash"].append(HASH_OF_ANOTHER)
    (several / "results.json").write_text(json.dumps(tree))
    assert "means over 2 trainings" in card(capsys, model, "--evaluation", several, code=2)
    tree["inputs"]["models"]["ours"]["hash"].pop()
    tree["tasks"]["library search"]["rows"].pop(2)
    (several / "results.json").write_text(json.dumps(tree))
    assert "nothing was measured of 'ours'" in card(capsys, model, "--evaluation", several, code=2)
    damaged = probe(tmp_path / "damaged", own)
    (damaged / "results.json").write_text("{")
    assert "run the probe again" in card(capsys, model, "--evaluation", damaged, code=2)
    assert "is no report" in card(capsys, model, "--evaluation", tmp_path / "none", code=2)
    assert "is there; name what to add" in card(capsys, model, code=2)
    assert "no such folder" in card(capsys, tmp_path / "none", code=2)
    assert (model / "README.md").read_text() == before
    with open(model / "model.safetensors", "r+b") as weights:
        weights.seek(-4, 2)
        weights.write(b"\0\0\0\0")
    assert "is not what the run has written" in card(capsys, model, "--overwrite", code=2)


def test_a_model_without_a_run_gets_a_card_of_what_its_configuration_records(capsys, model, tmp_path):
    shutil.copytree(model, tmp_path / "alone")
    (tmp_path / "alone" / "README.md").unlink()
    assert "no manifest of a run beside it" in card(capsys, tmp_path / "alone")
    text = (tmp_path / "alone" / "README.md").read_text()
    assert "| steps | 3 |" in text and "Losses at the end" not in text and "```yaml" not in text


def documented(model: Path) -> list[str]:
    """The Python examples of the card, with the place of the model filled in."""
    text = (model / "README.md").read_text().replace("FOLDER_OR_HUB_ID", str(model))
    return re.findall("```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", [1, 2])
def test_transformers_loads_the_folder_as_the_card_says(model, tmp_path, number):
    code = documented(model)[number] + ("\nprint(type(model).__module__, sum(p.numel() for p in model.parameters()))")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    if number == 2:  # first without the consent to run code: one clear line, and no prompt that waits
        code = (
            "import transformers\ntry:\n"
            f"    transformers.AutoModel.from_pretrained({str(model)!r})\n"
            "except ValueError as error:\n    assert 'trust_remote_code=True' in str(error)\n"
            "else:\n    raise AssertionError\n" + code
        )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = sum(p.numel() for p in load_model(model).parameters())
    assert done.stdout.split()[-2:] == ["ionbed.encoder.modeling_ionbed", str(expected)]


def test_the_first_example_of_the_card_runs(model, tmp_path, monkeypatch):
    (tmp_path / "spectra.mgf").write_text(
        "BEGIN IONS\nTITLE=a\nPEPMASS=195.0877\nCHARGE=1+\n69.04 3\n138.07 9\nEND IONS\n"
    )
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(documented(model)[0], names)
    assert names["vectors"].shape == (1, 32)
