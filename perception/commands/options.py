"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

MODEL, INPUT, OUTPUT, DRAWING, GENERAL = "Model", "Input", "Output", "Drawing", "General"


def _config(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        from perception.common.settings import load_config

        known = {p.name for p in ctx.command.params if p.name not in (None, "config", "help")}
        ctx.default_map = {**(ctx.default_map or {}), **load_config(path, known)}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="YAML file that sets what flags set; flags win.", is_eager=True, callback=_config,
        rich_help_panel=GENERAL,
    ),
]  # fmt: skip
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name or .onnx file of the model.", rich_help_panel=MODEL)
]
Card = Annotated[Path | None, typer.Option(help="YAML card for an .onnx file that has none.", rich_help_panel=MODEL)]
Engine = Annotated[
    Literal["auto", "openvino", "onnxruntime", "torch", "tensorrt"],
    typer.Option(help="What runs the network.", rich_help_panel=MODEL),
]
Precision = Annotated[
    Literal["auto", "f32", "bf16", "f16", "int8"],
    typer.Option(
        help="Arithmetic inside the network; auto takes what this machine is fastest in.", rich_help_panel=MODEL
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the engine.", rich_help_panel=MODEL)]
Size = Annotated[
    str | None, typer.Option(metavar="WxH", help="Input of the network, if it takes others.", rich_help_panel=MODEL)
]
Decoder = Annotated[
    Literal["auto", "cpu", "nvdec"],
    typer.Option(help="What decodes video; auto: NVDEC where there is an NVIDIA GPU.", rich_help_panel=INPUT),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON too ('-': standard output).")]
