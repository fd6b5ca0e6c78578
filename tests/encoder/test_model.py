"""The encoder: padding, batches, precision of m/z, what it must not see, saving and loading."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from transformers import AutoModel

import ionbed
from ionbed.encoder.attention import attend, rotate
from ionbed.encoder.collator import collate
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel, geometric_wavelengths, phase_angles, rotation_by
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum


def random_spectra(count: int, most_peaks: int = 90, seed: int = 0) -> list[Spectrum]:
    rng = np.random.default_rng(seed)
    result = []
    for i in range(count):
        mz = np.unique(rng.uniform(50, 900, rng.integers(1, most_peaks)).astype(np.float32))
        intensity = rng.uniform(0.01, 1, len(mz)).astype(np.float32)
        result.append(
            Spectrum(
                spectrum_id=str(i),
                precursor_mz=float(rng.uniform(100, 1000)),
                mz=mz,
                intensity=intensity / intensity.max(),
                polarity=int(rng.choice([-1, 1])),
                collision_energy=float(rng.uniform(5, 60)) if i % 3 else None,
            )
        )
    return result


def small_model(**changes) -> IonbedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "num_mz_wavelengths": 16, "initializer_range": 0.2}
    return IonbedModel(IonbedConfig(**{**sizes, "embedding_dim": 16, **changes})).eval()


@pytest.mark.parametrize("embedding_dim", [None, 16])
def test_an_embedding_does_not_depend_on_batch_or_padding(embedding_dim):
    model, spectra = small_model(embedding_dim=embedding_dim), random_spectra(60)
    together = model.embed(spectra, batch_tokens=100_000)
    assert together.shape == (60, embedding_dim or 32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model.embed(spectra, batch_tokens=200), together, atol=1e-5)
    alone = np.concatenate([model.embed([spectrum]) for spectrum in spectra])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2  # and it does depend on the spectrum


def test_values_in_padding_do_not_reach_real_tokens():
    model = small_model()
    batch = collate(SpectrumColumns.from_spectra(random_spectra(8)), model.config)
    assert not batch.mask_BL.all()
    spoiled = dataclasses.replace(
        batch,
        mz_BL=torch.where(batch.mask_BL, batch.mz_BL, 123.4),
        intensity_BL=torch.where(batch.mask_BL, batch.intensity_BL, 0.7),
    )
    with torch.no_grad():
        torch.testing.assert_close(model.embed_batch(spoiled), model.embed_batch(batch), atol=1e-5, rtol=0)


def test_phases_are_exact_at_the_shortest_wavelength():
    wavelengths = geometric_wavelengths((1e-3, 1e3), 7)
    for mz in (50.00728, 499.1234567, 1999.98765):
        angles = phase_angles(torch.tensor([mz], dtype=torch.float64), wavelengths)[0]
        for wavelength, angle in zip(wavelengths.tolist(), angles.tolist(), strict=True):
            turns = Fraction(mz) / Fraction(wavelength)
            expected = 2 * np.pi * float(turns - turns.__floor__())
            assert abs(np.angle(np.exp(1j * (angle - expected)))) < 1e-5


def test_a_model_in_another_precision_keeps_its_wavelengths():
    model, spectra = small_model(), random_spectra(4)
    expected = model.embed(spectra)
    again = model.to(torch.bfloat16).float().embed(spectra)  # weights are rounded, m/z must not be
    assert np.abs(again - expected).max() < 0.05
    assert not any("wavelength" in key for key in model.state_dict())


def test_rotated_scores_depend_on_mass_differences_alone():
    config = small_model(rotary_fraction=1.0).config
    torch.manual_seed(1)
    q, k = torch.randn(1, 5, 32), torch.randn(1, 5, 32)
    mz = torch.tensor([[60.0, 75.0234, 118.086, 250.1, 399.9]], dtype=torch.float64)

    def scores(mz: torch.Tensor) -> torch.Tensor:
        rotation = rotation_by(mz, config, torch.float32)
        heads = (rotate(x, rotation).unflatten(-1, (4, 8)) for x in (q, k))
        return torch.einsum("blhk,bmhk->bhlm", *heads)

    torch.testing.assert_close(scores(mz), scores(mz + 101.07917), atol=1e-4, rtol=1e-4)
    assert (scores(mz * 1.01) - scores(mz)).abs().max() > 0.1


def test_a_hidden_peak_is_not_seen():
    model = small_model(embedding_dim=None)
    columns = SpectrumColumns.from_spectra(random_spectra(3, seed=4))
    batch = collate(columns, model.config)
    hidden_mz, hidden_intensity = torch.zeros_like(batch.mask_BL), torch.zeros_like(batch.mask_BL)
    hidden_mz[0, 1], hidden_intensity[1, 1] = True, True
    batch = dataclasses.replace(batch, hidden_mz_BL=hidden_mz, hidden_intensity_BL=hidden_intensity)
    moved_mz, moved_intensity = batch.mz_BL.clone(), batch.intensity_BL.clone()
    moved_mz[0, 1] += 17.0
    moved_intensity[1, 1] = 0.123
    with torch.no_grad():
        before = model(batch)
        after = model(dataclasses.replace(batch, mz_BL=moved_mz, intensity_BL=moved_intensity))
        seen = model(dataclasses.replace(batch, mz_BL=moved_mz, hidden_mz_BL=None))
    torch.testing.assert_close(before, after)
    assert (seen[0] - before[0]).abs().max() > 1e-3


@pytest.mark.parametrize(("mode", "depends"), [("full", True), ("relative", True), ("hidden", False)])
def test_what_the_embedding_knows_of_the_precursor(mode, depends):
    model = small_model(precursor=mode)
    spectra = random_spectra(5)
    moved = [dataclasses.replace(s, precursor_mz=s.precursor_mz + 57.021) for s in spectra]
    difference = np.abs(model.embed(spectra) - model.embed(moved)).max()
    assert (difference > 1e-4) == depends


def test_a_relative_precursor_tells_neutral_losses_only():
    """With the peaks' own m/z features off, all m/z moved together change nothing and a moved precursor does."""
    model = small_model(precursor="relative", rotary_wavelengths=(1.0, 1000.0), initializer_range=0.4)
    with torch.no_grad():
        model.peak_embedding.mz_in.weight.zero_()  # now nothing but attention sees m/z
    spectra = random_spectra(5)
    moved = [dataclasses.replace(s, mz=s.mz + np.float32(32), precursor_mz=s.precursor_mz + 32) for s in spectra]
    lost = [dataclasses.replace(s, precursor_mz=s.precursor_mz + 32) for s in spectra]
    np.testing.assert_allclose(model.embed(moved), model.embed(spectra), atol=1e-4)
    assert np.abs(model.embed(lost) - model.embed(spectra)).max() > 1e-2


