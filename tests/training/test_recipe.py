"""Recipes and checkpoints: what is wrong with them is named."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from perception.commands.main import app  # noqa: E402
from perception.errors import PerceptionError  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork  # noqa: E402
from perception.training.export.export import export_network  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.tasks.kinds import build_network, task_type  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, load_weights, save_checkpoint  # noqa: E402

RECIPES = Path(__file__).parents[2] / "configs" / "train"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_recipes_are_valid(path: Path) -> None:
    config = read_config(path, "elsewhere")
    assert config.data.root == Path("elsewhere")
    assert config.augment.crop_at(0) == tuple(config.augment.crops[0].size)
    assert config.augment.crop_at(10_000) == tuple(config.augment.crops[-1].size)


def changed(tmp_path: Path, **changes: object) -> Path:
    data = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = data
        for name in parents:
            part = part[name]
        part[last] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_recipe_lies_over_its_base(tmp_path: Path) -> None:
    whole = changed(tmp_path)
    (tmp_path / "more").mkdir()
    middle = tmp_path / "more" / "middle.yaml"
    middle.write_text("base: ../recipe.yaml\nepochs: 99\naugment: {flip: 0.25, rare_classes: []}\n")
    top = tmp_path / "top.yaml"
    top.write_text("base: more/middle.yaml\nname: top\nnetwork: {dropout: 0.5}\naugment: {flip: 0.75}\n")
    below, config = read_config(whole), read_config(top, "elsewhere")
    assert (config.name, config.epochs, config.network.dropout, config.augment.flip) == ("top", 99, 0.5, 0.75)
    assert config.augment.rare_classes == []
    assert config.data.root == Path("elsewhere")
    same = {"name", "epochs", "network", "augment", "data"}
    assert config.model_dump(exclude=same) == below.model_dump(exclude=same)
    assert config.network.model_dump(exclude={"dropout"}) == below.network.model_dump(exclude={"dropout"})
    skipped = {"flip", "rare_classes"}
    assert config.augment.model_dump(exclude=skipped) == below.augment.model_dump(exclude=skipped)


def test_a_base_that_is_missing_or_goes_in_circles_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    with pytest.raises(PerceptionError, match=r"b\.yaml: cannot read the recipe"):
        read_config(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("base: ./a.yaml\n")
    with pytest.raises(PerceptionError, match=r"a\.yaml: a recipe cannot be its own base"):
        read_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "epoch: Extra inputs"),
        ({"epochs": 0}, "epochs: .*greater than or equal to 1"),
        ({"augment__crops": [{"start": 0, "size": [100, 64]}]}, "multiples of 32"),
        ({"augment__crops": [{"start": 2, "size": [64, 64]}]}, "must start at 0"),
        ({"augment__scale": [2, 1]}, "scale must be a range"),
        ({"augment__rare_classes": [9]}, r"rare_classes \[9\] are not among the 3 classes"),
        ({"augment__copy_paste": {"classes": [1, 3]}}, r"augment.copy_paste.classes \[3\] are not among the 3 classes"),
        ({"augment__copy_paste": {"classes": []}}, r"augment.copy_paste.classes"),
        ({"data__ignore": 1}, "ignore id 1 is the id of class box"),
        (
            {"model__things": {"box": [], "cat": []}},
            "model.things names unknown classes cat; null takes away",
        ),
        ({"model__things": {"box": ["crate"]}}, "model.things names unknown classes crate"),
        ({"network": {"frozen_stride": 4, "backbone": "resnet18"}}, "frozen_stride is for efficientnet_lite0"),
        ({"model": {}}, "model.licence: Field required"),
        ({"data__size": [98, 72]}, "data.size: both sides are multiples of 4 .*98x72; try 96x72"),
        ({"data__size": [96, 68], "network__decoder": "fcn32s"}, "multiples of 8 .*fcn32s, not 96x68; try 96x64"),
    ],
)
def test_faults_of_a_recipe_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PerceptionError, match=message):
        read_config(changed(tmp_path, **changes))


def test_old_spellings_are_read_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a recipe, in its base and, without a word, in a checkpoint."""
    base = changed(tmp_path, task="street", augment__paste={"classes": [1], "chance": 0.25})
    data = yaml.safe_load(base.read_text())
    data["data"]["train"] = [{**data["data"]["train"], "taught": False}]
    base.write_text(yaml.safe_dump(data))
    top = tmp_path / "top.yaml"
    top.write_text("base: recipe.yaml\naugment: {copy_paste: {most: 5}}\n")
    with caplog.at_level("WARNING"):
        config = read_config(top)
    assert config.task == "segmentation_detection"
    assert (config.augment.copy_paste.chance, config.augment.copy_paste.most) == (0.25, 5)
    assert config.data.train[0].distil is False
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 3 and all(note.startswith(str(base)) for note in notes)
    for note in (
        "task: street is now",
        "augment.paste is now called copy_paste",
        "data.train.taught is now called distil",
    ):
        assert any(note in said for said in notes)
    caplog.clear()
    assert parse_config(data, "checkpoint").data.train[0].distil is False
    assert not caplog.records
    assert data["task"] == "street" and "paste" in data["augment"], "what was given is not changed"


