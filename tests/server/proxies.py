"""Real reverse proxies in front of a server, with the configuration that docs/reverse-proxy.md gives."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server.waiting import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "reverse-proxy.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
CADDY = shutil.which("caddy")


def documented(language: str, server: str) -> str:
    """The page's piece of configuration, for the server at ``127.0.0.1:PORT``."""
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert "127.0.0.1:7860" in text
    return str(text).replace("127.0.0.1:7860", server)


@contextmanager
def nginx(folder: Path, server: str, change: tuple[str, str] = ("", "")) -> Iterator[str]:
    """The address of an nginx in front of ``server``; ``change`` replaces a text of its configuration."""
    if NGINX is None:
        pytest.skip("there is no nginx here (`apt-get install nginx-light`)")
    port = _free_port()
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    location = documented("nginx", server).replace(*change) if change[0] else documented("nginx", server)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}types {{ text/plain other; }}\n"
        f"server {{ listen 127.0.0.1:{port};\n{location}\n"
        'location / { default_type text/plain; return 404 "not under the path"; } } }\n'
    )
    with _running([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder, port) as address:
        yield address


@contextmanager
def caddy(folder: Path, server: str) -> Iterator[str]:
    """The address of a Caddy in front of ``server``."""
    if CADDY is None:
        pytest.skip("there is no Caddy here (`apt-get install caddy`)")
    port = _free_port()
    (folder / "Caddyfile").write_text(
        "{\nadmin off\nauto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n{documented('caddy', server)}\nrespond 404\n}}\n"
    )
    command = [CADDY, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with _running(command, folder, port) as address:
        yield address


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[str]:
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        )
    try:
        wait_for(lambda: process.poll() is not None or _answers(port), 30)
        assert process.poll() is None, (folder / "said").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
