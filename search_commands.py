"""The commands ``ionbed embed`` and ``ionbed search``: embeddings of spectra, and what lies near them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import console, examples
from .progress import counted

if TYPE_CHECKING:
    from .encoder.modeling_ionbed import IonbedModel

logger = logging.getLogger("ionbed")

ModelOption = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|HUB_ID", help="The encoder.", show_default="the checkpoint shipped with the package"),
]
FILTERS = "Filters of the library"
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands to ``app``, under the heading ``panel`` of its help."""
    app.command(
        "embed",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed embed queries.mgf --out embeddings.parquet",
            "ionbed embed store --out e.parquet --model runs/small/model",
            "ionbed embed store --out e.parquet --part 3/16      # one of 16 jobs",
            "ionbed embed store --out e.parquet --merge          # after the last",
        ),
    )(embed)
    app.command(
        "search",
        rich_help_panel=panel,
        epilog=examples(
            "ionbed search library queries.mgf                 # hits to read here",
            "ionbed search library queries.mgf --out hits.tsv",
            "ionbed search library queries.mgf --out hits.mztab",
            "ionbed search library queries.mgf --out hits.tsv --format gnps",
            "ionbed search library queries.mzML --out hits.tsv --top-k 20 --open",
            "ionbed search library queries.mgf --adduct '[M+H]+' --energy 10-40",
            "ionbed search structures queries.mgf              # which molecules?",
        ),
    )(search)


def embed(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="Spectra: a store, a file, a folder or an archive.")],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="The table to write: spectrum_id, embedding.")],
    model: ModelOption = None,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute; auto: a GPU if any.")
    ] = "auto",
    part: Annotated[
        str | None, typer.Option(metavar="K/N", help="Embed the K-th of N parts of a store, for --merge.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge the parts; the other words as for --part.")] = False,
) -> None:
    """Compute the embedding of every spectrum."""
    from .embeddings.encode import Part, choose_device, embed_file, embed_part, merge_parts

    if part is not None and merge:
        raise typer.BadParameter("--part and --merge exclude each other")
    wanted = None if part is None else Part.parse(part)
    encoder = _load_model(model)
    if merge:
        count = merge_parts(source, out, encoder)
    else:
        encoder.to(choose_device(device))  # type: ignore[arg-type]  # transformers wraps it without its types
        count = embed_file(source, out, encoder) if wanted is None else embed_part(source, out, encoder, wanted)
    logger.info("%s%s: %s", out, f" ({part})" if part else "", counted(count, "embeddings"))


def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by 'ionbed index build'.")],
    queries: Annotated[
        Path, typer.Argument(metavar="QUERIES", help="Spectra: a store, a file, a folder or an archive.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The hits to write; the suffix says how.", show_default="hits are printed"),
    ] = None,
    format: Annotated[
        Literal["tsv", "gnps", "mztab", "jsonl", "mgf", "msp"] | None,
        typer.Option(
            help="How to write them: a table, the columns of GNPS, mzTab-M 2.0, JSON lines, or the queries with their "
            "best hits as MGF or MSP.",
            show_default="by the suffix of --out",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Hits for each query.")] = 10,
    precursor_ppm: Annotated[
        float,
        typer.Option(
            min=0, help="Only candidates whose precursor m/z is this close, in ppm; of a structure: as the adduct."
        ),
    ] = 10.0,
    precursor_da: Annotated[
        float | None,
        typer.Option(min=0, metavar="DA", help="The same in Da, in place of ppm; of spectra.", show_default=False),
    ] = None,
    open_search: Annotated[bool, typer.Option("--open", help="Candidates of any precursor m/z.")] = False,
    score: Annotated[
        Literal["cosine", "predicted", "fused"] | None,
        typer.Option(
            help="Cosine of the embeddings; of structures: look-up in their predicted spectra; or cosine and look-ups "
            "in one, see 'ionbed fuse'.",
            show_default="fused, where the model has it",
        ),
    ] = None,
    formula: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORMULA|query",
            help="Only candidates of this formula; of structures at any mass, and 'query': of each query's own.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
    polarity: Annotated[
        str | None,
        typer.Option(
            metavar="positive|negative",
            help="Only library spectra of this one.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
    adduct: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDUCT",
            help="Only library spectra of this ion, as [M+H]+.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
    instrument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="Only library spectra of this type or part of one: QTOF, ESI-QFT.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
    energy: Annotated[
        str | None,
        typer.Option(
            metavar="LOW-HIGH",
            help="Only library spectra of such a collision energy, in eV.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
    license: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LICENCE",
            help="Only library spectra under this one, as 'CC BY'.",
            show_default=False,
            rich_help_panel=FILTERS,
        ),
    ] = None,
) -> None:
    """Find the library spectra that are most like each query, or the structures that it may be.

    A filter that takes several values may be given several times.
    """
    from .embeddings.filters import Filters
    from .embeddings.kinds import formatted_search, open_index
    from .embeddings.kinds import search as run
    from .embeddings.search_options import SearchOptions
    from .embeddings.structure_index import StructureIndex

    if open_search and precursor_da is not None:
        raise typer.BadParameter("--open and --precursor-da exclude each other")
    opened = open_index(index)
    of_structures, formulas = isinstance(opened, StructureIndex), formula or []
    if of_structures and len(formulas) > 1:
        raise typer.BadParameter("--formula takes one value where structures are searched")
    if of_structures and open_search and formulas:
        raise typer.BadParameter("--open and --formula exclude each other where structures are searched")
    filters = Filters.from_words(
        polarity=polarity, adducts=adduct or (), instrument_types=instrument or (), energy=energy,
        formulas=() if of_structures else [text for text in formulas if text != "query"], licenses=license or (),
    )  # fmt: skip
    options = SearchOptions(
        top_k,
        None if open_search else precursor_ppm,
        precursor_da,
        score,
        formulas[0] if of_structures and formulas else "query" if "query" in formulas else None,
        filters or None,
    )
    if out is None or str(out) == "-":
        if format is not None:
            raise typer.BadParameter("--format says how a file is written; name it with --out")
        console().print(formatted_search(opened, queries, options))
    else:
        logger.info("%s: %s", out, run(opened, queries, out, options, format=format))


def _load_model(path_or_id: str | None) -> IonbedModel:
    from .encoder.loading import load_model

    return load_model(path_or_id)
