"""The column of settings: what is offered, what is shown when, and getting about in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perception.card import read_card
from perception.weights.library import find_model
from tests.browser.conftest import Site, choose, pages, results, set_slider
from tests.browser.test_tabs import tab

ALL = ("pv-source", "pv-score", "pv-iou", "pv-opacity", "pv-view", "pv-mirror", "pv-url")
SHOWN = """() => [...document.querySelectorAll("#pv-show input")]
  .filter((box) => box.checkVisibility()).map((box) => box.name)"""


@pytest.fixture(scope="module")
def page(browser: Any, site: Site) -> Iterator[Any]:
    """One page for all tests, each of which says what it wants of it."""
    with pages(browser, site) as open_one:
        yield open_one()


def shown(page: Any) -> set[str]:
    """The settings that can be seen."""
    return {name for name in ALL if page.locator(f"#{name}").is_visible()}


def test_settings_are_shown_where_they_mean_something(page: Any) -> None:
    tab(page, "Live")
    choose(page, "pv-source", "street")
    choose(page, "pv-model", "colors")
    page.locator("#pv-view").wait_for()
    boxes_and_masks = {"pv-score", "pv-iou", "pv-opacity"}
    assert shown(page) == boxes_and_masks | {"pv-source", "pv-view"}
    assert page.evaluate(SHOWN) == ["Masks", "Boxes", "Labels", "Legend"]
    choose(page, "pv-source", "this browser's camera")
    page.locator("#pv-mirror").wait_for()
    assert shown(page) == boxes_and_masks | {"pv-source", "pv-mirror"}  # drawn by the browser, as boxes
    for name in ("Video", "Picture"):
        tab(page, name)
        page.locator("#pv-source").wait_for(state="hidden")
        assert shown(page) == boxes_and_masks | {"pv-view"}
        for over_time in ("#pv-track", "#pv-smooth"):  # one picture has nothing to follow
            assert page.locator(over_time).is_visible() == (name == "Video")
    tab(page, "Live")
    choose(page, "pv-model", "camvid")
    page.locator("#pv-score").wait_for(state="hidden")
    assert shown(page) == {"pv-source", "pv-opacity", "pv-mirror"}
    assert page.evaluate(SHOWN) == ["Masks", "Legend"]
    choose(page, "pv-model", "imagenet")
    page.locator("#pv-opacity").wait_for(state="hidden")
    assert shown(page) == {"pv-source", "pv-mirror"}
    assert page.evaluate(SHOWN) == ["Labels"]
    assert not page.locator("#pv-smooth").is_visible()
    choose(page, "pv-model", "colors")


def test_typing_into_the_list_of_sources_leaves_it_usable(page: Any) -> None:
    tab(page, "Live")
    choose(page, "pv-source", "street")
    page.focus("#pv-source")
    page.keyboard.type("rtsp://192.168.1.5/stream")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    offered = page.locator("#pv-source option").evaluate_all("(options) => options.map((o) => o.value)")
    assert page.evaluate("window.perception.settings.source") == page.input_value("#pv-source")
    assert page.input_value("#pv-source") in offered
    choose(page, "pv-source", "a video file")
    page.locator(".pv-choose").wait_for()
    choose(page, "pv-source", "street")
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")


def test_one_list_is_open_at_a_time_since_the_browser_opens_them(page: Any) -> None:
    """A list of the browser's own closes when another one, or anything else, is clicked."""
    lists = page.locator("#pv-page :is(select, [role=combobox], [role=listbox], [aria-haspopup])")
    assert set(lists.evaluate_all("(found) => found.map((e) => e.tagName)")) == {"SELECT"}


