"""The columns of a store as flat files that are mapped into memory: made once, shared by all processes of a run.

Parquet is for keeping: to read one row, a whole row group is decompressed. Here each column of Arrow buffers lies
uncompressed in one file, so that any rows are gathered by a few NumPy operations, whatever their number, and the
operating system keeps one copy of the pages for all processes of a node.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..artifacts import atomic_file, atomic_folder, sha256_of_json
from ..errors import InputError
from ..progress import progress
from ..spectra.columns import SpectrumColumns, text_codes
from ..spectra.store import Store

VERSION = 1
"""Of the files; another version is another folder."""

INDEX = "index.json"
"""Written last, in a folder that is moved into place afterwards: the length of every file."""

NUMBERS = {
    "first_peak": "<i8", "num_peaks": "<i4", "mz": "<f4", "intensity": "<f4", "precursor_mz": "<f8", "polarity": "<i1",
    "charge": "<i1", "collision_energy": "<f4",
}  # fmt: skip
"""Type of each file of numbers; ``first_peak`` is where the peaks of a spectrum begin in ``mz`` and ``intensity``."""

TEXTS = ("adduct", "instrument_type", "inchikey", "smiles")
"""Columns of text: a file of numbers (-1 where there is none) into a file of the different texts, one per line."""

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Texts:
    """A column of text: the number of each row's text (int32, -1 where there is none), and the texts with None last."""

    codes: np.ndarray
    vocabulary: np.ndarray

    def of(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the texts of ``rows``, an object array of str or None."""
        found: np.ndarray = self.vocabulary[self.codes[rows]]
        return found


class MappedStore:
    """The mapped columns of a store.

    Parameters
    ----------
    store : Store
    cache : Path
        Folder for the files, in one folder for each content of a store. They are made if they are not there; a process
        that is killed meanwhile leaves what the next goes on from.

    Raises
    ------
    InputError
        A shard is damaged, or the files cannot be written or read.
    """

    def __init__(self, store: Store, cache: Path) -> None:
        folder = cache / content_key(store)
        try:
            if not (folder / INDEX).is_file():  # what was converted once is not read from the shards again
                store.verify()
                _convert(store, folder)
            lengths = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self._numbers = {name: _mapped(folder / name, dtype, lengths[name]) for name, dtype in NUMBERS.items()}
            self._texts = {name: _texts(folder, name, lengths[name]) for name in TEXTS}
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be written or read ({error.strerror or error}); "
                "see to its permissions and the room on its disk"
            ) from None
        except (ValueError, KeyError) as error:
            raise InputError(f"{folder}: is damaged ({error}); remove it, it is made again") from None

    def __len__(self) -> int:
        """Return the number of spectra."""
        return len(self._numbers["num_peaks"])

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of one number per spectrum, mapped: it takes no memory of this process's own."""
        return self._numbers[name]

    def texts(self, name: str) -> Texts:
        """Return one of the columns `TEXTS`."""
        return self._texts[name]

    def columns(self, rows: np.ndarray) -> SpectrumColumns:
        """Read the spectra at ``rows``, in that order."""
        numbers, texts = self._numbers, self._texts
        counts = numbers["num_peaks"][rows].astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        peaks = np.arange(offsets[-1]) + np.repeat(numbers["first_peak"][rows] - offsets[:-1], counts)
        return SpectrumColumns(
            offsets=offsets,
            mz=numbers["mz"][peaks],
            intensity=numbers["intensity"][peaks],
            precursor_mz=numbers["precursor_mz"][rows],
            polarity=numbers["polarity"][rows],
            charge=numbers["charge"][rows],
            collision_energy=numbers["collision_energy"][rows],
            adduct=texts["adduct"].of(rows),
            instrument_type=texts["instrument_type"].of(rows),
        )


def content_key(store: Store) -> str:
    """Return the name of the folder for a store of this content: the same for every copy of it."""
    shards = [(shard.get("sha256"), shard["spectra"]) for shard in store.manifest["shards"]]
    return sha256_of_json({"version": VERSION, "shards": shards})[:16]


def _mapped(path: Path, dtype: str, length: int) -> np.ndarray:
    """Return a file's numbers, mapped; a file of another size is damaged."""
    if (size := path.stat().st_size) != length * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} has {size:,} bytes for {length:,} values")
    return np.asarray(np.memmap(path, dtype, "r")) if length else np.empty(0, dtype)


