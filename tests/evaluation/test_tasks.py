"""What is compared with what: windows, polarity, laboratories, identical peaks, caps, folds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ionbed.errors import InputError
from ionbed.evaluation import tasks
from ionbed.evaluation.dataset import load_evaluation_data
from ionbed.evaluation.tasks import (
    AnalogueSearchOptions,
    LibrarySearchOptions,
    SameMoleculeOptions,
    analogue_search_task,
    draw_per_molecule,
    library_search_task,
    same_molecule_task,
)
from ionbed.spectra.store import Store


def names(data, task) -> set[tuple[str, str]]:
    return {
        tuple(sorted(pair)) for pair in zip(data.spectrum_id[task.first], data.spectrum_id[task.second], strict=True)
    }


def test_pairs_lie_in_one_window_of_one_polarity(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1, precursor_mz=300.0, mz=(50, 60, 70)),
        build.spectrum(0, 2, precursor_mz=300.0029, mz=(50, 60, 71)),  # 9.7 ppm
        build.spectrum(1, 1, precursor_mz=300.0031, mz=(50, 60, 72)),  # 10.3 ppm from the first, near the second
        build.spectrum(1, 2, precursor_mz=300.0, polarity=-1, mz=(50, 60, 73)),
        build.spectrum(2, 1, precursor_mz=500.0, mz=(50, 60, 74)),
    ]
    data = make_data(spectra, {0: "test", 1: "test", 2: "test"})
    task = same_molecule_task(data, "test", SameMoleculeOptions(), seed=0)
    assert names(data, task) == {("0-1", "0-2"), ("0-2", "1-1")}
    assert task.counts["pairs of one molecule"] == 1


def test_all_pairs_count_unless_only_contested_windows_are_wanted(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1, precursor_mz=300, mz=(50, 60, 70)),
        build.spectrum(0, 2, precursor_mz=300, mz=(50, 60, 71)),  # nothing to confuse it with
        build.spectrum(1, 1, precursor_mz=400, mz=(50, 60, 72)),
        build.spectrum(2, 1, precursor_mz=400, mz=(50, 60, 73)),  # nothing to find
        build.spectrum(3, 1, precursor_mz=500, mz=(50, 60, 74)),
        build.spectrum(3, 2, precursor_mz=500, mz=(50, 60, 75)),
        build.spectrum(4, 1, precursor_mz=500, mz=(50, 60, 76)),
    ]
    data = make_data(spectra, dict.fromkeys(range(5), "test"))
    contested = {("3-1", "3-2"), ("3-1", "4-1"), ("3-2", "4-1")}
    task = same_molecule_task(data, "test", SameMoleculeOptions(), seed=0)
    assert names(data, task) == contested | {("0-1", "0-2"), ("1-1", "2-1")}
    task = same_molecule_task(data, "test", SameMoleculeOptions(contested_windows_only=True), seed=0)
    assert names(data, task) == contested


def test_one_measurement_deposited_twice_is_no_pair_and_no_candidate(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1, mz=(50, 60, 70)),
        build.spectrum(0, 2, mz=(50, 60, 70), laboratory="Beta"),
        build.spectrum(0, 3, mz=(50, 60, 71), laboratory="Beta"),
        build.spectrum(1, 1, mz=(50, 60, 70), laboratory="Beta"),
        build.spectrum(1, 2, mz=(50, 60, 72), laboratory="Beta"),
    ]
    data = make_data(spectra, {0: "test", 1: "test"})
    pairs = names(data, same_molecule_task(data, "test", SameMoleculeOptions(), seed=0))
    assert not pairs & {("0-1", "0-2"), ("0-1", "1-1"), ("0-2", "1-1")}
    search = library_search_task(data, "test", LibrarySearchOptions(), seed=0)
    first = list(data.spectrum_id[search.queries]).index("0-1")
    assert set(data.spectrum_id[search.library[search.query == first]]) == {"0-3", "1-2"}


def test_no_pair_of_molecules_gives_more_than_its_share(build: SimpleNamespace, make_data) -> None:
    spectra, _ = build.isomers(8, per_molecule=6)
    data = make_data(spectra, dict.fromkeys(range(8), "test"))
    task = same_molecule_task(data, "test", SameMoleculeOptions(max_pairs_per_molecule_pair=4), seed=0)
    molecules = np.sort(data.molecule[np.stack([task.first, task.second])], axis=0)
    _, counts = np.unique(molecules, axis=1, return_counts=True)
    assert counts.max() == 4
    assert len(set(names(data, task))) == task.counts["pairs"]


def test_chunks_change_nothing_that_is_not_drawn(build: SimpleNamespace, make_data, monkeypatch) -> None:
    spectra, _ = build.isomers(16)
    data = make_data(spectra, dict.fromkeys(range(16), "test"))
    options = SameMoleculeOptions(max_pairs_per_molecule_pair=1000), LibrarySearchOptions(max_queries_per_molecule=9)
    whole = same_molecule_task(data, "test", options[0], seed=0), library_search_task(data, "test", options[1], seed=0)
    monkeypatch.setattr(tasks, "PAIRS_PER_CHUNK", 7)
    parts = same_molecule_task(data, "test", options[0], seed=0), library_search_task(data, "test", options[1], seed=0)
    assert names(data, whole[0]) == names(data, parts[0])
    assert np.array_equal(whole[1].query, parts[1].query)
    assert np.array_equal(whole[1].library, parts[1].library)


def test_candidates_come_from_other_laboratories_and_all_folds(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1, laboratory="Alpha", mz=(50, 60, 70)),
        build.spectrum(0, 2, laboratory="Alpha", mz=(50, 60, 71)),
        build.spectrum(0, 3, laboratory="Beta", mz=(50, 60, 72)),
        build.spectrum(0, 4, laboratory=None, mz=(50, 60, 73)),
        build.spectrum(1, 1, laboratory="Alpha", mz=(50, 60, 74)),
        build.spectrum(1, 2, laboratory="Beta", mz=(50, 60, 75)),
    ]
    data = make_data(spectra, {0: "test", 1: "train"})
    task = library_search_task(data, "test", LibrarySearchOptions(), seed=0)
    candidates = {
        data.spectrum_id[row]: set(data.spectrum_id[task.library[task.query == index]])
        for index, row in enumerate(task.queries)
    }
    assert candidates["0-1"] == {"0-3", "1-2"}
    assert candidates["0-3"] == {"0-1", "0-2", "1-1"}
    assert candidates["0-4"] == {"0-1", "0-2", "0-3", "1-1", "1-2"}  # unknown laboratory: all but itself
    assert not any(name.startswith("1") for name in candidates)  # molecule 1 is not in the fold


def test_queries_with_one_candidate_are_counted_and_left_out(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1, precursor_mz=300, laboratory="Alpha", mz=(50, 60, 70)),
        build.spectrum(0, 2, precursor_mz=300, laboratory="Beta", mz=(50, 60, 71)),
        build.spectrum(1, 1, precursor_mz=400, laboratory="Alpha", mz=(50, 60, 72)),
    ]
    task = library_search_task(make_data(spectra, {0: "test", 1: "test"}), "test", LibrarySearchOptions(), seed=0)
    assert task.counts["queries"] == 0
    assert task.counts["of these with one candidate only, left out"] == 2
    assert task.counts["share with one candidate only"] == 1.0


def test_the_library_of_analogues_holds_no_molecule_of_the_queries(build: SimpleNamespace, make_data) -> None:
    spectra, folds = build.isomers(16)
    data = make_data(spectra, folds)
    task = analogue_search_task(data, "test", AnalogueSearchOptions(), seed=0)
    (queries,), (library,) = task.queries, task.libraries
    assert set(data.fold[queries]) == {"test"}
    assert set(data.fold[library]) == {"train"}
    assert (np.diff(data.molecule[library]) >= 0).all()
    assert np.bincount(data.molecule[queries]).max() == 2
    with pytest.raises(AssertionError):
        analogue_search_task(data, "train", AnalogueSearchOptions(), seed=0)


def test_the_seed_draws_and_only_the_seed() -> None:
    molecule = np.repeat(np.arange(10), 8)
    rows = np.arange(80)
    drawn = draw_per_molecule(rows, molecule, limit=3, seed=0)
    assert (np.bincount(molecule[drawn]) == 3).all()
    assert np.array_equal(drawn, draw_per_molecule(rows[::-1], molecule, limit=3, seed=0))
    assert not np.array_equal(drawn, draw_per_molecule(rows, molecule, limit=3, seed=1))


def test_spectra_without_structure_or_polarity_are_counted_out(build: SimpleNamespace, make_data) -> None:
    spectra = [
        build.spectrum(0, 1),
        build.spectrum(0, 2, inchikey=None),
        build.spectrum(0, 3, polarity=None),
    ]
    data = make_data(spectra, {0: "test"})
    assert list(data.spectrum_id) == ["0-1"]
    assert data.excluded == {"no structure": 1, "unknown polarity": 1}


def test_a_store_with_nothing_to_judge_says_so(build: SimpleNamespace, tmp_path) -> None:
    store = Store(build.write_store(tmp_path / "store", [build.spectrum(0, 1, inchikey=None)]))
    with pytest.raises(InputError, match="no spectrum has both a structure and a polarity"):
        load_evaluation_data(store, build.split_of({0: "test"}))


@pytest.mark.parametrize(
    ("options", "values"),
    [(SameMoleculeOptions, {"precursor_ppm": 0.0}), (LibrarySearchOptions, {"max_queries_per_molecule": 0})],
)
def test_impossible_choices_are_refused(options, values) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        options(**values)


def test_partners_of_all_folds_never_pair_two_spectra_from_outside(build: SimpleNamespace, make_data) -> None:
    spectra, _ = build.isomers(16)
    data = make_data(spectra, {molecule: "test" if molecule % 2 else "train" for molecule in range(16)})
    task = same_molecule_task(data, "test", SameMoleculeOptions(), seed=0, partners="all")
    is_test = data.fold == "test"
    assert (is_test[task.first] | is_test[task.second]).all()
    assert not (is_test[task.first] & is_test[task.second]).all()
    same = data.molecule[task.first] == data.molecule[task.second]
    assert (is_test[task.first[same]] & is_test[task.second[same]]).all()


def test_pairs_do_not_depend_on_how_many_are_drawn_at_a_time(build, make_data, monkeypatch) -> None:
    data = make_data(*build.isomers(24, per_molecule=5))
    options = SameMoleculeOptions(max_pairs_per_molecule_pair=2)
    whole = same_molecule_task(data, "test", options, seed=0)
    monkeypatch.setattr(tasks, "PAIRS_PER_CHUNK", 7)
    parts = same_molecule_task(data, "test", options, seed=0)
    molecules = np.sort(data.molecule[np.stack([parts.first, parts.second])], axis=0)
    assert np.unique(molecules, axis=1, return_counts=True)[1].max() == 2
    both = [sorted(zip(task.first.tolist(), task.second.tolist(), strict=True)) for task in (whole, parts)]
    assert both[0] == both[1]


def test_partners_of_the_fold_alone_and_a_library_of_one_fold_alone(build, make_data) -> None:
    spectra = [
        build.spectrum(molecule, number, mz=(50, 60 + molecule, 70 + number))
        for molecule in range(9)
        for number in (1, 2)
    ]
    folds = {molecule: ("train", "validation", "test")[molecule % 3] for molecule in range(9)}
    data = make_data(spectra, folds)
    pairs = same_molecule_task(data, "test", SameMoleculeOptions(), seed=0, partners="fold")
    assert len(pairs.first)
    assert set(data.fold[np.concatenate([pairs.first, pairs.second])]) == {"test"}
    for fold in ("train", "validation"):
        search = analogue_search_task(data, "test", AnalogueSearchOptions(library_fold=fold), seed=0)
        assert set(data.fold[np.concatenate(search.libraries)]) == {fold}
