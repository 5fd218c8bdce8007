"""Events of a server's streams: delivered, counted in the metrics, watched or not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from perception.events.event import Event
from perception.server.app import create_app
from tests.events.receivers import Broker, HttpReceiver, Subscriber, needs_mosquitto
from tests.server.conftest import SCENE, wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for

MODULE = "stages_of_events"
STAGE = '''
from dataclasses import replace

import numpy as np

from perception.types import Event, Reading


class Count:
    """An event of each tenth frame, and what a line and a zone would say."""

    def __init__(self):
        self.count = 0

    def __call__(self, prediction):
        frame, points = prediction.frame, np.zeros((2, 2), np.float32)
        events = ()
        if frame.index % 10 == 0:
            self.count += 1
            events = (Event(kind="crossed", source="?", source_time=frame.time, count=self.count, rule="gate"),
                      Event(kind="strange", source="?", source_time=frame.time))
        readings = (Reading("gate", "line", points, {"crossed": {"in": {"red": self.count}}}),
                    Reading("lawn", "zone", points, {"inside": 2, "entered": {"red": 5}, "left": {"red": 3}}),
                    Reading("flood", "condition", points, {"value": 0.25, "holds": True}))
        return replace(prediction, events=events, readings=readings)
'''


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stages")
    (folder / f"{MODULE}.py").write_text(STAGE)
    sys.path.insert(0, str(folder))
    yield f"{MODULE}:Count"
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


def metrics(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}


def test_a_source_that_is_kept_sends_its_events(stage: str, make: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with HttpReceiver() as hook:
        settings = make(
            stages=[stage],
            sources={"yard": {"uri": SCENE, "keep": True}},
            events={"file": str(path), "webhooks": [hook.url], "drain_s": 60},
        )
        with served(create_app(settings)) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            wait_until_ready(client, 600)
            wait_for(lambda: len(hook.requests) >= 6)  # nobody asked for the stream
            found = metrics(client)
            families = re.findall(r"^# TYPE (\S+)", client.get("/metrics").text, re.M)
            assert client.delete("/v1/streams/yard").status_code in (200, 204)
            wait_for(lambda: "yard" in {each["id"] for each in client.get("/v1/streams").json()["streams"]})
        events = [Event.from_json(line) for line in path.read_text().splitlines()]
        bodies = [Event.from_json(body) for _, _, body in hook.requests]
    assert events == bodies  # what was made before the end is there at the end
    assert {event.source for event in events} == {"yard"}
    crossed = [event.count for event in events if event.kind == "crossed"]
    assert crossed[:3] == [1, 2, 3]
    count = found['perception_line_crossings_total{class="red",direction="in",rule="gate",stream="yard"}']
    assert count >= 3 and found['perception_events_total{kind="crossed"}'] >= 3
    assert found['perception_events_total{kind="other"}'] >= 3
    assert found['perception_zone_inside{rule="lawn",stream="yard"}'] == 2
    assert found['perception_zone_entered_total{class="red",rule="lawn",stream="yard"}'] == 5
    assert found['perception_condition_holds{rule="flood",stream="yard"}'] == 1
    assert found['perception_condition_value{rule="flood",stream="yard"}'] == 0.25
    delivered = [name for name in found if re.match(r"perception_events_ended_total\{outcome=\"delivered\"", name)]
    assert len(delivered) == 2 and "/hook" not in "".join(found)
    check_dashboard({*families, *(name.partition("{")[0] for name in found)})


RULES = """
lines:
  - {name: gate, points: [[0, 0.5], [1, 0.5]], directions: [up, down]}
zones:
  - {name: lawn, points: [[0, 0], [1, 0], [1, 1]]}
"""


@needs_mosquitto
def test_home_assistant_knows_all_rules_before_anything_happens(make: Any, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    with Broker(tmp_path) as broker, Subscriber(broker.port) as subscriber:
        settings = make(
            sources={"yard": {"uri": SCENE, "rules": str(rules)}, "street": SCENE},
            events={"mqtt": {"host": "127.0.0.1", "port": broker.port}},
        )
        with served(create_app(settings)):
            wait_for(lambda: len(subscriber.of("/config")) == 5 and len(subscriber.of("/state")) == 2)
        names = {json.loads(payload)["name"] for payload in subscriber.of("/config")}
        assert names == {"Motion", "gate up", "gate down", "lawn inside", "lawn"}
        assert {json.loads(payload)["device"]["name"] for payload in subscriber.of("/config")} == {"yard"}


def check_dashboard(names: set[str]) -> None:
    """All that the dashboard for Grafana asks for is there."""
    dashboard = json.loads((Path(__file__).parents[2] / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"perception_\w+", target["expr"])
    }
    assert len(asked) > 12 and asked <= names


def test_clients_set_no_targets(server: httpx.Client) -> None:
    answer = server.post("/v1/streams", json={"source": "scene", "events": {"webhooks": ["http://127.0.0.1:1/"]}})
    assert answer.status_code == 422
