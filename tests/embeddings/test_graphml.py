"""GraphML: valid by its schema, and read back as written, whatever stands in the texts."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from ionbed.embeddings.graphml import NAMESPACE, write_graphml

from . import cytoscape_reader

RULES = f"""
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="{NAMESPACE}" xmlns="{NAMESPACE}"
    elementFormDefault="qualified">
  <xs:element name="graphml">
    <xs:complexType><xs:sequence>
      <xs:element name="key" type="key" minOccurs="0" maxOccurs="unbounded"/>
      <xs:element name="graph" type="graph"/>
    </xs:sequence></xs:complexType>
    <xs:key name="keys"><xs:selector xpath="./*"/><xs:field xpath="@id"/></xs:key>
    <xs:unique name="names"><xs:selector xpath="./*"/><xs:field xpath="@for"/><xs:field xpath="@attr.name"/></xs:unique>
  </xs:element>
  <xs:complexType name="key">
    <xs:attribute name="id" type="xs:NMTOKEN" use="required"/>
    <xs:attribute name="for" use="required"><xs:simpleType><xs:restriction base="xs:NMTOKEN">
      <xs:enumeration value="graph"/><xs:enumeration value="node"/><xs:enumeration value="edge"/>
    </xs:restriction></xs:simpleType></xs:attribute>
    <xs:attribute name="attr.name" type="xs:NMTOKEN" use="required"/>
    <xs:attribute name="attr.type" use="required"><xs:simpleType><xs:restriction base="xs:NMTOKEN">
      <xs:enumeration value="boolean"/><xs:enumeration value="int"/><xs:enumeration value="long"/>
      <xs:enumeration value="float"/><xs:enumeration value="double"/><xs:enumeration value="string"/>
    </xs:restriction></xs:simpleType></xs:attribute>
  </xs:complexType>
  <xs:complexType name="graph">
    <xs:sequence>
      <xs:element name="data" type="data" minOccurs="0" maxOccurs="unbounded"/>
      <xs:element name="node" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
        <xs:sequence><xs:element name="data" type="data" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
        <xs:attribute name="id" type="xs:NMTOKEN" use="required"/>
      </xs:complexType></xs:element>
      <xs:element name="edge" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
        <xs:sequence><xs:element name="data" type="data" minOccurs="0" maxOccurs="unbounded"/></xs:sequence>
        <xs:attribute name="id" type="xs:NMTOKEN"/>
        <xs:attribute name="source" type="xs:NMTOKEN" use="required"/>
        <xs:attribute name="target" type="xs:NMTOKEN" use="required"/>
      </xs:complexType></xs:element>
    </xs:sequence>
    <xs:attribute name="id" type="xs:NMTOKEN"/>
    <xs:attribute name="edgedefault" use="required"><xs:simpleType><xs:restriction base="xs:NMTOKEN">
      <xs:enumeration value="directed"/><xs:enumeration value="undirected"/>
    </xs:restriction></xs:simpleType></xs:attribute>
  </xs:complexType>
  <xs:complexType name="data"><xs:simpleContent><xs:extension base="xs:string">
    <xs:attribute name="key" type="xs:NMTOKEN" use="required"/>
  </xs:extension></xs:simpleContent></xs:complexType>
