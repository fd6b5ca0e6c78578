"""Typed configurations: what is written is what is built, and whatever is wrong is one clear line."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ionbed.configs.loading import build, config_text, load_config, shipped_configs, to_tree
from ionbed.errors import InputError


@dataclass(frozen=True)
class Optimiser:
    learning_rate: float = 1e-4
    num_steps: int = 10
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")


@dataclass(frozen=True)
class Training:
    data: Path
    optimiser: Optimiser = field(default_factory=Optimiser)
    betas: tuple[float, ...] = (0.9, 0.999)
    further: tuple[Path, ...] = ()
    notes: str | None = None
    compile: bool = False


def write(folder: Path, text: str) -> Path:
    path = folder / "training.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_file_and_overrides_in_that_order(tmp_path):
    path = write(tmp_path, "data: store\noptimiser:\n  learning_rate: 1e-3\n  num_steps: 5\nnotes: from the file\n")
    config = load_config(Training, path, ["optimiser.num_steps=7", "betas=[0.8, 1]", "notes=null", "compile=true"])
    assert config == Training(
        data=Path("store"),
        optimiser=Optimiser(learning_rate=1e-3, num_steps=7, schedule="cosine"),
        betas=(0.8, 1.0),
        notes=None,
        compile=True,
    )
    assert isinstance(config.betas[1], float)


def test_one_text_or_a_list_of_them(tmp_path):
    @dataclass(frozen=True)
    class Models:
        models: dict[str, str | tuple[str, ...]] = field(default_factory=dict)

    config = load_config(Models, write(tmp_path, "models: {a: one, b: [one, two]}"))
    assert config.models == {"a": "one", "b": ("one", "two")}
    assert build(Models, to_tree(config), "again") == config
    with pytest.raises(InputError, match=r"'models.c' is 3; it must be text"):
        load_config(Models, tmp_path / "training.yaml", ["models.c=3"])


def test_an_override_makes_the_branch_that_the_file_lacks(tmp_path):
    assert load_config(Training, write(tmp_path, "data: a"), ["optimiser.num_steps=3"]).optimiser.num_steps == 3


def test_later_overrides_win(tmp_path):
    config = load_config(Training, write(tmp_path, "data: a"), ["notes=one", "notes=two"])
    assert config.notes == "two"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("data: a\nlearning_rte: 1", [], r"unknown key 'learning_rte'; known here: data, optimiser"),
        ("data: a\noptimiser: {learning_rte: 1}", [], r"did you mean 'optimiser.learning_rate'\?"),
        ("", [], r"'data' is missing"),
        ("data: a\noptimiser: {num_steps: many}", [], r"'optimiser.num_steps' is 'many'; it must be a whole number"),
        ("data: a\noptimiser: {num_steps: 1.5}", [], r"must be a whole number"),
        ("data: a\noptimiser: {num_steps: true}", [], r"must be a whole number"),
        ("data: a\noptimiser: {num_steps: 0}", [], r"optimiser: num_steps is 0; it must be at least 1"),
        ("data: a\noptimiser: {learning_rate: fast}", [], r"must be a number"),
        ("data: a\noptimiser: {schedule: linear}", [], r"must be one of cosine, constant"),
        ("data: a\noptimiser: 3", [], r"'optimiser' must hold keys and values"),
        ("data: a\nbetas: 0.9", [], r"'betas' must be a list"),
        ("data: a\nbetas: [0.9, x]", [], r"'betas\[1\]' is 'x'"),
        ("data: a\ncompile: 1", [], r"'compile' is 1; it must be true or false"),
        ("data: null", [], r"'data' is None; it must be a path"),
        ("- a\n- b", [], r"must hold keys and values, not list"),
        ("data: [unclosed", [], r"is not YAML"),
        ("data: !!python/object/apply:os.getcwd []", [], r"is not YAML"),
        ("data: a", ["notes"], r"--set notes: must read key=value"),
        ("data: a", ["=x"], r"--set =x: must read key=value"),
        ("data: a", ["optimiser.=x"], r"must read key=value"),
        ("data: a", ["notes=[unclosed"], r"--set notes=\[unclosed: the value is not YAML"),
        ("data: a", ["data.inner=1"], r"'data' is a value and has no keys under it"),
        ("data: a", ["nothing=1"], r"unknown key 'nothing'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_clear_line(tmp_path, text, overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(Training, write(tmp_path, text), overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_shipped_configurations():
    with pytest.raises(InputError, match="no such file, and no shipped configuration of that name"):
        load_config(Training, "nothing-of-that-name")


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a text file"):
        load_config(Training, path)


def test_every_shipped_configuration_is_a_commented_mapping():
    assert shipped_configs(), "the package ships no configuration"
    for name in shipped_configs():
        text = config_text(name)
        assert isinstance(yaml.safe_load(text), dict), name
        assert "#" in text, f"{name} has no comments; it is the documentation of its options"


OPTIMISERS = st.builds(
    Optimiser,
    learning_rate=st.floats(allow_nan=False, allow_infinity=False),
    num_steps=st.integers(1, 10**9),
    schedule=st.sampled_from(["cosine", "constant"]),
)
PATHS = st.text("abc/-", min_size=1, max_size=12).map(Path)
TRAININGS = st.builds(
    Training,
    data=PATHS,
    optimiser=OPTIMISERS,
    betas=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
    further=st.lists(PATHS, max_size=3).map(tuple),
    notes=st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    compile=st.booleans(),
)


@given(TRAININGS)
def test_a_configuration_survives_yaml(config):
    tree = yaml.safe_load(yaml.safe_dump(to_tree(config), allow_unicode=True))
    assert build(Training, tree, "round trip") == config


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["data", "optimiser", "betas", "notes", "compile", "x"]), YAML_VALUES))
def test_any_mapping_is_built_or_refused_with_one_line(tree):
    try:
        assert isinstance(build(Training, tree, "any mapping"), Training)
    except InputError as error:
        assert "\n" not in str(error).replace("\\n", "")


@given(st.text(max_size=40), st.lists(st.text(max_size=12), max_size=3))
def test_any_text_and_overrides_are_built_or_refused(tmp_path_factory, text, overrides):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(InputError):
        load_config(Training, path, overrides)
