"""What masked-peak modelling hides: how much, by which weight, and that the draw is a function of seed and row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.pretrain.config import MaskingConfig
from ionbed.pretrain.data import epoch_batches
from ionbed.pretrain.masking import masked_batch, uniform_hash
from ionbed.pretrain.objective import MaskedPeakObjective
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

ENCODER = IonbedConfig(hidden_size=16, num_layers=1, num_heads=2, num_mz_wavelengths=8)


def columns_of(count: int, num_peaks: int, most_mz: float = 900.0) -> SpectrumColumns:
    rng = np.random.default_rng(0)
    spectra = []
    for i in range(count):
        mz = np.sort(rng.uniform(50, most_mz, num_peaks)).astype(np.float32)
        intensity = np.full(num_peaks, 0.02, np.float32)
        intensity[i % num_peaks] = 1.0
        spectra.append(Spectrum(spectrum_id=str(i), precursor_mz=950.0, mz=mz, intensity=intensity, polarity=1,
                                charge=1, collision_energy=20.0))  # fmt: skip
    return SpectrumColumns.from_spectra(spectra)


def test_hash_is_uniform_and_its_streams_are_independent():
    rows = np.arange(200_000)
    first, second = (uniform_hash(0, 0, stream, rows, 3) for stream in (1, 2))
    assert first.min() > 0 and first.max() < 1
    counts = np.histogram(first, 20, (0, 1))[0]
    assert np.abs(counts - 10_000).max() < 500
    for other in (
        second,
        uniform_hash(1, 0, 1, rows, 3),
        uniform_hash(0, 1, 1, rows, 3),
        uniform_hash(0, 0, 1, rows, 4),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.01
    assert np.array_equal(first[1000:1010], uniform_hash(0, 0, 1, rows[1000:1010], 3))


def test_the_share_is_masked_and_the_base_peak_more_often_than_others():
    columns, rows = columns_of(3000, 10), np.arange(3000)
    masking = MaskingConfig(share=0.3, hide_intensity_share=0.2)
    batch = masked_batch(columns, rows, ENCODER, masking, seed=0, epoch=0)
    masked = (batch.hidden_mz_BL | batch.hidden_intensity_BL).numpy()[:, 1:]
    assert (masked.sum(1) == 3).all()
    assert not (batch.hidden_mz_BL & batch.hidden_intensity_BL).any()
    assert abs(batch.hidden_intensity_BL.sum().item() / masked.sum() - 0.2) < 0.02
    base = masked[rows, rows % 10].mean()
    assert base > 0.6 > 0.35 > (masked.sum() - base * 3000) / (3000 * 9)


def test_at_least_one_peak_is_masked_and_none_beyond_the_last_bin():
    single = masked_batch(columns_of(50, 1), np.arange(50), ENCODER, MaskingConfig(), 0, 0)
    assert ((single.hidden_mz_BL | single.hidden_intensity_BL).sum(1) == 1).all()
    batch = masked_batch(columns_of(300, 10), np.arange(300), ENCODER, MaskingConfig(max_mz=300, share=1.0), 0, 0)
    masked = batch.hidden_mz_BL | batch.hidden_intensity_BL
    assert batch.mz_BL[masked].max() < 300
    assert not masked[:, 0].any()
    assert masked.sum() == ((batch.mz_BL < 300) & batch.mask_BL).sum()


def test_a_mask_does_not_depend_on_the_batch():
    columns, rows = columns_of(20, 10), np.arange(100, 120)
    together = masked_batch(columns, rows, ENCODER, MaskingConfig(), 0, 3)
    part = np.array([7, 2, 11])
    alone = masked_batch(columns.take(part), rows[part], ENCODER, MaskingConfig(), 0, 3)
    assert torch.equal(together.hidden_mz_BL[part], alone.hidden_mz_BL)
    assert torch.equal(together.polarity_B[part], alone.polarity_B)
    assert not torch.equal(
        together.hidden_mz_BL, masked_batch(columns, rows, ENCODER, MaskingConfig(), 0, 4).hidden_mz_BL
    )


def test_metadata_is_hidden_at_the_given_rate():
    batch = masked_batch(columns_of(4000, 2), np.arange(4000), ENCODER, MaskingConfig(metadata_dropout=0.25), 0, 0)
    for unknown in (batch.polarity_B == 0, batch.charge_B == 0, batch.collision_energy_B.isnan()):
        assert abs(unknown.float().mean().item() - 0.25) < 0.03


@given(st.floats(1.0, 999.99))
def test_bin_and_offset_give_the_mz_back(mz):
    objective = MaskedPeakObjective(IonbedModel(ENCODER), MaskingConfig())
    head = objective.mz
    block, bin_, offset = head.targets(torch.tensor([mz], dtype=torch.float64))
    assert 0 <= block.item() < head.num_blocks and 0 <= bin_.item() < head.bins_per_block == 20
    assert abs(offset.item()) <= 0.5 + 1e-6
    assert block.item() + (bin_.item() + 0.5 + offset.item()) * 0.05 == pytest.approx(mz, abs=1e-6)


def test_a_part_of_a_batch_adds_up_to_the_whole():
    """Sums over two halves of a batch equal the sums over all of it: nothing is averaged within a part."""
    torch.manual_seed(0)
    objective = MaskedPeakObjective(IonbedModel(ENCODER), MaskingConfig())
    columns, rows = columns_of(12, 10), np.arange(12)
    parts = [masked_batch(columns.take(p), p, ENCODER, MaskingConfig(), 0, 0) for p in (rows, rows[::2], rows[1::2])]
    with torch.no_grad():
        whole, first, second = (objective(part) for part in parts)
    for name, value in whole.items():
        assert float(first[name] + second[name]) == pytest.approx(float(value), rel=1e-5)
        counts = [objective.counts(part)[name] for part in parts]
        assert counts[0] == counts[1] + counts[2] > 0


@given(st.lists(st.integers(1, 65), min_size=1, max_size=300), st.integers(1, 400), st.integers(0, 3))
def test_an_epoch_shows_every_row_once(lengths, budget, epoch):
    rows = np.arange(len(lengths)) + 5
    num_tokens = np.concatenate([np.zeros(5, np.int64), lengths])
    batches = epoch_batches(rows, num_tokens, budget, 0, epoch)
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    again = epoch_batches(rows, num_tokens, budget, 0, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@pytest.mark.parametrize("count", [321, 322, 329, 335, 640, 641, 5])
def test_no_batch_of_an_epoch_is_tiny(count):
    """A pool takes 320 rows of these; what is left over must not become a batch of its own."""
    batches = epoch_batches(np.arange(count), np.full(count, 100), 1000, 0, 0)
    assert min(map(len, batches)) >= min(count, 3) and max(map(len, batches)) <= 13


@pytest.mark.parametrize(
    "changes", [{"share": 0.0}, {"share": 1.5}, {"bin_width": 0.3}, {"max_mz": 0.5}, {"metadata_dropout": -0.1}]
)
def test_impossible_masking_is_refused(changes):
    with pytest.raises(ValueError):
        dataclasses.replace(MaskingConfig(), **changes)
