"""Stages of the operator's on whatever the server shows: streams, webcams, pictures, jobs; and the panoptic view."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from perception import load_model, open_source
from perception.drawing.annotator import Annotator
from perception.errors import StageError, UsageError
from perception.picture.conversions import to_bgr
from perception.server.app import create_app
from perception.server.inference.scheduler import Scheduler
from perception.server.options import Options, views
from perception.server.settings import make_settings, read_settings
from perception.server.streams import demand as demand_module
from perception.server.streams import stream as stream_module
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.stages.factories import find_stage
from perception.stages.panoptic import PanopticStage
from tests.media import make_image, make_video
from tests.models import solid, write_model
from tests.own_stages import own_stages
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.test_webcam import ask, frame, gray_with_square
from tests.server.waiting import wait_for

TIMEOUTS = Timeouts(age=60.0)
ENDLESS = "synthetic:?size=64x48&fps=50&frames=0"
NAME = "stages_of_a_test"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    with own_stages(tmp_path_factory.mktemp("stages"), NAME) as module:
        yield module


@pytest.fixture(scope="module")
def scheduler(colors: Path) -> Iterator[Scheduler]:
    with load_model(colors, precision="fp32") as model, Scheduler(model) as made:
        yield made


def stream_of(scheduler: Scheduler, *names: str, uri: str | Path = ENDLESS, id: str = "s", loop: bool = False) -> Any:
    found = [find_stage(f"{NAME}:{name}") for name in names]
    options: dict[str, Any] = {"reconnect": False, "loop": loop, "timeouts": TIMEOUTS, "stages": found}
    return closing(Stream(id, id, lambda: open_source(uri), scheduler, **options))


def width(prediction: Any) -> int:
    """The number that `Count` shows."""
    return int(prediction.detections.boxes[0, 2])


def square(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """One red square on gray, an anchor of the tiny model."""
    image = np.full((48, 64, 3), 128, np.uint8)
    image[16:32, 16:32] = solid("red", 1, 1)[0, 0]
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)


# Settings


def test_a_file_of_settings_names_stages(stages: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    for text in (f"stages: [{NAME}:Count, panoptic]", f"stage: [{NAME}:Count, panoptic]"):
        path.write_text(text)
        assert make_settings(read_settings(path), path).stages == (f"{NAME}:Count", "panoptic")
    path.write_text(f"stages: {NAME}:Count")
    assert make_settings(read_settings(path), path).stages == (f"{NAME}:Count",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("panoptik", "did you mean 'panoptic'"),
        ("no_such_module_here:f", "there is no module no_such_module_here"),
        (f"{NAME}:Cuont", "did you mean 'Count'"),
        (f"{NAME}:only", "takes"),
    ],
)
def test_a_stage_that_is_not_there_is_told_at_the_start(stages: ModuleType, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_settings({"stages": [name]}, "live.yaml")
    assert str(caught.value).startswith("live.yaml: ") and "\n" not in str(caught.value)


def test_a_stage_that_the_model_does_not_allow_is_told_at_the_start(make: Any, tmp_path: Path) -> None:
    masks_only = write_model(tmp_path / "masks.onnx")
    with pytest.raises(UsageError, match="needs masks and boxes"):
        create_app(make(model=str(masks_only), stages=["panoptic"]))


# Streams


def test_the_plain_chain_sees_every_result_in_order_watched_or_not(
    stages: ModuleType, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand_module, "WANTED_S", -1.0)  # a stream without stages would rest at once, for long
    monkeypatch.setattr(demand_module, "RESTING_S", 3600.0)
    stages.Count.made.clear()
    with stream_of(scheduler, "Count") as stream:
        wait_for(lambda: stream.frames >= 30)
        with stream.subscribe() as viewer:
            assert width(viewer.next(30)) >= 30
        wait_for(lambda: stream.frames >= 45)
    [count] = stages.Count.made  # the viewer's options are the plain ones
    assert len(count.indices) == stream.frames
    assert all(a < b for a, b in pairwise(count.indices))


def test_without_stages_a_stream_that_nobody_watches_rests(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand_module, "WANTED_S", -1.0)
    monkeypatch.setattr(demand_module, "RESTING_S", 3600.0)
    with stream_of(scheduler) as stream:
        wait_for(lambda: stream.frames == 1)
        arrived = stream._arrived
        wait_for(lambda: stream._arrived > arrived + 0.5)  # some 25 frames have come
        assert stream.frames == 1


def test_each_stream_has_stages_of_its_own(stages: ModuleType, scheduler: Scheduler) -> None:
    stages.Count.made.clear()
    with stream_of(scheduler, "Count", id="a") as first:
        wait_for(lambda: first.frames >= 20)
        with stream_of(scheduler, "Count", id="b") as second, second.subscribe() as viewer:
            prediction = viewer.next(30)
            assert width(prediction) <= second.frames < 20
            wait_for(lambda: second.frames >= 5)
    assert [len(count.indices) for count in stages.Count.made] == [first.frames, second.frames]


def test_options_that_are_drawn_otherwise_share_the_state_and_others_have_their_own(
    stages: ModuleType, scheduler: Scheduler
) -> None:
    task = scheduler.model.card.detection
    assert task is not None
    as_the_page_asks = Options(score=task.score_threshold, iou=task.iou_threshold, opacity=0.3, legend=False)
    stages.Count.made.clear()
    with stream_of(scheduler, "Count") as stream:
        wait_for(lambda: stream.frames >= 20)
        with stream.subscribe(as_the_page_asks) as page, stream.subscribe(Options(view="panoptic")) as outlines:
            assert width(page.next(30)) >= 20
            assert width(outlines.next(30)) >= 20
        assert len(stages.Count.made) == 1
        with stream.subscribe(Options(score=0.9)) as other:
            first = other.next(30)
            assert width(first) < 20
            # every result, though the viewer takes but some of them
            wait_for(lambda: stream.frames >= first.frame.index + 10)
            later = stream.newest()
            counted = stages.Count.made[1].indices
            assert counted == [i for i in stages.Count.made[0].indices if counted[0] <= i <= counted[-1]]
            assert later is not None and len(counted) >= 5
        wait_for(lambda: stages.Count.made[0].indices[-1] > counted[-1] + 5)  # it has ended with its viewer
    assert len(stages.Count.made) == 2


def test_a_stage_that_fails_leaves_the_stream_running(
    stages: ModuleType, scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = make_image(tmp_path / "square.png", square())
    with (
        caplog.at_level(logging.WARNING, "perception"),
        stream_of(scheduler, "broken", uri=uri, loop=True) as stream,
        stream.subscribe() as viewer,
    ):
        prediction = viewer.next(30)
        assert prediction.detections.class_ids.tolist() == [0]  # what the model says
        assert prediction.picture is not None
        wait_for(lambda: "no lane" in stream.status()["message"])
        status = stream.status()
        assert status["state"] == "running" and "\n" not in status["message"]
        assert f"the stage {NAME}:broken failed on frame" in status["message"]
    assert 1 <= sum("no lane" in record.message for record in caplog.records) <= 10


@pytest.mark.parametrize("name", ["broken", "unknown"])
def test_a_stage_that_never_works_fails_the_stream(
    stages: ModuleType, scheduler: Scheduler, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "perception"), stream_of(scheduler, name) as stream:
        wait_for(lambda: stream.over)
        assert stream.state == "failed"
        message = stream.status()["message"]
        assert message.startswith("given up: the stage ") and "debug" not in message
        assert stream.frames == stream_module.STAGE_ERRORS
    assert sum("results are shown without" in record.message for record in caplog.records) <= 10


def test_a_client_cannot_fail_a_stream_by_its_options(
    stages: ModuleType, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that cannot do without boxes, and a viewer who wants none."""
    monkeypatch.setattr(stream_module, "STAGE_ERRORS", 3)
    uri = make_image(tmp_path / "square.png", square())
    with stream_of(scheduler, "needs_boxes", uri=uri, loop=True) as stream:
        with stream.subscribe(Options(score=0.9999)) as viewer:
            assert len(viewer.next(30).detections) == 0
            frames = stream.frames
            wait_for(lambda: stream.frames >= frames + 5)
            wait_for(lambda: "no boxes" in stream.status()["message"])
            assert stream.state == "running"
        wait_for(lambda: stream.status()["message"] == "")
        with stream.subscribe() as viewer:
            assert len(viewer.next(30).detections) == 1


