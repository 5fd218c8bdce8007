"""The card of a trained model, as far as every task has it."""

from __future__ import annotations

from datetime import date
from typing import Any

from perception.card import InputSpec, ModelCard
from perception.picture.letterbox import ResizeMode
from perception.training.recipes.base import RunConfig


def make_card(
    config: RunConfig,
    metrics: dict[str, float],
    *,
    resize: ResizeMode = "stretch",
    multiple: int | None = None,
    **tasks: Any,
) -> ModelCard:
    """Make the card of a model trained by ``config``.

    Args:
        config: the recipe.
        metrics: measured accuracy.
        resize: how pictures are fitted into the input.
        multiple: other input sizes are allowed in steps of so many pixels; None takes the recipe's size alone, as
            dense layers do.
        tasks: ``segmentation``, ``detection``, ``classification`` of the card.
    """
    width, height = config.data.size
    return ModelCard(
        name=config.name,
        version=config.model.version,
        description=config.model.description,
        input=InputSpec(width=width, height=height, resize=resize, multiple=multiple),
        things=config.model.things,
        licence=config.model.licence,
        commercial_use=config.model.commercial_use,
        trained_on=config.model.trained_on,
        metrics=metrics,
        date=date.today().isoformat(),
        **tasks,
    )
