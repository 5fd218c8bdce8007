"""An application on a real port of 127.0.0.1, in a thread, for as long as a test needs it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from perception.server.edge.connections import make_config
from perception.server.settings import Limits


@contextmanager
def served(app: Any, limits: Limits | None = None) -> Iterator[str]:
    """Serve ``app``; gives ``127.0.0.1:PORT``. It has started when this yields and ended when it returns."""
    listener = socket.create_server(("127.0.0.1", 0))
    rates = getattr(getattr(app, "state", None), "rates", None)
    server = uvicorn.Server(make_config(app, limits or Limits(share=1), rates=rates))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            threading.Event().wait(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()
