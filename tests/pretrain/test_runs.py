"""``ionbed runs``: what it reads of runs in every state, what it says differs, and the figure it draws."""

from __future__ import annotations

import itertools
import json
import math
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import ionbed
from ionbed import cli
from ionbed.pretrain.runs import differences, find_runs, read_runs, unlike_terms
from ionbed.pretrain.runs_figure import COLOURS, MOST_RUNS, FigureOptions, draw, running_mean, write_figure
from ionbed.pretrain.runs_table import COLUMNS, ago, amount, run_cells, to_json

NOW = 1_700_000_000.0


def make_run(
    folder: Path,
    *,
    steps: int = 40,
    to: int = 40,
    every: int = 2,
    outcome: str | None = "finished",
    age: float = 5.0,
    seconds_per_line: float = 1.0,
    level: float = 8.0,
    command: str = "pretrain",
    **options: object,
) -> Path:
    """Write the folder of a run whose loss at step s is ``level / sqrt(s)``, validated every 10 steps."""
    folder.mkdir(parents=True)
    lines = []
    for number, step in enumerate(range(every, to + 1, every)):
        line = {"step": step, "time": NOW - age - seconds_per_line * ((to - step) // every), "epoch": 0,
                "loss": level / math.sqrt(step), "tokens_per_second": 1000.0 + number, "mfu": 0.5,
                "tokens": 500 * step, "seconds": 0.5 * step}  # fmt: skip
        lines.append(line)
        if step % 10 == 0:
            lines.append({"step": step, "time": line["time"], "validation_loss": line["loss"] + 1,
                          "validation_mz_bin": 1.0})  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime(folder / "log.jsonl", (NOW - age, NOW - age))
    attempt = {"began": "2026-01-01T00:00:00Z", "from_step": 0, "processes": 2, "device": "cpu", "host": "n1",
               "ended": None if outcome is None else "2026-01-01T00:01:00Z", "outcome": outcome}  # fmt: skip
    config = {"output": str(folder), "data": {"store": "/data/store"}, "masking": {"share": 0.3},
              "training": {"steps": steps, "learning_rate": 0.001, **options}}  # fmt: skip
    record = {"ionbed_version": "0.1.0", "id": folder.name, "name": folder.name, "command": command,
              "parameters": 5_034_321, "config": config, "attempts": [attempt]}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def only(folder: Path, now: float = NOW):
    (run,) = read_runs([folder], now=now)
    return run


def test_a_run_is_read_as_it_was_written(tmp_path):
    make_run(tmp_path / "a", to=40)
    run = only(tmp_path)
    assert (run.name, run.stage, run.state, run.step, run.steps) == ("a", "pretrain", "finished", 40, 40)
    assert run.loss == pytest.approx(8 / math.sqrt(40)) and run.validation == pytest.approx(8 / math.sqrt(40) + 1)
    assert run.tokens_per_second == 1014.5  # the middle of lines 1,010 to 1,019
    assert (run.mfu, run.processes, run.attempts, run.parameters) == (0.5, 2, 1, 5_034_321)
    assert run.hours == pytest.approx(20 / 3600)
    assert run.config["training.learning_rate"] == 0.001 and run.terms == {"mz_bin"}
    cells = dict(zip(COLUMNS, run_cells(run), strict=True))
    assert cells == {
        "run": "a", "stage": "pretrain", "size": "5.03M", "state": "finished", "step": "40/40", "loss": "1.265",
        "valid.": "2.265", "report": "", "tokens/s": "1,014", "MFU": "50%", "hours": "0.01", "proc.": "2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "age", "gap", "marker", "state"),
    [
        ("finished", 1e6, 1.0, False, "finished"),
        ("stopped", 1e6, 1.0, True, "stopped"),
        (None, 1e6, 1.0, True, "stopped"),  # the marker of the loop, where the record was not closed
        (None, 100.0, 1.0, False, "running"),
        (None, 700.0, 1.0, False, "silent"),
        (None, 700.0, 60.0, False, "running"),  # it writes a line a minute only
        (None, 1300.0, 60.0, False, "silent"),
        ("RuntimeError: CUDA out of memory", 10.0, 1.0, False, "failed"),
    ],
)
def test_the_state_of_a_run(tmp_path, outcome, age, gap, marker, state):
    folder = make_run(tmp_path / "a", to=20, outcome=outcome, age=age, seconds_per_line=gap)
    if marker:
        (folder / "stopped.json").write_text("{}")
    run = only(folder)
    assert run.state == state
    assert run.remarks == (("step 20: RuntimeError: CUDA out of memory",) if state == "failed" else ())


def test_a_run_without_its_model_says_so(tmp_path):
    folder = make_run(tmp_path / "a")
    (folder / "checkpoints").mkdir()
    assert only(folder).state == "finished" and "model is not written" in " ".join(only(folder).remarks)
    (folder / "manifest.json").write_text('{"command": "pretrain"}')
    assert only(folder).remarks == ()


def test_a_stopped_run_is_as_far_as_its_checkpoint(tmp_path):
    folder = make_run(tmp_path / "a", to=20, outcome="stopped")
    assert only(folder).step == 20
    (folder / "stopped.json").write_text('{"step": 21, "signal": "SIGINT"}')
    assert only(folder).step == 21


def test_the_latest_attempt_decides(tmp_path):
    folder = make_run(tmp_path / "a", to=20, outcome=None)
    record = json.loads((folder / "run.json").read_text())
    record["attempts"].insert(0, {**record["attempts"][0], "outcome": "ValueError: x", "processes": 64})
    (folder / "run.json").write_text(json.dumps(record))
    run = only(folder)
    assert (run.state, run.processes, run.attempts) == ("running", 2, 2)


def test_half_a_line_is_a_run_in_progress_and_noise_is_told(tmp_path):
    folder = make_run(tmp_path / "a", outcome=None)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 41, "lo')
    os.utime(folder / "log.jsonl", (NOW, NOW))
    assert (only(folder).state, only(folder).remarks, only(folder).step) == ("running", (), 40)
    with open(folder / "log.jsonl", "ab") as log:
        log.write(b'\n\xff\xfe\n"text"\n{"loss": 1}\n')
    assert only(folder).remarks == ("log.jsonl: 4 of its lines cannot be read",)


def test_damaged_folders_are_named_and_the_others_shown(tmp_path):
    make_run(tmp_path / "whole")
    noise = make_run(tmp_path / "noise")
    (noise / "log.jsonl").write_bytes(b"\0" * 100 + b"\n")
    lost = make_run(tmp_path / "lost")
    (lost / "log.jsonl").unlink()
    record = make_run(tmp_path / "record", outcome=None)
    (record / "run.json").write_text('{"id": ')
    (record / "manifest.json").write_text("[]")
    runs = {run.name: run for run in read_runs([tmp_path], now=NOW)}
    assert {name: run.state for name, run in runs.items()} == {
        "whole": "finished", "noise": "damaged", "lost": "damaged", "record": "running"
    }  # fmt: skip
    assert runs["noise"].remarks == ("log.jsonl: 1 of its lines cannot be read",)
    assert runs["lost"].remarks == ("log.jsonl: No such file or directory",)
    assert "run.json: cannot be read" in runs["record"].remarks[0]


def test_a_run_of_an_older_version_is_read_from_its_manifest_or_its_checkpoint(tmp_path):
    import torch
    from safetensors.torch import save_file

    finished = make_run(tmp_path / "finished")
    config = json.loads((finished / "run.json").read_text())["config"]
    (finished / "run.json").unlink()
    manifest = {"command": "pretrain", "config": config, "seconds": 7200, "processes": 3}
    (finished / "manifest.json").write_text(json.dumps(manifest))
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    old = [{k: v for k, v in line.items() if k not in ("time", "seconds", "tokens", "mfu")} for line in lines]
    (finished / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    (finished / "model").mkdir()
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, finished / "model" / "model.safetensors")
    stopped = make_run(tmp_path / "stopped", outcome=None, age=1e6)
    (stopped / "run.json").unlink()
    for step, seconds in ((10, 1.0), (40, 3600.0)):
        (stopped / "checkpoints" / f"step-{step:08}").mkdir(parents=True)
        state = {"identity": {"sampling": {"anchors": 8}, "training": {"steps": 90}}, "totals": {"seconds": seconds}}
        (stopped / "checkpoints" / f"step-{step:08}" / "state.json").write_text(json.dumps(state))
    (stopped / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    os.utime(stopped / "log.jsonl", (NOW - 1e6, NOW - 1e6))
    runs = {run.name: run for run in read_runs([tmp_path], now=NOW)}
    first, second = runs["finished"], runs["stopped"]
    assert (first.state, first.hours, first.processes, first.parameters) == ("finished", 2.0, 3, 17)
    assert (second.state, second.stage, second.steps, second.hours) == ("silent", "finetune", 90, 1.0)


def make_fit(folder: Path, figure: float | None = 0.875, **about: object) -> Path:
    """Write the folder of a run that fitted a head on a frozen encoder: a manifest, a model and a report."""
    (folder / "report").mkdir(parents=True)
    config = {"output": str(folder), "task": "multi-label", "training": {"steps": 2000}}
    manifest = {"command": "finetune", "config": config, "model_hash": "1f", "steps": 0, "seconds": 36.0,
                "processes": 1, "validation": {"loss": 0.25, "labels": 0.25}, "finished": True, **about}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    os.utime(folder / "manifest.json", (NOW - 9, NOW - 9))
    rows = [{"label": "binned peaks", "metrics": {"ROC AUC": {"value": 0.5}}},
            {"label": "model", "metrics": {"ROC AUC": {"value": figure}, "Brier score": {"value": 0.1}}}]  # fmt: skip
    (folder / "report" / "results.json").write_text(json.dumps({"main": "ROC AUC", "rows": rows}))
    (folder / "report" / "manifest.json").write_text(json.dumps({"command": "finetune", "config": config}))
    return folder


def test_a_head_that_was_fitted_is_a_run_without_steps(tmp_path):
    make_fit(tmp_path / "frozen")
    make_fit(tmp_path / "no figure", figure=None)
    make_fit(tmp_path / "store", command="prepare")
    trained = make_run(tmp_path / "trained", command="finetune")
    (trained / "report").mkdir()
    (trained / "report" / "results.json").write_bytes((tmp_path / "frozen/report/results.json").read_bytes())
    found = read_runs([tmp_path], now=NOW)
    assert [run.name for run in found] == ["trained", "frozen", "no figure"]  # the latest first
    runs = {run.name: run for run in found}
    cells = dict(zip(COLUMNS, run_cells(runs["frozen"]), strict=True))
    assert cells == {
        "run": "frozen", "stage": "finetune", "size": "", "state": "finished", "step": "", "loss": "",
        "valid.": "0.250", "report": "ROC AUC 0.875", "tokens/s": "", "MFU": "", "hours": "0.01", "proc.": "1",
    }  # fmt: skip
    assert runs["frozen"].terms == {"labels"} and not runs["frozen"].remarks and runs["frozen"].steps == 0
    assert runs["trained"].report == ("ROC AUC", 0.875) and runs["no figure"].report is None
    (line,) = unlike_terms(found)
    assert "(labels, mz_bin)" in line
    assert json.loads(to_json(found))[1]["report"] == ["ROC AUC", 0.875]
    with pytest.raises(ionbed.InputError, match="no run has logged a loss yet"):
        write_figure([runs["frozen"]], tmp_path / "x.svg", FigureOptions())


def fitted(folder, **manifest):
    folder.mkdir(parents=True)
    whole = {"command": "finetune", "steps": 0, "model_hash": "0", "seconds": 3600.0, "processes": 1,
             "validation": {"loss": 0.5, "activity": 0.25}, **manifest}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(whole))
    return folder


def test_a_manifest_whose_losses_are_text_is_a_row_with_what_is_known_and_a_remark(tmp_path, capsys):
    fitted(tmp_path / "runs" / "bad", validation={"loss": "0.5", "activity": "low"})
    fitted(tmp_path / "runs" / "good")
    bad, good = read_runs([tmp_path / "runs"], order="validation", now=NOW)[::-1]
    assert (good.name, good.validation, good.remarks) == ("good", 0.5, ())
    assert (bad.name, bad.stage, bad.state, bad.validation, bad.hours) == ("bad", "finetune", "finished", None, 1.0)
    assert bad.remarks == ('manifest.json: validation_activity is "low", which is no number, and 1 more',)
    cli.main(["runs", str(tmp_path / "runs")])
    shown = capsys.readouterr().out
    assert "0.500" in shown
    assert 'bad: manifest.json: validation_activity is "low", which is no number, and 1 more' in shown


@pytest.mark.parametrize("value", ["1.5", [1.0], {"a": 1}, True, None, -1])
@pytest.mark.parametrize("file", ["log.jsonl", "run.json", "manifest.json", "stopped.json", "report/results.json"])
def test_a_value_of_another_kind_anywhere_costs_no_row(tmp_path, file, value):
    for number, tree in enumerate(_changed(file, value)):
        folder = make_run(tmp_path / file.replace("/", "-") / f"r{number}") if file != "manifest.json" else None
        folder = folder or fitted(tmp_path / file / f"r{number}")
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(tree) + "\n")
    for order in ("latest", "name", "loss", "validation"):
        runs = read_runs([tmp_path], order=order, now=NOW)
        assert len(runs) == number + 1
        assert all(len(run_cells(run)) == len(COLUMNS) for run in runs)
        json.loads(to_json(runs))
        unlike_terms(runs)


