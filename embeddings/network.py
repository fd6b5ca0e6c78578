"""``ionbed network``: spectra as nodes, an edge where each of two is among the nearest of the other."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts import atomic_file, refuse_input_as_output
from ..errors import InputError
from ..progress import Advance, counted, progress
from .component_cap import capped, component_of
from .embedded_input import EmbeddedSpectra, embedded_spectra
from .fusion import Fusion, fusion_of, sigmoid
from .graphml import write_graphml
from .hits import ScoreName
from .index import Index
from .index_folder import Embedder, check_search_options
from .library_hits import library_hits
from .mass_differences import likely_differences, mass_differences
from .mutual_neighbours import Pairs, listed_pairs, mutual, nearest_pairs

MIN_SCORES: Mapping[ScoreName, float] = {"cosine": 0.8, "fused": 0.3}
"""Least score of an edge where nobody says otherwise, for the model that ships with the package (docs/networks.md)."""

FUSED_DEPTH = 10
"""For a fused score so many times as many neighbours by cosine are looked at as are asked for."""

PAIRS_AT_ONCE = 1 << 18

EXACT_UP_TO = 200_000
"""Spectra up to which all are compared with all where nobody says otherwise: some minutes, and four times as many for
twice the spectra (benchmarks/network_speed.py)."""

Neighbours = Literal["auto", "exact", "approximate"]


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is made.

    Attributes
    ----------
    k : int
        Neighbours of each spectrum, at most.
    min_score : float or None
        Least score of an edge; None for that of `MIN_SCORES`.
    max_component : int
        Spectra of a component, at most (see `ionbed.embeddings.component_cap.capped`); 0 for no cap.
    score : 'cosine' or 'fused'
        The cosine of the embeddings, or that and look-ups of the peaks in one, for models that carry such a score.
    keep_singletons : bool
        Whether spectra without an edge are nodes.
    precursor_ppm : float
        Of the library hits: largest difference of the precursors.
    neighbours : 'auto', 'exact' or 'approximate'
        Whether all spectra are compared with all, or each is searched for in the index as it is by an open search,
        which misses some of the neighbours in an index of an approximate kind; 'auto' does that above `EXACT_UP_TO`.

    Raises
    ------
    InputError
        A value is out of range.
    """

    k: int = 10
    min_score: float | None = None
    max_component: int = 100
    score: ScoreName = "cosine"
    keep_singletons: bool = True
    precursor_ppm: float = 10.0
    neighbours: Neighbours = "auto"

    def __post_init__(self) -> None:
        if self.neighbours not in get_args(Neighbours):
            raise InputError(f"neighbours is '{self.neighbours}'; it must be one of {', '.join(get_args(Neighbours))}")
        if self.score not in get_args(ScoreName):
            raise InputError(f"the score is '{self.score}'; it must be one of {', '.join(get_args(ScoreName))}")
        check_search_options(1, self.precursor_ppm)
        if self.k < 1:
            raise InputError(f"the number of neighbours is {self.k}; it must be at least 1")
        if not -1 <= self.least_score <= 1:
            raise InputError(f"the least score is {self.min_score:g}; it must lie between -1 and 1")
        if self.max_component < 0 or self.max_component == 1:
            raise InputError(
                f"the cap is {self.max_component} spectra for each component; it must be 2 or more, or 0 for no cap"
            )

    @property
    def least_score(self) -> float:
        """The least score of an edge."""
        return MIN_SCORES[self.score] if self.min_score is None else self.min_score


