"""Annotated pictures: what is where, in BGR and in planes, and that frames and pictures in use stay untouched."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import cv2
import numpy as np
import pytest

from perception.card import ModelCard, validate_card
from perception.drawing.annotator import Annotator
from perception.drawing.canvas import BgrCanvas, BufferPool, Patch, PlanesCanvas, planes_in
from perception.drawing.text import label_patch, text_color
from perception.errors import UsageError
from perception.picture.letterbox import Letterbox, planes_to_bgr
from perception.postprocess.panoptic import panoptic
from perception.postprocess.segmentation import overlay_bgr
from perception.types import ClassMap, Detections, Frame, Planes, Prediction
from tests.noise import noise

COLORS = [(128, 64, 128), (220, 20, 60), (0, 0, 142), (107, 142, 35)]
NAMES = ["road", "person", "car", "tree"]
CLASSES = [{"name": n, "color": c} for n, c in zip(NAMES, COLORS, strict=True)]


def make_card(**change: Any) -> ModelCard:
    data = {
        "name": "test",
        "licence": "none",
        "input": {"width": 64, "height": 48},
        "segmentation": {"classes": CLASSES, "ignored": [3]},
        "detection": {"classes": CLASSES},
        "classification": {"classes": CLASSES},
    }
    return validate_card(data | change, "test")


def make_planes(width: int, height: int, level: int = 120) -> Planes:
    buffer = np.full((height * 3 // 2, width), 128, np.uint8)
    buffer[:height] = level
    return planes_in(buffer, "bt601", False)


def quarters(width: int, height: int) -> ClassMap:
    """Classes 0 and 1 above, 2 and 3 below."""
    logits = np.zeros((4, 12, 16), np.float32)
    logits[0, :6, :8] = logits[1, :6, 8:] = logits[2, 6:, :8] = logits[3, 6:, 8:] = 9
    return ClassMap(logits, Letterbox.fit(width, height, 64, 48))


def detect(*boxes: tuple[float, float, float, float], tracks: list[int] | None = None) -> Detections:
    n = len(boxes)
    scores = np.linspace(0.9, 0.5, n, dtype=np.float32)
    ids = np.arange(n, dtype=np.int32) % 4
    return Detections(np.array(boxes, np.float32), scores, ids, None if tracks is None else np.array(tracks))


def as_bgr(picture: Any) -> np.ndarray:
    return planes_to_bgr(picture) if isinstance(picture, Planes) else picture


def test_masks_alone_are_the_overlay() -> None:
    image = noise(96, 128, 3)
    class_map = quarters(128, 96)
    picture = Annotator(make_card(), legend=False)(Prediction(Frame(image), class_map=class_map))
    expected = np.empty_like(image)
    palette = np.array([c[::-1] for c in COLORS], np.uint8)
    overlay_bgr(image, class_map.logits, class_map.letterbox, palette, 0.5, expected, [3])
    assert (picture == expected).all()
    assert (expected[60:, 70:] == image[60:, 70:]).all()  # the ignored class
    np.testing.assert_allclose(class_map.shares, 0.25, atol=0.02)


def test_planes_and_bgr_look_the_same() -> None:
    planes = make_planes(320, 240)
    detections = detect((40, 60, 200, 180), (220, 100, 300, 220))
    annotate = Annotator(make_card())
    in_planes = annotate(Prediction(Frame(planes=planes), detections, quarters(320, 240)))
    in_bgr = annotate(Prediction(Frame(planes_to_bgr(planes)), detections, quarters(320, 240)))
    assert isinstance(in_planes, Planes)
    assert in_planes.buffer is not None and in_planes.buffer.shape == (360, 320)
    assert isinstance(in_bgr, np.ndarray)
    difference = np.abs(as_bgr(in_planes).astype(int) - in_bgr).max(axis=2)
    assert np.median(difference) <= 2
    assert (difference > 40).mean() < 0.03  # chroma beside edges


def test_box_lies_where_the_detection_says() -> None:
    image = np.zeros((100, 160, 3), np.uint8)
    annotate = Annotator(make_card(), labels=False, line_width=2)
    got = annotate(Prediction(Frame(image), detect((20, 30, 90, 80))))
    expected = image.copy()
    cv2.rectangle(expected, (20, 30), (89, 79), COLORS[0][::-1], -1)
    expected[32:78, 22:88] = 0
    assert (got == expected).all()


@pytest.mark.parametrize("in_planes", [False, True])
def test_panoptic_view_outlines_things(in_planes: bool) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[20:60, 30:90] = 2
    found = detect((30, 20, 60, 60), (60, 20, 90, 60))
    found.class_ids[:] = 2
    frame = Frame(planes=make_planes(128, 96)) if in_planes else Frame(np.full((96, 128, 3), 120, np.uint8))
    before = as_bgr(frame.planes if in_planes else frame.image)
    annotate = Annotator(make_card(), labels=False, legend=False, line_width=1, view="panoptic")
    prediction = Prediction(frame, found, panoptic=panoptic(mask, found, {2: [2]}))
    got = as_bgr(annotate(prediction)).astype(int)
    changed = np.abs(got - before).max(2) > 12
    ring = np.zeros(mask.shape, bool)  # the pixels within three of the edge of either half
    for x0, x1 in ((30, 60), (60, 90)):
        ring[17:63, x0 - 3 : x1 + 3] = True
    for x0, x1 in ((30, 60), (60, 90)):
        ring[24:56, x0 + 4 : x1 - 4] = False
    assert not changed[~ring].any()
    for y, x in ((20, 45), (59, 75), (40, 30), (40, 89), (40, 59)):  # the last: between the two
        assert np.abs(got[y, x] - COLORS[2][::-1]).max() <= 40, (y, x)
    assert (got[17:63, 27:93].min(2) > 200).sum() > 100  # a light rim
    hidden = Annotator(make_card(), labels=False, legend=False, boxes=False, view="panoptic")(prediction)
    assert np.abs(as_bgr(hidden).astype(int) - before).max() <= 2
    with pytest.raises(UsageError, match="PanopticStage"):
        annotate(Prediction(frame, found))


def test_plane_fill_takes_the_pixels_luma_and_every_touched_chroma_sample() -> None:
    canvas = PlanesCanvas(make_planes(16, 16))
    canvas.fill(3, 5, 8, 7, (0, 0, 255))
    p = canvas.planes
    assert np.argwhere(p.y != 120).tolist() == [[y, x] for y in (5, 6) for x in range(3, 8)]
    assert np.argwhere(p.v != 128).tolist() == [[y, x] for y in (2, 3) for x in (1, 2, 3)]
    canvas.fill(-5, -5, 0, 4, (1, 2, 3))
    canvas.fill(16, 0, 30, 30, (1, 2, 3))
    assert (p.y != 120).sum() == 10


@pytest.mark.parametrize("at", [(-3, -2), (10, 11), (30, 14), (90, 90), (-90, 3)])
def test_paste_is_cut_at_the_edge(at: tuple[int, int]) -> None:
    patch = Patch(np.random.default_rng(1).integers(180, 256, (6, 8, 3), np.uint8))
    canvas = BgrCanvas(np.zeros((20, 34, 3), np.uint8))
    canvas.paste(patch, *at)
    big = np.zeros((220, 234, 3), np.uint8)
    big[100 + at[1] :, 100 + at[0] :][:6, :8] = patch.bgr
    assert (canvas.image == big[100:120, 100:134]).all()
    on_planes = PlanesCanvas(make_planes(34, 20))
    on_planes.paste(patch, *at)
    inside = on_planes.planes.y != 120
    x, y = at[0] // 2 * 2, at[1] // 2 * 2
    expected = np.zeros((20, 34), bool)
    expected[max(y, 0) : max(y + 6, 0), max(x, 0) : max(x + 8, 0)] = True
    assert (inside == expected).all()


def test_paste_half_opaque() -> None:
    canvas = BgrCanvas(np.full((4, 4, 3), 100, np.uint8))
    canvas.paste(Patch(np.full((2, 2, 3), 200, np.uint8)), 0, 0, 0.75)
    assert canvas.image[:, :, 0].tolist() == [[175, 175, 100, 100]] * 2 + [[100] * 4] * 2


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (17, 33), (64, 4), (4, 64), (641, 479)])
@pytest.mark.parametrize("with_planes", [False, True])
def test_any_size_and_boxes_outside(size: tuple[int, int], with_planes: bool) -> None:
    width, height = size
    image = np.full((height, width, 3), 90, np.uint8)
    planes = None
    if with_planes:
        half = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
        planes = Planes(image[:, :, 0].copy(), half, half.copy())
    frame = Frame(None if planes else image, planes=planes)
    detections = detect((0, 0, width, height), (0, 0, 0, 0), (width, height, width, height), tracks=[7, -1, 123456789])
    prediction = Prediction(frame, detections, quarters(width, height), labels=[(0, 0.8), (1, 0.1)])
    for scale in (None, 3.0):
        picture = Annotator(make_card(), fps=True, font_scale=scale)(prediction)
        assert as_bgr(picture).shape == (height, width, 3)
        assert isinstance(picture, Planes) == (with_planes and width % 2 == 0 and height % 2 == 0)


def test_8k() -> None:
    class_map = quarters(7680, 4320)
    picture = Annotator(make_card())(
        Prediction(Frame(planes=make_planes(7680, 4320)), detect((5, 5, 7000, 4000)), class_map)
    )
    assert isinstance(picture, Planes) and picture.y.shape == (4320, 7680)


def test_label_stays_inside_and_is_cut() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    card = make_card(detection={"classes": [{"name": "a very long class name " * 5, "color": (255, 255, 255)}]})
    for box in ((0, 0, 20, 20), (150, 110, 160, 120), (60, 60, 80, 80)):
        got = Annotator(card)(Prediction(Frame(image), detect(box)))
        written = np.flatnonzero(got.any(axis=2).any(axis=0))  # type: ignore[union-attr]
        assert written[0] <= 10 and written[-1] >= 140  # moved to the left, nearly as wide as the frame
    assert label_patch("short", (0, 0, 0), 20, 500).width < 100
    assert label_patch("x" * 400, (0, 0, 0), 20, 100).width <= 100


def test_label_is_above_its_box_or_else_inside() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    annotate = Annotator(make_card())
    above = annotate(Prediction(Frame(image), detect((50, 100, 150, 150))))
    assert above[89:100, 50:60].any(axis=2).all() and not above[105:140, 60:140].any()  # type: ignore[index]
    inside = annotate(Prediction(Frame(image), detect((50, 0, 150, 150))))
    assert inside[2:10, 50:60].any(axis=2).all()  # type: ignore[index]


def test_text_is_readable_on_any_colour() -> None:
    assert text_color((0, 0, 0)) == text_color((142, 0, 0)) == (255, 255, 255)
    assert text_color((255, 255, 255)) == text_color((0, 220, 220)) == (0, 0, 0)
    rng = np.random.default_rng(2)
    for color in rng.integers(0, 256, (200, 3)).tolist():
        light = [0.0722 * (b / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.2126 * (r / 255) ** 2.2
                 for b, g, r in (color, text_color(tuple(color)))]  # fmt: skip
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5  # WCAG's contrast ratio


def test_legend_lists_the_classes_that_are_there() -> None:
    image = np.full((240, 320, 3), 60, np.uint8)
    class_map = quarters(320, 240)
    card = make_card()

    def rows(**options: Any) -> int:
        with_legend = Annotator(card, **options)(Prediction(Frame(image), class_map=class_map))
        without = Annotator(card, legend=False, **options)(Prediction(Frame(image), class_map=class_map))
        changed = (as_bgr(with_legend) != as_bgr(without)).any(axis=(1, 2))
        assert not changed.any() or not (changed[:-1] & ~changed[1:]).sum() > 1  # one block
        return int(changed.sum())

    three = rows()  # all but the ignored class
    assert three > 0
    assert rows(classes=["car", "person"]) * 3 == three * 2
    assert rows(classes=["tree"]) == 0
    class_map = quarters(320, 240)
    class_map.logits[1] = -9  # a class that is not there
    assert rows() * 3 == three * 2


def test_only_the_classes_asked_for() -> None:
    image = np.zeros((96, 128, 3), np.uint8)
    prediction = Prediction(Frame(image), detect((5, 5, 40, 40), (70, 50, 120, 90)), quarters(128, 96))
    got = as_bgr(Annotator(make_card(), classes=["person"], legend=False, labels=False)(prediction))
    assert not got[:46, :60].any()
    assert (got[20, 100] == np.array(COLORS[1][::-1]) // 2).all()
    assert (got[50, 100] == COLORS[1][::-1]).all()


def test_frames_are_never_written() -> None:
    planes = make_planes(128, 96)
    assert planes.buffer is not None
    image = np.full((96, 128, 3), 50, np.uint8)
    before = planes.buffer.copy()
    annotate = Annotator(make_card(), fps=True)
    for frame in (Frame(planes=planes), Frame(image)):
        for class_map in (None, quarters(128, 96)):
            annotate(Prediction(frame, detect((5, 5, 60, 60)), class_map))
    assert (planes.buffer == before).all()
    assert (image == 50).all()


def test_pictures_in_use_are_not_reused_and_others_are() -> None:
    annotate = Annotator(make_card(), labels=False)
    prediction = Prediction(Frame(planes=make_planes(64, 48)), detect((5, 5, 20, 20)))
    first = annotate(prediction)
    assert isinstance(first, Planes) and first.buffer is not None
    second = annotate(prediction)
    assert isinstance(second, Planes)
    assert not np.shares_memory(first.buffer, second.y)
    view = first.u[2:, 3:]  # a view alone keeps the memory
    address = first.buffer.ctypes.data
    del first
    third = annotate(prediction)
    assert isinstance(third, Planes) and not np.shares_memory(view, third.y.base)
    del view
    fourth = annotate(prediction)
    assert isinstance(fourth, Planes) and fourth.buffer is not None
    assert fourth.buffer.ctypes.data == address


def test_pool_is_bounded_and_keeps_working_beyond_its_limit() -> None:
    pool = BufferPool(limit=3)
    held = [pool.get((10, 10)) for _ in range(7)]
    assert len({a.ctypes.data for a in held}) == 7
    made = [weakref.ref(a) for a in held]
    kept = lambda: sum(array() is not None for array in made)  # noqa: E731
    assert kept() == 7
    held.clear()
    assert kept() == 3  # by the pool alone
    other = pool.get((4, 4))
    assert other.shape == (4, 4)  # another size takes the place of one that is free
    assert kept() == 2


def test_pool_with_threads() -> None:
    pool = BufferPool(limit=4)
    faults: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            array = pool.get((64,))
            array[:] = number
            if (array != number).any():
                faults.append(number)
            del array

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults


def test_refuses_options_with_a_hint() -> None:
    card = make_card()
    with pytest.raises(UsageError, match="did you mean 'person'"):
        Annotator(card, classes=["persn"])
    for options in ({"opacity": 1.5}, {"line_width": 0}, {"font_scale": 0}):
        with pytest.raises(UsageError):
            Annotator(card, **options)  # type: ignore[arg-type]


def test_models_with_one_task() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    detector = make_card(segmentation=None, classification=None)
    got = Annotator(detector)(Prediction(Frame(image), detect((5, 5, 20, 20))))
    assert as_bgr(got).any()
    classifier = make_card(segmentation=None, detection=None)
    got = Annotator(classifier)(Prediction(Frame(image), labels=[(0, 0.9)]))
    assert as_bgr(got)[40:].any() and not as_bgr(got)[:20].any()
