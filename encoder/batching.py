"""Batches of about equal numbers of tokens, made of spectra of about equal length."""

from __future__ import annotations

import numpy as np


def token_budget_batches(num_tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Group rows into batches that hold at most ``batch_tokens`` tokens with their padding.

    Parameters
    ----------
    num_tokens : int array of shape (n,)
        Tokens of each row.
    batch_tokens : int
        Budget; a row longer than that gets a batch of its own.

    Returns
    -------
    list of int64 arrays
        Row numbers; every row once; longest rows first, so that memory peaks at the start.
    """
    order = np.argsort(-num_tokens, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // int(num_tokens[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def padding_share(num_tokens: np.ndarray, batches: list[np.ndarray]) -> float:
    """Return the share of a set of batches that is padding (0 to 1)."""
    padded = sum(int(num_tokens[rows].max()) * len(rows) for rows in batches)
    return 1 - sum(int(num_tokens[rows].sum()) for rows in batches) / padded if padded else 0.0
