"""Batches from and into an object store: what is there is what files would have; it is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.common import objects
from perception.common.objects import ObjectPath, plain, remember
from perception.errors import UsageError
from perception.sources.uri import redact
from tests.batches.running import make_clips, started, tree, until
from tests.batches.store import BUCKET, KEY, SECRET, Store, store
from tests.fixtures import Main, skip_without

skip_without("moto", "moto is not installed")
pytestmark = [pytest.mark.usefixtures("own_cache_home"), pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_options", {})
    monkeypatch.setattr(objects, "_systems", {})


@pytest.fixture
def films() -> Iterator[Store]:
    with store() as made:
        yield made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_clips(tmp_path_factory.mktemp("in"), 5)
    (folder / "camera1" / "broken.mp4").write_text("this is no video")
    return folder


def words(source: str, out: str, model: str, *more: str) -> list[str]:
    made = ["annotate", source, "-r", "-m", model, "-o", out, "--jsonl", out, "--precision", "fp32"]
    return [*made, "--resume", *more]


def test_from_store_to_store(films: Store, clips: Path, model: str, tmp_path: Path, main_here: Main) -> None:
    films.put_all(clips, "in")
    line = words(films.address("in/"), films.address("out/"), model, "--json")
    done = main_here(*line)
    assert done.returncode == 3, done.stderr
    told = json.loads(done.stdout)
    assert (told["total"], told["done"], told["failed"]) == (6, 5, 1)
    assert f"error: s3://{BUCKET}/in/camera1/broken.mp4: " in done.stderr
    made = films.tree("out")
    assert main_here(*words(f"{clips}/", f"{tmp_path}/out/", model)).returncode == 3
    files = tree(tmp_path / "out")
    assert made.keys() == files.keys() and not [name for name in made if name.startswith(".")]
    for name, data in made.items():
        if name.startswith("camera"):  # nothing of the copy that was read
            assert data.replace(f"s3://{BUCKET}/in".encode(), str(clips).encode()) == files[name]
    manifest = [json.loads(line) for line in made["manifest.jsonl"].splitlines()]
    assert manifest[2]["source"] == f"s3://{BUCKET}/in/camera0/clip0.mp4"
    assert manifest[2]["outputs"] == {"video": "camera0/clip0.mp4", "jsonl": "camera0/clip0.jsonl"}
    for text in (done.stdout, done.stderr, *(data.decode("latin1") for data in made.values())):
        assert KEY not in text and SECRET not in text and SECRET.replace("/", "%2F") not in text
    again = main_here(*line)
    told = json.loads(again.stdout)
    assert (told["skipped"], told["failed"]) == (5, 1), again.stderr
    assert films.tree("out") == made


@pytest.mark.slow
def test_it_is_killed_and_goes_on(films: Store, clips: Path, model: str, main_here: Main) -> None:
    films.put_all(clips, "in")
    more = ["--stage", "tests.batches.poison:slowly", "--jobs", "2"]
    line = words(films.address("in/"), films.address("out/"), model, *more)
    with started(line) as process:
        until(lambda: films.done("out") >= 1, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 1 <= films.done("out") < 5
    done = main_here(*line)
    assert done.returncode == 3, done.stderr
    whole = words(films.address("in/"), films.address("whole/"), model, *more)
    assert main_here(*whole).returncode == 3
    made = films.tree("out")
    assert made == films.tree("whole")
    films.put("in/camera2/clip0.mp4", (clips / "camera0" / "clip1.mp4").read_bytes())  # another film
    assert json.loads(main_here(*line, "--json").stdout)["done"] == 1
    assert films.tree("out")["camera2/clip0.mp4"] == made["camera0/clip1.mp4"]


def test_from_store_to_files_and_back(films: Store, clips: Path, model: str, tmp_path: Path, main_here: Main) -> None:
    films.put_all(clips, "in")
    down = main_here(*words(films.address("in/camera2/"), f"{tmp_path}/down/", model))
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "down" / "clip0.mp4").is_file()
    up = words(f"{clips}/camera2", films.address("up/"), model, "--masks", films.address("up/masks"))
    assert main_here(*up).returncode == 0
    made = films.tree("up")
    assert made["clip0.mp4"] == (tmp_path / "down" / "clip0.mp4").read_bytes()
    assert len([name for name in made if name.startswith("masks/clip0/")]) == 5
    again = main_here(*up, "--json")
    assert json.loads(again.stdout)["skipped"] == 1, again.stderr


def test_a_bucket_without_permission(films: Store, clips: Path, model: str, tmp_path: Path, main_here: Main) -> None:
    films.put_all(clips / "camera2", "in")
    films.close_to_all()
    for source, out in ((f"{clips}/", films.address("out/")), (films.address("in/"), f"{tmp_path}/out/")):
        done = main_here(*words(source, out, model))
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 2 and len(lines) == 1, done.stderr
        assert lines[0].startswith(f"error: s3://{BUCKET}/") and "no permission; check the credentials" in lines[0]
        assert SECRET not in lines[0] and KEY not in lines[0]


def test_without_a_batch_it_says_what_to_add(model: str, main_here: Main, tmp_path: Path) -> None:
    for source, out in (("s3://films/in.mp4", f"{tmp_path}/out/"), ("synthetic:?frames=1", "s3://films/out/")):
        done = main_here("annotate", source, "-m", model, "-o", out)
        assert done.returncode == 2 and "by a batch: --resume makes one" in done.stderr, done.stderr


def test_names_have_no_secrets() -> None:
    address = "s3://me:p%2Fw@films/a//b/?region=eu-1&scheme=http"
    assert remember(address) == plain("s3://films/a/b/") == "s3://films/a/b/"
    assert redact(address) == "s3://films/a//b/" and redact("s3://films/x.mp4") == "s3://films/x.mp4"
    assert remember("s3://films/c.mp4") == "s3://films/c.mp4"  # what is known of the bucket stays
    with pytest.raises(UsageError, match="is given twice with different"):
        remember("s3://you:other@films/a")
    for wrong in ("s3://", "s3:///a", "gs://me:secret@/x", "s3://films/a#b", "file:///x"):
        with pytest.raises(UsageError, match="not an address of an object") as refused:
            remember(wrong)
        assert "secret" not in str(refused.value)
    assert redact("s3://me:se/cret@films/a") == "s3://..."


def test_paths_are_put_together_as_those_of_files() -> None:
    path = ObjectPath("s3://films/out") / "a" / "b.mp4"
    assert str(path) == "s3://films/out/a/b.mp4" and (path.name, path.suffix, path.stem) == ("b.mp4", ".mp4", "b")
    assert path.parent == ObjectPath("s3://films/out/a/") and str(ObjectPath("s3://films/x").parent) == "s3://films"
    assert str(ObjectPath("s3://films") / "x") == "s3://films/x"
    assert path.relative_to(ObjectPath("s3://films/out")).as_posix() == "a/b.mp4"
