"""The networks trained as baselines: what they see and learn, that nothing leaks, and that trainings are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ionbed.errors import InputError
from ionbed.evaluation.baselines import fingerprint_networks, networks
from ionbed.evaluation.baselines.fingerprint_networks import DeepSets, FeedForward, predict_fingerprints, train_network
from ionbed.evaluation.baselines.networks import (
    FingerprintScorer,
    TrainedBaselineOptions,
    trained_entries,
    training_spectra,
)
from ionbed.evaluation.candidates import Candidates
from ionbed.evaluation.dataset import EvaluationData
from ionbed.spectra.columns import SpectrumColumns

BITS = 64
SMALL = TrainedBaselineOptions(
    trainings=1, max_epochs=6, hidden_size=32, batch_size=16, dropout=0.0, num_wavelengths=16, workers=1
)


def candidates_of(data: EvaluationData, fingerprint: np.ndarray) -> Candidates:
    number = len(fingerprint)
    return Candidates(
        block=np.array([f"M{i}" for i in range(number)], object),
        smiles=np.array(["C"] * number, object),
        exact_mass=np.full(number, 100.0),
        formula=np.array(["CH4"] * number, object),
        source=np.zeros(number, np.int64),
        place=np.arange(number),
        fingerprint=fingerprint,
        source_names=("store",),
    )


@pytest.fixture
def data(build: SimpleNamespace, make_data: Callable[..., EvaluationData]) -> EvaluationData:
    """Substructures leave peaks: bit b of a molecule's fingerprint is a peak at m/z 50 + 10 b. 80 molecules."""
    rng = np.random.default_rng(0)
    spectra, folds = [], {}
    for molecule in range(80):
        bits = np.sort(rng.choice(BITS, 8, replace=False))
        for number in range(4):
            mz = 50.0 + 10.0 * bits + rng.normal(0, 0.001, 8) + 0.4
            intensity = rng.uniform(0.3, 1.0, 8)
            spectra.append(
                build.spectrum(molecule, number, precursor_mz=800.0, mz=mz, intensity=intensity / intensity.max())
            )
        folds[molecule] = ("train", "train", "train", "validation", "test")[molecule % 5]
    return make_data(spectra, folds)


@pytest.fixture
def molecules(data: EvaluationData) -> Candidates:
    bits = np.zeros((len(data.inchikey_block), BITS), np.uint8)
    for row, molecule in enumerate(data.molecule):
        span = slice(data.columns.offsets[row], data.columns.offsets[row + 1])
        bits[molecule, np.round((data.columns.mz[span] - 50.4) / 10).astype(int)] = 1
    return candidates_of(data, np.packbits(bits, axis=1))


def entries_of(
    data: EvaluationData,
    molecules: Candidates,
    options: TrainedBaselineOptions = SMALL,
    *,
    fold: str = "test",
    seed: int = 0,
    cache: Path | None = None,
) -> list:
    return trained_entries(data, molecules, options, fold=fold, split_hash="a" * 64, seed=seed, cache=cache)


def columns_of(mz: list[list[float]], intensity: list[list[float]], precursor_mz: float = 300.0) -> SpectrumColumns:
    count = len(mz)
    return SpectrumColumns(
        offsets=np.concatenate([[0], np.cumsum([len(peaks) for peaks in mz])]).astype(np.int64),
        mz=np.concatenate([np.array(peaks, np.float32) for peaks in mz]),
        intensity=np.concatenate([np.array(values, np.float32) for values in intensity]),
        precursor_mz=np.full(count, precursor_mz),
        polarity=np.ones(count, np.int8),
        charge=np.ones(count, np.int8),
        collision_energy=np.full(count, np.nan, np.float32),
        adduct=np.array([None] * count, object),
        instrument_type=np.array([None] * count, object),
    )