@dataclass(frozen=True, eq=False)
class Network:
    """A molecular network.

    Attributes
    ----------
    nodes : pyarrow.Table
        `name` (of the compound; where it is unknown the id of the spectrum), `spectrum_id`, `compound_name`, the other
        metadata, `component` (from 1, the largest first), `component_size`, `degree`, and the best library hit.
    edges : pyarrow.Table
        `source` and `target` (rows of the nodes), `score`, and `precursor_difference` (target - source in Da per
        charge, not negative), `mass_difference` (of the molecules, target - source, in Da; null where a charge is
        unknown) and `difference_formula` (a likely one of it). The strongest first.
    attributes : mapping
        How it was made, and what of.
    counts : mapping of str to int
        Of spectra, edges, components of two or more, and what was left out.
    """

    nodes: pa.Table
    edges: pa.Table
    attributes: Mapping[str, str | int | float | bool]
    counts: Mapping[str, int]

    def __str__(self) -> str:
        """Return one line."""
        counts = self.counts
        words = [
            f"{counted(counts['spectra'], 'spectra')}, {counted(counts['edges'], 'edges')}, "
            f"{counted(counts['components'], 'components')} of two or more, the largest of {counts['largest']:,}",
            f"{counted(counts['singletons'], 'spectra')} without an edge"
            f"{'' if counts['singletons_kept'] else ' (left out)'}",
        ]
        if counts["capped"]:
            words.append(f"{counted(counts['capped'], 'edges')} dropped by the cap")
        if counts["hits"] >= 0:
            words.append(f"{counted(counts['hits'], 'spectra')} with a library hit")
        if counts["no_peaks"]:
            words.append(f"{counted(counts['no_peaks'], 'spectra')} without peaks left out")
        return "; ".join(words)


def network(
    input: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: NetworkOptions | None = None,
    *,
    load_model: Callable[[], Embedder] | None = None,
    library: str | os.PathLike[str] | None = None,
    nodes_out: str | os.PathLike[str] | None = None,
) -> Network:
    """Make a network of the spectra of ``input`` and write it, whole or not at all.

    Parameters
    ----------
    input : path
        A saved index, a prepared store, or anything that `ionbed.read` reads.
    out : path
        ``.graphml`` for the network, ``.tsv`` for its edges.
    options : NetworkOptions, optional
    load_model : callable, optional
        Returns the encoder; by default that of the index, or the one that ships with the package.
    library : path, optional
        A saved index of spectra, in which the best hit of each spectrum is looked up.
    nodes_out : path, optional
        A ``.tsv`` for the nodes.

    Raises
    ------
    InputError
        The input or the library cannot be read, the files to write are of no known kind or would replace an input, or
        the model carries no fused score where one is wanted.
    """
    write_edges = Path(out).suffix.lower() == ".tsv"
    if not write_edges and Path(out).suffix.lower() not in {".graphml", ".xml"}:
        raise InputError(f"{out}: its ending tells no format; name a .graphml for the network or a .tsv for its edges")
    if nodes_out is not None and Path(nodes_out).suffix.lower() != ".tsv":
        raise InputError(f"{nodes_out}: the table of the nodes is a .tsv; name one")
    inputs = [input, *([] if library is None else [library])]
    for path in (out, *([] if nodes_out is None else [nodes_out])):
        if os.path.isdir(path):
            raise InputError(f"{path}: is a folder; name the file to write")
        refuse_input_as_output(path, *inputs)
    if nodes_out is not None and Path(nodes_out).resolve() == Path(out).resolve():
        raise InputError(f"{out}: is named for the edges and for the nodes; name two files")
    opened = None if library is None else Index.open(library)
    options = NetworkOptions() if options is None else options
    check = fusion_for_network if options.score == "fused" else None
    made = build_network(embedded_spectra(input, load_model, check=check), options, library=opened)
    if write_edges:
        names, columns = made.nodes["spectrum_id"], dict(zip(made.edges.column_names, made.edges.columns, strict=True))
        ends = {name: names.take(columns[name]) for name in ("source", "target")}
        write_table(pa.table(columns | ends), out)
    else:
        write_graphml(out, made.nodes, _named_edges(made), {"name": Path(out).stem, **made.attributes})
    if nodes_out is not None:
        write_table(made.nodes, nodes_out)
    return made


