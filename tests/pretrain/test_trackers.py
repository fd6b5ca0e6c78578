"""The trackers, with their real packages and without a network: a run that was killed and goes on is one run there."""

from __future__ import annotations

import http.server
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ionbed
from ionbed.configs.loading import load_config
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.run import pretrain
from ionbed.pretrain.run_record import read_record
from ionbed.pretrain.trackers import PACKAGES, check_trackers, numbers, wandb_mode

CONFIG = {"training": {"steps": 6, "betas": [0.9, 0.98]}, "data": {"split": None}}

KILLED_AND_RESUMED = """
import sys
from pathlib import Path
from ionbed.pretrain.config import TrainingConfig
from ionbed.pretrain.logs import Logs
config = TrainingConfig(steps=6, warmup_steps=1, trackers=("tensorboard", "wandb", "trackio"))
about = {"command": "pretrain", "config": %r, "parameters": 5}
for start, steps, shift in ((0, range(1, 5), 0.0), (2, range(3, 7), 0.5)):
    with Logs(Path(sys.argv[1]), config, start, enabled=True, about=about) as logs:
        for step in steps:
            logs.write({"step": step, "loss": step + shift})
            if step %% 2 == 0:
                logs.write({"step": step, "validation_loss": step + shift + 10})
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    """A folder with a run that all trackers were shown: steps 1 to 4, then from step 2 on again, to 6."""
    folder = tmp_path_factory.mktemp("shown")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))}
    environment |= {"HOME": str(folder), "NETRC": str(folder / "none"), "TRACKIO_DIR": str(folder / "trackio"),
                    "TRACKIO_STORAGE_MODE": "sqlite", "OMP_NUM_THREADS": "1"}  # fmt: skip
    words = [sys.executable, "-c", KILLED_AND_RESUMED % CONFIG, str(folder / "run")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # it belongs to the results of commands
    return folder


def test_trackio_holds_one_run_without_what_came_after_the_resumed_step(shown):
    read = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; (run,) = S.get_run_records('ionbed');"
        "print(json.dumps([run, S.get_logs('ionbed', run['name'], run_id=run['id']),"
        " S.get_run_config('ionbed', run['name'])]))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(shown / "trackio"), "TRACKIO_STORAGE_MODE": "sqlite"}
    text = subprocess.run([sys.executable, "-c", read], env=environment, capture_output=True, check=True).stdout
    run, lines, config = json.loads(text.splitlines()[-1])
    record = read_record(shown / "run")
    assert (run["id"], run["name"]) == (record["id"], f"run-{record['id'][:8]}")
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses == {1: 1.0, 2: 2.0, 3: 3.5, 4: 4.5, 5: 5.5, 6: 6.5}
    assert len([line for line in lines if "loss" in line]) == 6
    assert {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line} == {
        2: 12.0, 4: 14.5, 6: 16.5
    }  # fmt: skip
    assert {name: config[name] for name in CONFIG} == CONFIG


def wandb_records(path: Path) -> list:
    """Return the records of an offline run: those of LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, records, place, whole = path.read_bytes(), [], 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def test_wandb_writes_one_run_in_two_parts_without_a_step_twice(shown):
    parts = sorted((shown / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = read_record(shown / "run")["id"][:16]
    assert len(parts) == 2 and all(part.name == f"run-{run_id}.wandb" for part in parts)
    rows, runs = [], []
    for part in parts:
        for record in wandb_records(part):
            if record.WhichOneof("record_type") == "run":
                runs.append(record.run)
            if record.WhichOneof("record_type") == "history":
                rows.append({(item.key or item.nested_key[0]): json.loads(item.value_json)
                             for item in record.history.item})  # fmt: skip
    assert {(run.run_id, run.display_name, run.project, run.job_type) for run in runs} == {
        (run_id, "run", "ionbed", "pretrain")
    }
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert {name: config[name] for name in CONFIG} == CONFIG
    assert [row["_step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.5, 6.5]
    assert [row.get("validation_loss") for row in rows] == [None, 12.0, None, 14.0, None, 16.5]


def test_tensorboard_shows_the_resumed_run_alone(shown):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shown / "run" / "tensorboard"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5), (5, 5.5), (6, 6.5)]
    (text,) = events.Tensors("config/text_summary")
    assert '"betas"' in text.tensor_proto.string_val[0].decode()


def test_trackio_on_a_network_drive_is_one_run_too(tmp_path):
    """There it gathers lines in files; what it was shown is not taken back, and not shown twice."""
    program = KILLED_AND_RESUMED.replace('("tensorboard", "wandb", "trackio")', '("trackio",)') % CONFIG + (
        "\nfrom trackio import fragments\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "fragments.import_inbox_dir()\n(run,) = S.get_run_records('ionbed')\n"
        "print([(line['step'], line['loss']) for line in S.get_logs('ionbed', run['name']) if 'loss' in line])"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "TRACKIO_STORAGE_MODE": "jsonl"}
    words = [sys.executable, "-c", program, str(tmp_path / "run")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.5), (6, 6.5)]\n"


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_wandb_is_online_only_with_a_login_and_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert wandb_mode(url) == "offline"
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        assert wandb_mode(url) == "online"
        monkeypatch.delenv("WANDB_API_KEY")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password " + "k" * 40)
        assert wandb_mode(url) == "online"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert wandb_mode(url) == "offline"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_told_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    changes = [f"output={tmp_path / 'run'}", "data.store=nowhere", f"training.trackers=[{name}]"]
    with pytest.raises(ionbed.InputError, match=f"package {PACKAGES[name]} is missing; pip install {PACKAGES[name]}"):
        pretrain(load_config(PretrainConfig, "pretrain-tiny", changes))
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused():
    with pytest.raises(ionbed.InputError, match="tensorboard, wandb, trackio"):
        load_config(PretrainConfig, "pretrain-tiny", ["training.trackers=[mlflow]"])
    check_trackers(())


def test_what_is_no_number_is_not_shown():
    line = {"step": 3, "time": 5.0, "loss": 1.5, "epoch": 2, "finished": True, "note": "x", "empty": None}
    assert numbers(line) == {"loss": 1.5, "epoch": 2}
