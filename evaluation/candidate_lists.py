"""Candidates by query, as the benchmark MassSpecGym publishes them: JSON from a SMILES to a list of SMILES."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from pathlib import Path

from ..errors import InputError


def read_candidate_lists(path: Path) -> dict[str, list[str]]:
    """Return the candidates of each query from a JSON file ``{query SMILES: [candidate SMILES, ...]}``, gzipped or not.

    This is the form of ``MassSpecGym_retrieval_candidates_mass.json`` (Bushuiev et al. 2024, arXiv:2410.23326), which
    lists up to 256 molecules for each query, the true one among them.

    Raises
    ------
    InputError
        The file is missing or damaged, or holds something else.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode("utf-8-sig")
        lists = json.loads(text, object_pairs_hook=_refuse_repeats)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file; name a JSON file of candidates by query") from None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: cannot be read as lists of candidates ({reason}); get the file anew") from None
    if not isinstance(lists, dict) or not lists:
        raise InputError(f"{path}: holds no lists; it must be a JSON object {{query SMILES: [candidate SMILES, ...]}}")
    for query, candidates in lists.items():
        if not isinstance(candidates, list) or not all(isinstance(text, str) for text in candidates):
            raise InputError(f"{path}: the candidates of '{query}' are no list of SMILES; mend or remove them")
        if not candidates:
            raise InputError(f"{path}: the list of '{query}' is empty; give it candidates or remove it")
    return lists


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"'{twice}' is there twice")
    return found
