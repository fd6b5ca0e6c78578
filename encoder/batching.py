"""Batches of about equal numbers of tokens, made of spectra of about equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHORTEST_SHARE = 0.75
ENOUGH_TOKENS = 1024
"""A batch of fewer tokens leaves processors idle; from here on little padding is worth more."""
MOST_PADDING = 0.03
"""Share of padding above which the micro-batches of a step are made smaller, down to `ENOUGH_TOKENS`."""
NUM_LENGTHS = 8
"""Lengths of micro-batches for a compiled model: each takes a minute or so to compile, and fewer mean more padding."""


def token_budget_batches(num_tokens: np.ndarray, batch_tokens: int, *, even: bool = True) -> list[np.ndarray]:
    """Group rows into batches that hold at most ``batch_tokens`` tokens with their padding.

    Parameters
    ----------
    num_tokens : int array of shape (n,)
        Tokens of each row.
    batch_tokens : int
        Budget; a row longer than that gets a batch of its own.
    even : bool
        Also end a batch of `ENOUGH_TOKENS` where rows get shorter than `SHORTEST_SHARE` of its longest, so that
        little is padding. False fills every batch: for a training step, which should be of one size.

    Returns
    -------
    list of int64 arrays
        Row numbers; every row once; longest rows first, so that memory peaks at the start.
    """
    order = np.argsort(-num_tokens.astype(np.int64), kind="stable")
    descending = num_tokens[order]
    batches, start = [], 0
    while start < len(order):
        longest = int(descending[start])
        size = max(1, batch_tokens // longest)
        if even:
            similar = int(np.count_nonzero(descending[start : start + size] >= SHORTEST_SHARE * longest))
            size = min(size, max(similar, -(-ENOUGH_TOKENS // longest)))
        batches.append(order[start : start + size])
        start += size
    return batches


def padding_share(num_tokens: np.ndarray, batches: Sequence[np.ndarray]) -> float:
    """Return the share of a set of batches that is padding (0 to 1)."""
    padded = sum(int(num_tokens[rows].max()) * len(rows) for rows in batches)
    return 1 - sum(int(num_tokens[rows].sum()) for rows in batches) / padded if padded else 0.0


def shares_of_processes(num_tokens: np.ndarray, micro_batch_tokens: int, processes: int) -> list[list[np.ndarray]]:
    """Divide the rows of a step among processes, and each process's share into micro-batches.

    A step waits for the slowest process, so all get equally many micro-batches, of about equal size: rows are sorted
    by length and cut so that the largest micro-batch is as small as can be, padding counted. Where that leaves more
    than `MOST_PADDING`, there are more and smaller micro-batches.

    Parameters
    ----------
    num_tokens : int array of shape (n,)
        Tokens of each row.
    micro_batch_tokens : int
        Most tokens of a micro-batch, padding counted; a row longer than that gets one of its own.
    processes : int

    Returns
    -------
    list of lists of int64 arrays
        For each process its micro-batches, as places in ``num_tokens``. With fewer rows than processes, the last
        processes have one micro-batch without a row.
    """
    order = np.argsort(-num_tokens.astype(np.int64), kind="stable")
    descending = num_tokens[order].astype(np.int64)
    if len(order) < processes:
        return [[order[process : process + 1]] for process in range(processes)]
    total = int(descending.sum())
    most = len(order) // processes  # micro-batches of a process, with one row each
    number = min(most, max(1, -(-total // (processes * micro_batch_tokens))))
    while True:
        parts = _even_parts(descending, number * processes)
        sizes = np.diff(parts) * descending[parts[:-1]]
        padding = 1 - total / int(sizes.sum())
        large = int(sizes.max()) > micro_batch_tokens
        wasteful = padding > MOST_PADDING and total >= 2 * ENOUGH_TOKENS * number * processes
        if number == most or not (large or wasteful):
            divided = np.split(order, parts[1:-1])
            return [divided[process::processes] for process in range(processes)]
        number = min(most, max(number + 1, number * 5 // 4))


def _even_parts(descending: np.ndarray, number: int) -> np.ndarray:
    """Return where to cut rows of descending length into ``number`` parts so that the largest, padded, is smallest.

    Returns
    -------
    int64 array of shape (number + 1,)
        Part i is from cut i up to cut i + 1; none is empty.
    """
    low, high = max(int(descending[0]), -(-int(descending.sum()) // number)), int(descending[0]) * len(descending)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(descending, middle, number)) > number:
            low = middle + 1
        else:
            high = middle
    starts = _filled(descending, low, number)
    cuts = np.array([*starts, len(descending)], np.int64)
    while len(cuts) <= number:  # sizes are whole rows: fewer parts may do; more are wanted
        sizes = np.where(np.diff(cuts) > 1, np.diff(cuts) * descending[cuts[:-1]], 0)
        largest = int(sizes.argmax())
        cuts = np.insert(cuts, largest + 1, (cuts[largest] + cuts[largest + 1]) // 2)
    return cuts


def _filled(descending: np.ndarray, budget: int, most: int) -> list[int]:
    """Return where parts start that are filled up to ``budget`` one after the other, at most ``most`` + 1 of them."""
    starts: list[int] = []
    start = 0
    while start < len(descending) and len(starts) <= most:
        starts.append(start)
        start += max(1, budget // int(descending[start]))
    return starts


@dataclass(frozen=True, eq=False)
class FixedShapes:
    """The few shapes (spectra, tokens) that all micro-batches of a compiled model have.

    Attributes
    ----------
    lengths : int64 array of shape (n_shapes,)
        Tokens of a padded spectrum, ascending; see `even_lengths`.
    num_spectra : int64 array of shape (n_shapes,)
        Spectra of a micro-batch of each length; those that are missing are filled up with empty ones.
    """

    lengths: np.ndarray
    num_spectra: np.ndarray

    @classmethod
    def of_run(cls, lengths: np.ndarray, batch_tokens: int, micro_batch_tokens: int, processes: int) -> FixedShapes:
        """Return shapes that divide a step of ``batch_tokens`` evenly among ``processes`` and their micro-batches.

        No micro-batch has more than ``micro_batch_tokens`` by a whole spectrum.
        """
        own = -(-np.maximum(1, batch_tokens // lengths) // processes)  # spectra of a process in a step
        number = -(-own // -(-micro_batch_tokens // lengths))  # micro-batches that these fill
        return cls(lengths, -(-own // number))

    def shape_of(self, num_tokens: int) -> tuple[int, int]:
        """Return spectra and tokens of the micro-batch that a row of ``num_tokens`` (as its longest) is put in."""
        place = int(np.searchsorted(self.lengths, num_tokens))
        return int(self.num_spectra[place]), int(self.lengths[place])

    def shares_of_processes(self, num_tokens: np.ndarray, processes: int) -> list[list[np.ndarray]]:
        """Divide the rows of a step as `shares_of_processes` does, into micro-batches of these shapes.

        Each is to be padded to the shape of its longest row: see `shape_of` and `EncoderBatch.padded_to`.
        """
        order = np.argsort(-num_tokens.astype(np.int64), kind="stable")
        descending = num_tokens[order]
        parts, start = [], 0
        while start < len(order):
            size = self.shape_of(int(descending[start]))[0]
            parts.append(order[start : start + size])
            start += size
        wanted = processes * -(-max(1, len(parts)) // processes)
        if len(order) < wanted:
            parts = [order[i : i + 1] for i in range(wanted)]
        while len(parts) < wanted:
            largest = max(range(len(parts)), key=lambda i: len(parts[i]))
            parts[largest : largest + 1] = np.array_split(parts[largest], 2)
        return [parts[process::processes] for process in range(processes)]


def even_lengths(num_tokens: np.ndarray, number: int = NUM_LENGTHS) -> np.ndarray:
    """Return the lengths to which rows are to be padded so that the least is padding, when there may be ``number``.

    Parameters
    ----------
    num_tokens : int array of shape (n,)
        Tokens of each row; the longest is one of the lengths.

    Returns
    -------
    int64 array of shape (n_lengths,)
        Ascending; at most ``number``.
    """
    frequency = np.bincount(num_tokens)
    lengths = np.flatnonzero(frequency)
    rows = np.cumsum(frequency[lengths])  # with this length or a shorter one
    cost = (lengths * rows).astype(np.float64)  # padded tokens of these rows, by the best choice of so many lengths
    choices = []
    for _ in range(min(number, len(lengths)) - 1):
        added = np.full((len(lengths), len(lengths)), math.inf)  # [longest, the next shorter length]
        longest, shorter = np.tril_indices(len(lengths), -1)
        added[longest, shorter] = cost[shorter] + lengths[longest] * (rows[longest] - rows[shorter])
        choices.append(added.argmin(1))
        cost = added.min(1)
    chosen = [len(lengths) - 1]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    return lengths[chosen[::-1]].astype(np.int64)
