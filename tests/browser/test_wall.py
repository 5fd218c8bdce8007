"""The Wall tab: all sources at once, their states and counts, the large one by a click; adding, pausing, removing."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.settings import make_settings
from perception.server.viewers.wall import TILE_WIDTH
from tests.browser.conftest import Site, pages, scene
from tests.browser.test_accessibility import SIZES, check
from tests.browser.test_tabs import tab
from tests.media import make_video
from tests.models import write_model
from tests.server.served import served
from tests.server.waiting import wait_for

COLORS = ("red", "green", "blue", "yellow")
ENDLESS = "synthetic:?size=320x180&fps=10&frames=0"

MEAN = """(name) => {
  const image = window.perception.wall.tiles.get(name).image;
  if (!image.naturalWidth) return null;
  const { naturalWidth: width, naturalHeight: height } = image;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const at = [Math.round(0.625 * canvas.width), Math.round(0.5 * canvas.height), 1, 1];
  return [image.naturalWidth, ...context.getImageData(...at).data].slice(0, 4);
}"""
"""Width of a tile's picture, and RGB in the middle of its square."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with four cameras, each with a square of another colour, whose sources may be changed."""
    folder = tmp_path_factory.mktemp("wall")
    rules = folder / "rules.yaml"
    rules.write_text("zones:\n  - {name: all, points: [[0, 0], [1, 0], [1, 1], [0, 1]]}\n")
    sources: dict[str, Any] = {}
    for color in COLORS:
        path = folder / f"{color}.mp4"
        make_video(path, images=[scene(color)] * 20, size_wh=(640, 480), fps=10, options={"preset": "ultrafast"})
        sources[color] = {"uri": str(path), "rules": str(rules)}
    settings = make_settings(
        {
            "model": str(write_model(folder / "colors.onnx", detection=True, classes=4)),
            "data_dir": folder / "data",
            "sources": sources,
            "edit_sources": True,
            "allow": ["synthetic:*"],
        }
    )
    app = create_app(settings)
    with served(app) as address:
        yield Site(f"http://{address}/", app.state.service, folder / "red.mp4")


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    with pages(browser, site) as open_one:
        yield open_one


def wall(page: Any, *names: str) -> Any:
    """The Wall tab, once each of these sources runs and has a picture."""
    here = tab(page, "Wall")
    for name in names or COLORS:
        running(page, name)
    return here


def running(page: Any, name: str) -> None:
    page.wait_for_function(
        "(name) => { const tile = window.perception.wall?.tiles.get(name);"
        " return tile?.state.dataset.state === 'running' && tile.shown > 1 && tile.image.naturalWidth; }",
        arg=name,
    )


def state_is(page: Any, name: str, state: str) -> None:
    page.wait_for_function(
        "([name, state]) => window.perception.wall.tiles.get(name)?.state.dataset.state === state", arg=[name, state]
    )


def test_every_source_has_its_own_picture_and_counts(open_page: Callable[..., Any]) -> None:
    page = open_page()
    here = wall(page)
    assert here.locator(".pv-tile-name").all_inner_texts() == list(COLORS)
    for color in COLORS:
        width, *rgb = page.evaluate(MEAN, color)
        assert width == TILE_WIDTH
        # Half its own colour, half that of its class, which is the same.
        loudest = {"red": [1, 0, 0], "green": [0, 1, 0], "blue": [0, 0, 1], "yellow": [1, 1, 0]}[color]
        assert [int(value > 110) for value in rgb] == loudest, (color, rgb)
        tile = here.locator(".pv-tile", has=page.get_by_text(color, exact=True))
        assert "frames/s" in tile.locator(".pv-state").inner_text()
        page.wait_for_function(
            "(name) => /^[1-9][0-9]* box(es)?; all: [1-9]/"
            ".test(window.perception.wall.tiles.get(name).counts.innerText)",
            arg=color,
        )
    assert not page.locator("#pv-settings").is_visible()


def test_a_click_shows_it_large_and_the_wall_is_left_in_peace(open_page: Callable[..., Any], site: Site) -> None:
    page = open_page()
    here = wall(page)
    here.get_by_role("button", name="green, running: show it large").click()
    page.wait_for_function("() => window.perception.live.status?.name === 'green'")
    page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.3")
    assert page.get_by_role("tab", name="Live").get_attribute("aria-selected") == "true"
    assert page.locator("#pv-source").input_value() == "server:green"
    red = site.service.streams.of("red")
    wait_for(lambda: red.viewers == 0)  # nobody draws for a wall that nobody sees
    tab(page, "Wall")
    wait_for(lambda: red.viewers == 1)


