"""The model card: everything about a model that is not its weights, stored inside its ``.onnx`` file.

The card is JSON in the file's ``metadata_props`` under the key ``perception``. A foreign file gets its card from
a YAML file instead. Colours are RGB here, as people write them; the rest of the package works in BGR.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from perception.common.calibration import ScoreCalibration, UnknownScale
from perception.common.checksums import LIST, is_as_listed
from perception.common.files import write_atomic
from perception.common.palette import class_colors
from perception.common.settings import nearest, read_yaml
from perception.common.strict import Strict
from perception.errors import ModelError

METADATA_KEY = "perception"

UNKNOWN = "unknown"
"""Name of pixels that are of no class."""

Channel = Annotated[int, Field(ge=0, le=255)]

PlainText = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, (int, date)) else v)]
"""Text that YAML takes for a number or a date when it has no quotes: ``version: 2``, ``date: 2026-11-22``."""


class ClassInfo(Strict):
    """One class: its name and its colour (RGB, 0..255). In a card a name alone will do; the colour is then chosen."""

    name: str = Field(min_length=1)
    color: tuple[Channel, Channel, Channel]


class _Task(Strict):
    classes: list[ClassInfo] = Field(min_length=1, max_length=1000)

    @field_validator("classes", mode="before")
    @classmethod
    def _color_plain_names(cls, classes: Any) -> Any:
        """Accept classes that are given by name alone; each gets a colour that no other class has."""
        if not isinstance(classes, list) or len(classes) > 1000:
            return classes
        given = [c.get("color") for c in classes if isinstance(c, dict)]
        taken = {tuple(c) for c in given if isinstance(c, (list, tuple)) and all(isinstance(v, int) for v in c)}
        colors = iter(class_colors(sum(isinstance(c, str) for c in classes), taken))
        return [{"name": c, "color": next(colors)} if isinstance(c, str) else c for c in classes]

    @field_validator("classes")
    @classmethod
    def _names_are_unique(cls, classes: list[ClassInfo]) -> list[ClassInfo]:
        names = [c.name for c in classes]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"class names must be unique; repeated: {', '.join(twice)}")
        return classes

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]


class _ColoredTask(_Task):
    @field_validator("classes")
    @classmethod
    def _colors_are_unique(cls, classes: list[ClassInfo]) -> list[ClassInfo]:
        seen: dict[tuple[int, int, int], str] = {}
        for c in classes:
            if c.color in seen:
                raise ValueError(f"colour {c.color} is used by both {seen[c.color]} and {c.name}")
            seen[c.color] = c.name
        return classes


class SegmentationTask(_ColoredTask):
    """A class for each pixel.

    Attributes:
        output: graph output, float32 ``[N, C, h, w]`` logits at the network's own stride.
        classes: C classes, in the order of the logits' channels; at most 255.
        ignored: class ids that are never drawn (a background).
        unknown: how pixels are told of which the network is not sure; None where that was not measured.
    """

    output: str = "class_logits"
    classes: list[ClassInfo] = Field(min_length=1, max_length=255)
    ignored: list[int] = Field(default=[])
    unknown: UnknownScale | None = None

    @model_validator(mode="after")
    def _unknown_is_no_class(self) -> SegmentationTask:
        if self.unknown is not None and self.unknown.id != len(self.classes):
            raise ValueError(f"the id of unknown must be {len(self.classes)}, after those of the classes")
        if self.unknown is not None and UNKNOWN in self.names:
            raise ValueError(f"a class is called {UNKNOWN!r}, as pixels of no class are")
        return self

    @model_validator(mode="after")
    def _ignored_exist(self) -> SegmentationTask:
        wrong = [i for i in self.ignored if not 0 <= i < len(self.classes)]
        if wrong:
            raise ValueError(f"ignored ids {wrong} are not among the {len(self.classes)} classes")
        return self


class TrackingSettings(Strict):
    """How boxes become tracks. Scores mean something else in each model: ``eval tracking --calibrate`` finds these.

    Attributes:
        high_score: boxes of at least this score are matched first.
        low_score: boxes of less are not looked at.
        start_score: a box of at least this score may begin a track.
        sure_score: a box of at least this score makes its track a confirmed one at once.
        overlap: least overlap of a track's guess and a box of high score.
        low_overlap: the same, of low score.
        lost_overlap: least overlap of where a track was last seen and a box of high score that is left over; 1: none.
        new_overlap: least overlap of a track that is not confirmed and a box.
        confirm_s: a track that has been seen for so many seconds is confirmed.
        patience_s: seconds that a track which is not confirmed may be unseen.
        memory_s: seconds that a confirmed track may be unseen and found again.
        jitter: how far edges of boxes are off, as part of the box's sides (standard deviation).
    """

    high_score: float = Field(default=0.5, ge=0, le=1)
    low_score: float = Field(default=0.25, ge=0, le=1)
    start_score: float = Field(default=0.3, ge=0, le=1)
    sure_score: float = Field(default=0.6, ge=0, le=1)
    overlap: float = Field(default=0.3, ge=0, le=1)
    low_overlap: float = Field(default=0.4, ge=0, le=1)
    lost_overlap: float = Field(default=0.05, ge=0, le=1)
    new_overlap: float = Field(default=0.3, ge=0, le=1)
    confirm_s: float = Field(default=0.1, ge=0, le=10)
    patience_s: float = Field(default=0.1, ge=0, le=10)
    memory_s: float = Field(default=1.0, ge=0, le=60)
    jitter: float = Field(default=0.04, gt=0, le=0.5)

    @classmethod
    def around(cls, score: float) -> TrackingSettings:
        """Return settings for a model whose boxes are usually taken from a score on: its threshold."""
        return cls(
            low_score=0.75 * score, start_score=score, high_score=score + 0.2 * (1 - score),
            sure_score=score + 0.4 * (1 - score),
        )  # fmt: skip


class DetectionTask(_ColoredTask):
    """Boxes.

    Attributes:
        boxes: graph output, float32 ``[N, K, 4]`` xyxy in input pixels.
        scores: graph output, float32 ``[N, K, C]`` in 0..1.
        classes: C classes, in the order of the scores' last axis.
        calibration: makes those scores chances; None leaves them as they are.
        score_threshold: least score of a detection, calibrated, unless the user sets one.
        iou_threshold: boxes of a class that overlap more are suppressed.
        max_detections: at most this many boxes a frame.
        class_agnostic: boxes of other classes that overlap more are suppressed too.
        vote_iou: what is kept becomes the weighted mean of the boxes that overlap it at least so much, those below
            the score threshold included, see `perception.postprocess.detection.decode`; None keeps it as it is.
        tracking: how its boxes become tracks; None: by its ``score_threshold``, see `TrackingSettings.around`.
    """

    boxes: str = "boxes"
    scores: str = "scores"
    calibration: ScoreCalibration | None = None
    score_threshold: float = Field(0.3, ge=0, le=1)
    iou_threshold: float = Field(0.6, ge=0, le=1)
    max_detections: int = Field(300, ge=1)
    class_agnostic: bool = False
    vote_iou: float | None = Field(default=None, ge=0, le=1)
    tracking: TrackingSettings | None = None

    def tracking_settings(self, score: float | None = None) -> TrackingSettings:
        """How boxes become tracks.

        Args:
            score: least score of a box that begins a track, in place of the settings' own.
        """
        settings = self.tracking or TrackingSettings.around(self.score_threshold)
        if score is None:
            return settings
        changes = {
            "start_score": score,
            "sure_score": max(settings.sure_score, score),
            "low_score": min(settings.low_score, score),
        }
        return settings.model_copy(update=changes)


class ClassificationTask(_Task):
    """A class for the whole image; ``output`` is float32 ``[N, C]`` probabilities."""

    output: str = "probabilities"


class InputSpec(Strict):
    """The graph input: uint8 ``[N, height, width, 3]`` BGR.

    Attributes:
        name: name of the graph input.
        width, height: the size that the network was made for.
        resize: ``stretch`` fits both sides, ``letterbox`` keeps the aspect ratio and pads.
        multiple: other sizes are allowed if both sides are multiples of this; None where only one size fits.
    """

    name: str = "frames"
    width: int = Field(ge=1, le=16384)
    height: int = Field(ge=1, le=16384)
    resize: Literal["letterbox", "stretch"] = "stretch"
    multiple: int | None = Field(None, ge=1)


class Quantization(Strict):
    """The way in which a model came to compute in eight bits.

    Attributes:
        precision: what most of its convolutions and matrix products compute in.
        source_sha256: SHA-256 of the model file that it was made from, hexadecimal.
        calibrated_on: where the pictures that ranges were measured on come from, and how many there were.
        float_layers: names of the layers that were left as they are for the sake of accuracy.
        before: metrics of the model that it was made from, measured in the same way as this card's own.
        tool: what quantised it, and its version.
    """

    precision: Literal["int8"] = "int8"
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    calibrated_on: list[str] = Field(min_length=1)
    float_layers: list[str] = Field(default=[])
    before: dict[str, FiniteFloat] = Field(default={})
    tool: str = ""


class SetAccuracy(Strict):
    """Accuracy on one set of labelled pictures.

    Attributes:
        set: its name.
        kind: what was compared.
        images: how many pictures.
        metrics: such as ``{"miou": 0.71}``.
        classes: IoU, or average precision at an IoU of 0.5, of each class that occurs.
    """

    set: str
    kind: Literal["segmentation", "detection"]
    images: int = Field(ge=1)
    metrics: dict[str, FiniteFloat]
    classes: dict[str, FiniteFloat] = Field(default={})


class SuiteAccuracy(Strict):
    """Accuracy on the sets of a suite, see `perception.evaluation.suite`; its ``name``."""

    name: str
    sets: list[SetAccuracy]


class ModelCard(Strict):
    """Everything that is known about a model.

    Attributes:
        format: version of this card's format.
        name: short name, as in ``perception annotate --model NAME``.
        version: version of the weights.
        input: what the graph takes.
        segmentation, detection, classification: the tasks, at least one.
        things: by name of a class of pixels whose instances can be told apart, the names of the boxes that show it:
            ``{"car": ["car", "bus"]}``. None: the names that pixels and boxes share.
        licence: what the weights may be used for.
        trained_on: data sets, each with its licence.
        metrics: measured accuracy, such as ``{"camvid_val_miou": 0.71}``.
        suite: measured accuracy on many sets.
        quantization: how it was quantised, if it was.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    version: PlainText = "1"
    description: str = ""
    input: InputSpec
    segmentation: SegmentationTask | None = None
    detection: DetectionTask | None = None
    classification: ClassificationTask | None = None
    things: dict[str, list[str]] | None = None
    licence: str = Field(min_length=1)
    trained_on: list[str] = Field(default=[])
    metrics: dict[str, FiniteFloat] = Field(default={})
    suite: SuiteAccuracy | None = None
    date: PlainText = ""
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _has_a_task(self) -> ModelCard:
        if not self.tasks:
            raise ValueError("a card needs at least one of: segmentation, detection, classification")
        return self

    @model_validator(mode="after")
    def _things_exist(self) -> ModelCard:
        if self.things is None:
            return self
        if self.segmentation is None or self.detection is None:
            raise ValueError("'things' needs both segmentation and detection")
        pixels = [name for name in self.things if name not in self.segmentation.names]
        boxes = [name for kinds in self.things.values() for name in kinds if name not in self.detection.names]
        if pixels or boxes:
            has = f"classes of pixels {pixels}" if pixels else f"classes of boxes {boxes}"
            raise ValueError(f"'things' names unknown classes: {has}")
        return self

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that the model does."""
        return [t for t in ("segmentation", "detection", "classification") if getattr(self, t) is not None]


CardT = TypeVar("CardT", bound=ModelCard)


def validate_card(data: Any, where: str | Path, kind: type[CardT] = ModelCard) -> CardT:  # type: ignore[assignment]
    """Validate plain data as a card of the class ``kind``.

    Raises:
        ModelError: naming ``where`` and every field that is missing or wrong.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(p) for p in e['loc']) or 'card'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise ModelError(f"the model card is not valid: {'; '.join(faults)}", where) from None


