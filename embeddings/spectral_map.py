"""``ionbed map``: spectra as points of a plane, where near ones are alike, as a page and as a table."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..progress import counted, progress
from .embedded_input import EmbeddedSpectra, embedded_spectra
from .index_folder import Embedder
from .map_page import MapPage, require_plotly, write_page
from .network import write_table
from .projection import Method, check_method, project

logger = logging.getLogger("ionbed")

STRUCTURES_AT_MOST = 3000
"""Molecules whose picture is in the page; of more, those with the most spectra. Some 1 KB each."""

POINTS_AT_MOST = 200_000
"""Spectra of a map: with more, the page is too large for a browser to be of any use."""

LEVELS = ("kingdom", "superclass", "class", "subclass")
"""Levels of a chemical class that is written as a path, as by ClassyFire: ``Organic compounds; Benzenoids; ...``."""

COLOURS = (
    *("chemical_superclass", "chemical_class", "adduct", "polarity", "charge", "precursor_mz", "retention_time"),
    *("collision_energy", "instrument_type", "laboratory", "license", "predicted", "formula", "source_file"),
)
"""Columns by which points may be coloured, where any spectrum has them; the first there is is shown first."""


@dataclass(frozen=True)
class MapOptions:
    """How a map is made.

    Attributes
    ----------
    method : 'umap', 'pca' or 'densmap'
    color_by : str or None
        The column that is shown first; None for the first of `COLOURS` that any spectrum has.
    sample : int or None
        So many spectra, drawn at random; None for all.
    seed : int
        Of UMAP and of the sample.
    """

    method: Method = "umap"
    color_by: str | None = None
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.sample is not None and self.sample < 1:
            raise InputError(f"the sample is {self.sample} spectra; it must be at least 1")
        if self.color_by is not None and self.color_by not in COLOURS:
            raise InputError(f"points cannot be coloured by '{self.color_by}'; choose one of {', '.join(COLOURS)}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"the seed is {self.seed}; it must be at least 0 and below 4,294,967,296")


@dataclass(frozen=True, eq=False)
class SpectralMap:
    """A map.

    Attributes
    ----------
    table : pyarrow.Table
        `spectrum_id`, `x`, `y`, and the metadata, a row for each point.
    method : str
    seed : int
    num_spectra : int
        Those of the input; the map has as many points, or a sample of them.
    color_by : str
    """

    table: pa.Table
    method: Method
    seed: int
    num_spectra: int
    color_by: str


def spectral_map(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: MapOptions | None = None,
    *,
    load_model: Callable[[], Embedder] | None = None,
    table_out: str | os.PathLike[str] | None = None,
) -> SpectralMap:
    """Make a map of the spectra of ``input`` and write it as a page that needs no network, whole or not at all.

    Parameters
    ----------
    input : path
        A saved index, a prepared store, or anything that `ionbed.read` reads.
    out : path
        The ``.html``.
    options : MapOptions, optional
    load_model : callable, optional
        Returns the encoder; by default that of the index, or the one that ships with the package.
    table_out : path, optional
        A ``.parquet`` or ``.tsv`` for the coordinates and the metadata.

    Raises
    ------
    InputError
        The input cannot be read, the files to write are of no known kind or would replace it, a package is missing, or
        no spectrum has the column to colour by.
    """
    options = MapOptions() if options is None else options
    require_plotly()
    if Path(out).suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"{out}: the map is a page; name an .html")
    if table_out is not None and Path(table_out).suffix.lower() not in {".parquet", ".tsv"}:
        raise InputError(f"{table_out}: the table of the map is a .parquet or a .tsv; name one")
    for path in (out, *([] if table_out is None else [table_out])):
        if os.path.isdir(path):
            raise InputError(f"{path}: is a folder; name the file to write")
        refuse_input_as_output(path, input)
    made = build_map(embedded_spectra(input, load_model), options)
    name = Path(input).name or str(input)
    write_page(out, page_of(made, name))
    if table_out is not None:
        _write(made.table, table_out)
    return made


def build_map(spectra: EmbeddedSpectra, options: MapOptions | None = None) -> SpectralMap:
    """Make a map of spectra, or of a sample of them.

    Raises
    ------
    InputError
        There are too few spectra for the method, or too many for a page, or none has the column to colour by.
    """
    options = MapOptions() if options is None else options
    vectors, metadata = spectra.vectors, spectra.metadata
    if options.sample is not None and options.sample < len(spectra):
        rows = np.sort(np.random.default_rng(options.seed).choice(len(spectra), options.sample, replace=False))
        vectors, metadata = vectors[rows], metadata.take(pa.array(rows))
    check_method(options.method, len(vectors))
    if len(vectors) > POINTS_AT_MOST:
        raise InputError(
            f"{len(vectors):,} spectra are too many for a map; draw some of them, at most {POINTS_AT_MOST:,}: --sample"
        )
    table = with_superclass(metadata)
    color_by = options.color_by or next((n for n in COLOURS if table[n].null_count < len(table)), COLOURS[0])
    if table[color_by].null_count == len(table):
        known = ", ".join(name for name in COLOURS if table[name].null_count < len(table))
        raise InputError(f"no spectrum has a {color_by}; choose another column to colour by: {known}")
    logger.info(
        "map: %s by %s", counted(len(vectors), "spectra"), options.method
    )  # which UMAP does not tell the progress of
    coordinates = project(vectors, options.method, options.seed)
    for place, name in enumerate("xy"):
        table = table.add_column(1 + place, name, pa.array(coordinates[:, place], pa.float32()))
    return SpectralMap(table, options.method, options.seed, len(spectra), color_by)


def with_superclass(metadata: pa.Table) -> pa.Table:
    """Return metadata with the superclass of each chemical class that is a path, or else the class itself."""
    place = LEVELS.index("superclass")
    superclass_of = {
        text: text.split(";")[min(place, text.count(";"))].strip()
        for text in metadata["chemical_class"].unique().to_pylist()
        if text
    }
    values = [superclass_of.get(text) for text in metadata["chemical_class"].to_pylist()]
    return metadata.append_column("chemical_superclass", pa.array(values, pa.string()))


def page_of(made: SpectralMap, title: str) -> MapPage:
    """Return what the page of a map shows."""
    smiles = Counter(text for text in made.table["smiles"].to_pylist() if text)
    drawn = [text for text, _ in sorted(smiles.items(), key=lambda of: (-of[1], of[0]))[:STRUCTURES_AT_MOST]]
    return MapPage(
        title=title,
        table=made.table,
        method={"umap": "UMAP", "pca": "PCA", "densmap": "densMAP"}[made.method],
        num_spectra=made.num_spectra,
        color_by=made.color_by,
        colours=tuple(name for name in COLOURS if made.table[name].null_count < len(made.table)),
        structures=_drawings(drawn),
        num_structures=len(smiles),
    )


def _drawings(smiles: list[str]) -> dict[str, str]:
    """Return the SVG of each structure that can be drawn."""
    from .service.drawing import svg_of

    drawings = {}
    with progress("structures", len(smiles), unit="structures") as advance:
        for text in smiles:
            try:
                drawings[text] = _lean(svg_of(text))
            except InputError:  # one that RDKit cannot read, or too large to be read by anyone
                continue
            finally:
                advance(1)
    return drawings


_DEFAULTS = re.compile(
    r" class='[^']*'|fill-rule:evenodd;|stroke-linecap:butt;|stroke-linejoin:miter;|stroke-opacity:1|<!--.*?-->"
    r"|\s+xmlns:\w+='[^']*'|\s+xml:space='preserve'|\s+baseProfile='full'|<\?xml[^>]*>\s*"
)


def _lean(svg: str) -> str:
    """Return a drawing of RDKit without what it says by default: a page holds thousands."""
    return _DEFAULTS.sub("", svg)


def _write(table: pa.Table, out: str | os.PathLike[str]) -> None:
    if Path(out).suffix.lower() == ".tsv":
        write_table(table, out)
        return
    with atomic_file(out) as partial:
        pq.write_table(table, partial, compression="zstd")
