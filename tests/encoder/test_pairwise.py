"""The learned bias of attention by m/z difference: what it depends on, what it must not see, padding, gradients."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import ionbed
from ionbed.encoder.collator import EncoderBatch, collate
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel, attend, geometric_wavelengths
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum


def biased_model(**changes) -> IonbedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_mz_wavelengths": 16, "initializer_range": 0.4}
    return IonbedModel(IonbedConfig(**{**sizes, "pairwise_bias": 8, "rotary_fraction": 0.0, **changes})).eval()


def spectra(count: int = 8, seed: int = 0) -> list[Spectrum]:
    rng = np.random.default_rng(seed)
    result = []
    for i in range(count):
        mz = np.unique(rng.uniform(50, 900, rng.integers(2, 30)).astype(np.float32))
        intensity = rng.uniform(0.01, 1, len(mz)).astype(np.float32)
        intensity /= intensity.max()
        result.append(Spectrum(spectrum_id=str(i), precursor_mz=float(mz[-1]) + 20, mz=mz, intensity=intensity))
    return result


def batch_of(model: IonbedModel, count: int = 8) -> EncoderBatch:
    return collate(SpectrumColumns.from_spectra(spectra(count)), model.config)


def biases(model: IonbedModel, batch: EncoderBatch) -> torch.Tensor:
    with torch.no_grad():
        return model._biases(batch)


def test_the_bias_is_the_network_over_features_of_each_difference():
    """The product over single tokens equals the plain form: sines and cosines of every difference, in float64."""
    model = biased_model()
    batch = batch_of(model)
    network = model.pairwise_bias
    with torch.no_grad():
        network.features_in.bias.normal_()
        differences = batch.mz_BL[:, :, None] - batch.mz_BL[:, None, :]
        wavelengths = geometric_wavelengths(model.config.rotary_wavelengths, 16)
        turns = differences.unsqueeze(-1) / wavelengths * 2 * np.pi
        features = torch.cat([turns.cos(), turns.sin()], dim=-1)
        wide = torch.nn.functional.silu(features @ network.features_in.weight.double().T + network.features_in.bias)
        expected = (wide @ network.out.weight.double().T).permute(0, 3, 1, 2)
    keys = batch.mask_BL[:, None, None, :].expand_as(expected)
    actual = biases(model, batch)
    torch.testing.assert_close(actual.double()[keys], expected[keys], atol=1e-4, rtol=1e-4)
    assert (actual[~keys] == float("-inf")).all() and (~keys).any()
    rows = actual[0, :, :, 1] - actual[0, :, :, 2]  # what a softmax over keys sees of the bias ...
    assert rows.std(dim=1).min() > 1e-2  # ... differs between queries: it does not cancel


def test_the_bias_changes_embeddings_and_is_alone_in_seeing_differences():
    """Without m/z features of its own and without rotation, the encoder sees m/z through the bias alone."""
    model = biased_model(precursor="relative")
    with torch.no_grad():
        model.peak_embedding.mz_in.weight.zero_()
    peaks = [dataclasses.replace(s, mz=s.mz.round(), precursor_mz=float(s.mz[-1].round()) + 20) for s in spectra()]
    moved = [dataclasses.replace(s, mz=s.mz + np.float32(32), precursor_mz=s.precursor_mz + 32) for s in peaks]
    lost = [dataclasses.replace(s, precursor_mz=s.precursor_mz + 32) for s in peaks]
    np.testing.assert_allclose(model.embed(moved), model.embed(peaks), atol=1e-4)
    assert np.abs(model.embed(lost) - model.embed(peaks)).max() > 1e-2


@pytest.mark.parametrize("rotary_fraction", [0.0, 0.5])
def test_an_embedding_with_a_bias_does_not_depend_on_batch_or_padding(rotary_fraction):
    model = biased_model(rotary_fraction=rotary_fraction)
    together = model.embed(spectra(), batch_tokens=100_000)
    alone = np.concatenate([model.embed([spectrum]) for spectrum in spectra()])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    batch = batch_of(model)
    spoiled = dataclasses.replace(
        batch,
        mz_BL=torch.where(batch.mask_BL, batch.mz_BL, 123.4),
        intensity_BL=torch.where(batch.mask_BL, batch.intensity_BL, 0.7),
    )
    with torch.no_grad():
        torch.testing.assert_close(model.embed_batch(spoiled), model.embed_batch(batch), atol=1e-5, rtol=0)


def test_a_hidden_mz_does_not_reach_the_bias():
    model = biased_model()
    batch = batch_of(model, 3)
    hidden = torch.zeros_like(batch.mask_BL)
    hidden[:, 2] = True
    hidden_batch = dataclasses.replace(batch, hidden_mz_BL=hidden)
    moved_mz = torch.where(hidden, batch.mz_BL + 17.0, batch.mz_BL)
    moved = dataclasses.replace(hidden_batch, mz_BL=moved_mz)
    with torch.no_grad():
        torch.testing.assert_close(model(moved), model(hidden_batch), atol=0, rtol=0)
        seen = model(dataclasses.replace(moved, hidden_mz_BL=None)) - model(batch)
    assert seen.abs().max() > 1e-3
    bias = biases(model, hidden_batch)
    assert bias[0, :, 0, 2].equal(bias[0, :, 1, 2]) and not bias[0, :, 0, 1].equal(bias[0, :, 2, 1])


def test_a_hidden_precursor_does_not_reach_the_bias():
    for mode, depends in (("relative", True), ("hidden", False)):
        model = biased_model(precursor=mode)
        moved = [dataclasses.replace(s, precursor_mz=s.precursor_mz + 57.021) for s in spectra()]
        assert (np.abs(model.embed(spectra()) - model.embed(moved)).max() > 1e-4) == depends


def test_every_parameter_of_the_bias_learns():
    model = biased_model()
    model.train()
    batch = batch_of(model)
    model(batch)[batch.mask_BL].square().sum().backward()
    for name, parameter in model.pairwise_bias.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_attention_of_bf16_training_adds_the_bias_that_the_fused_kernel_adds():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 4, 9, 9)
    bias[0, :, :, 5:] = float("-inf")
    low = [x.detach().to(torch.bfloat16).requires_grad_() for x in (q, k, v)]
    actual = attend(*low, bias.to(torch.bfloat16)).float()
    torch.testing.assert_close(actual, attend(q, k, v, bias), atol=0.05, rtol=0.05)
    assert (actual - attend(q, k, v, None)).abs().max() > 0.5


def test_a_model_without_a_bias_has_the_hash_it_had_before():
    model = biased_model(pairwise_bias=0)
    assert "pairwise_bias" not in model._identity() and model.pairwise_bias is None
    assert biased_model()._identity()["pairwise_bias"] == 8
    del model.config.pairwise_bias  # as in a config.json of an earlier version
    assert IonbedConfig.from_dict(model.config.to_dict()).pairwise_bias == 0


def test_a_saved_model_keeps_its_bias(tmp_path):
    model = biased_model()
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(ionbed.load_model(tmp_path).embed(spectra()), model.embed(spectra()))


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match="pairwise_bias"):
        IonbedConfig(pairwise_bias=-1)
