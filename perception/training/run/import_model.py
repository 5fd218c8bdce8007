"""A checkpoint made of a model file, as if training had just begun with its weights."""

from __future__ import annotations

from pathlib import Path

from perception.errors import ModelError
from perception.training.recipes.read import read_config
from perception.training.run.loop import Trainer
from perception.training.weights.compact import save_compact


def import_model(
    model: str | Path, recipe: str | Path, output: str | Path, data_root: str | Path | None = None
) -> None:
    """Write the weights of a model file to ``output``, as if training by ``recipe`` had just begun with them.

    A model can then stand where a checkpoint is needed: as a teacher, or as a network to prune.

    Args:
        model: an ``.onnx`` of ours or the name of a shipped one, see `perception.training.weights.onnx_import`.
        recipe: of the network in it.
        output: the ``.pt`` to write.
        data_root: replaces ``data.root`` of the recipe.

    Raises:
        ModelError: The model cannot be read, or is of another network.
        PerceptionError: Recipe or data are faulty.
    """
    trainer = Trainer(read_config(recipe, data_root))
    missing = trainer.start(Path(model))
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ModelError(f"not of the network in {recipe}, which also has {', '.join(missing[:5])}{more}", model)
    save_compact(trainer.state(), output)
