"""The command ``perception live``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import GENERAL, MODEL, Card, Model
from perception.errors import require

ADDRESS, ACCESS, SOURCES = "Address", "Access", "Sources"


def live(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="Video, camera number, rtsp:// or http:// URL, 'synthetic:'; a street clip by default.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 127.0.0.1: this machine only.", rich_help_panel=ADDRESS)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. 7860.", rich_help_panel=ADDRESS)] = None,
    model: Model = None,
    card: Card = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, openvino, onnxruntime, torch or tensorrt.", rich_help_panel=MODEL)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, f32, bf16, f16 or int8.", rich_help_panel=MODEL)] = None,
    user: Annotated[str | None, typer.Option(help="Name to log in with.", rich_help_panel=ACCESS)] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File that holds the password.", rich_help_panel=ACCESS)
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds a token for programs.", rich_help_panel=ACCESS)
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without credentials.", rich_help_panel=ACCESS)
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Other origin of pages that may use this server; repeatable.", rich_help_panel=ACCESS),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a reverse proxy whose X-Forwarded-For is believed; repeatable.", rich_help_panel=ACCESS
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="URLs that clients may open: 'rtsp://cam1.local/*'; repeatable.", rich_help_panel=SOURCES),
    ] = None,
    camera: Annotated[
        list[int] | None,
        typer.Option(help="Camera of this machine that clients may open; repeatable.", rich_help_panel=SOURCES),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for uploaded videos.", rich_help_panel=GENERAL)] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file, as configs/live.yaml; flags win.", rich_help_panel=GENERAL)
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page.", rich_help_panel=GENERAL)
    ] = True,
) -> None:
    """Serve the live page and the HTTP API: webcam, cameras, streams, videos, pictures.

    [bold]Examples[/bold]

      perception live

      perception live rtsp://camera/stream --model camvid

      perception live --host 0.0.0.0 --user me --password-file password.txt

      perception live --config configs/live.yaml
    """
    require("fastapi", "live", "the live server")
    require("gradio", "live", "the live server")
    from perception.server.app import serve
    from perception.server.settings import make_settings, read_secret, read_settings
    from perception.server.startup import announce, with_source

    given = {
        "host": host, "port": port, "model": model, "card": card, "engine": engine, "precision": precision,
        "user": user, "password": read_secret(password_file), "token": read_secret(token_file),
        "insecure": insecure or None, "origins": origin, "proxies": proxy, "allow": allow, "cameras": camera,
        "data_dir": data_dir,
    }  # fmt: skip
    values = {} if config is None else read_settings(config)
    values |= {name: value for name, value in given.items() if value is not None}
    settings = make_settings(with_source(values, source), config)
    serve(settings, started=lambda url: announce(url, settings, browser=browser))
