"""What an operator may set, and what a wrong setting says."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.common.private import read_secret
from perception.errors import PerceptionError, SourceError, UsageError
from perception.server.settings import ServerSettings, make_settings, read_settings
from perception.server.startup import warnings, with_source
from perception.weights import CAMERA_MODEL
from tests.media import make_video

REPOSITORY = Path(__file__).parents[2]


def test_defaults_are_for_this_machine_only() -> None:
    settings = ServerSettings()
    assert settings.local
    assert not settings.guarded
    assert (settings.allow, settings.cameras, settings.sources) == ((), (), {})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_loopback_needs_no_credentials(host: str) -> None:
    assert make_settings({"host": host}).local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "camera-box", ""])
def test_listening_elsewhere_needs_credentials(host: str) -> None:
    with pytest.raises(UsageError, match="insecure=True"):
        make_settings({"host": host})
    for credentials in ({"token": "0123456789"}, {"user": "me", "password": "x"}, {"insecure": True}):
        settings = make_settings({"host": host, **credentials})
        assert not settings.local
        assert settings.guarded is ("insecure" not in credentials)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"prot": 1}, "prot"),
        ({"port": 70000}, "port"),
        ({"user": "me"}, "give both user and password"),
        ({"password": "secret words"}, "give both user and password"),
        ({"token": "short"}, "token"),
        ({"limits": {"viewers": 0}}, "limits.viewers"),
        ({"limits": {"veiwers": 5}}, "limits.veiwers"),
        ({"cameras": ["front"]}, "cameras"),
        ({"engine": "vapour"}, "engine"),
        ({"origins": ["cameras.example.org"]}, "origins"),
        ({"sources": {"a": {"url": "x"}}}, "sources.a"),
    ],
)
def test_wrong_settings_are_named(values: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_settings(values, "live.yaml")
    assert str(caught.value).startswith("live.yaml: ")
    assert "\n" not in str(caught.value)


def test_secrets_are_never_shown() -> None:
    secret = "correct horse battery staple"
    settings = make_settings({"user": "me", "password": secret, "token": secret})
    assert secret not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(UsageError) as caught:
        make_settings({"password": secret})
    assert secret not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        make_settings({"user": "me", "password": secret, "token": secret[:4]})
    assert secret[:4] not in str(caught.value)


def test_the_example_is_valid_and_says_the_defaults() -> None:
    read = make_settings(read_settings(REPOSITORY / "configs" / "live.yaml"))
    assert read == ServerSettings()


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_text(
        "data-dir: here\nallow: rtsp://cam/*\nsources:\n  gate: rtsp://cam/1\n  yard: {uri: y.mp4, loop: false}\n"
    )
    settings = make_settings(read_settings(path), path)
    assert settings.folder == Path("here")
    assert settings.allow == ("rtsp://cam/*",)
    assert [(name, s.uri, s.loop) for name, s in settings.sources.items()] == [
        ("gate", "rtsp://cam/1", True),
        ("yard", "y.mp4", False),
    ]
    path.write_text("prot: 5\n")
    with pytest.raises(UsageError, match="did you mean 'port'"):
        read_settings(path)


def test_keys_of_a_file_are_spelled_like_flags(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    path = tmp_path / "live.yaml"
    path.write_text(
        f"camera: [0, 2]\norigin: https://a.example\ntoken-file: {tmp_path / 'token'}\nprecision: f32\n"
        "limits: {upload-bytes: 5, viewers: 2}\n"
    )
    settings = make_settings(read_settings(path), path)
    assert (settings.cameras, settings.origins) == ((0, 2), ("https://a.example",))
    assert settings.token is not None and settings.token.get_secret_value() == "0123456789abcdef"
    assert (settings.limits.upload_bytes, settings.limits.viewers, settings.precision) == (5, 2, "fp32")
    path.write_text("camera: [0]\ncameras: [1]\n")
    with pytest.raises(UsageError, match="cameras is set twice"):
        read_settings(path)
    path.write_text("limits: {veiwers: 5}\n")
    with pytest.raises(UsageError, match=r"limits\.veiwers"):
        make_settings(read_settings(path), path)


def test_secrets_from_files(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  first line \nsecond\n")
    assert read_secret(path) == "first line"
    assert read_secret(None) is None
    path.write_text("\n")
    with pytest.raises(UsageError, match="first line"):
        read_secret(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        read_secret(path)
    with pytest.raises(UsageError, match="No such file"):
        read_secret(tmp_path / "nothing")


def test_the_source_that_is_given_comes_first(tmp_path: Path) -> None:
    video = tmp_path / "yard.mp4"
    make_video(video, frames=3)
    chosen = with_source({"sources": {"gate": "rtsp://cam/1"}}, str(video))["sources"]
    assert list(chosen.items()) == [("yard", str(video)), ("gate", "rtsp://cam/1")]
    both = with_source({"sources": {"gate": "rtsp://cam/1", "yard": "rtsp://cam/2"}}, str(video))["sources"]
    assert list(both.items()) == [("yard", str(video)), ("gate", "rtsp://cam/1")]  # and not what the file calls yard
    assert with_source({"sources": {"gate": "rtsp://cam/1"}}, None)["sources"] == {"gate": "rtsp://cam/1"}
    assert list(with_source({}, "0")["sources"].items()) == [("camera0", "0")]
    camera = "rtsp://bob:pa%23ss@cam.local:8554/live/K3Y?token=T0KEN"
    assert list(with_source({}, camera)["sources"].items()) == [("cam.local", camera)]  # clients see the name
    with pytest.raises(SourceError, match="no such file"):
        with_source({}, str(tmp_path / "nothing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(PerceptionError, match="not a video"):
        with_source({}, str(tmp_path / "text.mp4"))


def test_what_listening_means_is_told() -> None:
    def told(**values: object) -> str:
        return " ".join(warnings("http://box:7860", make_settings({"host": "0.0.0.0", **values})))

    assert "WITHOUT" in told(insecure=True)
    assert "WITHOUT" not in told(token="0123456789")
    assert "not encrypted" in told(token="0123456789")


def test_cameras_have_a_model_of_their_own_unless_the_operator_chose_one() -> None:
    assert ServerSettings().before_cameras == CAMERA_MODEL
    assert ServerSettings(model="camvid").before_cameras == "camvid"
    assert ServerSettings(model="camvid", camera_model="street").before_cameras == "street"
    assert ServerSettings(camera_model="camvid").before_cameras == "camvid"
