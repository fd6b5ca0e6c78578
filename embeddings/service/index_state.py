"""The index as it was when a request or a job began: what answers it to the end, whatever is committed meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from anyio import to_thread

from ...artifacts import sha256_of_json
from ...errors import InputError
from ..search_options import SearchOptions
from ..structure_index import StructureIndex
from .failures import RequestError
from .models import GENERATION_DIGITS, IndexModel
from .searching import AnyIndex


@dataclass(frozen=True, eq=False)
class IndexState:
    """An open index that does not change any more; a newer one is another `IndexState`.

    What it has open stays readable as long as this is held, also when a commit has removed it from the folder.

    Attributes
    ----------
    index : Index or StructureIndex
    told : dict
        What was worked out once: the answers of /api/info and /api/example.
    """

    index: AnyIndex
    told: dict[str, Any] = field(default_factory=dict, repr=False)
    _checked: set[tuple[Any, ...]] = field(default_factory=set, repr=False)

    @cached_property
    def generations(self) -> tuple[str, ...]:
        """Tokens of the numberings of rows that hold in this state, that of this state last; see `generations_of`."""
        return generations_of(self.index.manifest)

    @property
    def generation(self) -> str:
        """That answers of this state tell."""
        return self.generations[-1]

    @property
    def kind(self) -> Literal["spectra", "structures"]:
        """What the index holds."""
        return "structures" if isinstance(self.index, StructureIndex) else "spectra"

    @cached_property
    def model(self) -> IndexModel:
        """What answers say of the index."""
        manifest = self.index.manifest
        return IndexModel(
            kind=self.kind,
            size=len(self.index),
            generation=self.generation,
            model_hash=manifest["model_hash"],
            ionbed_version=manifest.get("ionbed_version"),
        )

    def refuse_other_generation(self, row: int, generation: str | None) -> None:
        """Raise `RequestError` if a row was given out when the rows were numbered otherwise."""
        if generation is not None and generation not in self.generations:
            raise RequestError(
                410, f"row {row} is of an earlier state of the index, whose rows had other numbers; search again"
            )

    async def check(self, options: SearchOptions) -> None:
        """Raise `InputError` if the index cannot be searched with these options, before a file is read for nothing."""
        asked = (options.score, options.formula is None, options.precursor_da is None, options.filters is None)
        if asked not in self._checked:
            await to_thread.run_sync(self._check, options)  # what a score needs may first have to be loaded
            self._checked.add(asked)

    def _check(self, options: SearchOptions) -> None:
        self.index.score_name(cast(Any, options.score))
        if isinstance(self.index, StructureIndex):
            if options.precursor_da is not None or options.filters is not None:
                name = "filters" if options.precursor_da is None else "precursor_da"
                raise InputError(f"{name}: this index holds structures, which are found by mass in ppm; leave it out")
        elif options.formula is not None:
            raise InputError("formula: this index holds spectra, which are searched by precursor m/z; leave it out")


def generations_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Return tokens of the numberings of rows that hold for an index, its own last.

    Rows are numbered over the segments in order, and neither a segment that is appended nor a deletion changes what
    number a row has. So what was given out when the index had the first n of its segments is still right; what
    was given out before they were compacted or built anew is not. Each token is a digest of n segments' checksums.

    Parameters
    ----------
    manifest : mapping
        Of an index of either kind.
    """
    segments = manifest.get("segments") or [manifest.get("files") or manifest["counts"]]
    tokens, before = [], ""
    for entry in segments:
        before = hashlib.sha256((before + sha256_of_json(entry)).encode("ascii")).hexdigest()
        tokens.append(before[:GENERATION_DIGITS])
    return tuple(tokens)
