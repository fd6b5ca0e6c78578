"""Searches over HTTP: by file, by peaks; the same hits as without HTTP; every answer as its model says."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from anyio import to_thread
from fastapi.testclient import TestClient

from ionbed.embeddings.filters import Filters
from ionbed.embeddings.hit_table import QueryResult
from ionbed.embeddings.index import Index
from ionbed.embeddings.search import COLUMNS, HitRow, find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.embeddings.service import models
from ionbed.embeddings.service.answers import answer_response
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.index_state import IndexState
from ionbed.embeddings.service.settings import ServiceSettings
from ionbed.embeddings.structure_search import StructureHitRow
from ionbed.spectra.spectrum import Spectrum

from ..conftest import CountSketchModel
from .conftest import as_peaks, mgf


def test_a_peak_list_finds_its_spectrum(client, body, spectrum):
    answer = client.post("/api/search/peaks", json={**body, "k": 3})
    assert answer.status_code == 200
    told = models.SearchAnswer.model_validate_json(answer.content)
    assert told.index.kind == "spectra"
    assert told.index.size == 144
    (query,) = told.queries
    assert (query.query_id, query.charge, len(query.peaks)) == ("mine", 1, len(spectrum))
    assert [hit.rank for hit in query.hits] == [1, 2, 3]
    assert query.hits[0].library_id == spectrum.spectrum_id
    assert query.hits[0].score == pytest.approx(1, abs=1e-5)
    assert told.summary.model_dump(exclude={"seconds"}) == {"queries": 1, "with_hits": 1, "without_hits": {}}
    entry = client.get(f"/api/library/{query.hits[0].row}").json()
    assert entry["metadata"]["spectrum_id"] == spectrum.spectrum_id
    assert [m for m, _ in entry["peaks"]] == pytest.approx(spectrum.mz.tolist(), abs=1e-4)


def test_the_answer_has_every_field_of_a_line_of_hits():
    for model, row in ((models.SpectrumHit, HitRow), (models.StructureHit, StructureHitRow)):
        assert list(model.model_fields) == [field.name for field in dataclasses.fields(row)]


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
def test_a_file_gives_the_hits_that_a_search_without_http_gives(client, index, tmp_path, packing):
    library = index.spectra([3, 30, 60])
    data = mgf(*((s.spectrum_id, s.precursor_mz, as_peaks(s)) for s in library), ("far", 999.9, [(100, 1), (200, 2)]))
    path = tmp_path / "queries.mgf"
    path.write_bytes(data)
    if packing == "gzip":
        data = gzip.compress(data)
    elif packing == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../deep/queries.mgf", data)
        data = packed.getvalue()
    answer = client.post("/api/search", files={"file": ("queries.mgf", data)}, data={"k": "5", "mode": "open"})
    assert answer.status_code == 200, answer.text
    expected: dict[str, list[HitRow]] = {}
    for row in find(index, path, SearchOptions(k=5, precursor_ppm=None)):
        expected.setdefault(row.query_id, []).append(row)
    for query in answer.json()["queries"]:
        rows = expected.pop(query["query_id"])
        assert [(h["rank"], h["library_id"], h["row"]) for h in query["hits"]] == [
            (row.rank, row.library_id, row.row) for row in rows
        ]
        assert [hit["score"] for hit in query["hits"]] == pytest.approx([row.score for row in rows], abs=1e-6)
    assert not expected


def test_every_record_has_its_place_and_ids_are_told_apart(client, spectrum):
    good = as_peaks(spectrum)
    data = mgf(
        ("a", spectrum.precursor_mz, good),
        ("a", spectrum.precursor_mz, good),
        ("far", 999.9, good),
        ("mute", 150.0, []),
    )
    answer = client.post("/api/search", files={"file": ("q.mgf", data)}).json()
    assert [query["query_id"] for query in answer["queries"]] == ["a", "a#2", "far", "mute"]
    notes = [query["note"] for query in answer["queries"]]
    assert notes[:2] == ["", ""]
    assert notes[2] == "no library spectrum within 10 ppm"
    assert "no usable peaks" in notes[3]
    assert answer["summary"]["with_hits"] == 2
    assert sum(answer["summary"]["without_hits"].values()) == 2


@pytest.mark.parametrize("format", ["tsv", "gnps", "mztab", "jsonl", "mgf", "msp"])
def test_the_hits_as_a_file(client, body, spectrum, index, format):
    answer = client.post(f"/api/search/peaks?format={format}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith('attachment; filename="hits.')
    assert spectrum.spectrum_id in answer.text
    assert str(index.folder.parent) not in answer.text, "a client learns where the index lies"
    if format == "tsv":
        rows = list(csv.DictReader(io.StringIO(answer.text), dialect="excel-tab"))
        assert tuple(rows[0]) == COLUMNS
        assert rows[0]["library_id"] == spectrum.spectrum_id
    if format == "jsonl":
        assert json.loads(answer.text.splitlines()[0])


def test_a_window_in_da_and_a_filter_choose_among_the_hits(client, body, spectrum):
    def hits(**options):
        answer = client.post("/api/search/peaks", json={**body, "k": 20, **options})
        assert answer.status_code == 200, answer.text
        return answer.json()["queries"][0]["hits"]

    wide = hits(precursor_da=30.0)
    errors = [abs(hit["precursor_error_ppm"]) * 1e-6 * spectrum.precursor_mz for hit in wide]
    assert max(errors) > 1, "the window in Da is wider than 10 ppm"
    assert {hit["collision_energy"] for hit in wide} > {20.0}
    assert {hit["collision_energy"] for hit in hits(precursor_da=30.0, filters={"energy": [15, 25]})} == {20.0}
    answer = client.post("/api/search/peaks", json={**body, "filters": {"adducts": ["[M+Na]+"]}})
    assert answer.status_code == 422
    assert "[M+Na]+" in answer.json()["error"], "a filter that no library spectrum passes is a mistake"
    form = {"energy": ["15", "25"], "precursor_da": "30", "k": "20"}
    data = mgf(("a", spectrum.precursor_mz, as_peaks(spectrum)))
    answer = client.post("/api/search", files={"file": ("q.mgf", data)}, data=form).json()
    assert {hit["collision_energy"] for hit in answer["queries"][0]["hits"]} == {20.0}


def test_structures_are_served_too(structure_client):
    assert structure_client.get("/api/info").json()["index"] == {
        **structure_client.get("/api/info").json()["index"],
        "kind": "structures",
        "size": 3,
    }
    example = structure_client.get("/api/example").json()
    answer = structure_client.post("/api/search/peaks", json=example)
    assert answer.status_code == 200, answer.text
    (hit,) = answer.json()["queries"][0]["hits"]
    assert hit["name"] == example["name"]
    assert hit["mass_error_ppm"] == pytest.approx(0, abs=5)
    assert structure_client.get(f"/api/library/{hit['row']}").json()["metadata"]["smiles"] == hit["smiles"]
    svg = structure_client.get(f"/api/library/{hit['row']}/structure.svg")
    assert svg.headers["content-type"] == "image/svg+xml"
    by_formula = structure_client.post("/api/search/peaks", json={**example, "formula": "C6H5NO2"})
    assert {hit["formula"] for hit in by_formula.json()["queries"][0]["hits"]} == {"C6H5NO2"}
    for words in ({"precursor_da": 1.0}, {"filters": {"adducts": ["[M+H]+"]}}):
        refused = structure_client.post("/api/search/peaks", json={**example, **words})
        assert refused.status_code == 422
        assert next(iter(words)) in refused.json()["error"], "an option that counts for nothing is not told so"
    assert structure_client.post("/api/mirror", json={"row": 0, **_mirror(example)}).status_code == 422


def _mirror(example):
    return {"precursor_mz": example["precursor_mz"], "peaks": example["peaks"]}


def test_the_example_finds_itself(client):
    example = client.get("/api/example").json()
    answer = client.post("/api/search/peaks", json=example).json()
    assert answer["queries"][0]["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


def test_info_tells_what_may_be_asked(client):
    told = client.get("/api/info").json()
    assert told["limits"]["spectra"] == 20
    assert told["scores"] == ["cosine"]
    assert told["filter_values"]["adduct"] == ["[M+H]+"]
    assert (told["usi"], told["api_key"], told["calibrated"]) == (False, False, False)


def test_a_mirror_pairs_the_peaks_of_a_spectrum_with_its_own_and_with_shifted_ones(client, index, spectrum):
    row = next(r for r in range(len(index)) if index.spectra([r])[0].spectrum_id == spectrum.spectrum_id)
    same = client.post(
        "/api/mirror", json={"precursor_mz": spectrum.precursor_mz, "peaks": as_peaks(spectrum), "row": row}
    ).json()
    matched = [n for n, mz in enumerate(spectrum.mz) if mz < spectrum.precursor_mz - 1.6]
    assert len(matched) > 5
    assert [(m["query_peak"], m["library_peak"]) for m in same["fragments"]] == [(n, n) for n in matched]
    assert same["losses"] == []
    moved = [[m + 14.01565, i] for m, i in as_peaks(spectrum)]
    other = client.post(
        "/api/mirror", json={"precursor_mz": spectrum.precursor_mz + 14.01565, "peaks": moved, "row": row}
    ).json()
    assert other["shift_da"] == pytest.approx(14.01565)
    pairs = {(m["query_peak"], m["library_peak"]) for m in other["losses"]}
    assert pairs >= {(n, n) for n in matched} - {(m["query_peak"],) * 2 for m in other["fragments"]}
    assert len(pairs) >= len(matched) - 2
    assert all(abs(m["difference_da"]) < 1e-3 for m in other["losses"])


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "[Na+].[Cl-]"])
def test_a_structure_is_drawn(client, smiles):
    answer = client.get("/api/structure.svg", params={"smiles": smiles})
    assert answer.status_code == 200
    assert answer.text.rstrip().endswith("</svg>")
    assert "script" not in answer.headers["content-security-policy"].replace("default-src 'none'", "")


def test_a_drawing_holds_no_text_of_a_client(client):
    for smiles in ("CC |$<b>label</b>;$|", "CC <script>alert(1)</script>", "[<script>]"):
        answer = client.get("/api/structure.svg", params={"smiles": smiles})
        assert answer.status_code == 422, "labels and names that stand behind a SMILES would be drawn"


def test_what_was_deleted_is_told_no_more(index, spectrum, tmp_path):
    index.save(tmp_path / "library")
    changed = Index.open(tmp_path / "library", CountSketchModel())
    kept = changed.metadata["spectrum_id"].to_pylist().index(spectrum.spectrum_id)
    changed.delete([name for name in changed.metadata["spectrum_id"].to_pylist() if name != spectrum.spectrum_id])
    with TestClient(create_app(changed, ServiceSettings(readers=1, warm=False))) as client:
        for row in range(changed.num_rows):
            assert client.get(f"/api/library/{row}").status_code == (200 if row == kept else 404)
        mirror = {"precursor_mz": 200.0, "peaks": [[100.0, 1.0]], "row": (kept + 1) % changed.num_rows}
        assert "deleted" in client.post("/api/mirror", json=mirror).json()["error"]
        assert client.get("/api/example").json()["precursor_mz"] == spectrum.precursor_mz
        assert client.get("/api/info").json()["filter_values"]["adduct"] in ([], [spectrum.adduct])


def test_what_a_filter_names_is_looked_up_in_the_library_once(client, body, monkeypatch):
    looked_up, once = [], Filters.refuse_unknown
    monkeypatch.setattr(Filters, "refuse_unknown", lambda self, table: (looked_up.append(self), once(self, table)))
    for _ in range(3):
        answer = client.post("/api/search/peaks", json={**body, "filters": {"energy": [12.5, 27.5]}})
        assert answer.status_code == 200
    assert len(looked_up) == 1


def test_an_id_that_is_a_book_is_not_repeated_with_every_hit(client, spectrum):
    peaks = as_peaks(spectrum)
    data = mgf(("x" * 100_000, spectrum.precursor_mz, peaks), ("x" * 90_000, spectrum.precursor_mz, peaks))
    answer = client.post("/api/search", files={"file": ("q.mgf", data)}).json()
    assert [query["query_id"] for query in answer["queries"]] == ["x" * 500, "x" * 500 + "#2"]


@pytest.mark.parametrize(("num_peaks", "is_apart"), [(60, False), (5000, True)])
def test_an_answer_that_takes_long_to_write_is_written_in_a_thread(index, monkeypatch, num_peaks, is_apart):
    threads, run_sync = [], to_thread.run_sync

    async def noted(function, *words):
        threads.append(function.__name__)
        return await run_sync(function, *words)

    monkeypatch.setattr(to_thread, "run_sync", noted)
    mz = np.linspace(50, 900, num_peaks, dtype=np.float32)
    answer = QueryResult("q", Spectrum("q", 950.0, mz, np.ones_like(mz)), [HitRow("q", note="none")], 1)
    response = asyncio.run(answer_response(IndexState(index), [answer], SearchOptions(), "json", 0.1))
    assert len(json.loads(response.body)["queries"][0]["peaks"]) == num_peaks
    assert ("_write" in threads) == is_apart
