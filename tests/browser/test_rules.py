"""Lines and zones drawn over the live picture by mouse, finger and keyboard: what they count is the truth."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.browser.conftest import SQUARE_XYXY, Site, choose, pages, results, start_camera
from tests.browser.test_accessibility import check
from tests.models import write_model
from tests.server.served import served
from tests.server.waiting import wait_for

STREET = "synthetic:?size=640x360&fps=30&frames=0&seed=4"
MODULE = "street_traffic"
STAGE = f'''
"""The traffic of the drawn street as it truly is, from a signal of the test on, in place of what a model finds."""

import threading
from dataclasses import replace

import numpy as np

from perception.sources.synthetic.source import BICYCLIST, CAR, SyntheticSource
from perception.types import Detections

STREET = {STREET!r}
FRAMES = 120
CLASSES = {{CAR: 0, BICYCLIST: 1}}
go = threading.Event()
lock = threading.Lock()
span = []


def truth(street, index):
    """Cars and bicyclists of a frame."""
    found = street.truth(index)[0]
    kept = [i for i, c in enumerate(found.class_ids.tolist()) if c in CLASSES]
    ids = np.array([CLASSES[c] for c in found.class_ids[kept].tolist()], np.int32)
    return Detections(found.boxes[kept], found.scores[kept], ids, found.track_ids[kept])


def clear(street, index, line=0.5, margin=0.06):
    """Whether nobody is near the middle of the street."""
    boxes = truth(street, index).boxes
    return bool((np.abs((boxes[:, 0] + boxes[:, 2]) / 2 / 640 - line) > margin).all())


class Traffic:
    """One frame of it for each result, so that no frame is lost however slow the machine is."""

    def __init__(self):
        self.street = SyntheticSource.from_uri(STREET)
        self.next = None
        self.began = self.done = 0

    def __call__(self, prediction):
        if self.next is None and go.is_set():
            with lock:
                if not span:
                    first = prediction.frame.index
                    while not clear(self.street, first):
                        first += 1
                    last = first + FRAMES
                    while not clear(self.street, last):
                        last += 1
                    span.extend((first, last))
            self.next = span[0]
            self.began = prediction.frame.time
        found = Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(0, np.int64)
        )
        if self.next is not None and self.next <= span[1]:
            found = truth(self.street, self.next)
            self.next += 1
        frame = prediction.frame
        if self.next is not None:  # 25 frames a second, however busy the machine is
            self.done += 1
            frame = frame.at(time=self.began + self.done / 25)
        return replace(prediction, frame=frame, detections=found)
'''


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("traffic")
    (folder / f"{MODULE}.py").write_text(STAGE)
    sys.path.insert(0, str(folder))
    yield __import__(MODULE)
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


@pytest.fixture
def street(traffic: Any, tmp_path: Path) -> Iterator[Site]:
    """A server that shows the drawn street."""
    model = write_model(
        tmp_path / "street.onnx", width=64, height=48, classes=["red", "green"], detection=True,
        called={"red": "car", "green": "bicycle"},
    )  # fmt: skip
    app = create_app(
        make_settings(
            {
                "model": str(model),
                "data_dir": tmp_path / "data",
                "sources": {"street": STREET},
                "stages": ["track", f"{MODULE}:Traffic"],
            }
        )
    )
    with served(app) as address:
        yield Site(f"http://{address}/", app.state.service, tmp_path)


def truth_of(traffic: Any) -> dict[str, dict[str, int]]:
    """Who crossed the middle of the street, by direction and class: first seen on one side, last on the other."""
    source = traffic.SyntheticSource.from_uri(traffic.STREET)
    first, last = traffic.span
    sides: dict[int, list[tuple[bool, int]]] = {}
    for index in range(first, last + 1):
        found = traffic.truth(source, index)
        middles = (found.boxes[:, 0] + found.boxes[:, 2]) / 2
        for track, x, kind in zip(found.track_ids.tolist(), middles.tolist(), found.class_ids.tolist(), strict=True):
            sides.setdefault(track, []).append((x > 320, kind))
    counts: dict[str, dict[str, int]] = {"forward": {}, "backward": {}}
    for seen in sides.values():
        (was, kind), (is_now, _) = seen[0], seen[-1]
        if was != is_now:
            name = "car" if kind == 0 else "bicycle"
            way = counts["forward" if is_now else "backward"]  # drawn downwards: ahead is to the right
            way[name] = way.get(name, 0) + 1
    return counts


def point(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where in the window a point of the picture is, given in parts of its width and height."""
    box = page.locator(".pv-stage").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*point(page, *start))
    page.mouse.down()
    page.mouse.move(*point(page, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2))
    page.mouse.move(*point(page, *end))
    page.mouse.up()


