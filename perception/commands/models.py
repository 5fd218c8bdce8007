"""The command ``perception models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perception.commands.options import Json, JsonFile

if TYPE_CHECKING:
    from perception.weights.library import ModelFile


def models(as_json: Json = False, json_file: JsonFile = None) -> None:
    """List the models that can be used by name.

    [bold]Examples[/bold]

      perception models

      perception models --json
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.weights.library import list_models

    rows = [_row(model) for model in list_models()]
    if write_json(rows, as_json, json_file):
        return
    for row in rows:
        del row["path"]
        # The one that a card lists first is its headline; the rest are in the JSON.
        row["metrics"] = next((f"{name} {value:.3f}" for name, value in row["metrics"].items()), "")
    print_rows("models", rows)


def _row(model: ModelFile) -> dict[str, Any]:
    card = model.card
    return {
        "name": card.name,
        "version": card.version,
        "tasks": ", ".join(card.tasks),
        "input": f"{card.input.width}x{card.input.height}",
        "MB": round(model.size_bytes / 1e6, 1),
        "licence": card.licence,
        "metrics": card.metrics,
        "path": str(model.path),
    }
