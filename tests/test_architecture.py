"""Imports between the rooms go down the table of docs/architecture.md only, and nothing imports the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FOUNDATIONS = {"", "errors", "artifacts", "progress", "configs"}
"""Importable from every room; '' is the package itself, for its version."""

BELOW = {
    "errors": set(),
    "artifacts": set(),
    "progress": set(),
    "configs": set(),
    "doctor": set(),
    "console": set(),
    "data_commands": {"console", "spectra"},
    "evaluation_commands": {"console", "evaluation"},
    "publish_commands": {"console", "publish"},
    "index_commands": {"console", "embeddings", "encoder", "search_commands"},
    "network_commands": {"console", "embeddings", "encoder", "search_commands"},
    "search_commands": {"console", "embeddings", "encoder"},
    "serve_commands": {"console", "embeddings"},
    "training_commands": {"console", "finetune", "pretrain"},
    "spectra": set(),
    "encoder": {"spectra"},
    "pretrain": {"doctor", "encoder", "spectra"},
    "finetune": {"pretrain", "encoder", "spectra"},
    "embeddings": {"encoder", "spectra"},
    "evaluation": {"embeddings", "finetune", "pretrain", "encoder", "spectra"},
    "publish": {"evaluation", "embeddings", "finetune", "pretrain", "encoder", "spectra"},
    "demo": {"evaluation", "embeddings", "finetune", "pretrain", "encoder", "spectra"},
    "cli": {
        "console",
        "data_commands",
        "evaluation_commands",
        "index_commands",
        "network_commands",
        "search_commands",
        "serve_commands",
        "training_commands",
        "publish_commands",
        "doctor",
        "demo",
        "evaluation",
        "embeddings",
        "finetune",
        "pretrain",
        "encoder",
        "spectra",
    },
    "__main__": {"cli"},
    "__init__": {"embeddings", "encoder", "spectra"},
}
"""What each room or root module may import besides the foundations and itself."""

NOT_SHIPPED = {"tests", "benchmarks", "docs", "slurm", "build", "dist"}

FILES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if not any(part in NOT_SHIPPED or part.startswith(".") for part in path.relative_to(ROOT).parts)
    and not (path.parent / "config.json").is_file()  # the module of a model that was saved here, as by `make demo`
)


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the room or root module ('' for the package) of each import of our own, and its line."""
    folders = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                above = folders[: len(folders) - (node.level - 1)]
                assert node.level - 1 <= len(folders), f"{path}:{node.lineno} imports from above the package"
                parts = (*above, *(node.module or "").split("."))
            elif (node.module or "").split(".")[0] == "ionbed":
                raise AssertionError(f"{path}:{node.lineno}: inside the package imports are relative")
            else:
                continue
            parts = tuple(part for part in parts if part)
            if parts:
                yield parts[0], node.lineno
            else:  # from . import x, at the root: a submodule or a name of the package
                for alias in node.names:
                    is_module = (ROOT / alias.name).is_dir() or (ROOT / f"{alias.name}.py").is_file()
                    yield (alias.name if is_module else ""), node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert alias.name.split(".")[0] != "ionbed", (
                    f"{path}:{node.lineno}: inside the package imports are relative"
                )


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def test_the_table_names_every_room_and_nothing_else():
    assert {room_of(path) for path in FILES} == set(BELOW)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    room = room_of(path)
    allowed = BELOW[room] | FOUNDATIONS | {room}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}" for name, line in own_imports(path) if name not in allowed
    ]
    assert not wrong


def test_the_check_sees_each_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "spectra" / "readers").mkdir(parents=True)
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "cli.py").write_text("")
    path = tmp_path / "spectra" / "readers" / "mgf.py"
    path.write_text(
        "from __future__ import annotations\nimport numpy\nfrom .base import x\nfrom ..store import y\n"
        "from ...errors import z\nfrom ... import __version__, cli\nif True:\n    from ...pretrain import run\n"
    )
    assert list(own_imports(path)) == [
        ("spectra", 3),
        ("spectra", 4),
        ("errors", 5),
        ("", 6),
        ("cli", 6),
        ("pretrain", 8),
    ]
    for text in ("import ionbed.cli", "from ionbed.cli import main", "from ....outside import x"):
        path.write_text(text)
        with pytest.raises(AssertionError):
            list(own_imports(path))


def test_no_file_outgrows_its_room():
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 500}
    assert not long, "a file over 500 lines is two rooms that share a door"
