"""Saliency maps: how much each pixel mattered for one number that a model gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from captum.attr import Deconvolution, GuidedBackprop, NoiseTunnel, Occlusion, Saliency
from torch import Tensor, nn

from perception.card import read_card
from perception.errors import UsageError
from perception.explain.graph import GraphNetwork
from perception.explain.target import Target, choose_target
from perception.picture.letterbox import Letterbox
from perception.picture.resize import to_input
from perception.types import F32, U8, Frame
from perception.weights.library import DEFAULT_MODEL, find_with_card

Method = Literal["gradient", "guided", "deconvnet", "smoothgrad", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

GREY = 127.0
NOISE = 0.1 * 255  # of SmoothGrad, as a standard deviation: the paper has 10 to 20% of the range
PERCENTILE = 99.5  # is shown brightest: a few single pixels must not darken the rest
OPACITY = 0.65


@dataclass(frozen=True)
class Explanation:
    """A saliency map.

    Attributes:
        saliency: float32 ``[H, W]`` in 0..1, at the size of the frame.
        what: what it explains, in words.
        method: how.
        image: uint8 ``[H, W, 3]`` BGR, the frame.
        box: xyxy in frame pixels of the detection that is explained, or None.
    """

    saliency: F32
    what: str
    method: Method
    image: U8
    box: tuple[float, float, float, float] | None = None

    def picture(self) -> U8:
        """Draw the heat map over the frame, uint8 ``[H, W, 3]`` BGR."""
        colors = cv2.applyColorMap((self.saliency * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
        grey = cv2.cvtColor(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        opacity = OPACITY * np.sqrt(self.saliency)[..., None]
        made: U8 = (grey * (1 - opacity) + colors * opacity).astype(np.uint8)
        if self.box is not None:
            x0, y0, x1, y1 = (round(v) for v in self.box)
            cv2.rectangle(made, (x0, y0), (x1, y1), (255, 255, 255), 1)
        return made


def explain(
    model: str | Path = DEFAULT_MODEL,
    image: Frame | U8 | None = None,
    *,
    method: Method = "smoothgrad",
    class_name: str | None = None,
    at: tuple[float, float] | None = None,
    task: str | None = None,
    samples: int = 16,
    patches: int = 16,
    card: str | Path | None = None,
) -> Explanation:
    """Compute which pixels of an image mattered for a class, a detection's score or the class of pixels.

    Args:
        model: name or ``.onnx`` file.
        image: a frame, or uint8 ``[H, W, 3]`` BGR.
        method: ``gradient`` (Simonyan et al. 2014), ``guided`` backpropagation (Springenberg et al. 2015),
            ``deconvnet`` (Zeiler and Fergus 2013), ``smoothgrad`` (Smilkov et al. 2017: the mean gradient of noisy
            copies) or ``occlusion`` (Zeiler and Fergus 2013: how much the score falls where a grey patch covers).
        class_name, at, task: what to explain, see `perception.explain.target.choose_target`.
        samples: noisy copies of ``smoothgrad``.
        patches: of ``occlusion``, along the longer side; neighbours overlap by half.
        card: YAML card of a model without one; with an ``adapter`` section the model is rewritten first.

    Raises:
        ModelError: no such model, or one whose graph gradients cannot pass.
        UsageError: an unknown method, or a class, task, point or object that is not there.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}; choose one of: {', '.join(METHODS)}")
    path, card = find_with_card(model, card)
    known = read_card(path, card)
    if image is None:
        raise UsageError("an image is needed to explain what a model sees in it")
    frame = image if isinstance(image, Frame) else Frame(image)
    fitted, letterbox = to_input(frame.picture, known.input.width, known.input.height, known.input.resize)
    network = GraphNetwork(path, known).eval()
    frames = torch.from_numpy(fitted.astype(np.float32))[None]
    with torch.no_grad():
        target = choose_target(known, network(frames), letterbox, class_name, at, task)
    raw = _map(_Scored(network, target), frames, method, samples, patches)
    heat = _on_frame(raw, letterbox)
    box = None
    if target.box is not None:
        placed = letterbox.to_frame(np.array([target.box], np.float32))[0]
        box = (float(placed[0]), float(placed[1]), float(placed[2]), float(placed[3]))
    return Explanation(heat, target.what, method, frame.image, box)


class _Scored(nn.Module):
    """The network and what is made of its outputs, as one module with one number for each image."""

    def __init__(self, network: GraphNetwork, target: Target) -> None:
        super().__init__()
        self.network = network
        self.target = target

    def forward(self, frames: Tensor) -> Tensor:
        return self.target.score(self.network(frames))


def _map(scored: _Scored, frames: Tensor, method: Method, samples: int, patches: int) -> F32:
    """Compute how much each pixel of the input mattered, float32 ``[h, w]``, at least 0."""
    if method == "occlusion":
        return _occlusion(scored, frames, patches)
    frames = frames.clone().requires_grad_()
    torch.manual_seed(0)  # the noise of smoothgrad: the same call gives the same map
    made: dict[str, Callable[[], Tensor]] = {
        "gradient": lambda: Saliency(scored).attribute(frames),
        "guided": lambda: GuidedBackprop(scored).attribute(frames),
        "deconvnet": lambda: Deconvolution(scored).attribute(frames),
        "smoothgrad": lambda: NoiseTunnel(Saliency(scored)).attribute(
            frames, nt_type="smoothgrad", nt_samples=samples, nt_samples_batch_size=1, stdevs=NOISE
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells every time that it hooks into the ReLUs
        heat: F32 = made[method]().detach()[0].abs().amax(2).numpy()
    return heat


def _occlusion(scored: _Scored, frames: Tensor, patches: int) -> F32:
    height, width = frames.shape[1:3]
    side = max(-(-2 * max(height, width) // (patches + 1)), 2)
    side = min(side, height, width)
    step = max(side // 2, 1)
    options: dict[str, Any] = {"sliding_window_shapes": (side, side, 3), "strides": (step, step, 3)}
    with torch.no_grad():
        fall = Occlusion(scored).attribute(frames, baselines=GREY, **options)
    heat: F32 = fall[0].mean(2).clamp(min=0).float().numpy()
    return heat


def _on_frame(heat: F32, letterbox: Letterbox) -> F32:
    """At the size of the frame, brightest where it mattered most."""
    inside = heat[letterbox.top : letterbox.top + letterbox.height, letterbox.left : letterbox.left + letterbox.width]
    size = (letterbox.frame_width, letterbox.frame_height)
    scaled = cv2.resize(inside, size, interpolation=cv2.INTER_LINEAR)
    top = float(np.percentile(scaled, PERCENTILE)) or float(scaled.max())
    return np.clip(scaled / max(top, 1e-12), 0, 1).astype(np.float32)
