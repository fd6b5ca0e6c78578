"""What a run writes down: its log, its record, the words of its live line, and what is left where a tracker fails."""

from __future__ import annotations

import json
import logging
import math

import pytest

import ionbed
from ionbed.pretrain import logs as logs_module
from ionbed.pretrain.config import TrainingConfig
from ionbed.pretrain.logs import Logs
from ionbed.pretrain.run_record import read_record

ABOUT = {"command": "pretrain", "config": {"training": {"steps": 6}}, "parameters": 9, "processes": 2, "device": "cpu"}


def config(*trackers: str) -> TrainingConfig:
    return TrainingConfig(steps=6, warmup_steps=1, trackers=trackers)


def lines_of(output) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


class Recorder:
    """A tracker that keeps what it is shown, and fails from a step on."""

    def __init__(self, fails_at: int = 99) -> None:
        self.shown: list[tuple[int, dict]] = []
        self.fails_at = fails_at
        self.closed: list[bool] = []

    def log(self, step, values):
        if step >= self.fails_at:
            raise ConnectionResetError("gone\naway")
        self.shown.append((step, values))

    def close(self, *, failed):
        self.closed.append(failed)


def test_a_run_says_what_it_is_and_how_each_attempt_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    output = tmp_path / "my run"
    with Logs(output, config(), 0, enabled=True, about=ABOUT) as logs:
        during = read_record(output)
        for step in (1, 2, 3):
            logs.write({"step": step, "loss": 4.0 - step})
    first = read_record(output)
    with pytest.raises(RuntimeError), Logs(output, config(), 2, enabled=True, about=ABOUT):
        raise RuntimeError("no more\nmemory")
    with Logs(output, config(), 2, enabled=True, about={**ABOUT, "processes": 4}) as logs:
        logs.write({"step": 6, "loss": 1.0})
    record = read_record(output)
    assert during["attempts"][0]["outcome"] is None and during["attempts"][0]["ended"] is None
    assert first["attempts"][0]["outcome"] == "stopped" and first["attempts"][0]["ended"]
    assert record["id"] == first["id"] and record["name"] == "my run"
    assert {name: record[name] for name in ("command", "config", "parameters")} == {
        name: ABOUT[name] for name in ("command", "config", "parameters")
    }
    assert [attempt["outcome"] for attempt in record["attempts"]] == [
        "stopped", "RuntimeError: no more memory", "finished"
    ]  # fmt: skip
    assert [attempt["from_step"] for attempt in record["attempts"]] == [0, 2, 2]
    assert [attempt["processes"] for attempt in record["attempts"]] == [2, 2, 4]
    assert record["attempts"][0]["slurm_job"] == "17"


def test_only_one_process_writes(tmp_path):
    with Logs(tmp_path / "run", config("wandb"), 0, enabled=False) as logs:
        logs.write({"step": 1, "loss": 2.0})
    assert not (tmp_path / "run").exists()
    assert logs.status == "loss 2.000"


def test_lines_past_a_resumed_step_are_dropped_and_the_last_words_are_known(tmp_path):
    with Logs(tmp_path, config(), 0, enabled=True) as logs:
        for step in range(1, 6):
            logs.write({"step": step, "loss": float(step)})
            logs.write({"step": step, "validation_loss": step + 0.5})
    with Logs(tmp_path, config(), 3, enabled=True) as logs:
        assert logs.status == "loss 3.000, validation 3.500"
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 1, 2, 2, 3, 3]
    with Logs(tmp_path, config(), 0, enabled=True):
        pass
    assert lines_of(tmp_path) == []


def test_the_live_line_keeps_the_last_of_each_figure(tmp_path):
    with Logs(tmp_path, config(), 0, enabled=True) as logs:
        logs.write({"step": 1, "loss": 5.3664, "tokens_per_second": 6609.3, "data_wait_share": 0.014, "mz_bin": 2.0})
        assert logs.status == "loss 5.366, 6,609 tokens/s, data wait 1%"
        logs.write({"step": 1, "validation_loss": 5.8336})
        assert logs.status == "loss 5.366, 6,609 tokens/s, validation 5.834, data wait 1%"
        logs.write({"step": 2, "loss": math.nan, "tokens_per_second": 100.0})
        assert logs.status == "loss 5.366, 100 tokens/s, validation 5.834, data wait 1%"


