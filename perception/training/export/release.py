"""Export a checkpoint, measure the very file that is shipped, and write the result into its card."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from perception.card import METADATA_KEY, ModelCard, write_card
from perception.classics.localisation import LocalisationTask, iou
from perception.classics.recipe_localisation import LocalisationConfig
from perception.engines import Precision
from perception.engines.openvino import native_precisions
from perception.errors import PerceptionError
from perception.evaluation.classification import evaluate_classification
from perception.evaluation.detection import evaluate_detection
from perception.evaluation.segmentation import evaluate_segmentation
from perception.model import load_model
from perception.training.data.labelled import open_sets
from perception.training.export.export import export
from perception.training.recipes.classification import ClassificationConfig
from perception.training.recipes.dense import AnyConfig, TrainConfig, parse_config, read_config
from perception.training.run.checkpoint import load_checkpoint
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
    root = Path(data_root) if data_root is not None else config.data.root
    measure = _measures(config)
    draft = output.with_name(f".{output.name}.draft")
    try:
        export(checkpoint, draft, config=config)
        model = onnx.load(str(draft))
        store_in_half(model)
        onnx.save(model, str(draft))
        metrics: dict[str, float] = {}
        for precision in native_precisions():
            suffix = "" if precision == "fp32" else f"_{precision}"
            for metric, value in measure(draft, config, root, precision).items():
                if value is not None:
                    metrics[f"{config.name}_val_{metric}{suffix}"] = round(value, 4)
        card = card_of(model).model_copy(update={"metrics": metrics})
        write_card(model, card)
        onnx.save(model, str(draft))
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    return card


def _measures(config: AnyConfig) -> Callable[..., dict[str, float | None]]:
    if isinstance(config, ClassificationConfig):
        return _measure_classes
    return _measure_places if isinstance(config, LocalisationConfig) else _measure


def _measure_classes(
    model: Path, config: ClassificationConfig, root: Path, precision: Precision
) -> dict[str, float | None]:
    """Accuracy on the pictures that were held out."""
    data = config.data.model_copy(update={"root": root})
    _, val = open_sets(data)
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=f".{model.name}.") as folder:
        pictures = Path(folder) / "val.npz"
        np.savez(pictures, images=val.images[..., ::-1], labels=val.labels)
        result = evaluate_classification(model, pictures, engine="openvino", precision=precision)
    return {"accuracy": result.accuracy, "error_percent": 100 * (1 - result.accuracy)}


def _measure_places(
    model: Path, config: LocalisationConfig, root: Path, precision: Precision
) -> dict[str, float | None]:
    """Class accuracy and IoU of each picture's largest object, or average precision of a detector."""
    options: dict[str, Any] = {"engine": "openvino", "precision": precision}
    val = config.data.val
    if config.windows is not None:
        synonyms = {theirs: [ours] for theirs, ours in (val.names or {}).items()}
        boxes = evaluate_detection(model, root / val.images, root / val.annotations, synonyms=synonyms, **options)
        measured = boxes.as_dict()
        return {"map": measured["map"], "map50": measured["map50"]}
    task = LocalisationTask(config.model_copy(update={"data": config.data.model_copy(update={"root": root})}))
    right, overlaps = [], []
    with load_model(model, score_threshold=0.0, **options) as loaded:
        for image, label, box, _ in task.held_out():
            found = loaded.predict(image).detections
            assert found is not None
            if not len(found):
                right.append(False)
                overlaps.append(0.0)
                continue
            scale = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
            right.append(int(found.class_ids[0]) == label)
            overlaps.append(iou(found.boxes[0] / scale, box))
    return {"accuracy": float(np.mean(right)), "iou_mean": float(np.mean(overlaps))}


def _measure(model: Path, config: TrainConfig, root: Path, precision: Precision) -> dict[str, float | None]:
    """Accuracy on the recipe's validation pictures as `perception eval` gives it; by class only in float32."""
    options: dict[str, Any] = {"engine": "openvino", "precision": precision}
    val, by_class = config.data.val, precision == "fp32"
    masks = evaluate_segmentation(
        model,
        root / val.images,
        root / val.labels,
        ignore=[config.data.ignore] if val.ignore is None else val.ignore,
        **options,
    ).as_dict()
    metrics: dict[str, float | None] = {"miou": masks["miou"], "pixel_accuracy": masks["pixel_accuracy"]}
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
    return metrics


def card_of(model: onnx.ModelProto) -> ModelCard:
    """The card inside ``model``."""
    entry = next(p for p in model.metadata_props if p.key == METADATA_KEY)
    return ModelCard.model_validate_json(entry.value)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perception.training.export.release", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("output", help="the .onnx to write")
    parser.add_argument("--recipe", help="replaces the checkpoint's own, for what the card says")
    parser.add_argument("--data", help="replaces data.root of the recipe")
    arguments = parser.parse_args()
    try:
        card = release(arguments.checkpoint, arguments.output, arguments.data, arguments.recipe)
    except PerceptionError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    for name, value in card.metrics.items():
        sys.stdout.write(f"{name:40} {value:.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
