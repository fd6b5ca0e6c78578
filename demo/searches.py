"""The searches that the demo shows: which, and how a person would want to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..spectra.spectrum import Spectrum

if TYPE_CHECKING:
    from rich.console import Console

    from ..embeddings.hits import Hit
    from ..embeddings.index import Index

NUM_QUERIES = 3
HITS_PER_QUERY = 6
COLUMNS = ("rank", "score", "ppm", "name", "formula", "adduct", "eV", "")


@dataclass(frozen=True)
class ShownSearch:
    """A query and its hits, for a person to read, from the best hit on; ``best`` is the spectrum of that hit."""

    query: Spectrum
    best: Spectrum
    hits: Sequence[Hit]

    def is_right(self, hit: Hit) -> bool:
        """Whether the hit is a spectrum of the query's molecule."""
        return hit.metadata["inchikey"][:14] == self.query.inchikey_block


def choose_searches(index: Index, queries: Sequence[Spectrum], *, seed: int) -> list[ShownSearch]:
    """Search some queries, drawn at random from those with at least two molecules among their hits."""
    hits = index.search(queries, k=HITS_PER_QUERY)
    drawn: dict[str, int] = {}  # one spectrum of a molecule
    for query in np.random.default_rng(seed).permutation(len(queries)).tolist():
        if len({hit.metadata["inchikey"][:14] for hit in hits[query]}) > 1:
            drawn.setdefault(queries[query].inchikey_block or "", query)
    return [
        ShownSearch(queries[query], index.spectra([hits[query][0].row])[0], hits[query])
        for query in list(drawn.values())[:NUM_QUERIES]
    ]


def print_searches(console: Console, shown: Sequence[ShownSearch]) -> None:
    """Print each search as a query and the table of its hits."""
    from rich.table import Table

    console.print(
        f"\n[bold]{len(shown)} searches[/bold], drawn at random where several molecules compete", highlight=False
    )
    for search in shown:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for header in COLUMNS:
            table.add_column(header, justify="right" if header in {"rank", "score", "ppm", "eV"} else "left")
        for cells, is_right in zip(hit_rows(search), map(search.is_right, search.hits), strict=True):
            table.add_row(*cells, style="green" if is_right else None)
        console.print(f"\nQuery: [bold]{query_line(search.query)}[/bold]", highlight=False)
        console.print(table, highlight=False, markup=False)


def query_line(query: Spectrum) -> str:
    """Return what a query is, in one line."""
    energy = f"{query.collision_energy:g} eV" if query.collision_energy is not None else "energy unknown"
    origin = f"{'predicted' if query.predicted else 'measured'}, {query.laboratory}"
    return f"{query.name}, {query.formula}, {query.adduct}, m/z {query.precursor_mz:.4f}, {energy} ({origin})"


def hit_rows(search: ShownSearch) -> list[tuple[str, ...]]:
    """Return rank, score, precursor error, name, formula, adduct, energy and a note of every hit, as text."""
    return [
        (
            str(hit.rank),
            f"{hit.score:.3f}",
            f"{hit.precursor_error_ppm:+.1f}",
            f"{hit.metadata['name']}{' (predicted)' if hit.metadata['predicted'] else ''}",
            hit.metadata["formula"] or "",
            hit.metadata["adduct"] or "",
            f"{hit.metadata['collision_energy']:g}",
            "the query's molecule" if search.is_right(hit) else "",
        )
        for hit in search.hits
    ]