def _changed(file, value):
    """Yield the content of a file of a run with each of its values, at any depth, replaced in turn."""
    whole = {
        "log.jsonl": {"step": 2, "time": NOW, "loss": 1.0, "validation_loss": 1.0, "tokens_per_second": 1.0, "mfu": 0.5,
                      "tokens": 10, "seconds": 1.0},
        "run.json": {"id": "x", "name": "x", "command": "pretrain", "parameters": 5,
                     "config": {"training": {"steps": 4}},
                     "attempts": [{"began": "x", "processes": 2, "outcome": "finished"}]},
        "manifest.json": {"command": "finetune", "steps": 0, "model_hash": "0", "seconds": 1.0, "processes": 1,
                          "parameters": 5, "config": {"a": 1}, "validation": {"loss": 0.5}},
        "stopped.json": {"step": 2, "signal": "SIGINT"},
        "report/results.json": {"main": "auc", "rows": [{"label": "model", "metrics": {"auc": {"value": 0.5}}}]},
    }[file]  # fmt: skip
    keep = {"manifest.json": {"command", "steps", "model_hash"}}.get(file, set())  # by these it is known as a run

    def walk(tree, rebuild):
        if isinstance(tree, (dict, list)):
            for key, item in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
                if key in keep:
                    continue
                copy = dict(tree) if isinstance(tree, dict) else list(tree)

                def place(new, key=key, copy=copy):
                    changed = dict(copy) if isinstance(copy, dict) else list(copy)
                    changed[key] = new
                    return rebuild(changed)

                yield place(value)
                yield from walk(item, place)

    yield from walk(whole, lambda tree: tree)


