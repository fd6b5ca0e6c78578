"""Requests that wait at one time share a batch, and each gets the answer that it would have got alone."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import time
import weakref
from contextlib import nullcontext

import pytest

from ionbed.embeddings.queries import Query
from ionbed.embeddings.search_options import SearchOptions
from ionbed.embeddings.service.batching import Batcher
from ionbed.embeddings.service.failures import RequestError
from ionbed.embeddings.service.index_state import IndexState
from ionbed.embeddings.service.metrics import Metrics
from ionbed.embeddings.service.searching import find
from ionbed.errors import InputError

SECONDS = 20.0
BOUNDS = {"batch_spectra": 64, "batch_seconds": 0.05, "coming_seconds": 0.05, "queued_spectra": 100}


class Observed:
    """An index that takes note of what it is asked, and does not begin before it is told."""

    def __new__(cls, index, may_begin):
        other = object.__new__(type(index))
        other.__dict__.update(index.__dict__)
        other.sizes, other.threads = [], set()

        def embed(spectra, **options):
            assert may_begin.wait(SECONDS)
            other.sizes.append(len(spectra))
            other.threads.add(threading.current_thread().name)
            return type(index).embed(index, spectra, **options)

        other.embed = embed
        return other


def batcher(index, **options) -> Batcher:
    """One that works, and whose searches are of this index."""
    made = Batcher(Metrics(), **{**BOUNDS, **options})
    made.search = functools.partial(made.search, IndexState(index))
    made.start()
    return made


@pytest.fixture
def queries(index):
    return [Query("same id", spectrum) for spectrum in index.spectra(list(range(0, 144, 6)))]


def test_concurrent_requests_share_batches_and_get_exactly_the_answers_of_single_ones(index, queries):
    wide, narrow = SearchOptions(k=5, precursor_ppm=None), SearchOptions(k=3)
    asked = [([query], wide if number % 2 else narrow) for number, query in enumerate(queries)]
    asked.append((queries[:3], wide))
    alone = [[find(index, [query], options)[0] for query in several] for several, options in asked]
    may_begin = threading.Event()
    observed = Observed(index, may_begin)
    made = batcher(observed)

    async def ask():
        first = asyncio.create_task(made.search(queries[:1], wide, seconds=SECONDS))
        await asyncio.sleep(0.05)  # it is at work; the others wait
        tasks = [asyncio.create_task(made.search(several, options, seconds=SECONDS)) for several, options in asked]
        await asyncio.sleep(0)
        may_begin.set()
        await first
        return await asyncio.gather(*tasks)

    together = asyncio.run(ask())
    made.stop(SECONDS)
    assert together == alone, "scores included, to the last digit"
    assert sorted(observed.sizes) == [1, 12, 15], "one search for each set of options, not one for each request"
    assert observed.threads == {"ionbed-model"}
    text = made._metrics.exposition().decode()
    assert "ionbed_batch_spectra_sum 28.0" in text
    assert "ionbed_batch_spectra_count 3.0" in text
    assert "ionbed_waiting_spectra 0.0" in text


def test_a_full_batch_does_not_wait_for_others(index, queries):
    made = batcher(index, coming_seconds=SECONDS, batch_spectra=4)

    async def ask():
        with made.expecting():
            return await asyncio.gather(*(made.search([q], SearchOptions(), seconds=5) for q in queries[:4]))

    assert [answers[0].rows[0].rank for answers in asyncio.run(ask())] == [1, 1, 1, 1]
    made.stop(SECONDS)


def test_a_request_that_comes_alone_does_not_wait_for_others(index, queries):
    made = batcher(index, batch_seconds=SECONDS, coming_seconds=SECONDS)

    async def ask():
        for query in queries[:3]:
            assert len(await made.search([query], SearchOptions(), seconds=5)) == 1

    asyncio.run(ask())
    made.stop(SECONDS)


@pytest.mark.parametrize("is_coming", [True, False])
def test_a_batch_waits_for_a_request_that_is_read(index, queries, is_coming):
    may_begin = threading.Event()
    may_begin.set()
    observed = Observed(index, may_begin)
    made = batcher(observed, coming_seconds=SECONDS)

    async def ask():
        with made.expecting() if is_coming else nullcontext():
            first = asyncio.create_task(made.search(queries[:1], SearchOptions(), seconds=5))
            await asyncio.sleep(0.3)
        second = asyncio.create_task(made.search(queries[1:3], SearchOptions(), seconds=5))
        return await asyncio.gather(first, second)

    assert [len(answers) for answers in asyncio.run(ask())] == [1, 2]
    made.stop(SECONDS)
    assert observed.sizes == ([3] if is_coming else [1, 2])


def test_a_batch_waits_no_longer_for_a_request_that_was_refused(index, queries):
    made = batcher(index, coming_seconds=SECONDS)

    async def ask():
        with made.expecting():
            task = asyncio.create_task(made.search(queries[:1], SearchOptions(), seconds=5))
            await asyncio.sleep(0.05)
        return await task

    assert len(asyncio.run(ask())) == 1
    made.stop(SECONDS)


def test_as_many_as_before_are_waited_for_but_not_for_ever(index, queries):
    may_begin = threading.Event()
    observed = Observed(index, may_begin)
    made = batcher(observed, batch_seconds=0.4)

    async def ask(number):
        await asyncio.gather(*(made.search([q], SearchOptions(), seconds=SECONDS) for q in queries[:number]))

    async def both():
        first = asyncio.create_task(made.search(queries[:1], SearchOptions(), seconds=SECONDS))
        await asyncio.sleep(0.05)
        several = asyncio.create_task(ask(3))
        await asyncio.sleep(0)
        may_begin.set()
        await asyncio.gather(first, several)  # batches of 1 and 3
        late = asyncio.create_task(ask(1))
        await asyncio.sleep(0.05)
        await asyncio.gather(late, ask(2))  # one of 3, though they did not come at once
        started = time.monotonic()
        await ask(1)
        return time.monotonic() - started

    assert 0.3 < asyncio.run(both()) < 5, "the two that do not come any more were waited for"
    made.stop(SECONDS)
    assert observed.sizes == [1, 3, 3, 1]


def test_too_many_waiting_spectra_are_refused_but_a_large_request_alone_is_not(index, queries):
    may_begin = threading.Event()
    made = batcher(Observed(index, may_begin), queued_spectra=10)

    async def ask():
        first = asyncio.create_task(made.search(queries, SearchOptions(), seconds=SECONDS))
        await asyncio.sleep(0.01)
        with pytest.raises(RequestError, match="wait already") as refused:
            await made.search(queries[:1], SearchOptions(), seconds=SECONDS)
        assert refused.value.status_code == 503
        assert refused.value.headers["Retry-After"]
        may_begin.set()
        assert len(await first) == len(queries)
        assert len(await made.search(queries[:1], SearchOptions(), seconds=SECONDS)) == 1

    asyncio.run(ask())
    made.stop(SECONDS)


def test_who_gave_up_is_not_searched_for(index, queries):
    may_begin = threading.Event()
    observed = Observed(index, may_begin)
    made = batcher(observed, batch_spectra=1)

    async def ask():
        first = asyncio.create_task(made.search(queries[:1], SearchOptions(), seconds=SECONDS))
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError, match="longer than"):
            await made.search(queries[:2], SearchOptions(), seconds=0.05)
        may_begin.set()
        await first
        assert len(await made.search(queries[:3], SearchOptions(), seconds=SECONDS)) == 3

    asyncio.run(ask())
    made.stop(SECONDS)
    assert observed.sizes == [1, 3]


def test_a_wrong_option_fails_its_own_requests_only(index, queries):
    may_begin = threading.Event()
    made = batcher(Observed(index, may_begin))

    async def ask():
        tasks = [
            asyncio.create_task(made.search(queries[:1], SearchOptions(score=score), seconds=SECONDS))
            for score in (None, "fused", None)
        ]
        await asyncio.sleep(0)
        may_begin.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(ask())
    made.stop(SECONDS)
    assert isinstance(second, InputError)
    assert first == third
    assert first[0].rows[0].rank == 1


def test_a_fault_of_one_query_is_not_that_of_those_beside_it(index, queries):
    may_begin = threading.Event()
    observed = Observed(index, may_begin)
    embed = observed.embed

    def embed_or_fail(spectra, **options):
        if any(spectrum.spectrum_id == queries[1].spectrum.spectrum_id for spectrum in spectra):
            raise ArithmeticError("made to fail")
        return embed(spectra, **options)

    observed.embed = embed_or_fail
    made = batcher(observed)

    async def ask():
        tasks = [asyncio.create_task(made.search([q], SearchOptions(), seconds=SECONDS)) for q in queries[:4]]
        await asyncio.sleep(0)
        may_begin.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask())
    made.stop(SECONDS)
    assert [isinstance(answer, ArithmeticError) for answer in answers] == [False, True, False, False]
    assert answers[2] == find(index, queries[2:3], SearchOptions())


def test_nothing_is_held_of_an_index_once_its_queries_are_answered(index, queries):
    made = Batcher(Metrics(), **BOUNDS)
    made.start()
    state = IndexState(index)
    held = weakref.ref(state)
    asyncio.run(made.search(state, queries[:1], SearchOptions(), seconds=SECONDS))
    del state
    for _ in range(100):
        gc.collect()
        if held() is None:
            break
        time.sleep(0.02)
    assert held() is None, "the thread of the model holds what it has searched until it is asked again"
    made.stop(SECONDS)


def test_stop_finishes_what_waits(index, queries):
    made = batcher(index, batch_seconds=0.2)

    async def ask():
        task = asyncio.create_task(made.search(queries[:2], SearchOptions(), seconds=SECONDS))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(made.stop, SECONDS)
        return await task

    assert len(asyncio.run(ask())) == 2
    assert not made.is_alive
