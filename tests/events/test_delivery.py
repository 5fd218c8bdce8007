"""Delivery: over failures and restarts nothing is lost or doubled, in order, and publishing never waits."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from perception.events import delivery as module
from perception.events.delivery import Delivery
from perception.events.event import Event
from perception.events.event_file import EventFile
from perception.events.outbox import Letter, Outbox
from perception.events.target import DeliveryError, Target
from perception.events.webhook import Webhook
from tests.events.receivers import HttpReceiver, event, free_port, wait_for


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(Webhook, "longest_pause_s", 0.02)


def received(server: HttpReceiver) -> list[str]:
    return [headers["webhook-id"] for _, headers, _ in server.requests]


@pytest.mark.parametrize("seed", range(4))
def test_a_server_that_fails_at_random(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    answers = [rng.choice([200, 200, 500, 503, 404]) for _ in range(5000)]
    events = [event(i) for i in range(40)]
    with HttpReceiver(lambda number: (answers[number], {})) as server:
        at = 0
        while at < len(events):  # with restarts
            with Delivery(Outbox(tmp_path / "outbox"), [Webhook(server.url)]) as delivery:
                for one in events[at : at + 15]:
                    delivery.publish(one)
            at += 15
        with Delivery(Outbox(tmp_path / "outbox"), [Webhook(server.url)]) as delivery:
            wait_for(lambda: delivery.status[0].pending == 0)
            status = delivery.status[0]
    accepted = [one for one, answer in zip(received(server), answers, strict=False) if answer == 200]
    assert accepted == [one.id for one in events]  # each once, in order
    assert (status.delivered, status.dropped, status.refused) == (40, 0, 0)


def test_an_outage_is_told_once_and_its_end_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="perception")
    broken = threading.Event()
    broken.set()
    server = HttpReceiver(lambda number: (500 if broken.is_set() else 200, {}))
    with server, Delivery(Outbox(tmp_path / "outbox"), [Webhook(server.url)]) as delivery:
        for i in range(10):
            delivery.publish(event(i))
        wait_for(lambda: len(server.requests) > 5)
        assert "it answers 500" in delivery.status[0].problem and delivery.status[0].pending == 10
        broken.clear()
        wait_for(lambda: delivery.status[0].pending == 0)
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "it answers 500 Internal Server Error; events wait in the outbox",
        "takes events again",
    ]


def test_a_refused_event_does_not_hold_up_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = [event(i) for i in range(5)]
    server = HttpReceiver(lambda number: (422 if number == 2 else 200, {}))
    with server, Delivery(Outbox(tmp_path / "outbox"), [Webhook(server.url)]) as delivery:
        for one in events:
            delivery.publish(one)
        assert delivery.flush(60)
        wait_for(lambda: delivery.status[0].pending == 0)
        assert (delivery.status[0].delivered, delivery.status[0].refused) == (4, 1)
    assert received(server) == [one.id for one in events] and events[2].id in caplog.text


def test_a_target_that_hangs_slows_neither_publishing_nor_the_others(tmp_path: Path) -> None:
    hanging = threading.Event()

    class Hangs(Target):
        name = "hangs"

        def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
            hanging.wait()

    with HttpReceiver() as server:
        delivery = Delivery(Outbox(tmp_path / "outbox"), [Hangs(), Webhook(server.url)])
        for i in range(50):
            delivery.publish(event(i))
        wait_for(lambda: len(server.requests) == 50)
        left = delivery.close(timeout=0.2)  # and the end does not wait for it
        hanging.set()
    assert left == {"hangs": 50}


def test_publishing_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 100)
    box, stuck = Outbox(tmp_path / "outbox"), threading.Event()
    entered, add = threading.Event(), box.add

    def slow(letters: Sequence[Letter], targets: Sequence[str]) -> None:
        entered.set()
        stuck.wait()
        add(letters, targets)

    monkeypatch.setattr(box, "add", slow)
    delivery = Delivery(box, [EventFile(tmp_path / "events.jsonl")])
    delivery.publish(event())
    assert entered.wait(60)
    events = [event(i) for i in range(150)]
    for one in events:
        delivery.publish(one)  # would never return if it waited
    assert delivery.lost == 50 and not delivery.flush(0.01)
    stuck.set()
    assert delivery.flush(60) and delivery.close() == {}
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [Event.from_json(line).id for line in lines[1:]] == [one.id for one in events[50:]]


def test_what_is_left_is_told_and_sent_at_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    hook = Webhook(f"http://127.0.0.1:{port}/hook")
    delivery = Delivery(Outbox(tmp_path / "outbox"), [hook])
    events = [event(i) for i in range(3)]
    for one in events:
        delivery.publish(one)
    began = time.monotonic()
    assert delivery.close(timeout=600) == {hook.name: 3}
    assert time.monotonic() - began < 300  # a target that fails is not waited for
    assert "3 events left in" in caplog.text and "sent at the next start" in caplog.text
    with HttpReceiver() as server, Delivery(Outbox(tmp_path / "outbox"), [Webhook(server.url)]) as other:
        assert other.status[0].pending == 0  # of another address
    with HttpReceiver() as server:
        again = Webhook(server.url)
        again.name = hook.name  # as if the server had come back on its port
        with Delivery(Outbox(tmp_path / "outbox"), [again]) as delivery:
            wait_for(lambda: delivery.status[0].pending == 0)
    assert received(server) == [one.id for one in events]


def test_pauses_grow_to_the_longest_and_are_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 1.0)

    class Fails(Target):
        name = "fails"

        def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
            raise DeliveryError("no", retry_after=wish)

    delivery = Delivery(box := Outbox(tmp_path / "outbox"), [])
    lane = module._Lane(Fails(), box, threading.Event(), delivery)
    wish = 0.0
    pauses = [lane._offer([]) for _ in range(14)]
    for number, pause in enumerate(pauses):
        assert min(2**number, 300) / 2 <= pause <= min(2**number, 300)
    assert len({*pauses}) == 14
    wish = 1234.0
    assert lane._offer([]) == 1234
    delivery.close()


class TestFile:
    def deliver(self, target: EventFile, letters: Sequence[Letter]) -> list[str]:
        accepted: list[str] = []
        target.deliver(letters, accepted.append)
        return accepted

    def letters(self, number: int) -> list[Letter]:
        return [Letter(one.id, one.to_json()) for one in map(event, range(number))]

    def test_lines_are_appended_and_not_doubled(self, tmp_path: Path) -> None:
        path, letters = tmp_path / "new" / "events.jsonl", self.letters(6)
        self.deliver(EventFile(path), letters[:2])
        self.deliver(EventFile(path), letters[:4])  # killed before it could note that it had two
        target = EventFile(path)
        self.deliver(target, letters[2:5])
        self.deliver(target, letters[5:])
        assert path.read_text().splitlines() == [one.body for one in letters]

    @pytest.mark.parametrize("cut", [1, 5, 12, 200])
    def test_a_line_that_was_cut_is_removed(self, tmp_path: Path, cut: int) -> None:
        path, letters = tmp_path / "events.jsonl", self.letters(3)
        path.write_text(f"{letters[0].body}\n{letters[1].body[:cut]}")
        self.deliver(EventFile(path), letters)
        assert path.read_text().splitlines() == [one.body for one in letters]

    def test_a_line_of_somebody_else_is_kept(self, tmp_path: Path) -> None:
        path, letters = tmp_path / "events.jsonl", self.letters(1)
        path.write_text("notes")
        self.deliver(EventFile(path), letters)
        assert path.read_text().splitlines() == ["notes", letters[0].body]

    @pytest.mark.parametrize("keep", [0, 1, 3])
    def test_files_are_bounded(self, tmp_path: Path, keep: int) -> None:
        letters = self.letters(60)
        target = EventFile(tmp_path / "events.jsonl", limit_bytes=4000, keep=keep)
        for one in letters:
            self.deliver(target, [one])
        files = sorted(tmp_path.iterdir(), key=lambda file: file.name, reverse=True)
        assert all(file.stat().st_size <= 4000 for file in files) and len(files) <= keep + 1
        newest_last = sorted(files[:-1], key=lambda f: -int(f.suffix[1:])) + files[-1:]
        lines = [line for file in newest_last for line in file.read_text().splitlines()]
        assert lines == [one.body for one in letters[-len(lines) :]]

    def test_a_folder_in_its_place_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(DeliveryError, match="directory"):
            self.deliver(EventFile(tmp_path), self.letters(1))