def test_runs_are_found_once_and_not_inside_each_other(tmp_path):
    make_run(tmp_path / "group" / "a")
    (tmp_path / "group" / "a" / "wandb").mkdir()
    (tmp_path / "group" / "a" / "wandb" / "run.json").write_text("{}")
    make_run(tmp_path / "b")
    assert find_runs(tmp_path) == [tmp_path / "b", tmp_path / "group" / "a"]
    runs = read_runs([tmp_path, tmp_path / "b"], order="name", now=NOW)
    assert [run.name for run in runs] == ["b", "group/a"]
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path / "group" / "a" / "wandb" / "x", "holds")):
        if message == "holds":
            folder.mkdir()
        with pytest.raises(ionbed.InputError, match=message):
            read_runs([folder])


def test_runs_are_sorted(tmp_path):
    make_run(tmp_path / "a", level=9, age=50)
    make_run(tmp_path / "b", level=7, age=10)
    empty = make_run(tmp_path / "c", age=30)
    (empty / "log.jsonl").write_text("")
    os.utime(empty / "log.jsonl", (NOW - 30, NOW - 30))
    orders = {order: "".join(run.name for run in read_runs([tmp_path], order=order, now=NOW))
              for order in ("latest", "name", "loss", "validation")}  # fmt: skip
    assert orders == {"latest": "bca", "name": "abc", "loss": "bac", "validation": "bac"}


