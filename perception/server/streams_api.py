"""Routes of the streams: server-side sources, annotated once, for any number of viewers.

| route | what |
|---|---|
| ``GET /v1/streams`` | ``{"sources": [names that may be opened], "streams": [status, ...]}`` |
| ``POST /v1/streams`` | ``{"source": name, URL or camera, "model": name or null}``: status; 201, or 200 if open |
| ``GET /v1/streams/{id}`` | its status; ``DELETE`` closes it, for all viewers |
| ``GET /v1/streams/{id}/mjpeg?OPTIONS`` | ``multipart/x-mixed-replace`` of JPEG, for ``<img src>`` |
| ``WS /v1/streams/{id}/video?OPTIONS`` | H.264 in fragmented MP4, see `perception.server.fmp4` |
| ``GET /v1/streams/{id}/snapshot?OPTIONS`` | the newest annotated picture as PNG; ``annotated=false``: as it came |
| ``POST /v1/streams/{id}/recordings?OPTIONS`` | start an MP4 of the annotated stream: a recording's status, 201 |
| ``GET /v1/recordings/{id}`` | its status; ``POST /v1/recordings/{id}/stop`` finishes it; ``DELETE`` throws it away |
| ``GET /v1/recordings/{id}/video`` | the MP4, once it is finished (409 before) |

OPTIONS are those of `perception.server.options.Options` as query parameters:
``?opacity=0.4&legend=false&classes=car,road&score=0.3``. Viewers with equal options share one drawing and one encoder.

A status is JSON::

    {"id": "3f2a9c10", "name": "street", "model": "camvid", "state": "running", "message": "",
     "width": 1280, "height": 720, "fps": 29.9, "latency_ms": {"p50": 21.0, "p95": 30.2},
     "frames": 812, "dropped": 3, "reconnects": 0, "viewers": 2, "engine": "OpenVINO ...",
     "legend": [{"id": 3, "name": "road", "color": "#804080", "share": 0.31}, ...],     # in view, largest first
     "boxes": 4, "age_s": 0.04}

``state`` is one of ``connecting, running, stalled, reconnecting, ended, failed``; ``message`` says why where it is not
``running``. A stream that nobody watches, records or asks for is closed after a minute.
"""
