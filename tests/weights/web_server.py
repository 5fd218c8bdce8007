"""A web server on loopback that serves one file, breaks off where it is told to, and knows ranges or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What the server does.

    Attributes:
        data: the file.
        ranges: whether it answers requests for a part.
        break_after: bytes of an answer after which the connection is cut; None never does.
        asked: the ``Range`` header of every request.
    """

    data: bytes
    ranges: bool = True
    break_after: int | None = None
    url: str = ""
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serve(data: bytes, ranges: bool = True) -> Iterator[Served]:
    served = Served(data, ranges)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append(wanted)
            if self.path != "/model.onnx":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and served.ranges else 0
            if start and start >= len(served.data):
                self.send_error(416)
                return
            body = served.data[start:]
            self.send_response(206 if wanted and served.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: served.break_after])
            if served.break_after is not None:
                self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/model.onnx"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