def test_what_differs_is_told_by_the_shortest_clear_key_within_a_stage(tmp_path):
    make_run(tmp_path / "a", learning_rate=0.01, share=1, added="new", trackers=[])
    make_run(tmp_path / "b", learning_rate=0.02, share=2, trackers=["wandb"])
    other = make_run(tmp_path / "c", command="finetune", learning_rate=0.5)
    runs = read_runs([tmp_path], order="name", now=NOW)
    assert list(differences(runs).values()) == [
        {"learning_rate": 0.01, "share": 1}, {"learning_rate": 0.02, "share": 2}, {}
    ]  # fmt: skip
    record = json.loads((other / "run.json").read_text())
    record["command"] = "pretrain"
    record["config"]["masking"]["share"] = 0.9
    record["config"]["training"]["share"] = 1
    (other / "run.json").write_text(json.dumps(record))
    third = differences(read_runs([tmp_path], order="name", now=NOW))[other]
    assert third == {"learning_rate": 0.5, "training.share": 1, "masking.share": 0.9}


def test_losses_of_other_terms_are_said_not_to_compare(tmp_path):
    make_run(tmp_path / "a")
    log = make_run(tmp_path / "b") / "log.jsonl"
    runs = read_runs([tmp_path], now=NOW)
    assert unlike_terms(runs) == []
    log.write_text(log.read_text().replace("validation_mz_bin", "validation_order"))
    (line,) = unlike_terms(read_runs([tmp_path], now=NOW))
    assert line.startswith("pretrain: the loss has other terms in some runs (mz_bin, order)")


