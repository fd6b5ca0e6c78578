"""The page where something is wrong, slow or not to be trusted: files, forms, names, jobs and the service."""

from __future__ import annotations

import re
from typing import Any

from .server import EVIL_NAME, KEY
from .visiting import (
    LIBRARY,
    PER_MOLECULE_AND_ADDUCT,
    caffeine,
    downloaded,
    hit_names,
    mgf,
    open_hit,
    paste,
    search,
    until,
    upload,
)


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


def test_a_failed_search_is_in_view_and_the_hits_of_the_one_before_are_told_as_such(visit):
    visited = visit()
    visited.allowed.append("422")
    page = visited.page
    page.set_viewport_size({"width": 1400, "height": 400})
    paste(page, caffeine())
    search(page)
    assert page.locator("#stale").is_hidden()
    upload(page, "mine.mgf", b"nothing")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.locator("#search-form").evaluate("form => form.requestSubmit()")
    page.wait_for_selector("#alert .callout.error")
    assert "mine.mgf cannot be searched. It is of no format" in page.get_by_role("alert").inner_text()
    assert page.locator("#alert").bounding_box()["y"] >= 0
    assert page.locator("#stale").is_visible() and hit_names(page)


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
    assert page.locator("#page-told").inner_text() == "Queries 1–100 of 130"
    page.get_by_role("button", name="Next queries").click()
    page.get_by_text("Queries 101–130 of 130", exact=True).wait_for()
    assert page.locator(".queries tbody tr").count() == 30
    assert page.locator(".queries tbody tr").first.inner_text().startswith("spectrum 100")
    assert "POST jobs" in asked and any(re.fullmatch(r"GET jobs/[\w-]+", one) for one in asked)
    assert not any(one.startswith("POST search") for one in asked)
    name, table = downloaded(page, page.get_by_role("button", name="TSV").click)
    assert (
        name == "hits.tsv"
        and sum(line.startswith("spectrum 129\t") for line in table.splitlines()) == 2 * PER_MOLECULE_AND_ADDUCT
    )


def test_a_job_can_be_watched_and_cancelled(visit):
    visited = visit()
    visited.allowed.append("ERR_CONNECTION_REFUSED")
    page = visited.page
    asked: list[str] = []
    state = {"id": "one", "state": "running", "queries": 400, "done": 100, "error": None, "seconds": 1.0}

    def answer(route: Any) -> None:
        asked.append(route.request.method)
        if asked == ["POST", "GET"]:
            route.abort("connectionrefused")  # once
        else:
            fulfil(route)

    def fulfil(route: Any) -> None:
        route.fulfill(status=204) if route.request.method == "DELETE" else route.fulfill(json=state)

    page.route(re.compile(r"/api/jobs"), answer)
    upload(page, "large.mgf", mgf(("one", caffeine())).encode() + b"#" * 400_000)
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("100 of 400 spectra searched").wait_for()
    until(lambda: bool(page.wait_for_timeout(20)) or asked.count("GET") > 2)
    assert "DELETE" not in asked and page.locator("#progress-card").is_visible()
    assert page.get_by_role("progressbar").evaluate("bar => bar.value / bar.max") == 0.25
    page.keyboard.press("Escape")
    page.wait_for_selector("#progress-card", state="hidden")
    assert page.locator("#status").inner_text() == "The search was cancelled."
    until(
        lambda: bool(page.wait_for_timeout(20)) or asked[-1] == "DELETE"
    )  # routes are answered while the page is waited for
    assert asked[0] == "POST"


