"""The folder of an index, of whichever kind: written whole or not at all, opened only whole and with its own model."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import MANIFEST, atomic_folder, exclusive, read_manifest, sha256_of_file, write_manifest
from ..errors import InputError
from ..spectra.columns import SpectrumColumns
from ..spectra.spectrum import Spectrum
from .segments.damage import DamagedError
from .segments.numbers import VectorRows

if TYPE_CHECKING:
    import faiss

COMMAND = "index build"
VECTORS = "vectors.faiss"
METADATA = "metadata.parquet"
MODEL = "model"

Kind = Literal["spectra", "structures"]
"""What the rows of an index are."""

SMALL_FILE = 1 << 20
"""Bytes up to which a file's checksum is compared whenever an index is opened; `verify` compares all."""

UNIT_TOLERANCE = 1e-3

_OWN_ENTRIES = frozenset(
    {"command", "format", "kind", "model_hash", "embedding_dim", "counts", "segments", "deleted", "files", "checksum"}
)


class Embedder(Protocol):
    """What an index asks of a model; `ionbed.load_model` gives one."""

    def embed(self, spectra: Iterable[Spectrum] | SpectrumColumns, *, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_spectra, dim)."""

    def model_hash(self) -> str:
        """Return a hash over weights and configuration."""

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Write the model as a folder."""


class MoleculeEmbedder(Embedder, Protocol):
    """What an index of structures asks of a model; one that was fine-tuned with structures gives it."""

    def embed_molecules(self, smiles: Sequence[str], *, workers: int | None = 1, progress: bool = False) -> np.ndarray:
        """Return unit vectors, float32 of shape (n_molecules, dim), comparable with `embed` by inner product."""


class SavedIndex(ABC):
    """What an index of either kind has: vectors, the model that they are of, a manifest, and perhaps a folder.

    Attributes
    ----------
    vectors : VectorRows of shape (n_rows, dim)
        Rows of unit length, float32, read-only.
    manifest : dict
        What made the index, from what, with which counts.
    folder : Path or None
        Where it is saved.
    """

    vectors: VectorRows

    def __init__(self, manifest: Mapping[str, Any], model: Embedder | None, folder: Path | None) -> None:
        self._model = model
        self.folder = folder
        self.manifest = dict(manifest)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows that can be hits."""

    @property
    def model(self) -> Embedder:
        """The model that the index was built with; loaded from its folder when first asked for."""
        if self._model is None:
            assert self.folder is not None, "an index that was not opened from a folder has its model"
            self._model = model_in(self.folder, self.manifest)
        return self._model

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index and a copy of its model as a folder, whole or not at all.

        Raises
        ------
        InputError
            The folder exists and is not empty (unless ``overwrite``).
        """
        with atomic_folder(folder, overwrite=overwrite) as partial:
            entries = self._write_rows(partial)
            self.model.save_pretrained(partial / MODEL)
            self._write_manifest(partial, {**entries, "files": described(partial, files_in(partial))})

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises
        ------
        InputError
            A file was changed after the index was built, or the index is not saved.
        """
        if self.folder is None:
            raise InputError("this index is not saved; there are no files to verify")
        compare_files(self.folder, self.manifest, largest=None)

    def write_entry(self, name: str, value: Any) -> None:
        """Keep a further entry in the manifest of a saved index, in place of one of the same name: one atomic commit.

        Parameters
        ----------
        name : str
            None of those that say what the index is made of.
        value : object
            As JSON has it.

        Raises
        ------
        InputError
            The index is not saved, or another process is writing it.
        """
        if name in _OWN_ENTRIES:
            raise ValueError(f"'{name}' is what an index is made of, and not written by itself")
        if self.folder is None:
            raise InputError("this index is not saved; save it first")
        self._commit_entry(self.folder, name, value)

    def _commit_entry(self, folder: Path, name: str, value: Any) -> None:
        with exclusive(folder.resolve()):
            self.manifest = {**read_index_manifest(folder), name: value}
            self._write_manifest(folder, self.manifest)

    @abstractmethod
    def _write_rows(self, folder: Path) -> dict[str, Any]:
        """Write all but the model into a folder and return the manifest, without its files."""

    def _write_manifest(self, folder: Path, entries: Mapping[str, Any]) -> None:
        write_manifest(folder, {name: value for name, value in entries.items() if name != "ionbed_version"})

    def _origin(self) -> dict[str, Any]:
        """Return what `info` tells of an index of either kind: its model, what it was made of, and its size."""
        return {
            "embedding_dim": self.vectors.shape[1],
            "model_hash": self.manifest["model_hash"],
            "counts": self.manifest["counts"],
            "inputs": self.manifest["inputs"],
            "bytes": sum(entry["bytes"] for entry in self.manifest.get("files", {}).values()),
        }


def read_index_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of an index of either kind.

    Raises
    ------
    InputError
        The folder is no index, or its manifest is damaged.
    """
    manifest = read_manifest(folder, made_by=COMMAND)
    if not _is_whole(manifest):
        raise InputError(f"{folder}: its manifest is not one of an index; build the index again")
    return manifest


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """Return of which kind the index of a manifest is; one that does not say is of spectra."""
    return "structures" if manifest.get("kind") == "structures" else "spectra"


