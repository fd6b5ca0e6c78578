"""Where a run is shown besides ``log.jsonl``: TensorBoard, Weights & Biases and Trackio, by name."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import InputError

logger = logging.getLogger("ionbed")

PROJECT = "ionbed"
"""Under which Weights & Biases and Trackio gather runs; WANDB_PROJECT names another."""

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""Package of each tracker."""

SECONDS_TO_REACH_WANDB = 5.0


class Tracker(Protocol):
    """Where the lines of the log are shown as well."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step."""

    def close(self, *, failed: bool) -> None:
        """Write out what is left; ``failed`` where the run ends by an error."""


def check_trackers(names: Iterable[str]) -> None:
    """Raise `InputError` if the package of a tracker is missing."""
    for name in names:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(f"training.trackers: the package {package} is missing; pip install {package}")


def open_tracker(
    name: str, output: Path, record: Mapping[str, Any], lines: list[dict[str, Any]], last_step: int
) -> Tracker:
    """Return a tracker that shows a run from its next line on.

    A run that goes on is the same run there. TensorBoard, and Trackio where it has a database on this machine, forget
    what came after the step from which it goes on, as the log does; elsewhere steps are left out that were shown before
    (a run that goes on repeats them exactly, or nearly).

    Parameters
    ----------
    record : mapping
        Of `ionbed.pretrain.run_record.begin_record`.
    lines : list of dict
        What the log holds when the run goes on; empty where it begins.
    last_step : int
        The last step that was logged before the run went on, also where the log no longer holds it; else 0.
    """
    if name == "tensorboard":
        return TensorBoard(output, record, lines)
    if name == "wandb":
        return WeightsAndBiases(output, record, last_step)
    return Trackio(record, lines, last_step)


class TensorBoard:
    """Event files in ``output/tensorboard``."""

    def __init__(self, output: Path, record: Mapping[str, Any], lines: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        resumed_at = record["attempts"][-1]["from_step"]
        self.writer = SummaryWriter(str(output / "tensorboard"), purge_step=resumed_at + 1 if lines else None)
        if not lines:
            text = json.dumps(record["config"], indent=2)
            self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))  # Markdown: code

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        """Write out what is left."""
        self.writer.close()


class WeightsAndBiases:
    """Weights & Biases: online where somebody is logged in and the server answers, else in ``output/wandb``.

    WANDB_MODE decides where it is set. Each attempt of a run writes a folder of its own under one id; ``wandb sync``
    puts them together in the order of their starts.
    """

    def __init__(self, output: Path, record: Mapping[str, Any], last_step: int) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True, save_code=False, disable_git=True)
        mode = None if os.environ.get("WANDB_MODE") else wandb_mode(settings.base_url)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), dir=str(output), id=record["id"][:16],
            name=record["name"], job_type=record["command"], config=record["config"], mode=mode,
            resume=None if mode == "offline" else "allow", settings=settings,
        )  # fmt: skip
        self.shown = max(last_step, self.run.step - 1)
        if self.run.offline:
            logger.info("wandb: offline; to upload the run: wandb sync %s/wandb/offline-run-*", output)
        elif self.run.url:
            logger.info("wandb: %s", self.run.url)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step, unless the run was shown that step before it went on."""
        if step > self.shown:
            self.run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        """Write out, or upload, what is left."""
        self.run.finish(exit_code=int(failed))


def wandb_mode(url: str) -> Literal["online", "offline"]:
    """Return 'online' where somebody is logged in to Weights & Biases and ``url`` answers, else 'offline'."""
    import requests

    keys = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if not any(os.environ.get(key) for key in keys) and requests.utils.get_netrc_auth(url) is None:
        return "offline"
    try:
        requests.head(url, timeout=SECONDS_TO_REACH_WANDB)
    except requests.RequestException:
        return "offline"
    return "online"


class Trackio:
    """Trackio, in its folder on this machine (TRACKIO_DIR), or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL point."""

    def __init__(self, record: Mapping[str, Any], lines: list[dict[str, Any]], last_step: int) -> None:
        import trackio

        name = f"{record['name']}-{record['id'][:8]}"
        with _without_words():
            forgotten = bool(lines) and self._forget(name)
            self.run = trackio.init(
                project=PROJECT, name=name, config=dict(record["config"]), resume="allow", embed=False,
                auto_log_cpu=False, auto_log_gpu=False,
            )  # fmt: skip
        self.run.id = record["id"]  # one run there too, when it goes on
        self.shown = 0 if forgotten else last_step
        for line in lines if forgotten else ():
            self.log(line["step"], numbers(line))
        logger.info("trackio: run %s; to see it: trackio show --project %s", name, PROJECT)

    @staticmethod
    def _forget(name: str) -> bool:
        """Remove what this machine's database holds of the run; return whether there was something.

        On a network drive Trackio gathers lines in files, and elsewhere it sends them away: there is nothing then.
        """
        import trackio

        try:
            runs = [run for run in trackio.Api().runs(PROJECT) if run.name == name]
        except ValueError:  # there is no such project
            return False
        deleted = [run.delete() for run in runs]
        return any(deleted)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step, unless the run was shown that step before it went on."""
        if step > self.shown:
            self.run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        """Write out what is left."""
        import trackio

        with _without_words():
            trackio.finish()


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what a tracker shows of a line of the log: its numbers, without step and time."""
    return {
        name: value
        for name, value in line.items()
        if name not in ("step", "time") and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


@contextlib.contextmanager
def _without_words() -> Iterator[None]:
    """Keep a library that prints away from standard output, which belongs to the results of a command."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
