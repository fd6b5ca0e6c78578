"""Cells hold one line of text, and numbers in plain decimals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.embeddings.exports.cells import decimal, one_line, rounded


@given(st.text(alphabet=st.characters()))
def test_any_text_is_one_line_that_stays_as_it_is(text):
    told = one_line(text)
    assert len(told.splitlines()) <= 1
    assert not set(told) & set("\t\x00\x0b\x1f\x7f\x85\u2028")
    assert told == told.strip() == one_line(told)
    told.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, ""),
        ("a\tb\r\n c", "a b c"),
        ("  a  b ", "a b"),
        ("\x00a\x1b", "a"),
        ("a\ud800", "a?"),
        ("β-D", "β-D"),
        (7, "7"),
    ],
)
def test_text(text, told):
    assert one_line(text) == told


@pytest.mark.parametrize(
    ("value", "places", "told"),
    [
        (0.1 + 0.2, 6, "0.3"),
        (-1e-9, 5, "0"),
        (1e-7, 6, "0"),
        (20.0, 4, "20"),
        (100, 0, "100"),
        (1e21, 2, "1" + "0" * 21),
        (-2.50, 2, "-2.5"),
        (None, 2, ""),
        (math.nan, 2, ""),
        (math.inf, 2, ""),
    ],
)
def test_decimals(value, places, told):
    assert decimal(value, places) == told


@pytest.mark.parametrize(
    ("value", "told"), [(0.1 + 0.2, "0.3"), (-1e-9, "0.0"), (None, "None"), (math.nan, "None"), (-math.inf, "None")]
)
def test_rounded_numbers(value, told):
    assert str(rounded(value, 6)) == told
