"""Tracking on what the server shows: streams, webcams, jobs; and on pictures none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from perception import load_model, open_source
from perception.server.app import create_app
from perception.server.inference.scheduler import Scheduler
from perception.server.options import Options
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.viewers.messages import pack, unpack
from perception.stages.factories import find_stage
from perception.types import Detections, Frame, Prediction
from tests.media import make_image, make_video
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.test_stages import square
from tests.server.test_webcam import ask, frame, gray_with_square
from tests.server.waiting import wait_for

TRACKED = Options(track=True)


@pytest.fixture(scope="module")
def scheduler(colors: Path) -> Iterator[Scheduler]:
    with load_model(colors, precision="fp32") as model, Scheduler(model) as made:
        yield made


def stream_of(scheduler: Scheduler, uri: Path, *names: str) -> Any:
    options: dict[str, Any] = {"reconnect": False, "loop": True, "timeouts": Timeouts(age=60.0)}
    found = [find_stage(name) for name in names]
    return closing(Stream("s", "s", lambda: open_source(uri), scheduler, stages=found, **options))


def ids_of(prediction: Prediction) -> list[int]:
    assert prediction.detections is not None and prediction.detections.track_ids is not None
    return prediction.detections.track_ids.tolist()


def test_options_ask_for_boxes_of_low_score_and_begin_with_those_that_the_user_wants(scheduler: Scheduler) -> None:
    card = scheduler.model.card
    assert card.detection is not None
    usual = card.detection.score_threshold
    assert Options().stages(card) == []
    least = TRACKED.detection(card).score_threshold
    assert isinstance(least, float) and 0 < least < usual
    assert [stage.name for stage in TRACKED.stages(card)] == ["track"]
    # the card's own threshold, which the page always sends, is none of the user's
    assert Options(track=True, score=usual).interpretation(card) == TRACKED.interpretation(card)
    assert Options(track=True, opacity=0.1).interpretation(card) == TRACKED.interpretation(card)
    assert Options(track=True, score=0.9).interpretation(card) != TRACKED.interpretation(card)
    assert Options().interpretation(card) != TRACKED.interpretation(card)
    # where the operator tracks, all is tracked, and once
    operator = [find_stage("panoptic"), find_stage("track")]
    assert [stage.name for stage in TRACKED.stages(card, operator)] == ["panoptic", "track"]
    assert Options().detection(card, operator) == TRACKED.detection(card)


def test_viewers_who_draw_it_otherwise_see_the_same_identities(scheduler: Scheduler, tmp_path: Path) -> None:
    uri = make_image(tmp_path / "square.png", square())
    with stream_of(scheduler, uri) as stream, stream.subscribe(TRACKED) as first:
        wait_for(lambda: ids_of(first.next(30)) == [1])
        with stream.subscribe(Options(track=True, opacity=0.2)) as second, stream.subscribe() as plain:
            assert ids_of(second.next(30)) == [1]
            assert first.next(30).trails
            untracked = plain.next(30).detections
            assert untracked is not None and untracked.track_ids is None and len(untracked) == 1


def test_the_operator_tracks_for_everybody(scheduler: Scheduler, tmp_path: Path) -> None:
    uri = make_image(tmp_path / "square.png", square())
    with stream_of(scheduler, uri, "track") as stream, stream.subscribe() as viewer:
        wait_for(lambda: ids_of(viewer.next(30)) == [1])
        with stream.subscribe(TRACKED) as other:
            assert ids_of(other.next(30)) == [1]


@pytest.fixture(scope="module")
def server(make: Any) -> Iterator[httpx.Client]:
    with (
        served(create_app(make(stages=["track"]))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        yield client


def test_a_picture_has_its_boxes_and_no_identities(server: httpx.Client) -> None:
    content = cv2.imencode(".png", square())[1].tobytes()
    for params in ({}, {"track": True}):
        answer = server.post("/v1/predict", content=content, headers={"content-type": "image/png"}, params=params)
        [box] = answer.json()["detections"]
        assert box["class"] == "red" and "track_id" not in box


def test_a_webcam_tracks_where_it_is_asked_to(server: httpx.Client, make: Any) -> None:
    with served(create_app(make())) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        wait_until_ready(client)
        with connect(f"ws://{address}/v1/webcam", open_timeout=30, close_timeout=30) as webcam:
            plain = ask(webcam, frame(0, gray_with_square())).detections
            assert len(plain) == 1 and plain.track_ids is None
            ask(webcam, {"track": True})
            ids = []
            for number in range(1, 8):
                ask(webcam, {"map_cells": 16 * number})  # leaves the tracker as it is
                found = ask(webcam, frame(number, gray_with_square())).detections
                ids += [] if found.track_ids is None else found.track_ids.tolist()
            assert len(ids) >= 5 and set(ids) == {1}
            ask(webcam, {"track": False})
            assert ask(webcam, frame(9, gray_with_square())).detections.track_ids is None


def test_a_job_writes_identities(server: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "square.mp4"
    make_video(path, frames=20, size_wh=(64, 48), images=[square()] * 20)
    made = server.post(
        "/v1/jobs", content=path.read_bytes(), headers={"content-type": "video/mp4"}, params={"track": True}
    )
    job = made.headers["location"]
    wait_for(lambda: server.get(job).json()["state"] in ("done", "failed"), 120)
    lines = [json.loads(line) for line in server.get(f"{job}/jsonl").text.splitlines()]
    tracks = [d["track_id"] for line in lines for d in line["detections"]]
    assert len(tracks) >= 16 and set(tracks) == {1}


def test_messages_carry_identities() -> None:
    ids = np.array([7, 2**32 - 1, 3], np.int64)
    found = Detections(
        np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0.9, 0.5, 0.1], np.float32),
        np.array([1, 0, 1], np.int32), ids,
    )  # fmt: skip
    prediction = Prediction(Frame(np.zeros((48, 64, 3), np.uint8)), found)
    message = pack(5, prediction, {}, longest=64)
    read = unpack(message).detections
    assert read.track_ids is not None and read.track_ids.tolist() == ids.tolist()
    assert read.class_ids.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="cut short"):
        unpack(message[:-4])
