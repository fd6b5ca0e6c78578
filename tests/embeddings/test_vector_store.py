"""An index and a collection of Milvus (of milvus-lite, in a file) do the same by the same words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed.embeddings import milvus, milvus_connection
from ionbed.embeddings.filters import Filters
from ionbed.embeddings.hits import EmbeddedQueries
from ionbed.embeddings.milvus import MilvusStore
from ionbed.embeddings.milvus_collection import choose_kind, search_parameters
from ionbed.embeddings.milvus_connection import TOKEN_VARIABLE, Address
from ionbed.embeddings.milvus_rows import entities, formula_key, quoted, table_of, vector_field
from ionbed.embeddings.vector_store import IndexStore, VectorStore
from ionbed.errors import InputError
from ionbed.spectra.store import SCHEMA, table_from_spectra

from .conftest import CountSketchModel, random_spectrum

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

HASH = CountSketchModel().model_hash()
TRICKY = ("it's", 'a "quoted" one', "back\\slash", "new\nline", "100%", "{braces}", "é漢字", "a']; drop", " or true ")


def made_library():
    """Two hundred spectra, many of one precursor window, of known and unknown fields, some with tricky ids."""
    rng = np.random.default_rng(3)
    spectra = []
    for number in range(200):
        known = number % 7 != 0
        name = TRICKY[number] if number < len(TRICKY) else f"s{number}"
        spectra.append(
            random_spectrum(
                rng,
                name,
                precursor_mz=(150.0 + 37.123 * (number % 10)) * (1 + (number // 10) * 2e-7),
                polarity=(1, 1, -1, None)[number % 4],
                charge=(1, None)[number % 2],
                name=f"name of {name}" if known else None,
                formula=("C6H12O6", "O6C6H12", "C8H10N4O2")[number % 3] if known else None,
                adduct=("[M+H]+", "[M+Na]+")[number % 2] if known else None,
                instrument_type=("LC-ESI-QTOF", "LC-ESI-QFT", "ESI-QTOF")[number % 3] if known else None,
                collision_energy=(10.0, 20.1, 35.5)[number % 3] if known else None,
                license=("CC BY 4.0", "cc-by", "CC0")[number % 3] if known else None,
                predicted=number % 5 == 0,
                repairs=("charge-sign",) if number % 2 else (),
                retention_time=None if number % 2 else 12.5,
            )
        )
    return spectra


@pytest.fixture(scope="module")
def library():
    return made_library()


@pytest.fixture(scope="module")
def table(library):
    return table_from_spectra(library)


@pytest.fixture(scope="module")
def vectors(library):
    return CountSketchModel().embed(library)


def make(engine, folder, table, vectors, **options) -> VectorStore:
    if engine == "index":
        return IndexStore.create(folder / "index", CountSketchModel(), table, vectors)
    address = Address(str(folder / "milvus.db"), "library")
    store = MilvusStore.create(address, HASH, vectors.shape[1], expected=len(table), **options)
    store.add(table, vectors)
    return store


@pytest.fixture(scope="module", params=["index", "milvus"])
def store(request, tmp_path_factory, table, vectors):
    """With the whole library; not to be changed."""
    store = make(request.param, tmp_path_factory.mktemp(request.param), table, vectors)
    yield store
    store.close()


@pytest.fixture(params=["index", "milvus"])
def small(request, tmp_path, table, vectors):
    """With the first 40; to be changed."""
    store = make(request.param, tmp_path, table[:40], vectors[:40])
    yield store
    store.close()


def queries_of(spectra, **changes):
    return EmbeddedQueries(
        vectors=CountSketchModel().embed(spectra),
        precursor_mz=np.array([s.precursor_mz for s in spectra]),
        polarity=np.array([s.polarity or 0 for s in spectra], np.int8),
        **{"model_hash": HASH, **changes},
    )


def expected_hits(library, queries, k, *, ppm=None, da=None, filters=None):
    """Return (ids, scores, errors) of each query, from every pair."""
    vectors = CountSketchModel().embed(library).astype(np.float64)
    mask = filters.mask(table_from_spectra(library)) if filters else np.ones(len(library), bool)
    found = []
    for vector, precursor_mz, polarity in zip(queries.vectors, queries.precursor_mz, queries.polarity, strict=True):
        scores = (vectors * vector.astype(np.float64)).sum(axis=1).astype(np.float32)
        hits = []
        for row, spectrum in enumerate(library):
            difference = abs(precursor_mz - spectrum.precursor_mz)
            near = (ppm is None or difference <= spectrum.precursor_mz * ppm * 1e-6) and (
                da is None or difference <= da
            )
            if near and mask[row] and int(polarity) * (spectrum.polarity or 0) != -1:
                hits.append((-scores[row], spectrum.precursor_mz, spectrum.spectrum_id))
        hits = sorted(hits)[:k]
        found.append(([name for *_, name in hits], [-score for score, *_ in hits]))
    return found


def assert_hits(hits, expected):
    for query, (ids, scores) in enumerate(expected):
        assert [hit.metadata["spectrum_id"] for hit in hits[query]] == ids
        np.testing.assert_allclose(hits.scores[query][: len(scores)], scores, atol=2e-7)
        assert np.isnan(hits.scores[query][len(scores) :]).all()
        assert (hits.rows[query][len(scores) :] == -1).all()


@pytest.fixture(scope="module")
def queries(library):
    rng = np.random.default_rng(9)
    spectra = [library[row] for row in (0, 3, 11, 52, 120)]
    spectra.append(random_spectrum(rng, "far", precursor_mz=2000.0, polarity=1))
    spectra.append(dataclasses.replace(library[20], polarity=None))
    return queries_of(spectra)


@pytest.mark.parametrize("k", [1, 5, 60])
def test_an_open_search_is_that_of_every_pair(store, library, queries, k):
    hits = store.search(queries, k, None)
    assert_hits(hits, expected_hits(library, queries, k))
    assert hits.num_in_window.tolist() == [200] * 7
    assert hits.rows.shape == (7, k)


@pytest.mark.parametrize("window", [{"ppm": 2.0}, {"ppm": 10.0}, {"da": 0.0002}, {"da": 40.0}])
def test_a_precursor_window_is_kept_to(store, library, queries, window):
    ppm, da = window.get("ppm"), window.get("da")
    hits = store.search(queries, 12, ppm, precursor_da=da)
    assert_hits(hits, expected_hits(library, queries, 12, **window))
    for query, precursor_mz in enumerate(queries.precursor_mz):
        differences = [abs(precursor_mz - s.precursor_mz) / (s.precursor_mz * 1e-6 if ppm else 1) for s in library]
        assert hits.num_in_window[query] == sum(d <= (ppm or da) for d in differences)
        for hit in hits[query]:
            of_hit = hit.metadata["precursor_mz"]
            assert hit.precursor_error_ppm == pytest.approx((precursor_mz - of_hit) / of_hit * 1e6)
    assert not hits[5]


@pytest.mark.parametrize(
    "filters",
    [
        Filters(polarity=-1),
        Filters(adducts=("[M+Na]+",)),
        Filters(formulas=("H12C6O6",)),
        Filters(licenses=("cc by 4.0",)),
        Filters(instrument_types=("QTOF",)),
        Filters(instrument_types=("esi-qft", "nothing")),
        Filters(energy=(20.1, 20.1)),
        Filters(energy=(0, 30)),
        Filters(adducts=("[M+H]+", "[M+Na]+"), energy=(20, 40), licenses=("CC0",), polarity=1),
    ],
    ids=str,
)
def test_filters_choose_the_same(store, library, filters):
    queries = queries_of([library[0], dataclasses.replace(library[5], polarity=None)])
    hits = store.search(queries, 30, None, filters=filters)
    expected = expected_hits(library, queries, 30, filters=filters)
    assert any(ids for ids, _ in expected)
    assert_hits(hits, expected)
    narrow = store.search(queries, 30, 10.0, filters=filters)
    assert_hits(narrow, expected_hits(library, queries, 30, ppm=10.0, filters=filters))


def test_no_text_of_a_user_becomes_part_of_the_expression(store, library):
    for text in ('x"] or precursor_mz > 0 or adduct in ["y', "x'] or true", "x\\", "CC0' or '1'=='1"):
        hits = store.search(queries_of(library[:1]), 5, None, filters=Filters(licenses=(text,)))
        assert not hits[0]


def test_everything_that_is_known_of_a_hit_comes_back(store, library, table):
    hits = store.search(queries_of([library[1]]), 3, None)
    rows = hits.rows[0][[2, 0, 0]]
    found = hits.library.take(rows, SCHEMA.names)
    assert found.schema.equals(SCHEMA)
    by_id = {entry["spectrum_id"]: entry for entry in table.to_pylist()}
    assert found.to_pylist() == [by_id[name] for name in found["spectrum_id"].to_pylist()]
    assert found["spectrum_id"][1].as_py() == library[1].spectrum_id
    assert hits.library.take(rows, ["mz", "name"]).column_names == ["mz", "name"]


def test_no_queries(store):
    hits = store.search(queries_of([]), 3, 10.0)
    assert len(hits) == 0


def test_wrong_words(store, library, table, vectors):
    queries = queries_of(library[:1])
    for words, message in (
        ({"k": 0}, "the number of hits is 0"),
        ({"precursor_ppm": -1.0}, "precursor window is -1"),
        ({"precursor_da": 0.0}, "precursor window"),
    ):
        with pytest.raises(InputError, match=message):
            store.search(queries, **words)
    with pytest.raises(InputError, match="embedded with the model other"):
        store.search(dataclasses.replace(queries, model_hash="other"))
    with pytest.raises(InputError, match=r"\(1, 16\) is needed"):
        store.search(dataclasses.replace(queries, vectors=np.ones((1, 3), np.float32)))
    with pytest.raises(InputError, match="stands twice"):
        store.add(pa.concat_tables([table[:1], table[:1]]), vectors[[0, 0]])
    with pytest.raises(InputError, match=r"\(2, 16\) is needed"):
        store.add(table[:2], vectors[:1])
    with pytest.raises(InputError, match="has no peaks"):
        empty = dataclasses.replace(library[0], mz=library[0].mz[:0], intensity=library[0].intensity[:0])
        store.add(table_from_spectra([empty]), vectors[:1])
    with pytest.raises(InputError, match="no column mz"):
        store.add(table[:1].drop_columns(["mz"]), vectors[:1])
    assert len(store) == 200


def test_spectra_are_added_and_replaced(small, library, table, vectors):
    small.add(table[40:60], vectors[40:60])
    assert len(small) == 60
    queries = queries_of([library[50]])
    assert_hits(small.search(queries, 3, None), expected_hits(library[:60], queries, 3))
    changed = dataclasses.replace(library[99], spectrum_id=library[50].spectrum_id)
    small.add(table_from_spectra([changed]), vectors[99:100])
    assert len(small) == 60
    now = [*library[:50], changed, *library[51:60]]
    for query in (library[50], library[99]):
        queries = queries_of([query])
        assert_hits(small.search(queries, 3, None), expected_hits(now, queries, 3))
    small.add(table[:0], vectors[:0])
    assert len(small) == 60


def test_deleted_spectra_are_no_hits(small, library):
    queries = queries_of(library[:3])
    gone = [s.spectrum_id for s in library[:9]]
    assert small.delete([*gone, gone[0]]) == 9
    assert len(small) == 31
    assert_hits(small.search(queries, 40, None), expected_hits(library[9:40], queries, 40))
    with pytest.raises(InputError, match="no spectrum it's"):
        small.delete([library[20].spectrum_id, gone[0]])
    assert len(small) == 31
    assert small.delete([]) == 0


@pytest.fixture(scope="module")
def collection(tmp_path_factory, table, vectors):
    store = make("milvus", tmp_path_factory.mktemp("collection"), table, vectors, kind="HNSW")
    yield store
    store.close()


def test_a_collection_is_there_when_it_is_opened_again(collection, library, queries):
    again = MilvusStore.open(collection.address, HASH)
    assert (len(again), again.dim, again.kind) == (200, 16, "HNSW")
    assert_hits(again.search(queries, 5, 10.0), expected_hits(library, queries, 5, ppm=10.0))
    with pytest.raises(InputError, match=r"are of the model .*, not of ffff"):
        MilvusStore.open(collection.address, "f" * 64)
    with pytest.raises(InputError, match="Milvus has no collection of that name"):
        MilvusStore.open(Address(collection.address.uri, "other"), HASH)
    with pytest.raises(InputError, match="is there already"):
        MilvusStore.create(collection.address, HASH, 16, expected=1)


@pytest.mark.parametrize("kind", ["IVF_SQ8", "DISKANN"])
def test_other_kinds_find_the_same_in_a_window(collection, library, table, vectors, kind):
    store = MilvusStore.create(Address(collection.address.uri, f"of_{kind}"), HASH, 16, expected=200, kind=kind)
    store.add(table, vectors)
    queries = queries_of(library[:20])
    assert_hits(store.search(queries, 5, 10.0), expected_hits(library, queries, 5, ppm=10.0))


def test_a_search_in_parts_is_the_same(collection, library, queries, monkeypatch):
    monkeypatch.setattr(milvus, "QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(milvus, "IDS_AT_ONCE", 3)
    hits = collection.search(queries, 9, None)
    assert_hits(hits, expected_hits(library, queries, 9))


def test_rows_that_are_gone_are_named(collection):
    with pytest.raises(InputError, match=r"has no spectrum nothing \(any more\)"):
        collection.rows(["s20", "nothing"])


@settings(max_examples=40)
@given(ids=st.lists(st.text(min_size=1, max_size=12), max_size=5))
def test_any_id_is_looked_up_as_it_is(collection, ids):
    assert list(collection._entities(ids, ["spectrum_id"])) == [] or set(ids) & set(TRICKY)
    assert len(collection) == 200


def test_ids_come_back_whatever_is_in_them(collection):
    found = collection.rows(list(TRICKY), ["spectrum_id", "name"])
    assert found["spectrum_id"].to_pylist() == list(TRICKY)


def test_rows_are_the_same_after_milvus(table, vectors):
    found = entities(table, vectors, "vector")
    assert table_of(found).equals(table)
    assert found[0]["instrument_parts"] == []
    assert found[1]["instrument_parts"] == ["esi", "esiqft", "lc", "lcesi", "lcesiqft", "qft"]
    long = pa.array([" ".join(f"part{number}" for number in range(60))] * len(table))
    parts = entities(
        table.set_column(table.schema.get_field_index("instrument_type"), "instrument_type", long), vectors, "v"
    )
    assert len(parts[0]["instrument_parts"]) == 256
    assert {"part0", "part59", "part10part11"} <= set(parts[0]["instrument_parts"])
    assert formula_key("O6C6H12") == formula_key("C6H12O6") != formula_key("C6H12O5")
    assert quoted('a"b\\') == '"a\\"b\\\\"'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spectrum_id": "x" * 2000}, "its id has more than 1024 bytes"),
        ({"name": "x" * 70_000}, "its name has more than 65,535 bytes"),
        ({"mz": np.arange(1, 5001, dtype=np.float32), "intensity": np.ones(5000, np.float32)}, "has 5,000 peaks"),
    ],
)
def test_what_is_too_large_for_milvus_is_named(library, vectors, changes, message):
    spectrum = dataclasses.replace(library[30], **changes)
    with pytest.raises(InputError, match=message):
        entities(table_from_spectra([spectrum]), vectors[:1], "vector")


@pytest.mark.parametrize(
    ("uri", "collection", "message"),
    [
        ("http://user:secret@host:19530", "a", "holds more than host and port.*IONBED_MILVUS_TOKEN"),
        ("http://host:19530/?token=secret", "a", "holds more than host and port"),
        ("x.db", "a-b", "letters, digits and _ only"),
        ("x.db", "1a", "letters, digits and _ only"),
        ("x.db", "", "letters, digits and _ only"),
    ],
)
def test_addresses_with_secrets_or_impossible_names(uri, collection, message):
    with pytest.raises(InputError, match=message) as raised:
        Address(uri, collection)
    assert "secret" not in str(raised.value)


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(milvus_connection, "FIRST_WAIT", 0.01)
    monkeypatch.setenv(TOKEN_VARIABLE, "very-secret")
    with pytest.raises(InputError, match=r"Milvus cannot be reached .*is it running") as raised:
        MilvusStore.open(Address("http://127.0.0.1:9", "library"), HASH)
    assert "very-secret" not in str(raised.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        MilvusStore.open(Address(str(tmp_path / "none.db"), "library"), HASH)
    with pytest.raises(InputError, match=r"none\.db"):
        MilvusStore.create(Address(str(tmp_path / "no" / "none.db"), "library"), HASH, 16, expected=1)


def test_the_token_comes_from_the_environment(monkeypatch):
    given = {}

    def client(**options):
        given.update(options)
        return "client"

    monkeypatch.setattr("pymilvus.MilvusClient", client)
    monkeypatch.setenv(TOKEN_VARIABLE, "root:Milvus")
    assert milvus_connection.connect(Address("http://host:19530", "a")) == "client"
    assert (given["uri"], given["token"]) == ("http://host:19530", "root:Milvus")


@pytest.mark.parametrize(
    ("failures", "code", "attempts"), [(2, 8, 3), (3, 2, 4), (9, 8, None), (1, 1100, None)]
)  # fmt: skip
def test_transient_errors_are_tried_again_and_others_are_told(monkeypatch, failures, code, attempts):
    from pymilvus.exceptions import MilvusException

    waits, calls = [], []
    monkeypatch.setattr(milvus_connection.time, "sleep", waits.append)

    def call(timeout):
        calls.append(timeout)
        if len(calls) <= failures:
            raise MilvusException(code, "rate limit\nexceeded")
        return "done"

    address = Address("http://host:19530", "a")
    if attempts:
        assert milvus_connection.ask(address, call) == "done"
        assert len(calls) == attempts
        assert waits == [0.5, 1.0, 2.0][: attempts - 1]
    else:
        with pytest.raises(InputError, match="rate limit exceeded"):
            milvus_connection.ask(address, call)
        assert len(calls) == (4 if code == 8 else 1)


def test_the_kind_follows_the_number():
    sizes = {1_000: "FLAT", 1_000_000: "HNSW", 100_000_000: "IVF_SQ8", 1_000_000_000: "DISKANN"}
    assert {size: choose_kind(size) for size in sizes} == sizes
    assert search_parameters("IVF_SQ8", 10, in_window=True)["nprobe"] == 1024
    assert search_parameters("HNSW", 100, in_window=False)["ef"] >= 100
    with pytest.raises(InputError, match="must be one of FLAT"):
        MilvusStore.create(Address("x.db", "a"), HASH, 16, expected=1, kind="LSH")
    assert vector_field(HASH) == f"vector_{HASH[:16]}"
