"""A browser, and the services that it visits; without Debian's Chromium these tests are skipped, and say so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


@pytest.fixture(scope="session")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The ports of the services, by name; they run in one process of their own."""
    folder = tmp_path_factory.mktemp("services")
    log = folder / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.page.server", str(folder)],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        give_up = time.monotonic() + PATIENCE
        while not (folder / "ports.json").exists():
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the services did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield json.loads((folder / "ports.json").read_text())
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: the page is not tested in a browser (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: the page is not tested")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """What a test does with a page, and what must not have happened meanwhile.

    Attributes
    ----------
    origin : str
    strangers : list of str
        Requests to any other place.
    complaints : list of str
        Errors of scripts, and what the browser's console warned of.
    allowed : list of str
        Parts of complaints that a test expects.
    """

    origin: str
    page: Any
    strangers: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert not self.strangers, "the page asked another origin"
        unexpected = [said for said in self.complaints if not any(part in said for part in self.allowed)]
        assert not unexpected


@pytest.fixture
def visit(browser: Any, ports: dict[str, int]) -> Iterator[Callable[..., Visit]]:
    """A function that opens the page of a service in a context of its own and watches it until the test ends."""
    visits: list[Visit] = []

    def open_page(
        service: str = "spectra", *, fragment: str = "", width: int = 1400, height: int = 900, **options: Any
    ) -> Visit:
        origin = f"http://127.0.0.1:{ports[service]}"
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        context.set_default_timeout(30_000)
        page = context.new_page()
        visit = Visit(origin, page)
        visits.append(visit)
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and visit.complaints.append(said.text))
        own = (f"{origin}/", f"blob:{origin}/")
        page.on("request", lambda asked: asked.url.startswith(own) or visit.strangers.append(asked.url))
        page.goto(origin + "/" + fragment)
        page.wait_for_selector("#index-line:not(:has-text('Connecting'))", state="attached")
        return visit

    yield open_page
    for visit in visits:
        visit.page.context.close()
    for visit in visits:
        visit.check()
