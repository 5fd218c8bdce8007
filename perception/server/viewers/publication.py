"""Publishing an annotated stream to where its operator wants it, for as long as the stream lasts.

``publish:`` of a source in the settings names the targets, see `perception.publishing.address`. No client can set it
or see it: a target is another host, or a folder of this one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from perception.errors import PerceptionError
from perception.server.streams.stream import Stream
from perception.server.viewers.feeding import feed
from perception.sinks.publish import PublishSink
from perception.types import Frame, SourceInfo

log = logging.getLogger("perception")


PUBLIC = 0o022
"""Umask of what is published as HLS: a web server reads it. All else that the service writes is private."""


class Publication:
    """Publishes one stream, drawn as by default, in a thread of its own. It counts as a viewer of the stream.

    Args:
        stream: what is published.
        addresses: where to; a playlist of HLS that is there is replaced.

    Raises:
        UsageError: an address is wrong, or not for this FFmpeg.
        SinkError: a folder is not writable.
        Busy: the stream is being drawn with too many different options already.
    """

    def __init__(self, stream: Stream, addresses: Sequence[str]) -> None:
        self._stream = stream
        self._sink = PublishSink(addresses, overwrite=True, umask=PUBLIC)
        self._subscription = stream.subscribe()
        self._thread = threading.Thread(target=self._run, name=f"perception-publish {stream.id}", daemon=True)
        self._thread.start()

    def status(self) -> list[dict[str, Any]]:
        """How each target does, for JSON; nothing of where it is. Empty before the first frame."""
        return [
            {
                "kind": each.kind, "state": each.state, "sent": each.sent, "dropped": each.dropped,
                "connections": each.connections, "message": each.problem,
            }
            for each in self._sink.status
        ]  # fmt: skip

    def close(self) -> None:
        """End it. Returns when the targets have had what was left, or are known not to take it."""
        self._subscription.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            feed(self._sink, self._subscription, self._stream.model.card, self._info)
        except PerceptionError as error:
            log.warning("stream %s: %s", self._stream.id, error)
        except Exception:
            log.exception("publishing stream %s", self._stream.id)
        finally:
            self._subscription.close()

    def _info(self, frame: Frame) -> SourceInfo:
        info = self._stream.info
        fps = None if info is None else info.fps
        return SourceInfo(self._stream.name, "stream", frame.width, frame.height, fps=fps, live=True)
