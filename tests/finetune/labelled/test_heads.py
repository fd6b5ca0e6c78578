"""Heads and their calibration: against scikit-learn, against what is known of made-up data, and at the borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression, Ridge

from ionbed.finetune.labelled.calibration import (
    Calibration,
    conformal_half_width,
    fit_calibration,
    monotonous_steps,
    probabilities,
)
from ionbed.finetune.labelled.config import HeadConfig
from ionbed.finetune.labelled.linear import PENALTIES, Examples, fit_linear
from ionbed.finetune.labelled.losses import class_weights, loss_of_spectra, vote_weights

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(300, 6)).astype(np.float32) * np.array([3, 1, 1, 1, 1, 0.2], np.float32) + 5
SLOPES = RNG.normal(size=(6, 3)).astype(np.float32)


def examples(truth: np.ndarray, rows: slice, weight: np.ndarray | None = None) -> Examples:
    weight = np.ones(len(truth), np.float32) if weight is None else weight
    return Examples(FEATURES[rows], truth[rows], weight[rows])


def fitted(task: str, truth: np.ndarray, outputs: int, config: HeadConfig | None = None):
    config = config or HeadConfig()
    return fit_linear(task, outputs, examples(truth, slice(200)), examples(truth, slice(200, 300)), config)


def test_a_classification_head_is_that_of_scikit_learn():
    truth = ((FEATURES - 5) @ SLOPES + RNG.gumbel(size=(300, 3))).argmax(axis=1)[:, None].astype(np.float32)
    head = fitted("classification", truth, 3)
    scaled = (FEATURES - head.mean) * head.scale
    peer = LogisticRegression(C=1 / (head.penalty * 200), tol=1e-8, max_iter=1000).fit(scaled[:200], truth[:200, 0])
    assert probabilities("classification", head(FEATURES)) == pytest.approx(peer.predict_proba(scaled), abs=2e-3)
    assert head.penalty == min(head.losses, key=head.losses.get) and len(head.losses) >= 3


def test_a_regression_head_is_that_of_scikit_learn_and_does_not_mind_unknown_numbers():
    truth = (FEATURES @ SLOPES[:, :2] + RNG.normal(size=(300, 2))).astype(np.float32)
    truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
    truth[::3, 1] = np.nan
    head = fitted("regression", truth, 2)
    scaled = (FEATURES - head.mean) * head.scale
    # the loss is a mean over what is known of a spectrum, times the number of outputs: where all is known it is a sum
    peer = Ridge(alpha=head.penalty * 100, tol=1e-8).fit(scaled[:200], truth[:200, 0], 1.0 + (np.arange(200) % 3 == 0))
    assert head(FEATURES)[:, 0] == pytest.approx(peer.predict(scaled), abs=2e-3)
    known = ~np.isnan(truth[200:, 1])
    assert np.corrcoef(head(FEATURES)[200:, 1][known], truth[200:, 1][known])[0, 1] > 0.8


def test_a_head_without_features_knows_how_frequent_answers_are():
    truth = np.repeat([0.0, 1.0, 1.0, 1.0], 75)[RNG.permutation(300), None].astype(np.float32)
    nothing = Examples(np.zeros((300, 0), np.float32), truth, np.ones(300, np.float32))
    head = fit_linear("multi-label", 1, nothing, nothing, HeadConfig())
    assert probabilities("multi-label", head(np.zeros((1, 0), np.float32)))[0, 0] == pytest.approx(0.75, abs=1e-3)
    constant = Examples(np.full((300, 4), 7.0, np.float32), truth, np.ones(300, np.float32))
    head = fit_linear("multi-label", 1, constant, constant, HeadConfig())
    assert probabilities("multi-label", head(np.full((1, 4), 9.0, np.float32)))[0, 0] == pytest.approx(0.75, abs=1e-3)


def test_a_head_does_not_change_when_vectors_are_scaled_and_shifted():
    truth = (FEATURES[:, :1] > 5).astype(np.float32)
    plain = fitted("multi-label", truth, 1)
    other = [Examples(100 * FEATURES[s] - 3, truth[s], np.ones(len(truth[s]), np.float32))
             for s in (slice(200), slice(200, 300))]  # fmt: skip
    moved = fit_linear("multi-label", 1, *other, HeadConfig())
    assert moved.penalty == plain.penalty
    assert moved(100 * FEATURES - 3) == pytest.approx(plain(FEATURES), abs=0.05, rel=0.02)


def test_inverse_frequency_gives_every_answer_the_same_total_weight():
    weight = RNG.uniform(0.5, 2, 300).astype(np.float32)
    weight /= weight.mean()
    label = RNG.choice(3, 300, p=[0.7, 0.2, 0.1])[:, None].astype(np.float32)
    of_class = class_weights("classification", label, weight, 3, HeadConfig(imbalance="inverse-frequency"))[0]
    totals = [float((weight * of_class[label[:, 0].astype(int)])[label[:, 0] == c].sum()) for c in range(3)]
    assert totals == pytest.approx([100, 100, 100], rel=1e-4)
    answers = RNG.choice([0, 1, np.nan], (300, 2), p=[0.6, 0.2, 0.2]).astype(np.float32)
    no_yes = class_weights("multi-label", answers, weight, 2, HeadConfig(imbalance="inverse-frequency"))
    for k in range(2):
        no, yes = ((weight * (answers[:, k] == answer)).sum() * no_yes[answer, k] for answer in (0, 1))
        assert no == pytest.approx(yes, rel=1e-4)
        assert no + yes == pytest.approx((weight * ~np.isnan(answers[:, k])).sum(), rel=1e-4)
    assert (class_weights("multi-label", answers, weight, 2, HeadConfig()) == 1).all()


def test_weights_of_classes_raise_the_recall_of_the_rare_one():
    truth = ((FEATURES[:, :1] - 5) / 3 + RNG.normal(size=(300, 1)) > 1.6).astype(np.float32)
    assert 10 < truth.sum() < 50
    rare = truth[:, 0] == 1
    found = [
        (fitted("classification", truth, 2, HeadConfig(imbalance=kind))(FEATURES).argmax(axis=1) == 1)[rare].mean()
        for kind in ("none", "inverse-frequency")
    ]
    assert found[1] > found[0] + 0.2


@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_focal_loss_by_hand(task):
    logits = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    ones = torch.ones(2, 2)
    if task == "classification":
        truth = torch.tensor([[0.0], [1.0]])
        p = logits.softmax(1)[torch.arange(2), torch.tensor([0, 1])]
        expected = -((1 - p) ** 2) * p.log()
    else:
        truth = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
        p = torch.stack([logits[0, 0].sigmoid(), 1 - logits[0, 1].sigmoid(), logits[1, 1].sigmoid()])
        terms = -((1 - p) ** 2) * p.log()
        expected = torch.stack([terms[:2].mean(), terms[2]])
    assert loss_of_spectra(task, logits, truth, ones, gamma=2.0) == pytest.approx(expected.numpy(), rel=1e-5)
    nothing = torch.full_like(truth, float("nan"))
    assert loss_of_spectra(task, logits, nothing, ones).tolist() == [0.0, 0.0]


def test_votes_of_molecules():
    assert vote_weights(np.array([7, 7, 7, 9]), "molecule") == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert vote_weights(np.array([7, 7, 9]), "spectrum").tolist() == [1, 1, 1]


def overconfident(size: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return scores three times too large and shifted, and answers drawn by what they should be."""
    right = RNG.normal(size=(size, 1)) * 1.5
    answers = (RNG.random((size, 1)) < 1 / (1 + np.exp(-right))).astype(np.float32)
    return (3 * right + 2).astype(np.float32), answers


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_calibration_finds_the_probabilities_that_scores_were_made_of(kind):
    scores, answers = overconfident()
    fit = fit_calibration("multi-label", kind, scores, answers, np.ones(len(scores), np.float32))
    fit = Calibration.from_json(fit.to_json())
    true = probabilities("multi-label", (scores - 2) / 3)
    assert np.abs(fit("multi-label", scores) - true).mean() < (0.02 if kind == "platt" else 0.05)
    assert np.abs(probabilities("multi-label", scores) - true).mean() > 0.15
    if kind == "platt":
        assert (fit.slope[0], fit.bias[0]) == pytest.approx((1 / 3, -2 / 3), abs=0.08)


