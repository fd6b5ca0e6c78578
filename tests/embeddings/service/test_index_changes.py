"""A service sees what others commit to its index, and what it gave out before is never taken for something else."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from ionbed.embeddings import index_folder
from ionbed.embeddings.index import Index
from ionbed.embeddings.service import index_watch
from ionbed.embeddings.service.app import create_app
from ionbed.embeddings.service.failures import RequestError
from ionbed.embeddings.service.index_state import IndexState, generations_of
from ionbed.embeddings.service.index_watch import IndexWatch
from ionbed.embeddings.service.metrics import Metrics
from ionbed.embeddings.service.settings import ServiceSettings
from ionbed.embeddings.structure_index import StructureIndex
from ionbed.spectra.molecule_files import NamedStructure

from ..conftest import CountSketchModel
from ..test_structure_index import TowerModel
from .conftest import as_peaks, mgf

SETTINGS = ServiceSettings(readers=1, warm=False)


@pytest.fixture
def place(index: Index, tmp_path: Path) -> Path:
    """A copy of the index that a test may change."""
    index.save(tmp_path / "library")
    return tmp_path / "library"


def opened(place: Path) -> Index:
    return Index.open(place, CountSketchModel())


@pytest.fixture
def at_once(monkeypatch):
    """Look at the manifest all the time."""
    monkeypatch.setattr(index_watch, "LOOK_SECONDS", 0.01)


def moved(spectrum, number: int):
    """Return another spectrum, with a precursor of its own at the beginning of the order of rows."""
    return dataclasses.replace(spectrum, spectrum_id=f"new-{number}", precursor_mz=60.0 + number)


def until(client: TestClient, told) -> dict:
    """Wait until what /api/info tells of the index is as expected; return it."""
    for _ in range(1000):
        entry = client.get("/api/info").json()["index"]
        if told(entry):
            return entry
        time.sleep(0.01)
    raise AssertionError(f"the service still tells {entry}")


def test_appended_deleted_and_compacted_rows_are_served_without_a_restart(place, spectrum, body, at_once):
    new = moved(spectrum, 1)
    ask = {**body, "precursor_mz": new.precursor_mz, "k": 1}
    with TestClient(create_app(opened(place), SETTINGS)) as client:
        first = client.get("/api/info").json()["index"]
        assert client.post("/api/search/peaks", json=ask).json()["queries"][0]["hits"] == []
        opened(place).append([new])
        appended = until(client, lambda told: told["size"] == 145)
        assert appended["generation"] != first["generation"]
        answer = client.post("/api/search/peaks", json=ask).json()
        (hit,) = answer["queries"][0]["hits"]
        assert (hit["library_id"], answer["index"]) == ("new-1", appended)
        opened(place).delete([spectrum.spectrum_id])
        deleted = until(client, lambda told: told["size"] == 144)
        assert deleted["generation"] == appended["generation"], "no row has another number"
        ids = [
            h["library_id"]
            for h in client.post("/api/search/peaks", json={**body, "k": 20}).json()["queries"][0]["hits"]
        ]
        assert ids
        assert spectrum.spectrum_id not in ids
        opened(place).compact()
        compacted = until(client, lambda told: told["generation"] != deleted["generation"])
        assert compacted["size"] == 144
        (again,) = client.post("/api/search/peaks", json=ask).json()["queries"][0]["hits"]
        assert (again["library_id"], again["row"], hit["row"]) == ("new-1", 0, 144)
        text = client.get("/metrics").text
        assert "ionbed_index_changes_total 3.0" in text
        assert "ionbed_index_rows 144.0" in text
        assert f'ionbed_index_generation{{generation="{compacted["generation"]}"}} 1.0' in text
        assert text.count("ionbed_index_generation{") == 1
        assert client.get("/health/ready").json() == {"status": "ready", "index": "current"}


def test_a_row_of_an_earlier_generation_shows_no_other_spectrum(place, spectrum, body, at_once):
    with TestClient(create_app(opened(place), SETTINGS)) as client:
        answer = client.post("/api/search/peaks", json={**body, "k": 1}).json()
        row, first = answer["queries"][0]["hits"][0]["row"], answer["index"]["generation"]

        def shown(generation: str | None) -> list[tuple[int, str | None]]:
            words = {} if generation is None else {"generation": generation}
            mirror = {"precursor_mz": body["precursor_mz"], "peaks": body["peaks"], "row": row, **words}
            entry = client.get(f"/api/library/{row}", params=words)
            return [
                (entry.status_code, entry.json().get("metadata", {}).get("spectrum_id")),
                (client.get(f"/api/library/{row}/structure.svg", params=words).status_code, None),
                (client.post("/api/mirror", json=mirror).status_code, None),
            ]

        def kept(**words: str) -> str:
            return client.get(f"/api/library/{row}/structure.svg", params=words).headers["cache-control"]

        assert shown(first) == [(200, spectrum.spectrum_id), (200, None), (200, None)]
        assert (kept(), kept(generation=first)) == ("no-store", "private, max-age=86400")
        opened(place).append([moved(spectrum, 1)])
        second = until(client, lambda told: told["size"] == 145)["generation"]
        for generation in (first, second, None):
            assert shown(generation) == [(200, spectrum.spectrum_id), (200, None), (200, None)]
        opened(place).compact()
        third = until(client, lambda told: told["generation"] != second)["generation"]
        for generation in (first, second, "0" * 16):
            assert shown(generation) == [(410, None)] * 3
        refusal = client.get(f"/api/library/{row}", params={"generation": first}).json()["error"]
        assert "search again" in refusal
        status, other = shown(third)[0]
        assert status == 200
        assert other != spectrum.spectrum_id, "the rows have not moved, and this test shows nothing"
        assert [status for status, _ in shown("g" * 16)] == [422] * 3


def test_a_state_that_cannot_be_opened_is_not_served(place, index, body, spectrum, at_once, caplog):
    with TestClient(create_app(opened(place), SETTINGS)) as client:
        first = client.get("/api/info").json()["index"]
        manifest = (place / "manifest.json").read_bytes()

        def replace(content: bytes) -> None:
            (place / "new").write_bytes(content)
            os.replace(place / "new", place / "manifest.json")

        def is_told(word: str) -> bool:
            for _ in range(500):
                if client.get("/health/ready").json() == {"status": "ready", "index": word}:
                    return True
                time.sleep(0.01)
            return False

        other = {**json.loads(manifest), "counts": {}}
        for content in (b"{", json.dumps(other).encode()):
            replace(content)
            assert is_told("outdated")
            assert "ionbed_index_outdated 1.0" in client.get("/metrics").text
            answer = client.post("/api/search/peaks", json={**body, "k": 1}).json()
            assert answer["index"] == first
            assert answer["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id
        time.sleep(0.1)
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 2, "told once for each state, and not at each look"
        assert all(str(place) in line and "served on" in line for line in errors)
        replace(manifest)
        assert is_told("current")
        assert "ionbed_index_outdated 0.0" in client.get("/metrics").text


def test_an_index_of_another_model_is_not_served(place, spectrum, body, at_once, caplog):
    class Other(CountSketchModel):
        def model_hash(self) -> str:
            return "f" * 64

    with TestClient(create_app(opened(place), SETTINGS)) as client:
        first = client.get("/api/info").json()["index"]
        Index.build(Other(), [spectrum]).save(place, overwrite=True)
        for _ in range(1000):
            if client.get("/health/ready").json()["index"] == "outdated":
                break
            time.sleep(0.01)
        assert "was built with the model" in caplog.text
        answer = client.post("/api/search/peaks", json={**body, "k": 1}).json()
        assert answer["index"] == first
        assert answer["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id
        shutil.rmtree(place)
        assert client.post("/api/search/peaks", json=body).status_code == 200, "what is open is not read by its name"


def test_damage_that_the_first_search_finds_keeps_the_state_before(
    place, tmp_path, spectrum, body, at_once, caplog, monkeypatch
):
    monkeypatch.setattr(index_folder, "SMALL_FILE", 0)  # of a large file no checksum is compared at the opening
    other = tmp_path / "other"
    shutil.copytree(place, other)
    opened(other).append([moved(spectrum, 1)])
    vectors = other / "segments" / "1" / "vectors.npy"
    data = bytearray(vectors.read_bytes())
    data[4096:] = bytes(byte ^ 0xFF for byte in data[4096:])
    vectors.write_bytes(data)
    with TestClient(create_app(opened(place), SETTINGS)) as client:
        first = client.get("/api/info").json()["index"]
        place.rename(tmp_path / "before")
        other.rename(place)
        for _ in range(1000):
            if "vectors.npy: is damaged" in caplog.text and "cannot be searched" in caplog.text:
                break
            time.sleep(0.01)
        assert "cannot be searched (the index is damaged" in caplog.text
        assert client.get("/health/ready").json() == {"status": "ready", "index": "outdated"}
        answer = client.post("/api/search/peaks", json={**body, "k": 1}).json()
        assert answer["index"] == first
        assert answer["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id


def test_what_began_before_a_change_ends_with_the_index_that_it_began_with(place, spectrum, body, at_once):
    source = opened(place)
    entered, go_on = threading.Event(), threading.Event()
    embed = source.embed

    def slow(spectra, **options):
        entered.set()
        assert go_on.wait(20)
        return embed(spectra, **options)

    source.embed = slow
    with TestClient(create_app(source, SETTINGS)) as client:
        first = client.get("/api/info").json()["index"]
        answers: list = []
        asking = threading.Thread(
            target=lambda: answers.append(client.post("/api/search/peaks", json={**body, "k": 1}).json())
        )
        asking.start()
        assert entered.wait(20)
        data = mgf(("a", spectrum.precursor_mz, as_peaks(spectrum)))
        job = client.post("/api/jobs", files={"file": ("q.mgf", data)}, data={"k": "1"}).json()["id"]
        writer = opened(place)
        writer.delete([spectrum.spectrum_id])
        writer.compact()
        threading.Timer(0.5, go_on.set).start()  # the new state is tried out behind what waits
        until(client, lambda told: told["generation"] != first["generation"])
        asking.join()
        for _ in range(1000):
            if client.get(f"/api/jobs/{job}").json()["state"] == "done":
                break
            time.sleep(0.01)
        for answer in (answers[0], client.get(f"/api/jobs/{job}/hits").json()):
            assert answer["index"] == first
            assert answer["queries"][0]["hits"][0]["library_id"] == spectrum.spectrum_id
        assert spectrum.spectrum_id in client.get(f"/api/jobs/{job}/hits?format=msp").text
        assert spectrum.spectrum_id not in client.post("/api/search/peaks", json=body).text


def test_what_was_replaced_is_held_no_longer(place, spectrum, body, at_once):
    app = create_app(opened(place), SETTINGS)
    with TestClient(app) as client:
        held = weakref.ref(app.state.service.now.index.library)
        first = client.get("/api/info").json()["index"]
        client.get("/api/example")
        for filters in ({}, {"energy": [5, 50]}):
            answer = client.post("/api/search/peaks", json={**body, "filters": filters})
            assert answer.status_code == 200
        data = mgf(("a", spectrum.precursor_mz, as_peaks(spectrum)))
        job = f"/api/jobs/{client.post('/api/jobs', files={'file': ('q.mgf', data)}).json()['id']}"
        for _ in range(1000):
            if client.get(job).json()["state"] == "done":
                break
            time.sleep(0.01)
        assert client.delete(job).status_code == 204
        opened(place).append([moved(spectrum, 1)])
        until(client, lambda told: told["generation"] != first["generation"])
        for _ in range(100):
            gc.collect()
            if held() is None:
                break
            time.sleep(0.02)
        assert held() is None, "files that were removed stay on the disk"


def test_nothing_is_opened_again_where_nothing_has_changed(place, monkeypatch):
    watch = IndexWatch(opened(place), Metrics())
    reads, read = [], index_watch.read_index_manifest
    monkeypatch.setattr(index_watch, "read_index_manifest", lambda folder: (reads.append(folder), read(folder))[1])
    assert [asyncio.run(watch.look()) for _ in range(5)] == [False] * 5
    assert len(reads) == 1
    os.utime(place / "manifest.json")
    assert not asyncio.run(watch.look()), "the same manifest, touched"
    assert len(reads) == 2


@pytest.mark.parametrize(("status", "is_told"), [(500, True), (503, False)])
def test_a_state_whose_first_search_fails_is_not_served(place, spectrum, status, is_told):
    tried = []

    async def try_out(state: IndexState) -> None:
        tried.append(state)
        if len(tried) < 3:
            raise RequestError(status, "the index is damaged; the log of the service says where")

    watch = IndexWatch(opened(place), Metrics(), try_out)
    first = watch.state
    opened(place).append([moved(spectrum, 1)])
    assert not asyncio.run(watch.look())
    assert watch.state is first
    assert (watch.error is not None) == is_told
    assert not asyncio.run(watch.look())
    assert len(tried) == (1 if is_told else 2), "what is damaged is not opened at each look; what was busy is"
    if not is_told:
        assert asyncio.run(watch.look())
        assert watch.state is tried[2]


def test_a_database_of_structures_that_is_built_anew_is_served(tmp_path):
    def build(*smiles: str) -> None:
        entries = [NamedStructure(f"molecule {n}", text, n, f"H{n}") for n, text in enumerate(smiles)]
        StructureIndex.build(TowerModel(), entries).save(tmp_path / "molecules", overwrite=True)

    build("CC(=O)Nc1ccc(O)cc1")
    watch = IndexWatch(StructureIndex.open(tmp_path / "molecules", TowerModel()), Metrics())
    first = watch.state
    assert not asyncio.run(watch.look())
    build("OC(=O)c1cccnc1", "CC(=O)Nc1ccc(O)cc1")
    assert asyncio.run(watch.look())
    assert watch.error is None
    assert (len(first.index), len(watch.state.index)) == (1, 2)
    assert first.generation not in watch.state.generations
    assert first.index.metadata["smiles"].to_pylist() == ["CC(=O)Nc1ccc(O)cc1"], "the old one can no longer be read"


def test_generations_hold_as_long_as_the_segments_before_them(place, spectrum):
    index = opened(place)
    tokens = [generations_of(index.manifest)]
    index.append([moved(spectrum, 1)])
    tokens.append(generations_of(index.manifest))
    index.append([moved(spectrum, 2)])
    tokens.append(generations_of(index.manifest))
    index.write_entry("calibration", {"curves": []})
    index.delete(["new-1"])
    assert generations_of(index.manifest) == tokens[2]
    assert [len(of_state) for of_state in tokens] == [1, 2, 3]
    assert tokens[2][:2] == tokens[1]
    assert tokens[1][:1] == tokens[0]
    index.compact()
    assert not set(generations_of(index.manifest)) & set(tokens[2])
    assert IndexState(index).generation == generations_of(index.manifest)[-1]
