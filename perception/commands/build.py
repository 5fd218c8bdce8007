"""The command ``perception build``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perception.commands.options import IN_CARD, MODEL, MODEL_HELP, Card
from perception.common.precision import Precision, parse_precision

if TYPE_CHECKING:
    from perception.engines.trt.build import Built


def build(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    card: Card = None,
    flavour: Annotated[
        Literal["auto", "tensorrt", "rtx"],
        typer.Option(help="TensorRT, or TensorRT for RTX (desktop GPUs); auto: the one that is installed."),
    ] = "auto",
    precision: Annotated[
        Precision,
        typer.Option(
            parser=parse_precision, metavar="[fp32|fp16|bf16|int8]",
            help="Precision of convolutions and matrix products.",
        ),
    ] = "fp16",
    batch: Annotated[int, typer.Option(min=1, max=8, help="Maximum number of frames per call.")] = 1,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="Input size, or 'dynamic'.", show_default=IN_CARD, rich_help_panel=MODEL
        ),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help="GPUs to build for, on a machine without one: 75,80,86,89,120 (rtx only).",
            show_default="this machine's GPU; without one, 8.0 and later",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Build a TensorRT engine and cache it, so that the first frame does not wait for it.

    [bold]Examples[/bold]

      perception build street-open

      perception build street-open --flavour rtx --precision fp16 --compute-capability 75,80,86,89,120
    """
    from perception.commands.terminal import working
    from perception.common.settings import names
    from perception.engines.trt.build import build_model
    from perception.weights.library import find_with_card

    with working(model, "building an engine") as progress:
        built = build_model(
            *find_with_card(model, card), flavour=flavour, precision=precision, batch=batch, size=size,
            capabilities=tuple(names(compute_capability) or ()), progress=progress,
        )  # fmt: skip
    _print(built)


def _print(built: Built) -> None:
    from rich.markup import escape

    from perception.common.console import stdout
    from perception.common.files import file_size

    recipe, engine = built.recipe, built.engine
    target = f"compute capability {', '.join(recipe.capabilities)}" if recipe.capabilities else "this GPU"
    how = f"built in {built.seconds:.1f} s: {engine.built}" if engine.built else "cached"
    lines = [
        f"[bold]{escape(recipe.model)}[/] {recipe.precision} for {target}, {file_size(len(engine.plan))}",
        f"  {escape(how)}",
        f"  {escape(str(built.inspection))}",
        f"  {escape(recipe.flavour.title)}, {escape(str(recipe.profile))}",
        f"  {escape(str(engine.path or 'not kept'))}",
    ]
    stdout().print("\n".join(lines), soft_wrap=True)
