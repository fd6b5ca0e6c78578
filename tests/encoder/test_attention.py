"""Packed and padded tokens, compiled and plain layers: the same vectors and the same gradients."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters

from ionbed.encoder import attention
from ionbed.encoder.attention import Packing, Rotation, attended_tokens, packing_for, rotate, rotated_qkv
from ionbed.encoder.collator import EncoderBatch, collate
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_mz_wavelengths": 16, "initializer_range": 0.2}


def model_of(**changes) -> IonbedModel:
    torch.manual_seed(0)
    return IonbedModel(IonbedConfig(**{**SIZES, **changes})).train()


def batch_of(num_peaks: list[int], config: IonbedConfig, seed: int = 0) -> EncoderBatch:
    rng = np.random.default_rng(seed)
    spectra = [
        Spectrum(
            spectrum_id=str(i),
            precursor_mz=float(rng.uniform(500, 900)),
            mz=np.sort(rng.uniform(50, 500, n)).astype(np.float32),
            intensity=rng.uniform(0.01, 1, n).astype(np.float32),
            polarity=1,
        )
        for i, n in enumerate(num_peaks)
    ]
    batch = collate(SpectrumColumns.from_spectra(spectra), config)
    hidden = torch.zeros_like(batch.mask_BL)
    hidden[:, 1] = batch.mask_BL[:, 1]
    return dataclasses.replace(batch, hidden_mz_BL=hidden)


def results(model: IonbedModel, batch: EncoderBatch) -> dict[str, torch.Tensor]:
    """Return the hidden states of real tokens, and all gradients of a sum of them with random weights."""
    model.zero_grad()
    hidden = model(batch)[batch.mask_BL]
    torch.manual_seed(5)
    (hidden * torch.randn_like(hidden)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) > 20
    return {"hidden": hidden.detach(), **gradients}


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            actual[name], value, atol=2e-5 * max(scale, 1), rtol=1e-4, msg=lambda m, n=name: n + m
        )


def attention_spectrum_by_spectrum(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """`torch.nn.attention.varlen.varlen_attn`, which has a kernel on GPUs alone, by its definition."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.shape == key.shape == value.shape and query.dim() == 3
    assert all(x.stride(-1) == 1 for x in (query, key, value))
    bounds = cu_seq_q.tolist()
    assert bounds[-1] == len(query) and max(np.diff(bounds)) <= max_q == max_k
    parts = []
    for start, stop in itertools.pairwise(bounds):
        q, k, v = (x[start:stop].transpose(0, 1) for x in (query, key, value))
        parts.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def packed_by_kernel(monkeypatch):
    monkeypatch.setattr(attention, "is_fused", lambda *_: True)
    monkeypatch.setattr(attention, "variable_length_attention", lambda: attention_spectrum_by_spectrum)