</xs:schema>
"""
"""The rules of http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd for what we write, references to nodes apart."""


def valid(path) -> etree._ElementTree:
    """Read a file that must be valid: by `RULES`, and in what its ids refer to."""
    tree = etree.parse(path)
    etree.XMLSchema(etree.XML(RULES)).assertValid(tree)
    names = {"g": NAMESPACE}
    keys = {key.get("id"): key for key in tree.findall("g:key", names)}
    nodes = [node.get("id") for node in tree.iterfind("g:graph/g:node", names)]
    assert len(set(nodes)) == len(nodes)
    for edge in tree.iterfind("g:graph/g:edge", names):
        assert {edge.get("source"), edge.get("target")} <= set(nodes)
    for data in tree.iterfind(".//g:data", names):
        key = keys[data.get("key")]
        assert key.get("for") == data.getparent().tag.split("}")[1]
        kind, text = key.get("attr.type"), data.text or ""
        assert kind == "string" or (text in {"true", "false"} if kind == "boolean" else float(text) == float(text))
    return tree


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def columns(size: int, types: list[tuple[pa.DataType, st.SearchStrategy]]) -> st.SearchStrategy[dict[str, pa.Array]]:
    return st.fixed_dictionaries(
        {
            f"c{i}": st.lists(st.none() | values, min_size=size, max_size=size).map(lambda v, t=type_: pa.array(v, t))
            for i, (type_, values) in enumerate(types)
        }
    )


TYPES = [
    (pa.string(), TEXT),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**62), 2**62)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.bool_(), st.booleans()),
]


@settings(max_examples=40)
@given(data=st.data(), size=st.integers(0, 3))
def test_what_is_written_is_valid_and_read_back(tmp_path_factory, data, size):
    path = tmp_path_factory.mktemp("g") / "g.graphml"
    nodes = pa.table(data.draw(columns(size, TYPES)))
    ends = [(a, b) for a in range(size) for b in range(a)]
    chosen = data.draw(st.lists(st.sampled_from(ends), unique=True)) if ends else []
    edges = pa.table(
        {
            "source": pa.array([a for a, _ in chosen], pa.int64()),
            "target": pa.array([b for _, b in chosen], pa.int64()),
            **data.draw(columns(len(chosen), TYPES)),
        }
    )
    write_graphml(path, nodes, edges, {"made": data.draw(TEXT), "k": 3, "least": 0.7, "all": True})
    valid(path)
    taken = cytoscape_reader.read(path)
    assert taken.complaints == [] and len(taken.node) == size and len(taken.edge) == len(chosen)
    graph = nx.read_graphml(path)
    assert graph.graph["k"] == 3 and graph.graph["least"] == 0.7 and graph.graph["all"] is True
    assert list(graph.nodes) == [f"n{i}" for i in range(size)]
    assert {frozenset(e) for e in graph.edges} == {frozenset((f"n{a}", f"n{b}")) for a, b in chosen}
    for row, node in enumerate(nodes.to_pylist()):
        same(node, graph.nodes[f"n{row}"])
    for (a, b), edge in zip(chosen, edges.to_pylist(), strict=True):
        same({name: value for name, value in edge.items() if name.startswith("c")}, graph.edges[f"n{a}", f"n{b}"])


def same(written: dict, read: dict) -> None:
    for name, value in written.items():
        if value is None or (isinstance(value, float) and not np.isfinite(value)) or value == "":
            assert not read.get(name), name
        elif isinstance(value, str):
            # An XML reader makes every line end a line feed (XML 1.0, 2.11).
            allowed = "".join(c if is_allowed(c) else "\ufffd" for c in value)
            assert read[name] == allowed.replace("\r\n", "\n").replace("\r", "\n")
        elif name == "c4":
            assert np.float32(read[name]) == np.float32(value)
        else:
            assert read[name] == value and type(read[name]) is type(value)


def is_allowed(c: str) -> bool:
    """As section 2.2 of XML 1.0 says it."""
    return c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({'attr.type="long"': 'attr.type="integer"'}, "the type integer is unknown"),
        ({'attr.type="long"': 'attr.type="int"'}, "4611686018427387904 is not taken as int"),
        ({'attr.name="c"': 'attr.name="Selected"'}, "is not taken as long"),
        ({'attr.name="c"': 'attr.name="NAME"'}, "is not taken as long"),
        ({'id="node0"': 'id="edge0"', 'key="node0"': 'key="edge0"'}, "two keys have the id edge0"),
        ({'target="n1"': 'target="n2"'}, "comes before its nodes"),
    ],
)
def test_what_cytoscape_would_leave_out_is_found(tmp_path, changes, complaint):
    path = tmp_path / "g.graphml"
    nodes = pa.table({"c": pa.array([2**62, None], pa.int64())})
    write_graphml(path, nodes, pa.table({"source": [0], "target": [1], "w": [0.5]}))
    assert not cytoscape_reader.read(path).complaints
    text = path.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    assert any(complaint in line for line in cytoscape_reader.read(path).complaints)


def test_numbers_beyond_the_longest_of_java_are_refused(tmp_path):
    with pytest.raises(TypeError, match="no values of the type uint64"):
        write_graphml(
            tmp_path / "g", pa.table({"a": pa.array([1], pa.uint64())}), pa.table({"source": [0], "target": [0]})
        )


def test_the_check_finds_what_is_not_valid(tmp_path):
    path = tmp_path / "g.graphml"
    write_graphml(path, pa.table({"a": ["x", "y"]}), pa.table({"source": [0], "target": [1]}), {"k": 1})
    valid(path)
    text = path.read_text()
    for before, after in (
        ('target="n1"', 'target="n7"'),
        ('attr.type="string"', 'attr.type="text"'),
        ('id="n1"', 'id="n 1"'),
        ('key="graph0">1', 'key="graph0">one'),
        ("undirected", "none"),
    ):
        assert before in text
        path.write_text(text.replace(before, after))
        with pytest.raises((etree.DocumentInvalid, AssertionError, ValueError)):
            valid(path)


def test_a_column_that_graphml_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match="list"):
        write_graphml(tmp_path / "g", pa.table({"a": [[1]]}), pa.table({"source": [0], "target": [0]}))
    assert not list(tmp_path.iterdir())