def refuse_other_kind(folder: Path, manifest: Mapping[str, Any], kind: Kind) -> None:
    """Raise `InputError` if the index of a manifest is of the other kind."""
    if (found := kind_of(manifest)) != kind:
        needed = "ionbed.Index" if found == "spectra" else "ionbed.StructureIndex"
        raise InputError(
            f"{folder}: is an index of {found}, not of {kind}; name one of {kind}, or open it with {needed}.open"
        )


def open_flat_vectors(folder: Path) -> faiss.IndexFlatIP:
    """Return the vectors of an index of structures, which stay on disk and are mapped into memory.

    Raises
    ------
    InputError
        They are damaged.
    """
    import faiss

    try:
        # IO_FLAG_MMAP alone maps inverted lists only, a flat index it reads into memory.
        vectors = faiss.read_index(str(folder / VECTORS), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, OSError) as error:
        raise damaged(folder / VECTORS, error) from None
    if not isinstance(vectors, faiss.IndexFlatIP):
        raise InputError(f"{folder / VECTORS}: is not an index of inner products; build the index again")
    return vectors


def model_in(folder: Path, manifest: Mapping[str, Any]) -> Embedder:
    """Load the copy of the model within an index.

    Raises
    ------
    InputError
        It is damaged, or is not the model that the index was built with.
    """
    from ..encoder.loading import load_model

    model = load_model(folder / MODEL)
    refuse_other_model(folder, manifest, model)
    return model


def as_array(vectors: faiss.IndexFlatIP) -> np.ndarray:
    """Return the vectors of a flat index, float32 of shape (n, dim), read-only and without a copy."""
    import faiss

    array: np.ndarray = faiss.rev_swig_ptr(vectors.get_xb(), vectors.ntotal * vectors.d).reshape(-1, vectors.d)
    array.flags.writeable = False
    return array


def embeds_structures(model: MoleculeEmbedder, predict_spectra: bool) -> bool:
    """Return whether a model embeds structures; one that does not is refused where none of their spectra are predicted.

    One that was trained with structures and cannot embed them here (its features have changed) is always refused.
    """
    try:
        model.embed_molecules([])
    except InputError as error:
        if getattr(getattr(model, "config", None), "molecule_tower", 0):
            raise
        if not predict_spectra:
            raise InputError(f"{error}; or rank them by their predicted spectra: --predict-spectra") from None
        return False
    return True