def test_temperature_of_classes_leaves_their_order_and_platt_also_mends_the_shares():
    logits = RNG.normal(size=(5000, 3)) * 2
    label = np.array([RNG.choice(3, p=p) for p in probabilities("classification", logits)])[:, None].astype(np.float32)
    ones = np.ones(len(label), np.float32)
    cold = fit_calibration("classification", "temperature", (4 * logits).astype(np.float32), label, ones)
    assert cold.slope == pytest.approx([0.25] * 3, rel=0.08) and not cold.bias.any()
    assert (cold("classification", 4 * logits).argmax(1) == logits.argmax(1)).all()
    shifted = (logits + np.array([3, 0, 0])).astype(np.float32)
    platt = fit_calibration("classification", "platt", shifted, label, ones)("classification", shifted)
    only_cold = fit_calibration("classification", "temperature", shifted, label, ones)("classification", shifted)
    shares = np.bincount(label[:, 0].astype(int)) / len(label)
    assert platt.mean(axis=0) == pytest.approx(shares, abs=0.02)
    assert np.abs(only_cold.mean(axis=0) - shares).max() > 0.05
    isotonic = fit_calibration("classification", "isotonic", shifted, label, ones)("classification", shifted)
    assert isotonic.sum(axis=1) == pytest.approx(np.ones(5000)) and isotonic.mean(axis=0) == pytest.approx(
        shares, abs=0.05
    )


