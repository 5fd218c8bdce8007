"""Export a checkpoint, measure the very file that is shipped, and write the result into its card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import onnx

from perception.card import METADATA_KEY, ModelCard, write_card
from perception.engines import Precision
from perception.errors import PerceptionError
from perception.evaluation.detection import evaluate_detection
from perception.evaluation.segmentation import evaluate_segmentation
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig
from perception.training.export import export


def release(checkpoint: str | Path, output: str | Path, data_root: str | Path | None = None) -> ModelCard:
    """Export ``checkpoint`` to ``output`` with its accuracy on the recipe's validation pictures in the card.

    Accuracy is OpenVINO's, in float32 and in bfloat16, at the network's own size.

    Args:
        checkpoint: written by ``train``.
        output: the ``.onnx`` to write.
        data_root: replaces ``data.root`` of the recipe.

    Raises:
        PerceptionError: The checkpoint or the data cannot be read, or the export is not exact.
    """
    output = Path(output)
    config = TrainConfig.model_validate(load_checkpoint(Path(checkpoint))["config"])
    root = Path(data_root) if data_root is not None else config.data.root
    draft = output.with_name(f".{output.name}.draft")
    try:
        export(checkpoint, draft)
        metrics: dict[str, float] = {}
        precisions: dict[str, Precision] = {"": "f32", "_bf16": "bf16"}
        for suffix, precision in precisions.items():
            measured = _measure(draft, config, root, precision)
            metrics.update({f"{config.name}_val_{metric}{suffix}": value for metric, value in measured.items()})
        model = onnx.load(str(draft))
        card = card_of(model).model_copy(update={"metrics": metrics})
        write_card(model, card)
        onnx.save(model, str(draft))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return card


def _measure(model: Path, config: TrainConfig, root: Path, precision: Precision) -> dict[str, float]:
    """Accuracy on the recipe's validation pictures as `perception eval` gives it; by class only in float32."""
    options: dict[str, Any] = {"engine": "openvino", "precision": precision}
    val, by_class = config.data.val, precision == "f32"
    masks = evaluate_segmentation(
        model, root / val.images, root / val.labels, ignore=[config.data.ignore], **options
    ).as_dict()
    metrics = {"miou": masks["miou"], "pixel_accuracy": masks["pixel_accuracy"]}
    if by_class:
        metrics |= {f"iou_{name}": value for name, value in masks["iou"].items()}
    if config.detection is not None:
        boxed = config.detection.val
        synonyms = {theirs: [ours] for theirs, ours in (boxed.names or {}).items()}
        boxes = evaluate_detection(
            model, root / boxed.images, root / boxed.annotations, synonyms=synonyms, **options
        ).as_dict()
        metrics |= {"map": boxes["map"], "map50": boxes["map50"]}
        if by_class:
            metrics |= {f"ap50_{name}": value["ap50"] for name, value in boxes["ap"].items()}
    return {metric: round(value, 4) for metric, value in metrics.items() if value is not None}


def card_of(model: onnx.ModelProto) -> ModelCard:
    """The card inside ``model``."""
    entry = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    return ModelCard.model_validate_json(entry.value)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.training.release", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("output", help="the .onnx to write")
    parser.add_argument("--data", help="replaces data.root of the recipe")
    arguments = parser.parse_args()
    try:
        card = release(arguments.checkpoint, arguments.output, arguments.data)
    except PerceptionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for name, value in card.metrics.items():
        sys.stdout.write(f"{name:40} {value:.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
