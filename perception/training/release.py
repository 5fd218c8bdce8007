"""Export a checkpoint, measure the very file that is shipped, and write the result into its card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx

from perception.card import METADATA_KEY, ModelCard, write_card
from perception.errors import PerceptionError
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig
from perception.training.dataset import SegmentationFolder
from perception.training.evaluate import evaluate_onnx
from perception.training.export import export


def release(checkpoint: str | Path, output: str | Path, data_root: str | Path | None = None) -> ModelCard:
    """Export ``checkpoint`` to ``output`` with its accuracy on the recipe's ``data.val`` in the card.

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
    data = config.data
    root = Path(data_root) if data_root is not None else data.root
    samples = SegmentationFolder(root / data.val.images, root / data.val.labels, len(data.classes), data.ignore)
    draft = output.with_name(f".{output.name}.draft")
    try:
        export(checkpoint, draft)
        metrics: dict[str, float] = {}
        for precision, suffix in (("f32", ""), ("bf16", "_bf16")):
            result = evaluate_onnx(draft, samples, data.size, precision)
            metrics[f"{config.name}_val_miou{suffix}"] = round(result.miou, 4)
            metrics[f"{config.name}_val_pixel_accuracy{suffix}"] = round(result.pixel_accuracy, 4)
            if not suffix:
                for entry, iou in zip(data.classes, result.iou, strict=True):
                    if iou == iou:  # not a number where the class never occurs
                        metrics[f"{config.name}_val_iou_{entry.name}"] = round(float(iou), 4)
        model = onnx.load(str(draft))
        card = card_of(model).model_copy(update={"metrics": metrics})
        write_card(model, card)
        onnx.save(model, str(draft))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return card


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
