"""The HTML report: complete, valid, safe, and self-contained."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import SinkError
from perception.evaluation.detection import evaluate_detection
from perception.evaluation.report import NAME, PANEL_WIDTH, SHOWN_CLASSES, Report, _confusion, _data_uri, render
from perception.evaluation.result import Confusion, Example, Worst
from perception.evaluation.segmentation import evaluate_segmentation
from tests.evaluation.scenes import write_boxes, write_labels
from tests.models import write_model

VOID = {"meta", "img", "path", "polyline"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps what is on the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_the_report_of_masks(tmp_path: Path) -> None:
    folder = write_labels(tmp_path)
    model = write_model(tmp_path / "m.onnx")
    result = evaluate_segmentation(model, folder / "images", folder / "labels", ignore=[11], worst=4)
    report = Report(tmp_path / "new" / "report")
    report.write(result)
    assert report.path == tmp_path / "new" / "report" / NAME
    assert [p.name for p in report.path.parent.iterdir()] == [NAME]
    page = Page(report.path.read_text())
    assert page.tags.count("img") == 4 * 4
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "script" not in page.tags
    assert f"{result.confusion.mean_iou():.4f}" in page.text
    for example in result.examples:
        assert example.caption in page.text


def test_the_report_of_boxes_has_curves(tmp_path: Path) -> None:
    folder = write_boxes(tmp_path)
    model = write_model(tmp_path / "m.onnx", width=128, height=96, segmentation=False, detection=True)
    result = evaluate_detection(model, folder / "images", folder / "boxes.json", worst=2)
    text = render(result)
    page = Page(text)
    assert page.tags.count("polyline") == page.tags.count("svg") == 3
    assert page.tags.count("img") == 2 * 3
    points = re.findall(r"points='([^']*)'", text)
    for line, curve in zip(points, result.curves, strict=True):
        xy = np.array([p.split(",") for p in line.split()], float)
        np.testing.assert_allclose((xy[:, 0] - 28) / 160, curve.recall, atol=1e-3)
        np.testing.assert_allclose(1 - (xy[:, 1] - 8) / 160, curve.precision, atol=1e-3)


def test_names_from_outside_are_text_and_nothing_else() -> None:
    name = "<script>alert('x')</script>"
    page = Page(_confusion(Confusion([name, "b"], [name, "b"], np.array([[3, 1], [0, 0]]), "pixels")))
    assert "script" not in page.tags
    assert page.text.count(name) == 2


def test_names_of_files_need_not_be_text(tmp_path: Path) -> None:
    folder = write_labels(tmp_path)
    result = evaluate_segmentation(write_model(tmp_path / "m.onnx"), folder / "images", folder / "labels", ignore=[11])
    odd = Example(os.fsdecode(b"stra\xdfe.png"), [("image", np.zeros((4, 4, 3), np.uint8))])  # Latin-1
    report = Report(tmp_path / "report")
    report.write(replace(result, examples=[odd]))
    assert "stra?e.png" in Page(report.path.read_text("utf-8")).text


def test_a_confusion_matrix_of_many_classes_shows_the_worst() -> None:
    rng = np.random.default_rng(0)
    names = [f"n{i}" for i in range(200)]
    counts = np.diag(rng.integers(0, 50, 200))
    worst = rng.choice(200, SHOWN_CLASSES // 2 * 2, replace=False)
    counts[worst[::2], worst[1::2]] = 9
    page = Page(_confusion(Confusion(names, names, counts, "images")))
    assert page.tags.count("td") == SHOWN_CLASSES**2
    assert {t for t in page.text.split() if t.startswith("n")} >= {names[i] for i in worst}


def test_large_pictures_are_shrunk() -> None:
    for shape in ((40, 30), (600, 1000), (3, 5000), (1000, PANEL_WIDTH)):
        data = base64.b64decode(_data_uri(np.full((*shape, 3), 200, np.uint8)).partition(",")[2])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        width = min(shape[1], PANEL_WIDTH)
        assert image.shape == (max(round(shape[0] * width / shape[1]), 1), width, 3)
        assert abs(int(image.mean()) - 200) <= 2


def test_a_report_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="is a file, not a folder"):
        Report(tmp_path / "file")


@pytest.mark.parametrize("limit", [0, 1, 5, 100])
def test_the_worst_are_those_of_a_sorted_list(limit: int) -> None:
    values = np.random.default_rng(limit).integers(0, 9, 60).tolist()
    worst: Worst[int] = Worst(limit)
    for i, value in enumerate(values):
        worst.add(value, lambda i=i: i)  # type: ignore[misc]
    assert worst.items() == sorted(range(60), key=lambda i: (-values[i], i))[:limit]
