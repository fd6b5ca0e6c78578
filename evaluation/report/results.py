"""Reading the report folder of an evaluation back: ``results.json``, and the outcome of every query as Parquet."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import InputError

RESULTS = "results.json"
FORMAT = 2
"""Of ``results.json``; a reader refuses any other."""

SCORE_PREFIX = "score: "
"""Before the label of a row in the columns of a Parquet file of pairs."""


def load_results(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of ``results.json`` in a report folder.

    Raises
    ------
    InputError
        It is missing or damaged, is of another kind, or was written in another format.
    """
    path = Path(folder) / RESULTS
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: is no report (it has no {RESULTS}); 'ionbed evaluate' writes one") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:100]}); run the evaluation again"
        ) from None
    if not isinstance(tree, dict) or "tasks" not in tree:
        raise InputError(f"{path}: holds no evaluation; name a folder written by 'ionbed evaluate'")
    if (found := tree.get("format", 1)) != FORMAT:
        mend = "update ionbed" if isinstance(found, int) and found > FORMAT else "run the evaluation again"
        raise InputError(f"{path}: is of format {found}, this version reads {FORMAT}; {mend}")
    return tree


def file_name(question: str) -> str:
    """Return the name of a question as it can stand in an address and before the ending of a file."""
    return re.sub(r"[^a-z0-9]+", "-", question.lower()).strip("-")


def read_outcomes(folder: str | os.PathLike[str], question: str) -> pa.Table:
    """Return the outcome of every query of a question, as `ionbed.evaluation.report.write.write_outcomes` wrote it.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    path = Path(folder) / f"{file_name(question)}.parquet"
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; run the evaluation again") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[0][:100]}); run the evaluation again"
        ) from None