def test_tasks_that_nobody_added_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match="task 'dance' is unknown; there are segmentation_detection, classific"):
        read_config(changed(tmp_path, task="dance"))


def test_a_fault_names_what_may_have_been_meant(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"augment.colour: .*did you mean 'color'\?"):
        read_config(changed(tmp_path, augment__colour=0.3))
    with pytest.raises(PerceptionError, match=r"data.train.0.lables: .*did you mean 'labels'\?"):
        read_config(changed(tmp_path, data__train__lables="x"))


def test_a_recipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"none\.yaml: cannot read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(PerceptionError, match="not YAML"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(PerceptionError, match="not a valid recipe"):
        read_config(tmp_path / "list.yaml")


def test_checkpoints_come_back_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.pt"
    save_checkpoint(path, {"x": torch.arange(3), "n": 2})
    save_checkpoint(path, {"x": torch.arange(4), "n": 3})
    state = load_checkpoint(path)
    assert state["n"] == 3
    assert state["x"].tolist() == [0, 1, 2, 3]
    assert [p.name for p in path.parent.iterdir()] == ["a.pt"]


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=r"none\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(PerceptionError, match=r"cut\.pt: cannot read this checkpoint"):
        load_checkpoint(tmp_path / "cut.pt")
    (tmp_path / "text.pt").write_text("Hello")
    torch.save({"format": 1, "code": Path}, tmp_path / "code.pt")  # unpickling could run anything
    for name in ("text", "code"):
        with pytest.raises(PerceptionError, match=r"more in it than tensors and plain values$"):
            load_checkpoint(tmp_path / f"{name}.pt")
    torch.save({"other": 1}, tmp_path / "other.pt")
    with pytest.raises(PerceptionError, match="not a checkpoint of this package"):
        load_checkpoint(tmp_path / "other.pt")


def test_weights_of_another_network_say_which_tensors_differ(tmp_path: Path) -> None:
    small = SegmentationDetectionNetwork(3, {4: 8, 8: 8, 16: 8, 32: 8})
    weights = small.state_dict()
    weights["surplus"] = torch.zeros(1)
    del weights["head.classify.bias"]
    with pytest.raises(PerceptionError, match=r"lacks head\.classify\.bias; has unknown surplus") as caught:
        load_weights(SegmentationDetectionNetwork(4, {4: 8, 8: 8, 16: 8, 32: 8}), weights, tmp_path / "a.pt")
    assert "head.classify.weight is [3, 8, 1, 1], expected [4, 8, 1, 1]" in str(caught.value)


@pytest.mark.parametrize(
    ("decoder", "backbone", "stride"),
    [("fcn8s", "mobilenet_v3_small", 8), ("fcn32s", "resnet18", 8), ("fpn", "mobilenet_v3_large", 4)],
)
def test_every_network_of_a_recipe_exports(tmp_path: Path, decoder: str, backbone: str, stride: int) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    changes = {"network__decoder": decoder, "network__backbone": backbone}
    config = read_config(changed(tmp_path, **changes))
    torch.manual_seed(0)
    network = build_network(config).eval()
    output = tmp_path / "a.onnx"
    card = task_type(config).card(config, {})
    assert card.input.multiple == stride
    export_network(network, card, output)  # compares with torch, or fails
    dimensions = onnx.load(output).graph.output[0].type.tensor_type.shape.dim
    assert dimensions[1].dim_value == 3
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 96))["class_logits"].shape[-2:] == (-(-64 // stride), -(-96 // stride))


def test_where_a_model_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = read_config(changed(tmp_path))
    for output, message in ((tmp_path, "this is a folder"), (tmp_path / "file" / "a.onnx", "file")):
        # the recipe's data are not there: nothing has been looked at yet
        arguments = ["train", str(RECIPES / "smoke.yaml"), "--data", str(tmp_path / "none"), "-o", str(output)]
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, PerceptionError)
        assert message in str(result.exception)
        with pytest.raises(PerceptionError, match=message):
            export_network(build_network(config), task_type(config).card(config, {}), output)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "recipe.yaml"]


def test_boxes_need_the_pyramid(tmp_path: Path) -> None:
    data = yaml.safe_load((RECIPES / "street-smoke.yaml").read_text())
    data["network"]["decoder"] = "fcn8s"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(PerceptionError, match="fcn8s has no detection head; fpn has"):
        read_config(tmp_path / "recipe.yaml")


def test_null_takes_away_what_a_base_says_of_things(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(changed(tmp_path, model__things={"box": [], "ball": []}).read_text())
    above = tmp_path / "above.yaml"
    above.write_text("base: base.yaml\nmodel: {things: {box: null}}\n")
    assert read_config(above).model.things == {"ball": []}
