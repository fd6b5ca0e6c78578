"""Pairs from runs: those that a plain double loop finds; which files are runs; the order in which spectra elute."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbed.errors import InputError
from ionbed.spectra.pairs import (
    PAIRS_FILE,
    PAIRS_SCHEMA,
    RUNS_FILE,
    RUNS_SCHEMA,
    PairOptions,
    describe_run,
    is_run,
    pairs_of_run,
    read_pairs,
    read_runs,
    retention_order_pairs,
)

FIRST_ROW = 1000

Scan = tuple[float, float, int, int, float]
scans = st.lists(
    st.tuples(
        st.sampled_from([300.0, 300.0 * (1 + 6e-6), 300.0 * (1 + 12e-6), 300.0 * (1 - 9e-6), 450.0]),
        st.sampled_from([float("nan"), *map(float, range(60))]),  # some share a time
        st.sampled_from([1, 1, 1, -1, 0]),
        st.sampled_from([0, 1, 1, 2]),
        st.sampled_from([20.0, 20.2, 40.0, float("nan")]),
    ),
    max_size=60,
)


def table_of(run: list[Scan], options: PairOptions) -> pa.Table:
    mz, times, polarity, charge, energy = (np.array([scan[i] for scan in run]) for i in range(5))
    return pairs_of_run(
        mz, times.astype(np.float32), polarity.astype(np.int8), charge.astype(np.int8), energy, FIRST_ROW, options
    )


def double_loop(run: list[Scan], options: PairOptions) -> set[tuple[int, int, str]]:
    order = sorted((scan[1], row) for row, scan in enumerate(run) if not math.isnan(scan[1]))
    found = set()
    for place, (_, row) in enumerate(order):
        left = {"repeat": options.partners, "energy": options.partners}
        for _, other in order[place + 1 :]:
            kind = kind_of_pair(run[row], run[other], options)
            if kind and left[kind]:
                left[kind] -= 1
                found.add((min(row, other), max(row, other), kind))
    return found


def kind_of_pair(a: Scan, b: Scan, options: PairOptions) -> str | None:
    alike = (
        abs(a[0] - b[0]) <= max(a[0], b[0]) * options.precursor_ppm * 1e-6
        and abs(a[1] - b[1]) <= options.time_window
        and a[2] == b[2]
        and (a[3] == b[3] or 0 in (a[3], b[3]))
        and math.isnan(a[4]) == math.isnan(b[4])
    )
    if not alike:
        return None
    return "energy" if abs(a[4] - b[4]) > 0.5 else "repeat"


@settings(max_examples=150, deadline=None)
@given(scans, st.integers(0, 5), st.sampled_from([5.0, 30.0]), st.sampled_from([7.0, 10.0, 15.0]))
def test_pairs_are_those_of_a_double_loop(run: list[Scan], partners: int, window: float, ppm: float) -> None:
    options = PairOptions(partners, window, ppm)
    rows = table_of(run, options).to_pylist()
    found = [(row["row_a"] - FIRST_ROW, row["row_b"] - FIRST_ROW, row["kind"]) for row in rows]
    assert len(set(found)) == len(found)
    assert set(found) == double_loop(run, options)
    assert found == sorted(found)
    for row, (a, b, _) in zip(rows, found, strict=True):
        assert row["retention_time_difference"] == pytest.approx(run[b][1] - run[a][1])
        difference = (run[b][0] - run[a][0]) / max(run[a][0], run[b][0]) * 1e6
        assert row["precursor_difference"] == pytest.approx(difference, abs=1e-3)


def test_a_calibrant_does_not_give_every_pair_and_takes_no_quadratic_time() -> None:
    count = 20_000
    rng = np.random.default_rng(0)
    mz, ones = np.full(count, 391.2843), np.ones(count, np.int8)
    start = time.perf_counter()
    pairs = pairs_of_run(mz, rng.uniform(0, 10, count), ones, ones, np.full(count, 30.0), 0, PairOptions(partners=4))
    assert time.perf_counter() - start < 30  # 200 million comparisons one by one would not end by then
    assert 4 * (count - 4) <= len(pairs) <= 4 * count
    assert np.bincount(np.r_[pairs["row_a"].to_numpy(), pairs["row_b"].to_numpy()]).max() <= 8


def test_the_nearest_in_time_come_first() -> None:
    run = [(300.0, float(second), 1, 1, 30.0) for second in (9, 0, 5, 1)]
    rows = table_of(run, PairOptions(partners=1)).to_pylist()
    found = {(row["row_a"] - FIRST_ROW, row["row_b"] - FIRST_ROW) for row in rows}
    assert found == {(1, 3), (2, 3), (0, 2)}  # at 0 and 1 s, 1 and 5 s, 5 and 9 s


def test_an_empty_run_has_no_pairs() -> None:
    assert table_of([], PairOptions()).equals(PAIRS_SCHEMA.empty_table())


@pytest.mark.parametrize("wrong", [{"partners": -1}, {"time_window": 0.0}, {"precursor_ppm": 0.0},
                                   {"time_window": float("nan")}])  # fmt: skip
def test_impossible_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PairOptions(**wrong)


def is_a_run(times: list[float] | np.ndarray, level: int = 2, labelled: bool = False) -> bool:
    labels = np.zeros(len(times), bool)
    labels[-1:] = labelled
    return is_run(np.array(times, np.float32), np.full(len(times), level, np.int8), labels)


def test_scans_in_the_order_of_time_are_a_run() -> None:
    times = np.sort(np.random.default_rng(0).uniform(0, 600, 200))
    assert is_a_run(times)
    assert is_a_run(times, level=3)
    times[:10] = np.nan  # 5% without a time
    assert is_a_run(times)
    times[10] = np.nan
    assert not is_a_run(times)


def test_what_is_no_run() -> None:
    times = np.linspace(0, 600, 200)
    assert not is_a_run(times, labelled=True)
    assert not is_a_run(times, level=0)
    assert not is_a_run(np.concatenate([times, times]))  # two runs written into one file
    assert not is_a_run(np.random.default_rng(0).permutation(times))  # features in the order of their mass
    assert not is_a_run([60.0] * 50)  # one time given to all
    assert not is_a_run([60.0])
    assert not is_a_run([])
    assert not is_a_run([float("nan")] * 5)


def test_a_run_is_described_in_one_row() -> None:
    times = np.array([np.nan, 3.5, 1.5], np.float32)
    row = describe_run("a.mzML", 7, times, np.array([1, 0, -1], np.int8))
    assert row.schema == RUNS_SCHEMA
    assert row.to_pylist() == [
        {"source_file": "a.mzML", "first_row": 7, "num_rows": 3, "retention_time_min": 1.5, "retention_time_max": 3.5,
         "polarities": [-1, 1]}
    ]  # fmt: skip


def two_runs(rng: np.random.Generator) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return runs of 300 and 100 rows, between rows of no run, with times and precursor m/z of the whole store."""
    times, mz = np.full(500, np.nan, np.float32), rng.choice([200.0, 200.001, 350.0, 470.0], 500)
    times[50:350], times[380:480] = rng.uniform(0, 600, 300), rng.uniform(0, 90, 100)
    times[60] = np.nan
    sign = np.ones(500, np.int8)
    runs = [describe_run(str(a), a, times[a:b], sign[a:b]) for a, b in ((50, 350), (380, 480))]
    return pa.concat_tables(runs), times, mz