def edit(page: Any) -> None:
    page.get_by_role("button", name="Lines and zones").click()


def done(page: Any) -> None:
    page.get_by_role("button", name="Done").click()


def draw_line(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.get_by_role("button", name="Draw a line").click()
    drag(page, start, end)


def draw_zone(page: Any, corners: list[tuple[float, float]]) -> None:
    page.get_by_role("button", name="Draw a zone").click()
    for corner in [*corners, corners[0]]:
        page.mouse.click(*point(page, *corner))


def saved(page: Any, site: Site, stream: str = "street") -> dict[str, Any]:
    rules: dict[str, Any] = page.request.get(f"{site.url}v1/streams/{stream}/rules").json()["drawn"]
    return rules


def running(page: Any) -> None:
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")
    page.locator(".pv-draw").wait_for()


def listed(page: Any) -> str:
    return str(page.locator(".pv-rule-list").inner_text())


def test_a_line_drawn_by_mouse_counts_the_street_as_it_is(
    browser: Any, street: Site, traffic: Any, tmp_path: Path
) -> None:
    with pages(browser, street) as open_one:
        page = open_one()
        running(page)
        edit(page)
        draw_line(page, (0.5, 0.05), (0.5, 0.95))
        wait_for(lambda: "lines" in saved(page, street))
        [line] = saved(page, street)["lines"]
        assert line["name"] == "line 1"
        assert np.allclose(line["points"], [[0.5, 0.05], [0.5, 0.95]], atol=0.004)
        page.get_by_label("Name").fill("crossroads")
        page.get_by_label("Name").press("Enter")
        wait_for(lambda: saved(page, street)["lines"][0]["name"] == "crossroads")
        done(page)
        page.wait_for_function("() => 'crossroads' in (window.perception.live.status?.rules ?? {})")
        traffic.go.set()
        wait_for(lambda: bool(traffic.span))
        expected = truth_of(traffic)
        assert sum(expected["forward"].values()) >= 1 and sum(expected["backward"].values()) >= 1, expected
        reads = "window.perception.live.status.rules.crossroads.crossed"
        wait_for(lambda: page.evaluate(reads) == expected, 120)
        page.wait_for_timeout(2000)  # and no more comes
        assert page.evaluate(reads) == expected
        words = listed(page)
        for way, classes in expected.items():
            assert f"{way} {sum(classes.values())}" in words
            assert all(f"{name} {count}" in words for name, count in classes.items())
        with page.expect_download() as download:
            page.get_by_role("button", name="Numbers (CSV)").click()
        rows = [row.split(",") for row in download.value.path().read_text().splitlines()]
        assert rows[0] == ["source", "start", "rule", "kind", "class", "direction", "count", "mean", "max"]
        told: dict[str, dict[str, int]] = {"forward": {}, "backward": {}}
        for row in rows[1:]:
            if int(row[6]):
                assert row[0] == "street" and row[2:4] == ["crossroads", "crossed"]
                told[row[5]][row[4]] = told[row[5]].get(row[4], 0) + int(row[6])
        assert told == expected
        bars = page.evaluate(
            """() => { const c = document.querySelector('.pv-bars');
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some((v) => v > 0); }"""
        )
        assert bars


X0, Y0, X1, Y1 = (v / side for v, side in zip(SQUARE_XYXY, (640, 480, 640, 480), strict=True))
BELOW = ((X0 + X1) / 2, Y1 + 0.2)
"""Where a corner from above pulls its edges over the one below."""
AROUND = [(X0 - 0.1, Y0 - 0.1), (X1 + 0.1, Y0 - 0.1), (X1 + 0.1, Y1 + 0.1), (X0 - 0.1, Y1 + 0.1)]


@pytest.fixture
def shown(site: Site, open_page: Callable[..., Any]) -> Iterator[Any]:
    """The page with the still square of the camera's picture as a stream, and no rules before and after."""
    page = open_page()
    running(page)
    yield page
    page.request.put(f"{site.url}v1/streams/street/rules", data={})


INSIDE = "() => window.perception.live.status?.rules['{}']?.inside === {}"


def test_a_zone_is_drawn_edited_kept_and_deleted(shown: Any, site: Site) -> None:
    page = shown
    edit(page)
    draw_zone(page, AROUND)
    wait_for(lambda: "zones" in saved(page, site))
    [zone] = saved(page, site)["zones"]
    assert np.allclose(zone["points"], AROUND, atol=0.004)
    page.wait_for_function(INSIDE.format("zone 1", 1))
    page.wait_for_function(
        "() => /1 inside · #\\d+ \\d+ s · 1 entered · 0 left/.test(document.querySelector('.pv-rule-list').innerText)"
    )
    # both lower corners go above the square's bottom, where it stands
    drag(page, AROUND[2], (AROUND[2][0], Y1 - 0.15))
    drag(page, AROUND[3], (AROUND[3][0], Y1 - 0.15))
    page.wait_for_function(INSIDE.format("zone 1", 0))
    # and back again, the whole of it
    drag(page, ((X0 + X1) / 2, Y0), ((X0 + X1) / 2, Y0 + 0.3))
    page.wait_for_function(INSIDE.format("zone 1", 1))
    page.get_by_label("Name").fill("yard")
    page.get_by_label("Name").press("Enter")
    page.wait_for_function(INSIDE.format("yard", 1))
    kept = saved(page, site)
    page.reload()
    page.wait_for_function("() => window.perception?.live")
    running(page)
    assert saved(page, site) == kept
    page.wait_for_function(INSIDE.format("yard", 1))
    page.locator(".pv-rule-name", has_text="yard").wait_for()
    edit(page)
    page.mouse.click(*point(page, (X0 + X1) / 2, Y0 + 0.3))
    assert page.locator(".pv-rule.pv-chosen").count() == 1
    page.get_by_role("button", name="Delete zone").click()
    wait_for(lambda: saved(page, site) == {})
    page.wait_for_function("() => Object.keys(window.perception.live.status.rules).length === 0")
    assert page.locator(".pv-rule").count() == 0


def test_what_is_wrong_is_said_beside_the_shape_and_holds_up_no_other(shown: Any, site: Site) -> None:
    page = shown
    edit(page)
    draw_zone(page, AROUND)
    wait_for(lambda: "zones" in saved(page, site))
    good = saved(page, site)["zones"]
    drag(page, AROUND[1], BELOW)
    fault = page.locator(".pv-fault")
    page.wait_for_function("() => document.querySelector('.pv-fault').innerText.includes('crosses itself')")
    assert "zone 1" in fault.inner_text() and saved(page, site)["zones"] == good
    draw_line(page, (0.1, 0.1), (0.1, 0.9))
    wait_for(lambda: "lines" in saved(page, site))
    assert saved(page, site)["zones"] == good
    line = page.locator(".pv-rule", has_text="line 1")
    line.get_by_label("Classes").fill("blu")
    line.get_by_label("Classes").press("Enter")
    page.wait_for_function("() => /did you mean 'blue'/.test(document.querySelector('.pv-rule-list').innerText)")
    line.get_by_label("Classes").fill("blue, red")
    line.get_by_label("Classes").press("Enter")
    wait_for(lambda: saved(page, site)["lines"][0].get("classes") == ["blue", "red"])
    line.get_by_label("Name").fill("zone 1")
    line.get_by_label("Name").press("Enter")
    page.wait_for_function("() => /two rules are called/.test(document.querySelector('.pv-rule-list').innerText)")
    assert saved(page, site)["lines"][0]["name"] == "line 1"
    drag(page, BELOW, AROUND[1])
    page.wait_for_function("() => document.querySelectorAll('.pv-fault:not([hidden])').length === 1")


@pytest.mark.slow
def test_another_page_that_has_changed_them_is_not_overwritten(shown: Any, site: Site) -> None:
    page = shown
    edit(page)
    draw_line(page, (0.2, 0.1), (0.2, 0.9))
    wait_for(lambda: "lines" in saved(page, site))
    other = {"lines": [{"name": "theirs", "points": [[0.8, 0.1], [0.8, 0.9]]}]}
    page.request.put(f"{site.url}v1/streams/street/rules", data=other)
    page.get_by_label("Name").fill("mine")
    page.get_by_label("Name").press("Enter")
    page.locator(".pv-rules-note", has_text="somebody else").wait_for()
    assert saved(page, site) == other
    page.locator(".pv-rule-name", has_text="theirs").wait_for()
    done(page)
    # and one that only watches sees what others draw
    third = {"zones": [{"name": "third", "points": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]}]}
    page.request.put(f"{site.url}v1/streams/street/rules", data=third)
    page.locator(".pv-rule-name", has_text="third").wait_for()
    assert page.locator(".pv-rule").count() == 1


