"""GraphML as Cytoscape's desktop reads it: the rules of its reader (graphml-impl), so that files are held to them.

It reads as a stream, and what it cannot take it leaves out with a line in its log, which nobody sees. Here each such
line is kept.
"""

from __future__ import annotations

import re
import xml.sax
from dataclasses import dataclass, field
from pathlib import Path

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
HEADER_LINES = 20
"""In which the file has to name GraphML."""
OWN_COLUMNS = {
    "network": {"suid": int, "name": str, "shared name": str, "selected": bool},
    "node": {"suid": int, "name": str, "shared name": str, "selected": bool},
    "edge": {
        "suid": int, "name": str, "shared name": str, "selected": bool, "interaction": str, "shared interaction": str,
    },
}  # fmt: skip
"""That a table has before anything is read; names of columns are equal whatever the case of their letters."""
NOT_TO_BE_SET = {"suid", "shared name", "shared interaction"}
WHOLE, NUMBER = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:NaN|Infinity)")
TYPES = {"int": int, "long": int, "float": float, "double": float, "boolean": bool, "string": str}
BITS = {"int": 32, "long": 64}


@dataclass
class Network:
    """What Cytoscape has after it has read a file: tables of rows by id, and what it complained of."""

    is_directed: bool = True
    network: dict[str, object] = field(default_factory=dict)
    node: dict[str, dict[str, object]] = field(default_factory=dict)
    edge: dict[str, dict[str, object]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)


class _Reader(xml.sax.ContentHandler):
    def __init__(self) -> None:
        self.read = Network()
        self.columns = {owner: dict(columns) for owner, columns in OWN_COLUMNS.items()}
        self.keys: dict[str, tuple[str, str]] = {}
        self.owner, self.row = "network", self.read.network
        self.tag, self.key, self.text = "", "", ""

    def startElement(self, name, attrs):  # noqa: N802
        self.tag, self.text = name, ""
        if name == "key":
            if attrs["id"] in self.keys:
                self.read.complaints.append(f"two keys have the id {attrs['id']}")
            self.keys[attrs["id"]] = attrs["attr.name"], attrs["attr.type"]
        elif name == "graph":
            self.read.is_directed = attrs.get("edgedefault", "").lower() == "directed"
            self.read.network["name"] = attrs.get("id")
        elif name == "node":
            self.owner, self.row = "node", self.read.node.setdefault(attrs["id"], {"name": attrs["id"]})
        elif name == "edge":
            ends = attrs["source"], attrs["target"]
            if not set(ends) <= set(self.read.node):  # its data go to what was read before it
                self.read.complaints.append(f"an edge between {ends} comes before its nodes")
                return
            row = {"name": f"{ends[0]} (-) {ends[1]}", "interaction": "-", "ends": ends}
            self.owner, self.row = "edge", self.read.edge.setdefault(attrs.get("id", str(len(self.read.edge))), row)
        elif name == "data":
            self.key = attrs["key"]

    def characters(self, content):
        self.text += content

    def endElement(self, name):  # noqa: N802
        text = self.text.strip()
        if self.tag == "data" and text:  # also at the end of what holds the element: once more the same
            self._set(text)

    def _set(self, text):
        column, kind = self.keys[self.key]
        if kind not in TYPES:
            self.read.complaints.append(f"{column}: the type {kind} is unknown")
            return
        known = self.columns[self.owner].setdefault(column.lower(), TYPES[kind])
        value = _parsed(text, kind)
        if known is not TYPES[kind] or value is None or column.lower() in NOT_TO_BE_SET:
            self.read.complaints.append(f"{self.owner} {column}: {text} is not taken as {kind}")
        else:
            self.row[column] = value


def _parsed(text: str, kind: str) -> object:
    """Return what Java makes of a text, None where it raises."""
    if kind == "string":
        return text
    if kind == "boolean":
        return text.lower() == "true"
    if kind in BITS:
        is_whole = WHOLE.fullmatch(text) and -(2 ** (BITS[kind] - 1)) <= int(text) < 2 ** (BITS[kind] - 1)
        return int(text) if is_whole else None
    return float(text) if NUMBER.fullmatch(text) else None


def read(path: Path) -> Network:
    """Read a file as Cytoscape does."""
    header = "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:HEADER_LINES])
    assert NAMESPACE in header or "<graphml>" in header, "Cytoscape does not take the file for GraphML"
    reader = _Reader()
    xml.sax.parse(str(path), reader)
    return reader.read
