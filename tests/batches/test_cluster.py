"""A batch on a Ray cluster: its outputs are those of one machine, whatever becomes of the cluster's machines."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from perception.annotate import Annotation, Outputs
from perception.batch import Batch
from perception.batch.cluster import check_cluster
from perception.errors import UsageError
from tests.batches.running import command, done_in, make_clips, started, tree, until
from tests.fixtures import Main, make_cache_home, skip_without

skip_without("ray", "the extra `ray` is not installed")
pytestmark = [
    pytest.mark.timeout(600),  # a cluster is a dozen processes, on a machine that may be busy
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc"),
]

from tests.batches.nodes import Nodes, nodes  # noqa: E402


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache_home(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def cluster(cache: Path) -> Iterator[Nodes]:
    with nodes(1, cache) as made:
        yield made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_clips(tmp_path_factory.mktemp("in"), 7)
    (folder / "camera1" / "broken.mp4").write_text("this is no video")
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, clips: Path, model: str, cache: Path) -> dict[str, bytes]:
    """The outputs of one machine, and what is told of each source."""
    out = tmp_path_factory.mktemp("alone") / "out"
    line = [sys.executable, "-m", "perception", *here(clips, model, out, "--json")]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 3, done.stderr
    return tree(out)


def here(folder: Path, model: str, out: Path, *more: str) -> list[str]:
    """Words of a batch on this machine."""
    return command(folder, model, out, "--stage", "tests.batches.poison:noted", *more)


def on(address: str, folder: Path, model: str, out: Path, *more: str) -> list[str]:
    """Words of the same on a cluster."""
    words = here(folder, model, out, "--cluster", address, *more)
    at = words.index("--jobs")
    return [*words[:at], *words[at + 2 :]]


def begun(clips: Path) -> int:
    """How often a file was begun."""
    return len(list(clips.rglob("*.begun")))


def test_outputs_are_those_of_one_machine(
    cluster: Nodes, clips: Path, model: str, alone: dict[str, bytes], tmp_path: Path, cache: Path, main_here: Main
) -> None:
    out = tmp_path / "out"
    done = main_here(*on(cluster.address, clips, model, out, "--json"))
    assert done.returncode == 3, done.stderr
    assert f"{clips}/camera1/broken.mp4: " in done.stderr
    told = json.loads(done.stdout)
    assert (told["total"], told["done"], told["failed"]) == (8, 7, 1)
    assert tree(out) == alone
    # The model came by its content.
    sent = cache / "perception" / "sent" / f"{hashlib.sha256(Path(model).read_bytes()).hexdigest()}.onnx"
    assert sent.read_bytes() == Path(model).read_bytes() and sent.stat().st_mode & 0o077 == 0
    assert not cluster.tasks()


@pytest.mark.slow
def test_from_another_machine(
    cluster: Nodes, clips: Path, model: str, alone: dict[str, bytes], tmp_path: Path, cache: Path, main_here: Main
) -> None:
    """By Ray's client; and a model that is not what its name says is fetched again."""
    sent = cache / "perception" / "sent" / f"{hashlib.sha256(Path(model).read_bytes()).hexdigest()}.onnx"
    sent.parent.mkdir(mode=0o700, exist_ok=True)
    sent.write_bytes(b"something else")
    out = tmp_path / "out"
    assert main_here(*on(cluster.client, clips, model, out)).returncode == 3
    assert tree(out) == alone and sent.read_bytes() == Path(model).read_bytes()
    again = main_here(*on(cluster.client, clips, model, out, "--json"))
    told = json.loads(again.stdout)
    assert (told["skipped"], told["failed"]) == (7, 1), again.stderr
    assert tree(out) == alone


