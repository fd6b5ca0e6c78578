"""A saved split: which fold each molecule belongs to. `ionbed.finetune.splits` makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import atomic_file, sha256_of_json
from ..errors import InputError

FOLDS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Molecules (first InChIKey blocks) and their fold; a spectrum without a label belongs to 'train'.

    Attributes
    ----------
    kind : str
        How it was made, for example ``inchikey-block``.
    seed : int
    folds : mapping of str to str
        Fold ('train', 'validation' or 'test') of each first InChIKey block.
    """

    kind: str
    seed: int
    folds: Mapping[str, str] = field(repr=False)

    @property
    def hash(self) -> str:
        """SHA-256 over the kind, the seed and every molecule's fold."""
        return sha256_of_json({"kind": self.kind, "seed": self.seed, "folds": dict(self.folds)})

    def fold_of(self, inchikeys: Iterable[str | None]) -> np.ndarray:
        """Return the fold of each InChIKey (whole or first block), a str array of shape (n,).

        Raises
        ------
        InputError
            An InChIKey is not in the split.
        """
        result = []
        for key in inchikeys:
            fold = self.folds.get(key[:14]) if key else "train"
            if fold is None:
                raise InputError(f"molecule {key} is not in the split; make the split anew from this data set")
            result.append(fold)
        return np.array(result, dtype="U10")

    def rows_in(self, inchikeys: Iterable[str | None], folds: Sequence[str]) -> np.ndarray:
        """Return the row numbers (int64) of the InChIKeys whose fold is one of ``folds``."""
        return np.flatnonzero(np.isin(self.fold_of(inchikeys), list(folds)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the split as JSON, with its hash."""
        content = {"kind": self.kind, "seed": self.seed, "hash": self.hash, "folds": dict(self.folds)}
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Read a split and check its hash.

        Raises
        ------
        InputError
            The file is missing, is not a split, or does not match its hash.
        """
        path = Path(path)
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kind, seed, folds, stated = (content[key] for key in ("kind", "seed", "folds", "hash"))
            if not (isinstance(kind, str) and type(seed) is int and isinstance(folds, dict)):
                raise TypeError("kind, seed or folds is of the wrong type")
            if unknown := sorted({str(fold) for fold in folds.values()} - set(FOLDS)):
                raise ValueError(f"unknown fold {unknown[0]!r}")
            split = cls(kind, seed, folds)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; 'ionbed split STORE --out {path}' makes one") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); name the file of a split") from None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is not a split file ({reason}); make it with 'ionbed split'") from None
        if stated != split.hash:
            raise InputError(f"{path}: was changed after it was made (its hash does not match); make it anew")
        return split