def test_pairs_for_retention_order_are_of_one_run_in_order_and_apart() -> None:
    rng = np.random.default_rng(0)
    runs, times, mz = two_runs(rng)
    pairs = retention_order_pairs(rng, runs, times, mz, 20_000, min_difference=20.0, min_precursor_ppm=50.0)
    assert pairs.shape == (20_000, 2)
    assert (times[pairs[:, 1]] - times[pairs[:, 0]] >= 20.0).all()
    assert (np.abs(mz[pairs[:, 0]] - mz[pairs[:, 1]]) > 0.01).all()
    in_first = (pairs >= 50) & (pairs < 350)
    assert (in_first[:, 0] == in_first[:, 1]).all()
    assert ((pairs[~in_first] >= 380) & (pairs[~in_first] < 480)).all()
    assert 0.72 < in_first[:, 0].mean() < 0.85  # 75% of the rows, a little more of the pairs far enough apart
    later = np.bincount(pairs[:, 1], minlength=500)[380:480]
    assert later[times[380:480] < 20].sum() == 0
    assert (later[times[380:480] > 60] > 0).all()  # every row has its turn


def test_one_seed_draws_the_same_pairs() -> None:
    runs, times, mz = two_runs(np.random.default_rng(1))
    first, second = (retention_order_pairs(np.random.default_rng(5), runs, times, mz, 50) for _ in range(2))
    assert np.array_equal(first, second)
    assert retention_order_pairs(np.random.default_rng(5), runs, times, mz, 0).shape == (0, 2)


@pytest.mark.parametrize("impossible", [{"min_difference": 700.0}, {"min_precursor_ppm": 1e6}])
def test_pairs_that_no_run_has_are_told(impossible: dict[str, float]) -> None:
    runs, times, mz = two_runs(np.random.default_rng(2))
    with pytest.raises(ValueError, match="2 runs gave 0 of 10 pairs"):
        retention_order_pairs(np.random.default_rng(0), runs, times, mz, 10, **impossible)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pairs = table_of([(300.0, 1.0, 1, 1, 30.0), (300.0, 2.0, 1, 1, 30.0)], PairOptions())
    runs = describe_run("a.mzML", 0, np.array([1.0, 2.0]), np.array([1, 1]))
    pq.write_table(pairs, tmp_path / PAIRS_FILE)
    pq.write_table(runs, tmp_path / RUNS_FILE)
    assert len(pairs) == 1
    assert read_pairs(tmp_path).equals(pairs)
    assert read_runs(tmp_path).equals(runs)


def test_files_that_are_missing_damaged_or_others_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pairs\.parquet: is missing"):
        read_pairs(tmp_path)
    (tmp_path / RUNS_FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"runs\.parquet: is damaged"):
        read_runs(tmp_path)
    pq.write_table(PAIRS_SCHEMA.empty_table(), tmp_path / RUNS_FILE)
    with pytest.raises(InputError, match="does not have the columns"):
        read_runs(tmp_path)
