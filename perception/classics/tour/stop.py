"""The material of the tour: a scene, a model, trained networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from perception.errors import ModelError, SourceError
from perception.sources import open_source
from perception.sources.synthetic.source import SyntheticSource
from perception.training.recipes.read import parse_config
from perception.training.tasks.kinds import build_network
from perception.training.weights.checkpoint import load_checkpoint, load_weights
from perception.types import U8, Detections

DRAWN = "synthetic:?size=640x360&seed=3"


@dataclass(frozen=True)
class Stop:
    """A scene and the models that are shown with it.

    Attributes:
        frame: uint8 ``[H, W, 3]`` BGR, the scene that is looked at.
        truth: what is in it, where that is known: boxes with CamVid's class ids, and uint8 ``[H, W]`` of them.
        model: name or file of the model that looks at it.
        runs: folder of the trained recipes of configs/classics.
    """

    frame: U8
    truth: tuple[Detections, U8] | None
    model: str
    runs: Path

    def trained(self, recipe: str) -> nn.Module:
        """Load the network of a recipe, as trained, in evaluation mode.

        Raises:
            ModelError: it is not trained yet.
        """
        path = self.runs / recipe / "best.pt"
        if not path.is_file():
            raise ModelError(f"not trained yet; perception train configs/classics/{recipe}.yaml", path)
        state = load_checkpoint(path)
        network: nn.Module = build_network(parse_config(state["config"], path))
        load_weights(network, state["average"], path)
        return network.eval()

    def exported(self, recipe: str) -> Path:
        """Find the model file of a recipe.

        Raises:
            ModelError: there is none yet.
        """
        path = self.runs / recipe / "best.onnx"
        if not path.is_file():
            raise ModelError(f"not trained yet; perception train configs/classics/{recipe}.yaml", path)
        return path


def stop_at(uri: str, model: str, runs: Path, second: float = 0.0) -> Stop:
    """Take the frame of a source at ``second``; its truth too where it is drawn in code.

    Raises:
        SourceError: it cannot be read, or ends before.
    """
    with open_source(uri, start=second, max_frames=1) as source:
        frame = next(iter(source), None)
        if frame is None:
            raise SourceError(f"has no frame at second {second:g}", uri)
        truth = None
        if isinstance(source, SyntheticSource):
            truth = source.truth(frame.pts or 0)
        return Stop(np.array(frame.image), truth, model, runs)


def grey_input(image: U8) -> torch.Tensor:
    """Turn uint8 ``[H, W]`` into the input of a LeNet: float ``[1, 1, H, W]``, ``(value - 127) / 128``."""
    return (torch.from_numpy(image.astype(np.float32))[None, None] - 127) / 128
