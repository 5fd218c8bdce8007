"""`perception eval panoptic` on folders in COCO's panoptic format, drawn in the colours of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from perception.errors import SourceError, UsageError
from perception.evaluation.panoptic import evaluate_panoptic
from perception.evaluation.panoptic_folder import PanopticFolder
from perception.evaluation.report import NAME
from tests.models import PALETTE, write_model

CELL = 16
GRAY = 128
CATEGORIES = [
    {"id": 70, "name": "green", "isthing": 0},
    {"id": 3, "name": "red", "isthing": 1},
    {"id": 9, "name": "unicorn", "isthing": 1},
]
THINGS = {"red": ["red"]}
IDS = {"green": 70, "red": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "things.onnx"
    return str(write_model(path, width=128, height=96, classes=["red", "green"], detection=True))


def write_panoptic(folder: Path, images: int = 3, seed: int = 0) -> Path:
    """Red squares, which touch no other, on green: each a segment; ids need all three colours of the PNG."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "panoptic").mkdir()
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for i in range(images):
        picture = np.empty((96, 128, 3), np.uint8)
        picture[:] = PALETTE["green"][::-1]
        ids = np.full((96, 128), 70_000, np.int64)
        rows = [{"id": 70_000, "category_id": IDS["green"], "iscrowd": 0}]
        for k, cell in enumerate(rng.choice(12, 3, replace=False).tolist()):
            x, y = cell % 4 * 2 * CELL, cell // 4 * 2 * CELL
            picture[y : y + CELL, x : x + CELL] = PALETTE["red"][::-1]
            ids[y : y + CELL, x : x + CELL] = 300 + k
            rows.append({"id": 300 + k, "category_id": IDS["red"], "iscrowd": 0})
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
        cv2.imwrite(str(folder / "panoptic" / f"{i}.png"), colors(ids))
        data["images"].append({"id": i + 1, "file_name": f"{i}.png", "width": 128, "height": 96})
        data["annotations"].append({"image_id": i + 1, "file_name": f"{i}.png", "segments_info": rows})
    (folder / "panoptic.json").write_text(json.dumps(data))
    return folder


