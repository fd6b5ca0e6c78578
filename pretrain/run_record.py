"""What a run says about itself: ``run.json``, written when it starts or goes on and closed when it ends."""

from __future__ import annotations

import json
import logging
import os
import platform
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..artifacts import atomic_file, read_object
from ..errors import InputError

logger = logging.getLogger("ionbed")

LOG = "log.jsonl"
RECORD = "run.json"
STOPPED = "stopped.json"
"""Left in the output of a run that a signal has stopped: it can go on. Gone when it does."""


def begin_record(output: Path, about: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Write ``run.json``: what this run is, and that an attempt at it begins at ``step``.

    A run that goes on keeps its id, its name and its earlier attempts; the configuration is that of the latest.

    Parameters
    ----------
    about : mapping
        ``command`` and ``config``, and what else describes this attempt as JSON: ``parameters``, ``processes``,
        ``device``.

    Returns
    -------
    dict
        What was written: ``id``, ``name``, ``command``, ``config``, ``parameters``, and ``attempts``, a list of
        mappings with ``began`` and ``ended`` (UTC), ``from_step``, ``processes``, ``device``, ``host`` and ``outcome``.
    """
    from .. import __version__

    try:
        before = read_record(output) if step else None
    except InputError as error:  # weeks of training do not end for it
        logger.warning("%s; the run goes on under a new id", error)
        before = None
    attempt = {
        "began": _now(),
        "from_step": step,
        **{name: about[name] for name in ("processes", "device") if name in about},
        "host": platform.node(),
        **({"slurm_job": job} if (job := os.environ.get("SLURM_JOB_ID")) else {}),
        "ended": None,
        "outcome": None,
    }
    record = {
        "ionbed_version": __version__,
        "id": before["id"] if before else uuid.uuid4().hex,
        "name": before["name"] if before else output.resolve().name,
        "command": about.get("command"),
        "parameters": about.get("parameters"),
        "config": dict(about.get("config", {})),
        "attempts": [*(before["attempts"] if before else []), attempt],
    }
    _write(output, record)
    return record


def end_record(output: Path, record: Mapping[str, Any], outcome: str) -> None:
    """Write how the latest attempt ended: 'finished', 'stopped', or the error in one line."""
    *earlier, latest = record["attempts"]
    _write(output, {**record, "attempts": [*earlier, {**latest, "ended": _now(), "outcome": outcome}]})


def read_record(output: Path) -> dict[str, Any] | None:
    """Return what ``run.json`` in ``output`` holds, None where there is none (a run of an older version).

    Raises
    ------
    InputError
        It is damaged.
    """
    path = output / RECORD
    try:
        record = read_object(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not all(isinstance(record.get(name), kind) for name, kind in (("id", str), ("name", str), ("attempts", list))):
        raise InputError(f"{path}: is not the record of a run")
    return record


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the lines of a log in the order of their steps, and how many cannot be read.

    A run that is going on, or was killed, may leave half a line at the end, which counts as neither; a disk that was
    full, or a node that was lost, may leave anything.

    Raises
    ------
    OSError
        The file cannot be opened.
    """
    data = path.read_bytes()
    lines, unreadable = [], 0
    for text in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            line = json.loads(text)
        except (UnicodeDecodeError, json.JSONDecodeError):
            line = None
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
        else:
            unreadable += 1
    return sorted(lines, key=lambda line: line["step"]), unreadable


def _write(output: Path, record: Mapping[str, Any]) -> None:
    with atomic_file(output / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