def build_network(
    spectra: EmbeddedSpectra, options: NetworkOptions | None = None, *, library: Index | None = None
) -> Network:
    """Make a network.

    An edge joins two spectra of which each is among the ``k`` nearest of the other, with ``min_score`` or more. Two of
    known and different polarity are never joined. Of neighbours with equal scores the one of the lower precursor m/z is
    nearer, then the one whose id comes first; of edges with equal scores the one of the smaller precursor difference is
    stronger, then by precursor m/z and id. The network does not depend on the order in which the spectra were read.

    Parameters
    ----------
    spectra : EmbeddedSpectra
    options : NetworkOptions, optional
    library : Index, optional
        Where the best hit of each spectrum is looked up.

    Raises
    ------
    InputError
        The model carries no fused score where one is wanted, or the library cannot be searched.
    """
    options = NetworkOptions() if options is None else options
    count = len(spectra)
    is_exact = options.neighbours == "exact" or (options.neighbours == "auto" and count <= EXACT_UP_TO)
    by_cosine = partial(_pairs_by_cosine, spectra, is_exact)
    with progress("network", count) as advance:
        if options.score == "fused":
            pairs = _fused_pairs(spectra, options, by_cosine, advance)
        else:
            pairs = by_cosine(options.k, options.least_score, advance)
    pairs = mutual(pairs, count, options.k)
    precursor_mz = spectra.metadata["precursor_mz"].to_numpy()
    difference = np.round(precursor_mz[pairs.second] - precursor_mz[pairs.first], 6)
    strongest_first = np.lexsort((pairs.second, pairs.first, difference, -pairs.scores))
    stays = capped(pairs.first, pairs.second, strongest_first, count, options.max_component)
    kept = strongest_first[stays[strongest_first]]
    pairs, difference = pairs.take(kept), difference[kept]
    component = component_of(pairs.first, pairs.second, count)
    sizes = np.bincount(component, minlength=2)
    degree = np.bincount(np.concatenate([pairs.first, pairs.second]), minlength=count)
    columns = {
        "component": component.astype(np.int32),
        "component_size": sizes[component].astype(np.int32),
        "degree": degree.astype(np.int32),
    }
    nodes = _named(spectra.metadata)
    for name, values in columns.items():
        nodes = nodes.append_column(name, pa.array(values))
    num_hits = -1
    if library is not None:
        hits = library_hits(library, spectra, options.precursor_ppm)
        num_hits = len(hits) - hits["hit_library_id"].null_count
        for name in hits.column_names:
            nodes = nodes.append_column(name, hits[name])
    edges = pa.table(
        {
            "source": pa.array(pairs.first, pa.int64()),
            "target": pa.array(pairs.second, pa.int64()),
            "score": pa.array(pairs.scores, pa.float32()),
            "precursor_difference": pa.array(difference, pa.float64()),
            **_differences(spectra.metadata, pairs),
        }
    )
    counts = {
        "spectra": count,
        "edges": len(pairs),
        "components": int((sizes[1:] > 1).sum()),
        "largest": int(sizes.max()),
        "singletons": int((degree == 0).sum()),
        "singletons_kept": int(options.keep_singletons),
        "capped": int((~stays).sum()),
        "hits": num_hits,
        "no_peaks": spectra.num_without_peaks,
    }
    if not options.keep_singletons:
        row = np.cumsum(degree > 0) - 1
        nodes = nodes.filter(pa.array(degree > 0))
        for place, ends in enumerate((pairs.first, pairs.second)):
            edges = edges.set_column(place, edges.column_names[place], pa.array(row[ends], pa.int64()))
    return Network(nodes, edges, _attributes(spectra, options, is_exact, library), counts)


def _named_edges(made: Network) -> pa.Table:
    """Return the edges with what Cytoscape shows of an edge: 'interaction', and 'name', which is of both nodes.

    It would call them by the ids of the nodes in the file, ``n0 (-) n1``.
    """
    kind = str(made.attributes["score"])
    first, second = (made.nodes["name"].take(made.edges[end]) for end in ("source", "target"))
    names = pc.binary_join_element_wise(first, second, f" ({kind}) ")
    return made.edges.append_column("name", names).append_column("interaction", pa.repeat(kind, len(names)))


def fusion_for_network(model: Embedder) -> Fusion:
    """Return the fused score that a model carries.

    Raises
    ------
    InputError
        It carries none, or one that cannot be used.
    """
    fusion = fusion_of(model, "the model of the network")
    if fusion is None:
        raise InputError("the model carries no fused score; fit one (ionbed fuse), or make the network by cosine")
    return fusion


