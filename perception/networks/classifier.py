"""Classifiers by name, and the module around one that takes camera pictures and gives probabilities."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perception.common.distribution import require
from perception.errors import ModelError, UsageError
from perception.networks.lite import EfficientNetLite
from perception.networks.torchvision_backbone import IMAGENET_MEAN, IMAGENET_STD

LUMA = (0.299, 0.587, 0.114)  # of R, G, B: ITU-R BT.601


class EfficientNetLiteClassifier(EfficientNetLite):
    """EfficientNet-Lite0 with logits as output: the backbone that has ImageNet weights."""

    input_shape = (3, 224, 224)

    def __init__(self, classes: int = 1000) -> None:
        super().__init__(classes=1000)
        if classes != 1000:
            replace_head(self, classes)

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Normalised ``[N, 3, H, W]`` to logits ``[N, classes]``."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        assert self.classifier is not None
        logits: Tensor = self.classifier(x)
        return logits


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {"efficientnet_lite0": EfficientNetLiteClassifier}
"""Makers of classifiers by name; a package with networks of its own adds them here."""


def build_classifier(name: str, classes: int | None = None, weights: str | None = None) -> nn.Module:
    """Build the classifier called ``name``: normalised float images to logits ``[N, classes]``.

    Args:
        name: one of `CLASSIFIERS`, ``torchvision:NAME`` (vgg16, resnet50, inception_v3, ...) or ``timm:NAME``.
        classes: number of classes; the network's own where None.
        weights: ``imagenet`` starts from these: at hand for ``efficientnet_lite0``, downloaded by torchvision and timm
            for theirs. A head for another number of classes starts anew.

    Returns:
        An untrained network, or one with ImageNet weights, with ``input_shape``: the (C, H, W) it was made for.

    Raises:
        UsageError: there is none of that name, or timm is needed and missing.
        ModelError: the weights are not to be had.
    """
    maker, _, own = name.rpartition(":")
    if maker == "torchvision":
        return _torchvision(own, classes, weights)
    if maker == "timm":
        return _timm(own, classes, weights)
    if name not in CLASSIFIERS:
        near = difflib.get_close_matches(name, CLASSIFIERS, n=3) or list(CLASSIFIERS)
        raise UsageError(
            f"no classifier is called {name!r}; there are {', '.join(near)}, torchvision:NAME and timm:NAME"
        )
    if weights is None:
        make = CLASSIFIERS[name]
        return make() if classes is None else make(classes)
    if name != "efficientnet_lite0":
        raise ModelError(f"no ImageNet weights are available for {name}; use efficientnet_lite0")
    network = EfficientNetLiteClassifier()
    network.load_imagenet()
    if classes is not None and classes != 1000:
        replace_head(network, classes)
    return network


def head_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """Return the last dense layer of a classifier and its name.

    Raises:
        ModelError: it has none.
    """
    dense = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not dense:
        raise ModelError(f"{type(network).__name__} has no dense layer that could be its head")
    return dense[-1]


def replace_head(network: nn.Module, classes: int) -> nn.Linear:
    """Put a new last dense layer for ``classes`` classes into ``network``; everything before it stays as it is."""
    name, old = head_of(network)
    new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    network.set_submodule(name, new)
    return new


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """List the parts of ``network`` that have parameters, in order: its children, those of a sequence one by one."""
    children = [child for child in network.children() if any(True for _ in child.parameters())]
    if len(children) == 1 and not isinstance(children[0], nn.Linear):
        return blocks_of(children[0])  # what only prepares its input is no block
    parts: list[nn.Module] = []
    for child in children:
        parts += child.children() if isinstance(child, (nn.Sequential, nn.ModuleList)) else [child]
    return [part for part in parts if any(True for _ in part.parameters())]


class Classifier(nn.Module):
    """A classifier as the deployed graph and the training loop want it.

    Args:
        network: normalised float images ``[N, C, h, w]`` to logits; C is 3, or 1 where it takes grey.
        channels: C.
        size: (h, w); the middle of larger images is taken, for networks trained on crops. None takes all of them.
    """

    outputs = ("probabilities",)

    def __init__(self, network: nn.Module, channels: int = 3, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.grey: nn.Conv2d | None = None
        if channels == 1:
            # A convolution, for its channels are swapped where the graph takes BGR.
            self.grey = nn.Conv2d(3, 1, 1, bias=False).requires_grad_(False)
            with torch.no_grad():
                self.grey.weight.copy_(torch.tensor(LUMA).view(1, 3, 1, 1))
        self.network = network
        self.size = size

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return self.grey or first_convolution(self.network)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float ``[N, 3, H, W]`` RGB, ``(value - 127) / 128``, to ``logits`` and ``probabilities`` ``[N, classes]``."""
        if self.size is not None and images.shape[2:] != self.size:
            top, left = ((int(images.shape[2 + i]) - self.size[i]) // 2 for i in (0, 1))
            images = images[:, :, top : top + self.size[0], left : left + self.size[1]]
        logits = self.network(images if self.grey is None else self.grey(images))
        return {"logits": logits, "probabilities": logits.softmax(1)}


def first_convolution(network: nn.Module) -> nn.Conv2d:
    """Return the first convolution of ``network`` in the order of its modules."""
    return next(m for m in network.modules() if isinstance(m, nn.Conv2d))


def _torchvision(name: str, classes: int | None, weights: str | None) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, n=3)) or "vgg16, resnet50, inception_v3, ..."
        raise UsageError(f"torchvision has no classifier {name!r}; it has {near}")
    # The auxiliary heads of the Inceptions belong to their own way of training.
    options: dict[str, Any] = {"inception_v3": {"init_weights": False}, "googlenet": {"init_weights": False}}.get(
        name, {}
    )
    model: nn.Module
    if weights is None:
        auxiliary = {"aux_logits": False} if options else {}
        model = torchvision.models.get_model(name, weights=None, **options, **auxiliary)
    else:
        model = _fetched(lambda: torchvision.models.get_model(name, weights="DEFAULT"), f"torchvision:{name}")
        if options:
            model.aux_logits = False  # type: ignore[assignment]
    if classes is not None:
        replace_head(model, classes)
    if weights is not None:
        model = nn.Sequential(Renormalise(IMAGENET_MEAN, IMAGENET_STD), model)
    side = 299 if name == "inception_v3" else 224
    model.input_shape = (3, side, side)  # type: ignore[assignment]
    return model


def _timm(name: str, classes: int | None, weights: str | None) -> nn.Module:
    require("timm", "train", f"timm:{name}")
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:3]
        raise UsageError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
    pretrained = weights is not None
    model: nn.Module = _fetched(lambda: timm.create_model(name, pretrained=pretrained), f"timm:{name}")
    config: Any = model.pretrained_cfg
    if classes is not None:
        replace_head(model, classes)
    if pretrained:
        model = nn.Sequential(Renormalise(config["mean"], config["std"]), model)
    model.input_shape = tuple(config["input_size"])  # type: ignore[assignment]
    return model


def _fetched(make: Callable[[], nn.Module], name: str) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise ModelError(f"its weights cannot be obtained: {str(error).splitlines()[0]}", name) from None


class Renormalise(nn.Module):
    """From our normalisation, ``(value - 127) / 128``, to ``(value / 255 - mean) / std``.

    Args:
        mean, std: of R, G, B in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        spread = torch.tensor(std).view(1, 3, 1, 1)
        self.register_buffer("scale", 128 / 255 / spread)
        self.register_buffer("shift", (127 / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / spread)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift
