"""The mirror plot in a browser: zoomed by drag, wheel, keys and fingers, with matched neutral losses, saved as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from .visiting import (
    caffeine,
    downloaded,
    hit_names,
    open_hit,
    paste,
    search,
    ticks,
    until,
)


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
    until(lambda: ticks(page) != whole)
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
    until(lambda: ticks(page) != whole)
    zoomed = ticks(page)
    assert float(zoomed[-1]) - float(zoomed[0]) < (float(whole[-1]) - float(whole[0])) / 2


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
