"""Mutual k-nearest neighbours, beside every pair compared; and the cap on components, beside its rule done by hand."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.embeddings.component_cap import capped, component_of
from ionbed.embeddings.mutual_neighbours import Pairs, exact_scores, mutual, nearest_pairs


def unit_vectors(rng: np.random.Generator, count: int, dim: int = 8, spread: float = 0.5) -> np.ndarray:
    """Vectors in groups, some of them copies of others."""
    centres = rng.normal(size=(max(1, count // 5), dim))
    vectors = centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, dim))
    copied = rng.integers(0, count, count // 3)
    vectors[copied] = vectors[rng.integers(0, count, count // 3)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_brute_force(vectors: np.ndarray, polarity: np.ndarray, k: int, min_score: float) -> dict[tuple[int, int], float]:
    """Mutual neighbours, straight from what they are."""
    count = len(vectors)
    near = []
    for i in range(count):
        others = np.array([j for j in range(count) if j != i and polarity[i] * polarity[j] != -1], int)
        scores = np.array([exact_scores(vectors, np.array([i]), np.array([j]))[0] for j in others], np.float32)
        order = np.lexsort((others, -scores))[:k]
        near.append({int(others[o]): float(scores[o]) for o in order if scores[o] >= np.float32(min_score)})
    return {(i, j): s for i in range(count) for j, s in near[i].items() if i < j and i in near[j]}


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    return dict(zip(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), pairs.scores.tolist(), strict=True))


@given(
    seed=st.integers(0, 2**20),
    count=st.integers(0, 40),
    k=st.integers(1, 12),
    min_score=st.sampled_from([-1.0, 0.0, 0.5, 0.7, 0.95]),
    tile=st.integers(1, 50),
    kinds=st.sampled_from([(1,), (-1, 1), (-1, 0, 1)]),
)
def test_mutual_neighbours_are_those_of_brute_force(seed, count, k, min_score, tile, kinds):
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng, count) if count else np.empty((0, 8), np.float32)
    polarity = rng.choice(np.array(kinds, np.int8), count)
    pairs = mutual(nearest_pairs(vectors, polarity, k, min_score, tile=tile), count, k)
    assert as_dict(pairs) == by_brute_force(vectors, polarity, k, min_score)
    assert (pairs.first < pairs.second).all()


def test_what_is_kept_meanwhile_is_bounded(monkeypatch):
    """The pairs that wait are cut down to what may matter, many times, and nothing that matters is lost."""
    from ionbed.embeddings import mutual_neighbours

    rng = np.random.default_rng(3)
    vectors, polarity = unit_vectors(rng, 900, spread=1.0), np.ones(900, np.int8)
    expected = as_dict(mutual(nearest_pairs(vectors, polarity, 5, -1.0), 900, 5))
    cuts = []
    kept = mutual_neighbours._kept

    def counted(pairs, *rest):
        cuts.append(len(pairs))
        return kept(pairs, *rest)

    monkeypatch.setattr(mutual_neighbours, "_kept", counted)
    monkeypatch.setattr(mutual_neighbours, "FEWEST_PAIRS", 1)
    monkeypatch.setattr(mutual_neighbours, "PAIRS_PER_NEIGHBOUR", 1)
    pairs = nearest_pairs(vectors, polarity, 5, -1.0, tile=50)
    assert as_dict(mutual(pairs, 900, 5)) == expected
    assert len(cuts) >= 4
    assert max(cuts) < 900 * 899 / 2 / 10


def test_the_pairs_do_not_depend_on_the_order_of_the_rows():
    rng = np.random.default_rng(1)
    vectors, polarity = unit_vectors(rng, 300, dim=32), rng.choice(np.array([-1, 0, 1], np.int8), 300)
    expected = mutual(nearest_pairs(vectors, polarity, 4, 0.3), 300, 4)
    order = rng.permutation(300)
    shuffled = nearest_pairs(vectors[order], polarity[order], 4, 0.3, tile=64)
    found = mutual(shuffled, 300, 4, order=order)
    ends = np.sort(order[np.stack([found.first, found.second])], axis=0)
    assert dict(zip(map(tuple, ends.T.tolist()), found.scores.tolist(), strict=True)) == as_dict(expected)


def by_the_rule(edges: list[tuple[int, int]], strongest_first: list[int], count: int, max_size: int) -> set[int]:
    """Drop the weakest edge of a component that is too large, until none is."""
    place = {edge: p for p, edge in enumerate(strongest_first)}
    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from((*ends, {"edge": edge}) for edge, ends in enumerate(edges))
    while True:
        large = [c for c in nx.connected_components(graph) if len(c) > max_size]
        if not large:
            return {edge for _, _, edge in graph.edges(data="edge")}
        inside = graph.subgraph(large[-1]).edges(data="edge")
        a, b, _ = max(inside, key=lambda of: place[of[2]])
        graph.remove_edge(a, b)


graphs = st.integers(2, 14).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] < e[1]),
            max_size=40,
            unique=True,
        ),
    )
)


@given(graph=graphs, max_size=st.integers(1, 8), data=st.data())
def test_the_cap_is_its_rule(graph, max_size, data):
    count, edges = graph
    order = data.draw(st.permutations(range(len(edges))))
    first, second = (np.array([e[side] for e in edges], np.int64) for side in (0, 1))
    stays = capped(first, second, np.array(order, np.int64), count, max_size)
    assert set(np.flatnonzero(stays).tolist()) == by_the_rule(edges, order, count, max_size)
    component = component_of(first[stays], second[stays], count)
    assert np.bincount(component).max() <= max_size
    again = capped(first[stays], second[stays], np.argsort(np.argsort(order)[stays]), count, max_size)
    assert again.all(), "what fits loses nothing"


@given(graph=graphs, data=st.data())
def test_the_cap_does_not_depend_on_the_order_of_the_edges(graph, data):
    count, edges = graph
    strength = np.array(data.draw(st.permutations(range(len(edges)))), np.int64)
    moved = np.array(data.draw(st.permutations(range(len(edges)))), np.int64)
    first, second = (np.array([e[side] for e in edges], np.int64) for side in (0, 1))
    stays = capped(first, second, np.argsort(strength), count, 4)
    assert (capped(first[moved], second[moved], np.argsort(strength[moved]), count, 4) == stays[moved]).all()


def test_no_cap():
    first, second = np.arange(9), np.arange(1, 10)
    assert capped(first, second, np.arange(9), 10, 0).all()
    assert capped(first, second, np.arange(9), 10, 10).all()
    assert not capped(first, second, np.arange(9), 10, 9).all()


def test_components_are_numbered_by_size_and_first_node():
    first, second = np.array([4, 5, 1, 2]), np.array([5, 6, 2, 7])
    assert component_of(first, second, 9).tolist() == [3, 1, 1, 4, 2, 2, 2, 1, 5]
    assert component_of(np.empty(0, int), np.empty(0, int), 0).tolist() == []


@pytest.mark.parametrize("k", [1, 3])
def test_copies_beyond_k_are_told_apart_by_their_order(k):
    """Of a dozen copies each has eleven others at the same score: those that come first are nearer."""
    vectors = np.repeat(np.eye(3, dtype=np.float32), 12, axis=0)
    pairs = mutual(nearest_pairs(vectors, np.ones(36, np.int8), k, 0.7), 36, k)
    assert as_dict(pairs) == by_brute_force(vectors, np.ones(36, np.int8), k, 0.7)
    assert len(pairs)
