"""The registry, accessions, the folder that is written, mirrors, the command line; against a server on 127.0.0.1."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from ionbed import cli
from ionbed.artifacts import exclusive
from ionbed.errors import InputError
from ionbed.spectra.public_data import accessions, partial_file
from ionbed.spectra.public_data import folder as folder_module
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

from .http_server import BODY, Handler, Server, error, serve

TEXT = b"BEGIN IONS\nPEPMASS=100\n50 1\nEND IONS\n"
ABOUT = {"description": "d", "license": "CC0", "citation": "c", "homepage": "h"}
FAST = {"attempts": 3, "first_pause": 0.01, "longest_pause": 0.02, "seconds_between_requests": 0.0}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    """The network that these tests use is this machine; sets without --out go to where they run."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)


def registry(tmp_path: Path, files: list[dict[str, object]], **more: object) -> Path:
    path = tmp_path / "my.yaml"
    own = {"sets": {"mine": {**ABOUT, "format": "MGF", "files": files}}, "download": FAST, **more}
    path.write_text(yaml.safe_dump(own))
    return path


def manifest_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text())


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accession": "("}, "not a regular expression"),
        ({"example": "X1"}, "does not match"),
        ({"download_url": "https://host/{accession}"}, "does not hold {path}"),
        ({"download_url": "https://host/{study}/{path}"}, "no braces but"),
        ({"listing": "ftp"}, "must be one of"),
    ],
)
def test_a_wrong_repository_is_told(server, tmp_path, change, message):
    repository = {**massive(server, [])["massive"], **change}
    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories={"massive": repository})
    with pytest.raises(InputError, match=message):
        load_registry(own)


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
    with exclusive(given / "data get"), pytest.raises(InputError, match="another process"):
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
    own = registry(tmp_path, [{"path": "a.mgf", "url": url, **size}], download={**FAST, "confirm_above": 10})
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


def dataset_cache(rows: list[dict[str, object]], size: int = 2) -> Callable[[Handler], None]:
    """Answer as Datasette does, ``size`` rows a page."""

    def behave(handler: Handler) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(handler.path).query).items()}
        found = [row for row in rows if row["dataset"] == query["dataset__exact"]]
        start = int(query.get("_next", 0))
        following = str(start + size) if start + size < len(found) else None
        body = json.dumps({"ok": True, "next": following, "rows": found[start : start + size]}).encode()
        handler.send(200, body, {"Content-Type": "application/json"})

    return behave


def massive(server: Server, paths: list[str]) -> dict[str, object]:
    rows = [
        {"usi": "", "filepath": f"MSV000000001/{path}", "dataset": "MSV000000001", "size": len(TEXT)} for path in paths
    ]
    server.on("/filename.json", dataset_cache(rows))
    repository = {
        **ABOUT, "accession": r"MSV\d{9}", "example": "MSV000000001", "listing": "gnps-dataset-cache",
        "listing_url": server.url + "/filename.json", "download_url": server.url + "/get?file=f.{accession}/{path}&x=1",
    }  # fmt: skip
    return {"massive": repository}


def test_a_massive_data_set_is_listed_page_by_page_and_filtered(server, tmp_path):
    paths = ["raw/a.raw", "ccms_peak/a b&c.mzML", "ccms_peak/d.mzML", "e.txt", "f.mzML"]
    server.on("/get", serve(TEXT.replace(b"BEGIN", b'<?xml version="1.0"?><mzML>')))
    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories=massive(server, paths))
    server.on("/get", lambda handler: serve(b"<?xml?><mzML>" + b" " * (len(TEXT) - 13))(handler))
    get_data("MSV000000001", registry=own, include=["*.mzML"])
    assert names_in(tmp_path / "MSV000000001") == [
        "ccms_peak/a b&c.mzML", "ccms_peak/d.mzML", "f.mzML", "manifest.json",
    ]  # fmt: skip
    asked = {parse_qs(urlsplit(path).query)["file"][0] for _, path, _ in server.log if path.startswith("/get")}
    assert "f.MSV000000001/ccms_peak/a b&c.mzML" in asked
    assert len(server.requests_of("/filename.json")) == 3
    with pytest.raises(InputError, match="leaves none of 5 files"):
        get_data("MSV000000001", registry=own, include=["*.d"])
    with pytest.raises(InputError, match="lists no file under this accession"):
        get_data("MSV000000002", registry=own)


