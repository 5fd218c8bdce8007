"""Options that several commands share, spelled and explained the same in each."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from perception.common.precision import Precision, parse_precision

MODEL, INPUT, OUTPUT, DRAWING, GENERAL = "Model", "Input", "Output", "Drawing", "General"

EngineChoice = Literal["auto", "tensorrt", "openvino", "onnxruntime", "torch"]
PRECISION_METAVAR = "[auto|fp32|fp16|bf16|int8]"
MODEL_HELP = "Name of a model (see `perception models`), or an .onnx file."
ENGINE_HELP = "What runs the network; auto: TensorRT on an NVIDIA GPU, else OpenVINO."
PRECISION_HELP = "Arithmetic of the network; auto: the fastest on this machine, measured once."
DEVICE_HELP = "Device of the engine: CPU, GPU, GPU.1, NPU (openvino); cpu, cuda:1 (torch)."
DEVICE_DEFAULT = "CPU; with tensorrt, the first GPU"
IN_CARD = "from the model's card"


def _config(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        from perception.common.settings import load_config

        known = {p.name for p in ctx.command.params if p.name not in (None, "config", "help")}
        several = {p.name for p in ctx.command.params if getattr(p, "multiple", False)}
        values = {
            name: [value] if name in several and isinstance(value, str) else value  # one needs no brackets
            for name, value in load_config(path, known).items()
        }
        ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file of options, without the dashes: 'max-frames: 100'. Flags override it.",
        is_eager=True, callback=_config, rich_help_panel=GENERAL, show_default="no file",
    ),
]  # fmt: skip
Model = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP, rich_help_panel=MODEL)]
Card = Annotated[
    Path | None,
    typer.Option(
        help="Model card for an .onnx file made elsewhere: YAML file, or a name (`perception adapt --list-formats`).",
        show_default="the card in the file",
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
Engine = Annotated[EngineChoice, typer.Option(help=ENGINE_HELP, rich_help_panel=MODEL)]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", parser=parse_precision, metavar=PRECISION_METAVAR, help=PRECISION_HELP, rich_help_panel=MODEL
    ),
]
Device = Annotated[str, typer.Option(help=DEVICE_HELP, show_default=DEVICE_DEFAULT, rich_help_panel=MODEL)]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of the engine.", show_default="all cores", rich_help_panel=MODEL)
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Input size of the network, where the model allows others.", show_default=IN_CARD,
        rich_help_panel=MODEL,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Running:
    """What a model is run with, see `runs_a_model`."""

    engine: EngineChoice
    precision: Precision
    device: str
    threads: int | None
    size: tuple[int, int] | None

    def options(self) -> dict[str, Any]:
        """Return the arguments of `perception.load_model`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


_RUNNING: dict[str, tuple[Any, Any]] = {
    "engine": (Engine, "auto"),
    "precision": (PrecisionOption, "auto"),
    "device": (Device, "CPU"),
    "threads": (Threads, None),
    "size": (Size, None),
}


def runs_a_model(command: Callable[Concatenate[Running, ...], None]) -> Callable[..., None]:
    """Give a command ``--engine``, ``--precision``, ``--device``, ``--threads`` and ``--size``.

    They stand behind ``--model`` and ``--card``; its first parameter, ``running``, is given what they say.
    """
    own = inspect.signature(command, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in _RUNNING.items()
    ]
    _, *parameters = own.parameters.values()
    behind = max(n for n, parameter in enumerate(parameters, 1) if parameter.name in ("model", "card"))
    parameters[behind:behind] = shared

    @functools.wraps(command)
    def run(**values: Any) -> None:
        from perception.common.settings import size

        given = {name: values.pop(name) for name in _RUNNING}
        command(Running(**{**given, "size": size(given["size"])}), **values)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


Things = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS=BOX+BOX,...", help="Panoptic: which classes of boxes belong to which class of pixels.",
        show_default=IN_CARD, rich_help_panel=MODEL,
    ),
]  # fmt: skip
Unknown = Annotated[
    float,
    typer.Option(
        min=0, max=1, rich_help_panel=MODEL,
        help="Leave pixels unknown of which the network is not sure: so large a part of those that it has right.",
    ),
]  # fmt: skip
Stages = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE:FUNCTION", show_default="none", rich_help_panel=MODEL,
        help="Step on predictions before they are drawn: a function or class of yours, or 'panoptic'; repeatable.",
    ),
]  # fmt: skip
Track = Annotated[
    bool, typer.Option("--track", help="Follow boxes: each gets an identity that stays.", rich_help_panel=MODEL)
]
Smooth = Annotated[
    bool,
    typer.Option("--smooth", help="Steady masks in time, along the motion of the picture.", rich_help_panel=MODEL),
]
Decoder = Annotated[
    Literal["auto", "cpu", "nvdec"],
    typer.Option(help="What decodes video; auto: NVDEC on an NVIDIA GPU, else the CPU.", rich_help_panel=INPUT),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, and nothing else.", rich_help_panel=GENERAL)
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        help="Write the same JSON to a file as well.", show_default="not written", rich_help_panel=GENERAL
    ),
]  # fmt: skip


class JsonCommand(TyperCommand):
    """A command with ``--json``, which took a path once: ``--json -`` and ``--json FILE.json`` still work."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the line in today's spelling."""
        return super().parse_args(ctx, respell_json(args))


class JsonGroup(TyperGroup):
    """The same for a command that has commands of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the line in today's spelling."""
        return super().parse_args(ctx, respell_json(args))


def respell_json(args: Sequence[str]) -> list[str]:
    """Rewrite ``--json -`` as ``--json`` and ``--json FILE.json`` as ``--json-file FILE.json``, with a warning."""
    log = logging.getLogger("perception")
    rest = list(args)
    written: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*written, word, *rest]
        name, equals, value = word.partition("=")
        if name == "--json" and (equals or (rest and (rest[0] == "-" or rest[0].endswith(".json")))):
            value = value if equals else rest.pop(0)
            written += ["--json"] if value == "-" else ["--json-file", value]
            log.warning("--json %s is now spelled %s", value, " ".join(written[-1:] if value == "-" else written[-2:]))
        else:
            written.append(word)
    return written
