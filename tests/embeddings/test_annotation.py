"""What a hit tells besides its score: the difference of the masses, confidence in words, and warnings of the query."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.embeddings import annotation
from ionbed.embeddings.annotation import ANNOTATED_COLUMNS, annotate, confidence, warnings_of
from ionbed.embeddings.mass_differences import likely_differences, mass_differences, plausible_differences
from ionbed.spectra.adducts import adduct_mz, normalise_adduct
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.molecules import atom_counts, formula_mass_and_charge
from ionbed.spectra.pair_features import COMMON_DIFFERENCES, COMMON_TOLERANCE_DA
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import table_from_spectra

ADDUCTS = ("[M+H]+", "[M+Na]+", "[M+2H]2+", "[2M+H]+", "[M-H]-", "[M+HCOO]-")


def spectrum(spectrum_id, precursor_mz, peaks=(50.0, 60.0, 70.0, 80.0), **fields):
    return Spectrum(spectrum_id, precursor_mz, np.array(peaks, np.float32), np.ones(len(peaks), np.float32), **fields)


def ion(mass, name):
    adduct = normalise_adduct(name)
    return adduct_mz(mass, adduct), adduct.charge, name


def difference(query, hit):
    """Of two ions, each m/z, charge and adduct or None."""
    columns = [
        np.array([value], kind) for ion in (query, hit) for value, kind in zip(ion, (float, int, object), strict=True)
    ]
    return mass_differences(*columns)[0]


masses = st.floats(100, 900)


@given(masses, masses, st.sampled_from(ADDUCTS), st.sampled_from(ADDUCTS))
def test_the_difference_is_that_of_the_molecules_whatever_the_ions(first, second, one, other):
    assert difference(ion(first, one), ion(second, other)) == pytest.approx(first - second, abs=1e-6)


@given(masses, masses, st.sampled_from(ADDUCTS))
def test_an_ion_without_an_adduct_is_taken_for_one_like_the_other(first, second, name):
    (mz, charge, _), hit = ion(first, name), ion(second, name)
    assert difference((mz, charge, None), hit) == pytest.approx(first - second, abs=1e-6)
    assert difference(hit, (mz, charge, None)) == pytest.approx(second - first, abs=1e-6)


@given(masses, masses)
def test_without_any_adduct_ions_are_protonated_and_without_a_charge_nothing_is_known(first, second):
    query, hit = ion(first, "[M+H]+"), ion(second, "[M+2H]2+")
    assert difference((*query[:2], None), (*hit[:2], None)) == pytest.approx(first - second, abs=1e-5)
    assert np.isnan(difference((query[0], 0, None), hit)) and np.isnan(difference(query, (hit[0], 0, None)))


def mass_of(formula):
    gained, _, lost = formula.partition("-")
    return sum(sign * formula_mass_and_charge(part)[0] for sign, part in ((1, gained), (-1, lost)) if part)


def atoms_of(formula):
    gained, _, lost = formula.partition("-")
    more, less = atom_counts(gained), atom_counts(lost)
    return {symbol: number for symbol in {*more, *less} if (number := more.get(symbol, 0) - less.get(symbol, 0))}


@given(st.floats(-300, 300))
def test_a_formula_has_the_mass_that_it_stands_for(mass):
    found = plausible_differences(mass)
    for entry in found:
        assert mass_of(entry.formula) == pytest.approx(entry.mass, abs=2e-5)
        assert abs(entry.mass - mass) <= COMMON_TOLERANCE_DA
    assert [entry.formula for entry in plausible_differences(-mass)] == [_turned(entry.formula) for entry in found]


def _turned(formula):
    gained, _, lost = formula.partition("-")
    return f"{lost}-{gained}" if gained else lost


@pytest.mark.parametrize("formula", COMMON_DIFFERENCES)
def test_a_common_difference_is_found_either_way_round(formula):
    [found, turned] = likely_differences(np.array([mass_of(formula), -mass_of(formula)]), [None, None])
    assert atoms_of(found) == atoms_of(formula)
    assert atoms_of(turned) == {symbol: -number for symbol, number in atoms_of(formula).items()}


def test_likely_formulas_and_none():
    asked = {
        14.0157: "CH2",
        -18.0106: "-H2O",
        324.1056: "C12H20O10",
        0.984: "O-HN",
        0.0: "",
        np.nan: "",
        21.98: "",
        1e4: "",
    }
    assert likely_differences(np.array(list(asked)), [None] * len(asked)) == list(asked.values())
    # What the hit has not got, it cannot lose; what is one of many formulas of a mass is not told.
    assert likely_differences(np.array([-15.9949, -15.9949]), ["C6H6", "C6H6O"]) == ["", "-O"]
    assert plausible_differences(117.0578) and likely_differences(np.array([117.0578]), [None]) == [""]
    assert likely_differences(np.empty(0), []) == []


def test_what_is_told_of_hits():
    query = spectrum("q", 214.0157, (50.0, 94.0157), charge=1, polarity=1, adduct="[M+H]+")
    library = [
        spectrum("same", 214.016, (50.0, 100.0), charge=1, polarity=1, adduct="[M+H]+", formula="C9H11NO5"),
        spectrum("shorter", 200.0, (50.01, 80.0), charge=1, polarity=1, adduct="[M+H]+", formula="C8H9NO5"),
        spectrum("sodium", 235.9976, charge=1, polarity=1, adduct="[M+Na]+"),
        spectrum("unknown", 200.0),
    ]
    place = np.array([0, 1, 2, 3])
    table = table_from_spectra(library).select(list(ANNOTATED_COLUMNS))
    told = annotate(SpectrumColumns.from_spectra([query]), np.zeros(4, np.int64), table, place, is_window=False)
    assert told.matched_peaks.tolist() == [1, 2, 1, 2]  # 94.0157 is 80.0 with CH2
    assert told.mass_difference[:3] == pytest.approx([-0.0003, 14.0157, 0.0], abs=1e-3) and np.isnan(
        told.mass_difference[3]
    )
    assert told.difference_formula == ["", "CH2", "", ""]
    assert told.is_same_mass.tolist() == [True, False, True, False]  # of the sodium adduct the molecule's


def told_of(query, hit, **options):
    """What is told of one hit, each an m/z, charge and adduct."""
    first, second = (
        spectrum(name, mz, charge=charge, polarity=None if charge is None else 1, adduct=adduct, formula="C9H11NO5")
        for name, (mz, charge, adduct) in (("q", query), ("h", hit))
    )
    table = table_from_spectra([second]).select(list(ANNOTATED_COLUMNS))
    return annotate(SpectrumColumns.from_spectra([first]), np.zeros(1, int), table, np.zeros(1, int), **options)


@pytest.mark.parametrize("is_window", [True, False])
@pytest.mark.parametrize(
    ("query", "hit", "is_same_mass", "is_same_ion"),
    [
        ((500.0, None, None), (500.004, 1, "[M+H]+"), True, True),
        ((500.0, 1, None), (500.004, 1, "[M+Na]+"), True, True),
        ((500.0, 2, "[M+2H]2+"), (500.004, 2, "[M+2H]2+"), True, True),
        ((500.0, 1, "[M+H]+"), (500.0, 1, "[M+NH4]+"), False, False),  # 17 Da between the molecules
        ((500.0, 1, None), (500.0, 2, None), False, False),
        (ion(998.0, "[M+H]+"), ion(998.008, "[M+2H]2+"), True, False),
    ],
)
def test_a_hit_of_another_ion_is_another_molecule_in_a_window_as_well(query, hit, is_same_mass, is_same_ion, is_window):
    told = told_of(query, hit, is_window=is_window)
    assert told.is_same_mass.tolist() == [is_same_mass] and told.is_same_ion.tolist() == [is_same_ion]


def test_a_wide_window_makes_no_analogue_a_candidate():
    near, far = (500.0, 1, None), (500.4, 1, None)
    for is_window in (True, False):
        told = told_of(near, far, is_window=is_window)
        assert told.is_same_mass.tolist() == [is_window] and not told.is_same_ion[0]
    assert not told_of(near, (514.0157, 1, None), is_window=True).is_same_mass[0]


def words(**given):
    known = {
        "is_same_mass": True, "is_same_ion": True, "has_structure": True, "has_formula": True, "predicted": False,
        "probability": 0.95, "is_flattered": False, "matched_peaks": 6,
    }  # fmt: skip
    return confidence(**{**known, **given})


@given(
    st.fixed_dictionaries(
        {name: st.booleans() for name in (
            "is_same_mass", "is_same_ion", "has_structure", "has_formula", "predicted", "is_flattered",
        )} | {"probability": st.none() | st.floats(0, 1), "matched_peaks": st.integers(0, 9)}
    )
)  # fmt: skip
def test_no_search_gives_level_1_and_level_2_asks_for_all_that_a_search_sees(given_):
    found = confidence(**given_)
    assert found.startswith("level ") and found[6] in "2345"
    is_all_there = all(given_[name] for name in ("is_same_mass", "is_same_ion", "has_structure"))
    is_all_there &= not given_["predicted"] and not given_["is_flattered"]
    is_all_there &= (given_["probability"] or 0) >= 0.9 and given_["matched_peaks"] >= 3
    assert (found == annotation.LEVEL_2A) == is_all_there == (found[6] == "2")


def test_levels_in_words():
    assert words() == annotation.LEVEL_2A
    assert words(probability=0.5) == annotation.LEVEL_3 and words(probability=0.05) == annotation.LEVEL_5
    assert words(probability=None) == annotation.LEVEL_3_AT_BEST
    assert (
        words(matched_peaks=2) == annotation.LEVEL_3_FEW_PEAKS and words(is_same_ion=False) == annotation.LEVEL_3_NEAR
    )
    assert words(is_flattered=True) == annotation.LEVEL_3_FLATTERED
    assert words(predicted=True) == annotation.LEVEL_3_PREDICTED
    assert words(predicted=True, probability=None) == annotation.LEVEL_3_PREDICTED_AT_BEST
    assert words(predicted=True, probability=0.01) == annotation.LEVEL_5
    assert words(is_same_mass=False) == annotation.LEVEL_3_ANALOGUE
    assert words(is_same_mass=False, has_structure=False) == annotation.LEVEL_5_ANALOGUE
    assert words(has_structure=False) == annotation.LEVEL_4
    assert words(has_structure=False, has_formula=False) == annotation.LEVEL_5_NAMELESS


def test_warnings_of_a_query_that_the_model_has_not_seen_the_like_of():
    ranges = {"precursor_mz": [90.0, 1600.0], "polarities": {"+1": 0.7, "-1": 0.3}, "charges": {"+1": 0.7, "-1": 0.3}}
    training = [{"command": "pretrain", "ranges": ranges}, {"command": "finetune"}]
    model = SimpleNamespace(config=SimpleNamespace(training=training, max_peaks=4))
    queries = SpectrumColumns.from_spectra(
        [
            spectrum("usual", 300.0, polarity=1, charge=1),
            spectrum("heavy", 1700.0, polarity=1, charge=3),
            spectrum("sparse", 300.0, (50.0, 60.0)),
            spectrum("rich", 300.0, range(50, 70), polarity=-1, charge=-1),
        ]
    )
    usual, heavy, sparse, rich = warnings_of(queries, model)
    assert usual == ""
    assert heavy.split("; ") == [
        "charge +3: the model was trained on hardly any such spectrum",
        "m/z 1700.0000: the model was trained on 90 to 1600",
    ]
    assert sparse == "2 peaks only; polarity unknown: compared with spectra of both"
    assert rich == "of 20 peaks the model reads the 4 most intense"
    assert warnings_of(queries, object())[1] == ""


def test_the_model_that_ships_says_what_it_was_trained_on():
    import json
    from importlib.resources import files

    config = json.loads(files("ionbed").joinpath("encoder/checkpoints/small/config.json").read_text())
    for stage in config["training"]:
        assert stage["ranges"]["precursor_mz"][0] < 100 < 1000 < stage["ranges"]["precursor_mz"][1]
        assert stage["ranges"]["charges"].keys() >= {"+1", "-1"}
