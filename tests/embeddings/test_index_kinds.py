"""The approximate index of a segment: built by kind, measured, kept through commits; and what a build needs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from ionbed import InputError, load_model
from ionbed.embeddings.build_estimate import MODEL_BYTES, BuildEstimate, weights_bytes
from ionbed.embeddings.embedded_before import EmbeddedBefore
from ionbed.embeddings.index import Index, build
from ionbed.embeddings.library_rows import size_of
from ionbed.embeddings.library_writing import estimate_of
from ionbed.embeddings.segments.approximate_rows import kind_for
from ionbed.spectra.prepare import prepare
from ionbed.spectra.store import Store
from ionbed.spectra.writers import write_mgf

from .conftest import CountSketchModel, random_spectrum

COUNT = 1200


@pytest.fixture(scope="module")
def spectra():
    rng = np.random.default_rng(3)
    return [random_spectrum(rng, f"s{number:04}") for number in range(COUNT)]


@pytest.fixture(scope="module")
def built(spectra):
    return Index.build(CountSketchModel(), spectra, kind="ivf-sq8", recall=0.9)


@pytest.fixture
def always_approximate(monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.approximate.FLAT_UP_TO", 0)
    monkeypatch.setattr("ionbed.embeddings.approximate.MIN_SHARE", 0.0)


def test_an_approximate_index_is_kept_with_its_recall_and_searched(built, spectra, tmp_path, always_approximate):
    built.save(tmp_path / "index")
    index = Index.open(tmp_path / "index", built.model)
    assert "segments/1/ann.faiss" in index.manifest["files"]
    [told] = index.info()["open_search"]
    assert (told["rows"], told["kind"]) == (COUNT, "ivf-sq8") and 0.85 < told["recall_at_10"] <= 1
    entry = index.manifest["segments"][0]["approximate"]
    assert entry["wanted"] == 0.9 and entry["recall"] == pytest.approx(told["recall_at_10"], abs=1e-4)
    exact = Index.build(built.model, spectra, kind="flat")
    queries = spectra[::20]
    for options in ({"precursor_ppm": None}, {"precursor_da": 300.0}):
        found, expected = (i.search(queries, 10, **options) for i in (index, exact))
        shared = [len(set(a) & set(b)) for a, b in zip(found.rows.tolist(), expected.rows.tolist(), strict=True)]
        assert np.mean(shared) > 8
        assert (found.rows[:, 0] == expected.rows[:, 0]).all()  # itself
        assert (found.rows >= 0).all()
    narrow = [i.search(queries, 10, precursor_da=1.0).rows for i in (index, exact)]
    np.testing.assert_array_equal(*narrow)


def test_what_is_appended_and_compacted_has_the_kind_of_the_index(built, spectra, tmp_path, always_approximate):
    built.save(tmp_path / "index")
    index = Index.open(tmp_path / "index", built.model)
    reader = Index.open(tmp_path / "index", built.model)
    index.append([random_spectrum(np.random.default_rng(number), f"new-{number}") for number in range(5)])
    index.delete(["s0000"])
    assert [entry["kind"] for entry in index.info()["open_search"]] == ["ivf-sq8", "flat"]
    query = index.search(spectra[:1], 1, None)
    assert query[0][0].metadata["spectrum_id"] != "s0000"
    index.compact()
    [told] = index.info()["open_search"]
    assert (told["rows"], told["kind"]) == (COUNT + 4, "ivf-sq8")
    # The reader has not read its approximate index so far, and its file is gone from the folder.
    assert reader.search(spectra[:1], 1, None)[0][0].metadata["spectrum_id"] == "s0000"


def test_a_damaged_approximate_index_is_named_when_it_is_needed(built, spectra, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 0)
    built.save(tmp_path / "index")
    path = tmp_path / "index/segments/1/ann.faiss"
    whole = path.read_bytes()
    for place in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        index = Index.open(tmp_path / "index", built.model)
        assert len(index.search(spectra[:1])[0]) >= 1
        with pytest.raises(InputError, match=r"ann\.faiss: is damaged"):
            index.search(spectra[:1], 1, None)
        with pytest.raises(InputError, match=r"ann\.faiss: was changed"):
            index.verify()


def test_the_estimate_counts_the_copy_of_the_model(spectra, tmp_path):
    write_mgf(spectra[:20], tmp_path / "library.mgf")
    prepare([tmp_path / "library.mgf"], tmp_path / "store", workers=1)
    model = load_model()
    index = build(tmp_path / "store", tmp_path / "index", model)
    files = index.manifest["files"]
    taken = sum(entry["bytes"] for name, entry in files.items() if name.startswith(("segments/", "model/")))
    estimated = estimate_of(Store(tmp_path / "store"), model, "auto")
    assert estimated.model_bytes == weights_bytes(model) > 1e7
    assert estimated.disk == pytest.approx(taken, rel=0.01)
    before = EmbeddedBefore(model, pa.array(["a"]), np.zeros((1, 256), np.float32))
    assert weights_bytes(before) == weights_bytes(model)
    assert weights_bytes(CountSketchModel()) == 0


def test_a_kind_follows_from_the_size_or_is_refused(library, model):
    assert kind_for("auto", 1_000, 256) == "flat" and kind_for("auto", 1_000_000, 256) == "ivf-sq8"
    assert kind_for("hnsw", 10, 256, is_part=True) == "flat"
    with pytest.raises(InputError, match="hnsw needs at least"):
        Index.build(model, library, kind="hnsw")
    with pytest.raises(InputError, match="the kind of index is 'tree'"):
        Index.build(model, library, kind="tree")


def test_a_build_that_has_no_room_says_so_before_it_embeds(model, library, tmp_path, monkeypatch):
    write_mgf(library, tmp_path / "library.mgf")
    prepare([tmp_path / "library.mgf"], tmp_path / "store", workers=1)

    def embed(*_, **__):
        raise AssertionError("nothing is embedded but what tells the number of dimensions")

    known = model.embed
    monkeypatch.setattr(CountSketchModel, "embed", lambda self, s: known(s) if len(s) == 1 else embed())
    estimate = "ionbed.embeddings.build_estimate"
    for source in ("store", "library.mgf"):
        monkeypatch.setattr(f"{estimate}.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
        with pytest.raises(InputError, match=r"has 0\.0 MB free, and the index needs \d.* while it is built"):
            build(tmp_path / source, tmp_path / "index", model)
        monkeypatch.setattr(f"{estimate}.shutil.disk_usage", lambda _: SimpleNamespace(free=1e12))
        memory = SimpleNamespace(available=MODEL_BYTES)
        monkeypatch.setattr(f"{estimate}.psutil.virtual_memory", lambda memory=memory: memory)
        with pytest.raises(InputError, match=r"1\.5 GB of memory are free, and the build needs 1\.5 GB"):
            build(tmp_path / source, tmp_path / "index", model)
        assert not (tmp_path / "index").exists()


def test_the_estimate_is_what_the_index_then_takes(spectra, tmp_path):
    write_mgf(spectra, tmp_path / "library.mgf")
    prepare([tmp_path / "library.mgf"], tmp_path / "store", workers=1)
    model = CountSketchModel()
    index = build(tmp_path / "store", tmp_path / "index", model)
    taken = sum(entry["bytes"] for name, entry in index.manifest["files"].items() if name.startswith("segments/"))
    of_store = estimate_of(Store(tmp_path / "store"), model, "auto")
    assert of_store.num_spectra == len(index) and of_store.kind == "flat"
    assert of_store.disk == pytest.approx(taken, rel=0.1)
    assert of_store.disk_while_built == of_store.disk + of_store.table_bytes
    assert re.match(r"1,\d\d\d spectra, searched as flat: \d\.\d MB on disk", str(of_store))
    assert BuildEstimate(30_000_000, 256, 20 * 10**9, "ivf-pq").memory > 5e9
    with pytest.raises(InputError, match="no spectrum to index"):
        size_of([])