def test_a_source_comes_pauses_goes_on_and_goes(open_page: Callable[..., Any], site: Site) -> None:
    page = open_page()
    here = wall(page)
    here.get_by_label("Name").fill("yard")
    here.get_by_label("Address").fill("/etc/passwd")
    here.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_function(
        "() => document.querySelector('.pv-add-source .pv-note').innerText.includes('not among the')"
    )
    here.get_by_label("Address").fill(ENDLESS)
    here.get_by_label("Frames a second").fill("5")
    here.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_function("() => window.perception.wall.tiles.has('yard')")
    running(page, "yard")
    assert here.locator(".pv-tile-name").all_inner_texts() == [*COLORS, "yard"]
    assert here.get_by_label("Name").input_value() == ""
    here.get_by_role("button", name="Pause yard").click()
    state_is(page, "yard", "paused")
    here.get_by_role("button", name="Resume yard").click()
    running(page, "yard")
    assert here.get_by_role("button", name="Remove").count() == 1  # those of the configuration stay
    here.get_by_role("button", name="yard, running: show it large").click()
    page.wait_for_function("() => window.perception.live.status?.name === 'yard'")
    tab(page, "Wall")
    running(page, "yard")
    here.get_by_role("button", name="Remove yard").click()
    assert "yard" in site.service.roster.entries()  # not by one slip of a finger
    here.get_by_text("Really remove?").click()
    page.wait_for_function("() => !window.perception.wall.tiles.has('yard')")
    assert "yard" not in site.service.roster.entries()


def test_the_keyboard_gets_round(open_page: Callable[..., Any]) -> None:
    page = open_page()
    wall(page)
    page.locator(".pv-tile-open").first.focus()
    seen = []
    for _ in range(9):
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.name"))
        page.keyboard.press("Tab")
    assert [text.split(",")[0] for text in seen] == [
        *(text for color in COLORS for text in (color, f"Pause {color}")), "name"
    ]  # fmt: skip
    page.locator(".pv-tile-open").nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.perception.live.status?.name === 'blue'")


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_it_fits(
    open_page: Callable[..., Any], tmp_path: Path, scheme: str, size: tuple[int, int]
) -> None:
    page = open_page(size, scheme)
    wall(page)
    page.screenshot(path=str(tmp_path / f"wall-{scheme}-{size[0]}.png"), full_page=True)
    check(page, "Wall")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    boxes = page.evaluate("[...document.querySelectorAll('.pv-tile')].map((e) => e.getBoundingClientRect().toJSON())")
    assert len({round(box["top"]) for box in boxes}) == (1 if size[0] > 1000 else 2)  # two beside each other on a phone


def test_however_many_look_each_picture_is_made_once(site: Site) -> None:
    """Two viewers by the protocol itself: what they get is the same, byte for byte."""
    url = site.url.replace("http", "ws") + "v1/wall"
    with connect(url, max_size=None) as one, connect(url, max_size=None) as other:
        wait_for(lambda: all((s := site.service.streams.of(c)) is not None and s.viewers == 2 for c in COLORS))
        threads = [site.service.streams.of(color).broadcasts for color in COLORS]
        assert [len(each) for each in threads] == [1] * len(COLORS)
        got: list[dict[str, set[bytes]]] = [{}, {}]
        while not all(len(seen) == len(COLORS) and all(len(p) > 3 for p in seen.values()) for seen in got):
            for viewer, seen in zip((one, other), got, strict=True):
                message = viewer.recv(30)
                if isinstance(message, bytes):
                    (length,) = struct.unpack_from("B", message)
                    seen.setdefault(message[1 : 1 + length].decode(), set()).add(message[1 + length :])
        assert set(got[0]) == set(COLORS)
        assert all(got[0][color] & got[1][color] for color in COLORS)
        assert np.all([picture[:2] == b"\xff\xd8" for seen in got for each in seen.values() for picture in each])
    wait_for(lambda: all(site.service.streams.of(color).viewers == 0 for color in COLORS))
