"""The commands ``ionbed network`` and ``ionbed map``: many spectra at once, by what is near what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import examples
from .progress import counted
from .search_commands import ModelOption

if TYPE_CHECKING:
    from .encoder.modeling_ionbed import IonbedModel

logger = logging.getLogger("ionbed")

InputArgument = Annotated[
    Path, typer.Argument(metavar="INPUT", help="Spectra: an index, a store, a file, a folder or an archive.")
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "network",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed network run.mzML --out network.graphml",
            "ionbed network run.mgf --out network.graphml --index library",
            "ionbed network library --out edges.tsv --nodes nodes.tsv",
        ),
    )(network)
    app.command(
        "map",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed map library --out map.html",
            "ionbed map run.mzML --out map.html --table map.tsv",
            "ionbed map store --out map.html --color-by adduct --sample 20000",
        ),
    )(spectral_map)


def network(
    source: InputArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE.graphml", help="The network to write; a .tsv gets the edges alone.")
    ],
    nodes: Annotated[
        Path | None, typer.Option(metavar="FILE.tsv", help="Also write the nodes as a table.", show_default=False)
    ] = None,
    model: ModelOption = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="A library: each node gets its best hit there.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours of a spectrum, at most.")] = 10,
    min_score: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Least score of an edge.", show_default="0.8; fused: 0.3")
    ] = None,
    max_component: Annotated[
        int, typer.Option(min=0, help="Spectra of a component, at most: its weakest edges are dropped. 0: no cap.")
    ] = 100,
    score: Annotated[
        Literal["cosine", "fused"],
        typer.Option(help="Cosine of the embeddings, or that and look-ups of the peaks, see 'ionbed fuse'."),
    ] = "cosine",
    precursor_ppm: Annotated[float, typer.Option(min=0, help="Of a library hit: the precursor is this close.")] = 10.0,
    no_singletons: Annotated[bool, typer.Option("--no-singletons", help="Leave out spectra without an edge.")] = False,
    neighbours: Annotated[
        Literal["auto", "exact", "approximate"],
        typer.Option(help="All compared with all, or each searched for in the index; auto: by their number."),
    ] = "auto",
) -> None:
    """Join spectra that are alike into a molecular network, for Cytoscape."""
    from .embeddings.network import NetworkOptions
    from .embeddings.network import network as run

    options = NetworkOptions(
        k=k, min_score=min_score, max_component=max_component, score=score, keep_singletons=not no_singletons,
        precursor_ppm=precursor_ppm, neighbours=neighbours,
    )  # fmt: skip
    made = run(source, out, options, load_model=_loader(model), library=index, nodes_out=nodes)
    logger.info("%s: %s", out, made)


def spectral_map(
    source: InputArgument,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write; it needs no network.")],
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet|.tsv", help="Also write coordinates and metadata.", show_default=False),
    ] = None,
    model: ModelOption = None,
    method: Annotated[
        Literal["umap", "pca", "densmap"],
        typer.Option(help="UMAP on the cosine; principal components; or UMAP that keeps densities."),
    ] = "umap",
    color_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="What is coloured at first, as adduct.", show_default="chemical superclass"
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many spectra, drawn at random.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of UMAP and of the sample.")] = 0,
) -> None:
    """Lay spectra out in a plane, alike ones near one another, as an interactive page."""
    from .embeddings.spectral_map import MapOptions
    from .embeddings.spectral_map import spectral_map as run

    options = MapOptions(method=method, color_by=color_by, sample=sample, seed=seed)
    made = run(source, out, options, load_model=_loader(model), table_out=table)
    logger.info("%s: %s of %s, by %s", out, f"{len(made.table):,}", counted(made.num_spectra, "spectra"), made.method)


def _loader(model: str | None) -> Callable[[], IonbedModel] | None:
    """Return what loads a model that was named; an index needs none, and has its own."""
    if model is None:
        return None

    def load() -> IonbedModel:
        from .encoder.loading import load_model

        return load_model(model)

    return load
