"""Events of `perception annotate`: written, sent, and kept where a target is away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.annotate import Outputs, annotate_all
from perception.drawing.annotator import Annotator
from perception.errors import UsageError
from perception.events.event import SCHEMA_FILE, Event
from perception.events.settings import EventSettings, read_event_settings
from perception.footage.settings import ClipSettings
from perception.model import load_model
from perception.stages.factories import StageFactory
from perception.types import Prediction
from tests.events.receivers import HttpReceiver, free_port
from tests.footage.clips import shown
from tests.media import make_video
from tests.models import write_model

SOURCE = "synthetic:?size=64x48&frames=12&fps=25"


class EveryFourth:
    """A stage that makes an event of each fourth frame."""

    def __call__(self, prediction: Prediction) -> Prediction:
        from dataclasses import replace

        frame = prediction.frame
        if frame.index % 4:
            return prediction
        made = Event(kind="crossed", source=frame.source, source_time=frame.time, frame=frame.index, count=frame.index)
        return replace(prediction, events=(*prediction.events, made))


def annotate(folder: Path, sources: list[str], outputs: Outputs, **options: Any) -> None:
    with load_model(write_model(folder / "colors.onnx", detection=True)) as model:
        for result in annotate_all(
            sources, model, outputs, annotator=Annotator(model.card), stages=[EveryFourth()], **options
        ):
            assert result.error is None


def test_events_are_written_as_the_schema_has_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    annotate(tmp_path, [SOURCE], Outputs(events=str(path)))
    lines = path.read_text().splitlines()
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    for line in lines:
        schema.validate(json.loads(line))
    assert [Event.from_json(line).frame for line in lines] == [0, 4, 8]


def test_one_file_for_several_sources(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    annotate(tmp_path, [SOURCE, f"{SOURCE}&seed=1"], Outputs(events=str(path)))
    assert len({Event.from_json(line).source for line in path.read_text().splitlines()}) == 2


def test_events_are_sent_before_the_end_and_else_at_the_next_start(tmp_path: Path) -> None:
    found = EventSettings(webhooks=f"http://127.0.0.1:{free_port()}/hook", drain_s=0.1)
    delivery = found.delivery(tmp_path)
    annotate(tmp_path, [SOURCE], Outputs(events=str(tmp_path / "a.jsonl")), delivery=delivery)
    assert list(delivery.close(found.drain_s).values()) == [3]  # nobody is there
    with HttpReceiver() as server:
        found = EventSettings(webhooks=server.url, file=tmp_path / "all.jsonl")
        delivery = found.delivery(tmp_path)
        annotate(tmp_path, [SOURCE], Outputs(events=str(tmp_path / "b.jsonl")), delivery=delivery)
        assert delivery.close(60) == {}
    written = (tmp_path / "b.jsonl").read_text().splitlines()
    assert [json.loads(body) for _, _, body in server.requests] == [json.loads(line) for line in written]
    assert (tmp_path / "all.jsonl").read_text().splitlines() == written


def test_clips_and_snapshots_are_linked_in_the_events(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", frames=150, keyint=25)
    path, clips = tmp_path / "events.jsonl", tmp_path / "clips"
    kept = ClipSettings(folder=clips, before_s=1, after_s=1)
    with load_model(write_model(tmp_path / "colors.onnx", detection=True)) as model:
        stages = [StageFactory("rare", lambda card: Rare())]
        annotator = Annotator(model.card)
        for result in annotate_all(
            [str(video)], model, Outputs(events=str(path)), annotator=annotator, stages=stages, clips=kept
        ):
            assert result.error is None
    lines = path.read_text().splitlines()
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    events = [Event.from_json(line) for line in lines]
    for line in lines:
        schema.validate(json.loads(line))
    assert [event.frame for event in events] == [30, 40, 120]
    assert events[0].clip == events[1].clip != events[2].clip
    for event in events:
        assert Path(str(event.clip)).parent == Path(str(event.snapshot)).parent == clips
        assert event.frame in shown(str(event.clip)) and Path(str(event.snapshot)).read_bytes()[:2] == b"\xff\xd8"
    assert len([*clips.iterdir()]) == 5


class Rare:
    """A stage that makes an event of three frames."""

    def __call__(self, prediction: Prediction) -> Prediction:
        from dataclasses import replace

        frame = prediction.frame
        made = Event(kind="crossed", source=frame.source, source_time=frame.time, frame=frame.index)
        return replace(prediction, events=(made,) * (frame.index in (30, 40, 120)))


class TestSettings:
    def read(self, folder: Path, values: Any) -> EventSettings:
        path = folder / "targets.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        path.chmod(0o600)
        return read_event_settings(path)

    def test_names_with_dashes_and_secrets_from_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        key = tmp_path / "key"
        key.write_text("from-a-file\n")
        key.chmod(0o600)
        monkeypatch.setenv("HOOK_URL", "http://127.0.0.1:1/from-the-environment")
        found = self.read(
            tmp_path,
            {"drain-s": 3, "webhooks": ["http://127.0.0.1:1/a", {"url-env": "HOOK_URL", "secret-file": str(key)}]},
        )
        assert found.drain_s == 3 and len(found.targets()) == 2
        assert len({target.name for target in found.targets()}) == 2

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ("[1, 2]", "must be a mapping"),
            ("a: [", "not YAML"),
            ({"webhook": []}, "webhook: Extra inputs"),
            ({"webhooks": [{"timeout_s": 3}]}, "webhooks.0: give url or url_env"),
            ({"mqtt": {"host": "h", "topic": "a/#"}}, "mqtt.topic: a topic has no"),
            ({"mqtt": {"host": "h", "password_env": "X"}}, "mqtt: a password needs a user"),
            ({"mqtt": {"host": "h", "ca_file": "x"}}, "mqtt: ca_file is for TLS"),
            ({"outbox_bytes": 3}, "outbox_bytes"),
        ],
    )
    def test_wrong_ones_are_told_in_one_line(self, tmp_path: Path, values: Any, told: str) -> None:
        with pytest.raises(UsageError, match=told) as error:
            self.read(tmp_path, values)
        assert "\n" not in str(error.value) and "targets.yaml" in str(error.value)

    def test_secrets_that_are_missing_are_told(self, tmp_path: Path) -> None:
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"secret_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
            ({"secret_file": tmp_path / "none"}, "cannot be read"),
            ({"secret_file": tmp_path / "none", "secret_env": "X"}, "not in both"),
        ]
        for more, told in wrong:
            found = EventSettings.model_validate({"webhooks": [{"url": "http://127.0.0.1:1/", **more}]})
            with pytest.raises(UsageError, match=told):
                found.targets()

    def test_the_same_place_twice_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"the same place twice: webhook 127\.0\.0\.1:1"):
            EventSettings.model_validate({"webhooks": ["http://127.0.0.1:1/x"] * 2}).delivery(tmp_path)

    @given(st.text(max_size=30).filter(lambda text: "t0ps3cret" not in text))
    @settings(max_examples=60, deadline=None)
    def test_no_value_is_told(self, text: str) -> None:
        import tempfile

        for values in (
            {"webhooks": [{"url": f"{text}://me:t0ps3cret@{text}"}]},
            {"webhooks": {"url": 3, text: "t0ps3cret"}},
        ):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    self.read(Path(folder), values).targets()
                except UsageError as error:
                    assert "t0ps3cret" not in str(error)


def test_the_example_of_the_page_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
    example, clips = re.findall(r"```yaml\n(.*?)```", page, re.S)
    kept = ClipSettings.model_validate(yaml.safe_load(clips)["clips"])
    assert kept == ClipSettings(folder=kept.folder, base_url=kept.base_url)  # the others are as they are without it
    found = EventSettings.model_validate(yaml.safe_load(example))
    assert found.mqtt is not None and found.mqtt.tls and len(found.webhooks) == 1
