"""Two kinds of index, a library of spectra and a database of structures: the same words for both."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..spectra.molecule_files import holds_molecules
from ..spectra.split import Split
from ..spectra.store import Store
from . import index as spectrum_index
from . import milvus_index, structure_calibration_fit, structure_index, structure_search
from . import search as spectrum_search
from .build_estimate import BuildEstimate
from .calibration import NO_PROBABILITIES, Calibration
from .calibration_fit import calibrate_from_library, calibrate_from_queries, seen_by
from .embedded_before import EmbeddedBefore
from .encode import Part
from .exports.formats import Format, format_of, write
from .exports.search_run import Results, SearchRun
from .hit_table import SearchSummary, refuse_output
from .index import Index
from .index_folder import Embedder, MoleculeEmbedder, kind_of, read_index_manifest
from .library_rows import source_of
from .library_writing import estimate_of
from .milvus_connection import Address
from .milvus_index import MilvusIndex, is_in_milvus
from .queries import queries_of
from .search_options import DEFAULT_SEARCH, SearchOptions
from .segments.approximate_rows import KindWanted
from .structure_index import StructureIndex

if TYPE_CHECKING:
    from rich.console import RenderableType

logger = logging.getLogger("ionbed")


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: MoleculeEmbedder,
    *,
    kind: KindWanted = "auto",
    embeddings: str | os.PathLike[str] | None = None,
    predict_spectra: bool = False,
    workers: int | None = 1,
    overwrite: bool = False,
) -> Index | StructureIndex:
    """Build an index of structures of a file of molecules, one of spectra of anything else, and save it.

    See `ionbed.embeddings.structure_index.build` and `ionbed.embeddings.index.build`;
    `ionbed.spectra.molecule_files.holds_molecules` tells which.

    Parameters
    ----------
    embeddings : path, optional
        What 'ionbed embed' wrote of ``input``, a prepared store, with ``model``; then nothing is embedded again.

    Raises
    ------
    InputError
        As those do, or spectra are to be predicted of what holds no molecules, or a kind is named for molecules.
    """
    if holds_molecules(Path(input)):
        if embeddings is not None:
            raise InputError(f"{input}: holds molecules; --embeddings are of spectra, leave it out")
        if kind not in ("auto", "flat"):
            raise InputError(f"{input}: holds molecules, of which every row is searched; leave --kind {kind} out")
        return structure_index.build(
            input, out, model, predict_spectra=predict_spectra, workers=workers, overwrite=overwrite
        )
    if predict_spectra:
        raise InputError(f"{input}: holds spectra, and they are predicted of molecules; leave --predict-spectra out")
    embedder = model if embeddings is None else _embedded_before(embeddings, input, model)
    index = spectrum_index.build(input, out, embedder, kind=kind, overwrite=overwrite)
    if embeddings is not None:  # what stands in for the model does not say how its scores are fused
        index = Index.open(out, model)
    calibration = calibrate_from_library(index)
    if calibration is not None:
        index.write_entry("calibration", calibration.to_tree())
    else:
        logger.info("%s: its hits will have no probability: %s", out, NO_PROBABILITIES)
    return index


def calibrate(
    folder: str | os.PathLike[str],
    queries: str | os.PathLike[str] | None = None,
    *,
    split: str | os.PathLike[str] | None = None,
) -> Calibration:
    """Fit the probabilities of the hits of an index anew, and keep them in it.

    Parameters
    ----------
    folder : path
        Of an index of spectra or of structures.
    queries : path, optional
        Spectra of known molecules (InChIKey), a prepared store or anything that `ionbed.read` reads; by default the
        library's own. An index of structures needs some.
    split : path, optional
        That the model was trained with: then it is known which of the queries' molecules it has seen. An index of
        structures is calibrated by the others alone.

    Raises
    ------
    InputError
        The index, the queries or the split cannot be read, a split is named without queries, or too few molecules are
        known.
    """
    if kind_of(read_index_manifest(Path(folder))) == "structures":
        return structure_calibration_fit.calibrate(folder, queries, split=split)
    index = index_of_spectra(folder)
    if queries is None:
        if split is not None:
            raise InputError(
                f"{split}: a split says which molecules of your own spectra the model has seen; name a file of these, "
                "or leave --split out"
            )
        found = calibrate_from_library(index)
        if found is None:
            raise InputError(
                f"{folder}: has too few molecules with two measured spectra of one ion to be calibrated by; "
                "give queries of known molecules"
            )
    else:
        of_file = (query.spectrum for query in queries_of(queries)[0])
        spectra = [spectrum for spectrum in of_file if spectrum is not None]
        seen = "not known" if split is None else seen_by(index.model, spectra, Split.load(split))
        found = calibrate_from_queries(index, spectra, source=Path(queries).name, trained_on=seen, progress=True)
    index.write_entry("calibration", found.to_tree())
    return found


def build_in_milvus(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: Embedder,
    uri: str,
    collection: str | None = None,
    *,
    embeddings: str | os.PathLike[str] | None = None,
    empty: bool = False,
    overwrite: bool = False,
) -> MilvusIndex:
    """Build an index of spectra in Milvus; see `ionbed.embeddings.milvus_index.build`.

    Parameters
    ----------
    collection : str, optional
        By default called as the folder ``out``, with _ for what Milvus takes in no name.
    embeddings : path, optional
        See `build`.
    empty : bool
        See `ionbed.embeddings.milvus_index.build`.

    Raises
    ------
    InputError
        As that does, or the input holds molecules.
    """
    if holds_molecules(Path(input)):
        raise InputError(f"{input}: holds molecules; Milvus is for libraries of spectra, leave --milvus out")
    name = collection or re.sub(r"[^A-Za-z0-9_]", "_", Path(out).resolve().name)
    address = Address(uri, f"_{name}" if collection is None and name[:1].isdigit() else name)
    embedder = model if embeddings is None else _embedded_before(embeddings, input, model)
    return milvus_index.build(input, out, embedder, address, empty=empty, overwrite=overwrite)


def estimate_build(input: str | os.PathLike[str], model: Embedder, *, kind: KindWanted = "auto") -> BuildEstimate:
    """Return what an index of spectra will take; nothing is written.

    Raises
    ------
    InputError
        The input holds molecules, or cannot be read, or holds no spectrum, or too few for the kind.
    """
    if holds_molecules(Path(input)):
        raise InputError(f"{input}: holds molecules, of which no estimate is made; leave --dry-run out")
    return estimate_of(source_of(input), model, kind)


def delete(
    folder: str | os.PathLike[str],
    ids: str | os.PathLike[str] | None = None,
    *,
    where: Mapping[str, Any],
    dry_run: bool = False,
) -> int:
    """Delete spectra of an index by the ids in a file, one a line, or by values; see `Index.delete`.

    Raises
    ------
    InputError
        As that does, or the file cannot be read or holds no id, or the index is one of structures.
    """
    names = None if ids is None else _lines(Path(ids))
    if has_vectors_in_milvus(folder):
        if names is None or dry_run:
            raise InputError(f"{folder}: has its vectors in Milvus, where spectra are deleted by --ids, at once")
        index = MilvusIndex.open(folder)
        try:
            return index.store.delete(names)
        finally:
            index.store.close()
    return index_of_spectra(folder).delete(names, where=where, dry_run=dry_run)


def has_vectors_in_milvus(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is an index whose vectors are in Milvus.

    Raises
    ------
    InputError
        It is no index, or is damaged.
    """
    return is_in_milvus(read_index_manifest(Path(folder)))


