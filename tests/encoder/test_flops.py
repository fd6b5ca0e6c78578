"""The count of operations, against torch's own of what runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ionbed.encoder.collator import collate
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.flops import forward_flops
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

OPTIONS = [
    {},
    {"num_layers": 3, "mlp_ratio": 2},
    {"conditioning": ()},
    {"rotary_fraction": 0.0, "num_mz_wavelengths": 5},
    {"pairwise_bias": 7},
]


def spectra_of_length(num_peaks: int, count: int) -> SpectrumColumns:
    rng = np.random.default_rng(num_peaks)
    return SpectrumColumns.from_spectra(
        [
            Spectrum(
                spectrum_id=str(i),
                precursor_mz=500.0,
                mz=np.sort(rng.uniform(50, 500, num_peaks)).astype(np.float32),
                intensity=np.ones(num_peaks, np.float32),
            )
            for i in range(count)
        ]
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_the_count_is_that_of_torch(options):
    config = IonbedConfig(**{"hidden_size": 32, "num_heads": 4, "num_layers": 2, **options})
    model, counted = IonbedModel(config).eval(), 0
    for num_peaks, count in ((11, 3), (40, 2)):  # a batch of each length has no padding
        # torch counts nothing for its fused kernel of the CPU; as plain matrix products attention is counted
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(collate(spectra_of_length(num_peaks, count), config))
        counted += counter.get_total_flops()
    assert forward_flops(config, np.array([12, 12, 12, 41, 41])) == pytest.approx(counted, rel=1e-12)


def test_no_spectra_cost_nothing():
    assert forward_flops(IonbedConfig(), np.empty(0, np.int64)) == 0
