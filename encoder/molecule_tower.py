"""The molecule tower: from the features of a structure to a vector in the space of the spectra.

Shape suffixes: M molecules, F features, D width of the tower, E embedding dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..spectra.molecule_features import NUM_FEATURES
from .configuration_ionbed import IonbedConfig


class MoleculeTower(nn.Module):
    """Two residual feed-forward blocks over `ionbed.spectra.molecule_features.molecule_features`.

    Contrast of two towers, one for each kind of input, is that of CLIP (Radford et al. 2021).
    """

    def __init__(self, config: IonbedConfig) -> None:
        super().__init__()
        size = config.molecule_tower
        self.features_in = nn.Linear(NUM_FEATURES, size)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.SiLU(), nn.Dropout(config.dropout))
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(size)
        self.out = nn.Linear(size, config.output_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features_MF: torch.Tensor) -> torch.Tensor:
        """Return unit vectors of shape (M, E)."""
        x_MD = self.features_in(self.dropout(features_MF.to(self.features_in.weight.dtype)))
        for block in self.blocks:
            x_MD = x_MD + block(x_MD)
        return F.normalize(self.out(self.norm(x_MD)).float(), dim=-1)
