"""Quality grades: what each threshold asks, which apply to runs and which to libraries, and statistics that merge."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ionbed.configs.loading import build, to_tree
from ionbed.errors import InputError
from ionbed.spectra.grades import (
    BELOW,
    DEFAULT_GRADES,
    FileStatistics,
    FileThresholds,
    GradeOptions,
    GradeThresholds,
    SpectrumThresholds,
    grade_of_file,
    grade_of_spectrum,
    worse,
)
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.readers import read_records
from ionbed.spectra.record import RawRecord
from ionbed.spectra.spectrum import Spectrum

GOOD_MZ = (55.0178, 69.0335, 97.0284, 121.0284, 153.0182, 181.0131, 229.0856)
GOOD_INTENSITY = (300.0, 2200.0, 60000.0, 45000.0, 90000.0, 12000.0, 30000.0)


def record(
    *,
    mz: Iterable[float] = GOOD_MZ,
    intensity: Iterable[float] = GOOD_INTENSITY,
    problem: str | None = None,
    **fields: str,
) -> RawRecord:
    given = {"precursor_mz": "229.0855", "charge": "1+", "ms_level": "2", **fields}
    given = {name: text for name, text in given.items() if text}
    return RawRecord("file", "", 1, given, np.array([*mz]), np.array([*intensity]), problem)


def spectrum_of(made: RawRecord, **changes: Any) -> Spectrum:
    found = harmonise(made, ms_levels=range(2, 9))
    assert isinstance(found, Spectrum)
    return dataclasses.replace(found, **changes)


def grade(made: RawRecord, **changes: Any) -> str:
    return grade_of_spectrum(made, spectrum_of(made, **changes))


def statistics_of(records: Iterable[RawRecord]) -> FileStatistics:
    statistics = FileStatistics()
    for made in records:
        statistics.add(made, harmonise(made))
    return statistics


def survey_scan() -> RawRecord:
    return record(mz=(), intensity=(), ms_level="1", precursor_mz="")


def run(
    num_precursors: int = 10, *, num_repeats: int = 4, error: float = 1e-4, decimals: int = 6, survey: bool = True
) -> list[RawRecord]:
    """A run in which every precursor is fragmented again and again, with a normal error of the m/z in Da."""
    rng = np.random.default_rng(0)
    records, time = [], 0.0
    for _ in range(num_repeats):
        for number in range(num_precursors):
            if survey and number % 5 == 0:
                records.append(survey_scan())
            time += 1.5
            mz = np.array(GOOD_MZ) + 3.0 * number + rng.normal(0, error, len(GOOD_MZ))
            records.append(
                record(
                    mz=np.round(mz, decimals),
                    precursor_mz=f"{229.0856 + 3 * number:.4f}",
                    retention_time=f"{time:.1f} s",
                )
            )
    return records


class TestSpectrum:
    def test_a_rich_spectrum(self) -> None:
        assert grade(record()) == "A"

    def test_negative_mode_is_graded_as_positive_mode(self) -> None:
        negative = record(charge="1-")
        assert spectrum_of(negative).charge == -1
        assert grade(negative) == grade(record()) == "A"

    @pytest.mark.parametrize(
        ("made", "changes", "expected"),
        [
            (record(intensity=(300, 2200, 6000, 4500, 90000, 1200, 3000)), {}, "B"),  # one high peak
            (record(mz=GOOD_MZ[3:], intensity=GOOD_INTENSITY[3:]), {}, "B"),  # three fragments, and narrow in intensity
            (record(mz=(181.0131, 229.0856), intensity=(9e4, 3e4)), {}, "C"),  # one fragment
            (record(mz=(229.0856,), intensity=(9e4,)), {}, "C"),  # the precursor alone
            (record(intensity=(10, 20, 100, 1500, 1500, 1500, 90000)), {}, "B"),  # hardly fragmented
            (record(intensity=(300, 300, 300, 300, 450, 500, 450)), {}, "C"),  # a flat spectrum has no dynamic range
            (record(mz=np.round(GOOD_MZ, 2)), {}, "B"),
            (record(mz=np.round(GOOD_MZ, 1)), {}, "C"),
            (record(mz=np.round(GOOD_MZ)), {}, "C"),
            (record(), {"charge": 2}, "B"),
            (record(), {"charge": 3}, "C"),
            (record(), {"charge": None}, "A"),
            (record(), {"polarity": None}, "C"),
            (record(), {"precursor_mz": 1200.0}, "B"),
            (record(), {"precursor_mz": 1800.0}, "C"),
            (record(), {"ms_level": 3}, "B"),
            (record(), {"ms_level": 4}, "C"),
            (record(), {"ms_level": None}, "A"),
            (record(), {"predicted": True}, "C"),
            (record(), {"precursor_mz": 170.0}, "C"),  # much lies above the precursor
            (record(), {"precursor_mz": 170.0, "charge": 2}, "B"),  # where two charges explain it
        ],
    )
    def test_what_is_missing(self, made: RawRecord, changes: dict[str, Any], expected: str) -> None:
        assert grade(made, **changes) == expected

    @pytest.mark.parametrize(
        ("instrument_type", "expected"),
        [
            ("LC-ESI-QTOF", "A"),
            ("LC-ESI-ITFT", "A"),
            ("LC-ESI-QFT", "A"),
            ("Q-TOF", "A"),
            ("LTQ Orbitrap XL", "A"),
            ("LC-ESI-ITTOF", "A"),
            ("something new", "A"),
            (None, "A"),
            ("LC-ESI-QQ", "C"),
            ("LC-ESI-QqQ", "C"),
            ("LC-ESI-IT", "C"),
            ("LC-ESI-QIT", "C"),
            ("Ion Trap", "C"),
            ("Triple Quadrupole", "C"),
            ("LTQ", "C"),
        ],
    )
    def test_resolution_by_the_type_of_the_instrument(self, instrument_type: str | None, expected: str) -> None:
        assert grade(record(), instrument_type=instrument_type) == expected
        assert grade(record(), instrument=instrument_type) == expected

    def test_many_peaks_are_noise_or_several_precursors(self) -> None:
        rng = np.random.default_rng(1)

        def crowded(num_peaks: int) -> RawRecord:
            mz = np.linspace(50.1234567, 228.1234567, num_peaks)
            return record(mz=mz, intensity=[*rng.uniform(3e2, 9e3, num_peaks - 1), 1e4])

        assert [grade(crowded(n)) for n in (100, 200, 400)] == ["A", "B", "C"]

    def test_peaks_below_one_per_cent_are_not_counted_as_noise(self) -> None:
        mz = np.linspace(50.1234567, 228.1234567, 400)
        assert grade(record(mz=[*mz, *GOOD_MZ], intensity=[*np.full(400, 400.0), *GOOD_INTENSITY])) == "A"

    def test_what_cleaning_keeps_is_c_unless_thresholds_are_set_for_it(self) -> None:
        poor = record(mz=(229.0,), intensity=(1.0,), charge="")
        spectrum = spectrum_of(poor)
        assert grade_of_spectrum(poor, spectrum) == "C"
        assert not DEFAULT_GRADES.is_dropped("C")
        strict = GradeOptions(c=GradeThresholds(spectrum=SpectrumThresholds(min_fragments=1)))
        assert grade_of_spectrum(poor, spectrum, strict) == BELOW
        assert strict.is_dropped(BELOW)

    def test_absolute_signal_is_asked_of_counts_only(self) -> None:
        options = GradeOptions(a=GradeThresholds(spectrum=SpectrumThresholds(min_base_peak=1e5)))
        loud = record(intensity=np.array(GOOD_INTENSITY) * 2)
        scaled = record(intensity=np.array(GOOD_INTENSITY) / max(GOOD_INTENSITY) * 999)
        for made, expected in ((record(), "B"), (loud, "A"), (scaled, "A")):
            assert grade_of_spectrum(made, spectrum_of(made), options) == expected


class TestFile:
    def test_a_precise_run_in_order(self) -> None:
        statistics = statistics_of(run())
        assert statistics.is_run
        assert statistics.out_of_order == 0
        assert grade_of_file(statistics) == "A"

    @pytest.mark.parametrize(("error", "expected"), [(1e-4, "A"), (1e-3, "A"), (5e-3, "B"), (3e-2, "C")])
    def test_mass_spread_is_the_error_of_the_instrument(self, error: float, expected: str) -> None:
        statistics = statistics_of(run(20, num_repeats=6, error=error))
        assert statistics.num_deviations >= 200
        assert statistics.mass_spread == pytest.approx(1e3 * error, rel=0.2)
        assert grade_of_file(statistics) == expected

    def test_mass_spread_is_not_below_the_rounding_of_the_file(self) -> None:
        statistics = statistics_of(run(error=0.0, decimals=2))
        assert statistics.mass_spread == pytest.approx(10 / math.sqrt(12), rel=0.01)
        assert grade_of_file(statistics) == "B"

    def test_few_strong_outliers_do_not_change_the_spread(self) -> None:
        records = run(20, num_repeats=6, error=1e-3)
        for made in records[::10]:
            made.mz[:] += 0.1
        assert statistics_of(records).mass_spread == pytest.approx(1.0, rel=0.4)

    def test_accuracy_that_cannot_be_known_does_not_count_against_a_run(self) -> None:
        statistics = statistics_of(run(num_repeats=1))
        assert statistics.mass_spread is None
        assert grade_of_file(statistics) == "A"

    def test_scans_out_of_order(self) -> None:
        for share, expected in ((0.0, "A"), (0.05, "B"), (0.3, "C")):
            records = run(num_repeats=10)
            timed = [made for made in records if "retention_time" in made.fields]
            for made in timed[1 : int(2 * share * len(records)) : 2]:
                made.fields["retention_time"] = "0.1 s"
            assert grade_of_file(statistics_of(records)) == expected

    def test_an_ms_level_that_skips_one_is_out_of_order(self) -> None:
        records = [survey_scan(), record(ms_level="3"), record(ms_level="2"), record(ms_level="3"), survey_scan()]
        assert statistics_of(records).out_of_order == 1

    def test_too_few_spectra(self) -> None:
        assert grade_of_file(statistics_of(run(2, num_repeats=1))) == "C"

    def test_damaged_records(self) -> None:
        broken = record(mz=(), intensity=(), problem="truncated")
        empty = record(mz=(), intensity=(), problem="no-peaks")
        assert grade_of_file(statistics_of([*run(), *[empty] * 20])) == "A"
        assert grade_of_file(statistics_of([*run(), *[broken] * 3])) == "B"
        assert grade_of_file(statistics_of([*run(), *[broken] * 20])) == "C"

    def test_a_library_is_not_graded_by_order_or_spread(self) -> None:
        rng = np.random.default_rng(0)
        records = run(error=3e-2, survey=False)
        rng.shuffle(records)  # type: ignore[arg-type]
        for made in records:
            made.fields["smiles"] = "CCO"
        statistics = statistics_of(records)
        assert not statistics.is_run
        assert grade_of_file(statistics) == "A"

    def test_a_list_of_features_is_no_run(self) -> None:
        records = run(survey=False)
        np.random.default_rng(0).shuffle(records)  # type: ignore[arg-type]
        statistics = statistics_of(records)
        assert not statistics.is_run
        assert grade_of_file(statistics) == "A"

    def test_nothing_read(self) -> None:
        assert grade_of_file(FileStatistics()) == "A"
        assert FileStatistics().mass_spread is None


class TestStatistics:
    def test_counts_add_up(self) -> None:
        records = [*run(), record(precursor_mz=""), record(mz=(), intensity=(), problem="truncated")]
        statistics = statistics_of(records)
        assert statistics.read == len(records)
        assert statistics.read == statistics.kept + sum(statistics.dropped.values())
        assert statistics.dropped == {"ms-level": 8, "no-precursor-mz": 1, "truncated": 1}
        for name in ("peaks", "precursor_mz", "retention_time", "collision_energy", "polarity", "charge"):
            assert sum(statistics.histograms[name].values()) == statistics.kept

    def test_bins(self) -> None:
        made = record(retention_time="12.3 min", collision_energy="35 eV")
        histograms = statistics_of([made]).histograms
        assert histograms["peaks"] == {5: 1}
        assert histograms["precursor_mz"] == {200: 1}
        assert histograms["retention_time"] == {720: 1}
        assert histograms["collision_energy"] == {35: 1}
        assert histograms["charge"] == {1: 1}
        unknown = statistics_of([record(charge="", precursor_mz="99999")]).histograms
        assert unknown["precursor_mz"] == {2000: 1}
        assert unknown["retention_time"] == unknown["collision_energy"] == {-1: 1}
        assert unknown["polarity"] == unknown["charge"] == {0: 1}

    @pytest.mark.parametrize("cut", [0, 1, 7, 23, 48])
    def test_merged_parts_are_the_whole(self, cut: int) -> None:
        records = run()
        records[9].fields["retention_time"] = "0.1 s"
        first, rest = statistics_of(records[:cut]), statistics_of(records[cut:])
        whole = statistics_of(records)
        merged = FileStatistics.from_json(json.loads(json.dumps(first.to_json())))
        merged.merge(FileStatistics.from_json(json.loads(json.dumps(rest.to_json()))))
        expected = whole.to_json() | {"deviations": merged.to_json()["deviations"]}
        assert merged.to_json() == expected
        assert 0 < merged.num_deviations <= whole.num_deviations

    def test_merging_in_three_parts_does_not_depend_on_how(self) -> None:
        records = run()

        def parts() -> list[FileStatistics]:
            return [statistics_of(records[a:b]) for a, b in ((0, 3), (3, 20), (20, None))]

        one, two, three = parts()
        one.merge(two)
        one.merge(three)
        first, second, third = parts()
        second.merge(third)
        first.merge(second)
        assert one.to_json() == first.to_json()

    def test_size_is_bounded(self) -> None:
        rng = np.random.default_rng(0)
        statistics = FileStatistics()
        spectrum = spectrum_of(record())
        for number in range(5000):
            made = record(ms_level=str(number + 2))
            precursor, time = rng.uniform(1, 5e4), rng.uniform(0, 1e6)
            statistics.add(made, dataclasses.replace(spectrum, precursor_mz=precursor, retention_time=time))
            statistics.add(made, Dropped("ms-level"))
        assert len(json.dumps(statistics.to_json())) < 8000
        assert len(statistics._strong_of) <= 512


class TestOptions:
    def test_the_worse_of_two(self) -> None:
        assert worse("A", "B") == worse("B", "A") == "B"
        assert worse("C", BELOW) == BELOW
        assert worse("A", "A") == "A"

    def test_minimum(self) -> None:
        assert [GradeOptions(minimum="B").is_dropped(g) for g in ("A", "B", "C", BELOW)] == [False, False, True, True]

    def test_options_survive_a_configuration_file(self) -> None:
        assert build(GradeOptions, to_tree(DEFAULT_GRADES), "x.yaml") == DEFAULT_GRADES

    @pytest.mark.parametrize(
        "tree",
        [
            {"minimum": "D"},
            {"a": {"file": {"min_spectra": 0}}},
            {"a": {"file": {"max_out_of_order": 1.5}}},
            {"a": {"file": {"max_mass_spread": 0}}},
            {"a": {"file": {"max_damaged": -0.1}}},
            {"a": {"file": {"min_repeats": 0}}},
            {"b": {"spectrum": {"high_intensity": 2}}},
            {"b": {"spectrum": {"min_fragments": -1}}},
            {"b": {"spectrum": {"max_peaks": 0}}},
            {"b": {"spectrum": {"min_precursor_mz": 900, "max_precursor_mz": 100}}},
        ],
    )
    def test_a_bad_threshold_is_refused_in_one_line(self, tree: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=r"^x\.yaml: [^\n]+$"):
            build(GradeOptions, tree, "x.yaml")

    def test_a_threshold_that_is_not_named_asks_for_nothing(self) -> None:
        options = build(GradeOptions, {"a": {"spectrum": {"min_fragments": 1}}}, "x.yaml")
        assert options.a == GradeThresholds(FileThresholds(), SpectrumThresholds(min_fragments=1))


DATA = os.environ.get("IONBED_DATA", "")


@pytest.mark.data
@pytest.mark.skipif(not DATA, reason="IONBED_DATA does not name the folder of real data")
class TestRealRuns:
    @pytest.mark.parametrize(
        ("name", "spread"),
        [("171103_PMA_TK_QC_04-4to5min.mzML", 0.1), ("DOM_b.mzXML", 0.28)],  # mDa; both from Orbitraps
    )
    def test_an_orbitrap_run(self, name: str, spread: float) -> None:
        records = list(read_records(Path(DATA) / "raw" / name))
        statistics = statistics_of(records)
        assert statistics.is_run
        assert statistics.out_of_order == 0
        assert statistics.mass_spread == pytest.approx(spread, rel=0.3)
        assert grade_of_file(statistics) == "A"
        outcomes = [(made, harmonise(made)) for made in records]
        grades = Counter(grade_of_spectrum(made, found) for made, found in outcomes if isinstance(found, Spectrum))
        assert min(grades[grade] for grade in "AB") > 0.1 * grades.total()
        assert grades["C"] < 0.05 * grades.total()
