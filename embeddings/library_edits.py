"""Appending to the index of a library, deleting from it, and compacting it: each one commit, or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..artifacts import describe_input, refuse_input_as_output
from ..errors import InputError
from ..spectra.spectrum import Spectrum
from ..spectra.store import Store
from .index_folder import Embedder, model_in, refuse_other_model
from .library_rows import embedded, gathered, source_of
from .library_writing import compacted, estimate
from .segments.approximate_rows import with_approximate
from .segments.commits import open_library, read_index_manifest, writing
from .segments.runs import blocks
from .segments.segment import write_segment


@dataclass(frozen=True)
class Appended:
    """What became of spectra that were appended.

    Attributes
    ----------
    read, kept : int
    dropped : mapping of str to int
        Spectra that are not in the index, by reason.
    replaced : int
        Spectra of the index that made room for others of the same id.
    """

    read: int
    kept: int
    dropped: Mapping[str, int]
    replaced: int


def append_rows(
    folder: Path,
    model: Embedder,
    spectra: Iterable[Spectrum] | Store | pa.Table,
    *,
    replace: bool = False,
    progress: bool = False,
    inputs: Iterable[Mapping[str, Any]] = (),
) -> Appended:
    """Append spectra to the index in ``folder``; see `ionbed.embeddings.index.Index.append`.

    Parameters
    ----------
    inputs : iterable of mapping
        What the manifest is to tell of where they are from.
    """
    with writing(folder) as writer:
        refuse_other_model(folder, writer.manifest, model)
        library = open_library(folder, writer.manifest)
        with writer.new_segment() as partial, gathered(spectra, partial, progress=progress) as found:
            rows = found.rows
            if rows is None:
                raise InputError("no spectrum to append; at least one with a precursor m/z and peaks is needed")
            ids = pa.concat_tables([table for table, _ in blocks(rows, ["spectrum_id"])])["spectrum_id"]
            replaced = library.rows_where("spectrum_id", ids)
            if len(replaced) and not replace:
                first = library.take(replaced[:1], ["spectrum_id"])["spectrum_id"][0].as_py()
                others = f", and {len(replaced) - 1:,} more of the new" if len(replaced) > 1 else ""
                raise InputError(
                    f"the index has a spectrum {first} already{others}; pass --replace to put the new ones in their "
                    "place, or give them other ids"
                )
            estimate(found, model, "flat").refuse_too_large(partial)
            entry = write_segment(partial, embedded(rows, model, progress=progress), len(rows.order))
            entry = with_approximate(partial, entry, **writer.manifest["open_search"], is_part=True)
        writer.name_segment(entry)
        if len(replaced):
            writer.delete(replaced)
        counts = found.counts
        writer.manifest["counts"] = added(writer.manifest["counts"], {**counts, "deleted": len(replaced)})
        writer.manifest["inputs"] = [*writer.manifest["inputs"], *inputs]
        writer.commit()
    return Appended(counts["read"], counts["kept"], counts["dropped"], len(replaced))


def append_input(folder: str | os.PathLike[str], input: str | os.PathLike[str], *, replace: bool = False) -> Appended:
    """Append a prepared store, or anything that `ionbed.read` reads, to a saved index, embedded with its own model.

    See `ionbed.embeddings.index.Index.append`.

    Raises
    ------
    InputError
        The input cannot be read, or is the index itself, or as of `Index.append`.
    """
    folder = Path(folder)
    refuse_input_as_output(folder, input)
    manifest, source, described = read_index_manifest(folder), source_of(input), [describe_input(input)]
    model = model_in(folder, manifest)
    return append_rows(folder, model, source, replace=replace, progress=True, inputs=described)


def delete_rows(
    folder: Path, ids: Iterable[str] | None = None, *, where: Mapping[str, Any], dry_run: bool = False
) -> int:
    """Delete spectra of the index in ``folder``; see `ionbed.embeddings.index.Index.delete`."""
    with writing(folder) as writer:
        library = open_library(folder, writer.manifest)
        rows = library.rows_of_ids(ids) if ids is not None else library.rows_with(where)
        if len(rows) == library.num_live:
            raise InputError("no spectrum of the index would be left; remove its folder instead")
        if not dry_run and len(rows):
            writer.delete(rows)
            writer.manifest["counts"] = added(writer.manifest["counts"], {"deleted": len(rows)})
            writer.commit()
    return len(rows)


def compact_rows(folder: Path) -> None:
    """Make one segment of the index in ``folder``; see `ionbed.embeddings.index.Index.compact`."""
    with writing(folder) as writer:
        library = open_library(folder, writer.manifest)
        if len(library.segments) == 1 and library.live is None:
            return
        writer.drop_segments()
        with writer.new_segment() as partial:
            entry = write_segment(partial, compacted(library), library.num_live)
            entry = with_approximate(partial, entry, **writer.manifest["open_search"], is_part=True)
        writer.name_segment(entry)
        writer.commit()


def added(counts: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return counts with further ones added to them, those by reason as well."""
    result = dict(counts)
    for name, value in further.items():
        if isinstance(value, Mapping):
            result[name] = dict(sorted(added(result.get(name, {}), value).items()))
        elif value or name in result:
            result[name] = result.get(name, 0) + value
    return result
