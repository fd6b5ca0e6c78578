"""Mutated files of every format: each is answered by hits or by one line, and the service goes on."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from .conftest import as_peaks, mgf

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "service_fuzz.py"
NUM_FILES = 150


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("service_fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def post(client, name, data):
    return client.post("/api/search", files={"file": (name, data)}, data={"mode": "open", "k": "2"})


def test_whole_files_of_every_format_are_read(client, fuzz):
    for name, data in fuzz.seeds().items():
        answer = post(client, name, data)
        assert answer.status_code == 200, (name, answer.text)
        assert any(query["hits"] for query in answer.json()["queries"]), name


def test_mutated_files_get_hits_or_one_line(client, fuzz, spectrum):
    statuses = Counter()
    for name, data in fuzz.files(NUM_FILES, seed=1):
        answer = post(client, name, data)
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 413, 422), (name, answer.text)
        assert answer.status_code == 200 or list(answer.json()) == ["error"]
    assert min(statuses[200], statuses[422]) > NUM_FILES / 10, "the files are changed too little, or too much"
    answer = post(client, "q.mgf", mgf(("a", spectrum.precursor_mz, as_peaks(spectrum))))
    assert answer.json()["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id


def test_equal_seeds_give_equal_files(fuzz):
    first = list(fuzz.files(20, seed=3))
    assert [data for name, data in first if "parquet" not in name] == [
        data for name, data in fuzz.files(20, seed=3) if "parquet" not in name
    ]
