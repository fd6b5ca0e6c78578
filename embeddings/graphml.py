"""GraphML, for Cytoscape, Gephi and networkx: a table of nodes and a table of edges as one file.

Of Cytoscape's reader (its module graphml-impl): it goes by the ids of keys alone, whatever they are for; it takes data
for the graph's that stand before the first node, an edge only after both of its nodes, and no whole number beyond 64
bits with a sign; and it calls nodes and edges by their ids, unless they have an attribute ``name``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import pyarrow as pa

from ..artifacts import atomic_file

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"

ROWS_AT_ONCE = 8192

_HEAD = f"""<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="{NAMESPACE}"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/1.0/graphml.xsd">
"""

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even as a reference (its section 2.2)."""


def write_graphml(
    out: str | os.PathLike[str],
    nodes: pa.Table,
    edges: pa.Table,
    attributes: Mapping[str, str | int | float | bool] | None = None,
    *,
    source: str = "source",
    target: str = "target",
) -> None:
    """Write an undirected graph, whole or not at all.

    A node is called ``n0``, ``n1``... by its row, since an id must be a name token of XML and most names of spectra are
    none. A value that is unknown, or no finite number, has no element. Characters that XML cannot hold are written as
    U+FFFD.

    Parameters
    ----------
    out : path
    nodes : pyarrow.Table
        A column is an attribute of that name: text, whole numbers, numbers or truth values.
    edges : pyarrow.Table
        The same; the columns ``source`` and ``target`` are the rows of the nodes of each edge.
    attributes : mapping, optional
        Of the graph.

    Raises
    ------
    TypeError
        A column is of another type.

    References
    ----------
    http://graphml.graphdrawing.org/specification.html
    """
    of_graph = pa.table({name: [value] for name, value in (attributes or {}).items()})
    of_edges = edges.drop_columns([source, target])
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write(_HEAD)
        for owner, table in (("graph", of_graph), ("node", nodes), ("edge", of_edges)):
            for place, field in enumerate(table.schema):
                name, kind = quoteattr(_clean(field.name)), _kind(field.type)[0]
                file.write(f'  <key id="{owner}{place}" for="{owner}" attr.name={name} attr.type="{kind}"/>\n')
        file.write('  <graph id="network" edgedefault="undirected">\n')
        file.writelines(f"    {data}\n" for data in _data(of_graph, "graph") if data)
        for row, data in enumerate(_data(nodes, "node")):
            file.write(f'    <node id="n{row}">{data}</node>\n')
        ends = zip(edges[source].to_pylist(), edges[target].to_pylist(), strict=True)
        for row, ((a, b), data) in enumerate(zip(ends, _data(of_edges, "edge"), strict=True)):
            file.write(f'    <edge id="e{row}" source="n{a}" target="n{b}">{data}</edge>\n')
        file.write("  </graph>\n</graphml>\n")


def _data(table: pa.Table, owner: str) -> Iterator[str]:
    """Yield the ``data`` elements of each row."""
    texts_of = [_kind(field.type)[1] for field in table.schema]
    begins = [f'<data key="{owner}{place}">' for place in range(table.num_columns)]
    for start in range(0, len(table), ROWS_AT_ONCE):
        columns = [column.to_pylist() for column in table[start : start + ROWS_AT_ONCE].columns]
        if not columns:
            yield from [""] * min(ROWS_AT_ONCE, len(table) - start)
            continue
        for values in zip(*columns, strict=True):
            yield "".join(
                f"{begin}{text}</data>"
                for begin, text_of, value in zip(begins, texts_of, values, strict=True)
                if value is not None and (text := text_of(value))
            )


def _kind(type_: pa.DataType) -> tuple[str, Callable[..., str]]:
    """Return what GraphML calls a type, and what writes a value of it."""
    if pa.types.is_boolean(type_):
        return "boolean", lambda value: "true" if value else "false"
    if pa.types.is_integer(type_) and type_ != pa.uint64():
        return ("long" if type_.bit_width > 32 or type_ == pa.uint32() else "int"), str
    if pa.types.is_floating(type_):
        # In as few digits as tell a number from its neighbours of the same width.
        name, width = ("float", np.float32) if type_.bit_width <= 32 else ("double", float)
        return name, lambda value: str(width(value)) if math.isfinite(value) else ""
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "string", lambda value: escape(_clean(value))
    raise TypeError(f"GraphML has no values of the type {type_}")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
