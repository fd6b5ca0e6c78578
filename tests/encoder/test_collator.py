"""Which peaks the model reads, and batches by token budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ionbed.encoder.batching import padding_share, token_budget_batches
from ionbed.encoder.collator import analyser, collate, select_peaks
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum


def spectrum(mz, intensity, **fields) -> Spectrum:
    return Spectrum(spectrum_id="s", precursor_mz=500.0, mz=np.array(mz, np.float32),
                    intensity=np.array(intensity, np.float32), **fields)  # fmt: skip


def test_the_most_intense_peaks_are_kept_in_order_of_mz():
    columns = SpectrumColumns.from_spectra(
        [
            spectrum([50, 60, 70, 80, 90], [0.5, 0.0005, 1.0, 0.2, 0.3]),
            spectrum([], []),
            spectrum([55, 65], [1.0, 0.1]),
        ]
    )
    kept, peaks = select_peaks(columns, IonbedConfig(max_peaks=3, min_intensity=0.001))
    assert kept.mz.tolist() == [50, 70, 90, 55, 65]
    assert kept.num_peaks.tolist() == [3, 0, 2]
    assert peaks.tolist() == [0, 2, 4, 5, 6]


def test_a_batch_holds_the_precursor_first_and_a_mask():
    batch = collate(
        SpectrumColumns.from_spectra([spectrum([50, 60], [1, 0.5], polarity=-1, charge=-2), spectrum([70], [1])]),
        IonbedConfig(),
    )
    assert batch.mz_BL.tolist() == [[500, 50, 60], [500, 70, 0]]
    assert batch.intensity_BL.tolist() == [[0, 1, 0.5], [0, 1, 0]]
    assert batch.mask_BL.tolist() == [[True, True, True], [True, True, False]]
    assert batch.num_tokens == 5
    assert batch.polarity_B.tolist() == [2, 0]
    assert batch.charge_B.tolist() == [2, 0]


def test_a_batch_filled_up_to_a_shape_counts_and_embeds_what_it_did():
    config = IonbedConfig(hidden_size=16, num_layers=1, num_heads=2, num_mz_wavelengths=8)
    model = IonbedModel(config).eval()
    batch = collate(SpectrumColumns.from_spectra([spectrum([50, 60], [1, 0.5], collision_energy=20.0),
                                                  spectrum([70], [1])]), config)  # fmt: skip
    filled = batch.padded_to(5, 4)
    assert (len(filled), filled.num_tokens, filled.num_slots, filled.num_empty) == (2, 5, 20, 3)
    assert filled.lengths.tolist() == batch.lengths.tolist() == [3, 2]
    assert filled.mask_BL.sum(1).tolist() == [3, 2, 1, 1, 1]  # a query without any key is not a number
    with torch.no_grad():
        vectors, expected = model.embed_batch(filled), model.embed_batch(batch)
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors[:2], expected, atol=1e-6, rtol=0)
    assert filled.padded_to(6, 4).num_empty == 4
    with pytest.raises(ValueError, match=r"does not fit into \(1, 4\)"):
        batch.padded_to(1, 4)


def test_a_batch_of_no_spectra_can_be_filled_up():
    config = IonbedConfig()
    batch = collate(SpectrumColumns.from_spectra([]), config).padded_to(1, 1)
    assert (len(batch), batch.num_tokens, batch.num_slots) == (0, 0, 1)


def test_adducts_and_analysers_are_looked_up():
    config = IonbedConfig(conditioning=("adduct", "instrument"), adducts=("[M+H]+", "[M-H]-"),
                          instruments=("ITFT", "QTOF"))  # fmt: skip
    batch = collate(
        SpectrumColumns.from_spectra(
            [
                spectrum([50], [1], adduct="[M-H]-", instrument_type="LC-ESI-qtof"),
                spectrum([50], [1], adduct="[M+Na]+", instrument_type="LC-ESI-ITFT"),
                spectrum([50], [1]),
            ]
        ),
        config,
    )
    assert batch.adduct_B.tolist() == [2, 0, 0]
    assert batch.instrument_B.tolist() == [2, 1, 0]


def test_the_analyser_is_the_last_part_of_the_instrument_type():
    assert [analyser(text) for text in ("LC-ESI-QTOF", "ESI-itft", "QQQ")] == ["QTOF", "ITFT", "QQQ"]


@given(st.lists(st.integers(1, 65), max_size=200), st.integers(1, 500), st.booleans())
def test_batches_hold_every_row_once_within_the_budget(lengths, budget, even):
    num_tokens = np.array(lengths, np.int64)
    batches = token_budget_batches(num_tokens, budget, even=even)
    assert sorted(np.concatenate([*batches, np.empty(0, np.int64)]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or num_tokens[rows].max() * len(rows) <= budget
    assert 0 <= padding_share(num_tokens, batches) < 1


def test_even_batches_hold_little_padding():
    """Lengths as real spectra have them: many short, few long."""
    num_tokens = np.minimum(np.random.default_rng(0).lognormal(2.5, 1.0, 5000).astype(np.int64), 64) + 1
    assert padding_share(num_tokens, token_budget_batches(num_tokens, 4096)) < 0.05
    few = num_tokens[:300]
    even, full = (token_budget_batches(few, 8192, even=even) for even in (True, False))
    assert padding_share(few, even) < 0.2 < 0.3 < padding_share(few, full)


@given(st.lists(st.lists(st.floats(50, 900, width=32), max_size=8), max_size=6), st.data())
def test_taking_rows_equals_taking_spectra(peaks, data):
    spectra = [spectrum(sorted(mz), [1.0] * len(mz)) for mz in peaks]
    rows = data.draw(st.lists(st.integers(0, len(spectra) - 1), max_size=8)) if spectra else []
    taken = SpectrumColumns.from_spectra(spectra).take(np.array(rows, np.int64))
    expected = SpectrumColumns.from_spectra([spectra[i] for i in rows])
    np.testing.assert_array_equal(taken.offsets, expected.offsets)
    np.testing.assert_array_equal(taken.mz, expected.mz)