def test_the_list_of_models_says_what_each_is_for(page: Any) -> None:
    texts = page.locator("#pv-model option").all_inner_texts()
    assert "colors: masks and boxes" in texts
    assert "camvid: masks" in texts
    assert "imagenet: a class for the picture" in texts
    choose(page, "pv-model", "camvid")
    assert page.locator(".pv-about").inner_text() == "Street scenes in 11 classes, from a car."
    choose(page, "pv-model", "colors")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_the_camera_is_one_click_away(open_page: Callable[..., Any], size: tuple[int, int]) -> None:
    page = open_page(size)
    button = page.get_by_role("button", name="Use my camera")
    button.wait_for()
    box = button.bounding_box()
    assert box["y"] + box["height"] <= size[1] and box["x"] + box["width"] <= size[0]  # without scrolling
    button.click()
    results(page, 3)
    assert page.input_value("#pv-source") == "webcam"
    button.wait_for(state="hidden")
    choose(page, "pv-source", "street")
    button.wait_for()


def test_a_slider_goes_back_to_what_the_model_has(page: Any) -> None:
    """Gradio's own arrow goes back to what the model had with which the page began."""
    tab(page, "Live")
    choose(page, "pv-source", "a video file")  # which is not there, so that nothing is loaded
    cards = {name: read_card(find_model(name)).detection for name in ("street", "street-open")}
    chosen = "() => ['score', 'iou'].map((name) => window.perception.settings[name])"

    def become(score: float, iou: float) -> None:
        page.wait_for_function(f"(wanted) => JSON.stringify(({chosen})()) === JSON.stringify(wanted)", arg=[score, iou])

    first = page.evaluate(chosen)
    for name, card in cards.items():
        assert card is not None and [card.score_threshold, card.iou_threshold] != first
        choose(page, "pv-model", name)
        set_slider(page, "pv-score", "0.87")
        set_slider(page, "pv-iou", "0.91")
        become(0.87, 0.91)
        page.click("#pv-score .reset-button")
        become(card.score_threshold, 0.91)  # the other one stays
        page.click("#pv-iou .reset-button")
        become(card.score_threshold, card.iou_threshold)
        page.wait_for_function(  # the steps of the handle; the setting itself is exact, above
            "(wanted) => Number(document.querySelector('#pv-score input[type=range]').value) === wanted",
            arg=round(card.score_threshold, 2),
        )
    choose(page, "pv-model", "colors")
    choose(page, "pv-source", "street")


def test_a_thousand_classes_are_searched_and_are_one_stop(open_page: Callable[..., Any]) -> None:
    page = open_page()
    search = page.locator(".pv-search")
    assert search.is_hidden()  # four classes need none
    choose(page, "pv-model", "imagenet")
    search.wait_for()
    assert page.locator(".pv-chip").count() == 1000
    search.focus()
    page.keyboard.press("Tab")
    focused = "document.activeElement.value || document.activeElement.innerText"
    names = page.locator(".pv-chip").all_inner_texts()
    assert page.evaluate(focused) == names[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == names[1]
    page.keyboard.press("End")
    assert page.evaluate(focused) == names[-1]
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "all"
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(focused) == names[-1]  # where it was left
    search.fill("TERRIER")
    found = [name for name in names if "terrier" in name.lower()]
    assert 3 < len(found) < 100
    visible = page.locator(".pv-chip:visible")
    assert visible.all_inner_texts() == found
    page.get_by_role("button", name="none", exact=True).click()  # of those that are found
    assert set(page.evaluate("[...window.perception.settings.hidden]")) == set(found)
    search.fill("no such thing")
    page.get_by_text("No class of that name.").wait_for()
    search.fill("")
    assert visible.count() == 1000
    # nearly all names are sent then: more than fits in the address of a socket
    page.wait_for_function("() => window.perception.live.status?.model === 'imagenet'")
    page.evaluate("window.perception.live.view.socket.close()")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText.startsWith('reconnecting')")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
    page.evaluate("window.at = window.perception.live.parts.video.currentTime")
    page.wait_for_function("() => window.perception.live.parts.video.currentTime > window.at + 0.5")
    assert page.locator(".pv-note").first.inner_text() == ""
