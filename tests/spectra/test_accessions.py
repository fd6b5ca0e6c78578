"""Data sets by accession: what repositories list, and what a listing must not do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from ionbed.errors import InputError
from ionbed.spectra.public_data import accessions
from ionbed.spectra.public_data.download import DownloadError
from ionbed.spectra.public_data.get import get_data
from ionbed.spectra.public_data.registry import (
    load_registry,
)

from .downloads import ABOUT, QUICK, TEXT, manifest_of, names_in, registry
from .http_server import Handler, Server, serve

pytestmark = pytest.mark.usefixtures("online")


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
        tmp_path, files, repositories={"metabolights": repository}, download={**QUICK, "confirm_above": 10**9}
    )
    with pytest.raises(InputError, match=r"4 files to download, about 1\.6 GB, and 1 files"):
        get_data("MTBLS1", registry=own)
    get_data("MTBLS1", registry=own, include=["*.mzML", "i_*"])
    assert names_in(tmp_path / "MTBLS1") == ["FILES/a b.mzML", "i_Investigation.txt", "manifest.json"]
    with pytest.raises(DownloadError, match="404"):
        get_data("MTBLS2", registry=own)
