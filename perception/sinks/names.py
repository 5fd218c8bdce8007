"""Class names of a card's tasks, for files that people read."""

from __future__ import annotations

from perception.card import UNKNOWN, ModelCard


class ClassNames:
    """Names of class ids; the number itself where there is no card or no such class.

    Attributes:
        detections, segments, image_classes: the names of each task's classes, empty without that task.
    """

    def __init__(self, card: ModelCard | None) -> None:
        self.detections = card.detection.names if card and card.detection else []
        self.segments = card.segmentation.names if card and card.segmentation else []
        unknown = card.segmentation.unknown if card and card.segmentation else None
        self._unknown = None if unknown is None else unknown.id
        self.image_classes = card.classification.names if card and card.classification else []

    def detection(self, class_id: int) -> str:
        """Return the name of a box's class."""
        return _name(self.detections, class_id)

    def segment(self, class_id: int) -> str:
        """Return the name of a pixel's class, or of pixels without one."""
        if class_id == self._unknown:
            return UNKNOWN
        return _name(self.segments, class_id)

    def image_class(self, class_id: int) -> str:
        """Return the name of a whole image's class."""
        return _name(self.image_classes, class_id)


def _name(names: list[str], class_id: int) -> str:
    return names[class_id] if 0 <= class_id < len(names) else str(class_id)
