"""Inputs that are not what they should be: each is one line that names them, and no traceback of a library."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources import open_source
from perception.sources.uri import kind_of, redact
from tests.media import make_audio, make_empty_container, make_image, make_video, packet_spans, truncate


def fault(uri, **options):
    """The message with which ``uri`` fails: one line, with the name in front."""
    with pytest.raises(SourceError) as caught, open_source(uri, **options) as source:
        list(source)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    assert message.startswith(f"{uri}: "), message
    return message.removeprefix(f"{uri}: ")


def test_missing(tmp_path):
    assert fault(tmp_path / "none.mp4") == "no such file"
    assert fault(tmp_path / "none.jpg") == "no such file"


def test_empty(tmp_path):
    for name in ("empty.mp4", "empty.jpg"):
        (tmp_path / name).touch()
        assert fault(tmp_path / name) == "the file is empty"


def test_truncated_before_its_index(tmp_path):
    path = truncate(make_video(tmp_path / "v.mp4", frames=50), 0.6)
    assert "cut short" in fault(path)


def test_text(tmp_path):
    for name in ("notes.mp4", "notes.txt", "notes"):
        path = tmp_path / name
        path.write_text("These are not the frames you are looking for.\n" * 40)
        assert "not a video" in fault(path)


def test_noise(tmp_path):
    path = tmp_path / "noise.mkv"
    path.write_bytes(os.urandom(20_000))
    assert fault(path)


def test_picture_named_as_a_video(tmp_path):
    for ending in (".jpg", ".png"):
        path = make_image(tmp_path / f"photo{ending}").rename(tmp_path / "photo.mp4")
        assert "picture" in fault(path)


def test_video_named_as_a_picture(tmp_path):
    path = make_video(tmp_path / "v.mp4").rename(tmp_path / "v.jpg")
    assert "not an image" in fault(path)


@pytest.mark.parametrize("cover", [False, True])
def test_sound_only(tmp_path, cover):
    assert fault(make_audio(tmp_path / "song.mp3", cover=cover)) == "it contains no video (audio only)"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_a_video_stream_without_frames(tmp_path, ending):
    assert re.search(
        "no video stream|no frame in it|nothing recorded", fault(make_empty_container(tmp_path / f"v.{ending}"))
    )


def test_nothing_that_decodes(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=8)
    data = bytearray(path.read_bytes())
    for offset, size in packet_spans(path):
        data[offset : offset + size] = b"\xff" * size
    path.write_bytes(data)
    assert "nothing in it can be decoded" in fault(path)


def test_folders(tmp_path):
    assert "no images in this folder" in fault(tmp_path)
    make_video(tmp_path / "v.mp4")
    assert "folder of videos is not one source" in fault(tmp_path)
    named = tmp_path / "folder.mp4"
    named.mkdir()
    assert "no images in this folder" in fault(named)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_things_that_are_no_files(tmp_path):
    fifo = tmp_path / "fifo.mp4"
    os.mkfifo(fifo)
    assert "neither a file nor a folder" in fault(fifo)
    assert "neither a file nor a folder" in fault("/dev/null")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who may not read everything")
def test_no_permission(tmp_path):
    path = make_video(tmp_path / "v.mp4")
    path.chmod(0)
    assert "Permission denied" in fault(path)


def test_places_that_may_not_be_read(tmp_path, monkeypatch):
    # as the system says it to all but the superuser
    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    image = make_image(tmp_path / "a.png")
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "the folder cannot be read: Permission denied" in fault(tmp_path)
    monkeypatch.setattr(np, "fromfile", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: Permission denied" in fault(image)


def test_urls_that_are_none():
    with pytest.raises(SourceError, match=r"^rtsp://\.\.\.: not a URL: no host"):
        open_source("rtsp://bob:s3cret@[no-address/x")


def test_playlists_reach_nothing(tmp_path):
    video = make_video(tmp_path / "v.ts", frames=5)
    m3u8 = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{video}\n#EXT-X-ENDLIST\n"
    texts = {
        "list.m3u8": m3u8,
        "list.mp4": m3u8,
        "gap.mp4": "\n" + m3u8,
        "list.ffconcat": f"ffconcat version 1.0\nfile '{video}'\n",
        "stream.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "list.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.write_text(text)
        assert "not a video" in fault(path), name


@pytest.mark.parametrize(
    "uri",
    ["concat:a.ts|b.ts", "subfile,,start,0,end,9,,:v.mp4", "file:v.mp4", "file:///etc/passwd", "data:text/plain,hi",
     "pipe:0", "ftp://host/v.mp4", "crypto:v.mp4", "async:v.mp4", "cache:http://x", "lavfi:testsrc", "tee:x", "http:x"],
)  # fmt: skip
def test_schemes_that_are_not_allowed(uri):
    with pytest.raises(SourceError, match=r"unknown kind of URL|no such file"):
        open_source(uri)


def test_names_that_cannot_be():
    for name in ("a\0b.mp4", "x" * 5000 + ".mp4"):
        with pytest.raises(SourceError):
            open_source(name)
    with pytest.raises(SourceError, match="empty"):
        open_source("")


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("street.mp4", "file"),
        ("C:\\video\\street.mp4", "file"),
        ("street", "file"),
        ("photo.JPG", "images"),
        ("frames/*.png", "images"),
        ("0", "camera"),
        ("12", "camera"),
        ("csi://0", "csi"),
        ("csi://1?flip=rotate-180", "csi"),
        ("/dev/video3", "camera"),
        ("rtsp://host/x", "stream"),
        ("RTSP://host/x", "stream"),
        ("https://host/v.jpg", "stream"),
        ("udp://0.0.0.0:5000", "stream"),
        ("-", "stdin"),
        ("synthetic:", "synthetic"),
        ("synthetic:?seed=1", "synthetic"),
        ("clip.gif", "file"),
    ],
)
def test_kind(uri, kind):
    assert kind_of(uri) == kind


def test_a_file_may_be_named_like_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "v.mp4").rename(tmp_path / "0.mp4")
    assert kind_of("0.mp4") == "file"
    assert kind_of(str(tmp_path)) == "images"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://bob:s3cret@cam:8554/live", "rtsp://cam:8554/..."),
        ("rtsp://bob@cam/live", "rtsp://cam/..."),
        ("RTSP://bob:s3cret@Cam.:554", "rtsp://cam"),
        ("http://cam/v?token=abc&x=1", "http://cam/..."),
        ("http://cam?token=abc", "http://cam/..."),
        ("http://cam/user=admin_password=x_channel=1.sdp", "http://cam/..."),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://bob:a@b@cam:99999/v?password=x", "http://..."),
        ("rtsp://bob:pa/ss@cam/live", "rtsp://..."),
        ("rtsp://bob:123/45@cam/live", "rtsp://..."),
        ("rtsp://bob:pa#ss@cam/live", "rtsp://..."),
        ("bob:pass@cam/live", "..."),
        ("bob:pa://ss@cam/live", "..."),
        ("synthetic:?size=64x48", "synthetic:?size=64x48"),
        ("csi://0?size=64x48", "csi://0?size=64x48"),
        ("street@home.mp4", "street@home.mp4"),
    ],
)
def test_redact(uri, shown):
    assert redact(uri) == shown
