"""torchvision's models by name: our file and post-processing, against torchvision's own from image to boxes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torchvision import models  # noqa: E402

from perception import ModelError, UsageError, load_model  # noqa: E402
from perception.card import read_card  # noqa: E402
from perception.commands.main import app  # noqa: E402
from perception.networks.torchvision_models import TorchvisionDetector, TorchvisionSegmenter  # noqa: E402
from perception.training.export.torchvision import (  # noqa: E402
    DETECTORS,
    SEGMENTERS,
    build_untrained,
    check_export,
    export_torchvision,
    make_graph,
    write_graph,
)
from perception.training.recipes.read import read_config  # noqa: E402
from perception.training.tasks.kinds import build_network  # noqa: E402
from perception.training.weights.checkpoint import save_checkpoint  # noqa: E402

slow = pytest.mark.slow
SMALL = (256, 192)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.engines.cache.compiled_models_dir", lambda engine: tmp_path / "cache" / engine)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


def scene(width: int, height: int, seed: int) -> np.ndarray:
    """Coloured rectangles under noise (flat areas would have equal scores), uint8 BGR."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.uint8)
    for _ in range(12):
        x, y = rng.integers(0, (width - 20, height - 20))
        image[y : y + rng.integers(10, height // 2), x : x + rng.integers(10, width // 2)] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8)


def as_torchvision_takes_it(image: np.ndarray) -> Any:
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))).float() / 255


def detector(name: str, size: tuple[int, int], seed: int) -> Any:
    """An untrained detector whose heads say something: some scores are high, and boxes differ from their anchors."""
    torch.manual_seed(seed)
    model: Any = build_untrained(name)
    if not name.startswith("ssd"):
        model.transform.min_size, model.transform.max_size = (min(size),), max(size)  # no resize
    image = as_torchvision_takes_it(scene(*size, seed))
    spread(model, model.head.classification_head, image, mean=-2, deviation=3)
    spread(model, model.head.regression_head, image, mean=0, deviation=0.4)
    return model


def spread(model: Any, head: nn.Module, image: Any, mean: float, deviation: float) -> None:
    """Change the last convolutions of a head so that over an image each of their channels has mean and deviation."""
    convolutions = {n: m for n, m in head.named_modules() if isinstance(m, nn.Conv2d)}
    last = [m for n, m in convolutions.items() if n in ("cls_logits", "bbox_reg")]
    last = last or [m for m in convolutions.values() if m.groups == 1]  # SSD and SSDLite
    seen: dict[Any, list[Any]] = {conv: [] for conv in last}
    hooks = [conv.register_forward_hook(lambda m, _, output: seen[m].append(output.flatten(2))) for conv in last]
    with torch.inference_mode():
        model([image])
    for hook in hooks:
        hook.remove()
    for conv, outputs in seen.items():
        values = torch.cat(outputs, 2)[0]
        own_mean = values.mean(1)
        scale = deviation / values.std(1, correction=0).clamp(min=1e-9) if values.shape[1] > 1 else torch.zeros(1)
        with torch.no_grad():
            conv.weight *= scale.reshape(-1, 1, 1, 1)
            conv.bias.copy_((conv.bias - own_mean) * scale + mean)


