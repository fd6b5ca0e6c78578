"""A learned bias of attention from the m/z difference of two peaks; the alternative to rotating queries and keys.

Shape suffixes: those of `ionbed.encoder.modeling_ionbed`; P hidden width of the small network over a pair.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_ionbed import IonbedConfig


class PairwiseBias(nn.Module):
    """A small network over sines and cosines of ``m/z of query - m/z of key`` gives each head a bias of its scores.

    A bias of the form sum(f_i - f_j), as published for spectra, does not do this: what depends on the query alone
    cancels in the softmax. Here the network is not linear in features of the *difference*, so nothing cancels. All
    layers share the bias (as in Graphormer, Ying et al. 2021). A token whose m/z must not be seen has features of
    zeros, which no difference has: pairs with it get one learned bias.
    """

    def __init__(self, config: IonbedConfig) -> None:
        super().__init__()
        self.features_in = nn.Linear(2 * config.num_mz_wavelengths, config.pairwise_bias)
        self.out = nn.Linear(config.pairwise_bias, config.num_heads, bias=False)  # what all keys share cancels

    def forward(self, angles_BLW: torch.Tensor, unseen_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return what is added to the scores, (B, H, L, L): the bias, and minus infinity where the key is padding.

        Parameters
        ----------
        angles_BLW : float32
            Phases of each token's m/z, in radians.
        unseen_BL : bool
            Tokens whose m/z must not be seen.
        mask_BL : bool
            True for real tokens.
        """
        weight_PV = self.features_in.weight
        seen_BL1 = ~unseen_BL.unsqueeze(-1)
        cos_BLW = (angles_BLW.cos() * seen_BL1).to(weight_PV.dtype)
        sin_BLW = (angles_BLW.sin() * seen_BL1).to(weight_PV.dtype)
        # cos(a - b) = cos a cos b + sin a sin b, sin(a - b) = sin a cos b - cos a sin b: features of all pairs times
        # their weights are one product of features of single tokens, and (B, L, L, 2W) is never made.
        of_cos_PW, of_sin_PW = weight_PV.chunk(2, dim=1)
        cos_BL1W, sin_BL1W = cos_BLW.unsqueeze(2), sin_BLW.unsqueeze(2)
        key_BLPV = torch.cat(
            [of_cos_PW * cos_BL1W - of_sin_PW * sin_BL1W, of_cos_PW * sin_BL1W + of_sin_PW * cos_BL1W], dim=-1
        )
        query_BLV = torch.cat([cos_BLW, sin_BLW], dim=-1)
        with torch.autocast(angles_BLW.device.type, enabled=False):
            pairs_BLLP = (query_BLV @ key_BLPV.flatten(1, 2).transpose(1, 2)).unflatten(-1, key_BLPV.shape[1:3])
            bias_BLLH = self.out(F.silu(pairs_BLLP + self.features_in.bias))
        return bias_BLLH.permute(0, 3, 1, 2).masked_fill(~mask_BL[:, None, None, :], float("-inf")).contiguous()
