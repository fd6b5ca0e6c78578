"""Tables kept on disk under a hash of what they were made of; a damaged one is made anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import atomic_file
from ..errors import InputError

logger = logging.getLogger("ionbed")


def cached_table(
    path: Path | None, make: Callable[[], pa.Table], schema: pa.Schema, num_rows: int | None = None
) -> pa.Table:
    """Return what ``make`` gives, from the file ``path`` where it is there.

    Parameters
    ----------
    path : Path or None
        Its name tells all that the table depends on; None keeps nothing.
    make : function without parameters
    schema : pyarrow.Schema
        Of the table.
    num_rows : int, optional
        How many rows there must be, where that is known.

    Raises
    ------
    InputError
        The cache cannot be written.
    """
    if path is not None and (known := _read(path, schema, num_rows)) is not None:
        return known
    table = make()
    if path is not None:
        try:
            with atomic_file(path) as partial:
                pq.write_table(table, partial, compression="zstd")
        except OSError as error:
            raise InputError(
                f"{path.parent}: cannot be used as a cache ({error.strerror}); name another folder"
            ) from None
    return table


def _read(path: Path, schema: pa.Schema, num_rows: int | None) -> pa.Table | None:
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        logger.warning("%s: is damaged (%s); it is made anew", path, str(error).splitlines()[0])
        return None
    if not table.schema.equals(schema) or (num_rows is not None and len(table) != num_rows):
        logger.warning("%s: is not what was written there; it is made anew", path)
        return None
    return table
