"""Two kinds of index, a library of spectra and a database of structures: the same words for both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..spectra.molecule_files import holds_molecules
from . import index as spectrum_index
from . import search as spectrum_search
from . import structure_index, structure_search
from .build_estimate import BuildEstimate
from .exports.formats import Format, format_of, write
from .exports.search_run import Results, SearchRun
from .hit_table import SearchSummary, refuse_output
from .hits import ScoreName
from .index import Index
from .index_folder import Embedder, MoleculeEmbedder, kind_of, read_index_manifest
from .library_rows import source_of
from .library_writing import estimate_of
from .segments.approximate_rows import KindWanted
from .structure_hits import StructureScoreName
from .structure_index import StructureIndex

if TYPE_CHECKING:
    from rich.console import RenderableType


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: MoleculeEmbedder,
    *,
    kind: KindWanted = "auto",
    predict_spectra: bool = False,
    workers: int | None = 1,
    overwrite: bool = False,
) -> Index | StructureIndex:
    """Build an index of structures of a file of molecules, one of spectra of anything else, and save it.

    See `ionbed.embeddings.structure_index.build` and `ionbed.embeddings.index.build`;
    `ionbed.spectra.molecule_files.holds_molecules` tells which.

    Raises
    ------
    InputError
        As those do, or spectra are to be predicted of what holds no molecules, or a kind is named for molecules.
    """
    if holds_molecules(Path(input)):
        if kind not in ("auto", "flat"):
            raise InputError(f"{input}: holds molecules, of which every row is searched; leave --kind {kind} out")
        return structure_index.build(
            input, out, model, predict_spectra=predict_spectra, workers=workers, overwrite=overwrite
        )
    if predict_spectra:
        raise InputError(f"{input}: holds spectra, and they are predicted of molecules; leave --predict-spectra out")
    return spectrum_index.build(input, out, model, kind=kind, overwrite=overwrite)


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
    return index_of_spectra(folder).delete(names, where=where, dry_run=dry_run)


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
    return index


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); it should be text, one spectrum id a line") from None
    names = [line for line in lines if line]
    if not names:
        raise InputError(f"{path}: holds no spectrum id; write one a line")
    return names


def open_index(folder: str | os.PathLike[str], model: Embedder | None = None) -> Index | StructureIndex:
    """Open a saved index of either kind.

    Raises
    ------
    InputError
        The folder is no index or is damaged, or ``model`` is not the model that the index was built with.
    """
    if kind_of(read_index_manifest(Path(folder))) == "structures":
        return StructureIndex.open(folder, model)
    return Index.open(folder, model)


def search(
    index: Index | StructureIndex,
    queries: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    k: int = 10,
    precursor_ppm: float | None = 10.0,
    formula: str | None = None,
    score: StructureScoreName | None = None,
    format: Format | None = None,
) -> SearchSummary:
    """Search every spectrum of ``queries`` and write the hits, whole or not at all.

    See `ionbed.embeddings.structure_search.find` and `ionbed.embeddings.search.find`; and
    `ionbed.embeddings.exports.formats` for the formats, of which the suffix of ``out`` says one where none is stated.

    Raises
    ------
    InputError
        As those do, or ``formula`` or the score 'predicted' is given for an index of spectra, or ``out`` is a folder,
        would replace the queries or the index, or says nothing of the format.
    """
    chosen = format_of(out, format)
    refuse_output(out, queries, index.folder)
    results: Iterator[Results]
    if isinstance(index, StructureIndex):
        score = index.score_name(score)
        results = structure_search.find_results(
            index, queries, k=k, precursor_ppm=precursor_ppm, formula=formula, score=score
        )
    else:
        _refuse_formula(index, formula)
        score = _of_spectra(index, score)
        results = spectrum_search.find_results(index, queries, k=k, precursor_ppm=precursor_ppm, score=score)
    options = {"k": k, "precursor_ppm": precursor_ppm, "formula": formula, "score": score}
    return write(results, out, chosen, SearchRun.of(index, queries, options))


def formatted_search(
    index: Index | StructureIndex,
    queries: str | os.PathLike[str],
    *,
    k: int = 10,
    precursor_ppm: float | None = 10.0,
    formula: str | None = None,
    score: StructureScoreName | None = None,
) -> RenderableType:
    """Search every spectrum of ``queries`` and return the hits for a terminal.

    Raises
    ------
    InputError
        As of `search`.
    """
    if isinstance(index, StructureIndex):
        return structure_search.format_hits(
            structure_search.find(index, queries, k=k, precursor_ppm=precursor_ppm, formula=formula, score=score)
        )
    _refuse_formula(index, formula)
    return spectrum_search.format_hits(
        spectrum_search.find(index, queries, k=k, precursor_ppm=precursor_ppm, score=_of_spectra(index, score))
    )


def _refuse_formula(index: Index, formula: str | None) -> None:
    if formula is not None:
        raise InputError(
            f"{index.folder}: is an index of spectra, which are searched by precursor m/z; leave --formula out"
        )


def _of_spectra(index: Index, score: StructureScoreName | None) -> ScoreName:
    if score == "predicted":
        raise InputError(f"{index.folder}: is an index of spectra, and not of structures; leave --score predicted out")
    return score or "cosine"