@pytest.mark.parametrize(
    ("number", "text"),
    [(17, "17"), (999, "999"), (32_400, "32.4k"), (999_600, "1.00M"), (5_034_321, "5.03M"), (101e6, "101M"),
     (2.5e9, "2.50B")],
)  # fmt: skip
def test_amounts_have_three_digits(number, text):
    assert amount(number) == text


def test_times_are_told_in_one_unit():
    assert [ago(s) for s in (20, 600, 7100, 7300, 200_000)] == ["0 min", "10 min", "118 min", "2 h", "2 d"]


@pytest.mark.parametrize("size", [1, 2, 5, 11, 1000])
def test_the_running_mean_is_that_of_its_definition(size):
    values = np.random.default_rng(0).normal(size=60)
    half = (size - 1) // 2
    expected = [values[i - reach : i + reach + 1].mean() for i in range(60) for reach in [min(half, i // 4, 59 - i)]]
    np.testing.assert_allclose(running_mean(values, size), expected, rtol=1e-12)


def test_the_figure_shows_the_losses_against_what_is_asked(tmp_path):
    make_run(tmp_path / "a", learning_rate=0.01)
    make_run(tmp_path / "b", learning_rate=0.02, level=12)
    runs = read_runs([tmp_path], order="name", now=NOW)
    for against, unit in (("step", 1.0), ("tokens", 500.0), ("hours", 0.5 / 3600)):
        figure = draw(runs, FigureOptions(against, "xy", 1))
        (axes,) = figure.axes
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        training = [line for line in axes.lines if line.get_marker() == "None"]
        validation = [line for line in axes.lines if line.get_marker() == "o"]
        steps = np.arange(2, 41, 2)
        for line, level in zip(training, (8, 12), strict=True):
            np.testing.assert_allclose(line.get_xdata(), unit * steps)
            np.testing.assert_allclose(line.get_ydata(), level / np.sqrt(steps))
        for line, level in zip(validation, (8, 12), strict=True):
            np.testing.assert_allclose(line.get_xdata(), unit * np.array([10, 20, 30, 40]))
            np.testing.assert_allclose(line.get_ydata(), level / np.sqrt([10, 20, 30, 40]) + 1)
        assert [line.get_color() for line in training] == [line.get_color() for line in validation]
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["a: learning_rate=0.01", "b: learning_rate=0.02"]
    figure = draw(runs, FigureOptions(smoothing=5))
    assert "running mean of 5 log lines" in figure.axes[0].get_title(loc="left")
    assert len(figure.axes[0].lines) == 6  # the line as logged, the mean, validation


def test_ticks_of_a_short_run_are_whole_steps(tmp_path):
    make_run(tmp_path / "a", to=20)
    (axes,) = draw(read_runs([tmp_path], now=NOW), FigureOptions()).axes
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert len(ticks) > 3 and all(tick == round(tick) for tick in ticks)
    written = [label.get_text() for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
               if low <= place <= high]  # fmt: skip
    assert written == [f"{tick:.0f}" for tick in ticks]


def test_stages_have_panels_of_their_own_and_runs_looks_of_their_own(tmp_path):
    for number in range(MOST_RUNS):
        make_run(tmp_path / f"{number:02}", command="pretrain" if number % 2 else "finetune")
    runs = read_runs([tmp_path], order="name", now=NOW)
    figure = draw(runs, FigureOptions(smoothing=1))
    assert [axes.get_title(loc="left").split(".")[0] for axes in figure.axes] == ["finetune", "pretrain"]
    looks = {(line.get_color(), line.get_linestyle()) for axes in figure.axes for line in axes.lines
             if line.get_marker() == "None"}  # fmt: skip
    assert len(looks) == MOST_RUNS
    make_run(tmp_path / "more")
    with pytest.raises(ionbed.InputError, match=f"at most {MOST_RUNS}"):
        draw(read_runs([tmp_path], now=NOW), FigureOptions())


def test_the_colours_can_be_told_apart_by_the_colour_blind():
    """Simulated by Machado, Oliveira and Fernandes (2009), severity 1; distance in CIE L*a*b* (CIE76)."""
    simulated = {
        "normal": np.eye(3),
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                       [-0.003882, -0.048116, 1.051998]],
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]],
        "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                       [0.004733, 0.691367, 0.303900]],
    }  # fmt: skip
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
    encoded = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    for kind, matrix in simulated.items():
        xyz = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / to_xyz.sum(1)
        f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
        apart = min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))
        assert apart > 12, f"{kind}: two colours are only {apart:.0f} apart"


