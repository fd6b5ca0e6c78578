"""Probabilities of hits: they never fall with the score, and are right as often as they say."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed import InputError
from ionbed.embeddings import calibration_fit, calibration_queries
from ionbed.embeddings.calibration import (
    DEPTH,
    RISING,
    TERMS,
    Calibration,
    Curve,
    candidates,
    curve_of,
    expected_share_wrong,
    probabilities,
    way,
)
from ionbed.embeddings.calibration_fit import calibrate_from_library, calibrate_from_queries, fit, quality
from ionbed.embeddings.hits import EmbeddedQueries, Hits
from ionbed.embeddings.index import Index
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import table_from_spectra

from .conftest import CountSketchModel

CURVE = Curve(tuple(np.linspace(0.1, 1.0, len(TERMS)).tolist()), -1.0)


def key(number):
    letters = "".join(chr(65 + number // 26**place % 26) for place in range(3))
    return f"{letters}AAAAAAAAAAA-UHFFFAOYSA-N"


def made_library(num_molecules=130, seed=0):
    """Of each molecule two spectra of each of two laboratories, much alike, among isomers that share some peaks."""
    rng = np.random.default_rng(seed)
    spectra = []
    for number in range(num_molecules):
        shared = np.random.default_rng(number // 5).uniform(50, 180, 4)
        own = rng.uniform(50, 180, 8)
        for copy in range(4):
            mz = np.unique(np.concatenate([shared, own[rng.random(8) < 0.8]]).astype(np.float32))
            intensity = rng.uniform(0.1, 1.0, len(mz)).astype(np.float32)
            spectra.append(
                Spectrum(
                    f"s{number}-{copy}", 200.0 + number // 5, mz, intensity / intensity.max(), polarity=1, charge=1,
                    inchikey=key(number), laboratory="AB"[copy % 2], collision_energy=20.0,
                )
            )  # fmt: skip
    return spectra


@pytest.fixture(scope="module")
def index():
    return Index.build(CountSketchModel(), made_library())


@pytest.fixture(scope="module")
def calibration(index):
    return calibrate_from_library(index)


terms = st.integers(1, 60).flatmap(
    lambda count: st.lists(
        st.lists(st.floats(-1, 3), min_size=len(TERMS), max_size=len(TERMS)), min_size=count, max_size=count
    ).map(np.array)
)


@settings(max_examples=30)
@given(terms, st.data())
def test_a_fitted_curve_never_falls_with_the_score(values, data):
    is_right = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    weights, intercept = fit(values, is_right, np.ones(len(values)), 1e-3)
    curve = Curve(tuple(weights.tolist()), intercept)
    assert np.isfinite([*weights, intercept]).all() and weights[: len(RISING)].min() >= 0
    higher = values.copy()
    higher[:, : len(RISING)] += data.draw(st.floats(0, 1))
    assert (curve(higher) >= curve(values) - 1e-12).all()


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.integers(0, 3))
def test_what_tells_nothing_gives_the_base_rate(outcomes, seed):
    is_right = np.array(outcomes)
    weight = np.random.default_rng(seed).uniform(0.5, 2, len(outcomes))
    weights, intercept = fit(np.full((len(outcomes), len(TERMS)), 0.7), is_right, weight, 1e-2)
    base = (weight * is_right).sum() / weight.sum()
    found = Curve(tuple(weights.tolist()), intercept)(np.full((1, len(TERMS)), 0.7))
    assert found[0] == pytest.approx(base, abs=1e-3)


def test_the_fit_is_that_of_another_solver():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, len(TERMS)))
    truth = rng.normal(size=len(TERMS))
    is_right = rng.random(400) < 1 / (1 + np.exp(-(values @ truth)))
    weight = rng.uniform(0.2, 2, 400)
    weights, intercept = fit(values, is_right, weight, 1e-3)

    def loss(at):
        total = values @ at[1:] + at[0]
        spread = values.std(axis=0)
        each = weight / weight.sum() * (np.logaddexp(0, total) - is_right * total)
        return each.sum() + 1e-3 * ((at[1:] * spread) ** 2).sum()

    bounds = [(None, None), *((0, None) if name in RISING else (None, None) for name in TERMS)]
    other = minimize(loss, np.zeros(len(TERMS) + 1), bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-14})
    assert (weights[: len(RISING)] == 0).any()
    assert loss(np.array([intercept, *weights])) == pytest.approx(other.fun, abs=1e-6)


def test_probabilities_of_a_library_hold_on_queries_that_it_was_not_fitted_to(index, calibration):
    curve = calibration.curves[way("cosine", True)]
    assert curve.record["laboratories"] == "other" and curve.record["queries"] == 130
    held_out = curve.record["held_out"]
    assert held_out["brier"] < 0.8 * held_out["brier_of_base_rate"] and held_out["ece"] < 0.12
    assert sum(count for *_, count in held_out["reliability"]) == held_out["pairs"]
    asked = calibration_queries.library_queries(index, np.random.default_rng(99))
    found, is_right = calibration_fit.found_for(index, asked, "cosine", True)
    assert quality(curve(found.terms), is_right)["ece"] < 0.12


def test_what_is_left_out_of_the_library_is_no_hit(index):
    asked = calibration_queries.library_queries(index, np.random.default_rng(3))
    rows = calibration_fit.hits_without(index, asked, "cosine", False)[0]
    laboratory = np.array(index.library.columns(["laboratory"])["laboratory"].to_pylist())
    molecule = np.array([text[:14] for text in index.library.columns(["inchikey"])["inchikey"].to_pylist()])
    assert 0 < asked.is_present.sum() < len(asked.is_present)
    for query, hits in enumerate(rows):
        assert not np.isin(hits, asked.left_out[query]).any() and (hits >= 0).all()
        own = np.flatnonzero(molecule == asked.molecule[query])
        if asked.is_present[query]:
            assert len(asked.left_out[query]) == 2 and len(set(laboratory[asked.left_out[query]])) == 1
        else:
            assert asked.left_out[query].tolist() == own.tolist()


def test_without_a_second_laboratory_the_spectrum_alone_is_left_out(monkeypatch):
    spectra = [spectrum for spectrum in made_library(110) if spectrum.laboratory == "A"]
    calibration = calibrate_from_library(Index.build(CountSketchModel(), spectra))
    assert {curve.record["laboratories"] for curve in calibration.curves.values()} == {"any"}
    few = Index.build(CountSketchModel(), made_library(40))
    assert calibrate_from_library(few) is None


def test_a_query_has_another_spectrum_of_its_ion_in_the_library():
    """One spectrum in each polarity is no second one: nothing could be found, and all would be called improbable."""
    other = [
        dataclasses.replace(s, spectrum_id=f"{s.spectrum_id}-", precursor_mz=s.precursor_mz - 2.0146, polarity=-1)
        for s in made_library(110)[::4]
    ]
    alone = Index.build(CountSketchModel(), [*made_library(110)[::4], *other])
    assert calibration_queries.library_queries(alone, np.random.default_rng(0)) is None
    both = Index.build(CountSketchModel(), [*made_library(110), *other])
    asked = calibration_queries.library_queries(both, np.random.default_rng(0))
    assert (asked.queries.polarity == 1).all() and len(asked.molecule) == 110


def test_predicted_spectra_are_no_queries():
    predicted = [dataclasses.replace(s, predicted=True, laboratory=None) for s in made_library(110)]
    assert calibrate_from_library(Index.build(CountSketchModel(), predicted)) is None
    measured = [dataclasses.replace(s, spectrum_id=f"{s.spectrum_id}m") for s in made_library(110)[::4]]
    mixed = Index.build(CountSketchModel(), [*predicted, *measured])
    asked = calibration_queries.library_queries(mixed, np.random.default_rng(0), laboratories=("any",))
    own = [len(rows) for rows in asked.left_out]
    assert len(own) == 110 and set(own) == {1, 5}  # the measured one alone, or the molecule with its predictions
    queried = [rows[0] for rows in asked.left_out if len(rows) == 1]
    assert not any(mixed.rows(np.array(queried), ["predicted"])["predicted"].to_pylist())


def test_own_queries_calibrate(index):
    queries = [
        Spectrum(
            f"q{place}", spectrum.precursor_mz, spectrum.mz, spectrum.intensity, polarity=1, charge=1,
            inchikey=spectrum.inchikey,
        )
        for place, spectrum in enumerate(made_library(160)[::4])
    ]  # fmt: skip
    calibration = calibrate_from_queries(index, queries, source="mine.mgf", trained_on="no")
    assert calibration.record["from"] == "mine.mgf" and calibration.record["trained_on"] == "no"
    curve = calibration.curves[way("cosine", True)]
    assert curve.record["laboratories"] == "own"
    assert curve.record["queries"] == 130 + 160 and curve.record["molecules"] == 160
    tree = json.loads(json.dumps(calibration.to_tree()))
    assert Calibration.from_tree(tree) == calibration
    with pytest.raises(InputError, match="50 are needed"):
        calibrate_from_queries(index, queries[:20], source="mine.mgf")


def test_a_query_of_the_library_does_not_find_itself(index):
    asked_for = []

    def record(index, asked, *_):
        asked_for.append(asked)
        raise InputError("enough")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match="enough"):
        patch.setattr(calibration_fit, "fit_curve", record)
        calibrate_from_queries(index, made_library())
    [asked] = asked_for
    assert all(len(rows) in (1, 4) for rows in asked.left_out)


def query_and_hits(molecules, scores, precursors=None):
    """A query with hits of molecules (None: without an InChIKey) and scores, of a library of just these."""
    precursors = precursors or [200.0] * len(molecules)
    library = [
        Spectrum(f"h{place}", mz, np.array([50.0, 60.0 + place], np.float32), np.ones(2, np.float32), polarity=1,
                 inchikey=None if molecule is None else key(molecule))
        for place, (molecule, mz) in enumerate(zip(molecules, precursors, strict=True))
    ]  # fmt: skip
    query = Spectrum("q", 200.0, np.array([50.0, 61.0, 70.0], np.float32), np.ones(3, np.float32), polarity=1)
    columns = SpectrumColumns.from_spectra([query])
    queries = EmbeddedQueries(np.ones((1, 1), np.float32), columns.precursor_mz, columns.polarity, "", columns)
    rows = np.arange(len(library))[None]
    return queries, rows, np.array([scores]), np.array([9]), np.arange(len(library)), table_from_spectra(library)


def test_terms_of_the_molecules_of_a_query():
    molecules, scores = [3, 3, None, 5, 3, 7], [0.9, 0.85, 0.8, 0.6, 0.5, 0.2]
    found = candidates(*query_and_hits(molecules, scores, [200.0, 200.0, 200.0, 200.0, 200.0, 250.0]), 10.0)
    assert found.rank.tolist() == [0, 3, 5] and found.of_hit.tolist() == [[0, 0, -1, 1, 0, 2]]
    by_name = dict(zip(TERMS, found.terms.T, strict=True))
    assert by_name["score"].tolist() == [0.9, 0.6, 0.2]
    assert by_name["score above 0.8"] == pytest.approx([0.1, 0, 0])
    assert by_name["lead"] == pytest.approx([0.1, 0, 0]) and by_name["arrears"] == pytest.approx([0, -0.3, -0.7])
    assert by_name["same precursor"].tolist() == [1, 1, 0]
    assert np.expm1(by_name["matched peaks"]) == pytest.approx([1, 1, 1])  # 50; of the fourth 63 is not 61
    assert by_name["candidates"] == pytest.approx(np.log(10)) and by_name["peaks of the query"] == pytest.approx(
        np.log(4)
    )
    alone = candidates(*query_and_hits([1] * DEPTH, np.linspace(0.9, 0.5, DEPTH).tolist()), 10.0)
    assert alone.terms[0, TERMS.index("lead")] == pytest.approx(0.4)
    only = candidates(*query_and_hits([1], [0.9]), 10.0)
    assert only.terms[0, TERMS.index("lead")] == pytest.approx(0.9)


def test_probabilities_are_of_molecules_and_add_up_to_one_at_most():
    queries, rows, scores, count, found, table = query_and_hits([1, 1, 2, None, 3], [0.99, 0.98, 0.97, 0.9, 0.9])
    hits = Hits(rows, scores, np.zeros((1, 5)), count, "cosine", library=None)
    [shares] = probabilities(CURVE, queries, hits, count, found, table, 10.0)
    assert shares[0] == shares[1] > shares[2] > shares[4] and np.isnan(shares[3])
    assert shares[0] + shares[2] + shares[4] == pytest.approx(1.0)  # each alone has more than a third
    empty = Hits(np.full((1, 3), -1), np.full((1, 3), np.nan), np.zeros((1, 3)), count, "cosine", library=None)
    none = probabilities(CURVE, queries, empty, count, np.empty(0, np.int64), table.slice(0, 0), 10.0)
    assert np.isnan(none).all()


@given(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=30))
def test_the_expected_share_of_wrong_ones_is_that_of_all_at_least_as_probable(values):
    given_ = np.array(values)
    shares = expected_share_wrong(given_)
    for value, share in zip(given_, shares, strict=True):
        assert share == pytest.approx((1 - given_[given_ >= value]).mean())


def test_quality_of_probabilities_that_hold_and_that_do_not():
    said = np.repeat([0.25, 0.75], 400)
    is_right = np.tile([True, False, False, False], 200)
    assert quality(said[:400], is_right[:400])["ece"] == 0 and quality(said[400:], is_right[400:])["ece"] == 0.5
    both = quality(said, is_right, np.repeat([1.0, 3.0], 400))
    assert (both["ece"], both["pairs"], both["base_rate"]) == (0.375, 800, 0.25)
    assert both["reliability"] == [[0.25, 0.25, 400], [0.75, 0.25, 400]]


def test_a_calibration_of_another_form_is_told(calibration):
    tree = calibration.to_tree()
    assert curve_of({}, "cosine", True) is None
    assert curve_of({"calibration": tree}, "fused", True) is None
    assert curve_of({"calibration": tree}, "cosine", False) == calibration.curves["cosine, open"]
    for broken in ({**tree, "format": 9}, {**tree, "curves": [1]}, {}):
        with pytest.raises(InputError, match="ionbed index calibrate"):
            curve_of({"calibration": broken}, "cosine", True)
    bent = json.loads(json.dumps(tree))
    bent["curves"]["cosine, open"]["weights"][0] = -1.0
    with pytest.raises(InputError, match="below 0"):
        Calibration.from_tree(bent)
