"""Annotated MGF and MSP files are read back by ionbed, matchms and pyteomics, whatever the hits hold."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import assume, given, settings
from matchms.importing import load_from_mgf, load_from_msp
from pyteomics import mgf

import ionbed
from ionbed.embeddings.annotation import LEVEL_3_ANALOGUE, LEVEL_3_ANY_MASS, LEVEL_5
from ionbed.embeddings.exports.annotated_spectra import UNMATCHED, write_annotated_mgf, write_annotated_msp
from ionbed.embeddings.exports.search_run import SearchRun
from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import HitRow
from ionbed.spectra.readers import read_records
from ionbed.spectra.spectrum import Spectrum

from .made_results import results

WRITERS = {"mgf": write_annotated_mgf, "msp": write_annotated_msp}


def spectrum(spectrum_id, precursor_mz, peaks, **fields):
    mz, intensity = np.array(peaks, np.float32).T
    return Spectrum(spectrum_id, precursor_mz, mz, intensity / intensity.max(), **fields)


LIBRARY = [
    spectrum(f"L{row}", 180.0 + row, [(50.01 + row, 20), (85.03, 100), (120.05, 50)], polarity=1) for row in range(10)
]
RUN = SearchRun(library_spectra=lambda rows: [LIBRARY[row] for row in rows])


def file_of(made, path, run=RUN):
    with open(path, "w", encoding="utf-8", newline="") as stream:
        WRITERS[path.suffix[1:]](made, stream, run)
    return path


@pytest.mark.parametrize("suffix", ["mgf", "msp"])
@given(made=results())
@settings(max_examples=40)
def test_any_hits_are_read_back(tmp_path_factory, suffix, made):
    path = file_of(made, tmp_path_factory.getbasetemp() / f"any.{suffix}")
    queries = [result.spectrum for result in made if result.spectrum is not None]
    assume(queries)  # a file without spectra is refused by all
    records = list(read_records(path))
    assert [record.problem for record in records] == [None] * len(queries)
    for record, query in zip(records, queries, strict=True):
        assert float(record.fields["precursor_mz"]) == query.precursor_mz
        assert np.array_equal(record.mz.astype(np.float32), query.mz)
        assert np.array_equal(record.intensity.astype(np.float32), query.intensity)
    loaded = list((load_from_mgf if suffix == "mgf" else load_from_msp)(str(path), metadata_harmonization=False))
    assert [len(one.peaks.mz) for one in loaded] == [len(query) for query in queries]
    if suffix == "mgf" and queries:
        with mgf.MGF(str(path)) as reader:
            assert [len(one["m/z array"]) for one in reader] == [len(query) for query in queries]


@pytest.fixture
def made():
    query = spectrum("q1", 181.0, [(50.0, 30), (51.01, 90), (85.0301, 80), (99.0, 100)], charge=1, polarity=1,
                     name="own name", smiles="CCO", collision_energy=20.0, retention_time=61.5)  # fmt: skip
    best = HitRow("q1", 181.0, 1, 0.87654321, 0.5, precursor_error_ppm=1.5, mass_difference=14.01565,
                  difference_formula="CH2", matched_peaks=2, name="Glucose", formula="C6H12O6",
                  smiles="OCC1OC(O)C(O)C(O)C1O", inchikey="WQZGKKKJIJFFOK-UHFFFAOYSA-N", library_id="L1",
                  adduct="[M+H]+", license="CC0", predicted=True, confidence="level 3: tentative", warnings="odd",
                  row=1)  # fmt: skip
    second = dataclasses.replace(best, rank=2, name="Fructose", row=2)
    lonely = spectrum("q2", 300.0, [(60.0, 1)], name="other")
    return [
        QueryResult("q1", query, [best, second], 1),
        QueryResult("q2", lonely, [HitRow("q2", 300.0, note="no library spectrum within 10 ppm")], 2),
        QueryResult("q3", None, [HitRow("q3", note="no usable peaks")], 3),
    ]


@pytest.mark.parametrize("suffix", ["mgf", "msp"])
def test_a_query_has_the_names_of_its_best_hit(tmp_path, suffix, made):
    first, second = ionbed.read(file_of(made, tmp_path / f"hits.{suffix}"))
    assert (first.native_id, first.name, first.formula) == ("q1", "Glucose", "C6H12O6")
    assert first.inchikey == "WQZGKKKJIJFFOK-UHFFFAOYSA-N"
    assert (first.adduct, first.charge, first.collision_energy, first.retention_time) == ("[M+H]+", 1, 20.0, 61.5)
    assert not first.predicted  # the library spectrum is
    assert (second.native_id, second.smiles, second.inchikey) == ("q2", None, None)
    assert second.name in (None, "q2")


def test_mgf_tells_the_hit(tmp_path, made):
    path = file_of(made, tmp_path / "hits.mgf")
    with mgf.MGF(str(path)) as reader:
        first, second = (one["params"] for one in reader)
    told = {key: str(first[key]) for key in first}
    assert told["title"] == "q1" and told["query_name"] == "own name"
    assert (told["score"], told["probability"], told["confidence_level"]) == ("0.876543", "0.5", "3")
    assert (told["library_id"], told["library_predicted"], told["library_license"]) == ("L1", "true", "CC0")
    assert (told["mass_difference"], told["difference_formula"]) == ("14.01565", "CH2")
    assert (told["matched_peaks"], told["matched_peaks_mz"]) == ("2", "51.01,85.0301")
    assert told["warnings"] == "odd"
    assert second["search_note"] == "no library spectrum within 10 ppm" and "score" not in second


def test_msp_annotates_matched_peaks(tmp_path, made):
    first, second = load_from_msp(str(file_of(made, tmp_path / "hits.msp")), metadata_harmonization=False)
    comments = first.get("peak_comments")
    told = {round(float(mz), 4): text for mz, text in comments.items()}
    assert told == {50.0: UNMATCHED, 51.01: "match 51.01", 85.0301: "match 85.03", 99.0: UNMATCHED}
    assert first.get("score") == "0.876543" and first.get("compound_name", first.get("name")) == "Glucose"
    assert not second.get("peak_comments")


@pytest.mark.parametrize("words", [LEVEL_3_ANALOGUE, LEVEL_3_ANY_MASS, LEVEL_5])
def test_what_is_not_the_molecule_does_not_name_the_query(tmp_path, made, words):
    best = dataclasses.replace(made[0].rows[0], confidence=words)
    query = dataclasses.replace(made[0].spectrum, charge=None, polarity=None)
    path = file_of([dataclasses.replace(made[0], spectrum=query, rows=[best])], tmp_path / "a.mgf")
    (read,) = ionbed.read(path)
    assert read.name is read.smiles is read.inchikey is read.formula is read.adduct is None
    assert read.charge is read.polarity is None
    with mgf.MGF(str(path)) as reader:
        told = next(reader)["params"]
    assert (told["library_name"], told["library_formula"]) == ("Glucose", "C6H12O6")


def test_shifted_matches_are_named_so(tmp_path):
    query = spectrum("q", 195.0, [(50.0, 10), (99.03, 100)])
    result = QueryResult("q", query, [HitRow("q", 195.0, 1, 0.5, row=1)], 1)
    text = file_of([result], tmp_path / "a.msp").read_text()
    assert '"match 85.03 shifted"' in text


@pytest.mark.parametrize("suffix", ["mgf", "msp"])
def test_without_library_peaks_nothing_is_matched(tmp_path, suffix, made):
    path = file_of(made, tmp_path / f"hits.{suffix}", SearchRun(kind="structures"))
    assert len(list(ionbed.read(path))) == 2
    assert '"' not in path.read_text() and "MATCHED_PEAKS_MZ" not in path.read_text()


def test_library_spectra_are_fetched_together():
    asked = []
    run = SearchRun(library_spectra=lambda rows: asked.append(list(rows)) or [LIBRARY[row] for row in rows])
    query = spectrum("q", 180.0, [(85.03, 1)])
    made = [QueryResult(f"q{n}", query, [HitRow(f"q{n}", 180.0, 1, 0.5, row=n)], n) for n in range(5)]
    write_annotated_mgf(made, io.StringIO(), run)
    assert asked == [[0, 1, 2, 3, 4]]
