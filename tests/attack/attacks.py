"""What an attacker tries, kind by kind; each from an address of its own.

Run as a program it does all of them at once for a while, and then writes down what it was answered:

    python -m tests.attack.attacks '{"url": "http://127.0.0.1:7860", "seconds": 300, ...}'

Each attack is called over and over until the time is up; see `tests.attack.attacker`.

Attackers are on machines of their own, and here on the server's. What they compete for is the server's attention, not
its processors: they get those only while nobody else wants them (`give_way`).
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.attack.attacker import Attacker, Target

PAUSE_S = 0.02
"""Between two calls of an attack: the attackers are not to take the cores that the server is measured on."""


def guesses(one: Attacker) -> None:
    word = "".join(one.random.choices("abcdefgh", k=8))
    one.ask("GET", "/v1/models", inside=False, auth=(one.target.user, word))
    one.ask("GET", "/v1/models", inside=False, headers={"authorization": f"Bearer {word}"})
    one.ask("GET", f"/v1/models?token={word}", inside=False)
    one.ask("POST", "/login", inside=False, data={"user": one.target.user, "password": word, "next": "//evil.example"})


def headers(one: Attacker) -> None:
    junk = one.random.randbytes(60).replace(b"\r", b"").replace(b"\n", b"")
    for head in (
        b"Host: x\r\nAuthorization: Basic \xff\xfe\xe9",
        b"Host: x\r\nAuthorization: Basic " + junk,
        b"Host: x\r\nAuthorization: Bearer " + junk,
        b"Host: x\r\nCookie: perception_session=" + junk,
        b"Host: " + junk,
        b"Host: x\r\nHost: y",
        b"Host: x\r\nOrigin: http://[\xff\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-For: 1.2.3.4",
        b"Host: x\r\nContent-Length: -1",
        b"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"Host: x\r\nX: " + b"x" * 200_000,
        b"Host: x\r\nUpgrade: h2c\r\nConnection: Upgrade",
        b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade",
        b"Host: x\r\nRange: bytes=0-" + b"9" * 400,
    ):
        methods = [b"GET /", b"POST /v1/predict", b"GET /login", b"HEAD /docs", b"OPTIONS *", b"G\xff /"]
        method = one.random.choice(methods)
        one.say(method + b" HTTP/1.1\r\n" + head + b"\r\n\r\n", 0.5)
    one.say(one.random.randbytes(300), 0.5)
    one.say(b"\x16\x03\x01" + one.random.randbytes(200), 0.5)  # TLS


def slow_uploads(one: Attacker) -> None:
    """Twenty-four at 4 kB a second, for as long as the server lets them."""
    path = one.random.choice(["/v1/predict", "/v1/explain", "/v1/jobs"])
    kind = "video/mp4" if path == "/v1/jobs" else "image/png"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {one.basic}\r\nContent-Type: {kind}\r\n"
        "Content-Length: 30000000\r\n\r\n"
    ).encode()
    uploads = []
    for _ in range(24):
        with suppress(OSError):
            upload = one.connect()
            upload.sendall(head)
            upload.setblocking(False)
            uploads.append(upload)
    until = time.monotonic() + 40
    while uploads and not one.over and time.monotonic() < until:
        for upload in list(uploads):
            try:
                upload.send(b"x" * 1000)
                one.see(upload, head)
            except BlockingIOError:
                continue
            except OSError as error:
                one.answers[type(error).__name__] += 1
            uploads.remove(upload)
            upload.close()
        time.sleep(0.25)
    for upload in uploads:
        one.answers["given up"] += 1
        upload.close()


def _png(width: int, height: int) -> bytes:
    """One colour; a few kilobytes, whatever its size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join([packer.compress(row) for _ in range(height)] + [packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


LARGE = _png(7000, 7000) if __name__ == "__main__" else b""


def large_pictures(one: Attacker) -> None:
    """Sixteen at once, of 49 megapixels, and headers that claim more."""
    kind = {"content-type": "image/png"}
    claimed = LARGE[:16] + struct.pack(">II", 2**30, 2**30) + LARGE[24:]
    one.ask("POST", "/v1/predict", content=claimed, headers=kind)

    def send(path: str) -> None:
        one.ask("POST", path, content=LARGE, headers=kind)

    threads = [threading.Thread(target=send, args=(path,)) for path in 14 * ["/v1/predict"] + 2 * ["/v1/explain"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def damaged_pictures(one: Attacker) -> None:
    data = bytearray(LARGE[:2000])
    for _ in range(10):
        data[one.random.randrange(len(data))] = one.random.randrange(256)
    for start in (b"", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"BM", b"RIFF\x00\x10\x00\x00WEBPVP8 ", b"GIF89a"):
        content = start + bytes(data)
        one.ask("POST", "/v1/predict", content=content, headers={"content-type": "image/jpeg"})


def forms(one: Attacker) -> None:
    mark = one.random.choice([b"x", b"x" * 70, b"\xff", b"", b'"', one.random.randbytes(20)])
    part = (
        b'Content-Disposition: form-data; name="file"; filename="../../etc/passwd\x00.png"\r\nContent-Type: image/png'
    )
    bodies = [
        b"--" + mark + b"\r\n" + part + b"\r\n\r\nx\r\n--" + mark + b"--",
        b"--" + mark + b"\r\n" + part,
        b"--" + mark + b"\r\n" + part * 500 + b"\r\n\r\n",
        (b"--" + mark + b"\r\n" + part + b"\r\n\r\n\r\n") * 50,
        b"--" + mark + b"\r\n" + b"X: y\r\n" * 5000,
        one.random.randbytes(3000),
        b"--" * 5000,
        b"",
    ]
    for body in bodies:
        path = one.random.choice(["/v1/predict", "/v1/jobs", "/v1/explain", "/gradio_api/upload"])
        kind = b"multipart/form-data; boundary=" + mark.replace(b"\r", b"").replace(b"\n", b"").replace(b"\x00", b"")
        one.ask("POST", path, content=body, headers=[(b"content-type", kind)])


def websockets(one: Attacker) -> None:
    url = one.target.url.replace("http", "ws")
    path = one.random.choice(["/v1/webcam", "/v1/streams/scene/video", "/v1/streams/..%2f..%2fetc/video", "/x"])
    try:
        with connect(
            url + path,
            additional_headers={"authorization": one.basic},
            source_address=(one.own, 0),
            close_timeout=1,
            max_size=None,
        ) as webcam:
            for _ in range(5):
                number = one.random.randbytes(4)
                webcam.send(one.random.choice([number + b"junk", number + LARGE[:500], b"", number]))
                webcam.send(one.random.choice(["{", "[" * 10_000, '{"score": NaN}', "null", '{"model": "../x"}']))
                one.look("frame", str(webcam.recv(5)).encode(), path)
            # Not UTF-8, though it says that it is text; then what is no frame at all.
            webcam.socket.sendall(b"\x81\x84\x00\x00\x00\x00\xff\xfe\xc0\x80")
            webcam.socket.sendall(one.random.randbytes(200))
            webcam.recv(2)
    except (WebSocketException, OSError, EOFError, TimeoutError) as error:
        one.answers[type(error).__name__] += 1


def gradio(one: Attacker) -> None:
    """A file of the server in every form in which Gradio takes one."""
    for path in (one.target.planted, "file://" + one.target.planted, "/dev/zero", "/proc/self/environ"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([file], [[file]], [{"a": file}], [{**file, "url": one.target.url}], [{"url": f"file://{path}"}]):
            for index in range(3):
                call = {"data": data, "fn_index": index, "session_hash": "x"}
                for route in ("run/predict", "api/predict", "queue/join", "call/predict", "run/lambda"):
                    one.ask("POST", f"/gradio_api/{route}", json=call)
                one.ask("POST", "/gradio_api/component_server", json={**call, "component_id": index, "fn_name": "ls"})
        for route in ("file=", "file/", "proxy=", "stream/x/x/x/", "reset/"):
            one.ask("GET", f"/gradio_api/{route}{quote(path)}")
            one.ask("GET", f"/{route}{path}")
        if one.over:
            return
    one.ask("POST", "/gradio_api/upload", files={"files": ("x.html", b"<script>", "text/html")})
    one.ask("GET", "/gradio_api/queue/data?session_hash=x")


def sources(one: Attacker) -> None:
    """What clients may not open, and what an allowed host leads to."""
    host, port = one.target.address
    for source in (
        f"file://{one.target.planted}",
        one.target.planted,
        f"http://{host}:{port}/metrics",
        "http://169.254.169.254/latest/meta-data/",
        f"{one.target.redirector}http://{host}:{port}/healthz",
        f"{one.target.redirector}file://{one.target.planted}",
        f"{one.target.redirector}ftp://{host}/x",
        f"concat:{one.target.planted}|{one.target.planted}",
        "rtsp://user:pa#ss@127.0.0.1/x",
        "HTTP://127.0.0.1/x",
        "synthetic:?size=100000x100000",
        "synthetic:?size=8192x6000&fps=1e9",
        "data:text/plain,x",
        "\x00",
        "0",
    ):
        answer = one.ask("POST", "/v1/streams", json={"source": source})
        if answer is not None and answer.status_code in (200, 201):
            id = answer.json()["id"]
            one.ask("GET", f"/v1/streams/{quote(id, safe='')}/snapshot")
            one.ask("DELETE", f"/v1/streams/{quote(id, safe='')}")
    one.ask("GET", "/v1/streams")


def streams(one: Attacker) -> None:
    size = f"{one.random.randrange(64, 640)}x{one.random.randrange(64, 480)}"
    answer = one.ask("POST", "/v1/streams", json={"source": f"synthetic:?size={size}&fps=5&seed={time.time_ns()}"})
    if answer is not None and answer.status_code == 201:
        id = quote(answer.json()["id"], safe="")
        one.ask("GET", f"/v1/streams/{id}")
        one.ask("POST", f"/v1/streams/{id}/recordings")
        one.ask("DELETE", f"/v1/streams/{id}")
    time.sleep(0.2)


def idle_sockets(one: Attacker) -> None:
    """As many as a client can open, some of which say a little."""
    held = []
    says = (b"", b"GET / HT", b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    for number in range(700):
        try:
            connection = one.connect()
            connection.sendall(says[number % 3])
            held.append(connection)
        except OSError as error:
            one.answers[type(error).__name__] += 1
    one.answers["opened"] += len(held)
    until = time.monotonic() + 15
    while not one.over and time.monotonic() < until:
        time.sleep(0.2)
    for connection in held:
        connection.close()


def heartbeats(one: Attacker) -> None:
    head = f"Host: localhost\r\nAuthorization: {one.basic}\r\n\r\n"
    held = []
    for number in range(140):
        try:
            connection = one.connect()
            connection.sendall(f"GET /gradio_api/heartbeat/{number:x} HTTP/1.1\r\n{head}".encode())
            one.see(connection, b"heartbeat")
            held.append(connection)
        except OSError as error:
            one.answers[type(error).__name__] += 1
    until = time.monotonic() + 20
    while not one.over and time.monotonic() < until:
        time.sleep(0.2)
    for connection in held:
        connection.close()


def traversal(one: Attacker) -> None:
    database = "jobs.sqlite3"
    for bad in (f"../../{database}", f"..%2f{database}", "%2e%2e/%2e%2e", "0" * 32, "a" * 5000, "\u202e", "%00", "%ff"):
        for path in (
            f"/v1/jobs/{bad}",
            f"/v1/jobs/{bad}/video",
            f"/v1/jobs/{'0' * 32}/{bad}",
            f"/v1/recordings/{bad}/video",
            f"/v1/streams/{bad}/snapshot",
            f"/static/perception/{bad}",
            f"/static/perception/../../../../../../{one.target.planted}",
            f"/{bad}",
        ):
            one.ask("GET", path)
    raw = f"GET /static/perception/../../../..{one.target.planted} HTTP/1.1\r\nHost: localhost\r\n"
    one.say(f"{raw}Authorization: {one.basic}\r\n\r\n".encode())
    with suppress(httpx.HTTPError):
        for id in (job["id"] for job in one.inside.get("/v1/jobs").json()):
            one.ask("DELETE", f"/v1/jobs/{id}")


ATTACKS: tuple[Callable[[Attacker], None], ...] = (
    guesses, headers, slow_uploads, large_pictures, damaged_pictures, forms, websockets, gradio, sources, streams,
    idle_sockets, heartbeats, traversal,
)  # fmt: skip


def run(one: Attacker, attack: Callable[[Attacker], None]) -> None:
    """One attack, until the time is up."""
    while not one.over:
        try:
            attack(one)
        except Exception as error:  # a fault of the attacker's is told at the end and ends no other attack
            one.fault("the attacker itself", repr(error))
            return
        time.sleep(PAUSE_S)


def give_way() -> None:
    """Let every other process have the processors first."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    """The program: all attacks at once, and JSON of what was answered."""
    give_way()
    target = Target(**json.loads(sys.argv[1]))
    attacks = [attack for attack in ATTACKS if not target.kinds or attack.__name__ in target.kinds]
    attackers = [Attacker(attack.__name__, number, target) for number, attack in enumerate(attacks, 1)]
    threads = [
        threading.Thread(target=run, args=(one, attack), daemon=True)
        for one, attack in zip(attackers, attacks, strict=True)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + target.seconds + 90
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    waiting = [one for one, thread in zip(attackers, threads, strict=True) if thread.is_alive()]
    faults = [f"{one.kind}: waits for an answer for ever" for one in waiting]
    faults += [fault for one in attackers for fault in one.faults.values()]
    print(json.dumps({"answers": {one.kind: dict(one.answers) for one in attackers}, "faults": faults}))
    sys.stdout.flush()
    os._exit(0)  # threads that wait for ever are told, and not waited for


if __name__ == "__main__":
    main()