def colors(ids: np.ndarray) -> np.ndarray:
    """BGR of segment ids: ``id = R + 256 G + 65536 B``."""
    return np.stack((ids // 65536, ids // 256 % 256, ids % 256), -1).astype(np.uint8)


def change(folder: Path, edit: Any) -> None:
    path = folder / "panoptic.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_exact_segments_are_all_found(tmp_path: Path, model: str) -> None:
    folder = write_panoptic(tmp_path)
    result = CliRunner().invoke(
        app,
        ["eval", "panoptic", "-m", model, "--images", f"{folder}/images", "--annotations", f"{folder}/panoptic.json",
         "--things", "red=red", "--json", "--report", str(tmp_path / "report")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert list(data) == ["pq", "sq", "rq", "things", "stuff", "classes", "images", "ms_per_image"]
    # masks are interpolated, so that the squares lose their corners
    assert data["rq"] == data["things"]["rq"] == data["stuff"]["rq"] == 1
    assert min(data["pq"], data["things"]["pq"], data["stuff"]["pq"]) > 0.95
    assert list(data["classes"]) == ["green", "red"] and data["images"] == 3
    assert (tmp_path / "report" / NAME).stat().st_size > 1000


def test_what_is_wrong_costs_what_it_should(tmp_path: Path, model: str) -> None:
    """One square too many and one too few in the truth of three pictures with three squares each."""
    folder = write_panoptic(tmp_path)

    def edit(data: dict[str, Any]) -> None:
        first, second = (a["segments_info"] for a in data["annotations"][:2])
        first[1]["category_id"] = 9  # a unicorn, which the model lacks: its pixels count for nothing
        second[1]["iscrowd"] = 1  # need not be found, and may be

    change(folder, edit)
    result = evaluate_panoptic(model, folder / "images", folder / "panoptic.json", things=THINGS, worst=2)
    assert result.left_out == ["unicorn"]
    red = result.qualities[result.match.names.index("red")]
    assert (red.matched, red.false_positives, red.false_negatives) == (7, 0, 0)
    ids = cv2.imread(str(folder / "panoptic" / "2.png"))
    known = (ids == colors(np.array([[300]]))).all(2)
    ids[known] = colors(np.array([[70_000]]))  # the truth says green where the model sees red
    cv2.imwrite(str(folder / "panoptic" / "2.png"), ids)
    result = evaluate_panoptic(model, folder / "images", folder / "panoptic.json", things=THINGS, worst=2)
    red = result.qualities[result.match.names.index("red")]
    assert (red.matched, red.false_positives, red.false_negatives) == (6, 1, 0)
    assert red.rq == pytest.approx(6 / 6.5) and red.sq > 0.95
    assert result.as_dict()["pq"] < 1
    assert result.examples[0].caption.startswith("2.png")
    pixels = result.pixels.counts
    green_as_red = pixels[result.match.names.index("green"), result.match.names.index("red")]
    assert green_as_red == pytest.approx(CELL * CELL, abs=8)


def test_all_faults_are_named_at_once(tmp_path: Path, model: str) -> None:
    folder = write_panoptic(tmp_path)
    (folder / "images" / "0.png").unlink()
    (folder / "panoptic" / "1.png").write_bytes(b"no picture")
    ids = cv2.imread(str(folder / "panoptic" / "2.png"))
    ids[0, 0] = colors(np.array([7]))[0]
    cv2.imwrite(str(folder / "panoptic" / "2.png"), ids)
    with pytest.raises(SourceError) as caught:
        evaluate_panoptic(model, folder / "images", folder / "panoptic.json")
    message = str(caught.value)
    assert "3 of 3 images are faulty" in message and "missing image" in message
    assert "1.png: corrupt image" in message and "segments [7] that panoptic.json does not list" in message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["annotations"][0].pop("segments_info"), "this is no panoptic file"),
        (lambda d: d["annotations"][0].update(image_id=77), "unknown image_id 77"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=5), "known category_id"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(id="x"), "whole id"),
        (lambda d: d.update(categories=[]), "no categories"),
        (lambda d: d.pop("annotations"), "not a COCO file"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, model: str, edit: Any, message: str) -> None:
    folder = write_panoptic(tmp_path)
    change(folder, edit)
    with pytest.raises(SourceError, match=message):
        evaluate_panoptic(model, folder / "images", folder / "panoptic.json")


@pytest.mark.parametrize("written", [str, float, lambda i: f"{i}.0"])
def test_numbers_as_text_or_with_a_decimal_point(tmp_path: Path, model: str, written: Any) -> None:
    folder = write_panoptic(tmp_path)

    def read() -> tuple[Any, ...]:
        file = PanopticFolder(folder / "panoptic.json", folder / "images")
        assert file.faults == []
        samples = [file.read(image, {70: 0, 3: 1}) for image in file.images]
        return file.categories, file.things, [image.segments for image in file.images], [s.crowd for s in samples]

    def edit(data: dict[str, Any]) -> None:
        for entry in (*data["images"], *data["categories"], *data["annotations"]):
            entry |= {k: written(entry[k]) for k in ("id", "image_id", "isthing") if k in entry}
            for row in entry.get("segments_info", []):
                row |= {k: written(row[k]) for k in ("id", "category_id", "iscrowd")}

    change(folder, lambda data: data["annotations"][0]["segments_info"][1].update(iscrowd=1))
    right = read()
    change(folder, edit)
    assert read() == right
    assert evaluate_panoptic(model, folder / "images", folder / "panoptic.json", things=THINGS).as_dict()["rq"] == 1


def test_names_of_windows(tmp_path: Path) -> None:
    folder = write_panoptic(tmp_path)

    def edit(data: dict[str, Any]) -> None:
        for entry in (*data["images"], *data["annotations"]):
            entry["file_name"] = "C:\\set 1\\" + entry["file_name"]

    change(folder, edit)
    file = PanopticFolder(folder / "panoptic.json", folder / "images")
    assert file.faults == []
    assert [image.path.name for image in file.images] == ["0.png", "1.png", "2.png"]
    assert [image.png.parent.name for image in file.images] == ["panoptic"] * 3


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["images"][0].update(id=[1]),
        lambda d: d["annotations"][0].update(image_id={}),
        lambda d: d["annotations"][0]["segments_info"][0].update(category_id=[70]),
    ],
)
def test_ids_that_are_lists_are_faults(tmp_path: Path, edit: Any) -> None:
    folder = write_panoptic(tmp_path)
    change(folder, edit)
    assert len(PanopticFolder(folder / "panoptic.json", folder / "images").faults) == 1


def test_why_there_are_no_categories(tmp_path: Path) -> None:
    folder = write_panoptic(tmp_path)
    change(folder, lambda d: d.update(categories=[{"id": "sky-1", "name": "sky"}]))
    with pytest.raises(SourceError, match=r"no categories.*needs a whole id and a name, has 'sky-1'"):
        PanopticFolder(folder / "panoptic.json", folder / "images")


def test_folders_that_are_missing_and_models_that_cannot(tmp_path: Path, model: str) -> None:
    folder = write_panoptic(tmp_path)
    with pytest.raises(SourceError, match="no such folder"):
        PanopticFolder(folder / "panoptic.json", folder / "images", folder / "elsewhere")
    masks = write_model(tmp_path / "masks.onnx", width=128, height=96)
    with pytest.raises(UsageError, match="needs masks and boxes"):
        evaluate_panoptic(masks, folder / "images", folder / "panoptic.json")
    change(folder, lambda d: d.update(categories=[{**c, "name": f"my {c['name']}"} for c in CATEGORIES]))
    with pytest.raises(UsageError, match="no class in common"):
        evaluate_panoptic(model, folder / "images", folder / "panoptic.json")
    synonyms = {"my green": ["green"], "my red": ["red"]}
    done = evaluate_panoptic(model, folder / "images", folder / "panoptic.json", synonyms=synonyms, things=THINGS)
    assert done.as_dict()["rq"] == 1
