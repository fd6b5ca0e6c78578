"""Supervised contrast: spectra that belong together against others.

Shape suffixes: A anchors, N spectra that they are compared with.
"""

from __future__ import annotations

import torch


def contrastive_loss(
    similarity_AN: torch.Tensor, positive_AN: torch.Tensor, allowed_AN: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor:
    """Return the supervised contrastive loss (Khosla et al. 2020, L_out), summed over anchors.

    Parameters
    ----------
    similarity_AN : float tensor
        Cosine of each anchor with each spectrum.
    positive_AN : bool tensor
        Spectra of the anchor's molecule, not the anchor itself.
    allowed_AN : bool tensor
        Spectra in the denominator; positives are added to it. An anchor counts only with at least one positive
        and one other allowed spectrum.
    """
    allowed_AN = allowed_AN | positive_AN
    used_A = contrast_anchors(positive_AN, allowed_AN)
    logits_AN = (similarity_AN / temperature).masked_fill(~allowed_AN, float("-inf"))[used_A]
    positive_AN = positive_AN[used_A]
    log_share_AN = logits_AN - logits_AN.logsumexp(1, keepdim=True)
    return -(log_share_AN.masked_fill(~positive_AN, 0).sum(1) / positive_AN.sum(1)).sum()


def contrast_anchors(positive_AN: torch.Tensor, allowed_AN: torch.Tensor) -> torch.Tensor:
    """Return which anchors count in `contrastive_loss`, a bool tensor (A,)."""
    return positive_AN.any(1) & (allowed_AN & ~positive_AN).any(1)
