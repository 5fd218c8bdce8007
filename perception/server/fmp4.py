"""H.264 in fragmented MP4 over a WebSocket, for Media Source Extensions: one encoder for all viewers of equal options.

``WS /v1/streams/{id}/video?OPTIONS``. The server sends

1. text ``{"type": "video", "mime": "video/mp4; codecs=avc1.64001f", "width": 1280, "height": 720}``: make a
   SourceBuffer of that type, or where one is there already, start anew with ``changeType``;
2. binary: the initialisation segment, then media segments of one frame each, the first of which is a key frame;
3. text ``{"type": "status", ...}`` about once a second: the stream's status, see `perception.server.streams_api`.

1 and 2 come again where picture size or options change. Times of the segments run on from where they were, but do not
start at 0: after the first one set ``video.currentTime = sourceBuffer.buffered.start(0)``, and seek to the end where
playing falls back by more than a second. A viewer who takes too long loses whole groups of frames and goes on with the
next key frame.

The client may send text ``{"options": {...}}`` at any time to change its options, see `perception.server.options`.
"""
