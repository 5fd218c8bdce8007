"""The model card: everything about a model that is not its weights, stored inside its ``.onnx`` file.

The card is JSON in the file's ``metadata_props`` under the key ``perception``. A foreign file gets its card from a YAML
file instead.
"""

from __future__ import annotations

from perception.card.draft import template
from perception.card.files import (
    METADATA_KEY,
    card_file,
    keep_in_card,
    load_onnx,
    read_card,
    shipped_cards,
    write_card,
)
from perception.card.model_card import InputSpec, ModelCard, Quantization, SetAccuracy, SuiteAccuracy, validate_card
from perception.card.tasks import (
    UNKNOWN,
    ClassificationTask,
    ClassInfo,
    DetectionTask,
    SegmentationTask,
    TrackingSettings,
)

__all__ = [
    "METADATA_KEY",
    "UNKNOWN",
    "ClassInfo",
    "ClassificationTask",
    "DetectionTask",
    "InputSpec",
    "ModelCard",
    "Quantization",
    "SegmentationTask",
    "SetAccuracy",
    "SuiteAccuracy",
    "TrackingSettings",
    "card_file",
    "keep_in_card",
    "load_onnx",
    "read_card",
    "shipped_cards",
    "template",
    "validate_card",
    "write_card",
]
