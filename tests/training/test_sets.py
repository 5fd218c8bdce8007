"""Training on several sets of pictures at once: shares, class maps, partly labelled sets, boxes beside masks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from perception.errors import PerceptionError, SourceError, UsageError  # noqa: E402
from perception.evaluation.metrics import ConfusionMatrix  # noqa: E402
from perception.model import load_model  # noqa: E402
from perception.training.data.masks import Sample, SegmentationFolder  # noqa: E402
from perception.training.data.sets import SampleSets  # noqa: E402
from perception.training.export.export import export  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.losses.segmentation import SegmentationLoss  # noqa: E402
from perception.training.recipes.data import MaskSetConfig  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.recipes.segmentation_detection import LossConfig  # noqa: E402
from perception.training.run.loop import Trainer, train  # noqa: E402
from perception.training.tasks.kinds import open_task  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from tests.training.pictures import draw_sample, write_boxes, write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"
NAMES = ["ground", "box", "ball"]


class Numbered:
    """A set whose samples are told by their names."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        assert 0 <= index < self.size
        return Sample(f"{self.name}{index}", np.zeros((1, 1, 3), np.uint8), None)


@pytest.mark.parametrize("seed", range(40))
def test_shares_are_exact_in_every_epoch(seed: int) -> None:
    """Of every set its part to the picture, each of its pictures equally often, evenly mixed."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, int(rng.integers(1, 6))).tolist()
    shares = [None if rng.random() < 0.3 else float(rng.uniform(0.01, 3)) for _ in sizes]
    sets = SampleSets([Numbered(chr(97 + i), size) for i, size in enumerate(sizes)], shares)
    wanted = np.array([size if share is None else share for size, share in zip(sizes, shares, strict=True)])
    wanted = wanted / wanted.sum()
    for count in (1, len(sizes), int(rng.integers(2, 400))):
        rows = sets.order(count, lambda part, r: np.random.default_rng((seed, part, r)))
        assert rows.shape == (count, 2)
        assert len({tuple(row) for row in rows.tolist()}) == count, "a picture of a round comes once"
        names = [sets[index].name for index in rows[:, 0].tolist()]
        letters = np.array([ord(name[0]) - 97 for name in names])
        taken = np.bincount(letters, minlength=len(sizes))
        assert np.abs(taken - wanted * count).max() < 1
        for part, size in enumerate(sizes):
            of_picture = np.bincount([int(n[1:]) for n in names if ord(n[0]) - 97 == part], minlength=size)
            assert of_picture.max() - of_picture.min() <= 1
        # of any beginning of the epoch each set has its part too, but for one picture of each set
        running = np.cumsum(letters[:, None] == np.arange(len(sizes)), 0)
        even = np.arange(1, count + 1)[:, None] * taken / count
        assert np.abs(running - even).max() <= len(sizes)


@pytest.mark.parametrize("lovasz", [0.0, 0.7])
@pytest.mark.parametrize("ohem", [1.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_what_a_set_does_not_label_gets_no_gradient_there(seed: int, ohem: float, lovasz: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(3, 5, 6, 8, generator=generator)).requires_grad_()
    known = torch.tensor([[True] * 5, [True, False, True, False, False], [False, True, True, True, False]])
    labels = torch.full((3, 24, 32), 255)
    for row in range(3):
        there = known[row].nonzero().squeeze(1)
        drawn = there[torch.randint(len(there), (24, 32), generator=generator)]
        counted = torch.rand(24, 32, generator=generator) < 0.8
        labels[row][counted] = drawn[counted]
    loss = SegmentationLoss(LossConfig(ohem=ohem, lovasz=lovasz), torch.ones(5), 255)
    value = loss(logits, labels, known, torch.tensor([1.0, 0.5, 2.0]))
    assert bool(torch.isfinite(value))
    value.backward()
    assert logits.grad is not None
    of_class = logits.grad.abs().amax((2, 3))
    assert (of_class[~known] == 0).all()
    assert (of_class[known] > 0).all()


def test_pixels_weigh_what_their_set_weighs() -> None:
    """Cross entropy of each picture by itself, weighted by hand."""
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(2, 3, 8, 8, generator=generator), torch.randint(3, (2, 8, 8), generator=generator)
    labels[1, :4] = 255
    weights = torch.tensor([0.25, 3.0])
    loss = SegmentationLoss(LossConfig(), torch.ones(3), 255)
    got = loss(logits, labels, None, weights)
    each = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="none").sum((1, 2))
    assert float(got) == pytest.approx(float((each * weights).sum() / (64 + 32)), rel=1e-5)


def folder_of(root: Path, rows: list[list[int]], name: str = "set", **config: Any) -> SegmentationFolder:
    """A set with a picture for each row of ids, side by side in its label."""
    for kind in ("images", "labels"):
        (root / name / kind).mkdir(parents=True, exist_ok=True)
    for i, values in enumerate(rows):
        label = np.repeat(np.array(values, np.uint8), 4)[None].repeat(8, 0)
        cv2.imwrite(str(root / name / "images" / f"{i}.png"), np.zeros((*label.shape, 3), np.uint8))
        cv2.imwrite(str(root / name / "labels" / f"{i}.png"), label)
    folders = {"images": f"{name}/images", "labels": f"{name}/labels"}
    return SegmentationFolder(MaskSetConfig.model_validate({**folders, **config}), root, NAMES)


def ids_of(sample: Sample) -> list[int]:
    assert sample.labels is not None
    return sample.labels[0, ::4].tolist()


def test_ids_of_a_set_become_those_of_the_recipe(tmp_path: Path) -> None:
    ids = {7: "ball", 30: "box", 31: "box", 0: "ground"}
    folder = folder_of(tmp_path, [[7, 30, 31], [0, 7, 200]], ids=ids, ignore=[200])
    assert [ids_of(sample) for sample in folder.samples] == [[2, 1, 1], [0, 2, 255]]
    assert folder.class_pixels().tolist() == [32, 64, 64]


def test_an_id_that_nobody_knows_is_a_fault_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"1 of 2 samples .*1\.png: unknown class ids \[9\]"):
        folder_of(tmp_path, [[7, 30], [7, 9]], ids={7: "ball", 30: "box"})


def test_ignored_ids_of_our_own_count_for_nothing(tmp_path: Path) -> None:
    """An ignored id that is a class of the recipe must not be learnt as that class."""
    folder = folder_of(tmp_path, [[0, 1, 2, 99]], ignore=[1, 99])
    assert ids_of(folder[0]) == [0, 255, 2, 255]


def test_classes_that_a_set_does_not_label_are_ignored_in_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [[0, 1, 2]], labelled=["ground", "box"])
    (sample,) = folder.samples
    assert ids_of(sample) == [0, 1, 255]
    assert sample.known is not None and sample.known.tolist() == [True, True, False]
    assert folder_of(tmp_path, [[0, 1, 2]], name="all")[0].known is None


def test_pictures_without_a_label_are_passed_over_where_the_recipe_says_so(tmp_path: Path) -> None:
    folder_of(tmp_path, [[0], [1], [2]])
    (tmp_path / "set" / "labels" / "1.png").unlink()
    config = {"images": "set/images", "labels": "set/labels"}
    with pytest.raises(SourceError, match="missing label"):
        SegmentationFolder(MaskSetConfig.model_validate(config), tmp_path, NAMES)
    folder = SegmentationFolder(MaskSetConfig.model_validate({**config, "partly_labelled": True}), tmp_path, NAMES)
    assert [sample.name for sample in folder.samples] == ["0", "2"]
    only = {**config, "partly_labelled": True, "only": ["[12]"], "exclude": ["1"]}
    assert [s.name for s in SegmentationFolder(MaskSetConfig.model_validate(only), tmp_path, NAMES).samples] == ["2"]


def test_labels_that_are_not_beside_the_pictures_are_looked_for_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, [[0, 1]])
    (tmp_path / "work").mkdir()
    (tmp_path / "set" / "labels").rename(tmp_path / "work" / "made")
    config = MaskSetConfig.model_validate({"images": "set/images", "labels": "made"})
    with pytest.raises(SourceError, match=r"no such folder; check data\.root in the recipe"):
        SegmentationFolder(config, tmp_path, NAMES)
    monkeypatch.chdir(tmp_path / "work")
    assert [ids_of(sample) for sample in SegmentationFolder(config, tmp_path, NAMES).samples] == [[0, 1]]


def test_classes_that_no_set_has_are_refused_unless_the_recipe_says_so(data: Path, tmp_path: Path) -> None:
    classes = [{"name": name, "color": [9, i, 9]} for i, name in enumerate((*NAMES, "unicorn"))]
    with pytest.raises(SourceError, match="no training pixel has the class unicorn"):
        open_task(read_config(recipe(tmp_path, data__classes=classes), data))
    open_task(read_config(recipe(tmp_path, data__classes=classes, data__unlabelled=["unicorn"]), data))
    with pytest.raises(UsageError, match="unlabelled: unknown classes horse; there are ground, box, ball"):
        read_config(recipe(tmp_path, data__unlabelled=["horse"]), data)


def write_sets(root: Path) -> Path:
    """The drawn data set, and another: other ids, balls not labelled, COCO boxes beside its masks."""
    write_boxes(write_folder(root, train=8, val=3), train=8, val=3)
    rng = np.random.default_rng(11)
    for part in ("town", "far"):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        data: dict[str, Any] = {
            "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}],
            "images": [],
            "annotations": [],
        }
        for i in range(6):
            image, labels = draw_sample(rng)
            theirs = np.full_like(labels, 9)  # what it does not label
            theirs[labels == 0], theirs[labels == 1] = 40, 41
            cv2.imwrite(str(root / part / "images" / f"{part}{i}.png"), image)
            cv2.imwrite(str(root / part / "labels" / f"{part}{i}.png"), theirs)
            if i == 5:
                continue  # nobody looked for boxes in the last
            data["images"].append({"id": i, "file_name": f"{part}{i}.png", "width": 96, "height": 72})
            for class_id in (1, 2):
                x, y, w, h = cv2.boundingRect((labels == class_id).astype(np.uint8))
                entry = {"image_id": i, "category_id": class_id, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                entry |= {"id": len(data["annotations"]) + 1, "score": 0.9 if class_id == 1 else 0.3}
                data["annotations"].append(entry)
        (root / part / "boxes.json").write_text(json.dumps(data))
    return root


TOWN = {
    "images": "town/images",
    "labels": "town/labels",
    "ids": {40: "ground", 41: "box"},
    "ignore": [9],
    "labelled": ["ground", "box"],
    "share": 1.0,
    "weight": 0.5,
    "boxes": {"annotations": "town/boxes.json", "names": {"box": "crate", "ball": "ball"}, "min_score": 0.5},
}
FAR = {k: TOWN[k] for k in ("ids", "ignore", "labelled")} | {"images": "far/images", "labels": "far/labels"}


def recipe(folder: Path, **changes: Any) -> Path:
    """The smoke recipe with a second set to train on and one to measure on, two epochs of few steps."""
    folder.mkdir(exist_ok=True)
    content = yaml.safe_load(SMOKE.read_text())
    content |= {"output": str(folder / "run"), "epochs": 2, "steps": 3, "evaluate_every": 1}
    content["augment"]["crops"] = [{"start": 0, "size": [64, 64]}]
    content["data"] |= {"train": [{**content["data"]["train"], "share": 3.0}, TOWN], "dev": [{**FAR, "name": "far"}]}
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = content
        for name in parents:
            part = part[name]
        part[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(recipe(folder), data_root=data)
    return folder / "run"


def test_boxes_of_a_file_stand_beside_masks(data: Path, tmp_path: Path) -> None:
    """Its sure boxes are objects, its unsure ones are ignored, and where it names no picture nobody labelled boxes."""
    task = open_task(read_config(recipe(tmp_path), data))
    town = task.data.masks.folders[1]
    assert [sample.name for sample in town.samples] == [f"town{i}" for i in range(6)]
    for sample in town.samples[:5]:
        assert sample.boxes is not None
        assert sorted(sample.boxes.class_ids.tolist()) == [-1, 0], "the ball scores less than min_score"
        box = sample.boxes.boxes[sample.boxes.class_ids == 0][0]
        assert (box[2:] - box[:2]).tolist() == [31, 25]
    assert town.samples[5].boxes is None
    assert all(sample.boxes is not None for sample in task.data.masks.folders[0].samples), "made from masks"
    crates = sum(int((s.boxes.class_ids == 0).sum()) for s in town.samples if s.boxes is not None)
    assert crates == 5


def test_batches_know_what_their_pictures_label(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(read_config(recipe(tmp_path), data))
    names = []
    for batch in trainer.batches.epoch(0):
        for row, name in enumerate(batch.names[: len(batch.labels)]):
            of_town = name.startswith("town")
            assert batch.known[row].tolist() == [True, True, not of_town]
            assert float(batch.weights[row]) == (0.5 if of_town else 1.0)
            assert not (of_town and (batch.labels[row] == 2).any())
            names.append(of_town)
    assert sum(names) == 3 and len(names) == 12, "a quarter, to the picture"


def test_a_run_on_many_sets_goes_on_bit_for_bit(data: Path, unbroken: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    first = Trainer(read_config(path, data))
    before = list(first.batches.epoch(1))
    assert train(path, data_root=data, stop_after=1).epochs == 1
    torch.manual_seed(99)
    second = Trainer(read_config(path, data))
    second.load(tmp_path / "run" / "last.pt")
    for old, new in zip(before, second.batches.epoch(second.epoch), strict=True):
        assert old.names == new.names
        for a, b in ((old.images, new.images), (old.labels, new.labels), (old.known, new.known)):
            assert torch.equal(a, b)
    train(path, data_root=data)
    a, b = load_checkpoint(unbroken / "last.pt"), load_checkpoint(tmp_path / "run" / "last.pt")
    for part in ("network", "average"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part}.{name}"
    assert a["best"] == b["best"]


def test_a_checkpoint_of_old_spelling_is_read_as_ever(
    data: Path, unbroken: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the time when the task was called street: it goes on, without a word, and is exported."""
    state = load_checkpoint(unbroken / "last.pt")
    old = state["config"]
    old["task"] = "street"
    old["augment"]["paste"] = old["augment"].pop("copy_paste")
    for part in old["data"]["train"]:
        part["taught"] = part.pop("distil")
    path = tmp_path / "old.pt"
    save_checkpoint(path, {name: value for name, value in state.items() if name != "format"})
    trainer = Trainer(read_config(recipe(tmp_path), data))
    with caplog.at_level("WARNING"):
        trainer.load(path)
    assert not caplog.records and trainer.epoch == 2
    for name, tensor in state["average"].items():
        assert torch.equal(trainer.average.network.state_dict()[name], tensor)
    assert export(path, tmp_path / "old.onnx").tasks == ["segmentation", "detection"]


