"""GNPS tables have GNPS's columns and one line for each hit, whatever the hits hold."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from ionbed.embeddings.exports.gnps import COLUMNS, OWN_COLUMNS, scan_number, write_gnps
from ionbed.embeddings.exports.search_run import SearchRun
from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import HitRow
from ionbed.spectra.spectrum import Spectrum

from .made_results import results

RUN = SearchRun(library="massbank", queries="features.mgf")


def written(made) -> str:
    stream = io.StringIO()
    write_gnps(made, stream, RUN)
    return stream.getvalue()


@given(results())
@settings(max_examples=50)
def test_any_hits_give_a_table(made):
    text = written(made)
    lines = text.split("\n")
    count = sum(row.rank is not None for result in made for row in result.rows)
    assert lines[-1] == "" and len(lines) == count + 2
    assert all(line.count("\t") == len(COLUMNS) + len(OWN_COLUMNS) - 1 for line in lines[:-1])
    frame = pd.read_csv(io.StringIO(text), sep="\t")  # quotes and all, as most would read it
    assert list(frame.columns) == [*COLUMNS, *OWN_COLUMNS]
    assert len(frame) == count
    for name in ("MQScore", "SpecMZ", "#Scan#", "NumberHits"):
        assert pd.to_numeric(frame[name]).notna().all()


def test_a_line_tells_what_gnps_tells():
    peaks = np.array([60.02], np.float32)
    query = Spectrum("17", 181.0707, peaks, np.ones(1, np.float32), source_file="features.mgf", native_id="17",
                     charge=1, retention_time=125.4)  # fmt: skip
    hit = HitRow("17", 181.0707, 1, 0.87654321, 0.91, precursor_error_ppm=(181.0707 - 181.0700) / 181.07 * 1e6,
                 difference_formula="CH2", matched_peaks=9, name='5"-Glucose\t(D)', formula="C6H12O6",
                 smiles="OCC1OC(O)C(O)C(O)C1O", inchikey="WQZGKKKJIJFFOK-GASJEMHNSA-N", library_id="MSBNK-X-1",
                 adduct="[M+H]+", instrument_type="LC-ESI-QFT", predicted=False, confidence="level 2a")  # fmt: skip
    (line,) = csv.DictReader(io.StringIO(written([QueryResult("17", query, [hit], 3)])), delimiter="\t")
    told = {name: value for name, value in line.items() if value not in ("N/A", "")}
    assert told == {
        "SpectrumID": "MSBNK-X-1", "Compound_Name": "5''-Glucose (D)", "Ion_Source": "ESI", "Instrument": "LC-ESI-QFT",
        "Adduct": "[M+H]+", "Precursor_MZ": "181.07", "ExactMass": "180.063388", "Charge": "1",
        "Smiles": "OCC1OC(O)C(O)C(O)C1O", "INCHI_AUX": "WQZGKKKJIJFFOK-GASJEMHNSA-N", "IonMode": "Positive",
        "#Scan#": "17", "SpectrumFile": "features.mgf", "LibraryName": "massbank", "MQScore": "0.876543",
        "RT_Query": "125.4", "MZErrorPPM": "3.8659", "SharedPeaks": "9", "MassDiff": "0.0007", "LibMZ": "181.07",
        "SpecMZ": "181.0707", "SpecCharge": "1", "FileScanUniqueID": "features.mgf17", "NumberHits": "1",
        "molecular_formula": "C6H12O6", "InChIKey": "WQZGKKKJIJFFOK-GASJEMHNSA-N", "InChIKey-Planar": "WQZGKKKJIJFFOK",
        "query_id": "17", "rank": "1", "probability": "0.91", "difference_formula": "CH2", "confidence": "level 2a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("native_id", "position", "expected"),
    [
        ("17", 3, 17),
        ("controllerType=0 controllerNumber=1 scan=2042", 3, 2042),
        ("scan=5", None, 5),
        ("Scans=12", 3, 12),
        ("sample 17", 3, 3),
        ("CCMSLIB0001", 3, 3),
        (None, None, 8),
    ],
)
def test_the_scan_is_that_of_the_id_or_else_the_place(native_id, position, expected):
    peaks = np.ones(1, np.float32)
    query = Spectrum("q", 100.0, peaks, peaks, native_id=native_id)
    assert scan_number(QueryResult("q", query, [], position), 8) == expected


def test_predicted_library_spectra_are_named_so():
    peaks = np.ones(1, np.float32)
    row = HitRow("q", 100.0, 1, 0.5, predicted=True)
    text = written([QueryResult("q", Spectrum("q", 100.0, peaks, peaks), [row], 1)])
    (line,) = csv.DictReader(io.StringIO(text), delimiter="\t")
    assert line["LibraryQualityString"] == "Insilico"
    assert line["LibMZ"] == line["MassDiff"] == "N/A"
