"""The way in which sources are annotated, as plain data that another process can be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from perception.common.phases import phase
from perception.common.precision import Precision
from perception.postprocess.post_processing import DetectionOptions
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.model import Model
    from perception.stages.factories import StageFactory
    from perception.types import Picture, Prediction, Stage


class Annotating(NamedTuple):
    """What `perception.annotate.annotate_all` takes besides sources and outputs."""

    model: Model
    annotator: Callable[[Prediction], Picture]
    stages: Sequence[Stage | StageFactory]


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Model, options, stages and drawing.

    Attributes:
        model, card, engine, precision, device, threads, size, options: see `perception.load_model`.
        stages: names, see `perception.stages.factories.find_stage`.
        smooth: steady masks in time.
        max_loss: let the network see only some of the frames of videos, see `perception.pipeline.run`.
        track: follow boxes; so do ``rules`` that are about boxes.
        rules: YAML file of rules.
        panoptic: make segments; so does the view ``panoptic``.
        things: of the segments, see `perception.stages.panoptic.PanopticStage`.
        view, opacity, show_fps: see `perception.drawing.annotator.Annotator`.
        hidden: names of its parts that are not drawn.
        source_options: arguments of ``open_source``.
        sink_options: arguments of ``open_sink`` by kind of output.
    """

    model: str | Path = DEFAULT_MODEL
    card: str | Path | None = None
    engine: str = "auto"
    precision: Precision = "auto"
    device: str = "CPU"
    threads: int | None = None
    size: tuple[int, int] | None = None
    options: DetectionOptions = field(default_factory=DetectionOptions)
    stages: Sequence[str] = ()
    track: bool = False
    smooth: bool = False
    max_loss: float | None = None
    rules: Path | None = None
    panoptic: bool = False
    things: Mapping[str, Sequence[str]] | None = None
    view: Literal["boxes", "panoptic"] = "boxes"
    opacity: float = 0.5
    hidden: Sequence[str] = ()
    show_fps: bool = False
    source_options: Mapping[str, Any] = field(default_factory=dict)
    sink_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator[Annotating]:
        """Load the model, and make what draws and the stages; the model is closed at the end.

        Raises:
            UsageError: a stage or the rules are wrong, or do not fit the model.
            ModelError, EngineError: see `perception.load_model`.
        """
        with phase("imports for drawing"):
            from perception.drawing.annotator import Annotator
            from perception.model import load_model
            from perception.stages.factories import find_stage
            from perception.stages.panoptic import PanopticStage
            from perception.stages.track import track_factory, tracking_options

        stages: list[Stage | StageFactory] = [find_stage(name) for name in self.stages]
        rules = None
        if self.rules is not None:
            from perception.rules.settings import read_rules
            from perception.stages.rules import rules_factory

            rules = read_rules(self.rules)
        with load_model(
            self.model, card=self.card, engine=self.engine, precision=self.precision, device=self.device,
            threads=self.threads, mode="throughput", options=self.options, size=self.size,
        ) as loaded:  # fmt: skip
            annotator = Annotator(
                loaded.card, opacity=self.opacity, fps=self.show_fps, classes=self.options.classes, view=self.view,
                **dict.fromkeys(self.hidden, False),
            )  # fmt: skip
            model = loaded
            if self.smooth and "smooth" not in self.stages:
                stages.insert(0, find_stage("smooth"))
            if (self.track or bool(rules and rules.of_boxes)) and "track" not in self.stages:
                stages.insert(0, track_factory(self.options))
                model = loaded.with_options(tracking_options(loaded.card, self.options))
            if rules is not None:
                rules.check(loaded.card)
                stages.append(rules_factory(rules))
            if (self.panoptic or self.view == "panoptic") and "panoptic" not in self.stages:
                stages.append(PanopticStage(loaded.card, self.things))
            yield Annotating(model, annotator, stages)
