"""HDF5 as the DreaMS project lays it out: GeMS, converted runs, labelled libraries."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

import ionbed
from ionbed.errors import InputError
from ionbed.spectra.readers import hdf5, hdf5_guard, parse_block, read_blocks, read_records

PEAKS = [[[50.5, 60.25, 0, 0], [10.0, 20.5, 0, 0]], [[70.5, 80.5, 90.5, 0], [1.0, 2.0, 3.0, 0]]]
TEXT = h5py.string_dtype()


def write(path, *, group="", attrs=None, **datasets):
    with h5py.File(path, "w") as file:
        target = file.create_group(group) if group else file
        for name, value in datasets.items():
            key = name.replace("__", " ")
            is_text = isinstance(value, list) and isinstance(value[0], str)
            target.create_dataset(key, data=value, **({"dtype": TEXT} if is_text else {}))
    return path


def gems(path, **more):
    return write(
        path,
        spectrum=np.array(PEAKS, np.float64),
        **{
            "precursor_mz": np.array([200.1, 300.2], np.float32),
            "charge": np.array([1, -1], np.int8),
            "RT": np.array([12.3, -1], np.float32),
            "name": ["run_a", "run_b"],
            "lsh": np.array([5, 6]),
            "instrument accuracy est.": np.array([1e-3, 1e-3]),
            **more,
        },
    )


def test_gems(tmp_path):
    first, second = read_records(gems(tmp_path / "GeMS_A.hdf5"))
    assert first.fields == {"precursor_mz": "200.1", "charge": "1", "retention_time": "12.3"}
    assert (first.source_file, first.position, first.native_id) == ("GeMS_A.hdf5!run_a", 1, "")
    assert (first.mz.tolist(), first.intensity.tolist()) == ([50.5, 60.25], [10.0, 20.5])
    assert second.fields == {"precursor_mz": "300.2"}  # -1 stands for unknown
    assert (second.source_file, second.position, len(second)) == ("GeMS_A.hdf5!run_b", 2, 3)
    assert [s.spectrum_id for s in ionbed.read(tmp_path / "GeMS_A.hdf5")] == [
        "GeMS_A.hdf5!run_a#1",
        "GeMS_A.hdf5!run_b#2",
    ]


def test_a_converted_run(tmp_path):
    path = gems(
        tmp_path / "run.hdf5",
        file_name=["run.mzML", "run.mzML"],
        name=["x", "y"],
        scan_number=np.array([7, 9]),
        polarity=np.array([0, 1], np.int8),
        charge=np.array([-1, 0], np.int8),
        energy=np.array([35.0, 0.0], np.float32),
        **{"MS level": np.array([2, 3], np.int8), "smiles": ["CCO", ""], "adduct": ["[M-H]-", ""]},
    )
    first, second = read_records(path, ms_levels=(2,))
    assert (first.source_file, first.native_id) == ("run.hdf5!run.mzML", "scan=7")
    assert first.fields == {
        "precursor_mz": "200.1", "charge": "-1", "polarity": "negative", "retention_time": "12.3",
        "collision_energy": "35.0 eV", "ms_level": "2", "smiles": "CCO", "adduct": "[M-H]-", "name": "x",
    }  # fmt: skip
    assert second.fields == {"precursor_mz": "300.2", "polarity": "positive", "ms_level": "3", "name": "y"}
    assert (len(second), second.problem) == (0, None)  # not the level that was asked for


def test_of_a_labelled_library_the_name_is_the_compound(tmp_path):
    first, _ = read_records(gems(tmp_path / "x.hdf5", smiles=["CCO", "CCC"], identifier=["A1", "A2"]))
    assert (first.source_file, first.native_id) == ("x.hdf5", "A1")
    assert first.fields["name"] == "run_a"


def test_older_layouts_give_the_same_peaks(tmp_path):
    peaks = np.array(PEAKS)
    write(tmp_path / "a.hdf5", spectra=peaks.transpose(0, 2, 1), precursor__mz=[200.1, 300.2])
    write(tmp_path / "b.hdf5", group="MSn data", mzs=peaks[:, 0], intensities=peaks[:, 1], precursor_mz=[200.1, 300.2])
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        for place, name in enumerate(("mzs", "intensities")):
            ragged = file.create_dataset(name, (2,), h5py.vlen_dtype(np.float64))
            ragged[0], ragged[1] = peaks[0, place, :2], peaks[1, place, :3]
        file["precursor_mz"] = [200.1, 300.2]
    for name in "abc":
        records = list(read_records(tmp_path / f"{name}.hdf5"))
        assert [r.mz.tolist() for r in records] == [[50.5, 60.25], [70.5, 80.5, 90.5]]
        assert [r.intensity.tolist() for r in records] == [[10.0, 20.5], [1.0, 2.0, 3.0]]
        assert [r.fields["precursor_mz"] for r in records] == ["200.1", "300.2"]


def many(path, num_rows=500, chunk=None, **options):
    random = np.random.default_rng(0)
    peaks = random.uniform(50, 500, (num_rows, 2, 16))
    with h5py.File(path, "w") as file:
        file.create_dataset("spectrum", data=peaks, chunks=(chunk, 2, 16) if chunk else None, **options)
        file["precursor_mz"] = np.arange(num_rows) + 100.0
    return path


@pytest.mark.parametrize("chunk", [None, 1, 7, 64, 500])
def test_slices_are_small_divide_no_chunk_and_give_every_row_once(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 10_000)
    path = many(tmp_path / "x.hdf5", chunk=chunk)
    slices = hdf5.HDF5.slices(path)
    assert [row for rows in slices for row in rows] == list(range(500))
    assert max(map(len, slices)) <= max(10_000 // 256, chunk or 1)
    assert all(rows.start % (chunk or 1) == 0 for rows in slices)
    blocks = list(read_blocks(path))
    assert len(blocks) == len(slices)
    records = [r for block in blocks for r in parse_block(pickle.loads(pickle.dumps(block)))]
    assert [r.fields["precursor_mz"] for r in records] == [str(n + 100.0) for n in range(500)]


def test_a_damaged_chunk_costs_its_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 100 * 256)
    path = many(tmp_path / "x.hdf5", chunk=100, compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        offset = file["spectrum"].id.get_chunk_info(2).byte_offset
    data = bytearray(path.read_bytes())
    data[offset + 50 : offset + 80] = bytes(30)
    path.write_bytes(data)
    problems = [r.problem for r in read_records(path)]
    assert problems == [None] * 200 + ["bad-binary-array"] * 100 + [None] * 200


@pytest.mark.parametrize("keep", [20, 3000, -100])
def test_a_truncated_file_is_one_clear_line_and_in_a_folder_one_record(tmp_path, keep):
    gems(tmp_path / "good.hdf5")
    (tmp_path / "bad.hdf5").write_bytes(many(tmp_path / "x").read_bytes()[:keep])
    (tmp_path / "x").unlink()
    for call in (read_blocks, ionbed.read):
        with pytest.raises(InputError, match=r"bad.hdf5: is a damaged HDF5 file \(.*\); get it anew"):
            call(tmp_path / "bad.hdf5")
    records = list(read_records(tmp_path))
    assert [(r.source_file.partition("/")[2], r.problem) for r in records] == [
        ("bad.hdf5", "truncated"), ("good.hdf5!run_a", None), ("good.hdf5!run_b", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "datasets", [{"a": [1]}, {"spectrum": PEAKS}, {"spectrum": [1, 2], "precursor_mz": [1, 2]},
                 {"mz": [1.0], "intensity": [1.0], "precursor_mz": [1.0]}],
)  # fmt: skip
def test_another_layout_is_told_with_what_is_needed(tmp_path, datasets):
    write(tmp_path / "x.h5", **datasets)
    with pytest.raises(InputError, match=r"x.h5: is HDF5 without the datasets of GeMS; 'spectrum'") as caught:
        read_records(tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


def test_without_h5py_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = gems(tmp_path / "x.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    for where in (path, tmp_path):
        with pytest.raises(InputError, match=r"x.hdf5: is HDF5, which needs h5py; .*pip install 'ionbed\[hdf5\]'"):
            list(read_records(where))


def test_content_tells_the_format_whatever_the_name(tmp_path):
    gems(tmp_path / "spectra.mgf")
    assert [len(r) for r in read_records(tmp_path / "spectra.mgf")] == [2, 3]


def test_damage_anywhere_in_a_file_is_one_clear_line_or_records_with_a_reason(tmp_path):
    path, random = gems(tmp_path / "x.hdf5"), np.random.default_rng(0)
    whole, told = path.read_bytes(), []
    mark = whole.index(b"SNOD")  # the table of the names, which is read after the file was opened
    for place in [mark, *random.integers(8, len(whole), 150).tolist()]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert all(record.problem or len(record) for record in read_records(path)), place
        except InputError as error:
            told.append(str(error))
    assert "x.hdf5: is a damaged HDF5 file (" in told[0]
    assert not any("\n" in line for line in told)


def test_a_dataset_whose_name_is_not_utf8_is_passed_over(tmp_path):
    path = gems(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        file[b"\xff\xfe"] = [1, 2]
    assert [len(record) for record in read_records(path)] == [2, 3]


def endless(path):
    """Make libhdf5 loop for ever in a file: the first free space in its heap of texts is said to be empty."""
    whole = bytearray(path.read_bytes())
    place = whole.index(b"GCOL")
    whole[place + 16 : place + 32] = bytes(16)
    path.write_bytes(whole)
    return path


@pytest.fixture
def little_time(monkeypatch):
    monkeypatch.setattr(hdf5_guard, "CPU_SECONDS", 1.0)


@pytest.mark.usefixtures("little_time")
def test_a_file_in_which_libhdf5_loops_ends_with_one_line_and_the_next_one_is_read(tmp_path, caplog):
    path = endless(gems(tmp_path / "x.hdf5"))
    assert [record.problem for record in read_records(path)] == ["bad-binary-array"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "x.hdf5: rows 1 to 2 cannot be read: the file is damaged (libhdf5 does not come to an end with it); get it anew"
    ]
    assert [len(record) for record in read_records(gems(tmp_path / "y.hdf5"))] == [2, 3]


@pytest.mark.usefixtures("little_time")
def test_of_a_file_with_many_such_slices_three_are_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 64)
    rows = {"spectrum": np.array(PEAKS * 4, np.float64), "precursor_mz": np.arange(8) + 100.0, "name": ["run"] * 8}
    path = endless(write(tmp_path / "x.hdf5", **rows))
    started = time.monotonic()
    assert [record.problem for record in read_records(path)] == ["bad-binary-array"] * 8
    assert time.monotonic() - started < 30
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert told[-1].endswith("get it anew; no more of it is tried")


def test_a_file_that_is_read_once_more_gives_the_same_records(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "BLOCK_BYTES", 64)
    path = write(tmp_path / "x.hdf5", spectrum=np.array(PEAKS * 4, np.float64), precursor_mz=np.arange(8) + 100.0)
    read = hdf5_guard.columns_of

    def ended(path, rows):
        if rows.start >= 4:
            raise hdf5_guard.ReadingEndedError("ended")
        return read(path, rows)

    monkeypatch.setattr(hdf5_guard, "columns_of", ended)
    for _ in range(2):
        assert [record.problem for record in read_records(path)] == [None] * 4 + ["bad-binary-array"] * 4


def test_files_of_the_working_folder_are_no_modules_of_the_process(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not a module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.setattr(hdf5_guard, "_readers", {})
    assert [len(record) for record in read_records(gems(tmp_path / "x.hdf5"))] == [2, 3]
    hdf5_guard._readers[os.getpid()].close()


def test_the_process_finds_what_a_script_has_put_on_its_path(tmp_path, monkeypatch):
    (tmp_path / "begun.py").write_text("from ionbed.spectra.readers.hdf5_process import main")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(hdf5_guard, "_MODULE", "begun")
    monkeypatch.setattr(hdf5_guard, "_readers", {})
    assert [len(record) for record in read_records(gems(tmp_path / "x.hdf5"))] == [2, 3]
    hdf5_guard._readers[os.getpid()].close()


def test_a_process_that_crashes_is_told_and_replaced(tmp_path, monkeypatch):
    path = gems(tmp_path / "x.hdf5")
    crashing = "import os; print('ready', flush=True); input(); os.kill(os.getpid(), 11)"
    started = subprocess.Popen
    with monkeypatch.context() as patched:
        patched.setattr(hdf5_guard, "_readers", {})
        patched.setattr(subprocess, "Popen", lambda args, **more: started([args[0], "-c", crashing], **more))
        with pytest.raises(
            InputError, match=r"x.hdf5: is a damaged HDF5 file \(libhdf5 crashes on it.*\); get it anew"
        ):
            read_records(path)
        patched.setattr(subprocess, "Popen", lambda args, **more: started([args[0], "-c", ""], **more))
        with pytest.raises(InputError, match=r"x.hdf5: the process that reads HDF5 cannot be started; see why with: "):
            read_records(path)
        patched.undo()
    assert [len(record) for record in read_records(path)] == [2, 3]


def test_time_without_computing_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_guard, "CPU_SECONDS", 1.0)
    path = gems(tmp_path / "x.hdf5")
    assert [len(record) for record in read_records(path)] == [2, 3]
    process = hdf5_guard._readers[os.getpid()]._process
    process.send_signal(signal.SIGSTOP)  # as a suspended job
    threading.Timer(2, process.send_signal, [signal.SIGCONT]).start()
    assert [len(record) for record in read_records(path)] == [2, 3]
    assert hdf5_guard._readers[os.getpid()]._process is process


def test_forked_processes_and_threads_that_read_at_once_get_their_own_rows(tmp_path):
    paths = [many(tmp_path / f"{n}.hdf5", num_rows=100 + n) for n in range(4)]
    counted = [len(list(read_records(paths[0])))]  # this process has a reader before it forks
    with multiprocessing.get_context("fork").Pool(2) as pool:
        counted += pool.map(_num_records, paths, chunksize=1)
    with ThreadPoolExecutor(4) as threads:
        counted += threads.map(_num_records, paths * 3)
    assert counted == [100, *[100, 101, 102, 103] * 4]


def _num_records(path):
    return len(list(read_records(path)))


def test_peak_lists_of_unlike_lengths_cost_their_row(tmp_path):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for name, lengths in (("mzs", (2, 3, 1)), ("intensities", (2, 1, 1))):
            ragged = file.create_dataset(name, (3,), h5py.vlen_dtype(np.float64))
            for row, length in enumerate(lengths):
                ragged[row] = np.arange(1.0, length + 1)
        file["precursor_mz"] = [200.1, 300.2, 400.3]
    assert [(r.problem, r.mz.tolist()) for r in read_records(path)] == [
        (None, [1.0, 2.0]), ("bad-binary-array", []), (None, [1.0]),
    ]  # fmt: skip


def test_directly_read_rows_are_the_same(tmp_path, monkeypatch):
    path = gems(tmp_path / "x.hdf5")
    asked = [str(record) for record in read_records(path)]
    monkeypatch.setattr(hdf5_guard, "_is_direct", True)
    monkeypatch.setattr(hdf5_guard, "_ask", None)
    assert [str(record) for record in read_records(path)] == asked
