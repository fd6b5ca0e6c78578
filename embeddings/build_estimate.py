"""What building an index of spectra takes of disk and memory, said before it begins; what would not fit is refused."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import InputError
from ..progress import counted
from .approximate import AnnKind, memory_needed
from .embedded_before import EmbeddedBefore
from .index_folder import Embedder
from .segments.runs import BYTES_PER_RUN, ROWS_PER_RUN

BYTES_PER_ROW = 9
"""Precursor m/z and polarity, which lie beside the table as well."""

SORTING_BYTES_PER_SPECTRUM = 150
"""Ids (some 40 bytes, twice), precursors, their order and that of the ids' checksums, all at once."""

MODEL_BYTES = 1_500_000_000
"""Python, the encoder and what it needs for a batch."""

ROOM = 1.05
"""So much more than estimated has to be there."""


@dataclass(frozen=True)
class BuildEstimate:
    """What an index of so many spectra takes.

    Attributes
    ----------
    num_spectra : int
    dim : int
        Of the embeddings.
    table_bytes : int
        Of the spectra and their metadata, as the index keeps them.
    kind : AnnKind
        How it will be searched openly.
    model_bytes : int
        Of the weights of the model, which the index has a copy of; see `weights_bytes`.
    """

    num_spectra: int
    dim: int
    table_bytes: int
    kind: AnnKind
    model_bytes: int = 0

    @property
    def disk(self) -> int:
        """Bytes of the index, with the copy of the model."""
        approximate = memory_needed(self.kind, self.num_spectra, self.dim).disk
        rows = self.num_spectra * (4 * self.dim + BYTES_PER_ROW)
        return self.table_bytes + rows + approximate + self.model_bytes

    @property
    def disk_while_built(self) -> int:
        """Bytes at the most while it is built: the sorted spectra lie beside the index until it is done."""
        return self.disk + self.table_bytes

    @property
    def memory(self) -> int:
        """Bytes of memory at the most while it is built, without what is mapped from files and can be dropped."""
        sorting = self.num_spectra * SORTING_BYTES_PER_SPECTRUM
        if self.num_spectra:
            run = min(ROWS_PER_RUN, self.num_spectra) * self.table_bytes // self.num_spectra
            sorting += 3 * min(run, BYTES_PER_RUN)
        return MODEL_BYTES + max(sorting, memory_needed(self.kind, self.num_spectra, self.dim).build)

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{counted(self.num_spectra, 'spectra')}, searched as {self.kind}: {_size(self.disk)} on disk "
            f"({_size(self.disk_while_built)} while it is built), {_size(self.memory)} of memory while it is built"
        )

    def refuse_too_large(self, folder: Path) -> None:
        """Raise `InputError` if the disk of ``folder``, which is there, or the memory has no room for the build."""
        free = shutil.disk_usage(folder).free
        if ROOM * self.disk_while_built > free:
            raise InputError(
                f"{folder}: has {_size(free)} free, and the index needs {_size(self.disk_while_built)} while it is "
                f"built ({counted(self.num_spectra, 'spectra')}); make room, or choose another disk"
            )
        available = psutil.virtual_memory().available
        if ROOM * self.memory > available:
            raise InputError(
                f"{_size(available)} of memory are free, and the build needs {_size(self.memory)} "
                f"({counted(self.num_spectra, 'spectra')}, searched as {self.kind}); build on a larger machine, build "
                "an index of each part, or take another --kind"
            )


def weights_bytes(model: Embedder) -> int:
    """Return the bytes of a model's tensors, those that share memory once; 0 where it has none."""
    if isinstance(model, EmbeddedBefore):
        model = model.model
    tensors = model.state_dict().values() if hasattr(model, "state_dict") else ()
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"