def test_the_keyboard_draws_moves_names_deletes_and_leaves(shown: Any, site: Site) -> None:
    page = shown
    page.locator(".pv-draw").press("Enter")
    page.get_by_role("button", name="Draw a line").press("Enter")
    assert page.evaluate("document.activeElement.closest('label').innerText") == "Name"
    page.keyboard.press("Control+A")
    page.keyboard.type("gate")
    page.keyboard.press("Enter")
    wait_for(lambda: saved(page, site).get("lines", [{}])[0].get("name") == "gate")
    page.get_by_role("button", name="Turn line").press("Enter")
    page.get_by_role("button", name="Move line").press("ArrowUp")
    page.get_by_role("button", name="Move line").press("ArrowLeft")
    wait_for(lambda: saved(page, site)["lines"][0]["points"] == [[0.74, 0.49], [0.24, 0.49]])
    page.get_by_label("Back").fill("south")
    page.get_by_label("Back").press("Enter")
    wait_for(lambda: saved(page, site)["lines"][0].get("directions") == ["forward", "south"])
    page.get_by_role("button", name="Delete line").press("Enter")
    wait_for(lambda: saved(page, site) == {})
    assert page.evaluate("document.activeElement.className") == "pv-add-line"
    page.get_by_role("button", name="Draw a zone").click()
    page.keyboard.press("Escape")  # first the zone is given up, then the mode
    assert page.locator(".pv-tools").is_visible()
    page.keyboard.press("Escape")
    assert page.locator(".pv-tools").is_hidden()
    assert page.evaluate("document.activeElement.className") == "pv-draw"