def test_files_are_written_in_each_format_and_others_refused(tmp_path):
    make_run(tmp_path / "runs" / "a<b & $x$", learning_rate=0.01)
    make_run(tmp_path / "runs" / "b", learning_rate=0.02, outcome="RuntimeError: <out of memory>")
    runs = read_runs([tmp_path / "runs"], order="name", now=NOW)
    paths = {suffix: tmp_path / f"figure{suffix}" for suffix in (".png", ".svg", ".html", ".SVG")}
    for path in paths.values():
        write_figure(runs, path, FigureOptions())
    assert paths[".png"].read_bytes().startswith(b"\x89PNG")
    svg = paths[".svg"].read_text()
    assert ET.fromstring(svg).tag.endswith("svg") and "a&lt;b &amp; $x$: learning_rate=0.01" in svg
    assert paths[".SVG"].read_text() == svg  # the same runs, the same text
    page = paths[".html"].read_text()
    assert "<td>a&lt;b &amp; $x$</td>" in page and "&lt;out of memory&gt;" in page and "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # nothing is loaded
    for name in ("figure.gif", "figure"):
        with pytest.raises(ionbed.InputError, match=r"\.png, \.svg, \.html"):
            write_figure(runs, tmp_path / name, FigureOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"runs", *(path.name for path in paths.values())}


