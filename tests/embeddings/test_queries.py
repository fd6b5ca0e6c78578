"""Queries read, embedded and searched at once: the rows of one after the other, and an end that leaves no thread."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from ionbed import InputError
from ionbed.embeddings import queries
from ionbed.embeddings.index import Index
from ionbed.embeddings.kinds import search
from ionbed.embeddings.queries import Query, searched
from ionbed.embeddings.search import described_search, find
from ionbed.embeddings.search_options import SearchOptions
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.writers import write_mgf

NUM_QUERIES, AT_ONCE = 23, 4
OPEN = SearchOptions(k=5, precursor_ppm=None)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(queries, "QUERIES_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(queries, "EMBEDDED_AT_ONCE", AT_ONCE)
    monkeypatch.setattr("ionbed.embeddings.search.is_encoder_on_one_thread", lambda: True)


@pytest.fixture(autouse=True)
def no_thread_is_left_and_turns_are_as_before():
    before = threading.active_count(), sys.getswitchinterval()
    yield
    assert (threading.active_count(), sys.getswitchinterval()) == before


@pytest.fixture(scope="module")
def spectra():
    rng = np.random.default_rng(0)
    return [
        Spectrum(
            f"spectrum-{number}",
            float(rng.uniform(150, 400)),
            mz=np.sort(rng.uniform(50, 149, 8)).astype(np.float32),
            intensity=np.append(rng.uniform(0.1, 1, 7), 1).astype(np.float32),
            polarity=1,
            charge=1,
            formula="C10H12O4",
        )
        for number in range(NUM_QUERIES)
    ]


@pytest.fixture
def index(model, spectra):
    return Index.build(model, spectra)


@pytest.fixture
def path(spectra, tmp_path):
    write_mgf(spectra, tmp_path / "queries.mgf")
    return tmp_path / "queries.mgf"


def asked(count=NUM_QUERIES, unusable=()):
    return [Query(f"q{i}", None if i in unusable else f"s{i}", "why" if i in unusable else "") for i in range(count)]


def failing(function, error, call):
    """The function, which fails when it is called for the ``call``-th time."""
    calls = itertools.count(1)

    def called(*arguments, **options):
        if next(calls) == call:
            raise error
        return function(*arguments, **options)

    return called


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_search_at_once_gives_the_rows_of_one_step_after_the_other(index, path, monkeypatch, is_beside):
    monkeypatch.setattr("ionbed.embeddings.search.is_encoder_on_one_thread", lambda: is_beside)
    step = described_search(index, OPEN)
    expected = []
    everything = [query for query in queries.queries_of(path)[0] if query.spectrum is not None]
    for begin in range(0, NUM_QUERIES, AT_ONCE):
        block = everything[begin : begin + AT_ONCE]
        for query, told in zip(block, step([query.spectrum for query in block]), strict=True):
            expected += [(query.query_id, hit["rank"], hit["row"], hit["score"]) for hit in told.hits]
    rows = list(find(index, path, OPEN))
    assert [(row.query_id, row.rank, row.row, row.score) for row in rows] == expected
    assert len(rows) == 5 * NUM_QUERIES


def test_queries_that_cannot_be_used_keep_their_places():
    some = asked(11, unusable={0, 3, 4, 5, 6, 7, 10})
    found = list(searched(iter(some), None, lambda texts: (t.upper() for t in texts), list))
    assert [query_id for query_id, _, _ in found] == [f"q{i}" for i in range(11)]
    assert [result for _, _, result in found] == [None if q.spectrum is None else q.spectrum.upper() for q in some]


def test_embedding_goes_on_while_the_block_before_is_searched():
    is_next_embedded = threading.Event()
    blocks = itertools.count()

    def embed(texts):
        if next(blocks) == 1:
            is_next_embedded.set()
        return texts

    def look_up(texts):
        assert is_next_embedded.wait(10), "the block after this one was not embedded meanwhile"
        return iter(texts)

    assert len(list(searched(iter(asked()), None, look_up, embed))) == NUM_QUERIES


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("stage", ["read", "embed", "search"])
def test_an_error_of_any_step_is_the_callers_after_what_was_found_before(stage, call):
    error = InputError("queries.mgf: is broken; mend it")
    some = iter(asked())
    steps = {"embed": list, "search": iter}
    if stage == "read":
        some = map(failing(lambda query: query, error, AT_ONCE * call), some)
    else:
        steps[stage] = failing(steps[stage], error, call)
    found = []
    with pytest.raises(InputError) as raised:
        for query_id, _, _ in searched(some, None, steps["search"], steps["embed"]):
            found.append(query_id)
    assert raised.value is error
    assert found == [f"q{number}" for number in range(AT_ONCE * (call - 1))]


@pytest.mark.parametrize("step", ["embed", "search"])
def test_a_search_that_fails_says_so_and_leaves_no_table(index, path, monkeypatch, step):
    broken = failing(getattr(Index, step), InputError("the index: is damaged; build it again"), 2)
    monkeypatch.setattr(Index, step, lambda self, *words, **options: broken(self, *words, **options))
    with pytest.raises(InputError, match="the index: is damaged"):
        search(index, path, path.parent / "hits.tsv", OPEN)
    assert [file.name for file in path.parent.iterdir()] == ["queries.mgf"]


def test_a_caller_that_stops_ends_the_threads():
    found = searched(iter(asked()), None, iter, list)
    next(found)
    assert threading.active_count() > 1
    assert sys.getswitchinterval() == pytest.approx(queries.TURN_S)
    found.close()


def test_searches_that_overlap_leave_the_turns_of_threads_as_they_were():
    first, second = (searched(iter(asked()), None, iter, list) for _ in range(2))
    next(first)
    next(second)
    first.close()
    assert sys.getswitchinterval() == pytest.approx(queries.TURN_S), "the second goes on"
    second.close()


@pytest.mark.parametrize("step", ["embed", "search"])
def test_ctrl_c_ends_all_steps_and_leaves_no_table(index, path, monkeypatch, step):
    whole, calls = getattr(Index, step), itertools.count(1)

    def interrupted(self, *words, **options):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # the main thread is told meanwhile
        return whole(self, *words, **options)

    monkeypatch.setattr(Index, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(index, path, path.parent / "hits.tsv", OPEN)
    assert next(calls) <= 5, "the other blocks were searched all the same"
    assert [file.name for file in path.parent.iterdir()] == ["queries.mgf"]


def test_ctrl_c_a_second_time_does_not_wait_and_is_no_other_error():
    before, calls, is_over = threading.active_count(), itertools.count(1), threading.Event()

    def embed(texts):
        if next(calls) == 2:
            for _ in range(2):
                time.sleep(0.2)  # the main thread waits meanwhile
                os.kill(os.getpid(), signal.SIGINT)
            assert is_over.wait(10), "the main thread waited for this step"
        return texts

    with pytest.raises(KeyboardInterrupt):
        list(searched(iter(asked()), None, iter, embed))
    is_over.set()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