def _texts(folder: Path, name: str, length: int) -> Texts:
    lines = (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    codes = _mapped(folder / name, "<i4", length)
    return Texts(codes, np.array([*map(json.loads, lines), None], object))


@dataclass
class _Conversion:
    """How far a conversion is; kept in a file beside those it writes, so that a killed one is gone on from."""

    rows: int
    sizes: dict[str, int]

    FILE = "conversion.json"

    @classmethod
    def found(cls, folder: Path) -> _Conversion:
        """Return what a killed conversion had written whole."""
        try:
            state = json.loads((folder / cls.FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(0, {})
        whole = all((folder / name).stat().st_size >= size for name, size in state["sizes"].items())
        return cls(**state) if whole else cls(0, {})  # shorter after a crash of the machine

    def save(self, folder: Path) -> None:
        with atomic_file(folder / self.FILE) as partial:
            partial.write_text(json.dumps(vars(self)), encoding="utf-8")


def _convert(store: Store, folder: Path) -> None:
    """Write the mapped files of a store."""
    names = [*NUMBERS, *TEXTS, *(f"{name}.txt" for name in TEXTS)]
    with atomic_folder(folder, overwrite=True, resume_key=folder.name) as partial, ExitStack() as stack:
        state = _Conversion.found(partial)
        files: dict[str, BinaryIO] = {}
        for name in names:
            files[name] = stack.enter_context(open(partial / name, "ab"))
            files[name].truncate(state.sizes.get(name, 0))
            files[name].seek(0, os.SEEK_END)
        vocabularies = {name: _vocabulary(partial / f"{name}.txt") for name in TEXTS}
        rows = range(state.rows, len(store))
        wanted = (*SpectrumColumns.TABLE_COLUMNS, "inchikey", "smiles")
        with progress("read the store", len(store), done=state.rows) as advance:
            for table in store.blocks(wanted, rows, ROWS_AT_ONCE):
                columns = SpectrumColumns.from_table(table)
                first = columns.offsets[:-1] + files["mz"].tell() // 4
                values = {name: getattr(columns, name) for name in NUMBERS if hasattr(columns, name)}
                for name, array in {**values, "first_peak": first}.items():
                    files[name].write(np.ascontiguousarray(array, NUMBERS[name]).data)
                for name in TEXTS:
                    codes, new = _coded(table[name], vocabularies[name])
                    files[name].write(codes.data)
                    files[f"{name}.txt"].write("".join(json.dumps(text) + "\n" for text in new).encode())
                for file in files.values():
                    file.flush()
                state = _Conversion(state.rows + len(table), {name: file.tell() for name, file in files.items()})
                state.save(partial)
                advance(len(table))
        types = {**NUMBERS, **dict.fromkeys(TEXTS, "<i4")}
        lengths = {name: files[name].tell() // np.dtype(dtype).itemsize for name, dtype in types.items()}
        (partial / _Conversion.FILE).unlink(missing_ok=True)
        (partial / INDEX).write_text(json.dumps(lengths), encoding="utf-8")


def _vocabulary(path: Path) -> dict[str, int]:
    return {json.loads(line): number for number, line in enumerate(path.read_text(encoding="utf-8").splitlines())}


def _coded(column: Any, vocabulary: dict[str, int]) -> tuple[np.ndarray, list[str]]:
    """Return the number of each row's text, and the texts that are new; these are added to ``vocabulary``."""
    codes, texts = text_codes(column)
    new = [text for text in texts[:-1].tolist() if text not in vocabulary]
    for text in new:
        vocabulary[text] = len(vocabulary)
    return np.array([*map(vocabulary.__getitem__, texts[:-1].tolist()), -1], "<i4")[codes], new
