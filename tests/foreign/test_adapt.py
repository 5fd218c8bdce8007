"""From a foreign file and a YAML card to a model that runs: files, caches, names, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from typer.testing import CliRunner

from perception import ModelError, PerceptionError, UsageError, load_model
from perception.card import read_card, shipped_cards
from perception.commands.main import app
from perception.foreign import adapt, adapt_model, adapted
from perception.foreign.adapter import read_foreign_card
from tests.foreign import graphs
from tests.foreign.graphs import Net
from tests.noise import noise

CARD: dict[str, Any] = {
    "name": "theirs",
    "licence": "MIT",
    "input": {"width": 64, "height": 48, "resize": "letterbox"},
    "detection": {"classes": ["red", "green", "blue"], "score_threshold": 0.5},
    "adapter": {"input": {"channels": "RGB", "scale": "1/255"}, "detection": {"format": "yolox", "strides": [16]}},
}


def write_card(path: Path, **change: Any) -> Path:
    path.write_text(yaml.safe_dump(CARD | change))
    return path


def color_detector() -> Net:
    """A YOLOX of one grid of 16 pixels: a cell is a box of class red, green or blue where it has that colour."""
    net = Net(64, 48)
    weights = np.zeros((8, 3, 16, 16), np.float32)
    bias = np.array([0.5, 0.5, 0, 0, 8, -10, -10, -10], np.float32)  # the cell itself, sure that there is something
    for color in range(3):
        for channel in range(3):
            weights[5 + color, channel] = (20 if color == channel else -20) / 256
    cells = net("Conv", net.image, weights, bias, strides=[16, 16])
    rows = net("Transpose", net("Reshape", cells, np.array([0, 8, -1], np.int64)), perm=[0, 2, 1])
    rows = net("Concat", net.part(rows, 0, 4), net("Sigmoid", net.part(rows, 4, 8)), axis=2)
    return net.output(rows, "output", ["batch", 12, 8])


def scene() -> np.ndarray:
    """Grey, twice the input's size, with a red and a blue square on the grid."""
    frame = np.full((96, 128, 3), 128, np.uint8)
    frame[32:64, 0:32] = (0, 0, 255)
    frame[64:96, 96:128] = (255, 0, 0)
    return frame


def check_scene(model: Any) -> None:
    found = model.predict(scene()).detections
    boxes = {int(c): b.tolist() for c, b in zip(found.class_ids, found.boxes, strict=True)}
    assert len(found) == 2 and set(boxes) == {0, 2}
    np.testing.assert_allclose(boxes[0], [0, 32, 32, 64], atol=1e-2)
    np.testing.assert_allclose(boxes[2], [96, 64, 128, 96], atol=1e-2)


def test_a_card_makes_a_foreign_file_a_model(tmp_path: Path) -> None:
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    with load_model(path, card=card) as model:
        check_scene(model)
        assert model.card.name == "theirs"


def test_adapt_writes_a_model_that_needs_no_card(tmp_path: Path) -> None:
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    output = tmp_path / "new" / "ours.onnx"
    written = adapt(path, card, output)
    assert list(output.parent.iterdir()) == [output]
    assert read_card(output) == written
    with load_model(output, precision="fp32") as model:
        check_scene(model)
    with pytest.raises(UsageError, match="overwrite=True"):
        adapt(path, card, output)
    adapt(path, card, output, overwrite=True)


