"""Training on several sets of pictures at once: shares, boxes beside masks, whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.evaluation.metrics import ConfusionMatrix  # noqa: E402
from perception.model import load_model  # noqa: E402
from perception.training.data.masks import Sample, SegmentationFolder  # noqa: E402
from perception.training.data.sets import SampleSets  # noqa: E402
from perception.training.export.export import export  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.run.loop import Trainer, train  # noqa: E402
from perception.training.tasks.kinds import open_task  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from tests.training.sets import FAR, NAMES, recipe, write_sets  # noqa: E402


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
