"""Which names are looked up on the hub, how long that may take, and one line where nothing is found."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import ionbed
from ionbed.encoder import hub as module
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel

from .conftest import Hub, Repository


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process see another hub: what the environment says is read when the library is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def online(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub without models, an empty cache, and an empty folder to stand in."""
    from huggingface_hub import constants

    point_at(hub.url, monkeypatch)
    values = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True,
              "HF_TOKEN_PATH": str(tmp_path / "token"), "HF_HUB_CACHE": str(tmp_path / "cache")}  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refused(name: str | Path) -> str:
    with pytest.raises(ionbed.InputError) as caught:
        ionbed.load_model(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_path_is_not_looked_up(online):
    Path("runs").mkdir()
    for name in (
        "runs/typo/model",
        "./model",
        "../model",
        "~/model",
        "/no/model",
        "model",
        "runs/typo",
        "runs/",
        "a/b/",
    ):
        assert ": is not a model folder" in refused(name)
    assert "runs/typo: is not a model folder: there is nothing of that name (the hub was not asked" in refused(
        "runs/typo"
    )
    assert not online.calls


def test_a_name_that_neither_the_disk_nor_the_hub_has(online):
    line = refused("nobody/nothing")
    assert line.startswith("nobody/nothing: is not a model folder here, and the hub has none of that name")
    assert [call for call in online.calls if "nobody" in call] == ["HEAD /nobody/nothing/resolve/main/config.json"]


def test_a_hub_that_refuses_or_is_away(online, silent, monkeypatch):
    from huggingface_hub import constants

    online.fails["/me/encoder"] = 503
    assert "me/encoder: is not a model folder here, and the hub answers 503" in refused("me/encoder")
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    for endpoint in (silent, "http://127.0.0.1:1"):
        point_at(endpoint, monkeypatch)
        began = time.perf_counter()
        line = refused("me/encoder")
        assert "is not a model folder here, and the hub cannot be reached to look for it there" in line
        assert time.perf_counter() - began < 5
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "me/encoder: is not a model folder here, and HF_HUB_OFFLINE is set" in refused("me/encoder")


def test_a_model_of_the_hub_is_loaded_and_again_when_the_hub_is_away(online, tmp_path, monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "num_mz_wavelengths": 8, "embedding_dim": 16}
    model = IonbedModel(IonbedConfig(**sizes))
    model.save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    online.repositories["me/encoder"] = Repository(False, {"main": files}, ["first"])
    assert ionbed.load_model("me/encoder").model_hash() == model.model_hash()
    point_at("http://127.0.0.1:1", monkeypatch)
    Path("me").mkdir()  # what was downloaded is no path, whatever folders there are
    began = time.perf_counter()
    assert ionbed.load_model("me/encoder").model_hash() == model.model_hash()
    assert time.perf_counter() - began < 5
    (tmp_path / "model").rename("me/encoder")  # and a folder of the name goes before the hub's
    (Path("me/encoder") / "model.safetensors").unlink()
    assert "model.safetensors are needed" in refused("me/encoder")
