"""Filters of a search let pass the library spectra that they name, and say what there is where they name nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed import InputError
from ionbed.embeddings.filters import Filters

ADDUCTS = ("[M+H]+", "[M+Na]+", "[M-H]-", None)
INSTRUMENTS = ("LC-ESI-QTOF", "ESI-QTOF", "LC-ESI-QFT", "GC-EI-Q", None)
LICENSES = ("CC BY", "CC BY 4.0", "cc0", "dl-de/by-2-0", None)
FORMULAS = ("C6H12O6", "H12C6O6", "C8H10N4O2", "C5H14NO+", None)

rows = st.lists(
    st.fixed_dictionaries(
        {
            "polarity": st.sampled_from([1, -1, None]),
            "adduct": st.sampled_from(ADDUCTS),
            "instrument_type": st.sampled_from(INSTRUMENTS),
            "collision_energy": st.one_of(st.none(), st.sampled_from([0.0, 10.0, 35.1, 60.0])),
            "formula": st.sampled_from(FORMULAS),
            "license": st.sampled_from(LICENSES),
        }
    ),
    min_size=1,
    max_size=12,
)
SCHEMA = pa.schema(
    [
        ("polarity", pa.int8()), ("adduct", pa.string()), ("instrument_type", pa.string()),
        ("collision_energy", pa.float32()), ("formula", pa.string()), ("license", pa.string()),
    ]
)  # fmt: skip


def table_of(records):
    return pa.Table.from_pylist(records, SCHEMA)


asked = st.builds(
    Filters,
    polarity=st.sampled_from([None, 1, -1]),
    adducts=st.lists(st.sampled_from(ADDUCTS[:-1]), max_size=2).map(tuple),
    instrument_types=st.lists(st.sampled_from(["QTOF", "q-tof", "lc-esi", "QFT"]), max_size=2).map(tuple),
    energy=st.sampled_from([None, (0.0, 35.1), (35.1, 35.1), (60.0, 100.0)]),
    formulas=st.lists(st.sampled_from(["C6H12O6", "C5H14NO"]), max_size=1).map(tuple),
    licenses=st.lists(st.sampled_from(["cc-by", "CC0"]), max_size=1).map(tuple),
)


def passes(filters, row):
    """The same, row by row and in plain words."""
    formula = {"C6H12O6": "C6H12O6", "H12C6O6": "C6H12O6", "C5H14NO+": "C5H14NO"}.get(row["formula"])
    license = {"CC BY": "cc-by", "CC BY 4.0": "cc-by", "cc0": "CC0"}.get(row["license"])
    instruments = {
        "LC-ESI-QTOF": {"QTOF", "lc-esi", "q-tof"}, "ESI-QTOF": {"QTOF", "q-tof"}, "LC-ESI-QFT": {"QFT", "lc-esi"},
    }.get(row["instrument_type"], set())  # fmt: skip
    energy = row["collision_energy"]
    return (
        filters.polarity in (None, row["polarity"])
        and (not filters.adducts or row["adduct"] in filters.adducts)
        and (not filters.instrument_types or bool(instruments & set(filters.instrument_types)))
        and (filters.energy is None or (energy is not None and filters.energy[0] <= energy <= filters.energy[1]))
        and (not filters.formulas or formula in filters.formulas)
        and (not filters.licenses or license in filters.licenses)
    )


@given(rows, asked)
def test_a_row_passes_if_it_has_what_every_filter_asks(records, filters):
    assert filters.mask(table_of(records)).tolist() == [passes(filters, row) for row in records]


@given(rows, asked, st.integers(0, 12))
def test_a_row_passes_or_not_whatever_stands_beside_it(records, filters, place):
    table = table_of(records)
    parts = pa.concat_tables([table.slice(0, place), table.slice(place)])
    assert filters.mask(parts).tolist() == filters.mask(table).tolist()


@given(rows, asked)
def test_why_nothing_is_left_names_filters_that_together_let_nothing_pass(records, filters):
    table = table_of(records)
    if filters and not filters.mask(table).any():
        reason = filters.why_none(table)
        words = reason.removeprefix("none has ").removeprefix("all of ")
        assert words and all(part in str(filters) for part in words.split(", "))


def test_no_filter_is_empty_and_lets_everything_pass():
    assert not Filters() and Filters(polarity=1)
    assert Filters().mask(table_of([{}, {}])).tolist() == [True, True] and Filters().needs() == ()


def test_words_are_read_as_the_store_spells_them():
    filters = Filters.from_words(polarity="positive", adducts=["M+H", "(M+H)+", "M-H2O+H"], energy="20-40")
    assert filters == Filters(1, ("[M+H]+", "[M+H-H2O]+"), (), (20.0, 40.0))
    assert Filters.from_words(polarity="-").polarity == -1 and Filters.from_words(polarity="-1").polarity == -1
    assert Filters.from_words(energy="20").energy == (20.0, 20.0)
    assert Filters.from_words(energy="-40").energy == (0.0, 40.0)
    assert Filters.from_words(energy="20-").energy[0] == 20.0
    assert Filters.from_words(energy=[10, 30]).energy == (10.0, 30.0)
    assert str(Filters.from_words(polarity="neg", licenses=["CC0", "CC BY"], energy="1-2")) == (
        "polarity negative, collision energy 1 to 2 eV, licence CC0 or CC BY"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"polarity": "north"}, "positive or negative"),
        ({"adducts": ["[X+H]"]}, r"\[X\+H\]"),
        ({"energy": "40-20"}, "LOW-HIGH"),
        ({"energy": "low"}, "LOW-HIGH"),
        ({"energy": "-"}, "LOW-HIGH"),
        ({"energy": [1.0]}, "two"),
        ({"energy": [float("nan"), 2.0]}, "LOW-HIGH"),
        ({"formulas": ["sugar"]}, "sugar"),
        ({"instrument_types": [" - "]}, "instrument"),
        ({"licenses": [""]}, "licence"),
    ],
)
def test_a_word_that_is_none_is_told(words, said):
    with pytest.raises(InputError, match=said):
        Filters.from_words(**words)


def test_a_value_that_no_library_spectrum_has_is_told_with_those_there_are():
    table = table_of(
        [{"polarity": 1, "adduct": "[M+Na]+", "collision_energy": 40.0}]
        + [{"polarity": 1, "adduct": "[M+H]+", "instrument_type": "LC-ESI-QTOF", "collision_energy": 20.0,
            "license": "CC0"}] * 3
    )  # fmt: skip
    Filters(1, ("[M+H]+",), ("QTOF",), (10.0, 30.0), (), ("cc0",)).refuse_unknown(table)
    with pytest.raises(InputError, match=r"adduct \[M\+K\]\+; it has \[M\+H\]\+ \(3\), \[M\+Na\]\+ \(1\)$"):
        Filters(adducts=("[M+H]+", "[M+K]+")).refuse_unknown(table)
    with pytest.raises(InputError, match=r"instrument type Orbitrap; it has LC-ESI-QTOF \(3\)$"):
        Filters(instrument_types=("Orbitrap",)).refuse_unknown(table)
    with pytest.raises(InputError, match="from 20 to 40 eV"):
        Filters(energy=(50.0, 60.0)).refuse_unknown(table)
    with pytest.raises(InputError, match=r"polarity negative; it has positive \(4\)"):
        Filters(polarity=-1).refuse_unknown(table)
    with pytest.raises(InputError, match="it has none at all"):
        Filters(formulas=("C6H12O6",)).refuse_unknown(table)
    Filters(adducts=("[M+Na]+",), licenses=("CC0",)).refuse_unknown(table)  # none together, which is nothing wrong


def test_many_rows_are_quick():
    import time

    count = 1_000_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "polarity": pa.array(rng.choice([1, -1], count).astype(np.int8)),
            "adduct": pa.DictionaryArray.from_arrays(rng.integers(0, 3, count), list(ADDUCTS[:3])).cast(pa.string()),
            "instrument_type": pa.DictionaryArray.from_arrays(rng.integers(0, 4, count), list(INSTRUMENTS[:4])).cast(
                pa.string()
            ),
            "collision_energy": pa.array(rng.uniform(0, 100, count).astype(np.float32)),
        }
    )
    filters = Filters(1, ("[M+H]+",), ("QTOF",), (20.0, 40.0))
    filters.mask(table.slice(0, 10))
    began = time.perf_counter()
    assert 0.01 < filters.mask(table).mean() < 0.03
    assert time.perf_counter() - began < 2.0  # some 0.1 s; a loop over rows takes many times this
