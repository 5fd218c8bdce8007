"""Export a checkpoint, measure the very file that is shipped, and write the result into its card."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from perception.card import METADATA_KEY, ModelCard, write_card
from perception.engines import Precision
from perception.errors import PerceptionError
from perception.training.checkpoint import load_checkpoint
from perception.training.coco import CocoFolder
from perception.training.config import TrainConfig
from perception.training.dataset import SegmentationFolder
from perception.training.evaluate import evaluate_boxes, evaluate_masks, onnx_infer
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
    data, detection = config.data, config.detection
    root = Path(data_root) if data_root is not None else data.root
    samples = SegmentationFolder(root / data.val.images, root / data.val.labels, len(data.classes), data.ignore)
    boxed = None if detection is None else CocoFolder(root, detection.val, detection.names)
    draft = output.with_name(f".{output.name}.draft")
    try:
        export(checkpoint, draft)
        metrics: dict[str, float] = {}
        precisions: dict[str, Precision] = {"": "f32", "_bf16": "bf16"}
        for suffix, precision in precisions.items():
            infer = onnx_infer(draft, data.size, precision)
            result = evaluate_masks(infer, samples, data.size)
            metrics[f"{config.name}_val_miou{suffix}"] = round(result.miou, 4)
            metrics[f"{config.name}_val_pixel_accuracy{suffix}"] = round(result.pixel_accuracy, 4)
            if boxed is not None and detection is not None:
                boxes = evaluate_boxes(infer, boxed, data.size, detection.iou_threshold)
                metrics[f"{config.name}_val_map{suffix}"] = round(boxes.map, 4)
                metrics[f"{config.name}_val_map50{suffix}"] = round(boxes.map50, 4)
                if not suffix:
                    metrics.update(_by_class(f"{config.name}_val_ap50", detection.names, boxes.ap50))
            if not suffix:
                metrics.update(_by_class(f"{config.name}_val_iou", [c.name for c in data.classes], result.iou))
        model = onnx.load(str(draft))
        card = card_of(model).model_copy(update={"metrics": metrics})
        write_card(model, card)
        onnx.save(model, str(draft))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return card


def _by_class(title: str, names: list[str], values: NDArray[np.float64]) -> dict[str, float]:
    """A metric of each class; not of those that never occur."""
    pairs = zip(names, values.tolist(), strict=True)
    return {f"{title}_{name}": round(value, 4) for name, value in pairs if math.isfinite(value)}


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
