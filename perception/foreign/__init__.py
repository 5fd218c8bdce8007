"""Foreign models: an ONNX file and a card in YAML become a model like any other.

    perception adapt yolov8n.onnx --card yolov8 -o yolov8n-perception.onnx
    model = perception.load_model("yolov8n.onnx", card="yolov8")

The graph is rewritten, not wrapped: preprocessing goes in front of it and decoding behind it, so that it takes uint8
BGR frames and gives ``boxes`` and ``scores``, or ``class_logits``, and every engine runs it as it runs our own. The
card is an ordinary one with a section ``adapter`` more, which says what the foreign graph takes and gives; see
`perception.foreign.adapter` for its fields and ``cards/`` for examples.
"""

from __future__ import annotations

from perception.foreign.adapt import adapt, adapt_model, adapted

__all__ = ["adapt", "adapt_model", "adapted"]
