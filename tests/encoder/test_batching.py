"""Micro-batches: little padding, work in equal shares, few shapes for a compiled model, and every row once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbed.encoder.batching import FixedShapes, even_lengths, padding_share, shares_of_processes

LENGTHS = st.lists(st.integers(1, 65), min_size=1, max_size=120).map(lambda n: np.array(n, np.int32))


def library_lengths(count: int, max_peaks: int = 64) -> np.ndarray:
    """Return tokens per spectrum as public libraries have them: many short spectra, few long ones."""
    peaks = np.random.default_rng(0).lognormal(2.4, 1.1, count).astype(np.int32)
    return np.minimum(np.maximum(peaks, 1), max_peaks) + 1


def rows_of(shares: list[list[np.ndarray]]) -> list[int]:
    return sorted(np.concatenate([part for share in shares for part in share]).tolist())


@given(LENGTHS, st.integers(1, 300), st.integers(1, 5))
def test_every_row_is_in_one_micro_batch_of_one_process(num_tokens, budget, processes):
    shares = shares_of_processes(num_tokens, budget, processes)
    assert len(shares) == processes and rows_of(shares) == list(range(len(num_tokens)))
    assert len({len(share) for share in shares}) == 1  # a pass of one process waits for that of another
    enough = len(num_tokens) >= processes
    for part in itertools.chain.from_iterable(shares):
        assert len(part) or not enough
        per_process = len(num_tokens) // processes
        filled = len(part) < 2 or num_tokens[part].max() * len(part) <= budget
        assert filled or len(shares[0]) == per_process  # no smaller parts for all processes alike


@pytest.mark.parametrize("processes", [1, 2, 8])
@pytest.mark.parametrize("max_peaks", [64, 128])
def test_shares_are_equal_and_hold_little_padding(processes, max_peaks):
    num_tokens = library_lengths(6000, max_peaks)
    shares = shares_of_processes(num_tokens, 8192, processes)
    parts = list(itertools.chain.from_iterable(shares))
    assert padding_share(num_tokens, parts) < 0.04
    tokens = np.array([sum(int(num_tokens[part].sum()) for part in share) for share in shares])
    slots = np.array([sum(int(num_tokens[part].max()) * len(part) for part in share) for share in shares])
    assert slots.max() < 1.02 * slots.mean() and tokens.max() < 1.04 * tokens.mean()


def test_rows_of_one_length_are_not_cut_finer_than_the_budget_asks():
    shares = shares_of_processes(np.full(1000, 10), 2500, 2)
    assert [[len(part) for part in share] for share in shares] == [[250, 250], [250, 250]]


def best_lengths(num_tokens: np.ndarray, number: int) -> int:
    """Return the least padded tokens by trying every choice."""
    present = sorted(set(num_tokens.tolist()))
    choices = itertools.combinations(present[:-1], min(number, len(present)) - 1)
    return min(padded(num_tokens, np.array([*choice, present[-1]])) for choice in choices)


def padded(num_tokens: np.ndarray, lengths: np.ndarray) -> int:
    return int(lengths[np.searchsorted(lengths, num_tokens)].sum())


@given(st.lists(st.integers(1, 14), min_size=1, max_size=40), st.integers(1, 5))
def test_the_lengths_to_pad_to_are_the_best_there_are(lengths, number):
    num_tokens = np.array(lengths)
    chosen = even_lengths(num_tokens, number)
    assert len(chosen) <= number and (np.diff(chosen) > 0).all() and chosen[-1] == num_tokens.max()
    assert padded(num_tokens, chosen) == best_lengths(num_tokens, number)


@given(LENGTHS, st.integers(40, 600), st.integers(20, 300), st.integers(1, 4))
def test_a_compiled_model_sees_few_shapes(num_tokens, batch_tokens, micro_batch_tokens, processes):
    lengths = even_lengths(num_tokens, 4)
    shapes = FixedShapes.of_run(lengths, batch_tokens, micro_batch_tokens, processes)
    shares = shapes.shares_of_processes(num_tokens, processes)
    assert rows_of(shares) == list(range(len(num_tokens)))
    assert len({len(share) for share in shares}) == 1
    for part in itertools.chain.from_iterable(shares):
        spectra, length = shapes.shape_of(int(num_tokens[part].max(initial=1)))
        assert len(part) <= spectra and num_tokens[part].max(initial=0) <= length
        assert (spectra - 1) * length < micro_batch_tokens


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_a_step_of_one_length_fills_its_shapes(processes):
    lengths = np.array([4, 13, 65])
    shapes = FixedShapes.of_run(lengths, 65536, 8192, processes)
    for length in lengths.tolist():
        rows = 65536 // length
        shares = shapes.shares_of_processes(np.full(rows, length), processes)
        slots = sum(np.prod(shapes.shape_of(length)) for share in shares for _ in share)
        assert rows * length / slots > 0.98