def append_to_milvus(folder: str | os.PathLike[str], input: str | os.PathLike[str], *, part: Part | None = None) -> int:
    """Append spectra to an index in Milvus; see `ionbed.embeddings.milvus_index.append`."""
    return milvus_index.append(folder, input, part=part)


def index_of_spectra(folder: str | os.PathLike[str]) -> Index:
    """Open a saved index that can be appended to.

    Raises
    ------
    InputError
        It is one of structures, which is built again instead, or is none or damaged.
    """
    index = open_index(folder)
    if isinstance(index, StructureIndex):
        raise InputError(f"{folder}: is an index of structures, which is not changed; build it again")
    if isinstance(index, MilvusIndex):
        raise InputError(
            f"{folder}: has its vectors in Milvus, where this cannot be done; it takes an index on this machine"
        )
    return index


def _embedded_before(table: str | os.PathLike[str], input: str | os.PathLike[str], model: Embedder) -> EmbeddedBefore:
    """Return the model with the embeddings of a store that 'ionbed embed' wrote.

    Raises
    ------
    InputError
        The input is no prepared store, or the embeddings are damaged, or of another model or store.
    """
    source = source_of(input)
    if not isinstance(source, Store):
        raise InputError(f"{input}: is no prepared store, of which --embeddings are made; leave --embeddings out")
    return EmbeddedBefore.read(table, model, source)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); it should be text, one spectrum id a line") from None
    names = [line for line in lines if line]
    if not names:
        raise InputError(f"{path}: holds no spectrum id; write one a line")
    return names


def open_index(folder: str | os.PathLike[str], model: Embedder | None = None) -> Index | StructureIndex | MilvusIndex:
    """Open a saved index of either kind, or the folder of one whose vectors are in Milvus.

    Raises
    ------
    InputError
        The folder is no index or is damaged, or ``model`` is not the model that the index was built with.
    """
    manifest = read_index_manifest(Path(folder))
    if kind_of(manifest) == "structures":
        return StructureIndex.open(folder, model)
    return MilvusIndex.open(folder, model) if is_in_milvus(manifest) else Index.open(folder, model)


def search(
    index: Index | StructureIndex | MilvusIndex,
    queries: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
    *,
    format: Format | None = None,
) -> SearchSummary:
    """Search every spectrum of ``queries`` and write the hits, whole or not at all.

    See `ionbed.embeddings.structure_search.find` and `ionbed.embeddings.search.find`; and
    `ionbed.embeddings.exports.formats` for the formats, of which the suffix of ``out`` says one where none is stated.

    Raises
    ------
    InputError
        As those do, or an option is given that is none of this kind of index, or ``out`` is a folder, would replace
        the queries or the index, or says nothing of the format.
    """
    chosen = format_of(out, format)
    refuse_output(out, queries, index.folder)
    results = find_results(index, queries, options)
    return write(results, out, chosen, SearchRun.of(index, queries, options))


def formatted_search(
    index: Index | StructureIndex | MilvusIndex,
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> RenderableType:
    """Search every spectrum of ``queries`` and return the hits for a terminal.

    Raises
    ------
    InputError
        As of `search`.
    """
    results = find_results(index, queries, options)
    rows = itertools.chain.from_iterable(result.rows for result in results)
    return (structure_search if isinstance(index, StructureIndex) else spectrum_search).format_hits(rows)


def find_results(
    index: Index | StructureIndex | MilvusIndex,
    queries: str | os.PathLike[str],
    options: SearchOptions = DEFAULT_SEARCH,
) -> Iterator[Results]:
    """Search every spectrum of ``queries`` and yield each with its lines, in an index of whichever kind.

    Raises
    ------
    InputError
        As of `search`.
    """
    if isinstance(index, StructureIndex):
        return structure_search.find_results(index, queries, options)
    return spectrum_search.find_results(index, queries, options)
