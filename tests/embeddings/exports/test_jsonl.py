"""JSON lines are of their schema, whatever the hits hold, and give every text and number back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings

import ionbed
from ionbed.embeddings.exports.jsonl import HIT_FIELDS, schema, write_jsonl
from ionbed.embeddings.exports.search_run import SearchRun
from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.search import COLUMNS, HitRow
from ionbed.embeddings.structure_search import StructureHitRow
from ionbed.spectra.spectrum import Spectrum

from .made_results import results

RUN = SearchRun()
VALIDATOR = jsonschema_rs.Draft202012Validator(schema())


def written(made, run=RUN) -> list[dict]:
    stream = io.StringIO()
    write_jsonl(made, stream, run)
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    found = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    for line in found:
        VALIDATOR.validate(line)
    return found


@given(results())
@settings(max_examples=60)
def test_any_hits_are_of_the_schema_and_come_back(made):
    lines = written(made)
    assert [line["query_id"] for line in lines] == [result.query_id for result in made]
    for line, result in zip(lines, made, strict=True):
        hits = [row for row in result.rows if row.rank is not None]
        assert len(line["hits"]) == len(hits)
        for told, row in zip(line["hits"], hits, strict=True):
            for name in ("name", "smiles", "library_id", "confidence"):
                assert (told[name] or "") == (getattr(row, name) or "")
            assert told["score"] == pytest.approx(row.score, abs=1e-6)
        if result.spectrum is not None:
            assert line["precursor_mz"] == pytest.approx(result.spectrum.precursor_mz, abs=1e-6)
            assert line["num_peaks"] == len(result.spectrum)


def test_every_column_of_the_table_is_told():
    of_query = {"query_id", "query_precursor_mz", "warnings", "note", "score_name"}
    assert set(HIT_FIELDS) == set(COLUMNS) - of_query
    assert set(schema()["$defs"]["hit"]["required"]) == {*HIT_FIELDS, "confidence_level"}


def test_numbers_have_no_noise():
    peaks = np.ones(1, np.float32)
    query = Spectrum("q", 0.1 + 0.2, peaks, peaks, collision_energy=float(np.float32(35.1)))
    (line,) = written([QueryResult("q", query, [HitRow("q", 0.3, 1, 0.1 + 0.2, mass_difference=-1e-9)], 1)])
    assert (line["precursor_mz"], line["collision_energy"]) == (0.3, 35.1)
    assert line["hits"][0]["score"] == 0.3
    assert str(line["hits"][0]["mass_difference"]) == "0.0"


def test_a_record_that_cannot_be_used_is_told():
    (line,) = written([QueryResult("q", None, [HitRow("q", note="no usable peaks")], 1)])
    assert (line["note"], line["precursor_mz"], line["hits"]) == ("no usable peaks", None, [])


def test_half_of_a_surrogate_pair_does_not_end_the_file(tmp_path):
    (line,) = written([QueryResult("\ud800", None, [HitRow("\ud800", note="x\udfff")], 1)])
    assert (line["query_id"], line["note"]) == ("?", "x?")


def test_structures_have_the_same_fields():
    peaks = np.ones(1, np.float32)
    row = StructureHitRow("q", 100.0, 1, 2.5, id="S1", name="a", mass_error_ppm=1.25, score_name="fused")
    run = SearchRun(kind="structures", score="fused")
    (line,) = written([QueryResult("q", Spectrum("q", 100.0, peaks, peaks), [row], 1)], run)
    (hit,) = line["hits"]
    assert (hit["library_id"], hit["precursor_error_ppm"], hit["confidence_level"]) == ("S1", 1.25, "3")
    assert hit["license"] is hit["matched_peaks"] is hit["predicted"] is None
    assert line["score_name"] == "fused"


def test_the_example_of_the_guide_is_of_the_schema():
    guide = (Path(ionbed.__file__).parent / "docs" / "formats.md").read_text(encoding="utf-8")
    VALIDATOR.validate(json.loads(guide.split("```json\n")[1].split("```")[0]))


@pytest.mark.parametrize(
    "damage",
    [{"query_id": None}, {"hits": [{}]}, {"polarity": 2}, {"extra": 1}, {"precursor_mz": "100"}],
)
def test_the_schema_sees_what_is_wrong(damage):
    (line,) = written([QueryResult("q", None, [HitRow("q")], 1)])
    with pytest.raises(jsonschema_rs.ValidationError):
        VALIDATOR.validate(line | damage)