@pytest.mark.parametrize("rotated", [1, 3, 4])
def test_a_rotation_is_that_of_pairs_of_dimensions(rotated):
    """As RoFormer defines it: (x_i, x_i+R) turns by the i-th angle, in each head; the rest stays."""
    torch.manual_seed(0)
    heads, size = 2, 8
    angles, qkv = torch.randn(3, 5, heads, rotated), torch.randn(3, 5, 3 * heads * size, requires_grad=True)
    rotation = Rotation.of(angles, size, torch.float32)

    def by_pairs(x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(-1, (heads, size))
        first, second, rest = x.split([rotated, rotated, size - 2 * rotated], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1).flatten(-2)

    q, k, v = qkv.chunk(3, dim=-1)
    expected = torch.cat([by_pairs(q), by_pairs(k), v], dim=-1)
    torch.testing.assert_close(rotate(q, rotation), by_pairs(q))
    torch.testing.assert_close(torch.cat(rotated_qkv(qkv, rotation), dim=-1), expected)
    weight = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((torch.cat(rotated_qkv(qkv, rotation), dim=-1) * weight).sum(), qkv)
    (of_pairs,) = torch.autograd.grad((expected * weight).sum(), qkv)
    torch.testing.assert_close(gradient, of_pairs)


@pytest.mark.parametrize("tokens_of_a_band", [1, 30, 1000])
@pytest.mark.parametrize("options", [{}, {"rotary_fraction": 0.0}, {"precursor": "relative"}])
def test_packed_tokens_give_the_vectors_and_gradients_of_padded_ones(options, tokens_of_a_band, monkeypatch):
    monkeypatch.setattr(attention, "TOKENS_OF_A_BAND", tokens_of_a_band)
    model = model_of(**options)
    batch = batch_of([30, 1, 7, 12, 0, 30], model.config)
    monkeypatch.setattr(attention, "PADDING_WORTH_PACKING", 1.0)
    assert packing_for(batch.mask_BL, torch.float32, 8) is None
    padded = results(model, batch)
    monkeypatch.setattr(attention, "PADDING_WORTH_PACKING", 0.0)
    assert packing_for(batch.mask_BL, torch.float32, 8) is not None
    assert_same(results(model, batch), padded)


def test_attention_of_packed_tokens_by_a_kernel_gives_the_same(monkeypatch, request):
    model = model_of()
    batch = batch_of([30, 1, 7, 12, 0, 30], model.config).padded_to(8, 40)  # with two empty spectra
    monkeypatch.setattr(attention, "PADDING_WORTH_PACKING", 1.0)
    padded = results(model, batch)
    request.getfixturevalue("packed_by_kernel")
    assert_same(results(model, batch), padded)
    model.eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(batch)[batch.mask_BL], padded["hidden"], atol=2e-5, rtol=1e-4)


def test_the_kernel_is_called_as_torch_defines_it():
    from torch.nn.attention.varlen import varlen_attn

    parameters = list(inspect.signature(varlen_attn).parameters.values())
    reference = list(inspect.signature(attention_spectrum_by_spectrum).parameters)
    assert [p.name for p in parameters[: len(reference)]] == reference
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[len(reference) :])
    assert attention.variable_length_attention() is varlen_attn


def test_no_fused_kernel_where_there_is_none():
    assert not attention.is_fused(torch.device("cpu"), torch.bfloat16, 64)
    assert not attention.is_fused(torch.device("cuda"), torch.float32, 64)  # flash attention has half precision alone
    assert not attention.is_fused(torch.device("cuda"), torch.bfloat16, 20)


