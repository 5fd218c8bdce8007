"""The two kinds of class map keep one interface, agree with independent counts, and may be shared by threads."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from perception.picture.letterbox import Letterbox
from perception.postprocess import segmentation
from perception.postprocess.class_maps import LogitsClassMap, MaskClassMap
from perception.types import ClassMap, Planes

CLASSES = 5
PALETTE = np.array([(10, 20, 250), (250, 10, 20), (20, 250, 10), (200, 200, 0), (0, 100, 200)], np.uint8)


def make(kind: str, seed: int, frame_wh: tuple[int, int], mode: str = "stretch") -> ClassMap:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(CLASSES, 5, 7)).astype(np.float32)
    logits = np.stack([cv2.resize(c, (28, 20), interpolation=cv2.INTER_CUBIC) for c in coarse])
    box = Letterbox.fit(*frame_wh, 56, 40, mode)  # type: ignore[arg-type]
    if kind == "logits":
        return LogitsClassMap(logits, box, (3,))
    return MaskClassMap(logits.argmax(0).astype(np.uint8), CLASSES, box, (3,))


@pytest.mark.parametrize("kind", ["logits", "labels"])
@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame_wh", [(112, 80), (97, 61), (20, 30)])
def test_shares_are_those_of_the_mask_whichever_way_they_come(kind: str, mode: str, frame_wh: tuple[int, int]) -> None:
    for seed in range(4):
        drawn, counted, masked = (make(kind, seed, frame_wh, mode) for _ in range(3))
        image = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
        drawn.overlay(image, PALETTE, 0.5, image)
        mask = masked.mask
        assert mask.shape == (frame_wh[1], frame_wh[0])
        expected = np.bincount(mask.ravel(), minlength=CLASSES) / mask.size
        for class_map in (drawn, counted, masked):
            np.testing.assert_allclose(class_map.shares, expected, atol=1e-7)
            assert class_map.shares.dtype == np.float32


@pytest.mark.parametrize("floor", [None, 0.1])
def test_an_argmax_that_is_given_is_not_computed(floor: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As engines with a GPU give it; with a floor it does not say enough. All results are as without it."""
    computed: list[int] = []
    label = segmentation.label
    monkeypatch.setattr(segmentation, "label", lambda *a: (computed.append(1), label(*a))[1])
    for seed in range(3):
        logits = make("logits", seed, (97, 61))
        assert isinstance(logits, LogitsClassMap)
        labels = np.argmax(logits.logits, 0).astype(np.uint8)
        drawn = []
        for given in (None, labels, np.repeat(labels, 2, 1)[:, ::2]):
            computed.clear()
            maps = [LogitsClassMap(logits.logits, logits.letterbox, (3,), floor, given) for _ in range(3)]
            image = np.full((61, 97, 3), 90, np.uint8)
            maps[0].overlay(image, PALETTE, 0.5, image)
            drawn.append((image, maps[1].shares, maps[2].mask, maps[2].resized(31, 17)))
            assert len(computed) == (4 if given is None or floor is not None else 0)
        for others in drawn[1:]:
            for ours, theirs in zip(others, drawn[0], strict=True):
                np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"labels must be uint8 \[20, 28\], got uint8 \[28, 20\]"):
        _ = LogitsClassMap(logits.logits, logits.letterbox, labels=np.ascontiguousarray(labels.T)).mask


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_resized_is_the_mask_of_a_frame_of_that_size(kind: str) -> None:
    for seed, (width, height) in enumerate([(112, 80), (31, 17), (224, 160), (1, 1)]):
        class_map = make(kind, seed, (112, 80), "stretch")
        other = make(kind, seed, (width, height), "stretch")
        np.testing.assert_array_equal(class_map.resized(width, height), other.mask)
    assert class_map.resized(112, 80) is not class_map.mask  # a new array, the caller's own


@pytest.mark.parametrize("kind", ["logits", "labels"])
@pytest.mark.parametrize("planes", [False, True])
def test_overlay_leaves_hidden_and_ignored_classes(kind: str, planes: bool) -> None:
    class_map = make(kind, 1, (112, 80))
    rng = np.random.default_rng(9)
    if planes:
        picture = Planes.from_i420(rng.integers(16, 236, (120, 112), np.uint8))
        out = Planes.from_i420(np.zeros((120, 112), np.uint8))
        class_map.overlay(picture, PALETTE, 1.0, out, hidden=[1])
        before, after = picture.y, out.y
    else:
        before, after = rng.integers(0, 256, (80, 112, 3), np.uint8), np.zeros((80, 112, 3), np.uint8)
        class_map.overlay(before, PALETTE, 1.0, after, hidden=[1])
        shown = ~np.isin(class_map.mask, (1, 3))
        assert (after[shown] == PALETTE[class_map.mask][shown]).all()
    left = np.isin(class_map.mask, (1, 3))
    assert left.any() and not left.all()
    assert (after[left] == before[left]).all()


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_a_map_of_one_kind_is_not_blended_into_the_other(kind: str) -> None:
    class_map = make(kind, 1, (112, 80))
    planes = Planes.from_i420(np.zeros((120, 112), np.uint8))
    with pytest.raises(ValueError, match="both be planes or both be BGR"):
        class_map.overlay(planes, PALETTE, 0.5, np.zeros((80, 112, 3), np.uint8))


@pytest.mark.parametrize("kind", ["logits", "labels"])
def test_viewers_in_many_threads_share_one_mask_and_one_array_of_shares(kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 112, 3), np.uint8)
    for seed in range(20):
        class_map, alone = make(kind, seed, (112, 80)), make(kind, seed, (112, 80))
        expected = np.empty_like(image)
        alone.overlay(image, PALETTE, 0.5, expected)
        start = threading.Barrier(6)
        seen: list[tuple[int, int, bool]] = []

        def look(class_map: ClassMap = class_map, start: threading.Barrier = start, wanted: np.ndarray = expected):
            start.wait()
            out = np.empty_like(image)
            class_map.overlay(image, PALETTE, 0.5, out)
            seen.append((id(class_map.mask), id(class_map.shares), bool((out == wanted).all())))  # noqa: B023

        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [(id(class_map.mask), id(class_map.shares), True)] * 6
