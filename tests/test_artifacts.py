"""Files and folders appear whole or not at all, also when the process is killed in the middle."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ionbed import __version__, artifacts
from ionbed.artifacts import (
    atomic_file,
    atomic_folder,
    exclusive,
    read_manifest,
    refuse_existing,
    refuse_input_as_output,
    sha256_of_file,
    sha256_of_json,
    write_manifest,
)
from ionbed.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_and_kill(program: str, *arguments: object) -> None:
    """Run a program that prints a line where it wants to be killed, and kill it there."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait(timeout=30) == -signal.SIGKILL
    child.stdout.close()


def test_atomic_file_replaces_only_on_success(tmp_path):
    path = tmp_path / "deep" / "table.tsv"
    with atomic_file(path) as partial:
        assert partial.parent == path.parent
        partial.write_text("old")
        assert not path.exists()
    assert path.read_text() == "old"
    with pytest.raises(RuntimeError), atomic_file(path) as partial:
        partial.write_text("half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(path.parent) == ["table.tsv"]


def test_atomic_file_after_sigkill_keeps_the_old_file_and_a_rerun_finishes(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("old")
    program = """
        import sys, time
        from ionbed.artifacts import atomic_file
        with atomic_file(sys.argv[1]) as partial:
            partial.write_text("half of the new")
            print("now", flush=True)
            time.sleep(60)
    """
    run_and_kill(program, path)
    assert path.read_text() == "old"
    with atomic_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["table.tsv"]


def test_atomic_folder_appears_whole(tmp_path):
    path = tmp_path / "deep" / "store"
    with atomic_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("a")
        assert not path.exists()
    assert (path / "inner" / "a").read_text() == "a"
    assert names(path.parent) == ["store"]


def test_atomic_folder_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "store") as partial:
        (partial / "a").write_text("a")
        raise RuntimeError
    assert names(tmp_path) == []


def test_atomic_folder_refuses_what_is_there_and_overwrites_when_told(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    with atomic_folder(path) as partial:  # an empty folder is no obstacle
        (partial / "a").write_text("old")
    with pytest.raises(InputError, match=r"not empty.*--overwrite"), atomic_folder(path):
        pytest.fail("the folder must be refused before the work starts")
    with atomic_folder(path, overwrite=True) as partial:
        (partial / "b").write_text("new")
        assert names(path) == ["a"]
    assert names(path) == ["b"]
    with pytest.raises(RuntimeError), atomic_folder(path, overwrite=True) as partial:
        raise RuntimeError
    assert names(path) == ["b"]
    assert names(tmp_path) == ["store"]


def test_refuse_existing_names_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        refuse_existing(tmp_path / "file", overwrite=True)
    refuse_existing(tmp_path / "nothing")


WRITE_AND_WAIT = """
    import sys, time
    from pathlib import Path
    from ionbed.artifacts import atomic_folder
    with atomic_folder(sys.argv[1], overwrite=True) as partial:
        (partial / "new").write_text("half")
        print("now", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("before", [False, True])
def test_atomic_folder_after_sigkill_keeps_the_old_folder_and_a_rerun_finishes(tmp_path, before):
    path = tmp_path / "store"
    if before:
        path.mkdir()
        (path / "old").write_text("old")
    run_and_kill(WRITE_AND_WAIT, path)
    assert path.exists() == before
    if before:
        assert names(path) == ["old"]
    with atomic_folder(path, overwrite=True) as partial:
        assert names(partial) == []
        (partial / "new").write_text("whole")
    assert names(path) == ["new"]
    assert (path / "new").read_text() == "whole"
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("kill_at", [1, 2])
def test_atomic_folder_killed_between_its_renames_is_mended_by_a_rerun(tmp_path, kill_at):
    path = tmp_path / "store"
    path.mkdir()
    (path / "old").write_text("old")
    program = """
        import os, sys, time
        from ionbed import artifacts
        kill_at, calls, rename = int(sys.argv[2]), 0, os.replace
        def replace(source, target):
            global calls
            calls += 1
            if calls == kill_at:
                print("now", flush=True)
                time.sleep(60)
            rename(source, target)
        artifacts.os.replace = replace
        with artifacts.atomic_folder(sys.argv[1], overwrite=True) as partial:
            (partial / "new").write_text("new")
    """
    run_and_kill(program, path, kill_at)
    with pytest.raises(RuntimeError), atomic_folder(path, overwrite=True):
        raise RuntimeError  # a rerun that fails must still give back what was there
    assert names(path) == ["old"]
    with atomic_folder(path, overwrite=True) as partial:
        (partial / "new").write_text("new")
    assert names(path) == ["new"]
    assert names(tmp_path) == ["store"]


def test_two_writers_of_one_folder_exclude_each_other(tmp_path):
    path = tmp_path / "store"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITE_AND_WAIT), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "now\n"
        with pytest.raises(InputError, match="another process"), atomic_folder(path):
            pytest.fail("the folder is locked")
        assert (tmp_path / ".store.partial" / "new").exists(), "the first writer's work must not be cleared"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_file_system_without_locks_is_written_to_with_one_warning(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(artifacts.fcntl, "flock", no_locks)
    for name in ("one", "two"):
        with atomic_folder(tmp_path / name) as partial:
            (partial / "a").write_text("a")
    assert names(tmp_path) == ["one", "two"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_manifest_round_trip(tmp_path):
    write_manifest(tmp_path, {"command": "prepare", "counts": {"read": 2}, "note": "µ"})
    manifest = read_manifest(tmp_path, made_by="prepare")
    assert manifest == {"ionbed_version": __version__, "command": "prepare", "counts": {"read": 2}, "note": "µ"}
    assert "µ" in (tmp_path / "manifest.json").read_text(encoding="utf-8")


def test_manifest_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, {"command": "prepare", "loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no manifest.json"),
        (b"", "is damaged"),
        (b'{"command": "prep', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b"{}", "was written by 'ionbed None'"),
        (b'{"command": "index build"}', "was written by 'ionbed index build'"),
    ],
)
def test_wrong_manifests_are_one_clear_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(tmp_path, made_by="prepare")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_manifest_of_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(tmp_path / "nothing", made_by="prepare")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; it should be a folder written by 'ionbed prepare'"):
        read_manifest(tmp_path / "file", made_by="prepare")


def test_hashes(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256_of_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256_of_json({"b": [1, 2.5], "a": "µ"}) == sha256_of_json(json.loads('{"a": "\\u00b5", "b": [1, 2.5]}'))
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})


def test_an_output_never_takes_the_place_of_an_input(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "x.mgf").write_text("spectra")
    (tmp_path / "link.mgf").symlink_to(folder / "x.mgf")
    for out, given, message in [
        (folder / "x.mgf", folder / "x.mgf", "is the input itself"),
        (tmp_path / "data" / ".." / "data" / "x.mgf", folder / "x.mgf", "is the input itself"),
        (tmp_path / "link.mgf", folder / "x.mgf", "is the input itself"),
        (folder, folder, "is the input itself"),
        (folder / "new.json", folder, "lies in the input"),
        (folder, folder / "x.mgf", "holds the input"),
    ]:
        with pytest.raises(InputError, match=message):
            refuse_input_as_output(out, tmp_path / "other.mgf", given)
    refuse_input_as_output(tmp_path / "new.json", folder, folder / "x.mgf", tmp_path / "nothing")
    refuse_input_as_output(tmp_path / "data2", folder)


def test_a_folder_that_a_link_leads_to_is_replaced_again_and_again_and_the_link_is_kept(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, real = tmp_path / "link", tmp_path / "elsewhere" / "real"
    link.symlink_to(real)
    for text in ("first", "second", "third"):
        with atomic_folder(link, overwrite=True) as partial:
            (partial / "a.txt").write_text(text)
        assert link.is_symlink()
        assert (real / "a.txt").read_text() == text
    assert list(tmp_path.rglob(".*")) == []
    with atomic_folder(link, overwrite=True), pytest.raises(InputError, match="another process"), exclusive(real):
        pass  # one lock, by whichever name


def test_a_lock_whose_file_was_removed_meanwhile_is_none(tmp_path, monkeypatch):
    lock = tmp_path / ".index.lock"
    monkeypatch.setattr(artifacts.fcntl, "flock", lambda *_: lock.unlink())
    with pytest.raises(InputError, match="another process"), exclusive(tmp_path / "index"):
        pass
