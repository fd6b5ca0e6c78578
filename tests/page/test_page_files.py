"""The files of the page: what they are sent with, the lists of peaks that they read, and colours that stand out."""

from __future__ import annotations

import re
from itertools import product

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ionbed.embeddings.service.page_routes import page_files, page_router


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


def test_the_page_lets_nothing_run_that_is_not_its_own(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy and "http" not in policy and "data:" not in policy
    assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:", answer.text)
    assert all(re.search(r'\ssrc="page/', tag) for tag in re.findall(r"<script[^>]*>", answer.text))


def test_every_file_that_the_page_names_is_there_and_none_is_from_elsewhere(client):
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', client.get("/").text))
    for name, file in page_files().items():
        text = file.content.decode()
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', text))
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert not re.findall(r"(?<!xmlns=\")https?://(?!www\.w3\.org/)", text), name
    assert {"app.js", "style.css", "mirror.js"} < named
    for name in named:
        assert client.get(f"/page/{name}").status_code == 200, name
    assert named | {"index.html"} == set(page_files())  # nothing is left over


def test_a_file_is_sent_again_only_when_it_changed(client):
    answer = client.get("/page/app.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    again = client.get("/page/app.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/").content == b""


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2Fetc%2Fpasswd", "../app.py"])
def test_no_other_file_is_ever_sent(client, name):
    assert client.get(f"/page/{name}").status_code == 404


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rgb`` or ``#rrggbb`` (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes() -> list[dict[str, str]]:
    text = page_files()["style.css"].content.decode()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+);", part)) for part in text.split("@media", 2)[:2])
    return [light, dark]


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_text_and_marks_stand_out_in_both_schemes(scheme):
    grounds = [scheme[name] for name in ("bg", "surface", "sunken", "accent-soft")]
    for name, ground in product(("ink", "muted", "accent"), grounds):
        assert contrast(scheme[name], ground) >= 4.5, (name, ground)
    assert contrast(scheme["accent-ink"], scheme["accent"]) >= 4.5
    assert contrast(scheme["bad"], scheme["bad-bg"]) >= 4.5
    assert contrast(scheme["ink"], scheme["warn-bg"]) >= 4.5
    for name in ("fragment", "loss", "unmatched", "precursor", "line-strong"):  # marks and edges of fields
        assert contrast(scheme[name], scheme["surface"]) >= 3, name


LISTS_OF_PEAKS = (
    "100.5 10\n50 2",
    "m/z intensity\n50\t2\n# a remark\n100.5\t1e1\tC3H5+",
    "50,2\n100.5,10",
    "50, 2\n100.5, 10",
    "50;2\n100,5;10",
    "50,0 2,0\n100,5 10",
    "50:2 100.5:10",
    "[[50, 2],\n[100.5, 10]]",
    "50 2\n70 0\n100.5 10\r\n\r\n",
)
NO_LISTS_OF_PEAKS = ("100", "100 x", "-5 10", "100 -1", "50 2\nabc def ghi")


def test_pasted_lists_of_peaks_are_read_and_what_is_none_names_its_line(visit):
    page = visit().page
    read = "async (text) => import('/page/peaks.js').then((it) => it.parsePeaks(text)).catch((error) => error.message)"
    for text in LISTS_OF_PEAKS:
        assert page.evaluate(read, text) == [[50, 2], [100.5, 10]], text
    for text in NO_LISTS_OF_PEAKS:
        assert re.match(r"line \d: ", page.evaluate(read, text)), text
