"""Parquet: stores read back as they were, shards alone, and files of other programs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.cleaning import CleaningOptions
from ionbed.spectra.harmonise import Dropped, harmonise
from ionbed.spectra.prepare import prepare
from ionbed.spectra.readers import parquet, parse_block, read_blocks, read_records
from ionbed.spectra.spectrum import Spectrum
from ionbed.spectra.store import SCHEMA, Store, table_from_spectra

MGF = (
    "BEGIN IONS\nTITLE={title}\nPEPMASS={mz}\nCHARGE=1+\nADDUCT=[M+H]+\nIONMODE=Positive\nMSLEVEL=2\n"
    "COLLISION_ENERGY=35 eV\nRTINSECONDS=12.3\nSMILES=CCO\nNAME=ethanol\n{peaks}\nEND IONS\n\n"
)


@pytest.fixture
def store(tmp_path):
    """A store with ids made unique, and peaks at the limits of what cleaning keeps."""
    random = np.random.default_rng(0)
    text = ""
    for n in range(40):
        mz = np.sort(random.uniform(50, 200, 30))
        mz[1::3] = mz[::3] + 0.0007
        intensity = random.uniform(1, 1000, 30)
        intensity[3] = intensity.max() / 1000
        peaks = "\n".join(f"{a:.6f} {b:.4f}" for a, b in zip(mz, intensity, strict=True))
        text += MGF.format(title=f"t{n // 2}", mz=300.1 + n, peaks=peaks)
    (tmp_path / "in.mgf").write_text(text)
    prepare([tmp_path / "in.mgf"], tmp_path / "store", workers=1)
    return tmp_path / "store"


def same(a: Spectrum, b: Spectrum) -> bool:
    names = [f.name for f in dataclasses.fields(Spectrum) if f.name not in ("mz", "intensity")]
    return (
        all(getattr(a, name) == getattr(b, name) for name in names)
        and np.array_equal(a.mz, b.mz)
        and np.array_equal(a.intensity, b.intensity)
        and a.mz.dtype == b.mz.dtype
    )


def test_a_store_is_read_back_as_it_was_made(store):
    kept = list(Store(store))
    reader = ionbed.read(store)
    again = list(reader)
    assert len(kept) == len(again) == reader.report.kept > 30
    assert all(same(a, b) for a, b in zip(kept, again, strict=True))
    assert not reader.report.repaired


def test_one_shard_alone_whatever_its_name_is_read_as_the_store_is(store, tmp_path):
    (tmp_path / "shard.mgf").write_bytes(next(store.glob("spectra-*.parquet")).read_bytes())
    first = next(iter(Store(store)))
    (record, *_) = read_records(tmp_path / "shard.mgf")
    assert (record.source_file, record.position, record.native_id) == ("shard.mgf", 1, first.spectrum_id)
    assert record.fields["collision_energy"] == "35 eV"
    assert record.fields["retention_time"] == "12.3 s"
    assert same(harmonise(record), first)


def test_what_was_prepared_is_held_to_other_options(store):
    few = list(ionbed.read(store, options=CleaningOptions(max_peaks=5)))
    assert {len(s) for s in few} == {5}
    assert list(ionbed.read(store, options=CleaningOptions(min_peaks=500))) == []
    record = next(read_records(store))
    assert harmonise(record, ms_levels=(3,)) == Dropped("ms-level", "MS level 2")


def test_preparing_a_store_gives_its_spectra_again(store, tmp_path):
    prepare([store], tmp_path / "again", workers=1)
    first, again = ({s.spectrum_id: s for s in Store(folder)} for folder in (store, tmp_path / "again"))
    assert first.keys() == again.keys()
    for name, spectrum in again.items():
        assert np.array_equal(spectrum.mz, first[name].mz)
        assert spectrum.native_id == first[name].native_id
        assert spectrum.source_file == "in.mgf"


def test_of_a_store_in_a_folder_only_the_shards_are_read(store, caplog):
    (store.parent / "in.mgf").unlink()
    assert len(list(read_records(store.parent))) == len(Store(store))
    assert "left out" not in caplog.text


def test_a_damaged_store_is_told_at_the_call(store):
    shard = next(store.glob("spectra-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged or cannot be read"):
        ionbed.read(store)


def foreign(**columns):
    given = {
        "precursor_mz": pa.array([200.1, 300.2, 400.3]),
        "mz": pa.array([[50.5, 60.25], [70.5], []]),
        "intensity": pa.array([[10.0, 20.5], [1.0], []]),
    }
    return pa.table({name: column for name, column in {**given, **columns}.items() if column is not None})


def test_optional_columns_may_be_missing(tmp_path):
    pq.write_table(foreign(), tmp_path / "x.parquet")
    records = list(read_records(tmp_path / "x.parquet"))
    assert [(r.position, r.native_id, len(r), r.problem) for r in records] == [
        (1, "", 2, None), (2, "", 1, None), (3, "", 0, "no-peaks"),
    ]  # fmt: skip
    assert records[0].fields == {"precursor_mz": "200.1"}
    assert records[0].mz.tolist() == [50.5, 60.25]
    assert records[0].prepared is None


@pytest.mark.parametrize("list_type", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int32())])
def test_columns_of_other_programs(tmp_path, list_type):
    table = pa.table({
        "identifier": ["a", "b"],
        "mzs": pa.array([[50, 60], [70, 80]], list_type),
        "intensities": pa.array([[1, 2], [3, None]], list_type),
        "Precursor MZ": pa.array([200.1, None], pa.float32()),
        "collision_energy": pa.array([35.0, float("nan")], pa.float32()),
        "retention_time": [12.5, None],
        "polarity": pa.array([1, -1], pa.int8()),
        "adduct": ["[M+H]+", None],
        "predicted": [True, False],
        "embedding": [[0.1, 0.2], [0.3, 0.4]],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.pq")
    first, second = read_records(tmp_path / "x.pq")
    assert (first.native_id, first.mz.tolist(), first.intensity.tolist()) == ("a", [50, 60], [1, 2])
    assert first.fields == {
        "precursor_mz": "200.1", "collision_energy": "35.0 eV", "retention_time": "12.5", "polarity": "1",
        "adduct": "[M+H]+", "predicted": "true",
    }  # fmt: skip
    assert second.fields == {"polarity": "-1", "predicted": "false"}


def test_a_bad_row_costs_only_itself(tmp_path):
    spectra = [
        Spectrum(f"s{n}", 200.0, np.array([50.0, 60.0], np.float32), np.array([0.5, 1.0], np.float32)) for n in range(3)
    ]
    table = table_from_spectra(spectra)
    short = pa.array([[1.0, 0.5], [1.0], [1.0, 0.5]], pa.list_(pa.float32()))
    pq.write_table(
        table.set_column(table.schema.get_field_index("intensity"), "intensity", short), tmp_path / "a.parquet"
    )
    records = list(read_records(tmp_path / "a.parquet"))
    assert [(r.native_id, r.problem) for r in records] == [("s0", None), ("s1", "bad-binary-array"), ("s2", None)]
    pq.write_table(foreign(mz=pa.array([[50.5, 60.25], None, []])), tmp_path / "b.parquet")
    assert [r.problem for r in read_records(tmp_path / "b.parquet")] == [None, "bad-binary-array", "no-peaks"]


@pytest.mark.parametrize(
    ("table", "missing"),
    [
        (foreign(mz=None), "mz"),
        (foreign(precursor_mz=None), "precursor_mz"),
        (foreign(intensity=pa.array(["1", "2", "3"])), "intensity"),
        (pa.table({"a": [1]}), "mz, intensity, precursor_mz"),
    ],
)
def test_a_file_of_another_schema_is_told_with_what_it_lacks(tmp_path, table, missing):
    pq.write_table(table, tmp_path / "x.parquet")
    for call in (read_blocks, ionbed.read):
        with pytest.raises(InputError, match=f"without the column {missing};") as caught:
            call(tmp_path / "x.parquet")
        assert "x.parquet" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [8, 200, -9])
def test_a_truncated_file_is_one_clear_line_and_in_a_folder_one_record(tmp_path, keep):
    pq.write_table(foreign(), tmp_path / "good.parquet")
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"bad.parquet: is a damaged Parquet file \(.*\); get it anew"):
        read_records(tmp_path / "bad.parquet")
    records = list(read_records(tmp_path))
    assert [(r.source_file.rpartition("/")[2], r.problem) for r in records] == [
        ("bad.parquet", "truncated"), ("good.parquet", None), ("good.parquet", None), ("good.parquet", "no-peaks"),
    ]  # fmt: skip


def test_a_damaged_page_costs_its_row_group_at_most(tmp_path):
    random = np.random.default_rng(1)
    mz = pa.array([random.uniform(50, 500, 40).tolist() for _ in range(3000)])
    table = pa.table({"precursor_mz": random.uniform(100, 900, 3000), "mz": mz, "intensity": mz})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1000, compression="zstd", use_dictionary=False)
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    (tmp_path / "x.parquet").write_bytes(data)
    problems = [r.problem for r in read_records(tmp_path / "x.parquet")]
    assert len(problems) == 3000
    assert set(problems[1000:2000]) <= {None, "bad-binary-array"}
    assert "bad-binary-array" in problems
    assert problems[:1000] == problems[2000:] == [None] * 1000


@pytest.mark.parametrize("group_size", [1, 7, 40, 100])
def test_slices_of_any_size_give_every_row_once(tmp_path, monkeypatch, group_size):
    monkeypatch.setattr(parquet, "_ROWS_PER_SLICE", 16)
    monkeypatch.setattr(parquet, "_ROWS_PER_BATCH", 5)
    table = pa.table({
        "precursor_mz": np.arange(100.0) + 100, "mz": [[float(n + 50)] for n in range(100)], "intensity": [[1.0]] * 100,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=group_size)
    blocks = list(read_blocks(tmp_path / "x.parquet"))
    assert len(blocks) >= 6
    records = [record for block in blocks for record in parse_block(block)]
    assert [r.position for r in records] == list(range(1, 101))
    assert [r.mz[0] for r in records] == [float(n + 50) for n in range(100)]


def test_the_store_schema_and_the_fields_of_a_prepared_record_do_not_drift_apart(store):
    record = next(read_records(store))
    assert set(SCHEMA.names) >= {"spectrum_id", "flags", *record.fields} - {"collision_energy"}
