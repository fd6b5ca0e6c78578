"""Progress of long work: the words of the live line and of log lines, and what they do beside other log lines."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from ionbed import progress as progress_module
from ionbed.progress import as_clock, counted, progress


class Clock:
    """Time that goes on as it is told."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_log_lines_come_every_ten_seconds_and_keep_the_last_status(monkeypatch, caplog):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, "ionbed"), progress("train", 10_000, unit="steps", done=9_000) as advance:
        clock.now += 6
        advance(1, "loss 5.366, 6,609 tokens/s")
        assert lines(caplog) == []
        clock.now += 6
        advance(2)
        clock.now += 6
        advance(2)
        clock.now += 6
        advance(1, "loss 5.200")
    assert lines(caplog) == [
        "train: 9,003 of 10,000 steps, 0.25 steps/s, 1:06:28 left, loss 5.366, 6,609 tokens/s",
        "train: 9,006 of 10,000 steps, 0.25 steps/s, 1:06:16 left, loss 5.200",
        "train: 9,006 of 10,000 steps, 0.25 steps/s, 1:06:16 left, loss 5.200",
    ]


@pytest.mark.parametrize(
    ("count", "things", "words"),
    [
        (1, "spectra", "1 spectrum"),
        (1, "queries", "1 query"),
        (1, "molecules", "1 molecule"),
        (1, "predicted spectra", "1 predicted spectrum"),
        (0, "spectra", "0 spectra"),
        (2000, "queries", "2,000 queries"),
    ],
)
def test_one_thing_is_told_in_the_singular(count, things, words):
    assert counted(count, things) == words


def test_one_spectrum_is_read_and_searched_for(monkeypatch, caplog):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, "ionbed"):
        for total in (None, 1):
            with progress("read", total) as advance:
                clock.now += 2
                advance(1)
    assert lines(caplog) == ["read: 1 spectrum, 0.5 spectra/s", "read: 1 of 1 spectrum, 0.5 spectra/s"]


def test_work_that_is_done_or_has_no_end_has_no_time_left(monkeypatch, caplog):
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO, "ionbed"):
        with progress("read", None) as advance:
            clock.now += 2
            advance(50_000)
        with progress("embed", 100) as advance:
            clock.now += 2
            advance(100)
        with progress("short", 100) as advance:
            clock.now += 0.5
            advance(100)
    assert lines(caplog) == ["read: 50,000 spectra, 25,000 spectra/s", "embed: 100 of 100 spectra, 50 spectra/s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3_661, "1:01:01"), (86_399, "23:59:59"), (97_640, "1 d 03:07")],
)
def test_times_left(seconds, text):
    assert as_clock(seconds) == text


ON_A_TERMINAL = """
import logging, time
from ionbed import cli
from ionbed.progress import progress
logger = logging.getLogger("ionbed")
logger.addHandler(logging.StreamHandler())
logger.setLevel(logging.INFO)
with progress("train", 20, unit="steps", done=10) as advance:
    for step in range(10):
        advance(1, "loss 1.500, 900 tokens/s, validation 2.500, data wait 0%" if step == 2 else "")
        time.sleep(0.06)
        if step == 5:
            logger.warning("step 16: something happened")
logger.warning("after it")
"""


def test_a_terminal_shows_one_live_line_and_log_lines_above_it():
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 130, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    environment |= {"TERM": "xterm"}
    words = [sys.executable, "-c", ON_A_TERMINAL]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(main)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    written = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    live = [line for line in written if line.startswith("train")]
    assert any(re.search(r"1\d of 20 steps, .* left, loss 1\.500", line) for line in live)
    last = r"20 of 20 steps, \d+ steps/s, loss 1\.500, 900 tokens/s, validation 2\.500, data wait 0%$"
    assert re.search(last, live[-1])
    assert [line for line in written if not line.startswith("train")] == ["step 16: something happened", "after it"]