@pytest.mark.parametrize(("scheme", "size"), [("light", (1280, 800)), ("dark", (390, 844))], ids=["desk", "phone"])
def test_axe_finds_nothing_while_they_are_drawn(
    open_page: Callable[..., Any], site: Site, scheme: str, size: tuple[int, int]
) -> None:
    page = open_page(size, scheme)
    running(page)
    edit(page)
    draw_zone(page, AROUND)
    draw_line(page, (0.1, 0.1), (0.1, 0.9))
    wait_for(lambda: "lines" in saved(page, site))
    line = page.locator(".pv-rule", has_text="line 1")
    line.get_by_label("Classes").fill("nobody")
    line.get_by_label("Classes").press("Enter")
    page.locator(".pv-fault:not([hidden])").wait_for()
    check(page, "Live, drawing")
    done(page)
    check(page, "Live, with lines")
    page.request.put(f"{site.url}v1/streams/street/rules", data={})


def test_fingers_draw_over_the_camera_which_remembers_it(open_page: Callable[..., Any]) -> None:
    """Over a mirrored picture: what is drawn where the square is seen is around the square."""
    page = open_page((390, 844), has_touch=True, is_mobile=True)
    start_camera(page)
    page.locator(".pv-draw").tap()
    page.get_by_role("button", name="Draw a zone").tap()
    for x, y in AROUND:
        page.touchscreen.tap(*point(page, 1 - x, y))
    page.get_by_role("button", name="Close the zone").tap()
    reads = "window.perception.live.rules.readings['zone 1']?.inside"
    page.wait_for_function(f"() => {reads} === 1")
    kept = json.loads(page.evaluate("localStorage.getItem('perception.rules.webcam')"))
    assert np.allclose(kept["zones"][0]["points"], AROUND, atol=0.006)
    page.locator(".pv-draw").tap()
    page.reload()
    page.wait_for_function("() => window.perception?.live")
    start_camera(page)
    page.wait_for_function(f"() => {reads} === 1")
    # a connection that is lost takes them along to the next one
    page.evaluate("window.perception.live.view.socket.close()")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText.startsWith('reconnecting')")
    page.evaluate("window.perception.live.rules.readings = {}")
    page.wait_for_function(f"() => {reads} === 1")
    page.locator(".pv-draw").tap()
    page.get_by_role("button", name="Delete zone").tap()
    page.wait_for_function("() => localStorage.getItem('perception.rules.webcam') === null")
    results(page, 3)
    page.wait_for_function("() => Object.keys(window.perception.live.rules.shapes ?? {}).length === 0")


@pytest.mark.slow
def test_a_model_without_boxes_has_nothing_to_draw(shown: Any) -> None:
    page = shown
    choose(page, "pv-model", "imagenet")
    page.locator(".pv-draw").wait_for(state="hidden")
    choose(page, "pv-model", "colors")
    page.locator(".pv-draw").wait_for()
