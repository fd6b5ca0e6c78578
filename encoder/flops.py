"""How many floating-point operations the encoder spends on spectra of given lengths."""

from __future__ import annotations

import numpy as np

from .configuration_ionbed import IonbedConfig


def forward_flops(config: IonbedConfig, lengths: np.ndarray) -> float:
    """Return the operations of the matrix products in `IonbedModel.forward`, on real tokens alone.

    A multiply-add counts as two, and what is no matrix product (norms, activations, rotations) as nothing: the count of
    Kaplan et al. (2020) and of ``torch.utils.flop_counter``. A backward pass takes twice as many again.

    Parameters
    ----------
    config : IonbedConfig
    lengths : int array of shape (n_spectra,)
        Tokens of each spectrum, the precursor's included and padding not.
    """
    size = config.hidden_size
    tokens = float(np.sum(lengths, dtype=np.float64))
    pairs = float(np.sum(np.square(lengths, dtype=np.float64)))
    features = 2 * config.num_mz_wavelengths + 3  # of m/z, and of intensity
    peak_embedding = features * size + size * size
    layer = (4 + 2 * config.mlp_ratio) * size * size  # queries, keys, values, output; feed-forward
    energy = 2 * size + size * size if "collision_energy" in config.conditioning else 0
    per_pair = 2 * size * config.num_layers  # scores, and the mean of the values
    if width := config.pairwise_bias:
        per_pair += 2 * config.num_mz_wavelengths * width + width * config.num_heads
    return 2 * (tokens * (peak_embedding + config.num_layers * layer) + pairs * per_pair + len(lengths) * energy)