def test_a_stage_that_comes_to_itself(stages: ModuleType, scheduler: Scheduler) -> None:
    with stream_of(scheduler, "BrokenAtFirst") as stream, stream.subscribe() as viewer:
        wait_for(lambda: "not yet" in stream.status()["message"])
        wait_for(lambda: stream.status()["message"] == "")
        assert stream.state == "running"
        assert width(viewer.next(30)) == 5


def test_a_chain_names_classes_that_the_model_has_not(stages: ModuleType, scheduler: Scheduler) -> None:
    chain = Options().chain(scheduler.model.card, [find_stage(f"{NAME}:unknown")])
    with pytest.raises(UsageError, match=rf"the stage {NAME}:unknown gave a box of class 99; colors has 3"):
        chain.apply(scheduler.model.predict(square()))
    chain = Options().chain(scheduler.model.card, [find_stage(f"{NAME}:broken")])
    with pytest.raises(StageError, match=rf"the stage {NAME}:broken failed on frame 0"):
        chain.apply(scheduler.model.predict(square()))


# The whole server


@pytest.fixture(scope="module")
def staged(stages: ModuleType, make: Any) -> Iterator[httpx.Client]:
    """A server with `Count` on everything."""
    with (
        served(create_app(make(stages=[f"{NAME}:Count"]))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        yield client


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def predict(client: httpx.Client, image: np.ndarray, accept: str = "application/json", **params: Any) -> httpx.Response:
    headers = {"content-type": "image/png", "accept": accept}
    return client.post("/v1/predict", content=png(image), headers=headers, params=params)


def decoded(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)


def test_a_stream_of_the_server_shows_its_stage(staged: httpx.Client) -> None:
    assert staged.post("/v1/streams", json={"source": "scene"}).status_code == 201
    wait_for(lambda: staged.get("/v1/streams/scene").json()["frames"] >= 20)
    assert staged.get("/v1/streams/scene").json()["boxes"] == 1
    params = {"masks": False, "labels": False, "legend": False}
    shown = decoded(staged.get("/v1/streams/scene/snapshot", params=params))
    green = np.abs(shown[0, :20].astype(int) - (0, 255, 0)).max(axis=1)
    assert (green < 60).all()  # the upper edge of a box at least 20 pixels wide


def test_a_picture_is_a_source_of_its_own(staged: httpx.Client) -> None:
    for _ in range(3):
        [box] = predict(staged, square()).json()["detections"]
        assert box["class"] == "green" and box["box"] == [0, 0, 1, 8]
    refused = predict(staged, square(), stages="panoptic")
    assert refused.status_code == 422 and "stages" in refused.json()["error"]  # nobody but the operator names them


def test_each_webcam_counts_for_itself(staged: httpx.Client) -> None:
    url = str(staged.base_url).replace("http", "ws") + "/v1/webcam"
    with connect(url, open_timeout=30, close_timeout=30) as one, connect(url, open_timeout=30) as other:
        seen = [ask(one, frame(i, gray_with_square())).detections.boxes[0, 2] for i in range(4)]
        assert seen == [1, 2, 3, 4]
        assert ask(other, frame(0, gray_with_square())).detections.boxes[0, 2] == 1
        ask(one, {"score": 0.5})  # settings leave the stage as it is
        assert ask(one, frame(4, gray_with_square())).detections.boxes[0, 2] == 5
        assert "view" in ask(one, {"view": "panoptic"})["error"]


def test_each_job_counts_for_itself(staged: httpx.Client, clip: bytes) -> None:
    for _ in range(2):
        made = staged.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"})
        address = made.headers["location"]
        wait_for(lambda a=address: staged.get(a).json()["state"] in ("done", "failed"), 120)
        lines = [json.loads(line) for line in staged.get(f"{address}/jsonl").text.splitlines()]
        assert [line["detections"][0]["box"][2] for line in lines] == list(range(1, 41))


def test_a_broken_stage_on_webcams_pictures_and_jobs(stages: ModuleType, make: Any, clip: bytes) -> None:
    with (
        served(create_app(make(stages=[f"{NAME}:broken"]))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        answer = predict(client, square())
        assert answer.status_code == 500
        assert answer.json() == {"error": f"the stage {NAME}:broken failed on frame 0: ValueError: no lane"}
        with connect(f"ws://{address}/v1/webcam", open_timeout=30, close_timeout=30) as webcam:
            result = ask(webcam, frame(1, gray_with_square("blue")))
            assert result.detections.class_ids.tolist() == [2]
            told = json.loads(webcam.recv(timeout=30))
            assert told["type"] == "problem" and "no lane" in told["problem"]
            assert ask(webcam, frame(2, gray_with_square("blue"))).number == 2  # and is not told again
            assert ask(webcam, {})["type"] == "ready"
        made = client.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"}, params={"name": "a.mp4"})
        job = made.headers["location"]
        wait_for(lambda: client.get(job).json()["state"] == "failed", 120)
        said = client.get(job).json()["error"]
        assert said == f"a.mp4: the stage {NAME}:broken failed on frame 0: ValueError: no lane"


# The panoptic view


def test_views_are_what_the_model_allows(colors: Path, tmp_path: Path) -> None:
    from perception.card import read_card

    assert views(read_card(colors)) == ["boxes", "panoptic"]
    assert views(read_card(write_model(tmp_path / "masks.onnx"))) == ["boxes"]
    assert views(read_card(write_model(tmp_path / "b.onnx", segmentation=False, detection=True))) == ["boxes"]


def test_the_panoptic_view_of_a_picture(server: httpx.Client, colors: Path) -> None:
    image = square((320, 240))
    with load_model(colors) as model:
        prediction = PanopticStage(model.card)(model.predict(image))
        outlines = to_bgr(Annotator(model.card, view="panoptic")(prediction))
        boxes = to_bgr(Annotator(model.card)(prediction))
    assert not np.array_equal(outlines, boxes)
    np.testing.assert_array_equal(decoded(predict(server, image, "image/png", view="panoptic")), outlines)
    np.testing.assert_array_equal(decoded(predict(server, image, "image/png")), boxes)
    assert predict(server, image, view="lidar").status_code == 422


def test_the_panoptic_view_of_a_stream(scheduler: Scheduler, tmp_path: Path) -> None:
    uri = make_image(tmp_path / "square.png", square((320, 240)))
    card = scheduler.model.card
    with stream_of(scheduler, uri=uri, loop=True) as stream:
        with stream.subscribe(Options(view="panoptic")) as outlines, stream.subscribe() as boxes:
            seen, plain = outlines.next(30), boxes.next(30)
        expected = PanopticStage(card)(scheduler.model.predict(seen.frame))
        np.testing.assert_array_equal(to_bgr(seen.picture), to_bgr(Annotator(card, view="panoptic")(expected)))
        np.testing.assert_array_equal(to_bgr(plain.picture), to_bgr(Annotator(card)(expected)))
        assert plain.panoptic is None  # nothing is split where nobody looks


def test_the_panoptic_view_of_a_job(server: httpx.Client, tmp_path: Path) -> None:
    import av

    video = make_video(tmp_path / "v.mp4", images=[square((320, 240))] * 5, size_wh=(320, 240))
    pictures = []
    for view in ("boxes", "panoptic"):
        made = server.post("/v1/jobs", content=video.read_bytes(), headers={"content-type": "video/mp4"},
                           params={"view": view, "legend": False})  # fmt: skip
        address = made.headers["location"]
        wait_for(lambda a=address: server.get(a).json()["state"] in ("done", "failed"), 120)
        answer = server.get(f"{address}/video")
        assert answer.status_code == 200, server.get(address).text
        with av.open(io.BytesIO(answer.content)) as container:
            pictures.append(next(container.decode(video=0)).to_ndarray(format="bgr24").astype(int))
    boxes, outlines = pictures
    # An outline has a white rim around the square's edge; a box has none.
    rim = outlines[70:90, 70:170].max(axis=(0, 1)).min(), boxes[70:90, 70:170].max(axis=(0, 1)).min()
    assert rim[0] > rim[1] + 40


def test_the_panoptic_view_needs_masks_and_boxes(make: Any, tmp_path: Path, clip: bytes) -> None:
    masks_only = write_model(tmp_path / "masks.onnx")
    with (
        served(create_app(make(model=str(masks_only)))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        client.post("/v1/streams", json={"source": "scene"})
        refused = [
            predict(client, square(), view="panoptic"),
            client.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"}, params={"view": "panoptic"}),
            client.get("/v1/streams/scene/mjpeg", params={"view": "panoptic"}),
        ]
        assert [answer.status_code for answer in refused] == [422, 422, 422]
        assert all("masks and boxes" in answer.json()["error"] for answer in refused)
