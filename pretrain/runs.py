"""Read back what training runs have written down: which there are, how far each is, and how their options differ."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..artifacts import MANIFEST, read_object_or_empty
from ..configs.loading import dotted
from ..errors import InputError
from .run_record import LOG, RECORD, STOPPED, read_log, read_record

SILENT_SECONDS, SILENT_LINES = 600.0, 20
"""A run that says it goes on is silent when its last line is older than this, and than so many times the usual gap."""
REPORT = Path("report", "results.json")
"""What ``ionbed finetune`` writes of a model of labels."""
LATEST_LINES = 10
"""Lines over which the middle rate is taken."""
FIGURES = ("loss", "time", "seconds", "tokens", "tokens_per_second", "mfu")
"""Names in a line of a log that are shown or drawn as numbers, but for the losses of the validation."""
NO_DIFFERENCE = ("output", "training.trackers")
"""Options that say where a run is written and shown."""

State = Literal["running", "finished", "stopped", "failed", "silent", "damaged"]
T = TypeVar("T", str, int)
Order = Literal["latest", "name", "loss", "validation"]


@dataclass(frozen=True)
class Run:
    """A training run as its folder tells of it.

    Attributes
    ----------
    path : Path
    name : str
        Path of the folder below what all runs that are compared have in common.
    stage : str or None
        'pretrain' or 'finetune', as far as that is known.
    parameters : int or None
        Trained numbers, those of the heads included.
    state : str
        'silent' is a run that neither ended nor wrote a line for a long time: it was killed, or hangs.
    remarks : tuple of str
        What else there is to say: an error, lines that cannot be read.
    step, steps : int, int or None
        Steps done and to do; 0 to do where only a head was fitted, on labels.
    loss, validation : float or None
        Of the last line that tells it.
    report : tuple of (str, float), or None
        The main figure of the report of a run on labels, with its name.
    tokens_per_second, mfu : float or None
        In the middle of the last lines; MFU is the share of the measured peak (0 to 1).
    hours : float or None
        Of training, over all attempts, without validation and checkpoints.
    processes : int or None
        Of the latest attempt.
    attempts : int or None
        How often the run was started, resumptions included.
    last_line : float
        When the log was written last, Unix seconds.
    config : dict
        Options by their dotted keys.
    lines : tuple of dict
        The log, in the order of steps.
    """

    path: Path
    name: str
    stage: str | None = None
    parameters: int | None = None
    state: State = "damaged"
    remarks: tuple[str, ...] = ()
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    validation: float | None = None
    report: tuple[str, float] | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    hours: float | None = None
    processes: int | None = None
    attempts: int | None = None
    last_line: float = 0.0
    config: Mapping[str, Any] | None = None
    lines: tuple[Mapping[str, Any], ...] = ()

    @property
    def terms(self) -> frozenset[str]:
        """Names of the terms of the loss, of a run that was validated."""
        names = {name for line in self.lines for name in line if name.startswith("validation_")}
        return frozenset(name.removeprefix("validation_") for name in names) - {"loss"}


def read_runs(folders: Iterable[Path], *, order: Order = "latest", now: float | None = None) -> list[Run]:
    """Return the training runs in and below ``folders``.

    Folders that hold a run that cannot be read are returned too, as 'damaged' and with the reason.

    Raises
    ------
    InputError
        A folder does not exist, or holds no run.
    """
    paths = list(dict.fromkeys(path for folder in folders for path in find_runs(folder)))
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    now = time.time() if now is None else now
    runs = [read_run(path, str(path.resolve().relative_to(common)), now) for path in paths]
    keys: dict[Order, Any] = {
        "latest": lambda run: (-run.last_line, run.name),
        "name": lambda run: run.name,
        "loss": lambda run: (run.loss is None, run.loss, run.name),
        "validation": lambda run: (run.validation is None, run.validation, run.name),
    }
    return sorted(runs, key=keys[order])


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of runs in and below ``folder``, by name; see `read_runs`."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds runs of 'ionbed pretrain' or 'finetune'")
    found = []
    for path, folders, files in os.walk(folder):
        if LOG in files or RECORD in files or (MANIFEST in files and _is_of_a_fit(_manifest(Path(path)))):
            found.append(Path(path))
            folders.clear()  # what a run writes is no other run
        folders.sort()
    if not found:
        raise InputError(f"{folder}: holds no run; there is no {LOG} in it or below it")
    return found


def read_run(path: Path, name: str, now: float) -> Run:
    """Return the run in a folder; ``now`` in Unix seconds decides whether it is silent."""
    remarks: list[str] = []
    manifest = _manifest(path)
    if is_fit := _is_of_a_fit(manifest) and not (path / LOG).exists():
        lines, last_line = _numbered([_validated(manifest)], MANIFEST, remarks), (path / MANIFEST).stat().st_mtime
    else:
        lines, last_line, remark = _read_log(path / LOG)
        if remark:
            remarks.append(remark)
        lines = _numbered(lines, LOG, remarks)
    try:
        record = read_record(path)
    except InputError as error:
        record = None
        remarks.append(str(error))
    state = _latest_state(path)
    config = (record or {}).get("config") or manifest.get("config") or state.get("identity") or {}
    config = dotted(config) if isinstance(config, Mapping) else {}
    attempts = [attempt for attempt in (record or {}).get("attempts", []) if isinstance(attempt, dict)] or [{}]
    tell = {RECORD: (record or {}) | {"processes": attempts[-1].get("processes")}, MANIFEST: manifest}
    training = [line for line in lines if line.get("loss") is not None]
    validated = [line for line in lines if line.get("validation_loss") is not None]
    steps = 0 if is_fit else config.get("training.steps")
    run = Run(
        path=path,
        name=name,
        stage=_told("command", str, tell, remarks) or _stage(config),
        parameters=_told("parameters", int, {RECORD: tell[RECORD]}, remarks)
        or _num_parameters(path / "model" / "model.safetensors"),
        step=_step(lines, path),
        steps=steps if isinstance(steps, int) else None,
        loss=training[-1]["loss"] if training else None,
        validation=validated[-1]["validation_loss"] if validated else None,
        report=_main_figure(path / REPORT),
        tokens_per_second=_middle(training, "tokens_per_second"),
        mfu=_middle(training, "mfu"),
        hours=_hours(training, manifest, state),
        processes=_told("processes", int, tell, remarks),
        attempts=len(attempts) if record else None,
        last_line=last_line,
        config=config,
        lines=tuple(lines),
    )
    run = replace(run, remarks=tuple(remarks))
    return _with_state(run, attempts[-1], has_manifest=bool(manifest), now=now)


def differences(runs: Sequence[Run]) -> dict[Path, dict[str, Any]]:
    """Return in which options each run differs from others of its stage, by the shortest key that is clear.

    Where a run is written and shown is no difference, nor is an option that a run of an older version did not have yet.
    """
    different: dict[Path, dict[str, Any]] = {run.path: {} for run in runs}
    for stage in {run.stage for run in runs}:
        compared = [run for run in runs if run.stage == stage]
        values: dict[str, set[str]] = {}
        for run in compared:
            for key, value in (run.config or {}).items():
                values.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
        keys = [key for key, found in values.items() if len(found) > 1 and key not in NO_DIFFERENCE]
        for key in keys:
            last = key.rsplit(".", 1)[-1]
            short = last if sum(other.rsplit(".", 1)[-1] == last for other in keys) == 1 else key
            for run in compared:
                if run.config and key in run.config:
                    different[run.path][short] = run.config[key]
    return different


def unlike_terms(runs: Sequence[Run]) -> list[str]:
    """Return a line for each stage whose runs sum different terms into their loss: those losses do not compare."""
    lines = []
    for stage in sorted({run.stage or "" for run in runs}):
        terms = {run.terms for run in runs if (run.stage or "") == stage and run.terms}
        if len(terms) > 1:
            apart = sorted(frozenset.union(*terms) - frozenset.intersection(*terms))
            lines.append(f"{stage}: the loss has other terms in some runs ({', '.join(apart)}); it does not compare")
    return lines


def _with_state(run: Run, attempt: Mapping[str, Any], *, has_manifest: bool, now: float) -> Run:
    """Return the run with its state: as it says itself, or else by the age of its last line."""
    outcome = attempt.get("outcome")
    if not run.lines and run.remarks:
        return replace(run, state="damaged")
    if outcome == "finished" and not has_manifest and (run.path / "checkpoints").is_dir():
        run = replace(
            run, remarks=(*run.remarks, "its model is not written yet; if no process does, --resume auto will")
        )
    if outcome == "finished" or (outcome is None and "began" not in attempt and has_manifest):
        return replace(run, state="finished")
    if outcome == "stopped" or (outcome is None and (run.path / STOPPED).exists()):
        return replace(run, state="stopped")
    if outcome is not None:
        return replace(run, state="failed", remarks=(*run.remarks, f"step {run.step}: {outcome}"))
    times = [line["time"] for line in run.lines if isinstance(line.get("time"), (int, float))]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    limit = max(SILENT_SECONDS, SILENT_LINES * statistics.median(gaps) if gaps else 0.0)
    return replace(run, state="silent" if now - run.last_line > limit else "running")


def _read_log(path: Path) -> tuple[list[dict[str, Any]], float, str]:
    """Return the lines that can be read, when the file was written last, and a remark on lines that cannot."""
    try:
        (lines, unreadable), written = read_log(path), path.stat().st_mtime
    except OSError as error:
        return [], 0.0, f"{LOG}: {error.strerror}"
    return lines, written, f"{LOG}: {unreadable} of its lines cannot be read" if unreadable else ""


def _numbered(lines: Iterable[Mapping[str, Any]], file: str, remarks: list[str]) -> list[dict[str, Any]]:
    """Return lines of a log without the figures that are no numbers, of which the first is told."""
    kept, wrong = [], []
    for line in lines:
        figures = {name for name in line if name in FIGURES or name.startswith("validation_")}
        bad = {name for name in figures if line[name] is not None and not _is_number(line[name])}
        wrong += [f"{name} is {json.dumps(line[name])[:40]}" for name in sorted(bad)]
        kept.append({name: value for name, value in line.items() if name not in bad})
    if wrong:
        remarks.append(f"{file}: {wrong[0]}, which is no number" + (f", and {len(wrong) - 1} more" * (len(wrong) > 1)))
    return kept


def _told(name: str, kind: type[T], files: Mapping[str, Mapping[str, Any]], remarks: list[str]) -> T | None:
    """Return what the first of some files says under ``name``; one that says it as something else is told."""
    for file, content in files.items():
        value = content.get(name)
        if isinstance(value, kind) and not isinstance(value, bool):
            if value:
                return value
        elif value is not None:
            what = "number" if kind is int else "text"
            remarks.append(f"{file}: {name} is {json.dumps(value)[:40]}, which is no {what}")
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _step(lines: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Return the last step: of the log, or where the run was stopped between two lines of it."""
    stopped = read_object_or_empty(path / STOPPED).get("step")
    return max(lines[-1]["step"] if lines else 0, stopped if isinstance(stopped, int) else 0)