def test_a_machine_that_is_killed(
    cluster: Nodes, clips: Path, model: str, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out, before = tmp_path / "out", begun(clips)
    with started(on(cluster.address, clips, model, out)) as process:
        until(lambda: done_in(out) >= 2, process)
        cluster.kill(0)
        cluster.add()
        _, told = process.communicate(timeout=300)
    assert process.returncode == 3 and "7 of 8 done, 1 failed" in told, told
    assert 7 <= begun(clips) - before <= 7 + 1  # a task at a time is in work here
    assert tree(out) == alone


@pytest.mark.slow
def test_ctrl_c_ends_it_and_it_goes_on(
    cluster: Nodes, clips: Path, model: str, alone: dict[str, bytes], tmp_path: Path, main_here: Main
) -> None:
    out = tmp_path / "out"
    with started(on(cluster.address, clips, model, out)) as process:
        until(lambda: done_in(out) >= 1, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told
    assert "interrupted: the same command with --resume goes on" in told.strip().splitlines()[-1], told
    assert 1 <= done_in(out) < 7 and not list(out.glob(".*"))
    until(lambda: not cluster.tasks())
    done = main_here(*on(cluster.address, clips, model, out))
    assert done.returncode == 3, done.stderr
    assert tree(out) == alone


def test_another_version_is_refused(
    cluster: Nodes, clips: Path, model: str, tmp_path: Path, main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.common.version import __version__

    monkeypatch.setattr("perception.batch.cluster_pool.__version__", "9.8.7")
    done = main_here(*on(cluster.address, clips, model, tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert f"has perception {__version__}, and this one has 9.8.7; install the same" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 127.0.0.1:") and not list(tmp_path.rglob("*.mp4"))


def test_nothing_listens_to_other_machines(cluster: Nodes) -> None:
    places = {
        connection.laddr.ip
        for process in cluster.processes()
        if process.is_running()
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert places <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, places


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.batch.node import Job, do

    monkeypatch.chdir(tmp_path)  # where it goes itself, and would stay
    job = Job(Annotation(), {}, tmp_path / "out" / ".perception-batch", str(tmp_path))
    answer = do(pickle.dumps(job), b"", lambda _: b"")
    assert answer.outcome is None and str(answer.broken).startswith(f"{tmp_path}/out: the machine ")
    assert "must be on storage that all machines of the cluster have" in str(answer.broken)


@pytest.mark.parametrize("address", ["", "ray", "http://host:1", "ray://me:secret@host:10001", "ray://host", "a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="a cluster is ray://HOST:10001") as refused:
        check_cluster(address)
    assert "secret" not in str(refused.value)


def test_a_head_that_is_not_there(tmp_path: Path, model: str, clips: Path, main_here: Main) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"ray://127.0.0.1:{taken.getsockname()[1]}"
        done = main_here(*on(address, clips, model, tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    assert (
        done.stderr.strip().splitlines()[-1].startswith(f"error: {address}: the head of the cluster cannot be reached")
    )


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("perception.common.distribution.find_spec", lambda name: None)
    monkeypatch.setattr("perception.common.distribution.distribution", nothing)  # as from a source tree
    with pytest.raises(UsageError, match=r"a cluster needs ray; install it with: pip install '\.\[ray\]'"):
        Batch([str(tmp_path)], Annotation(), Outputs(video=f"{tmp_path}/out/"), cluster="auto")


@pytest.mark.slow
def test_this_machine_alone_is_a_cluster_too(
    clips: Path, model: str, alone: dict[str, bytes], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    out = tmp_path / "out"
    with started(on("local", clips, model, out)) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 3, told
    assert tree(out) == alone


@pytest.mark.slow
def test_from_and_into_an_object_store(
    cluster: Nodes, clips: Path, model: str, alone: dict[str, bytes], main_here: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines get the credentials of the addresses, and the folder of nothing."""
    pytest.importorskip("moto", reason="moto is not installed")
    from perception.common import objects
    from tests.batches.store import store

    monkeypatch.setattr(objects, "_options", {})
    monkeypatch.setattr(objects, "_systems", {})
    with store() as films:
        films.put_all(clips, "in")
        words = [
            "annotate",
            films.address("in/"),
            "-r",
            "-m",
            model,
            "-o",
            films.address("out/"),
            "--precision",
            "fp32",
        ]
        done = main_here(*words, "--jsonl", films.address("out/"), "--cluster", cluster.address)
        assert done.returncode == 3, done.stderr
        made = films.tree("out")
    assert made.keys() == alone.keys()
    for name, data in made.items():
        if name.startswith("camera"):
            assert data.replace(b"s3://films/in", str(clips).encode()) == alone[name]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_machines_are_killed_at_random(model: str, tmp_path: Path, cache: Path, main_here: Main) -> None:
    """PERCEPTION_NODE_KILLS: how often, 50 unless it is set. For each there are six clips, of which some four are done.

    What is left of the cluster is held while a machine is replaced, which takes longer than many clips: or the batch
    would end before its kills.
    """
    kills = int(os.environ.get("PERCEPTION_NODE_KILLS", "50"))
    files = 6 * kills
    clips, out, whole = make_clips(tmp_path / "in", files), tmp_path / "out", tmp_path / "whole"
    hold = clips / "hold"
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # shown where it fails
    moments = random.Random(seed)
    done = 0
    with nodes(2, cache) as cluster, started(on(cluster.address, clips, model, out)) as process:
        while done < kills and process.poll() is None:
            wanted = done_in(out) + moments.randint(1, 2)
            until(lambda wanted=wanted: done_in(out) >= wanted or process.poll() is not None)  # type: ignore[misc]
            time.sleep(moments.uniform(0, 0.3))
            hold.touch()
            cluster.kill(moments.randrange(2))
            cluster.add()
            hold.unlink()
            done += 1
        _, told = process.communicate(timeout=1200)
    assert process.returncode == 0, told
    print(f"{done} machines killed, {begun(clips)} tasks begun for {files} files")
    assert done == kills
    assert begun(clips) <= files + done
    assert main_here(*here(clips, model, whole)).returncode == 0
    assert tree(out) == tree(whole)
