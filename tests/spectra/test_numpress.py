"""MS-Numpress: what pynumpress writes, and bytes that nobody wrote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.readers import numpress
from ionbed.spectra.readers.runs import BadArrayError

PIC = bytes.fromhex("7158e36238")  # encode_pic([1, 1000, 50, 0])


def test_numpress_integers():
    np.testing.assert_array_equal(numpress.decode_pic(PIC), [1, 1000, 50, 0])


@pytest.mark.parametrize("decode", [numpress.decode_linear, numpress.decode_slof, numpress.decode_pic])
@given(st.binary(max_size=64))
def test_numpress_takes_any_bytes(decode, data):
    try:
        values = decode(data)
    except BadArrayError:
        return
    assert values.dtype == np.float64


@pytest.mark.parametrize("seed", range(5))
def test_agreement_with_pynumpress(seed):
    pynumpress = pytest.importorskip("pynumpress")
    rng = np.random.default_rng(seed)
    mz, counts = np.sort(rng.uniform(50, 2000, 300)), rng.integers(0, 10**6, 300).astype(float)
    for encoded, decode, expected in (
        (pynumpress.encode_linear(mz, 1e5), numpress.decode_linear, pynumpress.decode_linear),
        (pynumpress.encode_slof(counts, 3000.0), numpress.decode_slof, pynumpress.decode_slof),
        (pynumpress.encode_pic(counts), numpress.decode_pic, pynumpress.decode_pic),
    ):
        np.testing.assert_allclose(decode(bytes(encoded)), expected(encoded), rtol=1e-14)
