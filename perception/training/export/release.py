"""Export a checkpoint, measure the very file that is shipped, and write the result into its card."""

from __future__ import annotations

from pathlib import Path

import onnx

from perception.card import METADATA_KEY, ModelCard, write_card
from perception.engines.openvino import native_precisions
from perception.training.export.export import export
from perception.training.recipes.read import parse_config, read_config
from perception.training.tasks.kinds import task_type
from perception.training.weights.checkpoint import load_checkpoint
from perception.training.weights.half_weights import store_in_half


def release(
    checkpoint: str | Path,
    output: str | Path,
    data_root: str | Path | None = None,
    recipe: str | Path | None = None,
) -> ModelCard:
    """Export ``checkpoint`` to ``output`` with its accuracy on the recipe's validation pictures in the card.

    Weights are stored in half, which halves the file. Accuracy is OpenVINO's, of that very file, at the network's
    own size, computing in float32 and in what else this machine computes in by itself: bfloat16, as a rule.

    Args:
        checkpoint: written by ``train``.
        output: the ``.onnx`` to write.
        data_root: replaces ``data.root`` of the recipe.
        recipe: replaces the checkpoint's own recipe, where what it says of the card has changed since.

    Raises:
        PerceptionError: The checkpoint or the data cannot be read, or the export is not exact.
    """
    output = Path(output)
    if recipe is not None:
        config = read_config(recipe)
    else:
        config = parse_config(load_checkpoint(Path(checkpoint))["config"], checkpoint)
    if data_root is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"root": Path(data_root)})})
    draft = output.with_name(f".{output.name}.draft")
    try:
        export(checkpoint, draft, config=config)
        model = onnx.load(str(draft))
        store_in_half(model)
        onnx.save(model, str(draft))
        metrics: dict[str, float] = {}
        for precision in native_precisions():
            suffix = "" if precision == "fp32" else f"_{precision}"
            for metric, value in task_type(config).measure(config, draft, precision).items():
                if value is not None:
                    metrics[f"{config.name}_val_{metric}{suffix}"] = round(value, 4)
        card = card_of(model).model_copy(update={"metrics": metrics})
        write_card(model, card)
        onnx.save(model, str(draft))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return card


def card_of(model: onnx.ModelProto) -> ModelCard:
    """Read the card inside ``model``."""
    entry = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    return ModelCard.model_validate_json(entry.value)
