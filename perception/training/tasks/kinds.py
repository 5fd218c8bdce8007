"""The task of a recipe."""

from __future__ import annotations

from typing import Any

from torch import nn

from perception.training.recipes.base import RunConfig
from perception.training.recipes.classification import ClassificationConfig
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.tasks.base import Task
from perception.training.tasks.classification import ClassificationTask
from perception.training.tasks.segmentation_detection import SegmentationDetectionTask

TASKS: dict[type[RunConfig], type[Task[Any]]] = {
    SegmentationDetectionConfig: SegmentationDetectionTask,
    ClassificationConfig: ClassificationTask,
}
"""Tasks by the class of their recipe; see also `perception.training.recipes.read.RECIPES`."""


def task_type(config: RunConfig) -> type[Task[Any]]:
    """Return the class of the task that ``config`` describes."""
    return TASKS[type(config)]


def build_network(config: RunConfig) -> nn.Module:
    """Build the network of ``config``, nothing of it trained yet."""
    return task_type(config).build_untrained(config)


def open_task(config: RunConfig) -> Task[Any]:
    """Open what ``config`` trains: its data are checked.

    Raises:
        PerceptionError: the data are faulty.
    """
    made: Task[Any] = task_type(config)(config)  # type: ignore[call-arg]
    return made