def card_file(card: str | Path) -> Path:
    """Find a YAML card: a path as it is, or the name of one of those that ship for foreign models, such as ``yolov8``.

    Raises:
        ModelError: there is neither; names the cards that ship.
    """
    path = Path(card)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    shipped = shipped_cards()
    if path.name not in shipped:
        raise ModelError(f"no card is called that{nearest(path.name, shipped)}; or give a YAML file", card)
    return shipped[path.name]


def shipped_cards() -> dict[str, Path]:
    """Return the YAML cards for foreign models that ship, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "foreign" / "cards").glob("*.yaml"))}


def read_card(path: str | Path, card: str | Path | None = None) -> ModelCard:
    """Read the card of the model file ``path``, or ``card`` instead of it: a YAML file, or a name (see `card_file`).

    Raises:
        ModelError: the file is missing, is not ONNX, has no card, or its card is not valid.
    """
    if card is not None:
        return validate_card(read_yaml(card_file(card), "card", ModelError), card)
    import json

    model = load_onnx(path)
    for prop in model.metadata_props:
        if prop.key == METADATA_KEY:
            try:
                data = json.loads(prop.value)
            except (ValueError, RecursionError) as error:
                raise ModelError(f"the model card is not JSON: {error}", path) from None
            return validate_card(data, path)
    inputs = [i.name for i in model.graph.input]
    outputs = [o.name for o in model.graph.output]
    raise ModelError(
        f"no model card in this ONNX file; write one to a YAML file, such as {template(path, model)}, and give "
        f"`card=FILE.yaml` (see docs/cards.md; `perception adapt --list-formats`); "
        f"the graph's inputs are {inputs}, its outputs {outputs}",
        path,
    )


def template(path: str | Path, model: Any) -> str:
    """Return a card to begin with, as YAML in one line: of a detector, with the adapter of the commonest format.

    Args:
        path: the file, after which it is named.
        model: its ``onnx.ModelProto``, from whose input the size is taken where that is told.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-._") or "mine"
    shapes = [[d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input]
    sides = next((shape[2:] if shape[1] <= shape[3] else shape[1:3] for shape in shapes if len(shape) == 4), [])
    height, width = sides if all(sides) and sides else (640, 640)
    return (
        f"{{name: {name}, licence: unknown, input: {{width: {width}, height: {height}, resize: letterbox}}, "
        "detection: {classes: [person, car]}, "
        "adapter: {input: {channels: RGB, scale: 1/255}, detection: {format: yolov8}}}"
    )


def load_onnx(path: str | Path) -> Any:
    """Parse a file as ``onnx.ModelProto``.

    Raises:
        ModelError: the file is missing, cannot be read, is not ONNX, or is not the one in the list of checksums beside
            it (see `perception.common.checksums`), as the models that ship have one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise ModelError("no such model file; `perception models` lists all models", path)
    try:
        data = path.read_bytes()
        if not is_as_listed(path, data):
            raise ModelError(
                f"the file is damaged: its SHA-256 is not the one in {LIST} beside it; install it again, or list it "
                f"again if it was changed on purpose (`sha256sum *.onnx > {LIST}`)",
                path,
            )
        model = onnx.load_model_from_string(data)
    except OSError as error:
        raise ModelError(f"cannot read the model: {error.strerror or error}", path) from None
    except DecodeError:
        raise ModelError("not an ONNX file (cannot be parsed); was the download cut short?", path) from None
    if not model.graph.output:
        raise ModelError("not an ONNX file (it has no graph outputs)", path)
    return model


def write_card(model: Any, card: ModelCard) -> None:
    """Store ``card`` in an ``onnx.ModelProto``, replacing the one it has."""
    kept = [p for p in model.metadata_props if p.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = card.model_dump_json(exclude_none=True)


def keep_in_card(path: str | Path, output: str | Path | None = None, **changes: Any) -> ModelCard:
    """Change entries of the card in a model file; the graph and its weights stay as they are.

    Args:
        path: the file.
        output: where to write it; None replaces the file.
        **changes: the entries, by their names in `ModelCard`.

    Returns:
        The new card.

    Raises:
        ModelError: see `read_card`; or the file cannot be written.
    """
    card: ModelCard = validate_card({**read_card(path).model_dump(), **changes}, path)
    model = load_onnx(path)
    write_card(model, card)
    target = Path(path if output is None else output)
    try:
        write_atomic(target, model.SerializeToString())
    except OSError as error:
        raise ModelError(f"cannot write the model: {error.strerror or error}", target) from None
    return card
