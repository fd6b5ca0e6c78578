"""Losses against structures over a batch of spectra, and the gathering of embeddings from all processes.

Shape suffixes: A anchors (this process's spectra), N spectra of the whole batch, S and M the same of structures,
E embedding dimensions, K bits of a fingerprint.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F


def structure_loss(
    similarity_AN: torch.Tensor,
    tanimoto_AN: torch.Tensor,
    other_AN: torch.Tensor,
    temperature: torch.Tensor | float,
    target_temperature: float,
) -> torch.Tensor:
    """Return the cross-entropy between neighbours by structure and by embedding, summed over anchors.

    The target of an anchor is a distribution over spectra of *other* molecules, proportional to
    exp(Tanimoto / target_temperature): with the molecule itself absent, the closest analogue shall come first.
    """
    used_A = other_AN.any(1)
    blocked_AN = ~other_AN[used_A]
    target_AN = (tanimoto_AN[used_A] / target_temperature).masked_fill(blocked_AN, float("-inf")).softmax(1)
    logits_AN = (similarity_AN[used_A] / temperature).masked_fill(blocked_AN, float("-inf"))
    log_share_AN = F.log_softmax(logits_AN, 1).masked_fill(blocked_AN, 0)
    return -(target_AN * log_share_AN).sum()


def fingerprint_loss(logits_AK: torch.Tensor, fingerprint_AK: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy of predicted fingerprints, the mean over bits summed over anchors.

    To predict the bits of a fingerprint from a spectrum is how CSI:FingerID (Duehrkop et al. 2015) and MIST (Goldman
    et al. 2023) find structures.
    """
    return F.binary_cross_entropy_with_logits(logits_AK, fingerprint_AK.float(), reduction="none").mean(1).sum()


class _Gather(torch.autograd.Function):
    """All processes' rows, in order of process; the gradient of a row is the sum over all processes' losses."""

    @staticmethod
    def forward(ctx: Any, own_AE: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        rank = torch.distributed.get_rank()
        ctx.start, ctx.stop = sum(sizes[:rank]), sum(sizes[: rank + 1])
        padded = F.pad(own_AE, (0, 0, 0, max(sizes) - len(own_AE)))
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].contiguous()
        torch.distributed.all_reduce(total)
        return total[ctx.start : ctx.stop], None


def gather_embeddings(own_AE: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return the embeddings of the whole batch, (N, E), with gradients into every process's encoder.

    ``sizes`` are the numbers of rows of each process, in order.
    """
    if len(sizes) == 1:
        return own_AE
    gathered: torch.Tensor = _Gather.apply(own_AE, sizes)
    return gathered


def gather_two(
    own_AE: torch.Tensor, own_SE: torch.Tensor, sizes: list[int], structure_sizes: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of all spectra, (N, E), and of all structures, (M, E); see `gather_embeddings`.

    In one exchange: of two, processes might begin the backward passes in another order each, and wait for ever.
    """
    if len(sizes) == 1:
        return own_AE, own_SE
    both = [size for pair in zip(sizes, structure_sizes, strict=True) for size in pair]
    together = [a + b for a, b in zip(sizes, structure_sizes, strict=True)]
    parts = gather_embeddings(torch.cat([own_AE, own_SE]), together).split(both)
    return torch.cat(parts[::2]), torch.cat(parts[1::2])