def test_a_job_of_many_queries_is_turned_over_page_by_page(visit):
    page = visit().page
    asked: list[str] = []
    state = {"id": "one", "state": "done", "queries": 40_000, "done": 40_000, "error": None, "seconds": 1.0}

    def hits(route: Any) -> None:
        asked.append(route.request.url.rpartition("?")[2])
        given = {name: int(value) for name, _, value in (part.partition("=") for part in asked[-1].split("&")[:2])}
        numbers = range(given["offset"], min(given["offset"] + given["limit"], 40_000))
        queries = [{"query_id": f"query {n}", "note": "nothing near", "warnings": [], "hits": []} for n in numbers]
        summary = {"queries": 40_000, "with_hits": 0, "without_hits": {"nothing near": 40_000}, "seconds": 1.0}
        told = {"index": {"generation": "0" * 16}, "queries": queries, "summary": summary}
        route.fulfill(json={**told, "page": {"offset": given["offset"], "total": 40_000}})

    page.route(re.compile(r"/api/jobs/one/hits\?offset"), hits)
    page.route(re.compile(r"/api/jobs/one/hits\?format"), lambda route: route.fulfill(body="query_id\n"))
    page.route(re.compile(r"/api/jobs(/one)?$"), lambda route: route.fulfill(json=state))
    upload(page, "large.mgf", b"#" * 400_000)
    search(page)
    assert "40,000 queries · 0 with hits" in page.locator("#answer-told").inner_text()
    page.get_by_text("Queries 1–100 of 40,000", exact=True).wait_for()
    page.get_by_role("button", name="Next queries").click()
    page.get_by_text("Queries 101–200 of 40,000", exact=True).wait_for()
    assert page.locator(".queries tbody tr").first.inner_text().startswith("query 100")
    assert asked == ["offset=0&limit=100", "offset=100&limit=100"]
    assert downloaded(page, page.get_by_role("button", name="TSV").click) == ("hits.tsv", "query_id\n")


def test_a_page_of_a_job_that_has_expired_is_told_and_searched_again(visit):
    visited = visit()
    visited.allowed += ["404", "413"]  # too many for one request: they are a job
    page = visited.page
    upload(page, "large.mgf", mgf(*((f"spectrum {n}", LIBRARY[n % len(LIBRARY)]) for n in range(120))).encode())
    search(page)
    gone = {"error": "there is no job of this id; it may have expired"}
    page.route(re.compile(r"/hits\?offset=100"), lambda route: route.fulfill(status=404, json=gone))
    page.get_by_role("button", name="Next queries").click()
    told = page.locator("#alert").get_by_text("it may have expired")
    told.wait_for()
    assert "no longer kept" in page.locator("#alert").inner_text()
    assert page.locator("#page-told").inner_text() == "Queries 1–100 of 120"
    page.unroute(re.compile(r"/hits\?offset=100"))
    page.route(re.compile(r"/hits\?format=tsv"), lambda route: route.fulfill(status=404, json=gone))
    page.get_by_role("button", name="TSV").click()
    page.locator("#alert button").get_by_text("Try again").wait_for()
    assert "no longer kept" in page.locator("#alert").inner_text()
    page.get_by_role("button", name="Try again").click()
    told.wait_for(state="detached")
    page.get_by_text("Queries 1–100 of 120", exact=True).wait_for()


def test_what_there_is_not_is_not_told_to_have_expired(visit):
    visited = visit()
    visited.allowed.append("404")
    page = visited.page
    none = {"error": "this index has no structure whose spectrum can be predicted"}
    page.route("**/api/example", lambda route: route.fulfill(status=404, json=none))
    page.get_by_role("button", name="Search an example").click()
    page.locator("#alert").get_by_text("can be predicted").wait_for()
    assert "no longer kept" not in page.locator("#alert").inner_text()


def test_a_hit_of_an_index_that_was_compacted_meanwhile_is_told_to_be_searched_again(visit):
    visited = visit()
    visited.allowed.append("410")
    page = visited.page
    asked: list[Any] = []
    page.on("request", lambda request: asked.append(request))
    paste(page, caffeine())
    search(page)
    open_hit(page)
    page.wait_for_selector(".structure img")
    of_rows = [request.url for request in asked if "/api/library/" in request.url]
    assert len(of_rows) == 2 and all(re.search(r"\?generation=[0-9a-f]{16}$", url) for url in of_rows)
    (mirror,) = (request.post_data_json for request in asked if request.url.endswith("/api/mirror"))
    assert of_rows[0].endswith(mirror["generation"])
    gone = {"error": "row 1 is of an earlier state of the index, which was compacted or built anew; search again"}
    page.route("**/api/library/**", lambda route: route.fulfill(status=410, json=gone))
    page.get_by_role("button", name="Next hit").click()
    page.locator("#hit .callout.error").get_by_text("search again").wait_for()