def test_the_command_line(tmp_path: Path) -> None:
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    output, lines = tmp_path / "ours.onnx", tmp_path / "o.jsonl"
    result = CliRunner().invoke(app, ["adapt", str(path), "--card", str(card), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert str(output) in result.output
    for model in (["-m", str(output)], ["-m", str(path), "--card", str(card)]):
        options = ["--jsonl", str(lines), "--overwrite", "-q"]
        result = CliRunner().invoke(app, ["annotate", "synthetic:?size=64x48&frames=2", *model, *options])
        assert result.exit_code == 0, result.output
        assert len(lines.read_text().splitlines()) == 2


def test_what_was_made_once_is_kept(tmp_path: Path, own_cache: Path) -> None:
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    first = adapted(path, card)
    assert first is not None and first.parent == own_cache / "compiled" / "foreign"
    inode = first.stat().st_ino
    assert adapted(path, card) == first and first.stat().st_ino == inode
    other_card = adapted(path, write_card(tmp_path / "other.yaml", name="other"))
    graphs.yolox(Net(64, 48), (16,)).write(path)
    other_model = adapted(path, card)
    assert len({first, other_card, other_model}) == 3
    assert sorted(own_cache.rglob("*.onnx")) == sorted(p for p in (first, other_card, other_model) if p)
    assert [p for p in (own_cache / "compiled" / "foreign").iterdir() if p.suffix != ".onnx"] == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    with load_model(path, card=card) as model:
        check_scene(model)


def test_a_card_without_an_adapter_changes_nothing(tmp_path: Path) -> None:
    data = {key: value for key, value in CARD.items() if key != "adapter"}
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(data))
    assert adapted(tmp_path / "any.onnx", card) is None
    with pytest.raises(ModelError, match="no adapter section"):
        adapt(color_detector().write(tmp_path / "theirs.onnx"), card, tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_weights_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    path, card = folder / "theirs.onnx", write_card(tmp_path / "card.yaml")
    onnx.save(color_detector().build(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (folder / "w.bin").stat().st_size > 20_000
    adapt(path, card, tmp_path / "ours.onnx")
    with load_model(tmp_path / "ours.onnx") as model:
        check_scene(model)
    (folder / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"another file.*w\.bin"):
        adapted(path, card)


def test_names_that_clash_with_ours_and_bodies_that_reach_outside(tmp_path: Path) -> None:
    # input `frames`, outputs `boxes` and `scores`, and an If whose branches take tensors of the graph around them
    net = Net(64, 48, input_name="frames")
    rows = net("Sigmoid", net.rows(7, 16))
    extent = net.constant(np.array([64, 48, 64, 48], np.float32))
    yes = helper.make_graph(
        [helper.make_node("Mul", ["adapter_constant", extent], ["yes"])],
        "yes", [], [helper.make_tensor_value_info("yes", TensorProto.FLOAT, None)],
    )  # fmt: skip
    no = helper.make_graph(
        [helper.make_node("Identity", ["scores"], ["no"])],
        "no", [], [helper.make_tensor_value_info("no", TensorProto.FLOAT, None)],
    )  # fmt: skip
    net("Slice", rows, *(np.array([n], np.int64) for n in (0, 4, 2)), result="adapter_constant")
    net("Slice", rows, *(np.array([n], np.int64) for n in (4, 7, 2)), result="scores")
    net("If", np.array(True), result="boxes", then_branch=yes, else_branch=no)
    for name, columns in (("boxes", 4), ("scores", 3)):
        net.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 12, columns]))
    path = net.write(tmp_path / "theirs.onnx")
    import onnxruntime

    frame = noise(48, 64, 3)
    image = {"scale": 1 / 255, "mean": 0, "std": 1, "layout": "NCHW", "channels": "RGB"}
    boxes, scores = onnxruntime.InferenceSession(str(path)).run(None, {"frames": graphs.prepare(frame, **image)})
    adapter = {"input": CARD["adapter"]["input"], "detection": {"format": "boxes_scores", "corners": "cxcywh"}}
    card = write_card(tmp_path / "card.yaml", adapter=adapter)
    with load_model(path, card=card, engine="onnxruntime") as model:
        results = model.engine.infer(frame[None])
    np.testing.assert_allclose(results["scores"], scores, atol=1e-4)
    expected = [graphs.around(*box) for box in boxes[0].tolist()]
    np.testing.assert_allclose(results["boxes"][0], expected, atol=1e-2)


def test_what_the_outputs_do_not_need_is_left_out(tmp_path: Path) -> None:
    net = color_detector()
    net.output(net.conv(64, 8), "auxiliary", ["batch", 64, 6, 8])
    described = read_foreign_card(
        write_card(tmp_path / "c.yaml", adapter=CARD["adapter"] | {"detection": {"format": "yolox", "strides": [16],
                                                                                "output": "output"}})
    )  # fmt: skip
    assert described is not None
    model = net.build()
    before = model.ByteSize()
    finished = adapt_model(model, described, "theirs.onnx")
    assert [o.name for o in finished.graph.output] == ["boxes", "scores"]
    assert before - finished.ByteSize() > 64 * 3 * 8 * 8 * 4 - 5000


def test_two_tasks_of_one_graph(tmp_path: Path) -> None:
    net = color_detector()
    net.output(net.conv(2, 4), "mask_logits", ["batch", 2, 12, 16])
    card = write_card(
        tmp_path / "card.yaml",
        segmentation={"classes": ["no", "yes"], "ignored": [0]},
        adapter={
            "input": CARD["adapter"]["input"],
            "detection": {"format": "yolox", "strides": [16], "output": "output"},
            "segmentation": {"values": "logits", "output": "mask_logits"},
        },
    )
    with load_model(net.write(tmp_path / "theirs.onnx"), card=card) as model:
        check_scene(model)
        class_map = model.predict(scene()).class_map
        assert class_map is not None and class_map.mask.shape == (96, 128)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapter": "yolox"}, ["adapter"]),
        ({"adapter": {"detection": {"format": "yolox"}}}, ["adapter.input", "required"]),
        ({"adapter": {"input": CARD["adapter"]["input"]}}, ["adapter.detection is needed too"]),
        ({"adapter": CARD["adapter"] | {"detection": {"format": "yolo"}}}, ["yolov8", "boxes_scores", "detr"]),
        ({"adapter": CARD["adapter"] | {"detection": {"format": "yolov8", "stride": 8}}}, ["stride"]),
        ({"adapter": CARD["adapter"] | {"segmentation": {"values": "logits"}}}, ["segmentation is needed too"]),
        ({"detection": {"classes": []}}, ["detection.classes"]),
        (
            {"adapter": CARD["adapter"] | {"detection": {"format": "boxes_scores", "labels": "l", "background": 0}}},
            ["score matrix"],
        ),
        ({"adapter": CARD["adapter"] | {"detection": {"format": "boxes_scores", "first_label": 1}}}, ["labels"]),
        (
            {"adapter": CARD["adapter"] | {"detection": {"format": "boxes_scores", "indices": [1]}}},
            ["3 classes", "1 ind"],
        ),
    ],
)
def test_cards_that_are_not_valid(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    card = write_card(tmp_path / "card.yaml", **change)
    with pytest.raises(ModelError) as error:
        adapted(color_detector().write(tmp_path / "theirs.onnx"), card)
    assert "card.yaml" in str(error.value) and len(str(error.value).splitlines()) == 1
    for word in words:
        assert word in str(error.value)


def test_files_that_are_not_there_or_not_what_they_seem(tmp_path: Path) -> None:
    path, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(path.read_bytes()[:1000])
    old = tmp_path / "old.onnx"
    net = Net(64, 48, opset=10)
    net.output(net("Relu", net.image), "output", ["batch", 3, 48, 64]).write(old)
    for model, yaml_file, words in [
        (tmp_path / "none.onnx", card, "none.onnx"),
        (path, tmp_path / "none.yaml", "none.yaml"),
        (torn, card, "torn.onnx"),
        (old, card, "operator set is 10"),
    ]:
        with pytest.raises(ModelError, match=words):
            adapt(model, yaml_file, tmp_path / "o.onnx")
    read_only = tmp_path / "locked"
    read_only.write_text("a file, not a folder")
    with pytest.raises(PerceptionError, match="locked"):
        adapt(path, card, read_only / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()


def test_a_model_whose_results_do_not_fit_leaves_no_file(tmp_path: Path) -> None:
    net = Net(64, 48)  # as many boxes as a stride of 8 has cells, and scores for a stride of 16
    net.output(net.rows(4, 8), "boxes", ["batch", None, 4]).output(net.rows(3, 16), "scores", ["batch", None, 3])
    path = net.write(tmp_path / "theirs.onnx")
    card = write_card(tmp_path / "card.yaml", adapter=CARD["adapter"] | {"detection": {"format": "boxes_scores"}})
    with pytest.raises(ModelError, match=r"theirs\.onnx.*one row per anchor"):
        adapt(path, card, tmp_path / "o.onnx")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["card.yaml", "theirs.onnx"]


@pytest.mark.parametrize("path", list(shipped_cards().values()), ids=lambda p: p.stem)
def test_shipped_cards_are_valid(path: Path) -> None:
    card = read_foreign_card(path)
    assert card is not None
    assert card.native().tasks


def test_a_shipped_card_runs(tmp_path: Path) -> None:
    net = Net(640, 640)
    rows = net("Sigmoid", net.rows(84, 32))
    net.output(net("Transpose", rows, perm=[0, 2, 1]), "output0", ["batch", 84, 400])
    path = net.write(tmp_path / "yolov8n.onnx")
    with load_model(path, card="yolov8") as model:
        assert model.predict(scene()).detections is not None
        assert model.card.detection is not None and model.card.detection.names[2] == "car"


def test_a_shipped_card_takes_the_size_of_the_graph(tmp_path: Path) -> None:
    """YOLOX-nano is exported at 416x416, and the card of its kind says 640x640."""
    net = Net(96, 64)
    rows = net("Sigmoid", net.rows(84, 32))
    net.output(net("Transpose", rows, perm=[0, 2, 1]), "output0", ["batch", 84, 6])
    path = net.write(tmp_path / "yolov8n.onnx")
    with load_model(path, card="yolov8") as model:
        assert (model.card.input.width, model.card.input.height) == model.size == (96, 64)
        assert model.predict(scene()).detections is not None
    made = adapt(path, "yolov8", tmp_path / "mine.onnx")
    assert (made.input.width, made.input.height) == (96, 64)
    own = tmp_path / "own.yaml"
    own.write_text(shipped_cards()["yolov8"].read_text())
    with pytest.raises(ModelError, match=r"takes 96x64 .* and the card's input says 640x640"):
        adapt(path, own, tmp_path / "other.onnx")  # one that is written for this model is believed
