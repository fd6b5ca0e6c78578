"""The heads of masked-peak modelling: bins or a value, with and without intensity; what they predict and learn."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ionbed.configs.loading import load_config
from ionbed.encoder.collator import EncoderBatch
from ionbed.encoder.configuration_ionbed import IonbedConfig
from ionbed.encoder.modeling_ionbed import IonbedModel
from ionbed.errors import InputError
from ionbed.pretrain.config import MaskingConfig, PretrainConfig
from ionbed.pretrain.masking import masked_batch
from ionbed.pretrain.objective import MaskedPeakObjective, MzBins
from ionbed.pretrain.run import pretrain
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.spectrum import Spectrum

ENCODER = IonbedConfig(hidden_size=32, num_layers=1, num_heads=2, num_mz_wavelengths=32)
VARIANTS = (
    MaskingConfig(),
    MaskingConfig(mz_target="regression"),
    MaskingConfig(hide_intensity_share=0.0),
    MaskingConfig(mz_target="regression", hide_intensity_share=0.0),
    MaskingConfig(intensity_weight=0.0),
)


def masked(masking: MaskingConfig, count: int = 32) -> EncoderBatch:
    """Spectra of two peaks, whose first lies 50 Da under the second."""
    rng = np.random.default_rng(0)
    spectra = []
    for i in range(count):
        second = rng.uniform(150, 400)
        mz = np.array([second - 50, second], np.float32)
        spectra.append(Spectrum(spectrum_id=str(i), precursor_mz=second + 20, mz=mz,
                                intensity=np.array([0.3, 1.0], np.float32)))  # fmt: skip
    return masked_batch(SpectrumColumns.from_spectra(spectra), np.arange(count), ENCODER, masking, 0, 0)


def objective_for(masking: MaskingConfig) -> MaskedPeakObjective:
    torch.manual_seed(0)
    return MaskedPeakObjective(IonbedModel(ENCODER), masking)


def mean_loss(objective: MaskedPeakObjective, batch: EncoderBatch) -> torch.Tensor:
    terms, counts, weights = objective(batch), objective.counts(batch), objective.weights
    assert terms.keys() == counts.keys() == weights.keys()
    return sum(weights[name] * terms[name] / max(counts[name], 1) for name in terms)


@pytest.mark.parametrize("masking", VARIANTS)
def test_every_parameter_has_a_gradient_that_is_a_number(masking):
    """Also where a batch hides no intensity: a process of several would wait for a gradient that does not come."""
    objective = objective_for(masking)
    for batch in (masked(masking), masked(masking, count=1)):
        objective.zero_grad()
        mean_loss(objective, batch).backward()
        for name, parameter in objective.named_parameters():
            if not name.startswith("encoder.projection"):
                assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert ("intensity" in objective.weights) == (masking.hide_intensity_share > 0)
    assert ("mz_bin" in objective.weights) == (masking.mz_target == "bins")


@pytest.mark.parametrize(("target", "steps", "within"), [("bins", 60, 0.5), ("regression", 150, 20.0)])
def test_a_masked_peak_is_learned_and_predicted(target, steps, within):
    masking = MaskingConfig(mz_target=target, hide_intensity_share=0.0, share=0.5, max_mz=500, metadata_dropout=0)
    objective, batch = objective_for(masking), masked(masking)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    true_mz = batch.mz_BL[batch.hidden_mz_BL]
    before = (objective.predict_mz(batch) - true_mz).abs().median()
    for _ in range(steps):
        optimizer.zero_grad()
        mean_loss(objective, batch).backward()
        optimizer.step()
    error = (objective.predict_mz(batch) - true_mz).abs().median()
    assert before > 60 and error < within


def test_the_regression_is_an_absolute_error_in_hundreds_of_da():
    objective, batch = objective_for(VARIANTS[1]), masked(VARIANTS[1])
    with torch.no_grad():
        error = (objective.predict_mz(batch) - batch.mz_BL[batch.hidden_mz_BL]).abs().sum() / 100
        assert float(objective(batch)["mz_value"]) == pytest.approx(float(error), rel=1e-5)


@given(st.floats(1.0, 999.99))
def test_a_prediction_undoes_the_targets(mz):
    """A head that is sure of the true block, bin and offset predicts the m/z that they were made of."""
    head = MzBins(4, MaskingConfig(), 0.02)
    block, bin_, offset = head.targets(torch.tensor([mz], dtype=torch.float64))
    with torch.no_grad():
        for layer in (head.block_out, head.bin_out, head.offset_out):
            layer.weight.zero_()
        head.block_out.bias[block], head.bin_out.bias[bin_] = 10.0, 10.0
        head.offset_out.bias.copy_(offset)
        assert head.predict(torch.zeros(1, 4)).item() == pytest.approx(mz, abs=1e-5)


@pytest.mark.parametrize("masking", VARIANTS[:2])
def test_a_hidden_mz_decides_no_prediction(masking):
    objective, batch = objective_for(masking), masked(masking)
    moved = dataclasses.replace(batch, mz_BL=torch.where(batch.hidden_mz_BL, batch.mz_BL + 33.3, batch.mz_BL))
    torch.testing.assert_close(objective.predict_mz(moved), objective.predict_mz(batch), atol=0, rtol=0)


@pytest.mark.parametrize(
    "changes", [("masking.mz_target=regression", "model.pairwise_bias=4"), ("masking.hide_intensity_share=0",)]
)
def test_a_run_of_a_variant_logs_its_terms(changes, store, split, tmp_path):
    sets = ["model.hidden_size=32", "model.num_layers=1", "model.num_heads=4", "model.num_mz_wavelengths=8",
            "training.steps=4", "training.batch_tokens=400", "training.warmup_steps=1", "training.log_every=1",
            "training.validate_every=2", "training.checkpoint_every=4", "training.threads=1"]  # fmt: skip
    output = tmp_path / "run"
    sets += [f"data.store={store}", f"data.split={split}", f"output={output}", *changes]
    pretrain(load_config(PretrainConfig, "pretrain-tiny", sets))
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    expected = {"mz_value", "intensity"} if len(changes) == 2 else {"mz_bin", "mz_offset"}
    terms = {"mz_value", "mz_bin", "mz_offset", "intensity"}
    for entry in log:
        prefix = "" if "loss" in entry else "validation_"
        assert {name for name in terms if prefix + name in entry} == expected
        assert np.isfinite(entry[prefix + "loss"])


def test_an_unknown_target_is_refused():
    with pytest.raises(InputError, match=r"masking\.mz_target.*bins.*regression"):
        load_config(PretrainConfig, "pretrain-tiny", ["masking.mz_target=guess"])
