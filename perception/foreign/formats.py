"""The formats of foreign outputs that an adapter knows, for people who choose one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One format.

    Attributes:
        task: the section of the adapter.
        name: value of its ``format``, ``values`` or ``activation``.
        about: what the graph gives, and which models do.
        card: the card that ships for it, or empty.
    """

    task: str
    name: str
    about: str
    card: str = ""


FORMATS = (
    OutputFormat("detection", "yolox", "YOLOX as it is exported: offsets in cells of the grids", "yolox"),
    OutputFormat("detection", "yolov5", "[N, A, 5 + C]: YOLOv5, v7, YOLOX exported with decoding"),
    OutputFormat("detection", "yolov8", "[N, 4 + C, A]: YOLOv8, v9, v11, v12", "yolov8"),
    OutputFormat("detection", "yolov10", "[N, K, 6] of box, score, class id: YOLOv10, graphs with suppression inside"),
    OutputFormat("detection", "boxes_scores", "boxes and scores, perhaps labels, as outputs of their own: SSD", "ssd"),
    OutputFormat("detection", "detr", "queries: RT-DETR, Deformable DETR, DETR", "rt-detr"),
    OutputFormat("detection", "rows", "one output with a row for each box, its columns in any order"),
    OutputFormat("segmentation", "logits", "[N, C, h, w] logits or probabilities", "segmenter"),
    OutputFormat("segmentation", "class_ids", "[N, h, w] class ids: graphs that end in an argmax"),
    OutputFormat("segmentation", "binary", "[N, 1, h, w]: foreground or not"),
    OutputFormat("classification", "none", "[N, C] probabilities"),
    OutputFormat("classification", "softmax", "[N, C] logits of one class of several"),
    OutputFormat("classification", "sigmoid", "[N, C] logits, each class for itself"),
)

KEYS = {"detection": "format", "segmentation": "values", "classification": "activation"}
"""The key of each section that takes the name."""
