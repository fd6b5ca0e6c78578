"""What a training run writes down as it goes: a JSON object per logged step, its record, and trackers asked for."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..artifacts import atomic_file
from ..errors import InputError
from .config import LoopConfig
from .run_record import LOG, begin_record, end_record, read_log
from .trackers import Tracker, check_trackers, numbers, open_tracker

logger = logging.getLogger("ionbed")

SHOWN = ("loss", "tokens_per_second", "data_wait_share")
"""Keys of a log line that the live line shows, besides the loss of the last validation."""


class Logs:
    """``log.jsonl`` and ``run.json``, always, and the trackers that are asked for.

    Lines past a resumed step are dropped.

    Parameters
    ----------
    output : Path
        Folder of the run.
    step : int
        From which the run goes on; 0 where it begins.
    enabled : bool
        Whether this process writes; one of a run's processes does.
    about : mapping, optional
        What the run is; see `ionbed.pretrain.run_record.begin_record`.

    Attributes
    ----------
    status : str
        The last lines in a few words, for the live line of the run.
    """

    def __init__(
        self, output: Path, config: LoopConfig, step: int, *, enabled: bool, about: Mapping[str, Any] | None = None
    ) -> None:
        self.enabled = enabled
        self.output = output
        self.steps = config.steps
        self.step = step
        self.status = ""
        self.trackers: dict[str, Tracker] = {}
        self._latest: dict[str, float] = {}
        if not enabled:
            return
        check_trackers(config.trackers)
        output.mkdir(parents=True, exist_ok=True)
        before = _logged(output / LOG) if step else []
        kept = [line for line in before if line["step"] <= step]
        with atomic_file(output / LOG) as partial:
            partial.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        self.record = begin_record(output, about or {}, step)
        last_step = max((line["step"] for line in before), default=0)
        for name in config.trackers:
            try:
                self.trackers[name] = open_tracker(name, output, self.record, kept, last_step)
            except Exception as failure:
                if step:  # a run that goes on, by night, is not stopped for it
                    _warn(name, failure)
                    continue
                said = f"training.trackers: {name} cannot be used ({_in_one_line(failure)}); mend it or leave it out"
                end_record(output, self.record, said)
                raise InputError(said) from failure
        for line in kept:
            self._look(line)

    def __enter__(self) -> Logs:
        name = self.output / LOG if self.enabled else os.devnull
        self.handle = open(name, "a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.handle.close()
        if not self.enabled:
            return
        for name, tracker in self.trackers.items():
            try:
                tracker.close(failed=error is not None)
            except Exception as failure:
                _warn(name, failure)
        if error is not None:
            outcome = "interrupted" if isinstance(error, KeyboardInterrupt) else _in_one_line(error)
        else:
            outcome = "finished" if self.step >= self.steps else "stopped"
        end_record(self.output, self.record, outcome)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line. What is not a finite number is null there; trackers are shown it as it is."""
        line = {"step": entry["step"], "time": round(time.time(), 1), **{k: _finite(v) for k, v in entry.items()}}
        self._look(line)
        if not self.enabled:
            return
        self.handle.write(json.dumps(line, allow_nan=False) + "\n")
        self.handle.flush()
        for name, tracker in list(self.trackers.items()):
            try:
                tracker.log(entry["step"], numbers(entry))
            except Exception as failure:  # a server or a full disk of the tracker must not end the training
                _warn(name, failure)
                del self.trackers[name]

    def _look(self, line: Mapping[str, Any]) -> None:
        """Keep what the live line shows."""
        self.step = max(self.step, line["step"])
        self._latest |= {name: line[name] for name in (*SHOWN, "validation_loss") if line.get(name) is not None}
        self.status = live_words(self._latest)


def live_words(latest: Mapping[str, float]) -> str:
    """Return the latest figures of a run in a few words: loss, speed, last validation, share of time without data."""
    words = {
        "loss": "loss {:.3f}",
        "tokens_per_second": "{:,.0f} tokens/s",
        "validation_loss": "validation {:.3f}",
        "data_wait_share": "data wait {:.0%}",
    }
    return ", ".join(form.format(latest[name]) for name, form in words.items() if name in latest)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _logged(path: Path) -> list[dict[str, Any]]:
    """Return what a run has logged before; lines that cannot be read are left out, aloud."""
    if not path.exists():
        return []
    lines, unreadable = read_log(path)
    if unreadable:
        logger.warning("%s: %d of its lines cannot be read and are left out", path, unreadable)
    return lines


def _warn(name: str, failure: Exception) -> None:
    logger.warning("%s: is shown no more of this run (%s); log.jsonl has it all", name, _in_one_line(failure))


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
