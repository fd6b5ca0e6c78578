"""Inner products of listed pairs, beside NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from ionbed.embeddings.pair_products import pair_products


@pytest.mark.parametrize("dim", [1, 7, 256])
def test_products_are_those_of_numpy_and_each_its_own(dim) -> None:
    rng = np.random.default_rng(dim)
    first, second = rng.normal(size=(20, 2 * dim)).astype(np.float32)[:, ::2], rng.normal(size=(30, dim))
    second = second.astype(np.float32)
    second.flags.writeable = False
    a, b = rng.integers(0, 20, 500), rng.integers(0, 30, 500)
    found = pair_products(first, second, a, b)
    expected = np.einsum("pd,pd->p", first[a].astype(np.float64), second[b].astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * dim)
    for pair in range(0, 500, 50):
        alone = pair_products(first[a[pair] : a[pair] + 1], second[b[pair] : b[pair] + 1], *np.zeros((2, 1), np.int64))
        assert alone[0] == found[pair]
    assert len(pair_products(first, second, a[:0], b[:0])) == 0