def compare(name: str, size: tuple[int, int], tmp_path: Path, seeds: int) -> None:
    model = detector(name, size, seed=0)
    metadata = models.get_model_weights(name).DEFAULT
    categories = metadata.meta["categories"]
    reference = copy.deepcopy(model)
    reference.detections_per_img = 100_000
    card, graph = make_graph(model, name, metadata, size, untrained=True)
    path = tmp_path / f"{name}.onnx"
    write_graph(graph, card, path)
    assert card.detection is not None
    with load_model(path, engine="openvino", precision="fp32") as probe:
        frames = [scene(*size, seed=seed) for seed in range(seeds)]
        scores = np.sort(np.concatenate([probe.engine.infer(f[None])["scores"].ravel() for f in frames]))
    # a threshold that leaves about 300 candidates an image and is not close to any score
    window = scores[-300 * seeds - 50 : -300 * seeds]
    gap = int(np.diff(window).argmax())
    threshold = float(window[gap] / 2 + window[gap + 1] / 2)
    assert 0 < threshold < 1
    reference.score_thresh = threshold
    found = 0
    with load_model(
        path, engine="openvino", precision="fp32", score_threshold=threshold, max_detections=100_000
    ) as ours:
        for frame in frames:
            mine = ours.predict(frame).detections
            assert mine is not None
            with torch.inference_mode():
                (theirs,) = reference([as_torchvision_takes_it(frame)])
            # ours drops what has no area, such as boxes outside the image, clipped to its edge
            sides = (theirs["boxes"][:, 2:] - theirs["boxes"][:, :2]).amin(1)
            labels = theirs["labels"].tolist()
            known = [i for i, c in enumerate(labels) if categories[c] in card.detection.names and sides[i] > 0]
            rows = {
                (categories[int(theirs["labels"][i])], *theirs["boxes"][i].tolist(), float(theirs["scores"][i]))
                for i in known
            }
            own = [
                (card.detection.names[c], *box, float(s))
                for c, box, s in zip(mine.class_ids, mine.boxes.tolist(), mine.scores, strict=True)
            ]
            missing = [row for row in rows if not any(same(row, other) for other in own)]
            strange = [row for row in own if not any(same(row, other) for other in rows)]
            # a rounding can decide whether an overlap is above the limit: one box in a hundred at most
            assert len(missing) + len(strange) <= 0.01 * (len(rows) + len(own)), (missing, strange)
            found += len(own)
    assert found > 20 * seeds
    assert len({row[0] for row in rows}) > 1


