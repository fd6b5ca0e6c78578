"""The page of a map: one HTML file with data, drawings and plotly.js in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import gzip
import html
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_file
from ..errors import InputError
from ..spectra.columns import text_codes

FOLDER = Path(__file__).with_name("map_page_files")

LABELS = {
    "spectrum_id": "spectrum", "name": "name", "precursor_mz": "precursor m/z", "charge": "charge",
    "polarity": "polarity", "adduct": "adduct", "retention_time": "retention time (s)",
    "collision_energy": "collision energy (eV)", "instrument_type": "instrument type", "formula": "formula",
    "smiles": "SMILES", "inchikey": "InChIKey", "chemical_class": "chemical class",
    "chemical_superclass": "chemical superclass", "laboratory": "laboratory", "license": "licence",
    "predicted": "predicted", "source_file": "file",
}  # fmt: skip
"""Columns that the page has, and what it calls them."""


@dataclass(frozen=True, eq=False)
class MapPage:
    """What a page shows.

    Attributes
    ----------
    title : str
    table : pyarrow.Table
        ``x``, ``y`` and the columns of `LABELS`, a row for each point.
    method : str
    num_spectra : int
        Of the input, of which the points may be a sample.
    color_by : str
        The column that points are coloured by at first.
    colours : tuple of str
        The columns that they may be coloured by.
    structures : mapping of str to str
        SVG by SMILES.
    num_structures : int
        Different structures among the points, drawn or not.
    """

    title: str
    table: pa.Table
    method: str
    num_spectra: int
    color_by: str
    colours: tuple[str, ...]
    structures: Mapping[str, str]
    num_structures: int


def require_plotly() -> None:
    """Raise `InputError` where plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise InputError("a map needs plotly; install it with: pip install 'ionbed[maps]'")


def write_page(out: str | os.PathLike[str], page: MapPage) -> None:
    """Write a page, whole or not at all.

    Raises
    ------
    InputError
        plotly is not installed.
    """
    require_plotly()
    from plotly.offline import get_plotlyjs

    parts = {
        "TITLE": html.escape(page.title),
        "STYLE": (FOLDER / "page.css").read_text(encoding="utf-8"),
        "DATA": _packed(_data(page)),
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": (FOLDER / "page.js").read_text(encoding="utf-8"),
    }
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        # Piece by piece, so that no part is searched for the marks of another.
        for piece in text.split("%%"):
            file.write(parts.get(piece, piece))


def _data(page: MapPage) -> dict[str, Any]:
    """Return what the script of the page reads."""
    smiles = page.table["smiles"]
    return {
        "title": page.title,
        "method": page.method,
        "spectra": page.num_spectra,
        "color_by": page.color_by,
        "colours": list(page.colours),
        "x": _base64(page.table["x"].to_numpy().astype("<f4")),
        "y": _base64(page.table["y"].to_numpy().astype("<f4")),
        "columns": [_column(name, page.table[name]) for name in LABELS],
        "structures": {text: page.structures[text] for text in smiles.unique().to_pylist() if text in page.structures},
        "num_structures": page.num_structures,
    }


def _column(name: str, values: pa.ChunkedArray) -> dict[str, Any]:
    """Return a column: numbers as they are, few or many texts as codes of the texts that there are."""
    column: dict[str, Any] = {"name": name, "label": LABELS[name]}
    if name in {"precursor_mz", "retention_time", "collision_energy"}:
        numbers = _base64(np.asarray(values.cast(pa.float64()).to_numpy(), "<f8"))
        return {**column, "numbers": numbers, "digits": 4 if name == "precursor_mz" else 1}
    if name == "polarity":
        values = pa.chunked_array([pa.array([{1: "positive", -1: "negative"}.get(v) for v in values.to_pylist()])])
    elif name == "charge":
        values = pa.chunked_array([pa.array([None if v is None else f"{v:+d}" for v in values.to_pylist()])])
    elif name == "predicted":
        values = pa.chunked_array([pa.array(["predicted" if v else "measured" for v in values.to_pylist()])])
    codes, texts = text_codes(values.cast(pa.string()))
    return {**column, "codes": _base64(codes.astype("<i4")), "texts": texts[:-1].tolist()}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _packed(data: Mapping[str, Any]) -> str:
    """Return data as compressed JSON in base64; the same data gives the same text."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