def _manifest(path: Path) -> dict[str, Any]:
    return read_object_or_empty(path / MANIFEST)


def _is_of_a_fit(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run fitted a head on a frozen encoder: it has no steps, no log and no record, but a manifest."""
    return manifest.get("command") == "finetune" and manifest.get("steps") == 0 and "model_hash" in manifest


def _validated(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses of a manifest as a line of a log."""
    losses = manifest.get("validation")
    known = losses.items() if isinstance(losses, Mapping) else ()
    return {"step": 0, **{f"validation_{name}": value for name, value in known}}


def _main_figure(path: Path) -> tuple[str, float] | None:
    """Return name and value of the main figure of the report of a model of labels, None where there is none."""
    results = read_object_or_empty(path)
    try:
        name = results["main"]
        (own,) = (row["metrics"][name]["value"] for row in results["rows"] if row["label"] == "model")
    except (KeyError, TypeError, ValueError):
        return None
    return (name, own) if isinstance(own, (int, float)) else None


def _latest_state(path: Path) -> dict[str, Any]:
    latest = max((path / "checkpoints").glob("step-*/state.json"), default=None)
    return read_object_or_empty(latest) if latest is not None else {}


def _stage(config: Mapping[str, Any]) -> str | None:
    """Return the stage that has such options, for runs that do not say."""
    for stage, section in (("pretrain", "masking."), ("finetune", "sampling.")):
        if any(key.startswith(section) for key in config):
            return stage
    return None


def _num_parameters(path: Path) -> int | None:
    """Return how many numbers a safetensors file holds, by its header; None where there is none."""
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, 100_000_000)))
        return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, struct.error, TypeError, KeyError, AttributeError):
        return None


def _middle(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if isinstance(line.get(name), (int, float))][-LATEST_LINES:]
    return statistics.median(values) if values else None


def _hours(
    training: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any], state: Mapping[str, Any]
) -> float | None:
    totals = state.get("totals")
    candidates = (
        training[-1].get("seconds") if training else None,
        manifest.get("seconds"),
        totals.get("seconds") if isinstance(totals, Mapping) else None,
    )
    return next((value / 3600 for value in candidates if isinstance(value, (int, float))), None)
