"""Inner products of listed pairs of vectors in double precision, without a copy of the vectors for each pair."""

from __future__ import annotations

import numpy as np

from ..spectra.compiling import compiled


def pair_products(first: np.ndarray, second: np.ndarray, of_first: np.ndarray, of_second: np.ndarray) -> np.ndarray:
    """Return the inner products of listed pairs, float64 of shape (n_pairs,).

    That of a pair does not depend on the pairs beside it.

    Parameters
    ----------
    first, second : float32 arrays of shape (any, dim)
    of_first, of_second : int64 arrays of shape (n_pairs,)
        Rows of either.
    """
    result = np.empty(len(of_first))
    # All aligned and without gaps: the code is compiled once, and adds up in one order.
    first, second = (np.require(array, np.float32, ["C", "A"]) for array in (first, second))
    _products(
        first, second, np.ascontiguousarray(of_first, np.int64), np.ascontiguousarray(of_second, np.int64), result
    )
    return result


def _add_up(
    first: np.ndarray, second: np.ndarray, of_first: np.ndarray, of_second: np.ndarray, result: np.ndarray
) -> None:
    for pair in range(len(of_first)):
        a, b = of_first[pair], of_second[pair]
        total = 0.0
        for place in range(first.shape[1]):
            total += np.float64(first[a, place]) * np.float64(second[b, place])
        result[pair] = total


_VECTORS, _ROWS = "Array(float32, 2, 'C', readonly=True)", "int64[::1]"
# To add up in any order lets the compiler take several numbers at a time. One signature: one machine code for all.
_products = compiled(
    _add_up, f"void({_VECTORS}, {_VECTORS}, {_ROWS}, {_ROWS}, float64[::1])", fastmath={"reassoc", "nsz"}
)
