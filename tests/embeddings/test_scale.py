"""The page on scale shows what the script computes from the figures that it names, and commands that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from ionbed.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("scale_estimate", ROOT / "benchmarks" / "scale_estimate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_estimate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale_estimate"]


def measured(script, **changes):
    figures = {
        "rows": 3000, "dim": 256, "store_bytes_per_row": 210.0, "index_bytes_per_row": 1700.0,
        "vector_bytes_per_row": 1024.0, "embed_rows_per_second": 480.0, "index_rows_per_second": 16_000.0,
        "milvus_rows_per_second": 3900.0, "window_ms_per_query": 0.018, "open_ms_per_query": 0.082,
        "milvus_window_ms_per_query": 160.0, "milvus_open_ms_per_query": 3.8,
    }  # fmt: skip
    return script.Measured(**{**figures, **changes})


def test_the_table_of_the_page_is_that_of_the_script(script):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    shown = {cells[0]: cells[1:] for cells in rows if len(cells) == 11}
    for spectra in script.SIZES:
        found = script.estimate(spectra, measured(script), script.Assumptions())
        (engine, *cells) = shown[f"{spectra:,}"]
        assert engine == found.engine
        numbers = [float(cell.replace(",", "")) for cell in cells]
        expected = [
            found.store_gb, found.vectors_gb, found.disk_gb, found.memory_gb, found.embed_hours_here,
            found.embed_hours_gpus, found.add_hours, found.embed_cost, found.cost_per_month,
        ]  # fmt: skip
        assert numbers == pytest.approx(expected, rel=0.08)


def test_every_assumption_is_on_the_page_with_its_value(script):
    for name in vars(script.Assumptions()):
        assert f"`--{name.replace('_', '-')}`" in PAGE
    assert script.shown(0.00123) == "0.0012"
    assert script.shown(123.4) == "120"
    assert script.shown(10.4) == "10"


def test_more_writers_and_gpus_take_less_time(script):
    few, many = (
        script.estimate(10**9, measured(script), script.Assumptions(gpus=count, milvus_writers=count))
        for count in (1, 10)
    )
    assert few.add_hours == pytest.approx(10 * many.add_hours)
    assert few.embed_hours_gpus == pytest.approx(10 * many.embed_hours_gpus)
    assert few.embed_cost == many.embed_cost


def test_the_commands_of_the_page_have_the_options_that_it_names(capsys):
    lines = [line[2:].split("#")[0] for line in PAGE.splitlines() if line.startswith("$ ionbed")]
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line)[1:]
        command = words[:2] if words[0] == "index" else words[:1]
        assert main([*command, "--help"]) == 0
        told = re.sub(r"\s+", " ", capsys.readouterr().out)
        for option in (word for word in words if word.startswith("--")):
            assert option in told, f"{' '.join(command)} has no {option}"


def test_the_scripts_of_the_page_are_there():
    for path in re.findall(r"(?:slurm|benchmarks)/\w+\.\w+", PAGE):
        assert (ROOT / path).is_file()
