"""Classifiers in the training loop: from folder to exported file, and what stays frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")

import cv2  # noqa: E402
import yaml  # noqa: E402

import perception.classics  # noqa: E402, F401 - its small networks are trained here
from perception.card import read_card  # noqa: E402
from perception.errors import PerceptionError, UsageError  # noqa: E402
from perception.evaluation.classification import evaluate_classification  # noqa: E402
from perception.training.data.labelled import held_out, open_sets  # noqa: E402
from perception.training.data.pictures import PictureAugmenter, PictureBatches  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.recipes.classification import PictureAugmentConfig  # noqa: E402
from perception.training.recipes.read import parse_config  # noqa: E402
from perception.training.run.loop import Trainer, TrainResult, train  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint  # noqa: E402
from tests.training.signs import NAMES, draw_sign, write_signs  # noqa: E402


@pytest.fixture(scope="module")
def signs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signs")
    write_signs(root / "train", 30)
    write_signs(root / "val", 10, seed=1)
    return root


def content(output: Path, root: Path, **changes: Any) -> dict[str, Any]:
    """A recipe, with parts of it replaced or, where they are dicts, changed."""
    recipe: dict[str, Any] = {
        "task": "classification",
        "name": "signs",
        "output": str(output),
        "epochs": 6,
        "batch": 15,
        "precision": "fp32",
        "ema_decay": 0.5,
        "evaluate_every": 2,
        "data": {"root": str(root), "train": "train", "val": "val", "size": [32, 32], "classes": list(NAMES)},
        "network": {"classifier": "lenet_color"},
        "optimiser": {"learning_rate": 0.003, "warmup_epochs": 0.5},
        "model": {"licence": "free"},
    }
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    return recipe


def write(folder: Path, root: Path, **changes: Any) -> Path:
    path = folder / "signs.yaml"
    path.write_text(yaml.safe_dump(content(folder / "run", root, **changes)))
    return path


@pytest.fixture(scope="module")
def trained(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(write(tmp_path_factory.mktemp("trained"), signs))


def test_it_learns_and_says_how_it_went(trained: TrainResult) -> None:
    rows = [json.loads(line) for line in (trained.last.parent / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert trained.score > 0.8
    measured = [row for row in rows if "accuracy" in row]
    assert [row["epoch"] for row in measured] == [2, 4, 6]
    for row in measured:
        assert row["error_percent"] == pytest.approx(100 * (1 - row["accuracy"]), abs=1e-3)
        assert row["val_loss"] > 0
    for name in ("curves.png", "confusion.png"):
        picture = cv2.imread(str(trained.last.parent / name))
        assert picture is not None and picture.std() > 5, name


def test_the_exported_file_is_as_good_as_its_card_says(trained: TrainResult, signs: Path, tmp_path: Path) -> None:
    output = tmp_path / "signs.onnx"
    card = release(trained.best, output)
    assert read_card(output) == card
    assert card.classification is not None
    assert card.classification.names == list(NAMES)
    assert card.metrics["signs_val_accuracy"] == pytest.approx(trained.score, abs=0.04)
    evaluation = evaluate_classification(output, signs / "val", engine="onnxruntime")
    assert evaluation.accuracy == pytest.approx(card.metrics["signs_val_accuracy"], abs=0.04)
    assert set(evaluation.as_dict()) >= {"accuracy", "error_percent", "confusion", "images"}
    assert evaluation.images == 30
    assert [p.name for p in tmp_path.iterdir()] == ["signs.onnx"]


def test_a_stopped_run_goes_on_bit_for_bit(trained: TrainResult, signs: Path, tmp_path: Path) -> None:
    path = write(tmp_path, signs)
    train(path, stop_after=3)
    torch.manual_seed(5)
    again = train(path)
    a, b = load_checkpoint(trained.last), load_checkpoint(again.last)
    for part in ("network", "average"):
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part}.{name}"


@pytest.mark.parametrize("kind", ["sgd", "adam", "rmsprop", "adamw"])
def test_the_first_step_is_that_of_the_textbook(kind: str, signs: Path, tmp_path: Path) -> None:
    rate, decay = 0.01, 0.1
    optimiser = {
        "kind": kind, "learning_rate": rate, "schedule": "constant", "warmup_epochs": 0, "weight_decay": decay,
        "backbone_factor": 1.0, "clip_norm": 1e9,
    }  # fmt: skip
    trainer = Trainer(parse_config(content(tmp_path, signs, optimiser=optimiser), "test"))
    batch = next(iter(trainer.batches.epoch(0)))
    weight = trainer.network.network.F7.weight
    before = weight.detach().clone()
    logits = trainer.network((batch.images.float() - 127) / 128)["logits"]
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch.labels), weight)
    trainer._train_step(batch)
    decayed = gradient if kind == "adamw" else gradient + decay * before
    step = {
        "sgd": 1.9 * decayed,  # Nesterov: the gradient and 0.9 of the velocity, which is the gradient
        "adam": decayed.sign(),
        "adamw": gradient.sign() + decay * before,
        "rmsprop": decayed.sign() / 0.01**0.5,
    }[kind]
    clear = decayed.abs() > 1e-4  # elsewhere the epsilons of the denominators show
    torch.testing.assert_close((weight.detach() - before)[clear], (-rate * step)[clear], rtol=1e-3, atol=1e-6)
    assert clear.float().mean() > 0.5


def test_networks_of_crops_take_the_whole_picture(signs: Path, tmp_path: Path) -> None:
    path = write(tmp_path, signs, epochs=1, network={"classifier": "mini_alexnet_v4"}, augment={"flip": 0.5})
    trainer = Trainer(parse_config(yaml.safe_load(path.read_text()), path))
    batch = next(iter(trainer.batches.epoch(0)))
    assert batch.images.shape == (15, 3, 28, 28)
    images = torch.randn(2, 3, 32, 32)
    network = trainer.network.eval()
    with torch.inference_mode():
        whole, middle = network(images)["logits"], network(images[:, :, 2:30, 2:30])["logits"]
    assert torch.equal(whole, middle)


# ---- what is frozen ------------------------------------------------------------------------------------------------


def changed(signs: Path, tmp_path: Path, **network: Any) -> tuple[set[str], set[str]]:
    """Names of tensors that one epoch changed, and of all."""
    settings = {"classifier": "efficientnet_lite0", **network}
    path = write(tmp_path, signs, epochs=3, network=settings)
    trainer = Trainer(parse_config(yaml.safe_load(path.read_text()), path))
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run(stop_after=1)
    after = trainer.network.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}, set(after)


def test_a_frozen_network_trains_its_head_alone(signs: Path, tmp_path: Path) -> None:
    moved, _ = changed(signs, tmp_path, frozen="all")
    # not even the statistics of a batch normalisation
    assert moved == {"network.classifier.3.weight", "network.classifier.3.bias"}


def test_the_first_blocks_stay_with_their_statistics(signs: Path, tmp_path: Path) -> None:
    moved, names = changed(signs, tmp_path, frozen=4)  # stem convolution and norm, two stages
    still = ("network.stem.", "network.stages.0.", "network.stages.1.")
    assert {name for name in names if name.startswith(still)}.isdisjoint(moved)
    assert {n for n in names if not n.startswith(still)} == moved
    assert any("running_mean" in name for name in moved)


def test_two_phases_first_the_head_then_all_at_a_low_rate(signs: Path, tmp_path: Path) -> None:
    network = {"classifier": "three_blocks", "head_epochs": 1, "later_factor": 0.01}
    path = write(tmp_path, signs, epochs=2, network=network, optimiser={"schedule": "constant", "warmup_epochs": 0})
    trainer = Trainer(parse_config(yaml.safe_load(path.read_text()), path))
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run(stop_after=1)
    first = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    assert {n for n in first if not torch.equal(first[n], before[n])} == {
        "network.7.weight",
        "network.7.bias",
    }
    rates = [group["lr"] for group in trainer.optimiser.param_groups]
    trainer.run(stop_after=2, resume=False)
    second = trainer.network.state_dict()
    assert {n for n in second if not torch.equal(second[n], first[n])} == set(second)
    later = [group["lr"] for group in trainer.optimiser.param_groups]
    # held back for the first hundred steps: compare with what that alone would have made of it
    assert all(b < 0.05 * a for a, b in zip(rates, later, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"classifier": "lenet5"}, "data": {"size": [24, 24]}}, r"to_fully_convolutional"),
        ({"network": {"frozen": 5}}, "5 blocks of lenet_color are frozen: nothing is left to train"),
        ({"network": {"frozen": 9}}, "9 blocks of lenet_color are frozen: it has 5"),
        ({"network": {"classifier": "lenet9"}}, "no classifier is called 'lenet9'"),
        ({"network": {"head_epochs": 6}}, "leaves nothing of 6 epochs"),
        (
            {"data": {"classes": ["ball", "box"]}},
            "3 classes do not fit a head of 2: .* does not have the classes cross",
        ),
        ({"data": {"classes": [*NAMES, "star"]}}, "3 classes do not fit a head of 4: .*star have no pictures"),
        ({"data": {"val": "nowhere"}}, "no such file or folder"),
        ({"data": {"train": "torchvision:Nope"}}, "torchvision has no data set 'Nope'"),
        ({"data": {"train": "torchvision:FakeData"}}, "FakeData is no set of pictures with one class each"),
        ({"task": "poetry"}, "task .poetry. is unknown; there are .*classification, localisation"),
        ({"network": {"pretrained": True}}, "no ImageNet weights are available for lenet_color"),
    ],
)
def test_faults_are_one_line_before_any_work(
    changes: dict[str, Any], message: str, signs: Path, tmp_path: Path
) -> None:
    with pytest.raises(PerceptionError, match=message) as error:
        train(write(tmp_path, signs, **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_labels_that_the_head_lacks_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "some.npz", images=rng.integers(0, 256, (12, 28, 28), np.uint8), labels=np.arange(12))
    data = {"train": "some.npz", "val": None, "size": [28, 28], "classes": [str(i) for i in range(10)]}
    with pytest.raises(UsageError, match="labels from 0 to 11, the recipe's head has 10 classes"):
        train(write(tmp_path, tmp_path, data=data, network={"classifier": "lenet5"}))


# ---- data ----------------------------------------------------------------------------------------------------------


def test_the_held_out_part_is_even_over_the_classes(signs: Path, tmp_path: Path) -> None:
    labels = np.random.default_rng(3).integers(0, 5, 997)
    chosen = held_out(labels, 10)
    for label in range(5):
        assert chosen[labels == label].sum() == (labels == label).sum() // 10
    recipe = parse_config(content(tmp_path, signs, data={"val": None, "held_out": 5}), "test")
    train_set, val = open_sets(recipe.data)
    assert (len(train_set), len(val)) == (72, 18)
    assert not {*train_set.names} & {*val.names}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_drawn_follows_the_box(seed: int) -> None:
    """A bright rectangle is found where the augmenter says that its box went."""
    rng = np.random.default_rng(seed)
    config = PictureAugmentConfig(flip=0.5, shift=6, scale=(0.9, 1.1))
    augment = PictureAugmenter(config, (80, 60))
    for _ in range(20):
        image = np.zeros((60, 80, 3), np.uint8)
        x0, y0 = (int(v) for v in rng.integers(15, 35, 2))
        x1, y1 = x0 + int(rng.integers(12, 30)), y0 + int(rng.integers(8, 15))
        image[y0:y1, x0:x1] = 255
        made, box = augment(image, rng, np.array([x0 / 80, y0 / 60, x1 / 80, y1 / 60], np.float32))
        rows, columns = np.nonzero((made[..., 0] > 127) & (made[..., 1] > 127) & (made.min(2) != 127))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(box * [80, 60, 80, 60], found, atol=1.01)


def test_crops_are_parts_of_the_picture() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    places = set()
    for _ in range(60):
        made, box = PictureAugmenter(PictureAugmentConfig(), (28, 28))(
            image, rng, np.array([0.5, 0.5, 1, 1], np.float32)
        )
        offsets = [(y, x) for y in range(5) for x in range(5) if np.array_equal(image[y : y + 28, x : x + 28], made)]
        assert len(offsets) == 1
        places.add(offsets[0])
        y, x = offsets[0]
        np.testing.assert_allclose(box * 28, np.clip([16 - x, 16 - y, 32 - x, 32 - y], 0, 28), atol=1e-4)
    assert len(places) > 10


def test_an_epoch_is_its_own_whatever_ran_before() -> None:
    rng = np.random.default_rng(0)
    images = [draw_sign(i % 3, rng) for i in range(20)]
    augment = PictureAugmenter(PictureAugmentConfig(flip=0.5, shift=3, color=0.3, rotate=10), (32, 32))

    def make(index: int, draw: np.random.Generator) -> Any:
        from perception.training.data.pictures import Labelled

        image, box = augment(images[index], draw)
        return Labelled(image, index, box, str(index))

    batches = PictureBatches(20, make, 6, seed=4)
    list(batches.epoch(0))
    first, again = list(batches.epoch(1)), list(PictureBatches(20, make, 6, seed=4).epoch(1))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    seen = torch.cat([b.labels for b in first])
    assert len(set(seen.tolist())) == 18
    halves = [list(PictureBatches(20, make, 3, 4, rank, 2).epoch(1)) for rank in (0, 1)]
    assert not {x for b in halves[0] for x in b.names} & {x for b in halves[1] for x in b.names}
