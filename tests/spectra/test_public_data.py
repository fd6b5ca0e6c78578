"""The registry, the folder that is written, mirrors, the command line; against a server on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ionbed import cli
from ionbed.artifacts import exclusive
from ionbed.errors import InputError
from ionbed.spectra.public_data import folder as folder_module
from ionbed.spectra.public_data import partial_file
from ionbed.spectra.public_data.download import Downloader, DownloadError, DownloadOptions
from ionbed.spectra.public_data.folder import DataFolder
from ionbed.spectra.public_data.get import download_files, get_data
from ionbed.spectra.public_data.registry import (
    PublicFile,
    PublicSet,
    format_size,
    list_data,
    load_registry,
    unsafe,
)

from .downloads import QUICK, TEXT, manifest_of, names_in, registry
from .http_server import BODY, Server, error, serve

pytestmark = pytest.mark.usefixtures("online")


def test_the_shipped_registry_is_whole():
    entries = list_data()
    names = [entry["name"] for entry in entries]
    assert {"massbank", "massspecgym", "massspecgym-1.5", "gems-a10", "gnps", "mona-positive"} <= set(names)
    assert {entry["example"][:3] for entry in entries if "accession" in entry} == {"MSV", "MTB"}
    assert load_registry().download == DownloadOptions(), "what the file says is what holds without it"
    assert all(entry["license"] and entry["citation"] and entry["description"] for entry in entries)
    for data in load_registry().sets.values():
        assert all(file.url.startswith("https://") for file in data.files)
        for file in data.files:  # a checksum stands for one version, so the URL must not be that of the newest
            assert file.size is None or "/main/" not in file.url


def test_own_sets_are_added_to_the_shipped_ones(tmp_path):
    own = registry(tmp_path, [{"path": "a.mgf", "url": "https://host/a.mgf"}])
    assert {"mine", "massbank"} <= {entry["name"] for entry in list_data(own)}
    (tmp_path / "get.yaml").write_text(own.read_text().replace("mine", "massbank"))
    assert next(e for e in list_data(tmp_path / "get.yaml") if e["name"] == "massbank")["license"] == "CC0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "../a.mgf"}, "leads out of its folder"),
        ({"path": "/etc/passwd"}, "not a relative path"),
        ({"url": "file:///etc/passwd"}, "does not begin with https"),
        ({"url": "https://me:secret@host/a.mgf"}, r"a\.mgf holds a password.*netrc"),
        ({"sha256": "12"}, "64 hexadecimal digits"),
        ({"md5": "g" * 32}, "32 hexadecimal digits"),
        ({"size": -1}, "must not be negative"),
        ({"siz": 1}, "did you mean"),
    ],
)
def test_a_wrong_registry_is_told(tmp_path, change, message):
    own = registry(tmp_path, [{"path": "a.mgf", "url": "https://host/a.mgf", **change}])
    with pytest.raises(InputError, match=message) as caught:
        load_registry(own)
    assert "my.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "a/../../b", "/a", "a//b", "a\\b", "C:/a", ".hidden", "a/.partial", "a\nb", "a\x00",
     "manifest.json", "x" * 300, "a/" * 600 + "a", "a/", "\udcff"],
)  # fmt: skip
def test_paths_that_leave_the_folder_or_collide_are_unsafe(path):
    assert unsafe(path)


@pytest.mark.parametrize("path", ["a.mzML", "FILES/a b (1)+é.mzML", "a..b", "sub/manifest.json", "µ"])
def test_ordinary_paths_are_safe(path):
    assert unsafe(path) is None


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "unknown"), (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (262334768, "262 MB"),
     (14625229880, "14.6 GB"), (999_999_999, "1.0 GB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes_are_readable(size, text):
    assert format_size(size) == text


def test_a_set_is_downloaded_described_and_not_downloaded_again(server, tmp_path):
    files = [
        {"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT)), "size": len(TEXT)},
        {"path": "sub/b.mgf", "url": server.on("/b.mgf", serve(BODY))},
    ]
    own = registry(tmp_path, files)
    manifest = get_data("mine", registry=own)
    out = tmp_path / "mine"
    assert names_in(out) == ["a.mgf", "manifest.json", "sub/b.mgf"]
    assert manifest_of(out)["command"] == "data get"
    entry = manifest["files"][1]
    assert entry["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (entry["bytes"], entry["url"], entry["etag"]) == (len(BODY), files[1]["url"], '"first"')
    assert manifest["license"] == "CC0" and manifest["failed"] == []

    requests = len(server.log)
    again = get_data("mine", registry=own)
    assert len(server.log) == requests
    assert again["files"] == manifest["files"]

    (out / "a.mgf").write_bytes(b"damaged")
    get_data("mine", registry=own)
    assert (out / "a.mgf").read_bytes() == TEXT
    assert {urlsplit(path).path for _, path, _ in server.log[requests:]} == {"/a.mgf"}


def test_the_folder_here_is_a_folder_too(server, tmp_path, monkeypatch):
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT))}])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    get_data("mine", registry=own, out=Path("."))
    assert names_in(tmp_path / "here") == ["a.mgf", "manifest.json"]


def test_a_part_of_a_set_can_be_taken_and_added_to(server, tmp_path):
    files = [
        {"path": name, "url": server.on(f"/{name}", serve(TEXT)), "size": len(TEXT)} for name in ("a.mgf", "b.msp")
    ]
    own = registry(tmp_path, files)
    get_data("mine", registry=own, include=["*.msp"])
    assert names_in(tmp_path / "mine") == ["b.msp", "manifest.json"]
    get_data("mine", registry=own)
    assert [entry["path"] for entry in manifest_of(tmp_path / "mine")["files"]] == ["a.mgf", "b.msp"]
    with pytest.raises(InputError, match=r"leaves no file of a\.mgf, b\.msp"):
        get_data("mine", registry=own, include=["*.mzML"])


def test_the_checksum_of_the_first_download_holds(server, tmp_path):
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT), serve(TEXT), serve(TEXT * 2))}])
    get_data("mine", registry=own)
    (tmp_path / "mine" / "a.mgf").unlink()
    server.on("/a.mgf", serve(TEXT * 2))
    for _ in range(2):  # the checksum is not forgotten by a run that fails
        with pytest.raises(DownloadError, match=r"SHA-256.*it was another on 20\d\d-\d\d-\d\d"):
            get_data("mine", registry=own)
        assert manifest_of(tmp_path / "mine")["files"] == []
    server.on("/a.mgf", serve(TEXT))
    get_data("mine", registry=own)
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == TEXT


def test_failures_of_single_files_are_told_at_the_end_and_the_rest_is_kept(server, tmp_path, capsys):
    files = [
        {"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT))},
        {"path": "b.mgf", "url": server.on("/b.mgf", error(404))},
        {"path": "c.mgf", "url": server.on("/c.mgf", serve(b"<!doctype html><title>Sorry</title>"))},
    ]
    own = registry(tmp_path, files)
    assert cli.main(["-q", "data", "get", "mine", "--registry", str(own)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 3 files are missing" in line and "404" in line and "Sorry" in line and "again" in line
    manifest = manifest_of(tmp_path / "mine")
    assert [entry["path"] for entry in manifest["files"]] == ["a.mgf"]
    assert [entry["path"] for entry in manifest["failed"]] == ["b.mgf", "c.mgf"]
    server.on("/b.mgf", serve(TEXT))
    server.on("/c.mgf", serve(TEXT))
    get_data("mine", registry=own)
    assert len(server.requests_of("/a.mgf")) == 1


def test_what_was_changed_and_cannot_be_had_again_is_not_listed_as_there(server, tmp_path):
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT))}])
    get_data("mine", registry=own)
    (tmp_path / "mine" / "a.mgf").write_bytes(b"changed")
    server.on("/a.mgf", error(404))
    with pytest.raises(DownloadError, match="404"):
        get_data("mine", registry=own)
    manifest = manifest_of(tmp_path / "mine")
    assert manifest["files"] == [] and manifest["failed"][0]["sha256"] == hashlib.sha256(TEXT).hexdigest()


def test_the_disk_is_looked_at_before_a_set_is_begun(server, tmp_path, monkeypatch):
    files = [
        {"path": name, "url": server.on(f"/{name}", serve(TEXT)), "size": len(TEXT)} for name in ("a.mgf", "b.mgf")
    ]
    own = registry(tmp_path, files)
    usage = shutil.disk_usage(tmp_path)._replace(free=len(TEXT) + 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DownloadError, match=rf"needs {2 * len(TEXT)} bytes, {len(TEXT) + 5} are free"):
        get_data("mine", registry=own)
    assert server.log == []
    get_data("mine", registry=own, include=["a.*"])
    usage = usage._replace(free=1)
    with pytest.raises(DownloadError, match="are free"):
        get_data("mine", registry=own, mirror=tmp_path / "mine", out=tmp_path / "x" / "y")


def test_a_disk_that_fills_up_is_told_and_what_came_is_gone_on_with(server, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve())}])
    with monkeypatch.context() as patch:
        patch.setattr(partial_file.PartialFile, "sync", full)
        with pytest.raises(DownloadError, match=r"a\.mgf: No space left on device"):
            get_data("mine", registry=own)
        patch.setattr(folder_module, "write_manifest", full)
        with pytest.raises(DownloadError, match=r"mine/manifest\.json: cannot be written \(No space left"):
            get_data("mine", registry=own)
    assert names_in(tmp_path / "mine")[:2] == [".a.mgf.partial", ".a.mgf.partial.json"]
    get_data("mine", registry=own)
    assert names_in(tmp_path / "mine") == ["a.mgf", "manifest.json"]
    assert len(server.requests_of("/a.mgf")) == 1


def test_a_folder_in_one_that_is_not_ours_is_locked_from_within(server, tmp_path, monkeypatch):
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT))}])
    given = tmp_path / "scratch" / "me"
    given.mkdir(parents=True)
    is_ours = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "scratch" and is_ours(path, mode))
    get_data("mine", registry=own, out=given)
    assert names_in(tmp_path / "scratch") == ["me/a.mgf", "me/manifest.json"]
    with exclusive(given / "downloads"), pytest.raises(InputError, match="another process"):
        get_data("mine", registry=own, out=given)
    with pytest.raises(InputError, match=r"cannot be written.*choose another folder with --out"):
        get_data("mine", registry=own, out=tmp_path / "scratch" / "you")


@pytest.mark.parametrize(
    "damage", ["{}", '{"files": [1]}', '{"files": [{"path": "a.mgf"}]}', '{"files": [], "failed": 1}']
)
def test_a_damaged_manifest_is_told(tmp_path, damage):
    own = registry(tmp_path, [{"path": "a.mgf", "url": "https://host/a.mgf"}])
    (tmp_path / "mine").mkdir()
    manifest = {"command": "data get", "name": "mine", **json.loads(damage)}
    (tmp_path / "mine" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json: is damaged"):
        get_data("mine", registry=own)
    with pytest.raises(InputError, match=r"manifest\.json: is damaged"):
        get_data("mine", registry=own, mirror=tmp_path / "mine", out=tmp_path / "copy")


def test_foreign_files_and_folders_are_left_alone(server, tmp_path):
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT)), "size": len(TEXT)}])
    out = tmp_path / "mine"
    out.mkdir()
    (out / "a.mgf").write_bytes(b"mine")
    with pytest.raises(InputError, match="was not downloaded by ionbed"):
        get_data("mine", registry=own)
    assert (out / "a.mgf").read_bytes() == b"mine"
    (out / "manifest.json").write_text('{"command": "prepare"}')
    with pytest.raises(InputError, match="written by 'ionbed prepare'"):
        get_data("mine", registry=own)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        get_data("mine", registry=own, out=tmp_path / "file")
    assert server.log == []


def test_a_file_with_a_stated_checksum_is_taken_as_it_lies(server, tmp_path):
    url, digest = server.on("/a.mgf", error(404)), hashlib.sha256(TEXT).hexdigest()
    own = registry(tmp_path, [{"path": "a.mgf", "url": url, "sha256": digest}])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.mgf").write_bytes(TEXT)
    assert get_data("mine", registry=own)["files"][0]["sha256"] == digest
    assert server.log == []


@pytest.mark.parametrize("kind", ["stated", "asked", "approximate"])
def test_a_large_download_needs_a_yes(server, tmp_path, capsys, kind):
    url = server.on("/a.mgf", serve(TEXT))
    size = {"stated": {"size": len(TEXT)}, "asked": {}, "approximate": {"approximate_size": len(TEXT)}}[kind]
    own = registry(tmp_path, [{"path": "a.mgf", "url": url, **size}], download={**QUICK, "confirm_above": 10})
    assert cli.main(["data", "get", "mine", "--registry", str(own)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert "a.mgf, " in err[0] and f"{len(TEXT)} bytes" in err[0]  # the size is shown first
    assert "pass --yes" in err[-1]
    assert server.requests_of("/a.mgf") == []
    with pytest.raises(InputError, match="nothing was downloaded"):
        get_data("mine", registry=own, confirm=lambda question: False)
    asked: list[str] = []
    get_data("mine", registry=own, out=tmp_path / "x", confirm=lambda question: not asked.append(question))
    assert f"{len(TEXT)} bytes" in asked[0]
    get_data("mine", registry=own, yes=True)
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == TEXT


@pytest.mark.parametrize("name", ["mine", "MSV000000001"])
def test_offline_is_told_in_one_line(server, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", serve(TEXT))}])
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set.*--mirror"):
        get_data(name, registry=own)
    assert server.log == []
    assert not (tmp_path / name).exists()


def test_unknown_names_are_told(tmp_path):
    with pytest.raises(InputError, match="did you mean 'massspecgym'"):
        get_data("masspecgym")
    for name, meant in (
        ("GNPS", "'gnps'"), ("GeMS", "'gems-a10' or"), ("MoNA", "'mona-positive' or 'mona-negative'"),
        ("msv000080547", "'MSV000080547'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"did you mean {meant}"):
            get_data(name)
    for name in ("MSV12", "", "such as MSV000080547"):
        with pytest.raises(InputError, match="ionbed data list"):
            get_data(name)
    with pytest.raises(InputError, match="did you mean"):
        get_data("masspecgym", mirror=tmp_path / "none")


def test_files_of_the_hub_come_from_its_endpoint(server, tmp_path, monkeypatch):
    path = "/datasets/someone/set/resolve/main/a.mgf"
    server.on(path, serve(TEXT))
    own = registry(tmp_path, [{"path": "a.mgf", "url": f"https://huggingface.co{path}"}])
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    assert get_data("mine", registry=own)["files"][0]["url"] == server.url + path
    monkeypatch.setenv("HF_ENDPOINT", "hf.example")
    with pytest.raises(InputError, match=r"HF_ENDPOINT is 'hf\.example'"):
        get_data("mine", registry=own)


def mirrored(server: Server, tmp_path: Path) -> tuple[Path, Path]:
    """A registry, and the folder that a connected machine wrote with it."""
    files = [
        {"path": name, "url": server.on(f"/{name}", serve(TEXT + name.encode()))} for name in ("a.mgf", "sub/b.mgf")
    ]
    own = registry(tmp_path, files)
    get_data("mine", registry=own, out=tmp_path / "disk" / "mine")
    return own, tmp_path / "disk"


@pytest.mark.parametrize("inner", ["", "mine"])
def test_a_mirror_needs_no_network(server, tmp_path, monkeypatch, inner):
    own, disk = mirrored(server, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.close()
    get_data("mine", registry=own, mirror=disk / inner, include=["a.*"])
    assert names_in(tmp_path / "mine") == ["a.mgf", "manifest.json"]
    manifest = get_data("mine", registry=own, mirror=disk / inner)
    assert names_in(tmp_path / "mine") == names_in(disk / "mine")
    original = manifest_of(disk / "mine")["files"]
    assert [(e["path"], e["sha256"], e["url"]) for e in manifest["files"]] == [
        (e["path"], e["sha256"], e["url"]) for e in original
    ]


def test_a_mirror_is_checked(server, tmp_path):
    own, disk = mirrored(server, tmp_path)
    (disk / "mine" / "a.mgf").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"1 of 2 files are missing \(a.mgf: .*SHA-256"):
        get_data("mine", registry=own, mirror=disk)
    assert names_in(tmp_path / "mine") == ["manifest.json", "sub/b.mgf"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        get_data("mine", registry=own, mirror=tmp_path / "empty")
    with pytest.raises(InputError, match="input itself"):
        get_data("mine", registry=own, mirror=disk, out=disk / "mine")
    with pytest.raises(InputError, match="holds 'mine', not 'massbank'"):
        get_data("massbank", mirror=disk / "mine")
    manifest = manifest_of(disk / "mine")
    manifest["files"][0]["path"] = "../../escape"
    (disk / "mine" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"is damaged.*leads out of its folder"):
        get_data("mine", registry=own, mirror=disk)
    assert not list(tmp_path.parent.glob("escape"))


def test_a_mirror_of_another_version_is_refused(server, tmp_path):
    own, disk = mirrored(server, tmp_path)
    own.write_text(own.read_text().replace("- path: a.mgf", f"- path: a.mgf\n      sha256: '{'0' * 64}'"))
    with pytest.raises(InputError, match=r"a\.mgf: is not the version that is registered"):
        get_data("mine", registry=own, mirror=disk)


def test_many_files_are_got_in_time_that_grows_with_their_number(tmp_path, monkeypatch):
    """Without a server: what is measured is the keeping of books on 20,000 files."""
    files = tuple(PublicFile(f"{number}.txt", "https://host/x", 1) for number in range(20_000))
    folder = DataFolder("mine", tmp_path, PublicSet("d", "CC0", "c", "h", "text", files))
    monkeypatch.setattr(folder, "receive", lambda file, downloader, advance: advance(1))
    started = time.process_time()
    assert download_files(folder, files, Downloader(DownloadOptions())) == {}
    assert time.process_time() - started < 3


@pytest.mark.parametrize("columns", [None, "80", "140"])
def test_list_shows_a_table_and_json(tmp_path, capsys, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(f" {name} " in out for name in load_registry().sets), "a name that is cut cannot be typed"
    assert "gems-a10" in out and "14.6 GB" in out and "unknown" in out and "MIT" in out
    assert cli.main(["data", "list", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["gems-a10"]["bytes"] == 14_625_229_880
    assert entries["massbank"]["bytes"] is None
