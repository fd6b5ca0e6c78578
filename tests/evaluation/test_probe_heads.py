"""Linear heads and their metrics against scikit-learn, which knows nothing of how they are computed here."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score, r2_score, roc_auc_score

from ionbed.errors import InputError
from ionbed.evaluation.probe.heads import LOGISTIC_PENALTIES, RIDGE_PENALTIES, Design, Rows, logistic, ridge
from ionbed.evaluation.probe.scores import ProbeJudge
from ionbed.evaluation.probe.targets import ACCURACY, MACRO_F1, R2, ROC_AUC, Target
from ionbed.evaluation.statistics import molecule_weights

NUM_MOLECULES, NUM_FEATURES, NUM_CLASSES = 240, 6, 3


@pytest.fixture
def made() -> SimpleNamespace:
    """Molecules measured one to nine times, in three folds; numbers and classes that the features tell in part."""
    rng = np.random.default_rng(3)
    molecule = np.repeat(np.arange(NUM_MOLECULES), rng.integers(1, 10, NUM_MOLECULES))
    centre = rng.standard_normal((NUM_MOLECULES, NUM_FEATURES)) * [3.0, 1.0, 1.0, 0.3, 0.1, 0.01]
    features = (centre[molecule] + rng.standard_normal((len(molecule), NUM_FEATURES)) * 0.3 + 5.0).astype(np.float32)
    numbers = centre @ rng.standard_normal((NUM_FEATURES, 2)) + rng.standard_normal((NUM_MOLECULES, 2)) + [10.0, -3.0]
    classes = (centre @ rng.standard_normal((NUM_FEATURES, NUM_CLASSES)) + rng.gumbel(size=(NUM_MOLECULES, 3))).argmax(
        1
    )
    classes[::17] = -1
    folds = [molecule < 160, (molecule >= 160) & (molecule < 200), molecule >= 200]
    return SimpleNamespace(
        molecule=molecule, features=features, numbers=numbers, classes=classes.astype(np.int64), folds=folds, rng=rng
    )


def design_of(made: SimpleNamespace, features: np.ndarray | None = None) -> Design:
    features = made.features if features is None else features
    return Design(*(Rows(features[rows], made.molecule[rows]) for rows in made.folds))


def scaled(made: SimpleNamespace, weight: np.ndarray) -> np.ndarray:
    """The features as the heads see them: centred, mean variance 1, over training molecules of equal weight."""
    train = made.features[made.folds[0]].astype(np.float64)
    mean = np.average(train, axis=0, weights=weight)
    variance = np.average(np.square(train - mean), axis=0, weights=weight)
    return (made.features - mean) / np.sqrt(variance.mean())


def weights_of(molecule: np.ndarray) -> np.ndarray:
    weight = 1.0 / np.bincount(molecule)[molecule]
    return weight / weight.sum()


def test_ridge_is_that_of_scikit_learn(made) -> None:
    train, validation, test = made.folds
    weight = weights_of(made.molecule[train])
    features = scaled(made, weight)
    truth = made.numbers
    spread = truth[:160].std(axis=0)
    found = ridge(design_of(made), truth)
    losses = {}
    for penalty in RIDGE_PENALTIES:
        judge = Ridge(alpha=penalty).fit(features[train], (truth / spread)[made.molecule[train]], weight)
        errors = np.square(judge.predict(features[validation]) - (truth / spread)[made.molecule[validation]]).mean(1)
        losses[penalty] = np.average(errors, weights=weights_of(made.molecule[validation]))
        if penalty == found.penalty:
            np.testing.assert_allclose(found.values, judge.predict(features[test]) * spread, rtol=1e-4, atol=1e-3)
    assert found.penalty == min(losses, key=losses.get)
    assert found.losses == pytest.approx(losses, rel=1e-4)


def test_logistic_regression_is_that_of_scikit_learn(made) -> None:
    train, _, test = made.folds
    weight = weights_of(made.molecule[train])
    features = scaled(made, weight)
    known = train & (made.classes[made.molecule] >= 0)
    found = logistic(design_of(made), made.classes, NUM_CLASSES)
    judge = LogisticRegression(C=1 / found.penalty, tol=1e-10, max_iter=5000)
    judge.fit(features[known], made.classes[made.molecule[known]], weights_of(made.molecule[known]))
    logits = found.values - found.values.mean(axis=1, keepdims=True)
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(odds, judge.predict_proba(features[test]), atol=5e-3)
    assert found.penalty in LOGISTIC_PENALTIES[1:-1]  # neither end, or the choice would say nothing
    assert found.penalty == min(found.losses, key=found.losses.get)


@pytest.mark.parametrize("head", [lambda d, m: ridge(d, m.numbers), lambda d, m: logistic(d, m.classes, NUM_CLASSES)])
def test_a_head_is_never_told_the_truth_of_what_it_is_asked(made, head) -> None:
    before = head(design_of(made), made).values
    other = SimpleNamespace(numbers=made.numbers.copy(), classes=made.classes.copy())
    other.numbers[200:], other.classes[200:] = 99.0, (made.classes[200:] + 1) % NUM_CLASSES
    np.testing.assert_array_equal(head(design_of(made), other).values, before)


@pytest.mark.parametrize("head", [lambda d, m: ridge(d, m.numbers), lambda d, m: logistic(d, m.classes, NUM_CLASSES)])
def test_a_head_does_not_change_when_the_embedding_is_turned_scaled_and_shifted(made, head) -> None:
    turn, _ = np.linalg.qr(made.rng.standard_normal((NUM_FEATURES, NUM_FEATURES)))
    other = ((made.features @ turn) * 0.02 + 1.0).astype(np.float32)
    first, second = head(design_of(made), made), head(design_of(made, other), made)
    assert first.penalty == second.penalty
    np.testing.assert_allclose(first.values, second.values, atol=2e-2)


def test_a_molecule_counts_the_same_however_often_it_was_measured(made) -> None:
    train = np.flatnonzero(made.folds[0])
    repeated = np.sort(np.concatenate([train, np.repeat(train[made.molecule[train] == made.molecule[train[0]]], 50)]))
    others = [Rows(made.features[rows], made.molecule[rows]) for rows in made.folds[1:]]
    once, often = (
        ridge(Design(Rows(made.features[rows], made.molecule[rows]), *others), made.numbers).values
        for rows in (train, repeated)
    )
    np.testing.assert_allclose(once, often, atol=1e-3)


def test_without_features_a_head_knows_how_frequent_each_answer_is(made) -> None:
    for features in (np.zeros((len(made.molecule), 0), np.float32), np.full((len(made.molecule), 4), 0.3, np.float32)):
        design = design_of(made, features)
        logits = logistic(design, made.classes, NUM_CLASSES).values
        frequency = np.bincount(made.classes[:160][made.classes[:160] >= 0]) / np.sum(made.classes[:160] >= 0)
        np.testing.assert_allclose(np.exp(logits[0] - np.logaddexp.reduce(logits[0])), frequency, atol=2e-3)
        assert np.ptp(logits, axis=0).max() == 0
        np.testing.assert_allclose(ridge(design, made.numbers).values[0], made.numbers[:160].mean(axis=0), rtol=1e-6)


def test_classes_that_no_penalty_can_be_chosen_by_are_refused(made) -> None:
    classes = made.classes.copy()
    classes[160:200] = -1
    with pytest.raises(InputError, match="fold 'validation'"):
        logistic(design_of(made), classes, NUM_CLASSES)


def target(kind: str, truth: np.ndarray) -> Target:
    count = int(truth.max()) + 1 if truth.ndim == 1 else truth.shape[1]
    return Target("made up", kind, tuple(f"label {i}" for i in range(count)), truth, {})


def judged_by_hand(made: SimpleNamespace, resamples: int, seed: int, known: np.ndarray):
    """Yield the weight of every spectrum of the test fold: as they are, then in each resample of molecules."""
    molecule = made.molecule[made.folds[2]][known]
    numbers, place = np.unique(molecule, return_inverse=True)
    of_spectrum = 1.0 / np.bincount(place)[place]
    yield of_spectrum
    for row in molecule_weights(len(numbers), resamples=resamples, seed=seed):
        yield of_spectrum * row[place]


def test_roc_auc_is_that_of_scikit_learn_in_every_resample_and_ties_count_half(made) -> None:
    truth = (made.numbers > np.median(made.numbers, axis=0)).astype(np.float64)
    molecule = made.molecule[made.folds[2]]
    scores = np.round(made.features[made.folds[2]][:, :2] / 2).astype(np.float32)  # many ties
    scored = ProbeJudge(target("bits", truth), molecule, resamples=100, seed=5)(scores)
    of_bits = []
    for bit in range(2):
        by_hand = [
            roc_auc_score(truth[molecule, bit], scores[:, bit], sample_weight=weight)
            for weight in judged_by_hand(made, 100, 5, np.ones(len(molecule), bool))
        ]
        of_bits.append(by_hand)
        measured = scored.of_label[f"label {bit}"]
        np.testing.assert_allclose([measured.value, *measured.resampled], by_hand, atol=1e-5)
    whole = scored.metrics[ROC_AUC]
    np.testing.assert_allclose([whole.value, *whole.resampled], np.mean(of_bits, axis=0), atol=1e-5)
    assert whole.num_molecules == 40


def test_macro_f1_and_accuracy_are_those_of_scikit_learn_in_every_resample(made) -> None:
    molecule = made.molecule[made.folds[2]]
    known = made.classes[molecule] >= 0
    logits = made.rng.standard_normal((len(molecule), NUM_CLASSES)).astype(np.float32)
    logits[np.arange(len(molecule)), np.maximum(made.classes[molecule], 0)] += 0.7
    scored = ProbeJudge(target("classes", made.classes), molecule, resamples=100, seed=5)(logits)
    truth, predicted = made.classes[molecule][known], logits[known].argmax(axis=1)
    for metric, judge in (
        (MACRO_F1, lambda weight: f1_score(truth, predicted, average="macro", sample_weight=weight)),
        (ACCURACY, lambda weight: accuracy_score(truth, predicted, sample_weight=weight)),
    ):
        by_hand = [judge(weight) for weight in judged_by_hand(made, 100, 5, known)]
        measured = scored.metrics[metric]
        np.testing.assert_allclose([measured.value, *measured.resampled], by_hand, atol=1e-6)
    assert scored.metrics[ACCURACY].num_molecules == len(np.unique(molecule[known])) < 40


def test_a_class_without_a_molecule_in_a_resample_has_no_f1_there(made) -> None:
    classes = np.zeros(NUM_MOLECULES, np.int64)
    classes[-1] = 1  # one molecule: about a third of the resamples lack it
    molecule = made.molecule[made.folds[2]]
    logits = np.eye(2, dtype=np.float32)[classes[molecule]]
    scored = ProbeJudge(target("classes", classes), molecule, resamples=100, seed=5)(logits)
    lacking = np.isnan(scored.of_label["label 1"].resampled)
    assert 20 < lacking.sum() < 55
    np.testing.assert_array_equal(scored.metrics[MACRO_F1].resampled, 1.0)


def test_r2_is_that_of_scikit_learn_in_every_resample(made) -> None:
    molecule = made.molecule[made.folds[2]]
    predicted = (made.numbers[molecule] + made.rng.standard_normal((len(molecule), 2))).astype(np.float32)
    scored = ProbeJudge(target("numbers", made.numbers), molecule, resamples=100, seed=5)(predicted)
    every = np.ones(len(molecule), bool)
    for number in range(2):
        by_hand = [
            r2_score(made.numbers[molecule, number], predicted[:, number], sample_weight=weight)
            for weight in judged_by_hand(made, 100, 5, every)
        ]
        measured = scored.of_label[f"label {number}"]
        np.testing.assert_allclose([measured.value, *measured.resampled], by_hand, atol=1e-5)
    assert scored.metrics[R2].value == pytest.approx(np.mean([m.value for m in scored.of_label.values()]))


def test_the_order_of_the_spectra_does_not_matter(made) -> None:
    molecule = made.molecule[made.folds[2]]
    order = made.rng.permutation(len(molecule))
    scores = made.features[made.folds[2]][:, :2]
    truth = target("bits", (made.numbers > np.median(made.numbers, axis=0)).astype(np.float64))
    one, other = (
        ProbeJudge(truth, molecule[rows], resamples=100, seed=5)(scores[rows]).metrics[ROC_AUC]
        for rows in (np.arange(len(molecule)), order)
    )
    assert one.value == pytest.approx(other.value)
    np.testing.assert_allclose(one.resampled, other.resampled, atol=1e-6)