def test_the_log_is_json_for_every_reader_and_tells_the_time(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(logs_module, "open_tracker", lambda *_: recorder)
    monkeypatch.setattr(logs_module.time, "time", lambda: 1234.56)
    with Logs(tmp_path, config("wandb"), 0, enabled=True) as logs:
        logs.write({"step": 1, "loss": math.nan, "gradient_norm": math.inf, "epoch": 0})
    text = (tmp_path / "log.jsonl").read_text()
    assert text == '{"step": 1, "time": 1234.6, "loss": null, "gradient_norm": null, "epoch": 0}\n'
    ((step, values),) = recorder.shown
    assert step == 1 and math.isnan(values["loss"]) and values["gradient_norm"] == math.inf
    assert values.keys() == {"loss", "gradient_norm", "epoch"}


def test_half_a_line_and_lines_of_noise_do_not_stop_a_resumption(tmp_path, caplog):
    good = '{"step": 1, "loss": 3.0}\n'
    (tmp_path / "log.jsonl").write_bytes(good.encode() + b"\0\0\0\n[1]\n" + good.encode() + b'{"step": 2, "lo')
    with Logs(tmp_path, config(), 4, enabled=True):
        pass
    assert lines_of(tmp_path) == [{"step": 1, "loss": 3.0}] * 2
    assert "2 of its lines cannot be read" in caplog.text


def test_a_damaged_record_does_not_end_a_run(tmp_path, caplog):
    for text in ("{", "[]", '{"id": 3}', None):  # none: a run of an older version
        (tmp_path / "run.json").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        caplog.clear()
        with Logs(tmp_path, config(), 3, enabled=True):
            pass
        assert ("the run goes on under a new id" in caplog.text) == (text is not None)
        assert [attempt["from_step"] for attempt in read_record(tmp_path)["attempts"]] == [3]


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    trackers = {"wandb": Recorder(fails_at=2), "trackio": Recorder()}
    monkeypatch.setattr(logs_module, "open_tracker", lambda name, *_: trackers[name])
    with Logs(tmp_path, config("wandb", "trackio"), 0, enabled=True) as logs:
        for step in (1, 2, 3):
            logs.write({"step": step, "loss": 1.0})
    assert [len(tracker.shown) for tracker in trackers.values()] == [1, 3]
    assert [tracker.closed for tracker in trackers.values()] == [[], [False]]
    assert len(lines_of(tmp_path)) == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["wandb: is shown no more of this run (ConnectionResetError: gone away); log.jsonl has it all"]


def test_trackers_are_told_of_an_error(tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(logs_module, "open_tracker", lambda *_: recorder)
    with pytest.raises(KeyboardInterrupt), Logs(tmp_path, config("wandb"), 0, enabled=True):
        raise KeyboardInterrupt
    assert recorder.closed == [True]
    assert read_record(tmp_path)["attempts"][-1]["outcome"] == "interrupted"


def test_a_tracker_that_cannot_be_opened_stops_a_new_run_only(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise TimeoutError("no answer")

    monkeypatch.setattr(logs_module, "open_tracker", fail)
    with pytest.raises(ionbed.InputError, match=r"wandb cannot be used \(TimeoutError: no answer\)"):
        Logs(tmp_path, config("wandb"), 0, enabled=True)
    assert "wandb cannot be used" in read_record(tmp_path)["attempts"][-1]["outcome"]
    with Logs(tmp_path, config("wandb"), 3, enabled=True) as logs:
        logs.write({"step": 4, "loss": 1.0})
    assert "wandb: is shown no more of this run (TimeoutError: no answer)" in caplog.text
    assert [line["step"] for line in lines_of(tmp_path)] == [4]