def test_unknown_metadata_is_a_value_of_its_own():
    model = small_model(conditioning=("polarity", "collision_energy", "instrument", "adduct"),
                        adducts=("[M+H]+",), instruments=("QTOF",))  # fmt: skip
    known = dataclasses.replace(random_spectra(1)[0], polarity=1, collision_energy=0.0, adduct="[M+H]+",
                                instrument_type="LC-ESI-QTOF")  # fmt: skip
    reference = model.embed([known])
    for name in ("polarity", "collision_energy", "adduct", "instrument_type"):
        unknown = model.embed([dataclasses.replace(known, **{name: None})])
        assert np.abs(unknown - reference).max() > 1e-4, name


def test_attention_of_bf16_training_equals_the_fused_kernel():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 8, requires_grad=True) for _ in range(3))
    mask = (torch.arange(9) < torch.tensor([[5], [9]]))[:, None, None, :]
    expected = attend(q, k, v, mask)
    expected.square().sum().backward()
    gradients = [x.grad.clone() for x in (q, k, v)]
    low = [x.detach().to(torch.bfloat16).requires_grad_() for x in (q, k, v)]
    actual = attend(*low, mask)
    actual.float().square().sum().backward()
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.05)
    for x, gradient in zip(low, gradients, strict=True):
        torch.testing.assert_close(x.grad.float(), gradient, atol=0.1, rtol=0.1)


def test_spectra_without_peaks_and_no_spectra_at_all():
    model = small_model()
    empty = np.empty(0, np.float32)
    vectors = model.embed([Spectrum(spectrum_id="a", precursor_mz=100.0, mz=empty, intensity=empty)])
    assert np.isfinite(vectors).all()
    assert model.embed([]).shape == (0, 16)


def test_a_saved_model_embeds_the_same(tmp_path):
    model, spectra = small_model(), random_spectra(5)
    model.save_pretrained(tmp_path / "m")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
    loaded = ionbed.load_model(tmp_path / "m")
    assert loaded.model_hash() == model.model_hash()
    np.testing.assert_array_equal(loaded.embed(spectra), model.embed(spectra))
    assert isinstance(AutoModel.from_pretrained(tmp_path / "m"), IonbedModel)


def test_the_hash_covers_weights_and_preprocessing():
    reference = small_model().model_hash()
    assert small_model().model_hash() == reference
    assert small_model(max_peaks=10).model_hash() != reference
    changed = small_model()
    with torch.no_grad():
        changed.norm.bias[0] += 1e-6
    assert changed.model_hash() != reference


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden_size": 30}, "multiple of"),
        ({"precursor": "guess"}, "one of full, relative, hidden"),
        ({"conditioning": ("weather",)}, "weather"),
        ({"mz_wavelengths": (5.0, 1.0)}, "the shorter first"),
        ({"rotary_fraction": 2.0}, "between 0 and 1"),
        ({"max_peaks": 0}, "at least one peak"),
    ],
)
def test_impossible_configurations_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        IonbedConfig(**options)


def test_what_is_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(ionbed.InputError, match="is not a model folder"):
        ionbed.load_model(tmp_path / "nothing")
    small_model().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ionbed.InputError, match="cannot be loaded") as caught:
        ionbed.load_model(tmp_path / "m")
    assert "\n" not in str(caught.value)
    small_model().save_pretrained(tmp_path / "m")
    for wrong in ([], {"hidden_size": "x"}, {"training": [1]}, {"mz_wavelengths": None}, {"num_heads": 0}):
        (tmp_path / "m" / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(ionbed.InputError, match="cannot be loaded") as caught:
            ionbed.load_model(tmp_path / "m")
        assert "\n" not in str(caught.value)
    small_model(num_layers=3).save_pretrained(tmp_path / "deep")
    small_model(num_layers=2).save_pretrained(tmp_path / "m")
    (tmp_path / "deep" / "model.safetensors").replace(tmp_path / "m" / "model.safetensors")
    with pytest.raises(ionbed.InputError, match="do not fit"):
        ionbed.load_model(tmp_path / "m")
