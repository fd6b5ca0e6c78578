"""Read spectra from the formats of libraries, runs and tables, from files, folders, archives and stores.

`read_records` gives every record as written, `read` gives cleaned spectra. `read_blocks` and `parse_block` are the two
halves of `read_records`, for work in several processes.
"""

from __future__ import annotations

from .blocks import MS_LEVELS, Block, Piece
from .reading import (
    ReadReport,
    SpectrumReader,
    blocks_of_files,
    parse_block,
    read,
    read_blocks,
    read_records,
    warn_of_skipped,
)

__all__ = [
    "MS_LEVELS",
    "Block",
    "Piece",
    "ReadReport",
    "SpectrumReader",
    "blocks_of_files",
    "parse_block",
    "read",
    "read_blocks",
    "read_records",
    "warn_of_skipped",
]
