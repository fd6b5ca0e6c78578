"""The page on matchms, datasets and transformers runs as it stands, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ionbed.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "ecosystem.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("matchms")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names: dict[str, object] = {}
    printed, told = "", 0
    for kind, text in BLOCKS:
        if kind == "text":
            assert printed == text
            told += 1
            continue
        assert kind in ("python", "console"), f"a block of the kind {kind} is not executed"
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if kind == "python":
                exec(compile(text, "ecosystem.md", "exec"), names)
            else:
                for line in text.splitlines():
                    program, *words = shlex.split(line.removeprefix("$ "))
                    assert program == "ionbed"
                    assert main(words) == 0
        printed = out.getvalue()
    assert told == 8


@pytest.mark.parametrize("with_import", [True, False])
def test_transformers_loads_a_model_after_the_import_that_the_page_names(tmp_path, with_import):
    import ionbed

    model = ionbed.load_model()
    model.save_pretrained(tmp_path / "my-model")
    program = f"""
import sys
import ionbed
{"from ionbed import IonbedModel" if with_import else ""}
from transformers import AutoModel
try:
    print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)
except ValueError as error:
    print("trust_remote_code=True" in str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "my-model")],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith("IonbedModel" if with_import else "True")
