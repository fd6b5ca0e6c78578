"""The approximate index of a segment: built beside its vectors, with the recall that was measured, and opened late."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...progress import counted
from ..approximate import MIN_ROWS, AnnKind, AnnSettings, build_ann, check_kind, choose_kind, open_ann, write_ann
from ..recall import WANTED_RECALL, MeasuredRecall, check_wanted, measure_recall, molecules_of
from .damage import changed, checksum
from .segment import Segment

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger("ionbed")

KindWanted = AnnKind | Literal["auto"]
"""How an index is to be searched openly; ``auto``: as its size suggests."""

ANN = "ann.faiss"


class ApproximateRows:
    """The approximate index of a segment. Its file is open from the beginning, and read when it is first needed.

    Parameters
    ----------
    folder : Path
        Of the segment.
    entry : mapping
        What the manifest tells of the segment, as `with_approximate` returned it.

    Attributes
    ----------
    measured : MeasuredRecall
    """

    def __init__(self, folder: Path, entry: Mapping[str, Any]) -> None:
        self._path, self._checksum = folder / ANN, entry["xxh3"][ANN]
        self.measured = MeasuredRecall.from_dict(entry["approximate"])
        self._content = np.memmap(self._path, np.uint8, mode="r")
        self._file = open(self._path, "rb")  # noqa: SIM115  # as long as this lives
        weakref.finalize(self, self._file.close)

    @property
    def settings(self) -> AnnSettings:
        """How it is searched."""
        return self.measured.settings

    @cached_property
    def index(self) -> faiss.Index:
        """The FAISS index, mapped into memory.

        Raises
        ------
        InputError
            The file is damaged.
        """
        if f"{checksum(self._content):016x}" != self._checksum:
            raise changed(self._path)
        # By its descriptor: a later commit may have removed the file from the folder.
        return open_ann(f"/dev/fd/{self._file.fileno()}", self.settings.kind)


def with_approximate(
    folder: Path,
    entry: Mapping[str, Any],
    kind: KindWanted,
    *,
    recall: float = WANTED_RECALL,
    is_part: bool = False,
) -> dict[str, Any]:
    """Build the approximate index of a segment where it is to have one, and return the manifest's entry with it.

    Parameters
    ----------
    folder : Path
        Of the segment, as `ionbed.embeddings.segments.segment.write_segment` left it.
    entry : mapping
        As that returned it.
    kind : KindWanted
    recall : float
        Mean recall@10 to reach; the one measured stands in the entry.
    is_part : bool
        See `kind_for`.

    Raises
    ------
    InputError
        The segment is too small for the kind, or ``recall`` is out of range.
    """
    wanted = kind_for(kind, entry["rows"], entry["dim"], is_part=is_part)
    if wanted == "flat":
        return {**entry, "kind": wanted}
    check_wanted(recall)
    segment = Segment(folder, entry)
    vectors = segment.vectors[:]
    logger.info(
        "building the approximate index (%s) of %s, and measuring its recall", wanted, counted(len(vectors), "rows")
    )
    index = build_ann(vectors, wanted)
    write_ann(index, folder / ANN)
    molecules = molecules_of(segment.table.slice(0, len(segment), ["inchikey"])["inchikey"])
    measured = measure_recall(index, wanted, vectors, segment.polarity, molecules, wanted=recall)
    logger.info("recall of the ten nearest: %.4f", measured.recall)
    sums = {**entry["xxh3"], ANN: f"{checksum(np.memmap(folder / ANN, np.uint8, mode='r')):016x}"}
    return {**entry, "kind": wanted, "approximate": measured.to_dict(), "xxh3": sums}


def kind_for(kind: KindWanted, num_rows: int, dim: int, *, is_part: bool = False) -> AnnKind:
    """Return how so many rows are to be searched.

    Parameters
    ----------
    kind : KindWanted
    num_rows, dim : int
    is_part : bool
        The rows are appended to others: too few for the kind are then searched as they are, and not refused.

    Raises
    ------
    InputError
        There is no such kind, or it needs more rows.
    """
    if kind == "auto":
        return choose_kind(num_rows, dim)
    if is_part and num_rows < MIN_ROWS:
        return "flat"
    check_kind(kind, num_rows)
    return kind
