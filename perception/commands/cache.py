"""The commands ``perception cache list`` and ``perception cache clear``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import typer

from perception.commands.options import Json, JsonCommand, JsonFile

if TYPE_CHECKING:
    from perception.engines.trt.cache import Entry

cache = typer.Typer(
    no_args_is_help=True,
    help="""List or clear the cache of TensorRT engines.

    [bold]Examples[/bold]

      perception cache list

      perception cache clear
    """,
)


@cache.command("list", cls=JsonCommand)
def cache_list(as_json: Json = False, json_file: JsonFile = None) -> None:
    """List the cached engines, the most recently used first.

    [bold]Examples[/bold]

      perception cache list

      perception cache list --json
    """
    from rich.markup import escape

    from perception.commands.terminal import write_json
    from perception.common.console import print_rows, stdout
    from perception.engines.trt.cache import EngineCache

    engines = EngineCache()
    rows = [_row(entry) for entry in engines.entries()]
    if write_json(rows, as_json, json_file):
        return
    if rows:
        print_rows(f"engines in {engines.folder}", [row | {"key": row["key"][:12]} for row in rows])
    else:
        stdout().print(f"no engines in {escape(str(engines.folder))}", soft_wrap=True)


@cache.command("clear")
def cache_clear() -> None:
    """Remove all cached engines.

    [bold]Example[/bold]

      perception cache clear
    """
    from perception.common.files import file_size
    from perception.common.text import counted
    from perception.engines.trt.cache import EngineCache

    count, size = EngineCache().clear()
    typer.echo(f"removed {counted(count, 'engine')}, {file_size(size)}")


def _row(entry: Entry) -> dict[str, Any]:
    fields = entry.fields
    return {
        "model": fields.get("model", "(damaged)"),
        "precision": fields.get("precision", ""),
        "shapes": fields.get("profile", ""),
        "for": ", ".join(fields.get("capabilities") or ()) or (fields.get("machine") or {}).get("gpu", ""),
        "by": f"{fields.get('flavour', '')} {fields.get('version', '')}".strip(),
        "MB": round(entry.size_bytes / 1e6, 1),
        "used": time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
        "key": entry.key,
    }
