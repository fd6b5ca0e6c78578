"""Duplicates: what makes two spectra one measurement; and ids of their own for all that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.spectra.deduplication import UniqueNames, measurement_key, stem_of_name
from ionbed.spectra.spectrum import Spectrum

ONE = Spectrum(
    "a",
    195.0877,
    np.array([110.0, 138.0], np.float32),
    np.array([0.5, 1.0], np.float32),
    adduct="[M+H]+",
    polarity=1,
    retention_time=60.0,
    collision_energy_raw="30 eV",
    inchikey="RYYVLZVUVIJVGH-UHFFFAOYSA-N",
    name="Caffeine",
)


@pytest.mark.parametrize(
    "change", [{"spectrum_id": "b"}, {"native_id": "b"}, {"source_file": "b"}, {"name": "1,3,7-Trimethylxanthine"},
               {"license": "CC0"}, {"laboratory": "Eawag"}, {"chemical_class": "Purines"}],
)  # fmt: skip
def test_provenance_does_not_tell_copies_apart(change: dict[str, Any]) -> None:
    assert measurement_key(replace(ONE, **change)) == measurement_key(ONE)


@pytest.mark.parametrize(
    "change",
    [{"precursor_mz": 195.0878}, {"adduct": None}, {"collision_energy_raw": "40 eV"}, {"inchikey": None},
     {"retention_time": 61.0}, {"retention_time": None}, {"polarity": -1}, {"instrument": "Q Exactive"},
     {"predicted": True},
     {"mz": np.array([110.0, 138.00002], np.float32)}, {"intensity": np.array([0.5000001, 1.0], np.float32)},
     {"mz": np.array([138.0], np.float32), "intensity": np.array([1.0], np.float32)}],
)  # fmt: skip
def test_another_measurement_has_another_key(change: dict[str, Any]) -> None:
    assert measurement_key(replace(ONE, **change)) != measurement_key(ONE)


def test_where_nothing_better_is_known_the_name_tells() -> None:
    nameless = replace(ONE, inchikey=None)
    assert measurement_key(nameless) != measurement_key(replace(nameless, name="Theophylline"))


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#2#2"])))
def test_ids_are_unique_and_keep_the_first(names: list[str]) -> None:
    unique = UniqueNames()
    given_names = [unique.assign(name) for name in names]
    assert len(set(given_names)) == len(names)
    assert all(given_name.startswith(name) for given_name, name in zip(given_names, names, strict=True))
    if names:
        assert given_names[0] == names[0]


@pytest.mark.parametrize(("name", "stem"), [("a", "a"), ("a#2", "a"), ("a#2#13", "a"), ("#2", ""), ("a#2b", "a#2b")])
def test_the_stem_of_an_id_is_without_the_numbers_at_its_end(name: str, stem: str) -> None:
    assert stem_of_name(name) == stem