class _Recorded(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x


def test_bins_hold_the_intensities_of_one_dalton_relative_to_the_highest() -> None:
    network = FeedForward(TrainedBaselineOptions(max_mz=200.0), BITS)
    network.layers = recorded = _Recorded()
    network(columns_of([[100.1, 100.9, 150.0, 200.0], []], [[0.3, 0.5, 1.0, 0.7], []]))
    assert recorded.seen.shape == (2, 200)
    assert np.flatnonzero(recorded.seen[0]).tolist() == [100, 150]  # 200.0 lies above the last bin
    np.testing.assert_allclose(recorded.seen[0, [100, 150]], [0.8, 1.0], rtol=1e-6)
    assert not recorded.seen[1].any()
    network(columns_of([[100.1, 100.9, 150.0]], [[0.9, 0.9, 1.0]]))
    np.testing.assert_allclose(recorded.seen[0, [100, 150]], [1.0, 1 / 1.8], rtol=1e-6)


def test_deep_sets_see_a_set_without_padding_and_the_precursor() -> None:
    torch.manual_seed(0)
    network = DeepSets(SMALL, BITS).eval()
    with torch.inference_mode():
        alone = network(columns_of([[100.0, 150.0]], [[0.5, 1.0]]))
        among = network(columns_of([[100.0, 150.0], [80.0, 90.0, 95.0]], [[0.5, 1.0], [0.1, 1.0, 0.2]]))
        turned = network(columns_of([[150.0, 100.0]], [[1.0, 0.5]]))
        heavier = network(columns_of([[100.0, 150.0]], [[0.5, 1.0]], precursor_mz=301.0))
    torch.testing.assert_close(among[:1], alone)
    torch.testing.assert_close(turned, alone)
    assert (heavier - alone).abs().max() > 1e-4


def test_phases_of_the_finest_wavelength_are_those_of_exact_arithmetic() -> None:
    # 1,000.0003 Da is 1,000,000.3 turns of a wavelength of 0.001 Da: in float32 no digit of the phase is left.
    network = DeepSets(replace(SMALL, num_wavelengths=2), BITS)
    network.of_peak = recorded = _Recorded()
    network.of_set = torch.nn.Linear(5, BITS)
    network(columns_of([[]], [[]], precursor_mz=1000.0003))
    np.testing.assert_allclose(recorded.seen[0, [0, 2]], [np.cos(0.6 * np.pi), np.sin(0.6 * np.pi)], atol=1e-5)


@pytest.mark.parametrize("name", ["feed-forward", "deep sets"])
def test_a_network_learns_what_peaks_tell(name: str, data: EvaluationData, molecules: Candidates) -> None:
    options = replace(SMALL, max_epochs=30, patience=30, learning_rate=5e-3, hidden_size=64)
    spectra, _ = training_spectra(data, molecules, fold="test", seed=0)
    training = train_network(name, spectra, options, (0, 0))
    assert training.best < 0.95 * training.losses[0][1]
    rows = data.rows_in("test")
    predicted = predict_fingerprints(name, training.weights, data.columns.take(rows), options, BITS)
    truth = np.unpackbits(molecules.fingerprint, axis=1)[data.molecule[rows]] > 0
    assert predicted[truth].mean() > 2 * predicted[~truth].mean()
    np.testing.assert_allclose(np.linalg.norm(predicted.astype(float), axis=1), 1, atol=2e-3)


def test_scores_are_cosines_of_predicted_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.random((4, BITS))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    fingerprint = rng.random((3, BITS)) < 0.3
    fingerprint[1] = False
    scorer = FingerprintScorer("x", np.array([2, 5, 6, 9]), unit, np.packbits(fingerprint, axis=1))
    precise = unit.astype(float)
    monkeypatch.setattr(networks, "SPECTRA_PER_CHUNK", 2)
    for library in ([9, 2, 2], [6], []):
        places = np.searchsorted([2, 5, 6, 9], np.array(library, np.int64))
        expected = precise[[1, 3]] @ precise[places].T
        np.testing.assert_allclose(scorer.scores(np.array([5, 9]), np.array(library, np.int64)), expected, rtol=1e-5)
    first, second = np.array([9, 2, 5]), np.array([6, 6, 9])
    expected = [precise[3] @ precise[2], precise[0] @ precise[2], precise[1] @ precise[3]]
    np.testing.assert_allclose(scorer.pair_scores(first, second), expected, rtol=1e-5)
    query, molecule = np.array([9, 2, 5, 9]), np.array([2, 0, 1, 0])
    found = scorer.score_structures(query, molecule)
    for pair, (place, number) in enumerate(zip([3, 0, 1, 3], molecule, strict=True)):
        bits = fingerprint[number].astype(float)
        expected = precise[place] @ bits / np.linalg.norm(bits) if bits.any() else np.nan
        np.testing.assert_allclose(found[pair], expected, rtol=1e-6)


def test_structures_are_scored_alike_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    unit = rng.random((5, BITS)).astype(np.float16)
    fingerprint = np.packbits(rng.random((40, BITS)) < 0.3, axis=1)
    scorer = FingerprintScorer("x", np.arange(5), unit, fingerprint)
    query, molecule = rng.integers(0, 5, 100), rng.integers(0, 40, 100)
    whole = scorer.score_structures(query, molecule)
    monkeypatch.setattr(networks, "PAIRS_PER_CHUNK", 7)
    np.testing.assert_array_equal(scorer.score_structures(query, molecule), whole)
    assert len(scorer.score_structures(query[:0], molecule[:0])) == 0


def test_only_the_training_fold_is_trained_on(data: EvaluationData, molecules: Candidates) -> None:
    spectra, folds = training_spectra(data, molecules, fold="test", seed=0)
    assert folds == ("train", "validation")
    num_train = len(data.rows_in("train"))
    assert np.sum(~spectra.is_stopping) == num_train
    assert np.sum(spectra.is_stopping) == len(data.rows_in("validation"))
    np.testing.assert_array_equal(
        spectra.fingerprint[spectra.molecule],
        molecules.fingerprint[data.molecule[np.r_[data.rows_in("train"), data.rows_in("validation")]]],
    )


@pytest.mark.parametrize("fold", ["validation", "test"])
def test_training_stops_by_training_molecules_where_validation_is_asked_or_empty(
    fold: str, data: EvaluationData, molecules: Candidates
) -> None:
    if fold == "test":
        data = replace(data, fold=np.where(data.fold == "validation", "excluded", data.fold))
    spectra, folds = training_spectra(data, molecules, fold=fold, seed=0)
    assert folds == ("train",)
    assert len(spectra.columns) == len(data.rows_in("train"))
    stopping = set(spectra.molecule[spectra.is_stopping].tolist())
    assert len(stopping) == 5  # a tenth of 48
    assert not stopping & set(spectra.molecule[~spectra.is_stopping].tolist())


def test_what_is_held_out_does_not_change_a_training(data: EvaluationData, molecules: Candidates) -> None:
    """The peaks and molecules of the queries, scrambled, leave the weights as they were, bit for bit."""
    rows = data.rows_in("test")
    is_test_peak = np.repeat(data.fold == "test", data.columns.num_peaks)
    scrambled = replace(
        data,
        columns=replace(data.columns, intensity=np.where(is_test_peak, np.float32(0.5), data.columns.intensity)),
        molecule=np.where(data.fold == "test", data.molecule[rows][0], data.molecule),
    )
    trainings = [
        train_network("feed-forward", training_spectra(d, molecules, fold="test", seed=0)[0], SMALL, (0, 0))
        for d in (data, scrambled)
    ]
    for key, value in trainings[0].weights.items():
        assert torch.equal(value, trainings[1].weights[key]), key


@pytest.mark.parametrize("name", ["feed-forward", "deep sets"])
def test_a_training_is_a_function_of_its_seed(name: str, data: EvaluationData, molecules: Candidates) -> None:
    spectra, _ = training_spectra(data, molecules, fold="test", seed=0)
    options = replace(SMALL, dropout=0.3)
    before = torch.random.get_rng_state()
    first, again, other = (train_network(name, spectra, options, seed) for seed in ((0, 0), (0, 0), (0, 1)))
    assert torch.equal(torch.random.get_rng_state(), before)  # the random numbers of the caller are left alone
    assert first.losses == again.losses != other.losses
    assert all(torch.equal(value, again.weights[key]) for key, value in first.weights.items())


def test_the_first_weights_differ_by_seed(data: EvaluationData, molecules: Candidates) -> None:
    spectra, _ = training_spectra(data, molecules, fold="test", seed=0)
    still = replace(SMALL, max_epochs=1, learning_rate=1e-12)
    first, other = (train_network("feed-forward", spectra, still, (0, number)) for number in (0, 1))
    assert not torch.allclose(first.weights["layers.0.weight"], other.weights["layers.0.weight"], atol=1e-3)


def test_spectra_that_decide_when_to_stop_are_not_learned(data: EvaluationData, molecules: Candidates) -> None:
    spectra, _ = training_spectra(data, molecules, fold="test", seed=0)
    columns = spectra.columns
    is_stopping_peak = np.repeat(spectra.is_stopping, columns.num_peaks)
    altered = replace(columns, intensity=np.where(is_stopping_peak, np.float32(0.5), columns.intensity))
    first, second = (
        train_network("feed-forward", s, replace(SMALL, max_epochs=1), (0, 0))
        for s in (spectra, replace(spectra, columns=altered))
    )
    assert first.losses[0][0] == second.losses[0][0]
    assert first.losses[0][1] != second.losses[0][1]
    assert all(torch.equal(value, second.weights[key]) for key, value in first.weights.items())


def test_training_stops_without_progress_and_keeps_the_best(data: EvaluationData, molecules: Candidates) -> None:
    spectra, _ = training_spectra(data, molecules, fold="test", seed=0)
    options = replace(SMALL, max_epochs=100, patience=2, learning_rate=0.05)
    training = train_network("feed-forward", spectra, options, (0, 0))
    stopping = [value for _, value in training.losses]
    best = int(np.argmin(stopping))
    assert len(stopping) == best + 3 < 100
    shorter = train_network("feed-forward", spectra, replace(options, max_epochs=best + 1), (0, 0))
    assert all(torch.equal(value, shorter.weights[key]) for key, value in training.weights.items())


def test_no_much_measured_molecule_decides_an_epoch() -> None:
    rng = np.random.default_rng(0)
    molecule = np.array([7] * 100 + [3] + [5] * 4)
    drawn = fingerprint_networks._draw(np.arange(105), molecule, 3, rng)
    assert sorted(molecule[drawn].tolist()) == [3, 5, 5, 5, 7, 7, 7]
    assert len(set(drawn.tolist())) == len(drawn)


def test_entries(data: EvaluationData, molecules: Candidates) -> None:
    found = entries_of(data, molecules, replace(SMALL, trainings=2, max_epochs=1))
    assert [(entry.label, entry.kind, entry.known, len(entry.builds)) for entry in found] == [
        ("fingerprint network", "trained", (), 2),
        ("DeepSets", "trained", ("precursor_mz",), 2),
    ]
    (corpus,) = found[0].trained_on
    assert (corpus.split, corpus.folds) == ("a" * 64, ("train", "validation"))
    rows = np.array([9, 3, 3, 12])
    scorers = [build(data, molecules, rows) for entry in found for build in entry.builds]
    scores = [scorer.scores(np.array([3]), np.array([9, 12])) for scorer in scorers]
    assert all(score.shape == (1, 2) for score in scores)
    assert len({score.tobytes() for score in scores}) == 4  # two networks, two seeds
    assert scorers[0].score_structures(np.array([3, 9]), np.array([0, 1])).shape == (2,)
    assert entries_of(data, molecules, replace(SMALL, trainings=0)) == []


def test_a_scorer_reads_the_peaks_of_the_data_it_is_given(data: EvaluationData, molecules: Candidates) -> None:
    """An audit alters peaks: a scorer that kept those it was trained beside would not notice."""
    (entry, _) = entries_of(data, molecules)
    altered = replace(data, columns=replace(data.columns, mz=data.columns.mz + 3))
    rows = np.arange(5)
    first, second = (entry.builds[0](d, molecules, rows).scores(rows[:1], rows[1:]) for d in (data, altered))
    assert np.abs(first - second).max() > 1e-3


def test_the_number_of_processes_changes_nothing(data: EvaluationData, molecules: Candidates) -> None:
    alone, together = (entries_of(data, molecules, replace(SMALL, max_epochs=1, workers=workers)) for workers in (1, 2))
    rows = np.arange(6)
    for first, second in zip(alone, together, strict=True):
        expected = first.builds[0](data, molecules, rows).scores(rows, rows)
        np.testing.assert_array_equal(second.builds[0](data, molecules, rows).scores(rows, rows), expected)


def test_trainings_are_kept_by_what_made_them(
    data: EvaluationData,
    molecules: Candidates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache, rows, trained = tmp_path / "cache", np.arange(4), []

    def scores(options: TrainedBaselineOptions = SMALL, seed: int = 0, data: EvaluationData = data) -> list[np.ndarray]:
        found = entries_of(data, molecules, options, seed=seed, cache=cache)
        return [entry.builds[0](data, molecules, rows).scores(rows, rows) for entry in found]

    def counted(*arguments: object) -> fingerprint_networks.Training:
        trained.append(arguments)
        return train_network(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fingerprint_networks, "train_network", counted)
    first = scores()
    assert len(trained) == len(list(cache.iterdir())) == 2
    np.testing.assert_array_equal(scores(), first)
    np.testing.assert_array_equal(scores(replace(SMALL, workers=2)), first)
    scores(replace(SMALL, trainings=2))
    assert len(trained) == 4  # the first two were there
    scores(seed=1)
    scores(replace(SMALL, dropout=0.2))
    scores(data=replace(data, columns=replace(data.columns, mz=data.columns.mz + 1e-3)))
    scores(data=replace(data, fold=np.where(data.fold == "test", "train", data.fold)))
    assert len(trained) == 12

    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(scores(), first)
    assert len(trained) == 14
    assert "trained anew" in caplog.text


def test_a_kept_training_under_the_name_of_another_is_not_taken(
    data: EvaluationData, molecules: Candidates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries_of(data, molecules, seed=1, cache=tmp_path)
    (other,) = tmp_path.glob("feed-forward-*")
    (entry, _) = entries_of(data, molecules, seed=0, cache=tmp_path)
    (own,) = set(tmp_path.glob("feed-forward-*")) - {other}
    rows = np.arange(4)
    expected = entry.builds[0](data, molecules, rows).scores(rows, rows)
    own.write_bytes(other.read_bytes())
    (entry, _) = entries_of(data, molecules, seed=0, cache=tmp_path)
    np.testing.assert_array_equal(entry.builds[0](data, molecules, rows).scores(rows, rows), expected)
    assert "its key is another" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    data: EvaluationData, molecules: Candidates, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as a cache"):
        entries_of(data, molecules, cache=tmp_path / "file")


def test_a_training_that_diverges_is_refused(data: EvaluationData, molecules: Candidates) -> None:
    with pytest.raises(InputError, match=r"diverged in epoch 1; lower trained_baselines\.learning_rate"):
        entries_of(data, molecules, replace(SMALL, learning_rate=1e30))


def test_every_batch_can_be_normalised(data: EvaluationData, molecules: Candidates) -> None:
    for size in (4, 5, 47):  # of 192 spectra, of which up to 4 of a molecule are drawn
        entries_of(data, molecules, replace(SMALL, max_epochs=1, batch_size=size))


def test_too_few_molecules_are_refused(data: EvaluationData, molecules: Candidates) -> None:
    few = replace(data, fold=np.where(data.molecule == 0, "train", "test"))
    with pytest.raises(InputError, match="too few molecules"):
        entries_of(few, molecules)


@pytest.mark.parametrize(
    ("name", "value"),
    [("trainings", -1), ("max_epochs", 0), ("patience", 0), ("batch_size", 3), ("learning_rate", 0.0), ("dropout", 1.0),
     ("weight_decay", -1.0), ("bin_width", 2000.0), ("workers", 0), ("max_peaks", 0), ("hidden_size", 0),
     ("learning_rate", float("nan"))],
)  # fmt: skip
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        TrainedBaselineOptions(**{name: value})
