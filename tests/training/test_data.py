"""The data check, augmentation and batches."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.errors import PerceptionError  # noqa: E402
from perception.training.data.augment import Augmenter  # noqa: E402
from perception.training.data.batches import BatchMaker  # noqa: E402
from perception.training.data.masks import Sample, SegmentationFolder  # noqa: E402
from perception.training.data.sets import MaskSets  # noqa: E402
from perception.training.recipes.data import MaskSetConfig  # noqa: E402
from perception.training.recipes.segmentation_detection import AugmentConfig, CropPhase  # noqa: E402
from tests.training.pictures import draw_sample, write_folder  # noqa: E402

PLAIN = AugmentConfig(
    crops=[CropPhase(size=(96, 64))], scale=(1, 1), stretch=0, flip=0, color=0, blur=0, noise=0, rare_chance=0
)


NAMES = ["ground", "box", "ball"]
TRAIN = MaskSetConfig(images=Path("train/images"), labels=Path("train/labels"))


def open_train(root: Path, names: list[str] = NAMES) -> SegmentationFolder:
    return SegmentationFolder(TRAIN, root, names)


def test_samples_are_ordered_and_counted(tmp_path: Path) -> None:
    folder = open_train(write_folder(tmp_path, train=3))
    assert [s.name for s in folder.samples] == ["000", "001", "002"]
    labels = np.stack([s.labels for s in folder.samples])
    assert folder.class_pixels().tolist() == [int((labels == c).sum()) for c in range(3)]


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path, train=6)
    images, labels = tmp_path / "train" / "images", tmp_path / "train" / "labels"
    (labels / "000.png").unlink()
    cv2.imwrite(str(labels / "001.png"), np.zeros((10, 20), np.uint8))
    cv2.imwrite(str(labels / "002.png"), np.full((72, 96), 7, np.uint8))
    (images / "003.png").write_bytes(b"not a picture")
    cv2.imwrite(str(labels / "004.png"), np.zeros((72, 96, 3), np.uint8))
    with pytest.raises(PerceptionError) as caught:
        open_train(tmp_path)
    message = str(caught.value)
    assert "5 of 6 samples are faulty" in message
    for part in (
        "000.png: missing label",
        "001.png: label is 20x10, the image 96x72",
        "002.png: unknown class ids [7]",
        "003.png: corrupt image",
        "004.png: a label must be 8-bit with one channel",
    ):
        assert part in message
    assert "005" not in message


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match="images: no such folder"):
        open_train(tmp_path)
    for kind in ("images", "labels"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    with pytest.raises(PerceptionError, match="no images"):
        open_train(tmp_path)


def test_a_plain_crop_is_a_window_of_the_picture() -> None:
    image, labels = draw_sample(np.random.default_rng(0))
    made = Augmenter(PLAIN, 255, (96, 72))(Sample("a", image, labels), (96, 64), np.random.default_rng(1))
    crop, crop_labels = made.image, made.labels
    # Offsets are not whole numbers, so look for the window by its labels, then compare where nothing changes.
    best = max(range(9), key=lambda top: float((labels[top : top + 64] == crop_labels).mean()))
    assert (labels[best : best + 64] == crop_labels).mean() > 0.98
    assert crop.shape == (64, 96, 3)
    assert np.abs(crop.astype(int) - image[best : best + 64])[crop_labels == 1].mean() < 25


def test_image_and_labels_move_together() -> None:
    # A picture that shows its own labels: whatever is drawn, colour and label must still agree.
    rng = np.random.default_rng(2)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (9, 12)), 8, 0), 8, 1).astype(np.uint8)
    image = np.repeat(labels[..., None] * 100, 3, 2).astype(np.uint8)
    config = AugmentConfig(
        crops=[CropPhase(size=(64, 64))], scale=(0.7, 2), color=0, blur=0, noise=0, rare_classes=[2], rare_chance=1
    )
    augment = Augmenter(config, 255, (96, 72))
    for _ in range(30):
        made = augment(Sample("a", image, labels), (64, 64), rng)
        crop, crop_labels = made.image, made.labels
        inside = crop_labels != 255
        agree = np.abs(crop[..., 0].astype(int) - crop_labels.astype(int) * 100) <= 50
        assert agree[inside].mean() > 0.93  # nearest and bilinear part on class borders only
        assert (crop_labels == 2).any()


def test_outside_is_grey_and_ignored() -> None:
    image, labels = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    made = Augmenter(PLAIN, 255, (20, 20))(Sample("a", image, labels), (64, 64), np.random.default_rng(0))
    crop, crop_labels = made.image, made.labels
    assert 300 < (crop_labels == 0).sum() <= 21 * 21
    assert (crop[crop_labels == 255].mean(axis=1) > 60).mean() > 0.95


def test_batches_follow_from_seed_and_epoch_alone(tmp_path: Path) -> None:
    folder = open_train(write_folder(tmp_path, train=7))
    config = AugmentConfig(crops=[CropPhase(size=(64, 32)), CropPhase(start=1, size=(32, 32))])
    maker = BatchMaker(MaskSets([folder]), Augmenter(config, 255, (96, 72)), 3, seed=5)
    first = list(maker.epoch(0))
    later = list(maker.epoch(1))
    again = list(BatchMaker(MaskSets([folder]), Augmenter(config, 255, (96, 72)), 3, seed=5).epoch(1))
    assert len(first) == len(maker) == 2
    assert first[0].images.shape == (3, 3, 32, 64)
    assert later[0].images.shape == (3, 3, 32, 32)
    assert first[0].labels.dtype is torch.int64
    for a, b in zip(later, again, strict=True):
        assert a.names == b.names
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    assert sorted({n for b in first for n in b.names}) != [] and first[0].names != later[0].names


def test_batches_are_rgb(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = 200  # blue, as OpenCV writes it
    cv2.imwrite(str(tmp_path / "train" / "images" / "a.png"), image)
    cv2.imwrite(str(tmp_path / "train" / "labels" / "a.png"), np.zeros((64, 96), np.uint8))
    (batch,) = BatchMaker(MaskSets([open_train(tmp_path)]), Augmenter(PLAIN, 255, (96, 72)), 8, seed=0).epoch(0)
    assert batch.images.float().mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 200], abs=2)
