"""Splits by molecule: no molecule in two folds, stable under growth, saved with a hash."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ionbed
from ionbed.finetune.splits import SplitOptions, split_by_inchikey_block, split_store
from ionbed.spectra.split import Split

blocks = st.text("ABCDEFGHIJ", min_size=14, max_size=14)


@given(st.lists(blocks, min_size=1, max_size=60), st.integers(0, 5))
def test_stereoisomers_share_a_fold_and_growth_moves_nobody(keys, seed):
    small = split_by_inchikey_block([f"{k}-UHFFFAOYSA-N" for k in keys[: len(keys) // 2 + 1]], seed=seed)
    large = split_by_inchikey_block([f"{k}-QNAYBVRLSA-N" for k in keys] + [None], seed=seed)
    assert all(large.folds[block] == fold for block, fold in small.folds.items())
    assert set(large.fold_of([f"{keys[0]}-AAAAAAAAAA-N", f"{keys[0]}-BBBBBBBBBB-N"])) == {large.folds[keys[0]]}


def test_shares_are_met_and_seeds_differ():
    keys = [f"{i:014d}" for i in range(5000)]
    first, second = (split_by_inchikey_block(keys, seed=s, test=0.2, validation=0.1) for s in (0, 1))
    folds = first.fold_of(keys)
    assert abs((folds == "test").mean() - 0.2) < 0.02
    assert abs((folds == "validation").mean() - 0.1) < 0.02
    assert (folds != second.fold_of(keys)).mean() > 0.3


def test_a_spectrum_without_a_structure_trains(store):
    split = split_by_inchikey_block(["A" * 14])
    assert split.fold_of([None]).tolist() == ["train"]
    with pytest.raises(ionbed.InputError, match="is not in the split"):
        split.fold_of(["B" * 14])


def test_a_saved_split_is_checked(store, tmp_path):
    audit = split_store(store, tmp_path / "split.json", SplitOptions(seed=1, test=0.2, validation=0.15))
    counts = audit["folds"]
    assert sum(fold["molecules"] for fold in counts.values()) == 24
    assert sum(fold["spectra"] for fold in counts.values()) == 144
    split = Split.load(tmp_path / "split.json")
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["hash"] == split.hash
    block = next(iter(content["folds"]))
    content["folds"][block] = "train" if content["folds"][block] == "test" else "test"
    (tmp_path / "changed.json").write_text(json.dumps(content))
    with pytest.raises(ionbed.InputError, match="was changed"):
        Split.load(tmp_path / "changed.json")
    (tmp_path / "odd.json").write_text("[1, 2]")
    with pytest.raises(ionbed.InputError, match="is not a split file"):
        Split.load(tmp_path / "odd.json")
    with pytest.raises(ionbed.InputError, match="no such file"):
        Split.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(("test", "validation"), [(1.0, 0.0), (0.6, 0.5), (-0.1, 0.1)])
def test_impossible_shares_are_refused(test, validation):
    with pytest.raises(ionbed.InputError, match="add up"):
        split_by_inchikey_block(["A" * 14], test=test, validation=validation)


def test_a_split_is_not_written_into_its_store(store):
    before = sorted(store.iterdir())
    for name in ("manifest.json", "split.json"):
        with pytest.raises(ionbed.InputError, match="lies in the input"):
            split_store(store, store / name)
    assert sorted(store.iterdir()) == before


@pytest.mark.parametrize(
    "content",
    ["[]", "3", "{}", '{"folds": []}', '{"kind": "k", "seed": 0, "folds": [], "hash": "x"}',
     '{"kind": "k", "seed": 0, "folds": {"A": ["train"]}, "hash": "x"}',
     '{"kind": "k", "seed": 0, "folds": {"A": "tset"}, "hash": "x"}', "[" * 100_000, "\xff"],
)  # fmt: skip
def test_what_is_no_split_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ionbed.InputError, match="is not a split file") as caught:
        Split.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ionbed.InputError, match="cannot be read"):
        Split.load(tmp_path)


def test_a_split_is_replaced_only_where_that_is_asked_for(store, tmp_path):
    out = tmp_path / "split.json"
    split_store(store, out, SplitOptions(seed=1))
    before = out.read_bytes()
    split_store(store, out, SplitOptions(seed=1))  # the same again
    with pytest.raises(ionbed.InputError, match=r"split.json: already exists and is not this split.*--overwrite"):
        split_store(store, out, SplitOptions(seed=2))
    assert out.read_bytes() == before
    split_store(store, out, SplitOptions(seed=2), overwrite=True)
    assert out.read_bytes() != before
    out.write_text("notes")
    with pytest.raises(ionbed.InputError, match="already exists"):
        split_store(store, out, SplitOptions(seed=2))
    assert out.read_text() == "notes"
