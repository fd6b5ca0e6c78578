"""From a YAML file and ``a.b=c`` overrides to a tree of typed dataclasses; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from ..errors import InputError

T = TypeVar("T")


def shipped_configs() -> list[str]:
    """Return the names of the configurations in the package, without their ending."""
    folder = resources.files(__package__)
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def config_text(source: str | os.PathLike[str]) -> str:
    """Return the text of a YAML file or of a shipped configuration; raises `InputError` as `load_config` does."""
    return _read(source)[1]


def load_config(schema: type[T], source: str | os.PathLike[str], overrides: Sequence[str] = ()) -> T:
    """Build ``schema`` (a dataclass) from a YAML file or a shipped configuration's name, then from overrides.

    Parameters
    ----------
    schema : dataclass type
        Its fields are the allowed keys; nested dataclasses are nested mappings.
    source : path or name
        A file, or a name from `shipped_configs`.
    overrides : sequence of str
        ``a.b=value``, the value in YAML.

    Raises
    ------
    InputError
        A file is missing, is not YAML, or has an unknown key, a value of the wrong type, or one that
        ``__post_init__`` of its dataclass refuses with a ValueError.
    """
    label, tree = load_tree(source, overrides)
    return build(schema, tree, label)


def load_tree(source: str | os.PathLike[str], overrides: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the name of a source for errors, and what it holds with overrides, not checked; see `load_config`."""
    label, text = _read(source)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{label}: is not YAML ({' '.join(str(error).split())}); mend the file") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise InputError(f"{label}: must hold keys and values, not {type(tree).__name__}; see 'ionbed configs'")
    for override in overrides:
        _apply(tree, override)
    return label, tree


def build(schema: type[T], tree: Mapping[str, Any], label: str) -> T:
    """Build ``schema`` from a mapping; ``label`` names the source in errors. See `load_config`."""
    return cast(T, _build(schema, tree, label, ""))


def to_tree(config: Any) -> dict[str, Any]:
    """Return a configuration as plain dicts, lists and numbers, ready for YAML or JSON."""
    return dataclasses.asdict(config, dict_factory=lambda items: {k: _plain(v) for k, v in items})


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys, as ``--set`` names them."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(source: str | os.PathLike[str]) -> tuple[str, str]:
    path = Path(source)
    if path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: is not a text file; a YAML configuration is needed") from None
    names = shipped_configs()
    if str(source) in names:
        return f"configuration {source}", (resources.files(__package__) / f"{source}.yaml").read_text(encoding="utf-8")
    raise InputError(f"{source}: no such file, and no shipped configuration of that name ({', '.join(names)})")


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {override}: must read key=value or part.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set {override}: the value is not YAML; put it in quotes") from None
    for part in parts[:-1]:
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            raise InputError(f"--set {override}: '{part}' is a value and has no keys under it")
        tree = branch
    tree[parts[-1]] = value


def _build(schema: Any, tree: Mapping[str, Any], label: str, prefix: str) -> Any:
    hints = typing.get_type_hints(schema)
    known = {f.name: f for f in dataclasses.fields(schema) if f.init}
    for key in tree:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{prefix}{close[0]}'?" if close else f"known here: {', '.join(known)}"
            raise InputError(f"{label}: unknown key '{prefix}{key}'; {hint}")
    values = {}
    for name, spec in known.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], label, f"{prefix}{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            key = f"{prefix}{name}"
            raise InputError(f"{label}: '{key}' is missing; add it to the file or pass --set {key}=...")
    try:
        return schema(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{label}: {prefix.rstrip('.') + ': ' if prefix else ''}{error}") from None


def _convert(hint: Any, value: Any, label: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InputError(f"{label}: '{key}' must hold keys and values, not {value!r}")
        return _build(hint, value, label, f"{key}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        given = [a for a in args if a is not type(None)]
        lists = [a for a in given if typing.get_origin(a) is tuple]
        return _convert(lists[0] if lists and isinstance(value, list) else given[0], value, label, key)
    if origin is typing.Literal:
        if value not in args:
            raise InputError(f"{label}: '{key}' is {value!r}; it must be one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{label}: '{key}' must be a list, not {value!r}")
        return tuple(_convert(args[0], item, label, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{label}: '{key}' must hold keys and values, not {value!r}")
        return {str(k): _convert(args[1], item, label, f"{key}.{k}") for k, item in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    raise InputError(f"{label}: '{key}' is {value!r}; it must be {words.get(hint, hint)}")