def _pairs_by_cosine(spectra: EmbeddedSpectra, is_exact: bool, k: int, min_score: float, advance: Advance) -> Pairs:
    if is_exact:
        return nearest_pairs(spectra.vectors, spectra.polarity, k, min_score, advance=advance)
    return listed_pairs(spectra.vectors, spectra.nearest, k, min_score, advance=advance)


def _fused_pairs(
    spectra: EmbeddedSpectra,
    options: NetworkOptions,
    by_cosine: Callable[[int, float, Advance], Pairs],
    advance: Advance,
) -> Pairs:
    """Return the pairs that are near by cosine with their fused scores, as expected of any precursor."""
    from ..spectra.pair_features import ComparedSpectra

    fusion = fusion_for_network(spectra.model)
    pairs = by_cosine(FUSED_DEPTH * options.k, -1.0, advance)
    compared = ComparedSpectra(spectra.columns(), fusion.lookups)
    scores = np.empty(len(pairs), np.float32)
    for begin in range(0, len(pairs), PAIRS_AT_ONCE):
        part = slice(begin, begin + PAIRS_AT_ONCE)
        features = compared.features(pairs.first[part], pairs.second[part])
        scores[part] = sigmoid(fusion.open.total(pairs.scores[part], features))
    fused = Pairs(pairs.first, pairs.second, scores)
    return fused.take(scores >= np.float32(options.least_score))


def _differences(metadata: pa.Table, pairs: Pairs) -> dict[str, pa.Array]:
    """Return by how much the molecule of the target is heavier than that of the source, and a likely formula of it."""
    precursor_mz = metadata["precursor_mz"].to_numpy()
    charge = metadata["charge"].fill_null(0).to_numpy().astype(np.int64)
    adduct, formula = (np.array(metadata[name].to_pylist(), object) for name in ("adduct", "formula"))
    first, second = pairs.first, pairs.second
    mass = mass_differences(
        precursor_mz[second], charge[second], adduct[second], precursor_mz[first], charge[first], adduct[first]
    )
    likely = [text or None for text in likely_differences(mass, formula[first].tolist())]
    return {
        "mass_difference": pa.array(np.round(mass, 6), pa.float64(), from_pandas=True),
        "difference_formula": pa.array(likely, pa.string()),
    }


def _named(metadata: pa.Table) -> pa.Table:
    """Return metadata with a ``name`` that every spectrum has: of its compound, or else its id."""
    columns = {
        "name": pc.coalesce(metadata["name"], metadata["spectrum_id"]),
        "spectrum_id": metadata["spectrum_id"],
        "compound_name": metadata["name"],
    }
    return pa.table({**columns, **{n: metadata[n] for n in metadata.column_names if n not in {"name", "spectrum_id"}}})


def _attributes(
    spectra: EmbeddedSpectra, options: NetworkOptions, is_exact: bool, library: Index | None
) -> dict[str, str | int | float | bool]:
    from .. import __version__

    made: dict[str, str | int | float | bool] = {
        "made_by": f"ionbed {__version__} network",
        "model_hash": spectra.model_hash,
        "score": options.score,
        "k": options.k,
        "min_score": options.least_score,
        "max_component": options.max_component,
        "neighbours": "exact" if is_exact else "approximate",
    }
    if library is not None:
        made |= {"library": str(library.folder), "library_precursor_ppm": options.precursor_ppm}
    return made


def write_table(table: pa.Table, out: str | os.PathLike[str]) -> None:
    """Write a table as tab-separated text, whole or not at all; an unknown value is an empty cell."""
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=8192):
            writer.writerows(zip(*(_texts(column) for column in batch.columns), strict=True))


def _texts(column: pa.Array) -> list[str]:
    """Return the cells of a column: empty where unknown, without the line ends and tabs that would break the table."""
    values = column.to_pylist()
    if pa.types.is_float32(column.type):
        values = [None if value is None else np.float32(value) for value in values]
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(value).lower() for value in values]
    return ["" if value is None else " ".join(str(value).split()) for value in values]
