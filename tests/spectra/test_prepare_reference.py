"""prepare beside a plain loop over all records in one process: the same spectra, ids and reasons, on any input."""

from __future__ import annotations

import csv
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ionbed.spectra.prepare as module
from ionbed.spectra.columns import SpectrumColumns
from ionbed.spectra.deduplication import UniqueNames, measurement_key
from ionbed.spectra.grades import FileStatistics, GradeOptions, grade_of_file, grade_of_spectrum, worse
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.near_duplicates import NearDuplicateOptions, bucket_keys, conditions_of, keep_in_bucket
from ionbed.spectra.preparation import parts, shuffle, units
from ionbed.spectra.prepare import PrepareOptions, prepare
from ionbed.spectra.readers import read_records
from ionbed.spectra.store import Store

Row = tuple[str, str, str]


def reference(files: list[Path], options: PrepareOptions) -> tuple[list[tuple[str, str, str | None, str]], set[Row]]:
    """Return (id, source file, native id, grade) of what stays, in order, and (file, position, reason) of the rest."""
    rows, went = [], set()
    for file in files:
        statistics, of_file = FileStatistics(), []
        for record in read_records(file):
            outcome = harmonise(record, options.cleaning, ms_levels=options.ms_levels, metadata=options.metadata)
            statistics.add(record, outcome)
            if isinstance(outcome, Dropped):
                went.add((file.name, str(record.position), outcome.reason))
            else:
                of_file.append((record, outcome, grade_of_spectrum(record, outcome, options.grades)))
        file_grade = grade_of_file(statistics, options.grades)
        rows += [(record, spectrum, worse(grade, file_grade)) for record, spectrum, grade in of_file]
    stays = list(range(len(rows)))

    def drop(gone: set[int], reason: str) -> None:
        for i in gone:
            went.add((rows[i][0].source_file, str(rows[i][0].position), reason))
        stays[:] = [i for i in stays if i not in gone]

    drop({i for i in stays if options.grades.is_dropped(rows[i][2])}, "grade")
    seen: set[bytes] = set()
    copies = set()
    for i in stays:
        key = measurement_key(rows[i][1])
        if key in seen:
            copies.add(i)
        seen.add(key)
    drop(copies, "duplicate")
    near = options.near_duplicates
    for table in range(near.tables if near.keep is not None else 0):
        buckets: dict[int, list[int]] = defaultdict(list)
        for i in stays:
            columns = SpectrumColumns.from_spectra([rows[i][1]])
            buckets[int(bucket_keys(columns, [conditions_of(rows[i][1])], near)[0, table])].append(i)
        gone = set()
        for members in buckets.values():
            members = sorted(members, key=lambda i: (rows[i][2], i))
            kept = keep_in_bucket(SpectrumColumns.from_spectra([rows[i][1] for i in members]), near)
            gone |= {i for i, keep in zip(members, kept, strict=True) if not keep}
        drop(gone, "near-duplicate")
    names = UniqueNames()
    return [
        (names.assign(rows[i][1].spectrum_id), rows[i][0].source_file, rows[i][1].native_id, rows[i][2]) for i in stays
    ], went


@st.composite
def records(draw: st.DrawFn) -> str:
    title = draw(st.sampled_from(["a", "a", "a#2", "a#2#2", "b", "#2", "é", ""]))
    precursor = draw(st.sampled_from(["195.0877", "195.0877", "195.0879", "300.1", "N/A"]))
    charge = draw(st.sampled_from(["1+", "1+", "1-"]))
    weak = draw(st.integers(1, 4))
    peaks = draw(
        st.sampled_from([f"110.0711 {weak}0\n138.0662 100\n", "110.0711 20\n138.0662 100\n150.5 3\n", "oops\n"])
    )
    return f"BEGIN IONS\nTITLE={title}\nPEPMASS={precursor}\nCHARGE={charge}\nMSLEVEL=2\n{peaks}END IONS\n\n"


@settings(max_examples=25, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    files=st.lists(st.lists(records(), min_size=0, max_size=12), min_size=1, max_size=5),
    keep=st.sampled_from([None, 1, 2]),
    minimum=st.sampled_from(["C", "C", "B"]),
    rows_per_group=st.sampled_from([1, 5, 1 << 20]),
    smallest_range=st.sampled_from([1, 3, 1 << 13]),
    rows_per_shard=st.sampled_from([1, 3, 1000]),
    smallest_unit=st.sampled_from([1, 400, 4 << 20]),
)
def test_prepare_does_what_a_plain_loop_does(
    files: list[list[str]], keep: int | None, minimum: str, rows_per_group: int, smallest_range: int,
    rows_per_shard: int, smallest_unit: int,
) -> None:  # fmt: skip
    options = PrepareOptions(
        rows_per_shard=rows_per_shard,
        grades=GradeOptions(minimum=minimum),  # type: ignore[arg-type]
        near_duplicates=NearDuplicateOptions(keep=keep, tables=2, similarity=0.98),
    )
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        paths = []
        for number, texts in enumerate(files):
            paths.append(folder / f"{number}.mgf")
            paths[-1].write_text("".join(texts) or "\n\nBEGIN IONS\nTITLE=cut", encoding="utf-8")
        expected, went = reference(paths, options)
        patch.setattr(module, "write_report", lambda *_: None)  # it would take most of the time
        patch.setattr(parts, "ROWS_PER_GROUP", rows_per_group)
        patch.setattr(parts, "SMALLEST_GROUP", 1)
        patch.setattr(shuffle, "SMALLEST_RANGE", smallest_range)
        patch.setattr(units, "SMALLEST_UNIT_BYTES", smallest_unit)
        if not expected:
            with pytest.raises(ValueError, match="nothing was written"):
                prepare(paths, folder / "store", options=options, workers=1)
            assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
            return
        counts = prepare(paths, folder / "store", options=options, workers=1)["counts"]
        found = [(s.spectrum_id, s.source_file, s.native_id, s.grade) for s in Store(folder / "store")]
        assert found == expected
        assert len({row[0] for row in found}) == len(found)
        with open(folder / "store" / "dropped.tsv", encoding="utf-8", newline="") as stream:
            listed = [
                (row["source_file"], row["position"], row["reason"]) for row in csv.DictReader(stream, delimiter="\t")
            ]
        assert set(listed) == went
        assert len(listed) == len(went) == sum(counts["dropped"].values()) == counts["read"] - len(found)


def test_every_key_falls_into_one_range(tmp_path: Path) -> None:
    keys = np.array([0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1], np.uint64)
    entries = np.zeros(len(keys), shuffle._ENTRY)
    entries["key"], entries["row"] = keys, np.arange(len(keys))
    run = tmp_path / "x-run-000000.npy"
    np.save(run, entries)
    np.save(shuffle._keys_of(run), entries["key"])
    for num_ranges in (1, 2, 3, 32, 1000):
        borders = [(i << 64) // num_ranges for i in range(num_ranges + 1)]
        found = [shuffle._range_of([run], *span)["row"] for span in pairwise(borders)]
        assert np.concatenate(found).tolist() == list(range(len(keys)))
