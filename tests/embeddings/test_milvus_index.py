"""An index in Milvus is built, searched and told of by the commands of any index, with the same lines of hits."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest

from ionbed.artifacts import MANIFEST
from ionbed.cli import main
from ionbed.embeddings import kinds, milvus_index, vector_store
from ionbed.embeddings.embedded_before import EmbeddedBefore
from ionbed.embeddings.encode import Part, embed_file
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.milvus import MilvusStore
from ionbed.embeddings.milvus_connection import TOKEN_VARIABLE, Address
from ionbed.embeddings.milvus_index import MilvusIndex
from ionbed.embeddings.search import find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.errors import InputError
from ionbed.spectra.store import Store
from ionbed.spectra.writers import write_mgf

from .conftest import CountSketchModel, random_spectrum

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture(scope="module")
def built(store, tmp_path_factory):
    """An index of the store in Milvus and one on this machine, both open, and a file of queries."""
    folder, model = tmp_path_factory.mktemp("milvus"), CountSketchModel()
    spectra = Store(store).spectra()
    others = [
        random_spectrum(np.random.default_rng(1), "far", precursor_mz=1500.0),
        random_spectrum(np.random.default_rng(2), "negative", precursor_mz=spectra[0].precursor_mz, polarity=-1),
    ]
    write_mgf([*spectra[:20], *others], folder / "queries.mgf")
    there = milvus_index.build(store, folder / "there", model, Address(str(folder / "there.db"), "library"))
    here = kinds.build(store, folder / "here", model)
    yield there, here, folder / "queries.mgf"
    there.store.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"precursor_ppm": None, "k": 3}, {"precursor_ppm": 500.0, "k": 50}],
    ids=["10 ppm", "open", "500 ppm"],
)
def test_the_file_of_hits_is_that_of_an_index_on_this_machine(built, tmp_path, options):
    there, here, queries = built
    for name in ("hits.tsv", "hits.jsonl", "hits.msp"):
        kinds.search(there, queries, tmp_path / f"there-{name}", SearchOptions(**options))
        kinds.search(here, queries, tmp_path / f"here-{name}", SearchOptions(**options))
    tables = [(tmp_path / f"{place}-hits.tsv").read_text() for place in ("there", "here")]
    assert tables[0] == tables[1]
    assert tables[0].count("\n") > 20
    places = [(tmp_path / f"{place}-hits.msp").read_text() for place in ("there", "here")]
    assert places[0].count("\n") == places[1].count("\n")


def test_a_query_without_hits_says_why(built):
    there, here, queries = built
    for filters in (None, Filters(energy=(10, 10)), Filters(polarity=-1)):
        notes = {row.query_id: row.note for row in find(there, queries, SearchOptions(k=2, filters=filters))}
        assert notes["far"] == "no library spectrum within 10 ppm"
        if filters is None:
            assert notes == {row.query_id: row.note for row in find(here, queries, SearchOptions(k=2))}
            assert notes["negative"] == "every library spectrum within 10 ppm has the other polarity"
    assert "none has polarity negative" in notes["S00-0"]


def test_the_folder_names_the_address_and_never_a_token(built, monkeypatch):
    there, _, _ = built
    text = (there.folder / MANIFEST).read_text()
    assert json.loads(text)["milvus"] == {
        "uri": there.store.address.uri, "collection": "library", "index": "FLAT", "consistency": "Strong",
    }  # fmt: skip
    assert "token" not in text.lower()
    assert sorted(os.listdir(there.folder)) == ["manifest.json", "model"]


def test_it_is_opened_again_and_told_of(built):
    there, _, _ = built
    opened = kinds.open_index(there.folder, CountSketchModel())
    assert isinstance(opened, MilvusIndex)
    told = opened.info()
    assert (told["spectra"], told["collection"], told["vector_index"]) == (144, "library", "FLAT")
    opened.verify()
    with pytest.raises(InputError, match="searched by cosine"):
        opened.score_name("fused")
    with pytest.raises(InputError, match="was built with the model"):
        kinds.open_index(there.folder, CountSketchModel(seed=9))
    with pytest.raises(InputError, match="has its vectors in Milvus"):
        kinds.index_of_spectra(there.folder)


def test_a_folder_that_was_changed_or_has_lost_its_collection_is_refused(built, tmp_path):
    there, here, _ = built
    shutil.copytree(there.folder, tmp_path / "changed")
    (tmp_path / "changed" / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json"):
        MilvusIndex.open(tmp_path / "changed", CountSketchModel())
    shutil.copytree(there.folder, tmp_path / "moved")
    manifest = json.loads((tmp_path / "moved" / MANIFEST).read_text())
    manifest["milvus"]["collection"] = "gone"
    (tmp_path / "moved" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="no collection of that name"):
        MilvusIndex.open(tmp_path / "moved", CountSketchModel())
    with pytest.raises(InputError, match=r"ionbed\.Index\.open"):
        MilvusIndex.open(here.folder)


def test_spectra_are_appended_and_appending_them_again_changes_nothing(store, built, tmp_path):
    _, _, queries = built
    model = CountSketchModel()
    index = milvus_index.build(store, tmp_path / "index", model, Address(str(tmp_path / "a.db"), "library"))
    assert len(index) == 144
    for _ in range(2):
        assert milvus_index.append(tmp_path / "index", queries, model) == 22
        assert len(index.store) == 146
    index.store.delete(["far", "negative", "S00-0"])
    with pytest.raises(InputError, match="holds 143 spectra, not the 144"):
        index.verify()


def test_a_build_that_fails_leaves_neither_folder_nor_collection(store, tmp_path, monkeypatch):
    address = Address(str(tmp_path / "a.db"), "library")

    def fail(self, rows, vectors):
        raise InputError("no room")

    monkeypatch.setattr(MilvusStore, "add", fail)
    with pytest.raises(InputError, match="no room"):
        milvus_index.build(store, tmp_path / "index", CountSketchModel(), address)
    assert not (tmp_path / "index").exists()
    monkeypatch.undo()
    milvus_index.build(store, tmp_path / "index", CountSketchModel(), address)
    with pytest.raises(InputError, match="index"):
        milvus_index.build(store, tmp_path / "index", CountSketchModel(), address)
    with pytest.raises(InputError, match="is there already"):
        milvus_index.build(store, tmp_path / "second", CountSketchModel(), address)
    replaced = milvus_index.build(store, tmp_path / "index", CountSketchModel(), address, overwrite=True)
    assert len(replaced) == 144


class Refusing(CountSketchModel):
    """A model that embeds no more than one spectrum at once, as an estimate of a build does."""

    def embed(self, spectra, *, progress=False):
        assert len(spectra) <= 1, "what was embedded before is embedded again"
        return super().embed(spectra)


@pytest.fixture
def embeddings(store, tmp_path):
    embed_file(store, tmp_path / "e.parquet", CountSketchModel())
    return tmp_path / "e.parquet"


def test_an_index_of_embeddings_is_that_of_the_model(store, built, embeddings, tmp_path):
    there, here, queries = built
    index = kinds.build(store, tmp_path / "index", Refusing(), embeddings=embeddings)
    np.testing.assert_array_equal(index.vectors[:], here.vectors[:])
    in_milvus = kinds.build_in_milvus(
        store, tmp_path / "1-in milvus", Refusing(), str(tmp_path / "m.db"), embeddings=embeddings
    )
    assert in_milvus.store.address.collection == "_1_in_milvus"
    model = CountSketchModel()
    for folder, like in ((tmp_path / "index", here), (tmp_path / "1-in milvus", there)):
        found = list(find(kinds.open_index(folder, model), queries))
        assert [row.library_id for row in found] == [row.library_id for row in find(like, queries)]


def test_embeddings_of_something_else_are_refused(store, embeddings, tmp_path):
    model = CountSketchModel()
    with pytest.raises(InputError, match="of another model"):
        EmbeddedBefore.read(embeddings, CountSketchModel(seed=5), Store(store))
    changed = Store(store)
    changed.manifest["shards"] = changed.manifest["shards"][:1]
    with pytest.raises(InputError, match="of another store"):
        EmbeddedBefore.read(embeddings, model, changed)
    (tmp_path / "no.parquet").write_bytes(embeddings.read_bytes()[:500])
    with pytest.raises(InputError, match="is damaged or no table of embeddings"):
        EmbeddedBefore.read(tmp_path / "no.parquet", model, Store(store))
    read = EmbeddedBefore.read(embeddings, model, Store(store))
    table = Store(store).table(["spectrum_id"])
    np.testing.assert_array_equal(read.of_ids(table["spectrum_id"][5:9]), model.embed(Store(store).spectra()[5:9]))
    with pytest.raises(InputError, match="spectrum other: is not among the embeddings"):
        read.of_ids(pa.array(["other"]))


def test_vectors_of_an_index_store_are_those_that_were_given(store, tmp_path):
    table = Store(store).table()
    vectors = np.random.default_rng(0).normal(size=(len(table), 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = vector_store.IndexStore.create(tmp_path / "index", CountSketchModel(), table[:100], vectors[:100])
    made.add(table[100:], vectors[100:])
    rows = made.index.rows(np.arange(len(table)), ["spectrum_id"])["spectrum_id"].to_pylist()
    place = {name: row for row, name in enumerate(table["spectrum_id"].to_pylist())}
    np.testing.assert_array_equal(made.index.vectors[:], vectors[[place[name] for name in rows]])


def test_the_commands(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(TOKEN_VARIABLE, "very-secret")
    monkeypatch.setattr("ionbed.encoder.loading.load_model", lambda path=None: CountSketchModel())
    spectra = Store(store).spectra()[:6]
    write_mgf(spectra, tmp_path / "library.mgf")
    assert main(["index", "build", "library.mgf", "--out", "library", "--milvus", "m.db", "--collection", "mine"]) == 0
    assert main(["search", "library", "library.mgf", "--out", "hits.tsv", "--open"]) == 0
    assert (tmp_path / "hits.tsv").read_text().count("\n") == 37
    assert main(["index", "info", "library"]) == 0
    assert "mine" in capsys.readouterr().out
    for path in (tmp_path / "library").rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()
    for words, message in (
        (["library.mgf", "--out", "x", "--collection", "mine"], "--collection and --empty go with"),
        (["library.mgf", "--out", "x", "--milvus", "m.db", "--kind", "hnsw"], "--milvus goes with none of"),
        (["library.mgf", "--out", "x", "--milvus", "http://a:b@c:1"], "IONBED_MILVUS_TOKEN"),
        (["library.mgf", "--out", "x", "--embeddings", "e.parquet"], "no prepared store"),
        (["library.mgf", "--out", "x", "--milvus", "m.db", "--collection", "mine"], "is there already"),
    ):
        assert main(["index", "build", *words]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "x").exists()
    assert main(["serve", "library", "--port", "0"]) == 2
    assert "is not served yet" in capsys.readouterr().err


def test_parts_of_a_store_are_appended_to_an_empty_collection_in_any_order_and_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr("ionbed.embeddings.encode.SPECTRA_AT_ONCE", 50)
    model, folder = CountSketchModel(), tmp_path / "index"
    index = milvus_index.build(store, folder, model, Address(str(tmp_path / "a.db"), "library"), empty=True)
    assert (len(index), index.manifest["counts"]["kept"]) == (0, 0)
    index.store.close()
    added = [milvus_index.append(folder, store, model, part=Part(number, 4)) for number in (3, 1, 4, 2, 1)]
    assert sum(added[:4]) == 144
    opened = MilvusIndex.open(folder, model)
    assert len(opened) == 144
    whole = kinds.build(store, tmp_path / "here", model)
    query = Store(store).spectra()[:30]
    for ours, theirs in zip(opened.search(query, 5, None), whole.search(query, 5, None), strict=True):
        assert [hit.metadata["spectrum_id"] for hit in ours] == [hit.metadata["spectrum_id"] for hit in theirs]
    with pytest.raises(InputError, match="is not a prepared store"):
        write_mgf(query, tmp_path / "q.mgf")
        milvus_index.append(folder, tmp_path / "q.mgf", model, part=Part(1, 2))


def test_the_commands_append_and_delete(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ionbed.encoder.loading.load_model", lambda path=None: CountSketchModel())
    write_mgf(Store(store).spectra()[:6], tmp_path / "library.mgf")
    write_mgf(Store(store).spectra()[6:9], tmp_path / "more.mgf")
    assert main(["index", "build", "library.mgf", "--out", "index", "--milvus", "m.db"]) == 0
    assert main(["index", "append", "index", "more.mgf"]) == 0
    (tmp_path / "ids.txt").write_text("S00-0\nS01-0\n")
    assert main(["index", "delete", "index", "--ids", "ids.txt"]) == 0
    assert "2 spectra deleted" in capsys.readouterr().err
    assert len(MilvusIndex.open("index", CountSketchModel())) == 7
    assert main(["index", "build", "library.mgf", "--out", "here"]) == 0
    for words, message in (
        (["append", "here", "more.mgf", "--part", "1/2"], "--part goes with an index in Milvus"),
        (["append", "index", "more.mgf", "--part", "1/2"], "is not a prepared store"),
        (["delete", "index", "--where", "license=CC0"], "deleted by --ids"),
        (["build", "library.mgf", "--out", "x", "--empty"], "--collection and --empty go with --milvus"),
    ):
        assert main(["index", *words]) == 2
        assert message in capsys.readouterr().err


def test_what_needs_the_vectors_on_this_machine_says_so(built, tmp_path, capsys):
    there, _, _ = built
    for words in (["index", "compact", there.folder], ["network", there.folder, "--out", tmp_path / "n.graphml"]):
        assert main([str(word) for word in words]) == 2
        assert "has its vectors in Milvus, where this cannot be done" in capsys.readouterr().err
