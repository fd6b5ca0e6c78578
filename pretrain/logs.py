"""What a training run writes down as it goes: a JSON object per logged step, and TensorBoard where asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts import atomic_file
from ..errors import InputError
from .config import LoopConfig

LOG = "log.jsonl"


class Logs:
    """``log.jsonl``, always, and TensorBoard where asked for. Lines past a resumed step are dropped."""

    def __init__(self, output: Path, config: LoopConfig, step: int, *, enabled: bool) -> None:
        self.enabled = enabled
        self.path = output / LOG
        self.tensorboard: Any = None
        if not enabled:
            return
        writer = _tensorboard_writer() if config.tensorboard else None
        output.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(self.path) if json.loads(line)["step"] <= step] if step else []
        with atomic_file(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        if writer:
            self.tensorboard = writer(str(output / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Logs:
        self.handle = (
            open(self.path, "a", encoding="utf-8") if self.enabled else open(os.devnull, "w", encoding="utf-8")
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()
        if self.tensorboard:
            self.tensorboard.close()

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line."""
        if not self.enabled:
            return
        self.handle.write(json.dumps(entry) + "\n")
        self.handle.flush()
        if self.tensorboard:
            for name, value in entry.items():
                if name != "step":
                    self.tensorboard.add_scalar(name, value, entry["step"])


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("training.tensorboard: the package tensorboard is missing; pip install tensorboard") from None
    return SummaryWriter


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
