"""The index: row order, exact windows, polarity, and a folder that opens only whole and with its own model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from ionbed import InputError, read
from ionbed.embeddings.hits import HIT_METADATA, EmbeddedQueries
from ionbed.embeddings.index import Index, build
from ionbed.embeddings.segments.commits import read_index_manifest, write_index_manifest
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import SCHEMA, table_from_spectra

from .conftest import CountSketchModel, random_spectrum

SEGMENT_FILES = {
    f"segments/1/{name}.npy" for name in ("vectors", "precursor_mz", "polarity", "checksums")
} | {"segments/1/library.arrow"}  # fmt: skip


def forge(folder, **entries):
    """Write a manifest with other entries (None: without them) that agrees with its checksum."""
    manifest = read_index_manifest(folder) | entries
    write_index_manifest(folder, {name: value for name, value in manifest.items() if value is not None})


@pytest.fixture
def index(model, library):
    return Index.build(model, library)


@pytest.fixture
def saved(index, tmp_path):
    index.save(tmp_path / "index")
    return tmp_path / "index"


def query_like(spectrum: Spectrum, **changes) -> Spectrum:
    fields = {"spectrum_id": "query", "precursor_mz": spectrum.precursor_mz, "polarity": spectrum.polarity}
    return Spectrum(mz=spectrum.mz, intensity=spectrum.intensity, **{**fields, **changes})


def test_rows_are_in_precursor_order_ties_by_id_and_say_which_spectrum_they_are(model, library):
    twins = [random_spectrum(np.random.default_rng(i), name, precursor_mz=400.0) for i, name in enumerate("cab")]
    index = Index.build(model, [*twins[:2], *library, twins[2]])
    assert len(index) == 63
    assert (np.diff(index.precursor_mz) >= 0).all()
    ids = index.metadata["spectrum_id"].to_pylist()
    first = ids.index("a")
    assert ids[first : first + 3] == ["a", "b", "c"]
    by_id = {s.spectrum_id: s for s in [*library, *twins]}
    np.testing.assert_array_equal(index.vectors, model.embed([by_id[i] for i in ids]))
    assert index.polarity.tolist() == [by_id[i].polarity or 0 for i in ids]


def test_the_order_of_the_input_does_not_matter(model, library, tmp_path):
    Index.build(model, library).save(tmp_path / "a")
    Index.build(model, table_from_spectra(library[::-1])).save(tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 2 + len(SEGMENT_FILES)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_repeated_ids_get_a_number_so_that_a_hit_names_one_spectrum(model):
    rng = np.random.default_rng(0)
    index = Index.build(model, [random_spectrum(rng, "x", precursor_mz=200.0 + i) for i in range(3)])
    assert index.metadata["spectrum_id"].to_pylist() == ["x", "x#2", "x#3"]


@pytest.mark.parametrize("precursor_ppm", [3.5, 1000.0, None])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_search_gives_what_a_plain_search_gives(index, model, library, k, precursor_ppm):
    queries = [query_like(s, precursor_mz=s.precursor_mz * (1 + 2e-6)) for s in library[:20]]
    queries += [query_like(library[0], polarity=None), query_like(library[1], precursor_mz=5000.0)]
    hits = index.search(queries, k=k, precursor_ppm=precursor_ppm)
    assert hits.rows.shape == hits.scores.shape == hits.precursor_error_ppm.shape == (22, k)
    vectors = model.embed(queries)
    for i, query in enumerate(queries):
        error = (query.precursor_mz - index.precursor_mz) / index.precursor_mz * 1e6
        inside = np.ones(len(index), bool) if precursor_ppm is None else np.abs(error) <= precursor_ppm
        allowed = inside & (index.polarity * (query.polarity or 0) != -1)
        scores = (index.vectors[:].astype(float) * vectors[i]).sum(axis=1).astype(np.float32)
        expected = [row for row in np.lexsort((np.arange(len(index)), -scores)) if allowed[row]][:k]
        assert hits.rows[i].tolist() == expected + [-1] * (k - len(expected))
        assert hits.scores[i, : len(expected)].tolist() == scores[expected].tolist()
        assert hits.precursor_error_ppm[i, : len(expected)].tolist() == error[expected].tolist()
        assert hits.num_in_window[i] == inside.sum()
        assert np.isnan(hits.scores[i, len(expected) :]).all()
        assert np.isnan(hits.precursor_error_ppm[i, len(expected) :]).all()


def test_hits_are_named(index, library):
    target = next(s for s in library if s.spectrum_id == "lib-3-2")
    query = query_like(target, precursor_mz=target.precursor_mz * (1 - 5e-6))
    nothing = query_like(target, precursor_mz=99.0)
    hits = index.search([nothing, query], k=4)
    assert [len(of_query) for of_query in hits] == [0, 4]
    best = hits[1][0]
    assert (best.rank, best.score) == (1, pytest.approx(1.0, abs=1e-6))
    assert best.precursor_error_ppm == pytest.approx(-5.0, abs=1e-4)
    assert tuple(best.metadata) == HIT_METADATA
    assert best.metadata["spectrum_id"] == "lib-3-2"
    assert best.metadata["name"] == "compound 3.2"
    assert [hit.rank for hit in hits[1]] == [1, 2, 3, 4]
    [found] = index.spectra([best.row])
    np.testing.assert_array_equal(found.mz, target.mz)
    with pytest.raises(IndexError):
        hits[2]


def test_hits_do_not_depend_on_the_queries_beside_them(index, library):
    queries = [query_like(s) for s in library]
    for precursor_ppm in (10.0, None):
        together = index.search(queries, k=7, precursor_ppm=precursor_ppm)
        for i in (0, 17, 59):
            alone = index.search([queries[i]], k=7, precursor_ppm=precursor_ppm)
            np.testing.assert_array_equal(alone.rows[0], together.rows[i])
            np.testing.assert_array_equal(alone.scores[0], together.scores[i])


def test_the_other_polarity_is_never_a_hit(index, library):
    for precursor_ppm in (20.0, None):
        for polarity in (1, -1):
            hits = index.search([query_like(s, polarity=polarity) for s in library], k=60, precursor_ppm=precursor_ppm)
            found = index.polarity[hits.rows[hits.rows >= 0]]
            assert set(found.tolist()) == {0, polarity}
    unknown = index.search([query_like(library[0], polarity=None)], k=60, precursor_ppm=None)
    assert set(index.polarity[unknown.rows[0]].tolist()) == {-1, 0, 1}


def test_embedded_queries_need_no_model(saved, model, library):
    shutil.rmtree(saved / "model")
    files = read_index_manifest(saved)["files"]
    forge(saved, files={name: entry for name, entry in files.items() if not name.startswith("model/")})
    precursor_mz = np.array([s.precursor_mz for s in library[:3]])
    queries = EmbeddedQueries(model.embed(library[:3]), precursor_mz, np.zeros(3), model.model_hash())
    hits = Index.open(saved).search(queries, k=1)
    assert [of_query[0].metadata["spectrum_id"] for of_query in hits] == [s.spectrum_id for s in library[:3]]


def test_open_gives_back_what_was_saved(index, saved, model, library):
    opened = Index.open(saved, model)
    assert len(opened) == 60
    np.testing.assert_array_equal(opened.vectors, index.vectors)
    assert not opened.vectors[:].flags.writeable
    assert opened.metadata.equals(index.metadata)
    queries = [query_like(s) for s in library]
    for precursor_ppm in (10.0, None):
        before, after = (i.search(queries, 5, precursor_ppm) for i in (index, opened))
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.scores, after.scores)
    opened.verify()
    with pa.memory_map(str(saved / "segments/1/library.arrow")) as file:
        assert pa.ipc.open_file(file).schema.equals(SCHEMA)


def test_an_opened_index_saves_the_same_bytes_again(saved, model, tmp_path):
    Index.open(saved, model).save(tmp_path / "copy")
    files = sorted(p.relative_to(saved) for p in saved.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "copy") for p in (tmp_path / "copy").rglob("*") if p.is_file())
    for file in files:
        assert (saved / file).read_bytes() == (tmp_path / "copy" / file).read_bytes()


def test_spectra_come_in_the_order_asked_from_several_batches(model, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    spectra = [random_spectrum(rng, f"s{i:02}", precursor_mz=100.0 + i) for i in range(25)]
    for module in ("numbers", "table", "runs", "segment", "library"):
        monkeypatch.setattr(f"ionbed.embeddings.segments.{module}.ROWS_PER_BLOCK", 4)
    Index.build(model, spectra).save(tmp_path / "index")
    opened = Index.open(tmp_path / "index", model)
    rows = [24, 0, 13, 13, 4]
    for row, spectrum in zip(rows, opened.spectra(rows), strict=True):
        assert spectrum.spectrum_id == f"s{row:02}"
        np.testing.assert_array_equal(spectrum.mz, spectra[row].mz)
    assert opened.spectra([]) == []
    with pytest.raises(IndexError):
        opened.spectra([25])


def test_the_manifest_says_what_made_it(saved, model):
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["command"] == "index build"
    assert manifest["model_hash"] == model.model_hash()
    assert manifest["embedding_dim"] == 16
    assert manifest["counts"] == {"read": 60, "kept": 60, "dropped": {}}
    assert set(manifest["files"]) == {*SEGMENT_FILES, "model/config.json"}


def test_info_describes_the_library(saved, model):
    info = Index.open(saved, model).info()
    assert info["spectra"] == 60
    assert info["structures"] == 10
    assert (info["positive"], info["negative"], info["polarity_unknown"]) == (40, 10, 10)
    assert info["predicted_spectra"] == 0
    assert info["licenses"] == {"CC0": 60}
    assert info["model_hash"] == model.model_hash()


def test_spectra_without_peaks_are_left_out_and_counted(model, library):
    empty = Spectrum("empty", 200.0, mz=library[0].mz[:0], intensity=library[0].intensity[:0])
    index = Index.build(model, [empty, *library])
    assert index.manifest["counts"] == {"read": 61, "kept": 60, "dropped": {"no-peaks": 1}}
    with pytest.raises(InputError, match="no spectrum to index"):
        Index.build(model, [empty])
    with pytest.raises(InputError, match="no spectrum to index"):
        Index.build(model, [])
    with pytest.raises(InputError, match="query empty: has no peaks"):
        index.search([empty])


def test_no_queries_give_no_hits(index):
    for precursor_ppm in (10.0, None):
        hits = index.search([], k=3, precursor_ppm=precursor_ppm)
        assert hits.rows.shape == (0, 3)
        assert list(hits) == []


@pytest.mark.parametrize(
    ("k", "ppm", "word"),
    [(0, 10.0, "hits"), (1, 0.0, "ppm"), (1, -3.0, "ppm"), (1, 1e6, "ppm"), (1, float("nan"), "ppm")],
)
def test_impossible_options_are_refused(index, library, k, ppm, word):
    with pytest.raises(InputError, match=word):
        index.search(library[:1], k=k, precursor_ppm=ppm)


@pytest.mark.parametrize(
    "vectors", [np.ones((2, 16)), np.zeros((2, 16)), np.full((2, 16), np.nan), np.eye(2, 7), np.eye(3, 16)]
)
def test_vectors_that_cannot_be_of_this_index_are_refused(index, vectors):
    hash_of_index = index.manifest["model_hash"]
    with pytest.raises(InputError, match="embedding"):
        index.search(EmbeddedQueries(vectors, np.array([200.0, 300.0]), np.zeros(2, np.int8), hash_of_index))


def test_another_model_is_refused_by_name(saved, model):
    other = CountSketchModel(seed=1)
    with pytest.raises(InputError, match=f"{model.model_hash()[:12]}.*not with {other.model_hash()[:12]}"):
        Index.open(saved, other)


def test_vectors_of_another_model_are_refused(index, library):
    other = CountSketchModel(seed=1)
    queries = Index.build(other, library).embed(library[:2])
    with pytest.raises(InputError, match=f"{other.model_hash()[:12]}.*{index.manifest['model_hash'][:12]}"):
        index.search(queries)


@pytest.mark.parametrize(
    ("key", "value"),
    [("counts", None), ("counts", {}), ("counts", []), ("model_hash", 7), ("inputs", None), ("files", [])],
)
def test_a_malformed_manifest_is_told(saved, model, key, value):
    forge(saved, **{key: value})
    with pytest.raises(InputError, match="not one of an index") as caught:
        Index.open(saved, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*sorted(SEGMENT_FILES), "model/config.json"])
def test_a_file_that_is_missing_short_or_changed_is_told(saved, model, name):
    path, original = saved / name, (saved / name).read_bytes()
    path.write_bytes(original[:-1])
    with pytest.raises(InputError, match="bytes"):
        Index.open(saved, model)
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(InputError, match="checksum"):
        Index.open(saved, model)
    path.unlink()
    with pytest.raises(InputError, match="missing"):
        Index.open(saved, model)


def test_large_files_are_compared_on_request(saved, model, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.index_folder.SMALL_FILE", 100)
    content = (saved / "segments/1/vectors.npy").read_bytes()
    (saved / "segments/1/vectors.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    opened = Index.open(saved, model)
    with pytest.raises(InputError, match=r"vectors\.npy: was changed"):
        opened.verify()


def test_what_is_no_index_is_told(saved, model, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Index.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="ionbed index build"):
        Index.open(tmp_path / "empty")
    before = (saved / "manifest.json").read_bytes()
    forge(saved, command="prepare")
    with pytest.raises(InputError, match="was written by 'ionbed prepare'"):
        Index.open(saved, model)
    for missing in ("files", "model_hash", "counts"):
        (saved / "manifest.json").write_bytes(before)
        forge(saved, **{missing: None})
        with pytest.raises(InputError, match="build the index again"):
            Index.open(saved, model)
    for format in (None, 1, 3):
        (saved / "manifest.json").write_bytes(before)
        forge(saved, format=format)
        with pytest.raises(InputError, match="another version of ionbed; build it again"):
            Index.open(saved, model)
    (saved / "manifest.json").write_bytes(before)
    forge(saved, counts={"read": 60, "kept": 59, "dropped": {"no-peaks": 1}})
    with pytest.raises(InputError, match="differ in number"):
        Index.open(saved, model)


def test_a_taken_folder_is_refused_and_replaced_on_request(index, saved, library, model):
    with pytest.raises(InputError, match="--overwrite"):
        index.save(saved)
    Index.build(model, library[:5]).save(saved, overwrite=True)
    assert len(Index.open(saved, model)) == 5


def test_a_failed_save_leaves_nothing(index, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(CountSketchModel, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        index.save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


MGF = """BEGIN IONS
TITLE=first
PEPMASS=180.0634
CHARGE=1+
60.02 10
85.03 100
END IONS
BEGIN IONS
TITLE=broken
PEPMASS=N/A
70.1 5
END IONS
BEGIN IONS
TITLE=second
PEPMASS=120.5
CHARGE=1-
55.5 1
77.7 3
END IONS
"""


def test_build_takes_a_file_of_spectra_and_its_counts_add_up(model, tmp_path):
    (tmp_path / "library.mgf").write_text(MGF)
    index = build(tmp_path / "library.mgf", tmp_path / "index", model)
    assert index.metadata["spectrum_id"].to_pylist() == ["second", "first"]
    found = index.search(read(tmp_path / "library.mgf"), k=1)
    assert [of_query[0].metadata["spectrum_id"] for of_query in found] == ["first", "second"]
    assert index.polarity.tolist() == [-1, 1]
    counts = index.manifest["counts"]
    assert (counts["read"], counts["kept"], sum(counts["dropped"].values())) == (3, 2, 1)
    assert index.manifest["inputs"][0]["bytes"] == len(MGF)
    with pytest.raises(InputError, match="--overwrite"):
        build(tmp_path / "library.mgf", tmp_path / "index", model)
    with pytest.raises(InputError, match="nowhere"):
        build(tmp_path / "nowhere.mgf", tmp_path / "other", model)
    assert not (tmp_path / "other").exists()


def test_build_takes_a_prepared_store(model, tmp_path):
    from ionbed.spectra.prepare import prepare

    (tmp_path / "library.mgf").write_text(MGF)
    prepare([tmp_path / "library.mgf"], tmp_path / "store", workers=1)
    index = build(tmp_path / "store", tmp_path / "index", model)
    assert index.metadata["spectrum_id"].to_pylist() == ["second", "first"]
    assert index.manifest["counts"]["read"] == 2