def test_paths_of_a_listing_never_leave_the_folder(server, tmp_path):
    paths = ["a.txt", "../../escape.txt", "b/../../../escape.txt", "/escape.txt", ".hidden", "c\\..\\d"]
    server.on("/get", serve(TEXT))
    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories=massive(server, paths))
    with pytest.raises(DownloadError, match="5 of 6 files are missing"):
        get_data("MSV000000001", registry=own, out=tmp_path / "deep" / "er" / "out")
    assert names_in(tmp_path / "deep") == ["er/out/a.txt", "er/out/manifest.json"]
    assert not list(tmp_path.rglob("escape*")) and not list(tmp_path.parent.glob("escape*"))


def test_names_that_are_one_on_some_disks_are_told_and_a_name_that_is_no_text_harms_nothing(server, tmp_path):
    paths = ["Run.mzML", "run.mzML", "caf\u00e9.txt", "cafe\u0301.txt", "x\udcff.txt", "\x1b[2J.txt", "a/" * 600 + "b"]
    server.on("/get", serve(TEXT))
    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories=massive(server, paths))
    with pytest.raises(DownloadError, match="4 of 7 files are missing") as caught:
        get_data("MSV000000001", registry=own)
    assert str(caught.value).isprintable()
    out = tmp_path / "MSV000000001"
    assert names_in(out) == ["Run.mzML", "cafe\u0301.txt", "manifest.json", "x?.txt"]
    reasons = {entry["path"]: entry["reason"] for entry in manifest_of(out)["failed"]}
    assert reasons["run.mzML"].startswith("on many disks its path is that of Run.mzML")
    get_data("MSV000000001", registry=own, out=tmp_path / "rest", include=["run.mzML"])
    assert "run.mzML" in names_in(tmp_path / "rest")


def test_many_files_are_got_in_time_that_grows_with_their_number(tmp_path, monkeypatch):
    """Without a server: what is measured is the keeping of books on 20,000 files."""
    files = tuple(PublicFile(f"{number}.txt", "https://host/x", 1) for number in range(20_000))
    folder = DataFolder("mine", tmp_path, PublicSet("d", "CC0", "c", "h", "text", files))
    monkeypatch.setattr(folder, "receive", lambda file, downloader, advance: advance(1))
    started = time.process_time()
    assert download_files(folder, files, Downloader(DownloadOptions())) == {}
    assert time.process_time() - started < 3


def test_a_listing_without_an_end_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(accessions, "MOST_FILES", 50)
    numbers = itertools.count()

    def endless(handler: Handler) -> None:
        row = {"filepath": "MSV000000001/a.txt", "size": 10**400}
        body = json.dumps({"next": str(next(numbers)), "rows": [row] * 10}).encode()
        handler.send(200, body, {})

    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories=massive(server, []))
    server.on("/filename.json", endless)
    with pytest.raises(DownloadError, match="has more than 50 files"):
        get_data("MSV000000001", registry=own)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"<html>busy</html>", b'{"ok": false, "error": "timeout"}', b'{"rows": [{"a": 1}]}', b"[]"]
)
def test_a_listing_that_is_none_is_told(server, tmp_path, body):
    own = registry(tmp_path, [{"path": "x", "url": "https://host/x"}], repositories=massive(server, []))
    server.on("/filename.json", serve(body))
    with pytest.raises(DownloadError, match="is not a listing"):
        get_data("MSV000000001", registry=own)


def index_page(*rows: tuple[str, str]) -> Callable[[Handler], None]:
    """A folder page as Apache writes it."""
    lines = [
        f'<tr><td><a href="{href}">{href[:20]}</a></td><td>2024-01-02 10:00  </td><td>{size}</td></tr>'
        for href, size in rows
    ]
    head = '<tr><th><a href="?C=N;O=D">Name</a></th></tr><tr><td><a href="/pub/">Parent Directory</a></td></tr>'
    page = f"<html><h1>Index of /pub/MTBLS1</h1><table>{head}{''.join(lines)}</table></html>".encode()
    return serve(page, headers={"Content-Type": "text/html;charset=UTF-8"})


