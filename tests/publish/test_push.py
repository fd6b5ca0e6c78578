"""Uploading a model: what is checked before, what the hub is sent, and one clear line for every refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import ionbed
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.publish.card_file import update_card

from .conftest import READER, TOKEN, Hub

OPEN = {"CC BY": {"a laboratory": 3}, "CC0": {"another": 2}}


def model_folder(folder: Path, sources: dict | None = OPEN, seed: int = 0) -> Path:
    """A model with random weights that says it was trained on data under some licences, and its card."""
    import torch

    torch.manual_seed(seed)
    stage = {"command": "pretrain", "split": "0" * 64, "folds": ["train"], "spectra": 5, "molecules": 5, "store": []}
    stage |= {"sources": sources} if sources else {}
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4, training=[stage])).save_pretrained(folder)
    update_card(folder)
    return folder


def environment(hub: Hub, tmp_path: Path, token: str | None = TOKEN) -> dict[str, str]:
    """That of a user of the hub, with nothing in the cache."""
    dropped = {"HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    more = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*",
            "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    return {**kept, **more, **({"HF_TOKEN": token} if token else {})}


def push(folder: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ionbed", "push", str(folder), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Return the one line on stderr of a command that failed as it should, besides lines of the log."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ionbed: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_a_pushed_model_is_loaded_from_the_hub_and_embeds_alike(hub, tmp_path):
    folder = model_folder(tmp_path / "model")
    (folder / "notes.txt").write_text("private")
    env = environment(hub, tmp_path)
    done = push(folder, "me/encoder", "--message", "first words", env=env)
    assert done.returncode == 0, done.stderr
    assert "me/encoder/commit/" in done.stderr and "not uploaded: notes.txt" in done.stderr
    there = hub.repositories["me/encoder"]
    files = there.branches["main"]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors", "modeling_ionbed.py"}
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b'load_model("me/encoder")' in files["README.md"] and there.commits == ["first words"]
    assert not there.private

    code = (
        "import sys, numpy as np, ionbed; from ionbed.spectra.spectrum import Spectrum\n"
        "s = Spectrum('s', 195.0877, np.array([69., 138.], np.float32), np.array([0.3, 1.], np.float32), polarity=1)\n"
        "np.save(sys.argv[1], ionbed.load_model('me/encoder').embed([s]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "v.npy")], env=env, check=True, timeout=120)
    spectrum = ionbed.Spectrum(
        "s", 195.0877, np.array([69.0, 138.0], np.float32), np.array([0.3, 1.0], np.float32), polarity=1
    )
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), ionbed.load_model(folder).embed([spectrum]))

    sent = hub.uploads()
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    assert push(folder, "me/encoder", "--revision", "draft", env=env).returncode == 0
    assert hub.uploads() == sent == 1  # the weights are there already
    assert b"More." in there.branches["draft"]["README.md"] and b"More." not in files["README.md"]


def test_what_failed_halfway_is_finished_by_the_same_command(hub, tmp_path):
    folder, env = model_folder(tmp_path / "model"), environment(hub, tmp_path)
    hub.fails = {"PUT /storage": 400}
    assert "made to fail" in refused(push(folder, "me/encoder", env=env), 1)
    assert hub.repositories["me/encoder"].commits == []
    hub.fails = {"POST .*/commit/": 507}
    assert "the hub answers 507" in refused(push(folder, "me/encoder", env=env), 1)
    assert hub.repositories["me/encoder"].commits == [] and hub.uploads() == 2
    hub.fails = {}
    assert push(folder, "me/encoder", "--private", env=env).returncode == 2  # it is public by now
    assert push(folder, "me/encoder", env=env).returncode == 0
    assert hub.uploads() == 2
    hub.fails = {"POST .*/commit/": 409}
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    assert "changed by another" in refused(push(folder, "me/encoder", env=env))


def test_a_private_model_is_private(hub, tmp_path):
    folder = model_folder(tmp_path / "model")
    assert push(folder, "me/secret", "--private", env=environment(hub, tmp_path)).returncode == 0
    assert hub.repositories["me/secret"].private


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        (None, "me/encoder", "nobody is logged in"),
        ("hf_wrong", "me/encoder", "does not accept this login"),
        (READER, "me/encoder", "may not write there"),
        (TOKEN, "others/encoder", "may not write there"),
    ],
)
def test_users_whom_the_hub_refuses(hub, tmp_path, token, repository, message):
    folder = model_folder(tmp_path / "model")
    assert message in refused(push(folder, repository, env=environment(hub, tmp_path, token)))
    assert not hub.repositories and not hub.large_files


def test_no_network_is_said_in_one_line(hub, tmp_path):
    folder, env = model_folder(tmp_path / "model"), environment(hub, tmp_path)
    assert "HF_HUB_OFFLINE is set" in refused(push(folder, "me/encoder", env={**env, "HF_HUB_OFFLINE": "1"}))
    closed = {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert "http://127.0.0.1:9 cannot be reached" in refused(push(folder, "me/encoder", env=closed), 1)
    assert hub.calls == []


def wrong(capsys, *words: object) -> str:
    from ionbed import cli

    assert cli.main([str(word) for word in ("-q", "push", *words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, err
    return err


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"CC BY-NC": {"x": 1}, "CC BY": {"y": 2}}, "(CC BY-NC)"),
        ({"CC BY-ND": {"x": 1}}, "(CC BY-ND)"),
        ({"house rules": {"x": 1}}, "(house rules)"),
        (None, "(not stated)"),
    ],
)
def test_restricted_data_are_pushed_only_when_told_so(capsys, tmp_path, sources, message):
    folder = model_folder(tmp_path / "model", sources)
    line = wrong(capsys, folder, "me/encoder", "--dry-run")
    assert message in line and "--allow-restricted" in line
    from ionbed import cli

    assert cli.main(["push", str(folder), "me/encoder", "--dry-run", "--allow-restricted"]) == 0
    assert "would upload README.md, config.json, model.safetensors" in capsys.readouterr().err


def test_a_folder_that_is_not_as_it_should_be_is_not_pushed(capsys, tmp_path, trained):
    folder = model_folder(tmp_path / "model")
    card = folder / "README.md"
    text = card.read_text()
    for name in ("encoder", "me/my/encoder", "me/ encoder", "me/"):
        assert "owner/name" in wrong(capsys, folder, name, "--dry-run")
    assert "no such folder" in wrong(capsys, tmp_path / "none", "me/encoder", "--dry-run")
    assert "is not a model folder" in wrong(capsys, tmp_path, "me/encoder", "--dry-run")
    card.write_text(text.replace("license: cc-by-4.0", "license: mit"))
    assert "names the licence mit" in wrong(capsys, folder, "me/encoder", "--dry-run")
    card.write_text(text.replace("license: cc-by-4.0\n", ""))
    assert "name no 'license'" in wrong(capsys, folder, "me/encoder", "--dry-run")
    card.write_text("# no metadata\n")
    assert "has no metadata" in wrong(capsys, folder, "me/encoder", "--dry-run")
    other = model_folder(tmp_path / "other", seed=1)
    card.write_text((other / "README.md").read_text())
    assert "card of another model" in wrong(capsys, folder, "me/encoder", "--dry-run")
    card.unlink()
    assert "has no README.md" in wrong(capsys, folder, "me/encoder", "--dry-run")

    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text((trained / "manifest.json").read_text())
    changed = model_folder(run / "model")
    assert "is not what the run has written" in wrong(capsys, changed, "me/encoder", "--dry-run")


def test_the_metadata_are_what_a_hub_reads(tmp_path):
    text = (model_folder(tmp_path / "model") / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "ionbed"
    assert json.loads((tmp_path / "model" / "config.json").read_text())["auto_map"]["AutoModel"]
