"""The page in a browser, over a service that runs: from a query to a hit, its mirror plot, a file and a link."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .server import ENERGIES, EVIL_NAME, KEY, library

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


def test_an_example_is_one_click_away_and_its_hit_has_a_plot_and_a_structure(visit):
    page = visit().page
    page.get_by_role("button", name="Search an example").click()
    page.wait_for_selector(".hit-list")
    assert page.locator("#answer-told").inner_text().startswith("1 query · ")
    open_hit(page)
    page.wait_for_selector(".structure img")
    assert page.locator(".structure img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    matched = page.locator(".mirror circle.end.fragment").count()
    assert matched >= 8 and matched % 2 == 0  # each in both spectra
    page.get_by_text("Matched peaks as a table").click()
    assert page.locator(".peak-table tbody tr").count() == matched // 2
    assert f"{matched // 2} matched fragments" in page.get_by_role("img", name="Mirror plot").get_attribute(
        "aria-label"
    )
    assert page.locator(".compare").get_by_role("row", name="Adduct").is_visible()


def test_every_query_of_a_file_is_shown_and_the_hits_can_be_taken_away(visit):
    page = visit().page
    text = mgf(("first", caffeine()), ("second", LIBRARY[-1])) + NO_CANDIDATE + NO_PRECURSOR
    upload(page, "mine.mgf", text.encode())
    assert page.locator("#file-name").inner_text() == "mine.mgf"
    assert page.get_by_label("Precursor m/z").is_hidden()
    search(page)
    rows = page.locator(".queries tbody tr")
    assert rows.count() == 4
    assert "caffeine" in rows.nth(0).inner_text() and "nicotinamide" in rows.nth(1).inner_text()
    assert "within 10 ppm" in rows.nth(2).inner_text()
    assert "precursor" in rows.nth(3).inner_text().lower()
    rows.nth(2).locator("button").click()
    assert page.locator("#query-head").inner_text().count("No hit: ") == 1
    assert page.locator(".hit-list").count() == 0

    name, table = downloaded(page, page.get_by_role("button", name="TSV").click)
    lines = list(csv.DictReader(io.StringIO(table), delimiter="\t"))
    assert name == "hits.tsv"
    assert {line["query_id"] for line in lines} == {"first", "second", "far away", "without precursor"}
    name, table = downloaded(page, page.get_by_role("button", name="mzTab-M").click)
    assert name == "hits.mztab" and table.startswith("MTD\tmzTab-version\t2.0")
    name, table = downloaded(page, page.get_by_role("button", name="JSON lines").click)
    assert name == "hits.jsonl" and all(json.loads(line) for line in table.splitlines())


def test_pasted_text_of_a_file_is_read_by_the_service(visit):
    page = visit().page
    page.locator("#peaks").fill(mgf(("one", caffeine()), ("two", LIBRARY[0])))
    assert "2 spectra" in page.locator("#peaks-told").inner_text()
    search(page)
    assert page.locator(".queries tbody tr").count() == 2


def ticks(page: Any) -> list[str]:
    return page.locator(".mirror .tick[text-anchor='middle']").all_text_contents()


def test_the_plot_zooms_by_drag_wheel_and_keys_and_is_saved_as_svg(visit):
    page = visit().page
    paste(page, caffeine())
    search(page)
    open_hit(page, 2)
    plot = page.locator(".mirror")
    plot.scroll_into_view_if_needed()
    whole = ticks(page)
    box = plot.bounding_box()
    middle = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    assert page.locator(".mirror .brush").count() == 1
    page.mouse.up()
    dragged = ticks(page)
    assert float(dragged[-1]) - float(dragged[0]) < (float(whole[-1]) - float(whole[0])) / 4
    page.get_by_role("button", name="Show all").click()
    assert ticks(page) == whole
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(50)
    assert ticks(page) != whole
    page.locator(".mirror-frame").focus()
    page.keyboard.press("0")
    assert ticks(page) == whole
    page.keyboard.press("+")
    zoomed = ticks(page)
    page.keyboard.press("ArrowRight")
    assert whole != zoomed != ticks(page)
    page.keyboard.press("0")
    page.keyboard.press("ArrowUp")
    assert re.match(r"(query|library) m/z \d+\.\d{4}, ", page.locator(".tip").inner_text())
    assert page.locator("#status").inner_text() == page.locator(".tip").inner_text()

    name, text = downloaded(page, page.get_by_role("button", name="Download the plot as SVG").click)
    drawing = ElementTree.fromstring(text)
    assert name == "caffeine-mirror.svg" and drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert "#0072b2" in text and 'class="' not in text


def test_analogues_show_matched_neutral_losses(visit):
    page = visit().page
    paste(page, caffeine())
    page.get_by_text("Any precursor").click()
    assert page.get_by_label("Precursor within").is_hidden()
    page.get_by_label("Hits a query").fill("40")
    search(page)
    rank = hit_names(page).index("theobromine") + 1
    open_hit(page, rank)
    losses = page.locator(".mirror path.end.loss").count()
    assert losses >= 8 and losses % 2 == 0
    page.get_by_text("Matched peaks as a table").click()
    assert page.locator(".peak-table").get_by_text("neutral loss").count() == losses // 2


def test_hits_are_filtered_by_adduct_and_by_score(visit):
    page = visit().page
    paste(page, caffeine())
    page.get_by_text("Any precursor").click()
    page.get_by_label("Hits a query").fill("50")
    page.locator("#filters summary").click()
    page.get_by_label("Adducts").fill("[M+Na]+")
    page.get_by_label("Licences").fill("CC BY")
    page.locator("#filter-energy-from").fill("15")
    search(page)
    rows = page.locator(".hit-list tbody tr")
    wanted = [
        s for s in LIBRARY if (s.adduct, s.license) == ("[M+Na]+", "CC BY") and s.collision_energy >= 15
    ]  # fmt: skip
    assert rows.count() == len(wanted) > 3
    assert all("[M+Na]+" in row for row in rows.all_inner_texts())
    assert page.locator("#filter-count").inner_text() == "3 set"
    scores = [float(text.replace("\u2212", "-")) for text in page.locator(".hit-list td.score").all_inner_texts()]
    page.get_by_label("Least score").fill(str(scores[1] - 0.0006))
    assert rows.count() == sum(score >= scores[1] - 0.0006 for score in scores) < len(wanted)
    page.get_by_role("button", name="Clear the filters").click()
    assert page.get_by_text("has changed since this search").is_visible()
    page.get_by_role("button", name="Search again").click()
    page.wait_for_selector("#progress-card", state="hidden")
    assert rows.count() == len(LIBRARY)


def test_a_link_brings_back_the_query_the_options_and_the_hit(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"]).page
    paste(page, caffeine("[M+Na]+"))
    page.get_by_label("Precursor within").fill("0.02")
    page.get_by_label("Unit").select_option("Da")
    page.get_by_label("Charge").select_option("1")
    search(page)
    open_hit(page, 3)
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_selector("#alert .callout")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url and "#" in link
    again = visit(fragment="#" + link.split("#")[1]).page
    again.wait_for_selector("#hit svg.mirror")
    assert again.locator("#hit-heading").inner_text() == page.locator("#hit-heading").inner_text()
    assert hit_names(again) == hit_names(page)
    for label in ("Precursor m/z", "Precursor within", "Charge", "Unit"):
        assert again.get_by_label(label).input_value() == page.get_by_label(label).input_value()
    assert again.locator("#peaks").input_value() == page.locator("#peaks").input_value()


def test_a_link_to_an_upload_is_refused_with_the_reason_and_a_damaged_one_is_told(visit):
    page = visit().page
    drop(page, "mine.mgf", mgf(("first", caffeine())))
    assert page.locator("#file-name").inner_text() == "mine.mgf"
    search(page)
    page.get_by_role("button", name="Copy link").click()
    assert "keeps no upload" in page.locator("#alert").inner_text()
    assert "#" not in page.url
    damaged = visit(fragment="#q=AAAA!!").page
    assert "This link is damaged" in damaged.locator("#alert").inner_text()


def test_the_keyboard_alone_is_enough(visit):
    page = visit().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip-link"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results" and "#" not in page.url
    page.locator("#peaks").focus()
    page.keyboard.insert_text(mgf(("first", caffeine()), ("second", LIBRARY[-1])))
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".hit-list")
    assert page.evaluate("document.activeElement.id") == "answer-heading"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "first":
            break
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "second"
    page.keyboard.press("Enter")
    assert page.locator("#query-head h3").inner_text() == "second"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.rank"):
            break
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.rank") == str(PER_MOLECULE_AND_ADDUCT - 1)
    page.keyboard.press("Enter")
    page.wait_for_selector("#hit svg.mirror")
    assert page.evaluate("document.activeElement.id") == "hit-heading"
    page.keyboard.press("Escape")
    assert page.locator("#hit").is_hidden()
    assert page.evaluate("document.activeElement.dataset.rank") == str(PER_MOLECULE_AND_ADDUCT - 1)


def test_a_file_that_holds_no_spectra_is_told_by_name_of_what_is_wrong(visit):
    visited = visit()
    visited.allowed.append("422")  # the browser logs answers that are no success
    page = visited.page
    upload(page, "mine.mgf", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)
    page.get_by_role("button", name="Search", exact=True).click()
    alert = page.get_by_role("alert")
    page.wait_for_selector("#alert .callout.error")
    assert "mine.mgf cannot be searched" in alert.inner_text()
    assert "traceback" not in alert.inner_text().lower() and "/tmp" not in alert.inner_text()
    assert page.locator("#progress-card").is_hidden() and page.locator("#answer").is_hidden()


WRONG_FORMS = (
    ("", "", "Paste peaks, choose a file, or take the example"),
    ("100 1\nno peak 7", "200", "line 2"),
    ("100 1", "", "needs the precursor"),
    ("100 1", "many", "is no number"),
    ("100 0", "200", "no peak with an intensity above 0"),
)


def test_what_is_missing_or_wrong_in_the_form_is_told_beside_it(visit):
    page = visit().page
    for peaks, precursor, told in WRONG_FORMS:
        page.locator("#peaks").fill(peaks)
        page.get_by_label("Precursor m/z").fill(precursor)
        page.get_by_role("button", name="Search", exact=True).click()
        assert told in page.locator(".field-error:visible").inner_text()
        assert page.evaluate("document.activeElement.getAttribute('aria-invalid')") == "true"
    upload(page, "large.mgf", b"#" * (1 << 20) + b"\n")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "this service takes up to 1.0 MB" in page.locator("#peaks-error").inner_text()  # and the file is not sent
    assert page.locator("#answer").is_hidden()


def test_names_from_files_are_text_and_nothing_else(visit):
    page = visit().page
    isomer = next(s for s in LIBRARY if s.name == EVIL_NAME)
    upload(page, "<b>mine</b>.mgf", mgf((EVIL_NAME, isomer), ("second", isomer)).encode())
    assert page.locator("#file-name").inner_text() == "<b>mine</b>.mgf"
    search(page)
    assert EVIL_NAME in hit_names(page)
    assert page.locator("#query-head h3").inner_text() == EVIL_NAME
    open_hit(page, hit_names(page).index(EVIL_NAME) + 1)
    page.wait_for_selector(".structure img")
    assert EVIL_NAME in page.locator("#hit-heading").inner_text()
    assert page.locator("#results script, #results img[onerror], #results b").count() == 0
    assert page.title() == "ionbed · search"


def test_nothing_is_wider_than_a_narrow_screen(visit):
    page = visit(width=420, height=800).page

    def check() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 420

    check()
    page.locator("#peaks").fill(mgf(("a-long-title-without-a-space-" * 6, caffeine()), (EVIL_NAME, LIBRARY[3])))
    page.locator("#filters summary").click()
    search(page)
    check()
    open_hit(page)
    page.get_by_text("Matched peaks as a table").click()
    check()
    first = page.locator(".hit-list tbody tr").first
    assert first.evaluate("row => getComputedStyle(row).display") == "grid"  # a card
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        check()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 600) == (scheme == "light")


def test_a_busy_service_is_asked_again(visit):
    visited = visit()
    visited.allowed.append("429")
    page = visited.page
    refused = []

    def refuse_once(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": "too many requests"})

    page.route("**/api/search/peaks", refuse_once)
    paste(page, caffeine())
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("The service is busy; trying again in 1 s.").first.wait_for(state="attached")
    page.wait_for_selector(".hit-list")
    assert len(refused) == 1


def test_a_large_file_is_a_job_whose_progress_is_told(visit):
    visited = visit()
    page = visited.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method + " " + request.url.split("/api/")[-1]))
    spectra = [(f"spectrum {n}", LIBRARY[n % len(LIBRARY)]) for n in range(130)]
    text = mgf(*spectra) + "# " + "filler " * 50_000 + "\n"
    page.evaluate(
        """() => { window.told = []; new MutationObserver(() => window.told.push(
            document.getElementById("progress-words").textContent)).observe(document.getElementById("progress-words"),
            { childList: true, characterData: true, subtree: true }); }"""
    )
    upload(page, "large.mgf", text.encode())
    search(page)
    assert any(re.fullmatch(r"Sending large.mgf: [\d.]+ kB of \d{3}.\d kB", words) for words in page.evaluate("told"))
    assert page.locator("#answer-told").inner_text().startswith("130 queries · 130 with hits")
    assert page.locator(".queries tbody tr").count() == 100
    page.get_by_role("button", name="Show 30 more of 130").click()
    assert page.locator(".queries tbody tr").count() == 130
    assert "POST jobs" in asked and any(re.fullmatch(r"GET jobs/[\w-]+", one) for one in asked)
    assert not any(one.startswith("POST search") for one in asked)
    name, table = downloaded(page, page.get_by_role("button", name="TSV").click)
    assert (
        name == "hits.tsv"
        and sum(line.startswith("spectrum 129\t") for line in table.splitlines()) == 2 * PER_MOLECULE_AND_ADDUCT
    )


def test_an_index_of_structures_has_hits_without_library_spectra(visit):
    page = visit("structures").page
    assert "6 structures" in page.locator("#index-line").inner_text()
    paste(page, caffeine())
    page.get_by_label("Adduct", exact=True).fill("[M+H]+")
    search(page)
    assert {"caffeine", EVIL_NAME} == set(hit_names(page))  # isomers
    open_hit(page)
    assert "no library spectrum to compare with" in page.locator("#hit").inner_text()
    page.wait_for_selector(".structure img")


def test_a_service_with_a_key_asks_for_it(visit):
    visited = visit("key")
    visited.allowed.append("401")
    page = visited.page
    field = page.get_by_label("This service asks for a key")
    assert field.is_visible()
    field.fill(KEY)
    field.press("Tab")
    page.get_by_role("button", name="Search an example").click()
    page.wait_for_selector(".hit-list")
    open_hit(page)
    page.wait_for_selector(".structure img")


def test_a_job_can_be_watched_and_cancelled(visit):
    page = visit().page
    asked: list[str] = []
    state = {"id": "one", "state": "running", "queries": 400, "done": 100, "error": None, "seconds": 1.0}

    def answer(route: Any) -> None:
        asked.append(route.request.method)
        route.fulfill(status=204) if route.request.method == "DELETE" else route.fulfill(json=state)

    page.route(re.compile(r"/api/jobs"), answer)
    upload(page, "large.mgf", mgf(("one", caffeine())).encode() + b"#" * 400_000)
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("100 of 400 spectra searched").wait_for()
    assert page.get_by_role("progressbar").evaluate("bar => bar.value / bar.max") == 0.25
    page.keyboard.press("Escape")
    page.wait_for_selector("#progress-card", state="hidden")
    assert page.locator("#status").inner_text() == "The search was cancelled."
    page.wait_for_timeout(50)
    assert asked[0] == "POST" and asked[-1] == "DELETE"


def test_a_job_with_more_queries_than_a_page_shows_is_there_to_be_downloaded(visit):
    page = visit().page
    state = {"id": "one", "state": "done", "queries": 40_000, "done": 40_000, "error": None, "seconds": 1.0}
    page.route(re.compile(r"/api/jobs/one/hits"), lambda route: route.fulfill(body="query_id\n"))
    page.route(re.compile(r"/api/jobs(/one)?$"), lambda route: route.fulfill(json=state))
    upload(page, "large.mgf", b"#" * 400_000)
    search(page)
    assert "40,000 queries" in page.locator("#answer-told").inner_text()
    assert "Download them" in page.locator("#query-head").inner_text()
    assert downloaded(page, page.get_by_role("button", name="TSV").click) == ("hits.tsv", "query_id\n")


def test_both_structures_are_shown_where_the_query_states_one_and_nothing_overlaps(visit):
    page = visit(width=1060).page  # the form beside results so narrow that rows are cards
    spectrum = caffeine()
    text = f"NAME: mine\nPRECURSORMZ: {spectrum.precursor_mz}\nPRECURSORTYPE: [M+H]+\nSMILES: {spectrum.smiles}\n"
    page.locator("#peaks").fill(f"{text}Num Peaks: {len(spectrum.mz)}\n{peaks_of(spectrum)}\n")
    search(page)
    open_hit(page)
    page.locator(".structure img").nth(1).wait_for()
    assert page.locator(".structures figcaption").all_inner_texts() == ["Query", "Library"]
    last = page.locator(".hit-list tbody tr").last.bounding_box()
    assert last["y"] + last["height"] <= page.locator("#hit").bounding_box()["y"]


def test_probability_confidence_and_warnings_are_told_in_words(visit):
    page = visit().page

    def calibrated(route: Any) -> None:
        answer = route.fetch().json()
        answer["queries"][0]["warnings"] = ["charge 3+ was not in training", "2 peaks only"]
        best = answer["queries"][0]["hits"][0]
        best |= {"probability": 0.934, "predicted": True, "confidence": "level 3: tentative candidate"}
        best |= {"mass_difference": 14.01565, "difference_formula": "CH2"}
        route.fulfill(json=answer)

    page.route("**/api/search/peaks", calibrated)
    paste(page, caffeine())
    search(page)
    assert page.locator(".callout.warning").all_inner_texts() == [
        "With care: charge 3+ was not in training",
        "With care: 2 peaks only",
    ]
    first = page.locator(".hit-list tbody tr").first
    for words in ("93%", "predicted", "level 3", "tentative candidate", "+14.0157", "CH2"):
        assert words in first.inner_text().replace("\n", ""), words
    open_hit(page)
    assert "93%" in page.locator("#hit .summary").inner_text()


def test_two_fingers_zoom_the_plot(visit):
    page = visit(has_touch=True).page
    paste(page, caffeine())
    search(page)
    open_hit(page)
    page.locator(".mirror").scroll_into_view_if_needed()
    whole = ticks(page)
    box = page.locator(".mirror").bounding_box()
    middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *apart: float) -> None:
        points = [{"x": middle + side * far, "y": height, "id": n} for far in apart for n, side in enumerate((-1, 1))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 40)
    for far in (60, 90, 120):
        fingers("touchMove", far)
    fingers("touchEnd")
    zoomed = ticks(page)
    assert float(zoomed[-1]) - float(zoomed[0]) < (float(whole[-1]) - float(whole[0])) / 2


def test_candidates_of_an_index_of_structures_are_chosen_by_formula(visit):
    page = visit("structures").page
    paste(page, caffeine())
    page.get_by_text("Any precursor").click()
    page.locator("#filters summary").click()
    assert page.get_by_label("Licences").is_hidden()
    page.get_by_label("Formula", exact=True).fill("C7H8N4O2")
    search(page)
    assert set(hit_names(page)) == {"theobromine", "theophylline"}


def test_a_service_that_is_gone_is_told_and_asked_again_at_will(visit):
    visited = visit()
    visited.allowed.append("ERR_CONNECTION_REFUSED")
    page = visited.page
    page.route("**/api/search/peaks", lambda route: route.abort("connectionrefused"))
    paste(page, caffeine())
    page.get_by_label("Hits a query").fill("51")
    page.get_by_role("button", name="Search", exact=True).click()
    assert "from 1 to 50" in page.locator("#options-error").inner_text()  # as many as this service gives
    page.get_by_label("Hits a query").fill("50")
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("The service cannot be reached").wait_for()
    page.unroute("**/api/search/peaks")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".hit-list")
    assert page.locator("#alert").inner_text() == ""
