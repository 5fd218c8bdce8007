"""The encoders of the live view are sinks as any other: a run over a file drives them as a live stream does."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from perception.drawing.annotator import Annotator
from perception.model import Model, load_model
from perception.pipeline import run
from perception.server.viewers.fragmented_mp4 import FragmentedMp4Sink, Segment
from perception.server.viewers.motion_jpeg import BOUNDARY, MotionJpegSink
from perception.sources import open_source
from tests.media import make_video, read_stamp
from tests.models import write_model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=12, size_wh=(160, 96))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(
        write_model(tmp_path_factory.mktemp("model") / "boxes.onnx", segmentation=False, classification=True)
    )


def test_motion_jpeg_of_a_file(clip: Path, model: Model) -> None:
    parts: list[bytes] = []
    run(open_source(str(clip)), model, sinks=[MotionJpegSink(parts.extend)], annotator=Annotator(model.card))
    numbers = []
    for part in parts:
        head, _, rest = part.partition(b"\r\n\r\n")
        length = int(head.rpartition(b" ")[2])
        assert rest[length:] == f"\r\n--{BOUNDARY}\r\n".encode()
        numbers.append(read_stamp(cv2.imdecode(np.frombuffer(rest[:length], np.uint8), cv2.IMREAD_COLOR)))
    assert numbers == list(range(12))


def test_fragmented_mp4_of_a_file_with_a_viewer_who_comes_in_the_middle(clip: Path, model: Model) -> None:
    given: list[Segment] = []
    sink = FragmentedMp4Sink(given.extend)
    run(open_source(str(clip)), model, sinks=[sink], annotator=Annotator(model.card))
    assert [segment.key for segment in given] == [True] + 11 * [False]
    sink.greet()
    run(open_source(str(clip)), model, sinks=[sink], annotator=Annotator(model.card))
    first, second = given[:12], given[12:]
    for segments in (first, second):
        assert segments[0].key
        data = segments[0].head.data + b"".join(segment.data for segment in segments)
        with av.open(io.BytesIO(data)) as container:
            shown = [read_stamp(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
        assert shown == list(range(12))
    assert first[0].head is not second[0].head  # an encoder is given back with the source it was for