def test_dev_sets_are_measured_and_count(unbroken: Path) -> None:
    rows = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    scores = []
    for row in rows:
        assert set(row["iou"]) <= {*NAMES} and "ball" in row["iou"]
        assert set(row["iou_far"]) == {"ground", "box"}, "it does not label balls"
        assert row["miou_far"] == pytest.approx(np.mean(list(row["iou_far"].values())), abs=2e-4)
        scores.append((np.mean([row["miou"], row["miou_far"]]) + row["map50"]) / 2)
    assert load_checkpoint(unbroken / "best.pt")["best"] == pytest.approx(max(scores), abs=2e-4)


def test_the_card_has_the_accuracy_on_val_as_the_recipe_reads_it(data: Path, unbroken: Path, tmp_path: Path) -> None:
    """Ids of its own, classes that it does not label, pictures that are left out."""
    state = load_checkpoint(unbroken / "best.pt")
    state["config"]["data"]["val"] = {**FAR, "only": ["far[0-3]"]}
    save_checkpoint(tmp_path / "best.pt", {name: value for name, value in state.items() if name != "format"})
    card = release(tmp_path / "best.pt", tmp_path / "best.onnx", data)
    assert {name for name in card.metrics if "_iou_" in name} == {
        f"street-smoke_val_iou_{name}" for name in ("ground", "box")
    }
    config = parse_config(state["config"], tmp_path).data
    folder = SegmentationFolder(config.val, data, NAMES)
    assert len(folder) == 4
    counts = ConfusionMatrix(3)
    with load_model(tmp_path / "best.onnx", engine="openvino", precision="fp32") as model:
        for sample in folder.samples:
            counts.add(model.predict(sample.image).class_map.mask, sample.labels)
    assert card.metrics["street-smoke_val_miou"] == pytest.approx(counts.iou()[:2].mean(), abs=1e-3)


