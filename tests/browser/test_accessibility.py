"""The page for everybody: axe-core finds nothing, the keyboard is seen and gets round, fingers find their targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.browser.conftest import choose, results, scene
from tests.browser.test_tabs import tab

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

SIZES = {"desk": (1280, 800), "phone": (390, 844)}

TARGETS = """() => [...document.querySelectorAll("a[href], button, input, select, summary, textarea")]
  .filter((e) => e.checkVisibility() && !e.closest(".visually-hidden")) // Gradio measures its tabs by a copy
  .map((e) => {
    const boxes = [e, ...(e.labels ?? [])].map((part) => part.getBoundingClientRect());
    return [e.outerHTML.slice(0, 120), Math.max(...boxes.map((b) => Math.min(b.width, b.height)))];
  })
  .filter(([, side]) => side < 23.5)"""

FOCUSED = """() => {
  const e = document.activeElement;
  const seen = [e, ...(e.labels ?? [])].some((part) => {
    const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(part);
    return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && !/, 0\\)/.test(outlineColor);
  });
  return [e.tagName === "INPUT" ? e.type : e.tagName, e.outerHTML.slice(0, 160), seen];
}"""


def check(page: Any, where: str) -> None:
    """No rule of axe-core is broken as the page stands."""
    found = axe.Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]})
    faults = [
        f"{where}: {fault['id']}: {node['html'][:160]}: {node['failureSummary']}"
        for fault in found.response["violations"]
        for node in fault["nodes"]
    ]
    assert faults == []
    small = page.evaluate(TARGETS)
    assert small == [], f"{where}: {small}"


@pytest.mark.parametrize(
    ("scheme", "size"),
    [  # each colour scheme and each size is in the quick ones
        pytest.param("light", SIZES["desk"], id="light-desk"),
        pytest.param("dark", SIZES["phone"], id="dark-phone"),
        pytest.param("light", SIZES["phone"], id="light-phone", marks=pytest.mark.slow),
        pytest.param("dark", SIZES["desk"], id="dark-desk", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(open_page: Callable[..., Any], tmp_path: Path, scheme: str, size: tuple[int, int]) -> None:
    page = open_page(size, scheme)
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")
    check(page, "Live")
    choose(page, "pv-source", "stream URL")
    page.locator("#pv-url").wait_for()
    page.evaluate("document.documentElement.dataset.pvUnknown = 'yes'")  # as with a model that has a scale for it
    page.locator("#pv-unknown").wait_for()
    check(page, "Live, an address")
    choose(page, "pv-source", "this browser's camera")
    page.locator("#pv-mirror").wait_for()
    check(page, "Live, the camera")
    choose(page, "pv-model", "imagenet")
    page.locator(".pv-search").wait_for()
    check(page, "Live, a thousand classes")
    choose(page, "pv-model", "colors")
    page.locator(".pv-chip", has_text="green").click()
    (tmp_path / "some.mp4").write_bytes(bytes(5000))
    here = tab(page, "Video")
    here.locator(".pv-file").set_input_files(str(tmp_path / "some.mp4"))
    here.get_by_text("5 kB").wait_for()
    check(page, "Video")
    cv2.imwrite(str(tmp_path / "in.png"), scene())
    here = tab(page, "Picture")
    here.locator(".pv-file").set_input_files(str(tmp_path / "in.png"))
    here.locator(".pv-found").wait_for()
    here.get_by_text("Explain: which pixels").click()
    check(page, "Picture")


def test_arrows_choose_tabs_and_the_camera_keeps_the_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    both = "[document.activeElement, document.querySelector('[role=tab][aria-selected=true]')]"
    page.keyboard.press("Tab")
    for key, name in [
        ("ArrowRight", "Wall"), ("ArrowRight", "Video"), ("ArrowRight", "Picture"), ("ArrowRight", "Live"),
        ("ArrowLeft", "Picture"), ("ArrowLeft", "Video"), ("ArrowLeft", "Wall"), ("End", "Picture"), ("Home", "Live"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_function(f"() => {both}.every((tab) => tab.innerText.trim() === '{name}')")
    page.get_by_role("button", name="Use my camera").focus()
    page.keyboard.press("Enter")
    page.locator(".pv-camera").wait_for(state="hidden")
    page.wait_for_function("() => document.activeElement.innerText === 'Pause'")
    results(page, 1)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'paused'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_keyboard_is_seen_wherever_it_is(open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page(scheme=scheme)
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")
    visited: list[str] = []
    unseen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        kind, html, seen = page.evaluate(FOCUSED)
        if kind == "BODY":
            break
        visited.append(kind)
        if not seen:
            unseen.append(html)
    assert unseen == []
    assert {"range", "number", "checkbox", "radio", "SELECT", "BUTTON"} <= set(visited)
    assert len(visited) < 40
