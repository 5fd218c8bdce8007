"""A real HTTP server and a real broker that tests send events to."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perception.events.event import Event
from perception.events.outbox import Letter

needs_mosquitto = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto (tests/apt.txt)")


def event(number: int = 0, **changed: Any) -> Event:
    values = {"kind": "crossed", "source": "yard", "rule": "gate", "source_time": number / 10, "count": number}
    return Event(**{**values, "direction": "in", "track_id": number + 1, "class_name": "car", **changed})


def letter(number: int = 0, **changed: Any) -> Letter:
    made = event(number, **changed)
    return Letter(made.id, made.to_json())


def wait_for(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class HttpReceiver:
    """A server that keeps what is posted to it.

    Attributes:
        requests: path, headers with lower-case names, and body.
        answer: makes status and headers of the answer to the n-th request.
    """

    def __init__(self, answer: Callable[[int], tuple[int, dict[str, str]]] = lambda number: (200, {})) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer = answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                status, more = receiver.answer(len(receiver.requests) - 1)
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> HttpReceiver:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Broker:
    """A mosquitto of our own on a port of its own, that can be killed and started again."""

    def __init__(self, folder: Path, *settings: str, anonymous: bool = True) -> None:
        self.port = free_port()
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", "user root", *settings]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(["mosquitto", "-c", str(self._config)], stdout=log, stderr=log)
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


class Subscriber:
    """A client that keeps all that it gets, and connects again when its connection ends.

    It subscribes with quality of service 0: the broker then writes a message to it before it acknowledges it to whoever
    published it, whereas it may keep others in memory, where a kill loses them.
    """

    def __init__(self, port: int, topic: str = "#", **credentials: str) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[tuple[str, str, bool]] = []
        self.subscribed = threading.Event()
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        if credentials:
            client.username_pw_set(**credentials)
        client.on_connect = lambda *_: client.subscribe(topic)
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_disconnect = lambda *_: self.subscribed.clear()
        client.on_message = lambda _c, _d, m: self.messages.append((m.topic, m.payload.decode(), m.retain))
        client.reconnect_delay_set(0.02, 0.1)  # type: ignore[arg-type]
        client.connect_async("127.0.0.1", port)
        client.loop_start()
        assert self.subscribed.wait(30)

    def of(self, end: str) -> list[str]:
        return [payload for topic, payload, _ in list(self.messages) if topic.endswith(end)]

    def publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
