"""Pretrain as the command does, and write down which spectra each process takes: run by torchrun in test_loop.py.

    torchrun ... watched_run.py FOLDER STEP RANK KEY=VALUE ...

FOLDER gets rank-N.jsonl, a line per step and process with its rows. After STEP steps the process RANK signals itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from ionbed.configs.loading import load_config
from ionbed.pretrain import loop, task
from ionbed.pretrain.config import PretrainConfig
from ionbed.pretrain.ending import end_process
from ionbed.pretrain.run import pretrain


def main(folder: str, stop_after: str, stopping_rank: str, *overrides: str) -> None:
    rank = int(os.environ.get("RANK", "0"))
    mask, collate, step = task.masked_batch, task.MaskedPeakTask.micro_batches, loop.Trainer._step
    masked, taken = threading.local(), {}

    def masked_batch(columns, rows, *arguments):
        masked.rows.extend(rows.tolist())
        return mask(columns, rows, *arguments)

    def micro_batches(*arguments):
        masked.rows = []
        parts = collate(*arguments)
        taken[id(parts)] = (masked.rows, parts)  # the parts too, so that no other gets their id
        return parts

    def stepped(self, micro_batches, rate, stop):
        number = self.progress.position.step + 1
        with open(Path(folder) / f"rank-{rank}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": number, "rows": taken[id(micro_batches)][0]}) + "\n")
        if number == int(stop_after) and rank == int(stopping_rank):
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, micro_batches, rate, stop)

    task.masked_batch, task.MaskedPeakTask.micro_batches, loop.Trainer._step = masked_batch, micro_batches, stepped
    pretrain(load_config(PretrainConfig, "pretrain-tiny", list(overrides)), resume="auto")


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_process()
