"""Clips and snapshots of a server's streams: linked in events, and given to those who may have them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import jsonschema_rs
import numpy as np
import pytest

from perception.errors import UsageError
from perception.events.event import SCHEMA_FILE, Event
from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.footage.clips import shown
from tests.media import make_video
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for

MODULE = "stages_of_footage"
STAGE = """
from dataclasses import replace

from perception.types import Event


class Often:
    def __init__(self):
        self.count = 0

    def __call__(self, prediction):
        self.count += 1
        if self.count % 40:
            return prediction
        frame = prediction.frame
        event = Event(kind="crossed", source="?", source_time=frame.time, frame=frame.index)
        return replace(prediction, events=(event,))
"""
TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stages")
    (folder / f"{MODULE}.py").write_text(STAGE)
    sys.path.insert(0, str(folder))
    yield f"{MODULE}:Often"
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


def test_links_lead_to_files_for_those_who_may_see_them(stage: str, make: Any, tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=250, keyint=25)
    events = tmp_path / "events.jsonl"
    settings = make(
        stages=[stage], token=TOKEN, sources={"yard": {"uri": str(video), "keep": True}}, events={"file": str(events)},
        clips={"before-s": 0.5, "after-s": 0.5},
    )  # fmt: skip
    folder = settings.folder / "clips"

    def read() -> list[Event]:
        return [Event.from_json(line) for line in events.read_text().splitlines()] if events.exists() else []

    app = create_app(settings)
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        allowed = {"Authorization": f"Bearer {TOKEN}"}
        wait_until_ready(client, 600, headers=allowed)
        wait_for(lambda: len({event.clip for event in read()}) >= 3, 120)
        event = read()[0]
        assert event.clip is not None and event.snapshot is not None
        assert event.clip.startswith("/v1/footage/") and event.snapshot.startswith("/v1/footage/")
        schema = jsonschema_rs.validator_for(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
        for line in events.read_text().splitlines():
            schema.validate(json.loads(line))

        wait_for(lambda: client.get(event.clip, headers=allowed).status_code == 200)
        clip, snapshot = (client.get(link, headers=allowed) for link in (event.clip, event.snapshot))
        assert clip.headers["content-type"] == "video/mp4" and snapshot.headers["content-type"] == "image/jpeg"
        (tmp_path / "got.mp4").write_bytes(clip.content)
        assert len(shown(tmp_path / "got.mp4")) >= 25
        assert cv2.imdecode(np.frombuffer(snapshot.content, np.uint8), cv2.IMREAD_COLOR).shape == (48, 80, 3)
        part = client.get(event.clip, headers={**allowed, "Range": "bytes=0-99"})
        assert part.status_code == 206 and part.content == clip.content[:100]

        making = app.state.service.footage.new_name(".mp4")
        answer = client.get(f"/v1/footage/{making}", headers=allowed)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0

        for link in (event.clip, event.snapshot):
            assert client.get(link).status_code == 401
            assert client.get(link, headers={"Authorization": "Bearer wrong-token"}).status_code == 401

        (folder / "notes.txt").write_text("private")
        (folder / f"{'c' * 32}.jpg").symlink_to(tmp_path / "events.jsonl")
        (tmp_path / f"{'d' * 32}.jpg").write_bytes(b"elsewhere")
        own = Path(event.clip).name
        for name in (
            "notes.txt", "c" * 32 + ".jpg", "d" * 32 + ".jpg", "0" * 32 + ".mp4", "../jobs/jobs.sqlite3",
            "..%2Fjobs%2Fjobs.sqlite3", "%2Fetc%2Fpasswd", f"..%2Fclips%2F{own}", f"{own}.part", f"{own}%00.jpg",
            own.replace("mp4", "MP4"),
        ):  # fmt: skip
            answer = client.get(f"/v1/footage/{name}", headers=allowed)
            assert answer.status_code in (404, 422), (name, answer.status_code)
        assert client.delete(event.clip, headers=allowed).status_code == 405
    names = {path.suffix for path in folder.iterdir()}
    assert names == {".mp4", ".jpg", ".txt"}  # and nothing half done
    assert all(path.stat().st_mode & 0o077 == 0 for path in [folder])


def test_a_server_without_clips(server: httpx.Client) -> None:
    assert server.get(f"/v1/footage/{'0' * 32}.mp4").status_code == 404


@pytest.mark.parametrize(
    ("clips", "told"),
    [
        ({"before": 3}, "clips.before"),
        ({"before-s": 60, "after-s": 70}, "longest_s must not be less"),
        ({"limit-bytes": 10}, "clips.limit_bytes"),
        ({"keep-days": 0}, "clips.keep_days"),
        ({"base-url": "cameras.example.org"}, "clips.base_url"),
        ({"base-url": "https://me:secret@example.org"}, "clips.base_url"),
        (3, "clips"),
    ],
)
def test_wrong_settings_are_told_in_one_line(clips: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told) as error:
        make_settings({"clips": clips})
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_clips_are_switched_on_and_off() -> None:
    made = make_settings({"clips": True}).clips
    assert made is not None and made.before_s == 5
    assert make_settings({"clips": False}).clips is None and make_settings({}).clips is None
    named = make_settings({"clips": {"base-url": "https://example.org/perception/"}}).clips
    assert named is not None and named.base_url == "https://example.org/perception"
