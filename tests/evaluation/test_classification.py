"""Evaluation of whole-image classes, from folders, zips and arrays."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import ModelError, SourceError, UsageError
from perception.evaluation.classification import evaluate_classification
from tests.models import PALETTE, solid, write_model

DRAWN = ["red", "green", "blue", "red", "green", "red", "yellow"]
LABELS = ["red", "green", "red", "red", "blue", "green", "yellow"]
"""What the pictures show, which the model sees, and what they are called: 4 of 7 are right."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "solid.onnx"
    return write_model(path, classes=4, segmentation=False, classification=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, (drawn, label) in enumerate(zip(DRAWN, LABELS, strict=True)):
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "set" / label / f"{i}.png"), solid(drawn, 20 + i, 30))
    return tmp_path / "set"


def confusion() -> list[list[int]]:
    counts = [[0] * 4 for _ in range(4)]
    names = list(PALETTE)
    for drawn, label in zip(DRAWN, LABELS, strict=True):
        counts[names.index(label)][names.index(drawn)] += 1
    return counts


def test_folders_zips_and_arrays_give_the_same(tmp_path: Path, folder: Path, model: Path) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.glob("*/*")):
            file.write(path, f"top/{path.parent.name}/{path.name}")
        file.writestr("readme.txt", "no picture")
        file.writestr("__MACOSX/top/red/._0.png", "what the Finder adds for each file")
    (folder / "red" / "._0.png").write_bytes(b"the same on a stick")
    arrays = tmp_path / "set.npz"
    images = np.stack([solid(name)[:, :, ::-1] for name in DRAWN])  # RGB
    np.savez(arrays, images=images, labels=np.array([list(PALETTE).index(n) for n in LABELS], np.uint8))
    for data in (folder, archive, arrays):
        result = json.loads(json.dumps(evaluate_classification(model, data).as_dict()))
        assert result == {
            "accuracy": pytest.approx(4 / 7),
            "error_percent": pytest.approx(300 / 7),
            "confusion": confusion(),
            "images": 7,
        }


def test_the_right_class_among_the_likeliest(folder: Path, model: Path) -> None:
    from perception.model import load_model

    with load_model(model) as loaded:
        listed = []
        for path in sorted(folder.glob("*/*")):
            labels = loaded.predict(cv2.imread(str(path))).labels
            assert labels is not None
            listed.append(([list(PALETTE)[i] for i, _ in labels], path.parent.name))
    for k in (2, 3):
        expected = sum(name in names[:k] for names, name in listed) / len(listed)
        result = evaluate_classification(model, folder, top_k=k, worst=1)
        assert result.as_dict()[f"top_{k}_accuracy"] == pytest.approx(expected)
        assert result.accuracy == pytest.approx(4 / 7)
        assert result.examples[0].caption.count("%)") == k
    assert evaluate_classification(model, folder, top_k=4).top_k_accuracy == 1  # it has no more
    with pytest.raises(UsageError, match="top_k is 1 to 5, not 6"):
        evaluate_classification(model, folder, top_k=6)


def test_gray_arrays_and_perfection(tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "bw.onnx", classes=["black", "white"], segmentation=False, classification=True, width=28, height=28
    )
    labels = np.random.default_rng(0).integers(0, 2, 20)
    np.savez(
        tmp_path / "a.npz", images=np.repeat(labels * 255, 28 * 28).reshape(20, 28, 28).astype(np.uint8), labels=labels
    )
    result = evaluate_classification(model, tmp_path / "a.npz", worst=3).as_dict()
    assert result["accuracy"] == 1
    assert result["confusion"] == np.diag(np.bincount(labels)).tolist()


def test_folders_by_other_names(folder: Path, model: Path) -> None:
    (folder / "red").rename(folder / "crimson")
    (folder / "blue").rename(folder / "sky")
    result = evaluate_classification(model, folder, synonyms={"crimson": ["red", "blue"]})
    # "sky" (1) is left out; a blue or red picture called crimson (3) is right
    assert result.left_out == {"sky": 1}
    assert result.as_dict()["images"] == 6
    assert result.accuracy == pytest.approx(5 / 6)
    assert result.tables()[-1][1] == [{"class": "sky", "images": 1}]


def test_the_surest_mistakes_are_shown(folder: Path, model: Path) -> None:
    result = evaluate_classification(model, folder, worst=9)
    assert len(result.examples) == 3
    assert {e.caption.partition(" (")[0] for e in result.examples} == {
        "red, taken for blue", "blue, taken for green", "green, taken for red"
    }  # fmt: skip
    assert result.tables()[0][1][0] == {
        "class": "red", "accuracy": "0.6667", "images": 3, "mostly mistaken for": "blue (1)"
    }  # fmt: skip


def test_broken_pictures_are_named(tmp_path: Path, folder: Path, model: Path) -> None:
    (folder / "red" / "0.png").write_bytes(b"x")
    (folder / "green" / "5.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"2 of 7 samples are faulty: .*5\.png: corrupt image.*0\.png: corrupt image"):
        evaluate_classification(model, folder)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("red/a.png", cv2.imencode(".png", solid("red"))[1].tobytes())
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"IDAT", b"IDXT", 1))
    with pytest.raises(SourceError, match=r"set\.zip: red/a\.png: corrupt image"):
        evaluate_classification(model, archive)


def test_data_that_cannot_be_used(tmp_path: Path, folder: Path, model: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        evaluate_classification(model, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no images in folders named after their classes"):
        evaluate_classification(model, tmp_path / "empty")
    for name, message in (("a.zip", "as a zip"), ("a.npz", "as an NPZ"), ("a.txt", "a folder, a .zip or an .npz")):
        (tmp_path / name).write_bytes(b"garbage")
        with pytest.raises(SourceError, match=message):
            evaluate_classification(model, tmp_path / name)
    images, labels = np.zeros((2, 8, 8), np.uint8), np.array([0, 9])
    for arrays, message in (
        ({"images": images}, "no array 'labels'; it has: images"),
        ({"images": images.astype(float), "labels": labels}, "images must be uint8"),
        ({"images": images, "labels": labels[:1]}, r"labels must be whole numbers \[2\]"),
        ({"images": images, "labels": labels}, "image 1: label 9 is no class: the model has 4, from 0"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(SourceError, match=message):
            evaluate_classification(model, tmp_path / "a.npz")
    for path in folder.iterdir():
        path.rename(folder / f"{path.name}-ish")
    with pytest.raises(UsageError, match="no class in common"):
        evaluate_classification(model, folder)
    with pytest.raises(ModelError, match="does not do classification"):
        evaluate_classification(write_model(tmp_path / "masks.onnx"), folder)
