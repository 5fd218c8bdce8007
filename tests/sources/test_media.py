"""What folders and globs stand for, and what is said of the rest."""

from __future__ import annotations

import fnmatch
import random
from pathlib import Path

import pytest

from perception.errors import SourceError
from perception.sources import open_source
from perception.sources.media import check_there, find_media

VIDEOS, IMAGES, OTHERS = (".mp4", ".MKV", ".webm"), (".png", ".JPG"), (".txt", ".srt", "")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def tree(root: Path, seed: int) -> list[Path]:
    rng = random.Random(seed)
    folders = ["", "a", "a/b", "c", "c/d/e", ".hidden"]
    names = {
        f"{rng.choice(folders)}/{rng.choice(('', '', '', '.'))}f{n}{rng.choice(VIDEOS + IMAGES + OTHERS)}".lstrip("/")
        for n in range(rng.randrange(25))
    }
    touch(root, *names)
    return [root / name for name in names if not any(part.startswith(".") for part in Path(name).parts)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("recursive", [False, True])
def test_every_file_is_read_once_or_told(
    tmp_path: Path, seed: int, recursive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    files = tree(tmp_path, seed)
    seen = files if recursive else [f for f in files if f.parent == tmp_path]
    videos = {f for f in seen if f.suffix in VIDEOS}
    of_images = {f.parent for f in seen if f.suffix in IMAGES}
    found = find_media(str(tmp_path), recursive)
    if not videos and not of_images:
        assert [m.uri for m in found] == [str(tmp_path)]  # told when it is opened
        return
    assert {Path(m.uri) for m in found} == videos | of_images
    assert len(found) == len(videos) + len(of_images)
    for media in found:
        path = Path(media.uri)
        assert media.folder == ("" if path == tmp_path else path.parent.relative_to(tmp_path).as_posix().strip("."))
    told = " ".join(record.getMessage() for record in caplog.records)
    for other in {f for f in seen if f.suffix in OTHERS} if len(seen) < 6 else ():
        assert other.name in told
    below = {f.relative_to(tmp_path).parts[0] for f in files if f.parent != tmp_path}
    assert all(name in told for name in below) or recursive


def test_globs_are_files_in_natural_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "v10.mp4", "v2.mp4", "v1.txt", "p1.png", "p2.png", "sub/v3.mp4", "sub/v4.mov")
    pattern = str(tmp_path / "v*.mp4")
    assert [Path(m.uri).name for m in find_media(pattern)] == ["v2.mp4", "v10.mp4"]
    everything = find_media(str(tmp_path / "*"))
    assert [Path(m.uri).name for m in everything] == ["v2.mp4", "v10.mp4", "*"]  # the images are one source
    assert "sub" in caplog.text
    deep = find_media(str(tmp_path / "**" / "*.m*"))
    assert {(Path(m.uri).name, m.folder) for m in deep} == {
        *((name, "") for name in ("v2.mp4", "v10.mp4")),
        *((name, "sub") for name in ("v3.mp4", "v4.mov")),
    }
    assert all(fnmatch.fnmatch(m.uri, str(tmp_path / "*.m*")) for m in deep)
    assert [m.uri for m in find_media(str(tmp_path / "no*.mp4"))] == [str(tmp_path / "no*.mp4")]


@pytest.mark.parametrize(
    "source", ["0", "-", "rtsp://camera/live?a=*", "synthetic:?size=64x48", "a.mp4", "http://x/[1]"]
)
def test_what_is_no_folder_stays(source: str) -> None:
    assert [(m.uri, m.folder) for m in find_media(source, recursive=True)] == [(source, "")]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "clip[1].mp4", "clip1.mp4")
    name = str(tmp_path / "clip[1].mp4")
    assert [m.uri for m in find_media(name)] == [name]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert [Path(m.uri).name for m in find_media(str(tmp_path), recursive=True)] == ["a.mp4", "b.mp4"]


def test_several_videos_are_not_one_source(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a.mp4")
    for name in (tmp_path, tmp_path / "*.mp4"):
        with pytest.raises(
            SourceError, match=r"of videos is not one source; open each video by itself: a\.mp4, b\.mp4"
        ):
            open_source(name)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("vidoes", "videos"),
        ("vidoes/", "videos"),
        ("vidoes/a.mp4", "videos"),
        ("videos/steret.mp4", "videos/street.mp4"),
    ],
)
def test_a_misspelled_path_names_the_nearest(tmp_path: Path, wrong: str, right: str) -> None:
    touch(tmp_path, "videos/street.mp4", "music/a.mp3")
    with pytest.raises(SourceError, match=r"no such file.*did you mean") as caught:
        check_there(f"{tmp_path}/{wrong}")
    assert str(tmp_path / right) in caught.value.message
    check_there(f"{tmp_path}/{right}")


def test_nothing_near_is_nothing_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        check_there(f"{tmp_path}/xyzzy.mp4")
    assert caught.value.message == "no such file"
