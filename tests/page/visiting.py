"""What a person does at the page: give a query, search, open a hit, take something away."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .server import ENERGIES, library

LIBRARY = library()
PER_MOLECULE_AND_ADDUCT = len(ENERGIES)


def mgf(*titles_and_spectra: tuple[str, Any]) -> str:
    return "\n".join(
        f"BEGIN IONS\nTITLE={title}\nPEPMASS={spectrum.precursor_mz}\nCHARGE=1+\n"
        + "\n".join(f"{m:.5f} {i:.5f}" for m, i in zip(spectrum.mz, spectrum.intensity, strict=True))
        + "\nEND IONS\n"
        for title, spectrum in titles_and_spectra
    )


def peaks_of(spectrum: Any) -> str:
    return "\n".join(f"{m:.5f} {i:.5f}" for m, i in zip(spectrum.mz, spectrum.intensity, strict=True))


NO_CANDIDATE = "BEGIN IONS\nTITLE=far away\nPEPMASS=987.6543\nCHARGE=1+\n100.1 5\n200.2 10\nEND IONS\n"
NO_PRECURSOR = "BEGIN IONS\nTITLE=without precursor\n100.1 5\n200.2 10\nEND IONS\n"


def caffeine(adduct: str = "[M+H]+", energy: float = 20.0) -> Any:
    return next(s for s in LIBRARY if (s.name, s.adduct, s.collision_energy) == ("caffeine", adduct, energy))


def paste(page: Any, spectrum: Any) -> None:
    page.get_by_label("Peaks, or the text of an MGF or MSP file").fill(peaks_of(spectrum))
    page.get_by_label("Precursor m/z").fill(f"{spectrum.precursor_mz:.5f}")


def search(page: Any) -> None:
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_selector("#answer:not([hidden])")
    page.wait_for_selector("#progress-card", state="hidden")


def open_hit(page: Any, rank: int = 1) -> None:
    page.locator(f"button[data-rank='{rank}']").click()
    page.wait_for_selector("#hit svg.mirror")


def hit_names(page: Any) -> list[str]:
    return page.locator(".hit-list .row-opener").all_inner_texts()


def drop(page: Any, name: str, text: str) -> None:
    transfer = page.evaluate_handle(
        "([name, text]) => { const it = new DataTransfer(); it.items.add(new File([text], name)); return it; }",
        [name, text],
    )
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", kind, {"dataTransfer": transfer})


def upload(page: Any, name: str, content: bytes) -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "text/plain", "buffer": content})


def downloaded(page: Any, click: Callable[[], None]) -> tuple[str, str]:
    with page.expect_download() as waiting:
        click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_text()


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what follows from an event that the browser does not wait for itself."""
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, "it never came to that"
        time.sleep(0.02)


def ticks(page: Any) -> list[str]:
    return page.locator(".mirror .tick[text-anchor='middle']").all_text_contents()
