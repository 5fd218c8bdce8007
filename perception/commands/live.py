"""The command ``perception live``."""

from __future__ import annotations

import os
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import (
    DEVICE_DEFAULT,
    DEVICE_HELP,
    ENGINE_HELP,
    GENERAL,
    MODEL,
    MODEL_HELP,
    PRECISION_HELP,
    PRECISION_METAVAR,
    Card,
    EngineChoice,
    Smooth,
    Stages,
    Track,
)
from perception.common.distribution import require
from perception.common.precision import Precision, parse_precision
from perception.common.private import read_secret
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.server.settings import ServerSettings

ADDRESS, ACCESS, SOURCES = "Address", "Access", "Sources"


def live(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Video, camera number, rtsp:// or http:// URL, 'synthetic:'.",
            show_default="a street clip",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on; 0.0.0.0: all networks.", show_default="127.0.0.1, this machine only",
            rich_help_panel=ADDRESS,
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0: a free one.", show_default="7860", rich_help_panel=ADDRESS)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help=MODEL_HELP, show_default=DEFAULT_MODEL, rich_help_panel=MODEL),
    ] = None,
    card: Card = None,
    engine: Annotated[
        EngineChoice | None, typer.Option(help=ENGINE_HELP, show_default="auto", rich_help_panel=MODEL)
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(
            parser=parse_precision, metavar=PRECISION_METAVAR, help=PRECISION_HELP, show_default="auto",
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help=DEVICE_HELP, show_default=DEVICE_DEFAULT, rich_help_panel=MODEL)
    ] = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, show_default="0", rich_help_panel=MODEL,
            help="Unknown pixels: where the page's slider begins. So large a part of the right ones stays uncoloured.",
        ),
    ] = None,
    track: Track = False,
    smooth: Smooth = False,
    stage: Stages = None,
    user: Annotated[
        str | None, typer.Option(help="User name for logging in.", show_default="no login", rich_help_panel=ACCESS)
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with the user's password.", show_default="no login", rich_help_panel=ACCESS),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token for programs.", show_default="no token", rich_help_panel=ACCESS),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Allow access from other machines without credentials.", rich_help_panel=ACCESS
        ),
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of other web pages that may use this server; may be repeated.",
            show_default="the server's own page only", rich_help_panel=ACCESS,
        ),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a reverse proxy whose X-Forwarded-For is trusted; may be repeated.",
            show_default="none", rich_help_panel=ACCESS,
        ),
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(
            help="Path of a reverse proxy under which browsers find the server, such as /perception.",
            show_default="none: a host of its own", rich_help_panel=ADDRESS,
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="URLs that clients may open: 'rtsp://cam1.local/*'; may be repeated.", show_default="none",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    camera: Annotated[
        list[int] | None,
        typer.Option(
            help="Camera of this machine that clients may open; may be repeated.", show_default="none",
            rich_help_panel=SOURCES,
        ),
    ] = None,
    edit_sources: Annotated[
        bool | None,
        typer.Option(
            "--edit-sources/--no-edit-sources",
            help="Let clients add sources that --allow and --camera permit, and pause any.",
            show_default="they may where credentials are required", rich_help_panel=SOURCES,
        ),
    ] = None,
    draw_rules: Annotated[
        bool | None,
        typer.Option(
            "--draw-rules/--no-draw-rules", help="Let clients draw lines and zones over the picture.",
            show_default="they may", rich_help_panel=SOURCES,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for uploaded videos and recordings.", show_default="in the user's data folder",
            rich_help_panel=GENERAL,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of settings, such as configs/live.yaml. Flags override it. SIGHUP reads its sources anew.",
            show_default="no file",
            rich_help_panel=GENERAL,
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.", rich_help_panel=GENERAL)
    ] = True,
) -> None:  # fmt: skip
    """Serve the live page and the HTTP API: webcam, cameras, streams, videos, pictures.

    [bold]Examples[/bold]

      perception live

      perception live rtsp://camera/stream --model camvid

      perception live --host 0.0.0.0 --user me --password-file password.txt

      perception live --config configs/live.yaml
    """
    require("fastapi", "live", "the live server")
    require("gradio", "live", "the live server")
    began = time.monotonic()
    _tell("preparing; the first start on a machine takes up to a minute, later ones take seconds")
    from perception.server.app import serve
    from perception.server.settings import make_settings, read_settings
    from perception.server.startup import with_source

    given = {
        "host": host, "port": port, "model": model, "card": card, "engine": engine, "precision": precision,
        "device": device, "unknown": unknown, "user": user, "password": read_secret(password_file),
        "token": read_secret(token_file), "insecure": insecure or None, "origins": origin, "proxies": proxy,
        "root_path": root_path, "allow": allow, "cameras": camera, "data_dir": data_dir, "stages": stage,
        "draw_rules": draw_rules, "edit_sources": edit_sources,
    }  # fmt: skip

    def read() -> ServerSettings:
        values = {} if config is None else read_settings(config)
        values |= {name: value for name, value in given.items() if value is not None}
        for name in [name for name, wanted in {"track": track, "smooth": smooth}.items() if wanted]:
            named = values.get("stages", ())
            named = [named] if isinstance(named, str) else named
            values["stages"] = [name, *(other for other in named if other != name)]
        return make_settings(with_source(values, source), config)

    settings = read()
    serve(
        settings,
        started=lambda url: _announce(url, settings, browser),
        ready=lambda what: _tell(f"ready after {time.monotonic() - began:.0f} s: {what}"),
        reread=None if config is None else read,
    )


def _tell(text: str) -> None:
    """Print a line of the log: the time of day, and how far the server is."""
    from rich.markup import escape

    from perception.common.console import stderr

    stderr().print(f"{time.strftime('%H:%M:%S')} {escape(text)}")


def _show_to_phones(url: str, host: str) -> None:
    """Print the address in the network, and a QR code of it where standard error is a terminal with colours."""
    from rich.markup import escape

    from perception.commands.phone import network_url, qr_code
    from perception.common.console import stderr

    console, address = stderr(), network_url(url, host)
    console.print(f"On a phone: {escape(address)}")
    if console.is_terminal and console.color_system is not None:
        for line in qr_code(address):
            console.print(f"[black on bright_white]{line}[/]")


def _announce(url: str, settings: ServerSettings, browser: bool) -> None:
    """Print where the server is and who can reach it; open the page where there is a screen to open it on."""
    from rich.markup import escape

    from perception.common.console import stderr, stdout
    from perception.server.startup import warnings

    stdout().print(f"perception live: {escape(url)}", soft_wrap=True)
    for line in [] if settings.local else warnings(url, settings):
        stderr().print(f"[yellow]{escape(line)}[/]")
    if not settings.local:
        _show_to_phones(url, settings.host)
    stderr().print("Press Ctrl-C to stop.")
    screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and screen and sys.stdout.isatty():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
