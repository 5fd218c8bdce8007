"""The ``adapter`` section of a card: inputs and outputs of a foreign graph.

adapter:
  input: {layout: NCHW, channels: RGB, scale: 1/255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}
  detection: {format: yolov8}
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from perception.card import ModelCard, card_file, validate_card
from perception.common.settings import read_yaml
from perception.errors import ModelError


def _number(value: Any) -> Any:
    """``1/255`` as people write it; YAML takes that for text."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"must be a number or a fraction such as 1/255, not {value!r}") from None
    return value


def _three(value: Any) -> Any:
    """Repeat one number for all three channels."""
    return value if isinstance(value, (list, tuple)) else [value] * 3


Positive = Annotated[FiniteFloat, Field(gt=0), BeforeValidator(_number)]
Mean = Annotated[
    tuple[
        Annotated[FiniteFloat, BeforeValidator(_number)],
        Annotated[FiniteFloat, BeforeValidator(_number)],
        Annotated[FiniteFloat, BeforeValidator(_number)],
    ],
    BeforeValidator(_three),
]
Deviation = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_three)]
Layout = Literal["NCHW", "NHWC"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ForeignInput(_Strict):
    """The input of the graph: ``(pixel * scale - mean) / std``, with pixels in 0..255.

    Attributes:
        channels: their order in the graph's input.
        scale: what pixels are multiplied by first: ``1/255``, or 1 where the graph takes 0..255.
        mean, std: after scaling, for each channel in the graph's order, or one number for all.
        layout: ``NCHW`` or ``NHWC``.
        name: which of the graph's inputs is the image; may be left out where there is only one left.
        constants: values for the graph's other inputs, such as ``{orig_target_sizes: [[640, 640]]}``.
    """

    channels: Literal["RGB", "BGR"]
    scale: Positive
    mean: Mean = (0.0, 0.0, 0.0)
    std: Deviation = (1.0, 1.0, 1.0)
    layout: Layout = "NCHW"
    name: str | None = None
    constants: dict[str, Any] = {}


class YoloxOutput(_Strict):
    """YOLOX as it is exported (Ge et al. 2021): ``[N, A, 5 + C]``, offsets in cells of the grids.

    Each row is the centre (offset from the cell, in cells), the logarithm of width and height (in cells), objectness
    and class scores, both after the sigmoid. Rows are the grids' cells, row by row, the smallest stride first.

    Attributes:
        output: name of the graph's output; may be left out where there is only one.
        strides: pixels per cell of the grids.
    """

    format: Literal["yolox"]
    output: str | None = None
    strides: list[Annotated[int, Field(ge=1)]] = Field([8, 16, 32], min_length=1)


class _BoxesAndScores(_Strict):
    """What boxes and scores mean, wherever they stand.

    Attributes:
        corners: what the four numbers of a box are: ``xywh`` is the top left corner and the size, ``yxyx`` is
            TensorFlow's order.
        coordinates: ``pixels`` of the input, or ``normalised`` to 0..1.
        activation: what is still to be done to the scores.
        background: index of the class, among the scores', that is no class of the card; -1 is the last.
        first_label: the label that the card's first class has; 1 where 0 is the background.
        indices: for each class of the card its label, or its column among the scores, where counting is not enough:
            COCO's 80 classes have labels from 1 to 90. Other labels and columns are dropped.
    """

    corners: Literal["xyxy", "cxcywh", "xywh", "yxyx"] = "xyxy"
    coordinates: Literal["pixels", "normalised"] = "pixels"
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    background: int | None = None
    first_label: int = 0
    indices: list[Annotated[int, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _indices_alone(self) -> _BoxesAndScores:
        if self.indices is not None and (self.first_label or self.background is not None):
            raise ValueError("indices replace first_label and background: give one or the other")
        return self


Part = Literal["box", "score", "label", "classes", "objectness", "batch"]


class RowsOutput(_BoxesAndScores):
    """One output with a row for each box: ``[N, A, columns]``, ``[A, columns]``, or turned: ``[N, columns, A]``.

    Attributes:
        columns: what a row consists of, from left to right: ``box`` (four numbers), ``classes`` (a score for each
            class), or ``score`` (one, of the class that ``label`` names); ``objectness`` (the scores are multiplied by
            it), ``batch`` (the picture's index in the batch, where the pictures' rows follow each other), and a number
            for so many columns that are passed over: the coefficients of masks, key points.
        output: name of the graph's output; may be left out where there is only one.
        labels: output ``[N, A]`` of class ids, where they are no column. One class needs no labels.
        columns_axis: which axis the columns are, ``last`` or ``second``; may be left out where the sizes tell.
    """

    format: Literal["rows"]
    columns: list[Part | Annotated[int, Field(ge=1)]]
    output: str | None = None
    labels: str | None = None
    columns_axis: Literal["last", "second"] | None = None

    @model_validator(mode="after")
    def _columns_make_detections(self) -> RowsOutput:
        names = [column for column in self.columns if isinstance(column, str)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"columns has {', '.join(twice)} more than once")
        if "box" not in names or ("classes" in names) == ("score" in names):
            raise ValueError("columns needs box, and either classes or score")
        if "classes" in names and self.labelled:
            raise ValueError("columns has a score for each class: labels go with one score")
        if "label" in names and self.labels is not None:
            raise ValueError("labels are either a column or an output")
        if not self.labelled and self.first_label:
            raise ValueError("first_label needs labels; for a score matrix give background")
        if "score" in names and (self.background is not None or self.activation == "softmax"):
            raise ValueError("background and softmax belong to a score for each class")
        return self

    @property
    def labelled(self) -> bool:
        return self.labels is not None or "label" in self.columns


_YOLO: dict[Any, dict[str, Any]] = {
    "yolov5": {"columns": ["box", "objectness", "classes"], "corners": "cxcywh"},
    "yolov8": {"columns": ["box", "classes"], "corners": "cxcywh"},
    "yolov10": {"columns": ["box", "score", "label"], "corners": "xyxy"},
}


class YoloOutput(RowsOutput):
    """Other YOLO versions, decoded in their graphs: ``rows`` whose columns and corners are known.

    ``yolov5``: ``[N, A, 5 + C]`` of centre, size, objectness, class scores; also v7, and YOLOX exported with decoding.
    ``yolov8``: ``[N, 4 + C, A]`` of centre, size, class scores; also v9, v11, v12; ``[N, A, 4 + C]`` is recognised.
    ``yolov10``: ``[N, K, 6]`` of left, top, right, bottom, score, class id; any graph with suppression inside.

    The fields of `RowsOutput` change what differs: ``columns: [box, classes, 32]`` for a model with masks,
    ``coordinates: normalised`` for Ultralytics' RT-DETR.
    """

    format: Literal["yolov5", "yolov8", "yolov10"]  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _know(cls, data: Any) -> Any:
        return _YOLO.get(data.get("format"), {}) | data if isinstance(data, dict) else data


class BoxesOutput(_BoxesAndScores):
    """Boxes and scores as two outputs, as RetinaNet and SSD have them, or with labels as a third.

    Attributes:
        boxes: output ``[N, K, 4]``, ``[N, K, 1, 4]`` or ``[K, 4]``.
        scores: output ``[N, K, C]`` (also ``[N, C, K]``, see ``classes_axis``), or ``[N, K]`` with ``labels``; without
            N where the boxes have none.
        labels: output ``[N, K]`` of class ids: each box then has one score, for one class.
        classes_axis: ``last`` or ``second``.
    """

    format: Literal["boxes_scores"]
    boxes: str = "boxes"
    scores: str = "scores"
    labels: str | None = None
    classes_axis: Literal["last", "second"] = "last"

    @model_validator(mode="after")
    def _labels_or_classes(self) -> BoxesOutput:
        if self.labels is None and self.first_label:
            raise ValueError("first_label needs labels; for a score matrix give background")
        if self.labels is not None and (
            self.background is not None or self.activation == "softmax" or self.classes_axis == "second"
        ):
            raise ValueError("background, softmax and classes_axis belong to a score matrix, which labels replace")
        return self


class DetrOutput(BoxesOutput):
    """The DETR family, which needs no suppression: give the card ``iou_threshold: 1``.

    RT-DETR and Deformable DETR by default: logits ``[N, Q, C]`` for a sigmoid, boxes ``[N, Q, 4]`` as normalised centre
    and size. The first DETR (Carion et al. 2020) has a softmax with "no object" last: ``activation: softmax``,
    ``background: -1``. With boxes and scores in one output it is ``rows``.
    """

    format: Literal["detr"]  # type: ignore[assignment]
    boxes: str = "pred_boxes"
    scores: str = "logits"
    corners: Literal["xyxy", "cxcywh", "xywh", "yxyx"] = "cxcywh"
    coordinates: Literal["pixels", "normalised"] = "normalised"
    activation: Literal["none", "sigmoid", "softmax"] = "sigmoid"


ForeignDetection = Annotated[
    YoloxOutput | YoloOutput | RowsOutput | BoxesOutput | DetrOutput, Field(discriminator="format")
]


class ForeignSegmentation(_Strict):
    """The output of a segmenter.

    Attributes:
        values: ``logits`` (or probabilities) ``[N, C, h, w]``; ``class_ids`` ``[N, h, w]``, with or without an axis
            of 1 for the channels; ``binary``: one channel ``[N, 1, h, w]`` for the second of two classes.
        output: name of the graph's output; may be left out where there is only one.
        layout: ``NCHW`` or ``NHWC``; says where the channels are.
        threshold: of ``binary``, above which a pixel is of the second class: 0 for a logit, 0.5 for a probability.
        background: index of a channel, among the output's C + 1, that is no class of the card; -1 is the last. It is
            removed before the argmax: every pixel gets the likeliest of the card's classes.

    Class ids become one-hot logits: what is bilinear for logits is then an edge half way between two ids. Where the
    graph itself ends in an argmax over classes, its logits are taken instead; where it ends in bilinear enlargement,
    the small logits are: both are what the runtime does better at the end.
    """

    values: Literal["logits", "class_ids", "binary"]
    output: str | None = None
    layout: Layout = "NCHW"
    threshold: FiniteFloat = 0.0
    background: int | None = None

    @model_validator(mode="after")
    def _background_is_a_channel(self) -> ForeignSegmentation:
        if self.background is not None and self.values == "binary":
            raise ValueError("background is a channel beside those of the classes, and binary has one channel")
        return self


class ForeignClassification(_Strict):
    """The classes of whole images, ``[N, C]``; ``activation`` is ``none`` where they are probabilities already."""

    activation: Literal["none", "softmax", "sigmoid"]
    output: str | None = None


class Adapter(_Strict):
    """The inputs and outputs of a foreign graph, for each task of its card."""

    input: ForeignInput
    detection: ForeignDetection | None = None
    segmentation: ForeignSegmentation | None = None
    classification: ForeignClassification | None = None


class ForeignCard(ModelCard):
    """The card of a graph that does not follow the contract, with its adapter."""

    adapter: Adapter

    @model_validator(mode="after")
    def _sections_belong_together(self) -> ForeignCard:
        for task in ("segmentation", "detection", "classification"):
            if (getattr(self, task) is None) != (getattr(self.adapter, task) is None):
                has, lacks = (task, f"adapter.{task}") if getattr(self, task) else (f"adapter.{task}", task)
                raise ValueError(f"there is a section {has}, so {lacks} is needed too")
        boxes = self.adapter.detection
        if isinstance(boxes, _BoxesAndScores) and boxes.indices is not None and self.detection is not None:
            indices, classes = len(boxes.indices), len(self.detection.classes)
            if indices != classes:
                raise ValueError(f"there are {classes} classes, and {indices} indices for them")
        several = self.detection is not None and len(self.detection.classes) > 1
        if several and isinstance(boxes, RowsOutput) and "score" in boxes.columns and not boxes.labelled:
            raise ValueError("one score a box, and several classes: say where the labels are (label or labels)")
        if self.adapter.segmentation is not None and self.segmentation is not None:
            binary = self.adapter.segmentation.values == "binary"
            if binary and len(self.segmentation.classes) != 2:
                raise ValueError("binary segmentation has two classes: background and foreground")
        return self

    def native(self) -> ModelCard:
        """Return the card of the adapted graph: the same without the adapter."""
        return ModelCard.model_validate(self.model_dump(exclude={"adapter"}))


def read_foreign_card(path: str | Path) -> ForeignCard | None:
    """Read a card (see `perception.card.card_file`) if it has an ``adapter`` section, else return None.

    Raises:
        ModelError: the file cannot be read, is not YAML, or is not valid: every field that is missing or wrong.
    """
    data = read_yaml(card_file(path), "card", ModelError)
    if not isinstance(data, dict) or "adapter" not in data:
        return None
    if not isinstance(data["adapter"], dict):
        raise ModelError(
            "the model card is not valid: adapter: must have the sections input and one for each task", path
        )
    return validate_card(data, path, ForeignCard)
