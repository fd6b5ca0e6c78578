"""A saved split: which fold each molecule or spectrum belongs to. `ionbed.finetune.splits` makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_file, sha256_of_json
from ..errors import InputError

FOLDS = ("train", "validation", "test")

EXCLUDED = "excluded"
"""What would leak either way: neither trained on nor asked about; a library that is searched may hold it."""

MOLECULES = "molecules"
"""Written in `Split.shares` where a molecule may have spectra in several folds."""

VERSION = 2
"""Of the file; version 1 knew molecules only and had neither ``unit``, ``shares`` nor ``options``."""

Unit = Literal["molecule", "spectrum"]


@dataclass(frozen=True)
class Split:
    """Molecules (first InChIKey blocks) or spectra, and their fold.

    Attributes
    ----------
    kind : str
        How it was made, for example ``inchikey-block``.
    seed : int
    folds : mapping of str to str
        Fold ('train', 'validation', 'test' or 'excluded') of each first InChIKey block, or of each ``spectrum_id``.
    unit : 'molecule' or 'spectrum'
        What ``folds`` lists. Where it lists molecules, a spectrum without a structure belongs to 'train'.
    shares : tuple of str
        What the folds have in common by construction; ``molecules``, or nothing.
    options : mapping
        What it was made with, besides the seed: for example which laboratories were held out.
    """

    kind: str
    seed: int
    folds: Mapping[str, str] = field(repr=False)
    unit: Unit = "molecule"
    shares: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    TABLE_COLUMNS = ("spectrum_id", "inchikey")

    @property
    def hash(self) -> str:
        """SHA-256 over the kind, the seed, every fold, and what version 1 did not have wherever it is in use."""
        content: dict[str, Any] = {"kind": self.kind, "seed": self.seed, "folds": dict(self.folds)}
        if self.unit != "molecule":
            content["unit"] = self.unit
        if self.shares:
            content["shares"] = list(self.shares)
        if self.options:
            content["options"] = dict(self.options)
        return sha256_of_json(content)

    def fold_of_rows(self, table: pa.Table) -> np.ndarray:
        """Return the fold of each row of a table of the store, a str array of shape (n,).

        Parameters
        ----------
        table : pyarrow.Table
            With the columns ``spectrum_id`` and ``inchikey``.

        Raises
        ------
        InputError
            A spectrum or its molecule is not in the split.
        """
        if self.unit == "molecule":
            return self.fold_of(table["inchikey"].to_pylist())
        result = [self.folds.get(spectrum_id) for spectrum_id in table["spectrum_id"].to_pylist()]
        if None in result:
            missing = table["spectrum_id"][result.index(None)].as_py()
            raise InputError(f"spectrum {missing} is not in the split; make the split anew from this data set")
        return np.array(result, dtype="U10")

    def rows_in(self, table: pa.Table, folds: Sequence[str]) -> np.ndarray:
        """Return the row numbers (int64) of a table of the store whose fold is one of ``folds``; see `fold_of_rows`."""
        return np.flatnonzero(np.isin(self.fold_of_rows(table), list(folds)))

    def fold_of(self, inchikeys: Iterable[str | None]) -> np.ndarray:
        """Return the fold of each molecule by its InChIKey (whole or first block), a str array of shape (n,).

        Raises
        ------
        InputError
            An InChIKey is not in the split, or the split is one of spectra.
        """
        if self.unit != "molecule":
            raise InputError(f"a split of kind '{self.kind}' divides spectra; a molecule has no fold in it")
        result = []
        for key in inchikeys:
            fold = self.folds.get(key[:14]) if key else "train"
            if fold is None:
                raise InputError(f"molecule {key} is not in the split; make the split anew from this data set")
            result.append(fold)
        return np.array(result, dtype="U10")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the split as JSON, with its hash."""
        content = {
            "version": VERSION, "kind": self.kind, "seed": self.seed, "hash": self.hash, "unit": self.unit,
            "shares": list(self.shares), "options": dict(self.options), "folds": dict(self.folds),
        }  # fmt: skip
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Read a split and check its hash.

        Raises
        ------
        InputError
            The file is missing, is not a split, is of a later version, or does not match its hash.
        """
        path = Path(path)
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            split, stated = _parse(content), content["hash"]
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


def _parse(content: Mapping[str, Any]) -> Split:
    """Return the split of a file's content, of any version."""
    kind, seed, folds = (content[key] for key in ("kind", "seed", "folds"))
    version, unit = content.get("version", 1), content.get("unit", "molecule")
    shares, options = content.get("shares", []), content.get("options", {})
    if type(version) is not int or version > VERSION:
        raise ValueError(f"version {version} is unknown; this ionbed reads up to {VERSION}")
    if not (isinstance(kind, str) and type(seed) is int and isinstance(folds, dict) and isinstance(options, dict)):
        raise TypeError("kind, seed, folds or options is of the wrong type")
    if unit not in ("molecule", "spectrum"):
        raise ValueError(f"unknown unit {unit!r}")
    if not (isinstance(shares, list) and all(share == MOLECULES for share in shares)):
        raise ValueError(f"shares must be [{MOLECULES}] or empty")
    if unknown := sorted({str(fold) for fold in folds.values()} - {*FOLDS, EXCLUDED}):
        raise ValueError(f"unknown fold {unknown[0]!r}")
    return Split(kind, seed, folds, unit, tuple(shares), options)
