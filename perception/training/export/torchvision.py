"""torchvision's own detectors and segmenters, by name, as models with cards.

    perception export torchvision:fcos_resnet50_fpn --weights COCO_V1 -o fcos.onnx

Class names, preprocessing and published accuracy come from the metadata of torchvision's weights; for an untrained
network (``--weights none``) from those of its default weights, which are not downloaded.
"""

from __future__ import annotations

import difflib
from datetime import date
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision import models

from perception.card import ModelCard, validate_card
from perception.engines import open_engine
from perception.errors import ModelError, UsageError
from perception.networks.camera import CameraGraph
from perception.networks.torchvision_models import TorchvisionDetector, TorchvisionSegmenter, first_convolution
from perception.training.export.onnx_file import write_onnx

PREFIX = "torchvision:"

DETECTORS = {
    "fcos_resnet50_fpn": (1344, 800),
    "retinanet_resnet50_fpn": (1344, 800),
    "retinanet_resnet50_fpn_v2": (1344, 800),
    "ssd300_vgg16": (300, 300),
    "ssdlite320_mobilenet_v3_large": (320, 320),
}
"""Names, and the (width, height) at which torchvision evaluates them."""

SEGMENTERS = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet101",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
)

PYRAMID_STEP = 32  # torchvision pads images for a pyramid to multiples of this
TOLERANCE = 1e-3  # of the largest value of an output
TWINS = 0.99  # part of the boxes that must be the same: of equal scores any may be the last that is kept

NO_CLASSES = ("__background__", "N/A")
"""Fillers among the classes of torchvision's detectors, which make them as long as COCO's list."""


def export_any(
    model: str,
    output: str | Path,
    *,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    data: str | Path | None = None,
) -> ModelCard:
    """Export a checkpoint of ``perception train`` or, by ``torchvision:NAME``, one of torchvision's models.

    Args:
        model: a checkpoint's path, or ``torchvision:NAME``.
        output: the ``.onnx`` to write.
        weights, size: of torchvision's models, see `export_torchvision`.
        data: data set (the recipe's ``data.root``) on which a checkpoint is measured, for its card; None: not measured.

    Raises:
        UsageError: an option that belongs to the other kind of model.
        PerceptionError: see `export_torchvision`, `perception.training.export.export` and
            `perception.training.export.release.release`.
    """
    if model.startswith(PREFIX):
        if data is not None:
            raise UsageError(f"`data=FOLDER` measures checkpoints only, not {model}; use `perception eval` afterwards")
        return export_torchvision(model, output, weights=weights or "DEFAULT", size=size)
    if weights is not None or size is not None:
        raise UsageError(f"weights and size belong to {PREFIX}NAME; a checkpoint has its own", model)
    if data is not None:
        from perception.training.export.release import release

        return release(model, output, data)
    from perception.training.export.export import export

    return export(model, output)


def export_torchvision(
    name: str, output: str | Path, *, weights: str = "DEFAULT", size: tuple[int, int] | None = None
) -> ModelCard:
    """Export one of torchvision's models, and check the file against torch with the runtime's engine.

    Args:
        name: one of `DETECTORS` or `SEGMENTERS`; ``torchvision:`` may stand in front of it.
        output: the ``.onnx`` to write; appears whole or not at all.
        weights: name of the weights, such as ``COCO_V1``; ``DEFAULT``; or ``none`` for random ones, always the same.
        size: (width, height) of the network's input in pixels; torchvision's own where None.

    Returns:
        The card that the file carries.

    Raises:
        UsageError: an unknown name or weights, or a size that the network does not take.
        ModelError: the weights cannot be downloaded, or the file does not compute what torch computes.
    """
    name = name.removeprefix(PREFIX)
    if name not in DETECTORS and name not in SEGMENTERS:
        near = difflib.get_close_matches(name, [*DETECTORS, *SEGMENTERS], n=3) or [*DETECTORS, *SEGMENTERS]
        raise UsageError(f"torchvision has no model {name!r} that can be exported; there are: {', '.join(near)}")
    size = _size(name, size)
    model, metadata = _load(name, weights)
    card, graph = make_graph(model, name, metadata, size, weights.lower() == "none")
    write_graph(graph, card, Path(output))
    return card


