"""Streaming video perception: detection and segmentation of live and recorded video.

    import perception

    with perception.open_source("street.mp4") as source:
        model = perception.load_model("street-open")
        for prediction in perception.predict(source, model):
            print(prediction.frame.time, prediction.class_map.shares)

Importing the package is cheap; engines, codecs and kernels load with the first call that needs them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from perception.common.version import __version__
from perception.errors import EngineError, ModelError, PerceptionError, SinkError, SourceError, UsageError

# ONNX Runtime reports to its makers what it runs, from 1.29 on, unless this is done before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_LAZY = {
    "Annotator": "drawing.annotator",
    "ClassMap": "types",
    "DetectionOptions": "postprocess.post_processing",
    "Detections": "types",
    "Frame": "types",
    "Model": "model",
    "ModelCard": "card",
    "Prediction": "types",
    "Report": "pipeline",
    "Sink": "sinks",
    "SourceInfo": "types",
    "Stage": "types",
    "load_model": "model",
    "open_sink": "sinks",
    "open_source": "sources",
    "predict": "pipeline",
    "run": "pipeline",
    "show": "notebook",
    "to_bgr": "picture.conversions",
}

__all__ = [
    "Annotator",
    "ClassMap",
    "DetectionOptions",
    "Detections",
    "EngineError",
    "Frame",
    "Model",
    "ModelCard",
    "ModelError",
    "PerceptionError",
    "Prediction",
    "Report",
    "Sink",
    "SinkError",
    "SourceError",
    "SourceInfo",
    "Stage",
    "UsageError",
    "__version__",
    "load_model",
    "open_sink",
    "open_source",
    "predict",
    "run",
    "show",
    "to_bgr",
]

if TYPE_CHECKING:
    from perception.card import ModelCard
    from perception.drawing.annotator import Annotator
    from perception.model import Model, load_model
    from perception.notebook import show
    from perception.picture.conversions import to_bgr
    from perception.pipeline import Report, predict, run
    from perception.postprocess.post_processing import DetectionOptions
    from perception.sinks import Sink, open_sink
    from perception.sources import open_source
    from perception.types import ClassMap, Detections, Frame, Prediction, SourceInfo, Stage


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import perception`` stays fast (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'perception' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"perception.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
