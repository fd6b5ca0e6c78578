"""Uploading a model: what is checked before, what the hub is sent, and one clear line for every refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import ionbed
from ionbed import cli
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


@pytest.fixture
def online(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, as this process sees it: what the environment says is read when the library is imported."""
    from huggingface_hub import constants

    values = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
              "HF_TOKEN_PATH": str(tmp_path / "token")}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "*")
    return hub


def push(capsys, *words: object, code: int = 0) -> str:
    """Run the command; return what it said: its log, or the one line of what was wrong."""
    assert cli.main([str(word) for word in ("push", *words)]) == code
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    if not code:
        return err
    (line,) = (line for line in err.splitlines() if line.startswith("ionbed: "))
    return line


def test_a_pushed_model_is_loaded_from_the_hub_and_embeds_alike(online, capsys, tmp_path):
    folder = model_folder(tmp_path / "model")
    (folder / "notes.txt").write_text("private")
    said = push(capsys, folder, "me/encoder", "--message", "first words")
    assert f"{online.url}/me/encoder/commit/" in said and "not uploaded: notes.txt" in said
    there = online.repositories["me/encoder"]
    files = there.branches["main"]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors", "modeling_ionbed.py"}
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert b'load_model("me/encoder")' in files["README.md"] and there.commits == ["first words"]
    assert not there.private

    dropped = {"HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE"}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {"HF_ENDPOINT": online.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    code = (
        "import sys, numpy as np, ionbed\n"
        "s = ionbed.Spectrum('s', 195.0877, np.array([69, 138], 'f4'), np.array([0.3, 1], 'f4'), polarity=1)\n"
        "np.save(sys.argv[1], ionbed.load_model('me/encoder').embed([s]))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "v.npy")], env=env, check=True, timeout=120)
    spectrum = ionbed.Spectrum("s", 195.0877, np.array([69, 138], "f4"), np.array([0.3, 1], "f4"), polarity=1)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), ionbed.load_model(folder).embed([spectrum]))


def test_what_the_hub_has_is_not_sent_again_and_branches_are_apart(online, capsys, tmp_path):
    folder = model_folder(tmp_path / "model")
    push(capsys, folder, "me/encoder")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore.\n")
    push(capsys, folder, "me/encoder", "--revision", "draft")
    push(capsys, folder, "me/encoder", "--revision", "draft", "--message", "again")
    assert online.uploads() == 1
    there = online.repositories["me/encoder"]
    assert b"More." in there.branches["draft"]["README.md"]
    assert b"More." not in there.branches["main"]["README.md"]
    assert there.commits[0].startswith("pretrain, hash ") and there.commits[2] == "again"


def test_what_failed_halfway_is_finished_by_the_same_command(online, capsys, tmp_path):
    folder = model_folder(tmp_path / "model")
    online.fails = {"PUT /storage": 400}
    assert "made to fail" in push(capsys, folder, "me/encoder", code=1)
    assert online.repositories["me/encoder"].commits == []
    online.fails = {"POST .*/commit/": 507}
    assert "the hub answers 507 (made to fail); run the command again" in push(capsys, folder, "me/encoder", code=1)
    assert online.repositories["me/encoder"].commits == [] and online.uploads() == 2
    online.fails = {"POST .*/commit/": 409}
    assert "changed by another" in push(capsys, folder, "me/encoder", code=2)
    online.fails = {}
    push(capsys, folder, "me/encoder")
    assert online.uploads() == 2 and len(online.repositories["me/encoder"].commits) == 1


def test_a_private_model_is_private_and_never_sent_to_a_public_place(online, capsys, tmp_path):
    folder = model_folder(tmp_path / "model")
    push(capsys, folder, "me/secret", "--private")
    assert online.repositories["me/secret"].private
    online.repositories["me/secret"].private = False
    sent = online.uploads()
    assert "is there and public" in push(capsys, folder, "me/secret", "--private", code=2)
    assert online.uploads() == sent and len(online.repositories["me/secret"].commits) == 1


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        (None, "me/encoder", "nobody is logged in"),
        ("hf_wrong", "me/encoder", "does not accept this login"),
        (READER, "me/encoder", "may not write there"),
        (TOKEN, "others/encoder", "may not write there"),
    ],
)
def test_users_whom_the_hub_refuses(online, capsys, monkeypatch, tmp_path, token, repository, message):
    monkeypatch.setenv("HF_TOKEN", token or "")
    assert message in push(capsys, model_folder(tmp_path / "model"), repository, code=2)
    assert not online.repositories and not online.large_files


def test_no_network_is_said_in_one_line(online, capsys, monkeypatch, tmp_path):
    from huggingface_hub import constants

    folder = model_folder(tmp_path / "model")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in push(capsys, folder, "me/encoder", code=1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in push(capsys, folder, "me/encoder", code=2)
    assert online.calls == []


def test_a_hub_that_does_not_speak_xet_is_told_from_one_that_is_away(online, capsys, monkeypatch, tmp_path):
    pytest.importorskip("hf_xet")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert "HF_HUB_DISABLE_XET=1" in push(capsys, model_folder(tmp_path / "model"), "me/encoder", code=1)
    assert any("xet-write-token" in call for call in online.calls)
    assert online.repositories["me/encoder"].commits == []


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
    line = push(capsys, folder, "me/encoder", "--dry-run", code=2)
    assert message in line and "--allow-restricted" in line
    said = push(capsys, folder, "me/encoder", "--dry-run", "--allow-restricted")
    assert "would upload README.md, config.json, model.safetensors" in said


def test_a_folder_that_is_not_as_it_should_be_is_not_pushed(capsys, tmp_path, trained):
    folder = model_folder(tmp_path / "model")
    card = folder / "README.md"
    text = card.read_text()
    for name in ("encoder", "me/my/encoder", "me/ encoder", "me/"):
        assert "owner/name" in push(capsys, folder, name, "--dry-run", code=2)
    assert "no such folder" in push(capsys, tmp_path / "none", "me/encoder", "--dry-run", code=2)
    assert "is not a model folder" in push(capsys, tmp_path, "me/encoder", "--dry-run", code=2)
    card.write_text(text.replace("license: cc-by-4.0", "license: mit"))
    assert "names the licence mit" in push(capsys, folder, "me/encoder", "--dry-run", code=2)
    card.write_text(text.replace("license: cc-by-4.0\n", ""))
    assert "name no 'license'" in push(capsys, folder, "me/encoder", "--dry-run", code=2)
    card.write_text("# no metadata\n")
    assert "has no metadata" in push(capsys, folder, "me/encoder", "--dry-run", code=2)
    other = model_folder(tmp_path / "other", seed=1)
    card.write_text((other / "README.md").read_text())
    assert "card of another model" in push(capsys, folder, "me/encoder", "--dry-run", code=2)
    card.unlink()
    assert "has no README.md" in push(capsys, folder, "me/encoder", "--dry-run", code=2)

    changed = model_folder(tmp_path / "run" / "model")
    shutil.copy(trained / "manifest.json", tmp_path / "run")
    assert "is not what the run has written" in push(capsys, changed, "me/encoder", "--dry-run", code=2)


def test_the_metadata_are_what_a_hub_reads(tmp_path):
    text = (model_folder(tmp_path / "model") / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "ionbed"
    assert json.loads((tmp_path / "model" / "config.json").read_text())["auto_map"]["AutoModel"]
