"""The worked example of docs/score.md runs as it stands, and its table of files and keys is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from ionbed.cli import main
from ionbed.evaluation.predictions import KNOWN, PredictionManifest
from ionbed.evaluation.task_files import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "score.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(build: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    spectra, folds = build.isomers(24)
    build.write_store(tmp_path / "store", spectra)
    build.split_of(folds).save(tmp_path / "split.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_runs_as_it_stands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "my_tool.py").write_text(program)
    (console,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in console.splitlines():
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0] == "ionbed":
            assert main(words[1:]) == 0
        else:
            subprocess.run([sys.executable, *words[1:]], check=True, cwd=folder, timeout=60)
    out = capsys.readouterr().out
    assert "'my cosine' beats chance in hit@1" in out
    tree = json.loads((folder / "scored" / "results.json").read_text())
    assert tree["metrics"]["hit@1"]["micro"]["value"] > 0.9
    assert tree["tool"]["task"] == tree["task"]["hash"]
    imported = set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE))
    assert imported == {"json", "numpy", "pyarrow"}


def test_the_page_names_every_kind_file_column_and_key(folder: Path) -> None:
    assert main(["task", "store", "split.json", "--kind", "library", "--out", "task"]) == 0
    for kind in KINDS:
        assert f"| `{kind}` |" in PAGE
    for path in Path("task").glob("*.parquet"):
        assert f"| `{path.name}` |" in PAGE
        strata = json.loads(Path("task/task.json").read_text())["strata"]
        for column in set(pq.read_schema(path).names) - set(strata if path.stem in ("queries", "truth") else ()):
            assert f"`{column}`" in PAGE
    for key in fields(PredictionManifest):
        assert f"| `{key.name}` |" in PAGE
    for word in KNOWN:
        assert f"`{word}`" in PAGE
