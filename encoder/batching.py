"""Batches of about equal numbers of tokens, made of spectra of about equal length."""

from __future__ import annotations

import numpy as np

SHORTEST_SHARE = 0.75
ENOUGH_TOKENS = 1024
"""A batch of fewer tokens leaves processors idle; from here on little padding is worth more."""


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
    order = np.argsort(-num_tokens, kind="stable")
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


def padding_share(num_tokens: np.ndarray, batches: list[np.ndarray]) -> float:
    """Return the share of a set of batches that is padding (0 to 1)."""
    padded = sum(int(num_tokens[rows].max()) * len(rows) for rows in batches)
    return 1 - sum(int(num_tokens[rows].sum()) for rows in batches) / padded if padded else 0.0