def test_a_metabolights_study_is_listed_folder_by_folder(server, tmp_path):
    server.on(
        "/pub/MTBLS1/",
        index_page(
            ("FILES/", "-"), ("i_Investigation.txt", "1.2K"), ("https://elsewhere.org/pub/MTBLS1/x.txt", "1"),
            ("../MTBLS2/", "-"), ("%2e%2e/escape.txt", "9"), ("#top", ""), ("//elsewhere.org/y.txt", "1"),
            ("http://[::1", "9"),
        ),
    )  # fmt: skip
    server.on(
        "/pub/MTBLS1/FILES/",
        index_page(
            ("a%20b.mzML", "12M"), ("../", "-"), ("../FILES/", "-"), ("c.raw", "1.5G"), ("d.raw", "9" * 100 + "T")
        ),
    )
    server.on("/pub/MTBLS1/FILES/a%20b.mzML", serve(b"<?xml?><mzML/>"))
    server.on("/pub/MTBLS1/i_Investigation.txt", serve(TEXT))
    repository = {
        **ABOUT, "accession": r"MTBLS\d+", "example": "MTBLS1", "listing": "web-folder",
        "listing_url": server.url + "/pub/{accession}/", "download_url": server.url + "/pub/{accession}/{path}",
    }  # fmt: skip
    files = [{"path": "x", "url": "https://host/x"}]
    own = registry(
        tmp_path, files, repositories={"metabolights": repository}, download={**FAST, "confirm_above": 10**9}
    )
    with pytest.raises(InputError, match=r"4 files to download, about 1\.6 GB, and 1 files"):
        get_data("MTBLS1", registry=own)
    get_data("MTBLS1", registry=own, include=["*.mzML", "i_*"])
    assert names_in(tmp_path / "MTBLS1") == ["FILES/a b.mzML", "i_Investigation.txt", "manifest.json"]
    with pytest.raises(DownloadError, match="404"):
        get_data("MTBLS2", registry=own)


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


def slowly(go_on: threading.Event | None = None) -> Callable[[Handler], None]:
    """Serve BODY a little at a time, ranges included; half of it only when told to go on."""

    def behave(handler: Handler) -> None:
        start = int(handler.headers["Range"][6:-1]) if "Range" in handler.headers else 0
        handler.send_response(206 if start else 200)
        for name, value in (
            ("ETag", '"first"'), ("Content-Length", str(len(BODY) - start)),
            *([("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")] if start else []),
        ):  # fmt: skip
            handler.send_header(name, value)
        handler.end_headers()
        for place in range(start, len(BODY), 50_000):
            handler.wfile.write(BODY[place : place + 50_000])
            time.sleep(0.01)
            if go_on is not None and place > len(BODY) // 2:
                go_on.wait(20)

    return behave


def start(own: Path) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    words = [sys.executable, "-m", "ionbed", "data", "get", "mine", "--registry", str(own)]
    return subprocess.Popen(words, cwd=own.parent, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_part(folder: Path, size: int = 200_000) -> None:
    partial = folder / ".a.mgf.partial"
    for _ in range(1000):
        if partial.exists() and partial.stat().st_size >= size:
            return
        time.sleep(0.01)
    raise AssertionError("the download did not begin")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_run_that_is_stopped_goes_on_where_it_was(server, tmp_path, how):
    files = [
        {"path": "b.mgf", "url": server.on("/b.mgf", serve(TEXT))},
        {"path": "a.mgf", "url": server.on("/a.mgf", slowly())},
    ]
    own = registry(tmp_path, files)
    with start(own) as process:
        wait_for_part(tmp_path / "mine")
        process.send_signal(how)
        _, err = process.communicate(timeout=20)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), err
    assert "Traceback" not in err
    assert not (tmp_path / "mine" / "a.mgf").exists()
    part = (tmp_path / "mine" / ".a.mgf.partial").read_bytes()
    assert part == BODY[: len(part)]
    with start(own) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == BODY
    assert names_in(tmp_path / "mine") == ["a.mgf", "b.mgf", "manifest.json"]
    assert [entry["path"] for entry in manifest_of(tmp_path / "mine")["files"]] == ["a.mgf", "b.mgf"]
    assert server.ranges_of("/a.mgf") == [None, f"bytes={len(part)}-"]
    assert len(server.requests_of("/b.mgf")) == 1, "what was finished before the kill is known from the journal"


def test_ctrl_c_ends_a_wait_for_a_silent_server(server, tmp_path):
    silence = threading.Event()

    def half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:500_000])
        silence.wait(30)

    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", half)}])
    with start(own) as process:
        wait_for_part(tmp_path / "mine")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, err = process.communicate(timeout=20)
    silence.set()
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "ionbed: interrupted"
    assert time.monotonic() - started < 10
    assert not (tmp_path / "mine" / "a.mgf").exists()


def test_two_processes_do_not_write_one_folder(server, tmp_path):
    go_on = threading.Event()
    own = registry(tmp_path, [{"path": "a.mgf", "url": server.on("/a.mgf", slowly(go_on))}])
    with start(own) as first:
        wait_for_part(tmp_path / "mine")
        with start(own) as second:
            _, err = second.communicate(timeout=20)
        assert second.returncode == 2
        assert "another process is writing this folder" in err.splitlines()[-1]
        go_on.set()
        _, err = first.communicate(timeout=20)
    assert first.returncode == 0, err
    assert (tmp_path / "mine" / "a.mgf").read_bytes() == BODY