def checked_vectors(vectors: np.ndarray, count: int, *, dim: int | None = None) -> np.ndarray:
    """Return vectors as float32 in one piece.

    Raises
    ------
    InputError
        They are not ``count`` vectors of unit length (and of ``dim`` numbers).
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != count or (dim is not None and vectors.shape[1] != dim):
        raise InputError(f"embeddings have the shape {vectors.shape}; ({count}, {dim or 'dim'}) is needed")
    lengths = np.linalg.norm(vectors, axis=1)
    if count and not np.abs(lengths - 1).max() <= UNIT_TOLERANCE:
        row = int(np.argmax(~(np.abs(lengths - 1) <= UNIT_TOLERANCE)))
        raise InputError(f"embedding {row} has the length {lengths[row]:g}; unit vectors of finite numbers are needed")
    return vectors


def check_search_options(k: int, precursor_ppm: float | None, precursor_da: float | None = None) -> None:
    """Raise `InputError` if the number of hits or the precursor window is out of range."""
    if k < 1:
        raise InputError(f"the number of hits is {k}; it must be at least 1")
    if precursor_ppm is not None and not 0 < precursor_ppm < 1e6:
        raise InputError(f"the precursor window is {precursor_ppm} ppm; it must be more than 0 and less than 1,000,000")
    if precursor_da is not None and not 0 < precursor_da < float("inf"):
        raise InputError(f"the precursor window is {precursor_da} Da; it must be more than 0")


def is_store(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a folder with a manifest, which only our own commands write."""
    return (Path(path) / MANIFEST).is_file()


def refuse_other_model(folder: Path, manifest: Mapping[str, Any], model: Embedder) -> None:
    """Raise `InputError` if ``model`` is not the one that the index was built with."""
    needed, given = manifest["model_hash"], model.model_hash()
    if needed != given:
        raise InputError(
            f"{folder}: was built with the model {needed[:12]}, not with {given[:12]}; name no model "
            f"(its own copy in {folder / MODEL} is then used), or build the index again with the other one"
        )


def files_in(folder: Path) -> list[Path]:
    """Return all files below a folder, in order."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def described(folder: Path, files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of files by their name in ``folder``, for a manifest."""
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of_file(file)}
        for file in files
    }


def compare_small_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Compare all sizes with the manifest, and the checksums of small files; see `compare_files`."""
    compare_files(folder, manifest, largest=SMALL_FILE)


def compare_files(folder: Path, manifest: Mapping[str, Any], *, largest: int | None) -> None:
    """Compare sizes with the manifest, and checksums of the files up to ``largest`` bytes (None: of all).

    Raises
    ------
    InputError
        A file is missing or was changed.
    """
    mend = "build the index again"
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing though the manifest names it; {mend}")
        if path.stat().st_size != entry["bytes"]:
            raise InputError(f"{path}: has {path.stat().st_size:,} bytes, not {entry['bytes']:,} as when built; {mend}")
        if (largest is None or entry["bytes"] <= largest) and sha256_of_file(path) != entry["sha256"]:
            raise InputError(f"{path}: was changed after the index was built (its checksum differs); {mend}")


def damaged(file: Path, error: Exception) -> DamagedError:
    """Return the error that says a file of an index is damaged, and how."""
    return DamagedError(f"{file}: is damaged ({' '.join(str(error).split())[:200]}); build the index again")


@contextmanager
def named_where_damaged(file: Path) -> Iterator[None]:
    """Say in one line that a Parquet file of an index is damaged, where reading it fails."""
    try:
        yield
    except (OSError, KeyError, pa.ArrowException) as error:
        raise damaged(file, error) from None


class MappedColumns:
    """Columns of a Parquet file of an index, open from the beginning: an index that is built in its place is another.

    Of a large file no checksum was compared at the opening; those of the pages that are read are here.

    Raises
    ------
    InputError
        It is damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with named_where_damaged(file):
            self._content = pa.memory_map(str(file)).read_buffer()

    def select(self, names: Sequence[str]) -> pa.Table:
        """Return columns."""
        with named_where_damaged(self._file):
            source = pa.BufferReader(self._content)
            return pq.read_table(source, columns=list(names), page_checksum_verification=True)


def _is_whole(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest has all that an index is opened and described with."""
    counts, files = manifest.get("counts"), manifest.get("files")
    return (
        isinstance(manifest.get("model_hash"), str)
        and isinstance(manifest.get("inputs"), list)
        and isinstance(counts, dict)
        and type(counts.get("kept")) is int
        and isinstance(files, dict)
        and (kind_of(manifest) == "spectra" or {VECTORS, METADATA} <= files.keys())
        and all(
            isinstance(entry, dict) and type(entry.get("bytes")) is int and isinstance(entry.get("sha256"), str)
            for entry in files.values()
        )
    )