def test_what_cannot_be_drawn_is_told(tmp_path):
    old = make_run(tmp_path / "old")
    lines = [json.loads(line) for line in (old / "log.jsonl").read_text().splitlines()]
    (old / "log.jsonl").write_text("".join(json.dumps({**line, "tokens": None}) + "\n" for line in lines))
    with pytest.raises(ionbed.InputError, match="does not count tokens seen"):
        draw(read_runs([old], now=NOW), FigureOptions("tokens"))
    draw(read_runs([old], now=NOW), FigureOptions("hours"))
    (old / "log.jsonl").write_text("")
    with pytest.raises(ionbed.InputError, match="no run has logged a loss yet"):
        draw(read_runs([old], now=NOW), FigureOptions())


def test_the_command(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "runs" / "small", learning_rate=0.01)
    make_run(tmp_path / "runs" / "large", learning_rate=0.02, to=20, outcome="RuntimeError: CUDA [out] of memory")
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["runs", str(tmp_path / "runs"), "--sort", "name", "--plot", str(tmp_path / "f.svg")]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[0] == [name for name in COLUMNS if name != "report"]
    assert rows[2][:6] == ["large", "pretrain", "5.03M", "failed", "20/40", "1.789"]
    assert rows[3][:6] == ["small", "pretrain", "5.03M", "finished", "40/40", "1.265"]
    assert ["small", "learning_rate=0.01"] in rows
    assert "large: step 20: RuntimeError: CUDA [out] of memory" in out
    assert "f.svg" in err and (tmp_path / "f.svg").exists()

    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["runs", str(tmp_path / "runs"), "--sort", "name"]) == 0
    narrow = capsys.readouterr().out
    assert "small" in narrow and "finished" in narrow and "proc." not in narrow
    assert max(map(len, narrow.splitlines())) <= 60

    assert cli.main(["runs", str(tmp_path / "runs"), "--sort", "validation", "--json"]) == 0
    small, large = json.loads(capsys.readouterr().out)
    assert (small["name"], large["name"], large["state"]) == ("small", "large", "failed")
    assert small["differs_in"] == {"learning_rate": 0.01} and small["config"]["masking.share"] == 0.3
    assert "lines" not in small

    for words, message in ((["nowhere"], "no such folder"), (["--plot", "f.gif", str(tmp_path)], "ends in")):
        assert cli.main(["runs", *words]) == 2
        shown = capsys.readouterr()
        assert message in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""


def test_a_real_run_shows_in_the_table_while_it_goes_on_and_when_it_ends(store, split, tmp_path, monkeypatch):
    from ionbed.configs.loading import load_config
    from ionbed.pretrain import logs
    from ionbed.pretrain.config import PretrainConfig
    from ionbed.pretrain.run import pretrain

    output, during = tmp_path / "run", []
    write = logs.Logs.write

    def write_and_look(self, entry):
        write(self, entry)
        during.append(only(output, time.time()))

    monkeypatch.setattr(logs.Logs, "write", write_and_look)
    changes = ["training.steps=4", "training.warmup_steps=1", "training.log_every=2", "training.validate_every=4",
               "training.threads=1", "training.batch_tokens=200", "model.hidden_size=32", "model.num_layers=1",
               "model.num_heads=4", f"data.store={store}", f"data.split={split}", f"output={output}"]  # fmt: skip
    pretrain(load_config(PretrainConfig, "pretrain-tiny", changes))
    assert [(run.state, run.step, run.steps) for run in during] == [
        ("running", 2, 4), ("running", 4, 4), ("running", 4, 4)
    ]  # fmt: skip
    run = only(output, time.time())
    manifest = json.loads((output / "manifest.json").read_text())
    assert run.state == "finished" and run.stage == "pretrain" and run.processes == 1
    assert run.hours == pytest.approx(manifest["seconds"] / 3600, abs=0.1 / 3600)
    assert run.lines[-2]["tokens"] == manifest["tokens"]
    assert run.validation == pytest.approx(manifest["validation"]["loss"])
    assert run.config["training.learning_rate"] == manifest["config"]["training"]["learning_rate"]
    assert run.parameters is not None and run.parameters > 0 and run.mfu is not None and run.mfu > 0