def same(row: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return row[0] == other[0] and np.allclose(row[1:5], other[1:5], atol=0.05) and abs(row[5] - other[5]) < 1e-3


def test_a_detector_finds_what_torchvision_finds(tmp_path: Path) -> None:
    compare("ssdlite320_mobilenet_v3_large", (320, 320), tmp_path, seeds=3)


@slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("fcos_resnet50_fpn", SMALL),
        ("retinanet_resnet50_fpn", SMALL),
        ("retinanet_resnet50_fpn_v2", SMALL),
        ("ssd300_vgg16", (300, 300)),
    ],
)
def test_large_detectors_find_what_torchvision_finds(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    compare(name, size, tmp_path, seeds=3)


def test_of_a_pyramid_the_best_anchors_are_given_and_none_is_lost() -> None:
    model = detector("fcos_resnet50_fpn", (128, 96), seed=1)
    classes = list(range(1, 91))
    model.topk_candidates = 60
    some = TorchvisionDetector(model, (128, 96), classes).eval()
    model.topk_candidates = 1000
    all_of_them = TorchvisionDetector(model, (128, 96), classes).eval()
    assert some.levels == [192, 48, 12, 4, 1]
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        few, many = some(images), all_of_them(images)
    assert few["boxes"].shape == (2, 60 + 48 + 12 + 4 + 1, 4) and many["boxes"].shape == (2, 257, 4)
    for image in range(2):
        best = many["scores"][image, :192].amax(1).sort(descending=True).values[:60]
        torch.testing.assert_close(few["scores"][image, :60].amax(1).sort(descending=True).values, best)
        # the best 60 pairs of box and class of the level are among those that are given
        flat = many["scores"][image, :192].flatten().topk(60)
        pairs = {(*many["boxes"][image, i // 90].tolist(), i % 90) for i in flat.indices.tolist()}
        given = {(*box, c) for box in few["boxes"][image, :60].tolist() for c in range(90)}
        assert pairs <= given


def compare_masks(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.onnx"
    card = export_torchvision(name, path, weights="none", size=(128, 96))
    assert read_card(path) == card
    theirs: Any = build_untrained(name)
    preprocess = models.get_model_weights(name).DEFAULT.transforms()
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    with load_model(path, engine="openvino", precision="fp32") as ours:
        for seed in range(3):
            frame = scene(128, 96, seed)
            with torch.inference_mode():
                (expected,) = theirs(((as_torchvision_takes_it(frame) - mean) / std)[None])["out"]
            class_map = ours.predict(frame).class_map
            stride = 16 if name == "deeplabv3_mobilenet_v3_large" else 8
            assert class_map is not None and class_map.logits.shape == (21, 96 // stride, 128 // stride)
            large = nn.functional.interpolate(torch.from_numpy(class_map.logits)[None], (96, 128), mode="bilinear")[0]
            scale = float(expected.abs().max())
            torch.testing.assert_close(large, expected, atol=2e-3 * scale, rtol=0)
            assert float(expected.std(0).mean()) > 1e-3 * scale
            assert (class_map.mask == expected.argmax(0).numpy()).mean() > 0.98


def test_a_segmenter_gives_what_torchvision_gives(tmp_path: Path) -> None:
    compare_masks("lraspp_mobilenet_v3_large", tmp_path)


@slow
@pytest.mark.parametrize("name", [n for n in SEGMENTERS if not n.startswith("lraspp") and "101" not in n])
def test_large_segmenters_give_what_torchvision_gives(name: str, tmp_path: Path) -> None:
    compare_masks(name, tmp_path)


def test_names_and_preprocessing_come_from_the_metadata(offline: None, tmp_path: Path) -> None:
    card = export_torchvision("ssdlite320_mobilenet_v3_large", tmp_path / "s.onnx", weights="none")
    assert card.detection is not None
    assert len(card.detection.names) == 80
    assert card.detection.names[:3] == ["person", "bicycle", "car"] and card.detection.names[-1] == "toothbrush"
    assert (card.input.width, card.input.height, card.input.multiple) == (320, 320, None)
    assert card.version == "untrained" and not card.metrics and not card.trained_on
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["s.onnx"]


def test_random_weights_are_always_the_same() -> None:
    torch.manual_seed(9)
    one = build_untrained("lraspp_mobilenet_v3_large").state_dict()
    after = torch.rand(1)
    torch.manual_seed(8)
    other = build_untrained("lraspp_mobilenet_v3_large").state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    torch.manual_seed(9)
    assert torch.equal(torch.rand(1), after)  # and nobody else's random numbers change


def test_trained_weights_bring_their_published_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    name = "lraspp_mobilenet_v3_large"
    trained: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=21).eval()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: trained.state_dict())
    card = export_torchvision(name, tmp_path / "l.onnx", weights="COCO_WITH_VOC_LABELS_V1", size=(64, 48))
    assert card.metrics == {
        "published_coco_val2017_voc_labels_miou": 0.579, "published_coco_val2017_voc_labels_pixel_acc": 0.912
    }  # fmt: skip
    assert card.segmentation is not None
    assert card.segmentation.names[0] == "background" and card.segmentation.ignored == [0]
    assert (card.version, card.input.multiple) == ("COCO_WITH_VOC_LABELS_V1", 8)
    features = TorchvisionSegmenter(trained)
    frame = scene(64, 48, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (as_torchvision_takes_it(frame) - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    with torch.inference_mode():
        expected = features(image[None])["class_logits"].numpy()
    with load_model(tmp_path / "l.onnx", precision="fp32") as model:
        result = model.engine.infer(frame[None])["class_logits"]
    np.testing.assert_allclose(result, expected, atol=2e-3 * np.abs(expected).max())


def test_every_name_is_torchvisions_and_has_metadata() -> None:
    for name in (*DETECTORS, *SEGMENTERS):
        metadata = models.get_model_weights(name).DEFAULT.meta
        assert len(metadata["categories"]) in (21, 91) and metadata["_metrics"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("fcos_resnet50", {}, ["fcos_resnet50_fpn"]),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, ["exported", "retinanet"]),
        ("fcos_resnet50_fpn", {"weights": "COCO_V2"}, ["COCO_V1", "none"]),
        ("deeplabv3_resnet50", {"weights": "COCO_V1"}, ["COCO_WITH_VOC_LABELS_V1"]),
        ("fcos_resnet50_fpn", {"weights": "none", "size": (800, 600)}, ["multiples of 32", "800x600"]),
        ("ssdlite320_mobilenet_v3_large", {"weights": "none", "size": (640, 640)}, ["320x320 only"]),
        ("fcn_resnet50", {"weights": "none", "size": (100, 96)}, ["multiples of 8"]),
    ],
)
def test_what_torchvision_does_not_have(name: str, options: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        export_torchvision(name, tmp_path / "x.onnx", **options)
    for word in words:
        assert word in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_had(offline: None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ssdlite.*\.pth into .*weights=none"):
        export_torchvision("ssdlite320_mobilenet_v3_large", tmp_path / "x.onnx", weights="COCO_V1")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A segmenter's file, and how the command that wrote it ended."""
    output = tmp_path_factory.mktemp("exported") / "l.onnx"
    arguments = ["torchvision:lraspp_mobilenet_v3_large", "--weights", "none", "--size", "64x48", "-o", str(output)]
    return output, CliRunner().invoke(app, ["export", *arguments])


def test_an_export_that_is_not_the_network_is_refused(exported: tuple[Path, Any]) -> None:
    name = "lraspp_mobilenet_v3_large"
    path, _ = exported
    card = read_card(path)
    torch.manual_seed(1)
    other = models.get_model(name, weights=None, weights_backbone=None, num_classes=21).eval()
    _, graph = make_graph(other, name, models.get_model_weights(name).DEFAULT, (64, 48), untrained=True)
    with pytest.raises(ModelError, match="differs from torch"):
        check_export(graph, card, path)


def test_the_command_line(exported: tuple[Path, Any], tmp_path: Path) -> None:
    output, result = exported
    lines = tmp_path / "o.jsonl"
    assert result.exit_code == 0, (result.output, result.exception)
    assert str(output) in result.output
    command = ["annotate", "synthetic:?size=64x48&frames=2", "-m", str(output), "--jsonl", str(lines), "-q"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(lines.read_text().splitlines()) == 2


def test_checkpoints_by_the_same_command(tmp_path: Path) -> None:
    config = read_config("configs/train/smoke.yaml")
    network = build_network(config)
    checkpoint, output = tmp_path / "best.pt", tmp_path / "c.onnx"
    state = {"config": json.loads(config.model_dump_json()), "average": network.state_dict()}
    save_checkpoint(checkpoint, state)
    result = CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(output)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert read_card(output).name == config.name
    before = output.read_bytes()
    with pytest.raises(UsageError, match="overwrite=True"):
        CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(output)], catch_exceptions=False)
    assert output.read_bytes() == before
    output.write_bytes(b"an older model")
    again = CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(output), "--overwrite"])
    assert again.exit_code == 0 and read_card(output).name == config.name
    output.unlink()
    for wrong in (["--weights", "none"], ["--size", "64x48"]):
        with pytest.raises(UsageError, match="torchvision:NAME"):
            CliRunner().invoke(app, ["export", str(checkpoint), "-o", str(output), *wrong], catch_exceptions=False)
    with pytest.raises(UsageError, match="data=FOLDER"):
        command = ["export", "torchvision:fcn_resnet50", "-o", str(output), "--data", str(tmp_path)]
        CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["torchvision:lraspp_mobilenet_v3_large", "--size", "big"], "WxH"),
        (["no/such.pt"], "such.pt"),
        (["no/such.pt", "--weights", "none"], "torchvision:"),
    ],
)
def test_command_lines_that_are_wrong(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", *arguments, "-o", str(tmp_path / "x.onnx")])
    assert result.exit_code != 0
    assert words in str(result.exception) + result.output
    assert list(tmp_path.iterdir()) == []
