"""Two heads through the training loop, from recipe to a file that the runtime loads, on drawn pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures import Main, skip_without

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
skip_without("faster_coco_eval", "faster-coco-eval is not installed (extra eval)")

import yaml  # noqa: E402

from perception.card import read_card  # noqa: E402
from perception.engines.openvino import native_precisions  # noqa: E402
from perception.errors import ModelError, PerceptionError  # noqa: E402
from perception.evaluation.sets import CocoConfig  # noqa: E402
from perception.model import load_model  # noqa: E402
from perception.training.data.augment import Augmenter  # noqa: E402
from perception.training.data.batches import BatchMaker  # noqa: E402
from perception.training.data.boxes import BoxLabels  # noqa: E402
from perception.training.data.coco import CocoFolder  # noqa: E402
from perception.training.data.training_data import TrainingData  # noqa: E402
from perception.training.export.export import export  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.run.import_model import import_model  # noqa: E402
from perception.training.run.loop import Trainer, TrainResult, train  # noqa: E402
from perception.training.tasks.average_precision import average_precision  # noqa: E402
from perception.training.tasks.evaluation import network_infer  # noqa: E402
from perception.training.tasks.kinds import build_network, task_type  # noqa: E402
from perception.training.tasks.start import start_from  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, load_weights  # noqa: E402
from perception.training.weights.compact import compact  # noqa: E402
from perception.types import Detections  # noqa: E402
from tests.training.pictures import write_boxes, write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"


def no_pictures() -> list[torch.Tensor]:
    """A checkpoint has statistics of its own."""
    return []


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(write_folder(tmp_path_factory.mktemp("pictures")))


def recipe(folder: Path, tensorboard: bool = False, **detection: object) -> Path:
    """The smoke recipe with its output in ``folder``."""
    content = yaml.safe_load(SMOKE.read_text())
    content["tensorboard"] = tensorboard
    content["output"] = str(folder / "run")
    content["detection"].update(detection)
    path = folder / "street-smoke.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(recipe(tmp_path_factory.mktemp("unbroken")), data_root=data)


def test_both_losses_fall_and_both_accuracies_are_logged(unbroken: TrainResult) -> None:
    log = [json.loads(line) for line in (unbroken.last.parent / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2, 3, 4, 5, 6]
    for name in ("loss_masks", "loss_boxes"):
        assert log[-1][name] < 0.95 * log[0][name]
    for row in log:
        assert row["loss"] == pytest.approx(row["loss_masks"] + row["loss_boxes"], abs=1e-4)
    measured = [row for row in log if "miou" in row]
    assert len(measured) == 3
    assert all(0 <= row["map"] <= row["map50"] <= 1 and set(row["ap50"]) == {"crate", "ball"} for row in measured)
    assert unbroken.score == pytest.approx(max((row["miou"] + row["map50"]) / 2 for row in measured), abs=1e-3)


@pytest.mark.slow  # tests/training/test_loop.py has a quick one
def test_a_stopped_run_goes_on_bit_for_bit(data: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    assert train(path, data_root=data, stop_after=2).epochs == 2
    torch.manual_seed(99)
    second = train(path, data_root=data)
    a, b = load_checkpoint(unbroken.last), load_checkpoint(second.last)
    for part in ("network", "average"):
        assert any(name.startswith("detector.") for name in a[part])
        for name, tensor in a[part].items():
            assert torch.equal(tensor, b[part][name]), f"{part}.{name}"


def test_a_compact_checkpoint_is_small_and_can_be_gone_on_from(data: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    first = train(path, data_root=data, stop_after=1)
    whole = first.last.stat().st_size
    compact(first.last, first.last)
    assert first.last.stat().st_size < whole / 5
    trainer = Trainer(read_config(path, data))
    trainer.load(first.last)
    assert (trainer.epoch, trainer.step, trainer.cold_step) == (1, 6, 6)
    assert trainer.run(resume=False, stop_after=2).epochs == 2
    assert trainer.best > 0
    assert load_checkpoint(first.last)["cold_step"] == 6


def test_a_model_as_a_checkpoint_computes_what_its_file_does(data: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    """So that whoever has the shipped file alone can prune the network, or have it teach another."""
    model, checkpoint = tmp_path / "street-smoke.onnx", tmp_path / "street-smoke.pt"
    release(unbroken.best, model, data)
    import_model(model, recipe(tmp_path), checkpoint, data)
    state = load_checkpoint(checkpoint)
    assert state["epoch"] == 0
    network = build_network(parse_config(state["config"], checkpoint))
    load_weights(network, state["average"], checkpoint)
    frames = np.random.default_rng(5).integers(0, 256, (1, 72, 96, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = network_infer(network.eval())(frames)
    for name, expected in zip(names, session.run(names, {"frames": frames}), strict=True):
        error = np.abs(found[name].numpy() - expected).max()
        assert error <= 0.01 * np.abs(expected).max(), name  # weights are kept in half

    checkpoint.unlink()
    with pytest.raises(ModelError, match=r"not of the network in .*, which also has detector\.reduce\.0\.0\.weight"):
        import_model(model, recipe(tmp_path, width=24), checkpoint, data)
    assert not checkpoint.exists()


def test_a_cpu_without_bfloat16_trains_in_float32(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = []
    monkeypatch.setattr("perception.training.run.loop.has_bfloat16", lambda device: False)
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        path = recipe(tmp_path / precision)
        path.write_text(path.read_text().replace("precision: fp32", f"precision: {precision}"))
        assert read_config(path).precision == precision
        with caplog.at_level("INFO", logger="perception"):
            caplog.clear()
            runs.append(load_checkpoint(train(path, data_root=data, stop_after=1).last))
        assert ("training in fp32" in caplog.text) == (precision == "bf16")
    exact, fallen = runs
    for name, tensor in exact["network"].items():
        assert torch.equal(tensor, fallen["network"][name]), name


def test_tensorboard_gets_numbers_and_pictures(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = train(recipe(tmp_path, tensorboard=True), data_root=data, stop_after=2)
    events = accumulator.EventAccumulator(str(result.last.parent / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "loss_masks", "loss_boxes", "miou", "iou/ball", "map50", "ap50/crate"} <= set(tags["scalars"])
    rows = [json.loads(line) for line in (result.last.parent / "log.jsonl").read_text().splitlines()]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (row["epoch"], pytest.approx(row["loss"], rel=1e-5)) for row in rows
    ]
    assert {tag.split("/")[0] for tag in tags["images"]} == {"masks", "boxes"}
    assert len(tags["images"]) == 8
    image = events.Images(tags["images"][0])[0]
    assert (image.width, image.height) == (96, 72)


def test_the_command_tells_of_every_epoch_where_there_is_no_terminal(
    data: Path, tmp_path: Path, main_here: Main
) -> None:
    content = yaml.safe_load(recipe(tmp_path).read_text()) | {"epochs": 2, "evaluate_every": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content))
    done = main_here("train", str(tmp_path / "two.yaml"), "--data", str(data))
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "epoch=" in line]
    assert [line.split("epoch=")[1].split()[0] for line in told] == ["1", "2"]
    assert "map50=" in told[1]  # one line each, however long
    assert done.stdout.splitlines()[-1].endswith("best.onnx")


def test_the_runtime_loads_what_was_released(data: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    output = tmp_path / "street-smoke.onnx"
    card = release(unbroken.best, output, data)
    assert read_card(output) == card
    assert card.tasks == ["segmentation", "detection"]
    assert card.detection is not None and card.detection.names == ["crate", "ball"]
    row = json.loads((unbroken.last.parent / "log.jsonl").read_text().splitlines()[-1])
    if unbroken.best.read_bytes() == unbroken.last.read_bytes():
        config = read_config(SMOKE, data)
        exact = tmp_path / "exact.onnx"
        export(unbroken.best, exact)
        measured = task_type(config).measure(config, exact, "fp32")
        assert measured["map50"] == pytest.approx(row["map50"], abs=1e-4)
        assert measured["miou"] == pytest.approx(row["miou"], abs=1e-4)
        # weights in half give the boxes of a network that has hardly begun another order
        assert card.metrics["street-smoke_val_map50"] == pytest.approx(row["map50"], abs=0.06)
    assert {"street-smoke_val_map", "street-smoke_val_map50", "street-smoke_val_ap50_ball"} <= set(card.metrics)
    assert ("street-smoke_val_map_bf16" in card.metrics) == ("bf16" in native_precisions())

    model = load_model(output, engine="openvino", precision="fp32", score_threshold=0.001)
    frame = np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8)
    prediction = model.predict(frame)
    network = build_network(read_config(SMOKE)).eval()
    network.load_state_dict(load_checkpoint(unbroken.best)["average"])
    rgb = torch.from_numpy(np.ascontiguousarray(frame[None, ..., ::-1].transpose(0, 3, 1, 2))).float()
    with torch.inference_mode():
        expected = network((rgb - 127) / 128)
    assert prediction.detections is not None and len(prediction.detections) > 0
    assert prediction.detections.scores[0] == pytest.approx(float(expected["scores"].max()), abs=1e-3)
    place, class_id = divmod(int(expected["scores"][0].argmax()), 2)
    assert prediction.detections.class_ids[0] == class_id
    box = expected["boxes"][0, place].numpy().clip(0, [96, 72, 96, 72])
    np.testing.assert_allclose(prediction.detections.boxes[0], box, atol=0.05)


def test_a_network_starts_from_what_fits(
    unbroken: TrainResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = read_config(SMOKE)
    other = config.model_copy(update={"detection": config.detection.model_copy(update={"width": 24})})
    network = build_network(other)
    with caplog.at_level("INFO", logger="perception"):
        start_from(network, unbroken.best, no_pictures)
    weights = load_checkpoint(unbroken.best)["average"]
    assert torch.equal(network.backbone.stem[0].weight, weights["backbone.stem.0.weight"])
    assert torch.equal(network.head.classify.weight, weights["head.classify.weight"])
    assert "new: detector" in caplog.text
    torch.save({"format": 1, "average": {"x": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(PerceptionError, match=r"other\.pt: no tensor of this checkpoint fits"):
        start_from(network, tmp_path / "other.pt", no_pictures)


def test_a_loss_that_is_no_number_names_pictures_of_both_kinds(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(read_config(recipe(tmp_path), data))
    with torch.no_grad():
        trainer.network.detector.classify.bias.fill_(float("nan"))
    with pytest.raises(PerceptionError, match="the loss became nan"):
        trainer.run()
    assert len((tmp_path / "run" / "bad_batch.txt").read_text().split()) == 8


@pytest.mark.slow
def test_a_pruned_network_begins_with_the_recipe_of_the_wider(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wide").mkdir()
    (tmp_path / "pruned").mkdir()
    wide, narrow = recipe(tmp_path / "wide"), recipe(tmp_path / "pruned", width=12)
    content = yaml.safe_load(wide.read_text())
    wide.write_text(yaml.safe_dump(content | {"epochs": 2}))
    content = yaml.safe_load(narrow.read_text())
    content["network"] |= {"hidden": [64, *[120] * 14], "start": str(wide)}
    narrow.write_text(yaml.safe_dump(content | {"epochs": 2}))

    with caplog.at_level("INFO", logger="perception"):
        result = train(narrow, data_root=data, stop_after=1)
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("pruned from")]
    first = load_checkpoint(tmp_path / "wide" / "run" / "last.pt")
    assert first["epoch"] == 2
    made = load_checkpoint(result.last)
    block = "backbone.stages.6.0.layers.1.0.weight"
    assert (first["average"][block].shape[0], made["average"][block].shape[0]) == (1152, 120)
    assert made["average"]["detector.measure.weight"].shape[1] == 12

    saved = (tmp_path / "wide" / "run" / "last.pt").stat().st_mtime_ns
    train(narrow, resume=False, data_root=data, stop_after=1)
    assert (tmp_path / "wide" / "run" / "last.pt").stat().st_mtime_ns == saved, (
        "starting over is for the pruned one alone"
    )

    wide.unlink()
    assert train(narrow, data_root=data).epochs == 2, "a run that has begun needs no start"
    assert release(result.last, tmp_path / "pruned.onnx", data).tasks == ["segmentation", "detection"]


def test_frozen_layers_stay_as_they_start(data: Path, tmp_path: Path) -> None:
    config = read_config(recipe(tmp_path), data)
    config = config.model_copy(update={"network": config.network.model_copy(update={"frozen_stride": 4})})
    trainer = Trainer(config)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.run(stop_after=1)
    changed = {name for name, tensor in trainer.network.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = ("backbone.stem.", "backbone.stages.0.", "backbone.stages.1.")
    assert not [name for name in changed if name.startswith(frozen)]
    assert {"backbone.stages.2.0.layers.0.0.weight", "backbone.stages.2.0.layers.0.1.running_mean"} <= changed
    trainer.load(tmp_path / "run" / "last.pt")  # the optimiser's state fits


def test_every_set_is_checked_before_anything_starts(data: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    write_boxes(write_folder(broken))
    (broken / "train" / "labels" / "003.png").unlink()
    (broken / "boxes" / "images" / "004.png").write_bytes(b"no picture")
    (broken / "boxes-val" / "images" / "001.png").unlink()
    with pytest.raises(PerceptionError) as caught:
        Trainer(read_config(recipe(tmp_path), broken))
    for part in ("003.png: missing label", "004.png: corrupt image", "001.png: missing image"):
        assert part in str(caught.value)


def test_a_class_without_a_box_is_named(data: Path, tmp_path: Path) -> None:
    classes = [*yaml.safe_load(SMOKE.read_text())["detection"]["classes"], {"name": "unicorn", "color": [1, 2, 3]}]
    with pytest.raises(PerceptionError, match="no training box has the class unicorn"):
        Trainer(read_config(recipe(tmp_path, classes=classes), data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [8, 64]}, r"strides \[64\] are not among network.widths"),
        ({"from_masks": {"components": {"sky": {"name": "ball", "aspect": [1, 2]}}}}, "no segmentation class sky"),
        ({"from_masks": {"components": {"ball": {"name": "egg", "aspect": [1, 2]}}}}, "unknown detection classes egg"),
        ({"augment": {"scale": [2, 1]}}, "scale must be a range"),
        ({"bach": 3}, "detection.bach: Extra inputs"),
    ],
)
def test_faults_of_the_detection_recipe_are_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(PerceptionError, match=message):
        read_config(recipe(tmp_path, **changes))


def test_classes_of_the_file_become_those_of_the_recipe(data: Path) -> None:
    config = CocoConfig(images=Path("boxes/images"), annotations=Path("boxes/annotations.json"), names={"ball": "ball"})
    with pytest.raises(PerceptionError, match=r"category 5: unknown class 'box', not in ball"):
        CocoFolder(data, config, ["crate", "ball"])
    dropped = CocoFolder(data, config.model_copy(update={"others": "drop"}), ["crate", "ball"])
    assert dropped.class_boxes().tolist() == [0, 24]
    assert dropped.known.tolist() == [False, True]
    ignored = CocoFolder(data, config.model_copy(update={"others": "ignore"}), ["crate", "ball"])
    assert sorted(ignored[0].boxes.class_ids.tolist()) == [-1, 1]
    wrong = config.model_copy(update={"names": {"egg": "ball"}, "others": "drop"})
    with pytest.raises(PerceptionError, match="has no class egg, which the recipe names"):
        CocoFolder(data, wrong, ["crate", "ball"])


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate((low, low + rng.uniform(8, 60, (count, 2))), 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(seed)
    truth, found, annotations, results = [], [], [], []
    for image in range(1, 9):
        boxes, ids = random_boxes(rng, 6), rng.integers(-1, 2, 6)  # class 2 never occurs
        truth.append(BoxLabels(boxes, ids, np.zeros((6, 3), bool), np.ones(3, bool)))
        guesses = np.concatenate((boxes + rng.normal(0, 3, boxes.shape), random_boxes(rng, 4))).astype(np.float32)
        guess_ids = np.concatenate((np.where(rng.random(6) < 0.8, ids.clip(0), 2), rng.integers(0, 3, 4)))
        scores = np.sort(rng.random(10).astype(np.float32))[::-1].copy()
        found.append(Detections(guesses, scores, guess_ids.astype(np.int32)))
        for box, i in zip(boxes.astype(float), ids.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            for category in [i + 1] if i >= 0 else [1, 2, 3]:
                entry = {"image_id": image, "category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3]}
                annotations.append({"id": len(annotations) + 1, "iscrowd": int(i < 0), **entry})
        for box, score, i in zip(guesses.astype(float), scores.tolist(), guess_ids.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image, "category_id": i + 1, "bbox": xywh, "score": score})
    reference = coco.COCO()
    reference.dataset = {
        "images": [{"id": i, "width": 120, "height": 120} for i in range(1, 9)],
        "categories": [{"id": c, "name": str(c)} for c in (1, 2, 3)],
        "annotations": annotations,
    }
    reference.createIndex()
    evaluator = cocoeval.COCOeval(reference, reference.loadRes(results), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    measured = average_precision(found, truth, 3)
    assert measured.map == pytest.approx(evaluator.stats[0], abs=1e-6)
    assert measured.map50 == pytest.approx(evaluator.stats[1], abs=1e-6)
    assert 0.05 < measured.map < measured.map50 < 1
    assert np.isnan(measured.ap[2]) and measured.ap50[:2].mean() == pytest.approx(measured.map50)


def test_average_precision_without_detections_or_truth() -> None:
    known = np.ones(2, bool)
    one = BoxLabels(np.array([[0, 0, 9, 9]], np.float32), np.array([1]), np.zeros((1, 2), bool), known)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    missed = average_precision([nothing], [one], 2)
    assert (missed.map, missed.map50) == (0, 0)
    assert np.isnan(missed.ap[0]) and missed.ap[1] == 0
    assert average_precision([nothing], [BoxLabels.empty(known)], 2).map == 0


@pytest.mark.slow
def test_two_processes_train_one_network(data: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "perception", "train", str(path), "--data", str(data), "--stop-after", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SMOKE.parents[2], env=environment)
    assert result.returncode == 0, result.stderr
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    assert (state["epoch"], state["step"]) == (2, 6)  # half as many steps as one process takes
    rows = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(rows) == 2
    assert json.loads(rows[1])["map50"] >= 0


def test_processes_share_an_epoch(data: Path) -> None:
    config = read_config(SMOKE, data)
    pictures = TrainingData(config)
    augmenter = Augmenter(config.augment, config.data.ignore, config.data.size, config.detection.augment)
    names = []
    for rank in range(3):
        maker = BatchMaker(pictures.masks, augmenter, 2, 5, pictures.boxes, 2, rank, 3)
        batches = list(maker.epoch(0))
        assert len(batches) == len(maker) == 4
        names += [name.split("+")[0] for batch in batches for name in batch.names[2:]]
    assert sorted(names) == [f"{i:03d}" for i in range(24)]