def test_packing_and_unpacking():
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    x = torch.arange(9.0).reshape(3, 3, 1)
    packing = Packing.of(mask)
    assert packing.pack(x).flatten().tolist() == [0, 1, 3, 6, 7, 8]
    assert packing.bounds_B1.tolist() == [0, 2, 3, 6]
    assert packing.unpack(packing.pack(x)).flatten().tolist() == [0, 1, 0, 3, 0, 0, 6, 7, 8]


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 60))
@settings(deadline=None)
def test_bands_hold_every_token_once_and_little_padding(lengths, tokens_of_a_band):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    x = torch.arange(mask.numel()).reshape(mask.shape)
    with mock.patch.object(attention, "TOKENS_OF_A_BAND", tokens_of_a_band):
        packing = Packing.in_bands(mask)
        attended = attended_tokens(np.array(lengths), mask.numel(), torch.device("cpu"), torch.float32, 8)
    assert sorted(packing.pack(x).tolist()) == x[mask].tolist()
    assert torch.equal(packing.unpack(packing.pack(x)), x * mask)
    bounds = packing.bounds_B1.tolist()
    owners = packing.places_T // mask.shape[1]
    assert all(len(set(owners[a:b].tolist())) == 1 for a, b in itertools.pairwise(bounds)) and bounds[-1] == len(owners)
    assert [s.start for s, _ in packing.bands] == [0, *(s.stop for s, _ in packing.bands)][:-1]
    assert packing.bands[-1][0].stop == len(packing.places_T)
    for part, band in packing.bands:
        spectra = packing.places_T[part] // mask.shape[1]
        assert torch.equal(band.mask_BL.sum(1), torch.tensor(lengths)[spectra.unique_consecutive()])
    slots = sum(band.mask_BL.numel() for _, band in packing.bands)
    worth = mask.numel() - sum(lengths) > attention.PADDING_WORTH_PACKING * mask.numel()
    assert attended == (slots if worth else mask.numel())
    assert len(packing.bands) <= max(1, min(attention.MOST_BANDS, sum(lengths) // tokens_of_a_band))


def test_groups_of_mixed_lengths_are_attended_to_with_little_padding():
    lengths = np.random.default_rng(0).integers(2, 65, 128)
    attended = attended_tokens(lengths, 128 * 64, torch.device("cpu"), torch.float32, 32)
    assert 1 - lengths.sum() / attended < 0.08 < 0.45 < 1 - lengths.mean() / 64


def test_packing_only_where_much_is_padding():
    full = torch.ones(4, 20, dtype=torch.bool)
    little, much = full.clone(), full.clone()
    little[0, 15:] = False
    much[:2, 5:] = False
    assert packing_for(full, torch.float32, 8) is None
    assert packing_for(little, torch.float32, 8) is None
    assert packing_for(much, torch.float32, 8) is not None


@pytest.mark.usefixtures("packed_by_kernel")
def test_with_a_kernel_any_padding_is_left_out():
    mask = torch.ones(4, 20, dtype=torch.bool)
    assert packing_for(mask, torch.bfloat16, 8) is None
    mask[0, 19] = False
    assert packing_for(mask, torch.bfloat16, 8) is not None


def test_mixed_precision_rotates_and_packs_as_full_precision_does(monkeypatch):
    model = model_of(initializer_range=0.05)
    batch = batch_of([30, 1, 7, 12, 0, 30], model.config)
    expected = results(model, batch)
    for worth in (0.0, 1.0):
        monkeypatch.setattr(attention, "PADDING_WORTH_PACKING", worth)
        with torch.autocast("cpu", torch.bfloat16):
            actual = results(model, batch)
        for name in ("hidden", "layers.0.qkv.weight", "layers.1.qkv.weight"):
            difference = (actual[name].float() - expected[name]).norm() / expected[name].norm()
            assert difference < 0.05, (name, worth)


@pytest.mark.parametrize("options", [{}, {"rotary_fraction": 0.0}, {"pairwise_bias": 8}])
def test_compiled_layers_give_the_same_from_one_graph_for_each_shape(options):
    torch.compiler.reset()
    counters.clear()
    model = model_of(num_layers=3, **options)
    batches = [batch_of(peaks, model.config) for peaks in ([30, 30], [9, 2, 3, 9], [30, 4])]
    expected = [results(model, batch) for batch in batches]
    compiled = copy.deepcopy(model)
    compiled.compile_layers("aot_eager")
    for batch, plain in zip(batches, expected, strict=True):
        assert_same(results(compiled, batch), plain)
    # Two shapes, three layers; the full batch and the padded one of its shape share a graph. fullgraph=True has
    # refused breaks within.
    assert counters["stats"]["unique_graphs"] == 2
    assert compiled.state_dict().keys() == model.state_dict().keys()
    assert model.layers[0].compile_backend is None


def test_a_copy_of_a_compiled_model_has_weights_of_its_own():
    model = model_of(num_layers=1)
    model.compile_layers("eager")
    batch = batch_of([5, 5], model.config)
    before = results(model, batch)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.layers[0].mlp_out.bias[0] += 1.0
    assert (results(other, batch)["hidden"] - before["hidden"]).abs().max() > 1e-3
    assert_same(results(model, batch), before)


def test_more_shapes_than_torch_would_compile():
    torch.compiler.reset()
    model = model_of(num_layers=1)
    model.compile_layers("eager")
    for length in range(1, 11):  # torch's own limit is 8, after which fullgraph=True fails
        model(batch_of([length], model.config))


def test_evaluation_is_not_compiled():
    torch.compiler.reset()
    counters.clear()
    model = model_of()
    model.compile_layers("eager")
    with torch.no_grad():
        model.eval()(batch_of([3, 9], model.config))
    assert counters["stats"]["unique_graphs"] == 0
