"""Metrics of predicted labels: against scikit-learn, with votes of molecules, unknown labels and resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

from ionbed.evaluation.labelled.metrics import (
    ACCURACY,
    AVERAGE_PRECISION,
    BRIER,
    FEWEST_RESAMPLES,
    LOG_LOSS,
    MACRO_F1,
    MAE,
    R2,
    ROC_AUC,
    LabelJudge,
    metrics_of,
    reliability,
)
from ionbed.finetune.labelled.losses import vote_weights

RNG = np.random.default_rng(0)
MOLECULE = np.repeat(np.arange(60), RNG.integers(1, 6, 60))
N = len(MOLECULE)
VOTE = vote_weights(MOLECULE, "molecule")


def judge(task, names, truth, resamples=200):
    return LabelJudge(task, names, truth.astype(np.float32), MOLECULE, VOTE, resamples=resamples, seed=0)


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def test_metrics_of_two_classes_are_those_of_scikit_learn_with_votes():
    truth = RNG.integers(0, 2, N)
    values = softmax(RNG.normal(size=(N, 2)) + np.eye(2)[truth])
    found = judge("classification", ("no", "yes"), truth[:, None])(values).metrics
    assert tuple(found) == metrics_of("classification", 2)
    yes = values[:, 1].round(6)
    assert found[ROC_AUC].value == pytest.approx(peer.roc_auc_score(truth, yes, sample_weight=VOTE))
    assert found[AVERAGE_PRECISION].value == pytest.approx(peer.average_precision_score(truth, yes, sample_weight=VOTE))
    assert found[ACCURACY].value == pytest.approx(peer.accuracy_score(truth, values.argmax(1), sample_weight=VOTE))
    assert found[BRIER].value == pytest.approx(2 * peer.brier_score_loss(truth, values[:, 1], sample_weight=VOTE))
    assert found[LOG_LOSS].value == pytest.approx(peer.log_loss(truth, values, sample_weight=VOTE))
    plain = LabelJudge("classification", ("no", "yes"), truth[:, None].astype(np.float32), MOLECULE,
                       np.ones(N), resamples=100, seed=0)(values).metrics  # fmt: skip
    assert plain[ACCURACY].value == pytest.approx((values.argmax(1) == truth).mean()) != found[ACCURACY].value


def test_metrics_of_several_classes_are_those_of_scikit_learn():
    truth = RNG.choice(4, N, p=[0.5, 0.3, 0.1, 0.1])
    values = softmax(RNG.normal(size=(N, 4)) + np.eye(4)[truth])
    scored = judge("classification", tuple("abcd"), truth[:, None])(values)
    assert tuple(scored.metrics) == metrics_of("classification", 4)
    each = peer.f1_score(truth, values.argmax(1), average=None, sample_weight=VOTE)
    assert [scored.of_label[name].value for name in "abcd"] == pytest.approx(each.tolist())
    assert scored.metrics[MACRO_F1].value == pytest.approx(each.mean())


def test_metrics_of_labels_leave_out_what_is_unknown_or_has_one_answer():
    truth = RNG.choice([0.0, 1.0, np.nan], (N, 3), p=[0.5, 0.3, 0.2])
    truth[:, 2] = np.where(np.isnan(truth[:, 2]), np.nan, 1.0)
    values = RNG.random((N, 3))
    scored = judge("multi-label", ("a", "b", "one answer"), truth)(values)
    assert list(scored.of_label) == ["a", "b"]
    for k, name in enumerate("ab"):
        known = ~np.isnan(truth[:, k])
        auc = peer.roc_auc_score(truth[known, k], values[known, k].round(6), sample_weight=VOTE[known])
        assert scored.of_label[name].value == pytest.approx(auc)
    assert scored.metrics[ROC_AUC].value == pytest.approx(np.mean([scored.of_label[n].value for n in "ab"]))


def test_metrics_of_labels_none_of_which_can_be_asked():
    scored = judge("multi-label", ("a",), np.ones((N, 1)))(RNG.random((N, 1)))
    assert np.isnan(scored.metrics[ROC_AUC].value) and np.isnan(scored.metrics[ROC_AUC].resampled).all()
    assert scored.metrics[BRIER].value > 0 and not scored.of_label


def test_metrics_of_numbers_are_those_of_scikit_learn():
    truth = RNG.normal(size=(N, 2)) * [1, 100] + [3, -50]
    values = truth + RNG.normal(size=(N, 2)) * [0.5, 80]
    truth[::4, 1] = np.nan
    scored = judge("regression", ("x", "y"), truth)(values)
    truth = truth.astype(np.float32)
    for k, name in enumerate("xy"):
        known = ~np.isnan(truth[:, k])
        expected = peer.r2_score(truth[known, k], values[known, k], sample_weight=VOTE[known])
        assert scored.of_label[name].value == pytest.approx(expected, rel=1e-4)
    assert MAE not in scored.metrics  # of two units
    alone = judge("regression", ("x",), truth[:, :1])(values[:, :1]).metrics
    assert alone[MAE].value == pytest.approx(
        peer.mean_absolute_error(truth[:, 0], values[:, 0], sample_weight=VOTE), rel=1e-4
    )
    assert alone[R2].value == scored.of_label["x"].value


def test_resamples_are_of_molecules():
    """Of every molecule all spectra are drawn together: an interval over spectra would be far too narrow."""
    truth = RNG.integers(0, 2, 60)[MOLECULE]
    right = RNG.random(60)[MOLECULE] < 0.7  # all spectra of a molecule, or none
    values = np.eye(2)[np.where(right, truth, 1 - truth)]
    found = judge("classification", ("no", "yes"), truth[:, None], 2000)(values).metrics[ACCURACY]
    of_molecules = np.array([right[m == MOLECULE][0] for m in range(60)])
    assert found.value == pytest.approx(of_molecules.mean())
    assert np.std(found.resampled) == pytest.approx(np.std(of_molecules) / np.sqrt(60), rel=0.1)
    assert found.num_molecules == 60


def test_many_labels_have_fewer_resamples():
    truth = RNG.integers(0, 2, (N, 40)).astype(float)
    scored = judge("multi-label", tuple(map(str, range(40))), truth, 1000)(RNG.random((N, 40)))
    assert len(scored.metrics[ROC_AUC].resampled) == 400 >= FEWEST_RESAMPLES


def test_reliability_of_right_and_of_wrong_probabilities():
    stated = RNG.random(20_000)
    values = np.stack([1 - stated, stated], axis=1)
    ones = np.ones(len(stated))
    honest = (RNG.random(len(stated)) < stated).astype(np.float32)[:, None]
    assert reliability("classification", values, honest, ones)["error"] < 0.02
    timid = (RNG.random(len(stated)) < np.where(stated > 0.5, 1.0, 0.0)).astype(np.float32)[:, None]
    found = reliability("multi-label", stated[:, None], timid, ones)
    assert found["error"] == pytest.approx(0.25, abs=0.02)
    assert len(found["confidence"]) == 10 and found["share"][0] == 0 and found["share"][-1] == 1
    three = np.tile([0.5, 0.3, 0.2], (300, 1))
    label = np.repeat([0.0, 1.0, 2.0], 100)[:, None].astype(np.float32)
    assert reliability("classification", three, label, np.ones(300))["error"] == pytest.approx(0.5 - 1 / 3, abs=0.34)
    half = reliability("multi-label", np.array([[0.9], [0.9]]), np.array([[1.0], [np.nan]]), np.ones(2))
    assert half["error"] == pytest.approx(0.1)
