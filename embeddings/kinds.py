"""Two kinds of index, a library of spectra and a database of structures: the same words for both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..spectra.molecule_files import holds_molecules
from . import index as spectrum_index
from . import search as spectrum_search
from . import structure_index, structure_search
from .exports.formats import Format, format_of, write
from .exports.search_run import Results, SearchRun
from .hit_table import SearchSummary, refuse_output
from .hits import ScoreName
from .index import Index
from .index_folder import Embedder, MoleculeEmbedder, kind_of, read_index_manifest
from .structure_hits import StructureScoreName
from .structure_index import StructureIndex

if TYPE_CHECKING:
    from rich.console import RenderableType


def build(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: MoleculeEmbedder,
    *,
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
        As those do, or spectra are to be predicted of what holds no molecules.
    """
    if holds_molecules(Path(input)):
        return structure_index.build(
            input, out, model, predict_spectra=predict_spectra, workers=workers, overwrite=overwrite
        )
    if predict_spectra:
        raise InputError(f"{input}: holds spectra, and they are predicted of molecules; leave --predict-spectra out")
    return spectrum_index.build(input, out, model, overwrite=overwrite)


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
