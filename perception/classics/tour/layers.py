"""Diagrams of layers: cost, receptive field, upsampling."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from perception.classics.tour.stop import Stop
from perception.drawing.text import label_patch
from perception.errors import ModelError
from perception.networks.classifier import build_classifier
from perception.networks.fcn import DoublingConv
from perception.networks.summary import Layer, summarise, summarise_named
from perception.training.run.run_log import RunLog
from perception.types import U8

COSTS = ("lenet5", "mini_alexnet_v4", "torchvision:vgg16", "resnet34", "xception", "efficientnet_lite0")
FIELDS = ("lenet5", "torchvision:vgg16", "resnet34", "efficientnet_lite0")
DPI = 100


def costs(stop: Stop) -> U8:
    """Parameters and multiplications of networks, of dense layers and of convolutions apart."""
    figure = Figure(figsize=(9, 3), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, 2, sharey=True)
    for number, name in enumerate(reversed(COSTS)):
        layers = _layers(name)
        for axis, key in ((axes[0], "parameters"), (axes[1], "multiplications")):
            dense = sum(getattr(layer, key) for layer in layers if layer.kind == "Linear")
            rest = sum(getattr(layer, key) for layer in layers) - dense
            whole = dense + rest
            axis.barh(number, rest / whole, color="#4878a8")
            axis.barh(number, dense / whole, left=rest / whole, color="#e08a3c")
            axis.text(1.02, number, _short(whole), va="center", fontsize=9)
    names = [name.removeprefix("torchvision:") for name in reversed(COSTS)]
    axes[0].set_yticks(range(len(COSTS)), names)
    for axis, title in zip(axes, ("parameters", "multiplications"), strict=True):
        axis.set(title=title, xlim=(0, 1.25), xticks=[])
        axis.spines[:].set_visible(False)
    axes[0].barh(0, 0, color="#4878a8", label="convolutions")
    axes[0].barh(0, 0, color="#e08a3c", label="dense layers")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _drawn(figure)


def fields(stop: Stop) -> U8:
    """Draw how the receptive field grows with every layer that has a kernel."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained", dpi=DPI)
    axes = figure.subplots()
    for name in FIELDS:
        sides = [1] + [layer.field[0] for layer in _layers(name) if layer.field and "x" in layer.kind]
        sides = list(np.maximum.accumulate(sides))
        axes.plot(sides, marker=".", markersize=3, label=name.removeprefix("torchvision:"))
    axes.set(xlabel="layers with a kernel", ylabel="pixels, one side", yscale="log", title="receptive field")
    axes.set_yticks([1, 10, 28, 100, 224, 800], ["1", "10", "28", "100", "224", "800"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _drawn(figure)


def seen(stop: Stop) -> U8:
    """Draw the scene, and on it what one number of each stride of the street network's backbone has seen."""
    network = build_classifier("efficientnet_lite0")
    image = cv2.resize(stop.frame, (480, 360), interpolation=cv2.INTER_AREA).astype(np.uint8)
    summary = summarise(network, (3, 360, 480))
    last: dict[int, int] = {}
    for layer in summary.layers:
        if layer.field is not None and layer.step is not None:
            last[layer.step[0]] = layer.field[0]
    colors = iter([(255, 255, 255), (90, 220, 255), (120, 255, 120), (255, 160, 60), (80, 80, 255)])
    x, y, top = 240, 210, 4
    for stride, side in last.items():
        if stride == 1:
            continue
        color, half = next(colors), side / 2
        corners = (round(x - half), round(y - half)), (round(x + half), round(y + half))
        cv2.rectangle(image, *corners, color, 2)
        patch = label_patch(f"stride {stride}: {side} pixels", color, 18, 480).bgr
        image[top : top + patch.shape[0], 4 : 4 + patch.shape[1]] = patch
        top += patch.shape[0] + 2
    return image


def upsampling(stop: Stop) -> U8:
    """Draw the doubling layers of an FCN before training, and what one number of its last map does to pixels."""
    figure = Figure(figsize=(8, 2.8), layout="constrained", dpi=DPI)
    kernel, profile = figure.subplots(1, 2, width_ratios=(1, 2.4))
    double = DoublingConv(1).eval()
    weights = double.weight.detach()[0, 0].numpy()
    kernel.imshow(weights, cmap="Blues", vmin=0, vmax=0.7)
    for (row, column), value in np.ndenumerate(weights):
        color = "white" if value > 0.5 else "black"
        kernel.text(column, row, f"{16 * value:.0f}/16", ha="center", va="center", fontsize=9, color=color)
    kernel.set(title="4x4, stride 2", xticks=[], yticks=[])
    one = torch.zeros(1, 1, 5, 5)
    one[0, 0, 2, 2] = 1
    for times in (8, 16, 32):
        tent = F.interpolate(one, scale_factor=times, mode="bilinear", align_corners=False)[0, 0]
        places = np.arange(len(tent)) - len(tent) / 2 + 0.5
        profile.plot(places, tent.amax(0).numpy(), label=f"FCN-{times}s")
    profile.set(title="one number of the last map, among pixels", xlabel="pixels", xlim=(-40, 40))
    profile.legend(frameon=False)
    profile.grid(alpha=0.3)
    return _drawn(figure)


def learning(stop: Stop) -> U8:
    """Accuracy on held-out pictures over the epochs of every trained recipe.

    Raises:
        ModelError: none is trained yet.
    """
    groups = {"-mnist": "MNIST", "-cifar10": "CIFAR-10", "gtsrb-": "GTSRB, 28 pictures a class", "fcn-": "CamVid"}
    found: dict[str, list[tuple[str, list[tuple[int, float]]]]] = {title: [] for title in groups.values()}
    for log in sorted(stop.runs.glob("*/log.jsonl")):
        title = next((title for part, title in groups.items() if part in log.parent.name), None)
        points = [
            (int(r["epoch"]), float(r[key])) for r in RunLog(log).rows() for key in ("accuracy", "miou") if key in r
        ]
        if title is not None and len(points) > 1:
            name = log.parent.name
            for part in ("-mnist", "-cifar10", "-camvid", "gtsrb-"):
                name = name.replace(part, "")
            found[title].append((name, points))
    shown = {title: lines for title, lines in found.items() if lines}
    if not shown:
        raise ModelError("nothing is trained yet; perception classics train configs/classics/*", stop.runs)
    figure = Figure(figsize=(3.2 * len(shown), 3), layout="constrained", dpi=DPI)
    for axis, (title, lines) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for name, points in lines:
            axis.plot(*zip(*points, strict=True), label=name, marker=".", markersize=3)
        axis.set(title=title, xlabel="epoch", ylabel="mean IoU" if title == "CamVid" else "accuracy")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return _drawn(figure)


def _short(count: int) -> str:
    """Return a count with three digits and a letter."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= unit:
            return f"{count / unit:.3g} {letter}"
    return str(count)


def _layers(name: str) -> list[Layer]:
    with torch.device("meta"):  # sizes are wanted, not numbers: no memory, no time
        return summarise_named(name).layers


def _drawn(figure: Figure) -> U8:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., 2::-1])
