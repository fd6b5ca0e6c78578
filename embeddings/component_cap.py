"""Connected components of a network, and the cap on their size: the weakest edges of a too large one are dropped."""

from __future__ import annotations

import numpy as np


def component_of(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return the connected component of each node.

    Parameters
    ----------
    first, second : int64 arrays of shape (n_edges,)
        The nodes of each edge.
    count : int
        Number of nodes.

    Returns
    -------
    int64 array of shape (count,)
        From 1, by falling size; components of equal size in the order of their first node.
    """
    roots = _Roots(count)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        roots.join(a, b)
    root = np.array([roots.of(node) for node in range(count)], np.int64)
    _, first_node, inverse, sizes = np.unique(root, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(len(sizes), np.int64)
    number[np.lexsort((first_node, -sizes))] = np.arange(1, len(sizes) + 1)
    return number[inverse]


def capped(first: np.ndarray, second: np.ndarray, strongest_first: np.ndarray, count: int, max_size: int) -> np.ndarray:
    """Return which edges stay when no component may have more than ``max_size`` nodes.

    The rule: as long as a component has more than ``max_size`` nodes, its weakest edge is dropped. A component that
    fits loses no edge. Components do not touch one another, so it does not matter which of several is looked at first:
    the edges that stay follow from the edges alone, whatever their order in the arrays.

    The rule is not carried out edge by edge. Edges are added from the strongest to the weakest instead: the components
    that the rule ends with are those that fit, and would no longer once the next edge that leaves them is added. In
    them stay the edges that are stronger than that one.

    GNPS drops all edges within 0.02 of the weakest at once, until a component fits (Watrous et al., PNAS 2012, 109,
    E1743, and the molecular networking workflow of GNPS); one at a time as here never drops more than it must.

    Parameters
    ----------
    first, second : int64 arrays of shape (n_edges,)
        The nodes of each edge; an edge is there once and has two different nodes.
    strongest_first : int64 array of shape (n_edges,)
        The edges from the strongest to the weakest; what decides between equal scores is up to the caller.
    count : int
        Number of nodes.
    max_size : int
        At least 1; 0 for no cap.

    Returns
    -------
    bool array of shape (n_edges,)
    """
    stays = np.ones(len(first), bool)
    if not max_size:
        return stays
    roots = _Roots(count)
    is_full = [False] * count  # of a root: one more edge that leaves its component would make it too large
    for edge in strongest_first.tolist():
        a, b = roots.of(int(first[edge])), roots.of(int(second[edge]))
        if a == b:
            stays[edge] = not is_full[a]
        elif is_full[a] or is_full[b] or roots.sizes[a] + roots.sizes[b] > max_size:
            is_full[a] = is_full[b] = True
            stays[edge] = False
        else:
            roots.join(a, b)
    return stays


class _Roots:
    """Disjoint sets of nodes, each known by one of them, its root."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))
        self.sizes = [1] * count

    def of(self, node: int) -> int:
        above = self._above
        while above[node] != node:
            above[node] = node = above[above[node]]
        return node

    def join(self, a: int, b: int) -> None:
        a, b = self.of(a), self.of(b)
        if a == b:
            return
        if self.sizes[a] < self.sizes[b]:
            a, b = b, a
        self._above[b] = a
        self.sizes[a] += self.sizes[b]
