"""The commands ``perception models``, with ``show``, ``get`` and ``catalogue``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perception.commands.options import INPUT, MODEL_HELP, Json, JsonCommand, JsonFile, JsonGroup, Overwrite

if TYPE_CHECKING:
    from perception.weights.library import ModelFile


class ModelsGroup(JsonGroup):
    """Commands, and ``perception models NAME``: a word that is no command is a model to show."""

    otherwise = "show"

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or else `show`."""
        return super().resolve_command(ctx, args if args[0] in self.commands else [self.otherwise, *args])


models = typer.Typer(
    cls=ModelsGroup,
    invoke_without_command=True,
    help="""List the models that can be used by name, show one, fetch other people's.

    Whether commercial use is allowed is what the licences of a model's sources say, as their publishers state them (the
    card lists them: `perception models NAME`). It is no legal advice.

    [bold]Examples[/bold]

      perception models

      perception models street-open

      perception models --json

      perception models get yolox-tiny
    """,
)

Catalogue = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of the models that can be fetched.", show_default="the one that ships", rich_help_panel=INPUT
    ),
]  # fmt: skip


@models.callback()
def list_all(ctx: typer.Context, as_json: Json = False, json_file: JsonFile = None) -> None:
    """List the models that can be used by name."""
    if ctx.invoked_subcommand is not None:
        return
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
        row["default"] = "yes" if row["default"] else ""
        row["commercial_use"] = {True: "allowed", False: "not allowed", None: ""}[row["commercial_use"]]
    print_rows("models", rows)


@models.command("show", cls=JsonCommand)
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Show the card of a model. `perception models MODEL` is short for it.

    [bold]Examples[/bold]

      perception models show street-open

      perception models show mine.onnx --json
    """
    from perception.card import read_card
    from perception.commands.terminal import write_json
    from perception.weights.library import find_model

    path = find_model(model)
    card = read_card(path).model_dump(mode="json", exclude_none=True)
    if write_json({"path": str(path), **card}, as_json, json_file):
        return
    import yaml

    for task in ("segmentation", "detection", "classification"):
        if task in card:  # colours are in the JSON
            card[task]["classes"] = [one["name"] for one in card[task]["classes"]]
    text = yaml.safe_dump(
        {"path": str(path), **card}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    typer.echo(text, nl=False)


@models.command("get")
def get(
    name: Annotated[str, typer.Argument(help="Name in the catalogue.")],
    catalogue: Catalogue = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Fetch it although its licence restricts commercial use.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a model of the catalogue; it can be used by its name then. A broken download is resumed.

    [bold]Example[/bold]

      perception models get yolox-tiny
    """
    from perception.commands.terminal import progress_bar
    from perception.weights.catalogue import CATALOGUE, get_model, read_catalogue

    path = catalogue or CATALOGUE
    with progress_bar(name) as moved:
        target = get_model(
            name, catalogue=path, accept_licence=accept_licence, overwrite=overwrite,
            progress=None if moved is None else lambda done, total: moved(done, total or 0),
        )  # fmt: skip
    entry = read_catalogue(path)[name]
    typer.echo(f"{target} ({entry.licence}{f'; {entry.expected}' if entry.expected else ''})")


@models.command("catalogue", cls=JsonCommand)
def list_catalogue(catalogue: Catalogue = None, as_json: Json = False, json_file: JsonFile = None) -> None:
    """List the models that can be fetched, with their licences and what accuracy to expect.

    [bold]Example[/bold]

      perception models catalogue --json
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.weights.catalogue import CATALOGUE, read_catalogue

    entries = read_catalogue(catalogue or CATALOGUE)
    rows = [{"name": name, **entry.model_dump(exclude={"card"})} for name, entry in entries.items()]
    if write_json(rows, as_json, json_file):
        return
    shown = ("name", "about", "licence", "expected")
    print_rows("models that can be fetched", [{key: row[key] for key in shown} for row in rows])


def _row(model: ModelFile) -> dict[str, Any]:
    from perception.weights.library import DEFAULT_MODEL

    card = model.card
    return {
        "name": model.name,
        "default": model.name == DEFAULT_MODEL,
        "version": card.version,
        "tasks": ", ".join(card.tasks),
        "input": f"{card.input.width}x{card.input.height}",
        "MB": round(model.size_bytes / 1e6, 1),
        "licence": card.licence,
        "commercial_use": card.commercial_use,
        "metrics": card.metrics,
        "from": model.origin,
        "path": str(model.path),
    }
