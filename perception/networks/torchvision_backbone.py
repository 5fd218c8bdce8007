"""torchvision's classification networks as feature backbones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Where a stride ends: (stride, name of the last module at it).
_RESNET = ((2, "relu"), (4, "layer1"), (8, "layer2"), (16, "layer3"), (32, "layer4"))
_MOBILENET_LARGE = ((2, "features.1"), (4, "features.3"), (8, "features.6"), (16, "features.12"), (32, "features.16"))
_MOBILENET_SMALL = ((2, "features.0"), (4, "features.1"), (8, "features.3"), (16, "features.8"), (32, "features.12"))

STAGES: dict[str, tuple[tuple[int, str], ...]] = {
    "mobilenet_v3_large": _MOBILENET_LARGE,
    "mobilenet_v3_small": _MOBILENET_SMALL,
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TorchvisionBackbone(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32 of MobileNetV3 (Howard et al. 2019) or ResNet (He et al. 2016).

    The input is float ``[N, 3, H, W]`` RGB, normalised as ``(value - 127) / 128`` like that of every backbone here;
    `load_imagenet` moves torchvision's own normalisation into the first layer.

    Args:
        name: one of `STAGES`.

    Attributes:
        channels: channels of the feature map at each stride.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision
        from torchvision.models.feature_extraction import create_feature_extractor

        if name not in STAGES:
            raise ValueError(f"no backbone {name!r}; there are {', '.join(STAGES)}")
        self.name = name
        build: Callable[..., nn.Module] = getattr(torchvision.models, name)
        nodes = {module: str(stride) for stride, module in STAGES[name]}
        self.body = create_feature_extractor(build(weights=None), nodes)
        self.channels = self._count_channels()

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return next(m for m in self.body.modules() if isinstance(m, nn.Conv2d))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Features by stride: ``{stride: [N, channels[stride], ceil(H / stride), ceil(W / stride)]}``."""
        return {int(stride): feature for stride, feature in self.body(images).items()}

    def load_imagenet(self) -> None:
        """Load torchvision's ImageNet weights (downloaded once by torchvision).

        Raises:
            OSError: They cannot be downloaded.
        """
        import torchvision

        weights: Any = torchvision.models.get_model_weights(self.name).DEFAULT
        self.take(weights.get_state_dict(progress=False, check_hash=True))

    @torch.no_grad()
    def take(self, state: dict[str, Tensor]) -> None:
        """Take the tensors of a whole torchvision network, classifier left out.

        Its input is ``(value / 255 - mean) / std``; ours is another scale and shift of the same pixels. The scale goes
        into the first convolution, the shift into the mean of the batch norm behind it: the same features, but for
        the picture's rim, where padding stands for another colour.
        """
        self.body.load_state_dict({k: v for k, v in state.items() if k in self.body.state_dict()})
        convolution = self.first_convolution
        norm = next(m for m in self.body.modules() if isinstance(m, nn.BatchNorm2d))
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        assert norm.running_mean is not None
        norm.running_mean -= convolution.weight.sum((2, 3)) @ ((127 / 255 - mean) / std)
        convolution.weight *= (128 / 255 / std).view(1, 3, 1, 1)

    def _count_channels(self) -> dict[int, int]:
        training = self.training
        with torch.inference_mode():
            features = self.eval().forward(torch.zeros(1, 3, 64, 64))
        self.train(training)
        return {stride: feature.shape[1] for stride, feature in features.items()}