def make_graph(
    model: nn.Module, name: str, metadata: Any, size: tuple[int, int], untrained: bool
) -> tuple[ModelCard, CameraGraph]:
    """Build the card of a torchvision model and the network that is exported.

    Args:
        model: torchvision's, as `torchvision.models` builds it. It is changed and must not be used afterwards.
        name: its name there.
        metadata: a member of its weights enumeration.
        size: (width, height) of the network's input in pixels.
        untrained: whether the model does not have these weights.
    """
    categories = list(metadata.meta["categories"])
    input_spec: dict[str, Any] = {"width": size[0], "height": size[1]}
    data: dict[str, Any] = {
        "name": name,
        "version": "untrained" if untrained else metadata.name,
        "description": f"torchvision's {name}",
        "input": input_spec,
        "licence": "BSD-3-Clause (torchvision)",
        "trained_on": [] if untrained else ["COCO train2017"],
        "metrics": {} if untrained else _published(metadata),
        "date": date.today().isoformat(),
    }
    network: TorchvisionDetector | TorchvisionSegmenter
    if name in DETECTORS:
        classes = [i for i, category in enumerate(categories) if category not in NO_CLASSES]
        network = TorchvisionDetector(model, size, classes)
        transform: Any = model.transform
        mean, std = transform.image_mean, transform.image_std
        input_spec["resize"] = "stretch" if name.startswith("ssd") else "letterbox"
        data["detection"] = {
            "classes": [categories[i] for i in classes],
            "iou_threshold": model.nms_thresh,
            "max_detections": model.detections_per_img,
        }
    else:
        network = TorchvisionSegmenter(model)
        preprocessing = metadata.transforms()
        mean, std = preprocessing.mean, preprocessing.std
        input_spec |= {"resize": "letterbox", "multiple": 8}
        names = ["background" if category == "__background__" else category for category in categories]
        data["segmentation"] = {"classes": names, "ignored": [0] if names[0] == "background" else []}
    mean, std = ([255 * v for v in values] for values in (mean, std))
    graph = CameraGraph(network, first_convolution(network), network.outputs, mean, std).eval()
    return validate_card(data, f"{PREFIX}{name}"), graph


def write_graph(graph: CameraGraph, card: ModelCard, output: Path) -> None:
    """Write a network with its card to ``output``, and check it there; see `export_torchvision`."""
    write_onnx(graph, card, output, lambda draft: check_export(graph, card, draft))


def check_export(graph: CameraGraph, card: ModelCard, path: Path) -> None:
    """Compare the file at ``path``, in the engine that the runtime takes on CPUs, with torch on random frames.

    Raises:
        ModelError: An output differs by more than ``TOLERANCE`` of its largest value.
    """
    rng = np.random.default_rng(1)
    sizes = [(card.input.width, card.input.height)]
    if card.input.multiple is not None:
        sizes.append((136, 72))
    for width, height in sizes:
        # large squares: a network that is only given noise sees nothing
        frames = rng.integers(0, 256, (2, height // 8 + 1, width // 8 + 1, 3), np.uint8)
        frames = frames.repeat(8, 1).repeat(8, 2)[:, :height, :width].copy()
        with open_engine(path, card, engine="openvino", precision="fp32", size=(width, height)) as engine:
            results = engine.infer(frames)
        with torch.inference_mode():
            expected = dict(zip(graph.outputs, (r.numpy() for r in graph(torch.from_numpy(frames))), strict=True))
        fault = _difference(results, expected)
        if fault:
            raise ModelError(f"the export differs from torch on {width}x{height} frames: {fault}", path)


def _difference(results: dict[str, NDArray[np.float32]], expected: dict[str, NDArray[np.float32]]) -> str:
    """Describe what differs, if anything. The order of boxes may differ where scores are equal but for rounding."""
    for name, truth in expected.items():
        if results[name].shape != truth.shape:
            return f"{name} is {results[name].shape} and not {truth.shape}"
        if not np.isfinite(truth).all():
            return f"torch itself gives {name} that are not finite"
    if "boxes" not in expected:
        errors = {n: np.abs(results[n] - t).max() / max(1, np.abs(t).max()) for n, t in expected.items()}
        return ", ".join(f"{name} by {error:.2g}" for name, error in errors.items() if not error <= TOLERANCE)
    for mine, theirs in zip(_rows(results), _rows(expected), strict=True):
        limit = TOLERANCE * np.maximum(1, np.abs(theirs).max(0))
        moved = [row for i, row in enumerate(mine) if not _among(theirs[max(0, i - 5) : i + 6], row, limit)]
        strangers = [row for row in moved if not _among(theirs, row, limit)]
        if len(strangers) > (1 - TWINS) * len(mine):
            return f"{len(strangers)} of {len(mine)} boxes are others"
    return ""


def _among(rows: NDArray[np.float32], row: NDArray[np.float32], limit: NDArray[np.float32]) -> bool:
    return bool((np.abs(rows - row) <= limit).all(1).any())


def _rows(outputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return boxes with their scores, ``[N, K, 4 + C]``."""
    return np.concatenate([outputs["boxes"], outputs["scores"]], 2)


def _size(name: str, size: tuple[int, int] | None) -> tuple[int, int]:
    if name in SEGMENTERS:
        chosen = size or (520, 520)
        if min(chosen) < 8 or chosen[0] % 8 or chosen[1] % 8:
            raise UsageError(f"{name} takes multiples of 8, not {chosen[0]}x{chosen[1]}")
        return chosen
    own = DETECTORS[name]
    if size is None or size == own:
        return own
    if name.startswith("ssd"):
        raise UsageError(f"{name} takes {own[0]}x{own[1]} only, not {size[0]}x{size[1]}")
    if min(size) < PYRAMID_STEP or size[0] % PYRAMID_STEP or size[1] % PYRAMID_STEP:
        raise UsageError(f"{name} takes multiples of {PYRAMID_STEP}, not {size[0]}x{size[1]}")
    return size


def _load(name: str, weights: str) -> tuple[nn.Module, Any]:
    """Load the model, and the weights whose metadata describe it."""
    known = models.get_model_weights(name)
    if weights.lower() == "none":
        metadata: Any = known.DEFAULT
        return build_untrained(name), metadata
    names = list(known.__members__)
    if weights not in names:
        raise UsageError(f"{name} has no weights {weights!r}; there are: {', '.join([*names, 'none'])}")
    metadata = known[weights]
    try:
        return models.get_model(name, weights=metadata).eval(), metadata
    except (URLError, TimeoutError, ConnectionError, RuntimeError) as error:
        file = metadata.url.rpartition("/")[2]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ModelError(
            f"cannot download the weights ({error}); put {file} into {folder}, or export it untrained with "
            "`weights=none`",
            f"{PREFIX}{name}",
        ) from None


def build_untrained(name: str) -> nn.Module:
    """torchvision's model of that name with random weights, always the same, through which signals pass.

    The statistics of its batch norms are those of one batch of noise: with none at all, an untrained MobileNet's
    features are 1e-14, and its outputs are constants that tell nothing about an export.
    """
    classes = len(models.get_model_weights(name).DEFAULT.meta["categories"])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model: Any = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        images = torch.randn(2, 3, 160, 160)
        if not norms:  # SSD300's VGG
            return cast(nn.Module, model)
        if name in DETECTORS:
            model.head(list(model.backbone(images).values()))
        else:
            model(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return cast(nn.Module, model.eval())


def _published(metadata: Any) -> dict[str, float]:
    """Accuracy as torchvision publishes it, in 0..1; not measured here."""
    return {
        f"published_{dataset.lower().replace('-', '_')}_{metric}": round(value / 100, 4)
        for dataset, values in metadata.meta["_metrics"].items()
        for metric, value in values.items()
    }
