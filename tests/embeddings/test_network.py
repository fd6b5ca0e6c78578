"""Networks: edges and nodes of known spectra, the same whatever their order; files that are whole, or not there."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest

from ionbed import cli
from ionbed.artifacts import write_manifest
from ionbed.embeddings import network as network_module
from ionbed.embeddings.embedded_input import embedded_spectra, of_index
from ionbed.embeddings.fusion import EMBEDDING_COSINE, FusedScore, Fusion, sigmoid
from ionbed.embeddings.index import Index
from ionbed.embeddings.mutual_neighbours import exact_scores
from ionbed.embeddings.network import NetworkOptions, build_network, network
from ionbed.embeddings.search import find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.errors import InputError
from ionbed.spectra.lookups import LookupOptions
from ionbed.spectra.pair_features import ComparedSpectra
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.writers import write_mgf

from . import cytoscape_reader
from .conftest import CountSketchModel, random_spectrum


def like(spectrum: Spectrum, spectrum_id: str, noise: float, **changes) -> Spectrum:
    """A spectrum with the same peaks at somewhat other intensities."""
    rng = np.random.default_rng(int.from_bytes(spectrum_id.encode(), "little") % 2**32)
    intensity = spectrum.intensity * np.exp(noise * rng.normal(size=len(spectrum))).astype(np.float32)
    return dataclasses.replace(spectrum, spectrum_id=spectrum_id, intensity=intensity / intensity.max(), **changes)


@pytest.fixture(scope="module")
def families() -> list[Spectrum]:
    """Twelve families of spectra that share their peaks, from 1 to 12 members, in no order."""
    rng = np.random.default_rng(5)
    spectra = []
    for family in range(12):
        first = random_spectrum(
            rng, f"F{family:02d}-00", precursor_mz=200.0 + family, polarity=1, charge=1, adduct="[M+H]+",
            name=f"compound <{family}> & \x0b more", inchikey=f"{'ABCDEFGHIJKL'[family] * 14}-UHFFFAOYSA-N",
        )  # fmt: skip
        spectra.append(first)
        spectra += [
            like(first, f"F{family:02d}-{member:02d}", 0.2, precursor_mz=first.precursor_mz + 14.01565 * member,
                 name=None, retention_time=float(member), predicted=member % 2 == 1)
            for member in range(1, family + 1)
        ]  # fmt: skip
    return [spectra[i] for i in rng.permutation(len(spectra))]


@pytest.fixture(scope="module")
def index(families) -> Index:
    return Index.build(CountSketchModel(dim=64), families)


@pytest.fixture(scope="module")
def saved(index, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "library"
    index.save(folder)
    return folder


def edges_by_id(made) -> dict[tuple[str, str], float]:
    names = made.nodes["spectrum_id"].to_pylist()
    ends = zip(made.edges["source"].to_pylist(), made.edges["target"].to_pylist(), strict=True)
    return {(names[a], names[b]): s for (a, b), s in zip(ends, made.edges["score"].to_pylist(), strict=True)}


def test_families_are_components(index):
    made = build_network(of_index(index), NetworkOptions(k=20, min_score=0.75))
    nodes = made.nodes.to_pylist()
    families = {}
    for node in nodes:
        families.setdefault(node["spectrum_id"][:3], set()).add(node["component"])
    assert all(len(of) == 1 for of in families.values())
    assert len({next(iter(of)) for of in families.values()}) == 12
    assert {n["component_size"] for n in nodes if n["spectrum_id"].startswith("F11")} == {12}
    assert made.counts == {
        "spectra": 78, "edges": len(made.edges), "components": 11, "largest": 12, "singletons": 1,
        "singletons_kept": 1, "capped": 0, "hits": -1, "no_peaks": 0,
    }  # fmt: skip
    named = {n["spectrum_id"]: n for n in nodes}
    assert named["F03-01"]["name"] == "F03-01" and named["F03-01"]["compound_name"] is None
    assert named["F03-00"]["name"] == named["F03-00"]["compound_name"] == "compound <3> & \x0b more"
    assert sum(n["degree"] for n in nodes) == 2 * len(made.edges)


def test_edges_say_their_score_and_precursor_difference(index):
    made = build_network(of_index(index), NetworkOptions(k=20))
    vectors = dict(zip(index.metadata["spectrum_id"].to_pylist(), index.vectors, strict=True))
    mz = dict(zip(*(made.nodes[name].to_pylist() for name in ("spectrum_id", "precursor_mz")), strict=True))
    found = edges_by_id(made)
    assert found
    for (a, b), score in found.items():
        assert score == pytest.approx(float(vectors[a] @ vectors[b]), abs=1e-6) and score >= np.float32(0.8)
        assert mz[a] <= mz[b]
    differences = [mz[b] - mz[a] for a, b in found]
    assert made.edges["precursor_difference"].to_pylist() == pytest.approx(differences, abs=1e-6)
    # All are [M+H]+: the molecules differ as the precursors do, by one CH2 for each member between the two.
    assert made.edges["mass_difference"].to_pylist() == pytest.approx(differences, abs=1e-6)
    formulas = dict(zip(found, made.edges["difference_formula"].to_pylist(), strict=True))
    assert {formulas[ends] for ends in found if int(ends[1][4:]) - int(ends[0][4:]) == 1} == {"CH2"}
    assert made.edges["score"].to_pylist() == sorted(found.values(), reverse=True)


def test_a_network_does_not_depend_on_the_order_of_its_spectra(families):
    model = CountSketchModel(dim=64)
    options = NetworkOptions(k=3, max_component=5)
    one = build_network(of_index(Index.build(model, families)), options)
    other = build_network(of_index(Index.build(model, families[::-1])), options)
    assert one.nodes.equals(other.nodes)
    assert one.edges.equals(other.edges)


def test_the_cap_and_singletons(index):
    made = build_network(of_index(index), NetworkOptions(k=20, max_component=4, keep_singletons=False))
    assert 2 <= max(made.nodes["component_size"].to_pylist()) <= 4
    assert made.counts["capped"] > 0
    assert len(made.nodes) == made.counts["spectra"] - made.counts["singletons"] < 78
    assert min(made.nodes["degree"].to_pylist()) >= 1
    names = made.nodes["spectrum_id"].to_pylist()
    assert all(a[:3] == b[:3] for a, b in edges_by_id(made)), names


def test_neighbours_by_search_are_those_of_all_compared_with_all(index):
    spectra = of_index(index)
    exact, searched = (
        build_network(spectra, NetworkOptions(k=4, neighbours=kind)) for kind in ("exact", "approximate")
    )
    assert exact.edges.equals(searched.edges) and exact.nodes.equals(searched.nodes)
    assert (exact.attributes["neighbours"], searched.attributes["neighbours"]) == ("exact", "approximate")


def test_an_index_of_several_segments_from_which_spectra_were_deleted(families, index, tmp_path):
    Index.build(index.model, families[:50]).save(tmp_path / "grown")
    grown = Index.open(tmp_path / "grown", index.model)
    grown.append(families[50:])
    left_out = [s.spectrum_id for s in families if s.spectrum_id.endswith("-02")]
    grown.delete(left_out)
    at_once = Index.build(index.model, [s for s in families if s.spectrum_id not in left_out])
    for kind in ("exact", "approximate"):
        options = NetworkOptions(k=4, neighbours=kind)
        one, other = build_network(of_index(grown), options), build_network(of_index(at_once), options)
        assert one.nodes.equals(other.nodes) and one.edges.equals(other.edges)
    assert of_index(grown).columns().precursor_mz.tolist() == of_index(at_once).metadata["precursor_mz"].to_pylist()


def test_polarities_are_not_joined():
    rng = np.random.default_rng(0)
    first = random_spectrum(rng, "a", polarity=1)
    spectra = [first, like(first, "b", 0.01, polarity=-1), like(first, "c", 0.01, polarity=None)]
    made = build_network(of_index(Index.build(CountSketchModel(), spectra)))
    assert {tuple(sorted(ends)) for ends in edges_by_id(made)} == {("a", "c"), ("b", "c")}


def test_graphml_and_tables_say_the_same(saved, index, tmp_path):
    out, nodes_out, edges_out = tmp_path / "n.graphml", tmp_path / "nodes.tsv", tmp_path / "edges.tsv"
    options = NetworkOptions(k=4)
    made = network(saved, out, options, library=None, load_model=lambda: index.model, nodes_out=nodes_out)
    network(saved, edges_out, options, load_model=lambda: index.model)
    graph = nx.read_graphml(out)
    assert graph.number_of_nodes() == 78 and graph.number_of_edges() == len(made.edges) > 50
    assert graph.graph["k"] == 4 and graph.graph["score"] == "cosine"
    with open(nodes_out, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, dialect="excel-tab"))
    assert [row["spectrum_id"] for row in rows] == [graph.nodes[f"n{i}"]["spectrum_id"] for i in range(78)]
    for row, (_, data) in zip(rows, sorted(graph.nodes(data=True), key=lambda of: int(of[0][1:])), strict=True):
        assert float(row["precursor_mz"]) == data["precursor_mz"]
        assert row["component"] == str(data["component"])
        assert row["predicted"] == str(data["predicted"]).lower()
        assert row["retention_time"] == ("" if "retention_time" not in data else str(data["retention_time"]))
    with open(edges_out, newline="", encoding="utf-8") as file:
        edges = {(row["source"], row["target"]): float(row["score"]) for row in csv.DictReader(file, delimiter="\t")}
    names = {node: data["spectrum_id"] for node, data in graph.nodes(data=True)}
    for a, b, data in graph.edges(data=True):
        ends = (names[a], names[b]) if (names[a], names[b]) in edges else (names[b], names[a])
        assert edges.pop(ends) == pytest.approx(data["score"], abs=1e-6)
    assert not edges


def test_cytoscape_takes_every_value_and_calls_things_by_their_names(saved, index, tmp_path, monkeypatch):
    known = Index.open(saved, index.model)  # whose model is no folder that can be loaded
    monkeypatch.setattr(network_module, "Index", SimpleNamespace(open=lambda _: known))
    out = tmp_path / "my network.graphml"
    made = network(saved, out, NetworkOptions(k=4), library=saved, load_model=lambda: index.model)
    found = cytoscape_reader.read(out)
    assert found.complaints == [] and not found.is_directed
    assert found.network == {"name": "my network", **made.attributes}
    nodes = made.nodes.to_pylist()
    for row, node in zip(found.node.values(), nodes, strict=True):
        assert row == told(node)
    assert len(found.edge) == len(made.edges)
    for row, edge in zip(found.edge.values(), made.edges.to_pylist(), strict=True):
        ends = nodes[edge.pop("source")], nodes[edge.pop("target")]
        assert row.pop("ends") == tuple(f"n{nodes.index(end)}" for end in ends)
        name = " (cosine) ".join(told(end)["name"] for end in ends)
        assert row == {**told(edge), "name": name, "interaction": "cosine"}


@pytest.mark.parametrize("keep", [True, False])
def test_spectra_of_which_no_two_are_alike_make_a_network_without_edges(index, families, tmp_path, keep):
    path, out = tmp_path / "lone.mgf", tmp_path / "lone.graphml"
    write_mgf([spectrum for spectrum in families if spectrum.name], path)  # one of each family
    options = NetworkOptions(min_score=0.99, keep_singletons=keep)
    made, found = network(path, out, options, load_model=lambda: index.model), cytoscape_reader.read(out)
    assert len(made.edges) == len(found.edge) == 0 and found.complaints == []
    assert len(made.nodes) == len(found.node) == (12 if keep else 0)


def told(row: dict) -> dict:
    """What Cytoscape has of a row: no unknown values, text without blanks around it."""
    known = {name: value for name, value in row.items() if value is not None and value != ""}
    texts = {name: value.replace("\x0b", "\ufffd").strip() for name, value in known.items() if isinstance(value, str)}
    numbers = {name: float(str(np.float32(value))) for name, value in known.items() if name in FLOAT32_COLUMNS}
    return {**known, **texts, **numbers}


FLOAT32_COLUMNS = {"score", "hit_score"}


def test_library_hits(saved, index, families, tmp_path):
    queries = [like(s, f"q-{s.spectrum_id}", 0.05, name=None) for s in families if s.name]
    queries.append(random_spectrum(np.random.default_rng(9), "far", precursor_mz=999.0, polarity=1))
    library = Index.open(saved, index.model)
    made = build_network(of_index(Index.build(index.model, queries)), library=library)
    nodes = {node["spectrum_id"]: node for node in made.nodes.to_pylist()}
    assert nodes["q-F05-00"]["hit_library_id"] == "F05-00"
    assert nodes["q-F05-00"]["hit_name"] == "compound <5> & \x0b more"
    assert nodes["q-F05-00"]["hit_score"] > 0.9
    assert abs(nodes["q-F05-00"]["hit_precursor_error_ppm"]) < 1e-6
    assert nodes["far"]["hit_library_id"] is None and nodes["far"]["hit_score"] is None
    path = tmp_path / "queries.mgf"
    write_mgf(queries, path)
    for row in find(library, path, SearchOptions(k=1)):
        node = nodes[row.query_id]
        assert node["hit_library_id"] == row.library_id and node["hit_confidence"] == (row.confidence or None)
        for name in ("score", "probability", "precursor_error_ppm", "matched_peaks"):
            assert node[f"hit_{name}"] == pytest.approx(getattr(row, name), abs=1e-5), name
    assert made.counts["hits"] == 12 and "12 spectra with a library hit" in str(made)


def test_library_of_another_model(index, saved, families):
    """Spectra are embedded again with the model of the library."""
    library = Index.open(saved, index.model)
    one = build_network(of_index(Index.build(CountSketchModel(seed=3), families)), library=library)
    two = build_network(of_index(Index.build(index.model, families)), library=library)
    assert one.nodes["hit_library_id"].equals(two.nodes["hit_library_id"])
    assert one.nodes["hit_score"].equals(two.nodes["hit_score"])


def test_a_file_of_spectra_and_an_index_give_one_network(tmp_path, families, index, saved):
    path = tmp_path / "spectra.mgf"
    write_mgf(families, path)
    read = build_network(embedded_spectra(path, lambda: index.model))
    opened = build_network(embedded_spectra(saved, lambda: index.model))
    assert edges_by_id(read) == pytest.approx(edges_by_id(opened), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "neighbours is 0"),
        ({"min_score": 1.5}, "least score is 1.5"),
        ({"max_component": 1}, "cap is 1"),
        ({"max_component": -3}, "cap is -3"),
        ({"score": "entropy"}, "cosine, fused"),
        ({"precursor_ppm": 0.0}, "window is 0.0 ppm"),
        ({"neighbours": "some"}, "auto, exact, approximate"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        NetworkOptions(**options)


def fused_model(terms: tuple[str, ...]) -> CountSketchModel:
    """A model that carries a fused score of these terms."""
    model = CountSketchModel()
    score = FusedScore(terms, tuple(np.linspace(2, 1, len(terms)).tolist()), -1.0)
    fusion = Fusion(model.model_hash(), LookupOptions(), score, score, score, score)
    model.config = SimpleNamespace(fusion=fusion.to_tree())
    return model


def test_the_fused_score_is_that_of_every_pair(library):
    """Sixty spectra: all are within the depth, so the network is that of all pairs compared."""
    model = fused_model((EMBEDDING_COSINE, "hybrid entropy", "matched peaks"))
    spectra = of_index(Index.build(model, library))
    made = build_network(spectra, NetworkOptions(score="fused", k=4, min_score=0.3, max_component=0))
    columns, fusion = spectra.columns(), Fusion.from_tree(model.config.fusion)
    compared, count = ComparedSpectra(columns, fusion.lookups), len(spectra)
    scores = np.full((count, count), -np.inf, np.float32)
    for row in range(count):
        others = np.arange(count)
        cosine = exact_scores(spectra.vectors, np.full(count, row), others)
        scores[row] = sigmoid(fusion.open.total(cosine, compared.features(np.full(count, row), others)))
    scores[np.multiply.outer(spectra.polarity, spectra.polarity) == -1] = -np.inf
    np.fill_diagonal(scores, -np.inf)
    near = [set(np.lexsort((np.arange(count), -row))[:4][np.sort(-row)[:4] <= -np.float32(0.3)]) for row in scores]
    expected = {(i, int(j)): float(scores[i, j]) for i in range(count) for j in near[i] if i < j and i in near[j]}
    ends = zip(made.edges["source"].to_pylist(), made.edges["target"].to_pylist(), strict=True)
    assert dict(zip(ends, made.edges["score"].to_pylist(), strict=True)) == pytest.approx(expected, abs=1e-6)
    assert len(expected) > 10


def test_a_model_without_a_fused_score_is_told_before_anything_is_embedded(families, tmp_path, monkeypatch):
    path = tmp_path / "spectra.mgf"
    write_mgf(families, path)
    monkeypatch.setattr(CountSketchModel, "embed", lambda *_, **__: pytest.fail("spectra were embedded"))
    with pytest.raises(InputError, match="no fused score"):
        network(path, tmp_path / "n.graphml", NetworkOptions(score="fused"), load_model=CountSketchModel)


def test_wrong_files_are_named(saved, index, tmp_path):
    def run(out, **rest):
        return network(saved, out, load_model=lambda: index.model, **rest)

    with pytest.raises(InputError, match="its ending tells no format"):
        run(tmp_path / "graph.json")
    with pytest.raises(InputError, match=r"is a \.tsv"):
        run(tmp_path / "graph.graphml", nodes_out=tmp_path / "nodes.csv")
    with pytest.raises(InputError, match="name two files"):
        run(tmp_path / "a.tsv", nodes_out=tmp_path / "a.tsv")
    with pytest.raises(InputError, match="lies in the input"):
        run(saved / "graph.graphml")
    with pytest.raises(InputError, match="no fused score"):
        run(tmp_path / "graph.graphml", options=NetworkOptions(score="fused"))
    assert not list(tmp_path.iterdir())


def test_an_index_of_structures_is_no_input(tmp_path):
    write_manifest(tmp_path, {"command": "index build", "kind": "structures"})
    with pytest.raises(InputError, match="is an index of structures; name spectra"):
        embedded_spectra(tmp_path)


def test_a_failure_leaves_what_was_there(saved, index, tmp_path, monkeypatch):
    out = tmp_path / "graph.graphml"
    out.write_text("before")

    def fail(*_: object) -> None:
        raise RuntimeError("killed here")

    monkeypatch.setattr("ionbed.embeddings.graphml._data", fail)
    with pytest.raises(RuntimeError, match="killed here"):
        network(saved, out, load_model=lambda: index.model)
    assert out.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["graph.graphml"]


def test_the_command(tmp_path, families, capsys):
    from ionbed.encoder.configuration_ionbed import IonbedConfig
    from ionbed.encoder.modeling_ionbed import IonbedModel

    model, path, out = tmp_path / "model", tmp_path / "spectra.mgf", tmp_path / "net.graphml"
    IonbedModel(IonbedConfig(hidden_size=32, num_layers=1, num_heads=4)).save_pretrained(model)
    write_mgf(families, path)
    words = ["network", str(path), "--out", str(out), "--model", str(model), "--k", "3", "--no-singletons"]
    assert cli.main(words) == 0
    printed, log = capsys.readouterr()
    assert printed == "" and "78 spectra" in log
    assert nx.read_graphml(out).graph["k"] == 3
    assert cli.main(["network", str(path), "--out", str(tmp_path / "net.json"), "--model", str(model)]) == 2
    assert "its ending tells no format" in capsys.readouterr().err
    assert network_module.MIN_SCORES["cosine"] == 0.8