PLAIN = {"images": "train/images", "labels": "train/labels"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": [PLAIN, PLAIN]}, "two sets are called train: give each a name"),
        ({"data__dev": [FAR, FAR]}, "two sets are called far: give each a name"),
        (
            {"data__train": [{**PLAIN, "ids": {3: "bal"}}]},
            "set train: unknown classes bal; there are ground, box, ball",
        ),
        ({"data__train": [{**PLAIN, "labelled": ["ground", "tree"]}]}, "set train: unknown classes tree"),
        ({"data__train": [{**PLAIN, "ids": {3: "ball"}, "labelled": ["box", "ball"]}]}, "labels box, but no id"),
        ({"data__train": [{**PLAIN, "ids": {3: "ball", 4: "box"}, "ignore": [4]}]}, r"ids \[4\] are both a class and"),
        ({"data__train": [{**PLAIN, "ids": {255: "ball", 4: "box"}}]}, r"ids \[255\] are both a class and ignored"),
        (
            {"data__train": [{**PLAIN, "boxes": {"annotations": "b.json", "names": {"box": "crat"}}}]},
            "set train: unknown detection classes crat; there are crate, ball",
        ),
        (
            {"data__train": [{**PLAIN, "boxes": {"annotations": "b.json", "labelled": ["box"]}}]},
            "set train: unknown detection classes box",
        ),
        ({"detection__val__labelled": ["box"]}, "unknown detection classes box"),
        (
            {"detection__train": [{"images": "boxes/images", "annotations": "boxes/annotations.json"}] * 2},
            "two sets are called boxes: give each a name",
        ),
        (
            {"data__train": [TOWN, {**TOWN, "name": "again", "ids": {40: "ground", 41: "ball"}, "labelled": None}]},
            "sets town and again contradict each other: id 41 of the same labels is box in one and ball in the other",
        ),
        (
            {"data__dev": [{**PLAIN, "name": "swapped", "ids": {0: "ground", 1: "ball", 2: "box"}}]},
            "sets train and swapped contradict each other: id 1 of the same labels is box in one and ball in the other",
        ),
        (
            {
                "detection__dev": [
                    {
                        "images": "town/images",
                        "annotations": "town/boxes.json",
                        "names": {"box": "ball"},
                        "others": "drop",
                    }
                ]
            },
            "sets town and town contradict each other: class box of the same labels is crate in one and ball in the",
        ),
    ],
)
def test_sets_that_contradict_each_other_are_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_config(recipe(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_the_command_tells_it_in_one_line_before_any_training(data: Path, tmp_path: Path) -> None:
    for path in (
        recipe(tmp_path, data__train=[PLAIN, PLAIN]),
        recipe(tmp_path / "ids", data__train=[PLAIN, {**TOWN, "ids": {40: "ground", 42: "box"}}]),
    ):
        command = [sys.executable, "-m", "perception", "train", str(path), "--data", str(data)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SMOKE.parents[2])
        assert done.returncode == 2, done.stderr
        assert done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert not (path.parent / "run").exists()


def test_faults_of_several_sets_are_told_together(data: Path, tmp_path: Path) -> None:
    missing = [{**PLAIN, "name": "a", "images": "no/images"}, {**TOWN, "labels": "nowhere/labels"}]
    config = read_config(recipe(tmp_path, data__train=missing), data)
    with pytest.raises(PerceptionError, match=r"no/images: no such folder.*nowhere/labels: no such folder"):
        open_task(config)


def test_a_recipe_of_a_single_set_is_a_list_of_one() -> None:
    content = yaml.safe_load(SMOKE.read_text())
    config = parse_config(content, SMOKE)
    assert [part.title for part in config.data.train] == ["train"]
    assert parse_config(json.loads(config.model_dump_json()), "checkpoint") == config


def test_outdated_labels_are_told_before_any_picture_is_read(data: Path, tmp_path: Path) -> None:
    changes = {"data__train": [{**PLAIN, "label_recipe": "labels.yaml"}, {**TOWN, "labels": "nowhere"}]}
    config = read_config(recipe(tmp_path, **changes), data)
    with pytest.raises(SourceError, match=r"train/labels: there are no pseudo-labels here; `perception pseudo-label"):
        open_task(config)


def test_what_comes_second_is_checked_before_what_comes_first_is_trained(data: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = recipe(tmp_path / "first")
    for changes in (
        {"data__train": [{**PLAIN, "labels": "nowhere"}]},
        {"distil": {"teacher": str(tmp_path / "none.pt")}},
    ):
        path = recipe(tmp_path, network={"start": str(first), "pretrained": False}, **changes)
        with pytest.raises(PerceptionError, match=r"nowhere: no such folder|none\.pt: no such checkpoint"):
            train(path, data_root=data)
        assert not (tmp_path / "first" / "run").exists()
