"""The page in a browser, over a service that runs: from a query to its hits, to a file and to a link."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest

from .server import EVIL_NAME
from .visiting import (
    LIBRARY,
    NO_CANDIDATE,
    NO_PRECURSOR,
    PER_MOLECULE_AND_ADDUCT,
    caffeine,
    downloaded,
    drop,
    hit_names,
    mgf,
    open_hit,
    paste,
    peaks_of,
    search,
    upload,
)


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


@pytest.mark.parametrize("number", [30, 130], ids=["at once", "as a job"])
def test_queries_come_in_pages_and_those_without_a_hit_can_be_left_out(visit, number):
    visited = visit()
    visited.allowed.append("413")  # what is too much for one request is a job
    page = visited.page
    texts = [mgf((f"spectrum {n}", LIBRARY[n % len(LIBRARY)])) if n % 10 else NO_CANDIDATE for n in range(number)]
    upload(page, "mine.mgf", "".join(texts).encode())
    search(page)
    with_hits = number - number // 10
    told, rows = page.locator("#page-told"), page.locator(".queries tbody tr")
    assert told.inner_text() == (f"Queries 1–100 of {number}" if number > 100 else f"{number} queries")
    assert f"{number} queries · {with_hits} with hits" in page.locator("#answer-told").inner_text()
    assert rows.count() == min(number, 100)
    page.get_by_label("Only with a hit").focus()
    page.keyboard.press("Space")
    words = f"Queries 1–100 of {with_hits} with a hit" if with_hits > 100 else f"{with_hits} queries with a hit"
    page.get_by_text(words, exact=True).wait_for()
    assert page.evaluate("document.activeElement.id") == "only-hits"
    assert page.locator(".queries tbody tr.without").count() == 0
    assert rows.nth(9).inner_text().startswith("spectrum 11")
    if with_hits > 100:
        page.get_by_role("button", name="Next queries").focus()
        page.keyboard.press("Enter")
        page.get_by_text(f"Queries 101–{with_hits} of {with_hits} with a hit", exact=True).wait_for()
        assert page.locator("#status").inner_text() == f"Queries 101–{with_hits} of {with_hits} with a hit."
        assert page.evaluate("document.activeElement.dataset.turn") == "next"
        assert page.get_by_role("button", name="Next queries").get_attribute("aria-disabled") == "true"
        page.keyboard.press("Enter")  # leads nowhere
        assert rows.count() == with_hits - 100
    rows.nth(1).locator("button").click()
    open_hit(page)
    page.wait_for_selector(".structure img")


def test_what_ranked_the_hits_is_told(visit):
    page = visit().page
    paste(page, caffeine())
    search(page)
    assert "ranked by learned embedding" in page.locator("#answer-told").inner_text()
    open_hit(page)
    assert "learned embedding" in page.locator("#hit .summary").inner_text()


def test_pasted_text_of_a_file_is_read_by_the_service(visit):
    page = visit().page
    page.locator("#peaks").fill(mgf(("one", caffeine()), ("two", LIBRARY[0])))
    assert "2 spectra" in page.locator("#peaks-told").inner_text()
    search(page)
    assert page.locator(".queries tbody tr").count() == 2


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


def test_a_link_to_a_hit_of_a_pasted_text_that_was_a_job(visit):
    visited = visit()
    visited.allowed.append("413")  # more spectra than are answered at once
    page = visited.page
    spectra = [(f"spectrum {n}", LIBRARY[n % len(LIBRARY)]) for n in range(120)]
    page.locator("#peaks").fill(mgf(*spectra))
    search(page)
    page.get_by_role("button", name="Next queries").click()
    page.get_by_role("button", name="spectrum 102", exact=True).click()
    open_hit(page, 2)
    page.wait_for_url(re.compile("query=103&hit=2$"))
    again = visit(fragment="#" + page.url.split("#")[1])
    again.allowed.append("413")
    again.page.wait_for_selector("#hit svg.mirror")
    assert again.page.locator("#query-head h3").inner_text() == "spectrum 102"
    assert again.page.locator("#hit-heading").inner_text() == page.locator("#hit-heading").inner_text()
    page.get_by_label("Only with a hit").check()
    page.wait_for_url(lambda url: "query=" not in url and "hit=" not in url)
    open_hit(page, 2)
    page.wait_for_timeout(100)
    assert "hit=" not in page.url, "the place of this query among all is not known"


def test_a_link_to_an_upload_is_refused_with_the_reason_and_a_damaged_one_is_told(visit):
    page = visit().page
    drop(page, "mine.mgf", mgf(("first", caffeine())))
    assert page.locator("#file-name").inner_text() == "mine.mgf"
    search(page)
    page.get_by_role("button", name="Copy link").click()
    assert "keeps no upload" in page.locator("#alert").inner_text()
    assert "#" not in page.url
    damaged = visit(fragment="#q=AAAA!!").page
    damaged.get_by_text("This link is damaged").wait_for()


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


def test_the_probability_of_a_structure_is_shown(visit):
    page = visit("structures").page

    def calibrated(route: Any) -> None:
        answer = route.fetch().json()
        answer["queries"][0]["hits"][0]["probability"] = 0.871
        route.fulfill(json=answer)

    page.route("**/api/search/peaks", calibrated)
    paste(page, caffeine())
    search(page)
    assert (
        page.get_by_role("columnheader", name="Prob.").get_attribute("title").startswith("Probability that this struct")
    )
    rows = page.locator(".hit-list tbody tr")
    assert "87%" in rows.nth(0).inner_text() and "%" not in rows.nth(1).inner_text()
    open_hit(page)
    assert "87%" in page.locator("#hit .summary").inner_text()


def test_candidates_of_an_index_of_structures_are_chosen_by_formula(visit):
    page = visit("structures").page
    paste(page, caffeine())
    page.get_by_text("Any precursor").click()
    page.locator("#filters summary").click()
    assert page.get_by_label("Licences").is_hidden()
    page.get_by_label("Formula", exact=True).fill("C7H8N4O2")
    search(page)
    assert set(hit_names(page)) == {"theobromine", "theophylline"}