def test_few_molecules_change_little():
    scores = np.array([[4.0], [-4.0]], np.float32)
    right = np.array([[1.0], [0.0]], np.float32)
    fit = fit_calibration("multi-label", "platt", scores, right, np.ones(2, np.float32))
    assert 0.5 < fit.slope[0] < 3 and abs(fit.bias[0]) < 0.1  # without a prior it would grow for ever
    steps = fit_calibration("multi-label", "isotonic", scores, right, np.ones(2, np.float32))("multi-label", scores)
    assert 0.2 < steps[1, 0] < steps[0, 0] < 0.8


def test_monotonous_steps_are_those_of_scikit_learn_but_for_the_pull_to_the_middle():
    score = np.round(RNG.random(400), 2)
    answer = (RNG.random(400) < score**2).astype(float)
    weight = RNG.uniform(500, 2000, 400)  # many votes: the pull is nothing
    x, y = monotonous_steps(score, answer, weight)
    peer = IsotonicRegression().fit(score, answer, weight).predict(np.unique(score))
    assert np.interp(np.unique(score), x, y) == pytest.approx(peer, abs=2e-3)
    assert (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
    assert monotonous_steps(np.empty(0), np.empty(0), np.empty(0)) == ([0.0, 1.0], [0.0, 1.0])


def test_a_narrow_first_step_does_not_lift_the_others():
    """The lowest two of 300 scores are of no, the third is of yes: of which there are nine in all."""
    answer = np.zeros(300)
    answer[[2, *range(299, 291, -1)]] = 1
    x, y = monotonous_steps(np.linspace(0, 1, 300), answer, np.ones(300))
    stated = np.interp(np.linspace(0, 1, 300), x, y)
    assert stated.mean() == pytest.approx(answer.mean(), abs=0.01) and (np.diff(y) >= 0).all()
    assert stated[150] < 0.01 and stated[-1] > 0.9


def test_ranges_hold_the_share_of_numbers_that_they_promise():
    predicted = np.zeros((2000, 1))
    truth = RNG.standard_t(4, (2000, 1))
    width = conformal_half_width(truth[:1000], predicted[:1000], np.ones(1000), 0.9)
    assert (np.abs(truth[1000:]) <= width).mean() == pytest.approx(0.9, abs=0.03)
    assert np.isinf(conformal_half_width(truth[:8], predicted[:8], np.ones(8), 0.9)).all()  # 8 cannot promise 90%
    assert np.isfinite(conformal_half_width(truth[:9], predicted[:9], np.ones(9), 0.9)).all()
    holes = np.where(np.arange(1000)[:, None] % 2 == 0, np.nan, truth[:1000])
    assert np.isfinite(conformal_half_width(holes, predicted[:1000], np.ones(1000), 0.9)).all()


def test_penalties_fall():
    assert list(PENALTIES) == sorted(PENALTIES, reverse=True)
