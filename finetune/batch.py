"""A batch of contrastive training: spectra, structures, and how they are related.

Shape suffixes: A spectra of this process, N of all processes, S structures of this process, M of all processes,
F features of a structure, K bits of a fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from ..encoder.collator import EncoderBatch


@dataclass(frozen=True, eq=False)
class StructureBatch:
    """The S structures that this process embeds, of M that the spectra of the batch are compared with.

    Attributes
    ----------
    features_SF : float32 tensor
        See `ionbed.spectra.molecule_features.molecule_features`.
    sizes : list of int
        Structures of each process.
    own_AM : bool tensor
        The structure of each of this process's spectra.
    near_AM : bool tensor
        Other structures whose mass is within the window of that one's.
    spectra_SN : bool tensor
        The spectra of each of this process's structures; none of those that are there as negatives alone.
    """

    features_SF: torch.Tensor
    sizes: list[int]
    own_AM: torch.Tensor
    near_AM: torch.Tensor
    spectra_SN: torch.Tensor

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> StructureBatch:
        """Return the batch with every tensor changed."""
        return replace(self, **_changed(self, change))


@dataclass(frozen=True, eq=False)
class ContrastiveBatch:
    """The A spectra of this process in a batch of N, in parts of about equal length, and how the batch is related.

    Attributes
    ----------
    parts : list of EncoderBatch
    sizes : list of int
        Spectra of each process.
    positive_AN, window_AN, other_AN : bool tensors
        Same molecule (not itself); another molecule within the precursor window; another molecule.
    tanimoto_AN : float32 tensor
    fingerprint_AK : bool tensor or None
        Where bits of the fingerprint are to be predicted.
    structures : StructureBatch or None
        Where spectra are compared with structures.
    """

    parts: list[EncoderBatch]
    sizes: list[int]
    positive_AN: torch.Tensor
    window_AN: torch.Tensor
    other_AN: torch.Tensor
    tanimoto_AN: torch.Tensor
    fingerprint_AK: torch.Tensor | None = None
    structures: StructureBatch | None = None

    def __len__(self) -> int:
        """Return the number of this process's spectra."""
        return len(self.positive_AN)

    @property
    def num_tokens(self) -> int:
        """Number of real tokens."""
        return sum(part.num_tokens for part in self.parts)

    def to(self, device: torch.device) -> ContrastiveBatch:
        """Return the batch on ``device``."""
        return self._mapped(lambda t: t.to(device, non_blocking=True), [part.to(device) for part in self.parts])

    def pin_memory(self) -> ContrastiveBatch:
        """Return the batch in page-locked memory."""
        return self._mapped(torch.Tensor.pin_memory, [part.pin_memory() for part in self.parts])

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor], parts: list[EncoderBatch]) -> ContrastiveBatch:
        structures = self.structures.mapped(change) if self.structures is not None else None
        return replace(self, parts=parts, structures=structures, **_changed(self, change))


def _changed(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
