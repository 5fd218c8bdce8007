"""MQTT against a real mosquitto: nothing lost over outages, entities of Home Assistant, no flapping."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from perception.errors import UsageError
from perception.events import mqtt as module
from perception.events.delivery import Delivery
from perception.events.event import Event, utc
from perception.events.home_assistant import RuleOutline
from perception.events.mqtt import Mqtt
from perception.events.outbox import Outbox
from tests.events.receivers import Broker, Subscriber, event, free_port, needs_mosquitto, wait_for

pytestmark = needs_mosquitto

KILLS = int(os.environ.get("PERCEPTION_BROKER_KILLS", "200"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_S", (0.05, 0.5))
    monkeypatch.setattr(module, "BIRTH_S", 0.1)


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Broker]:
    """A broker for the test to start; it is ended with it."""
    made = Broker(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as running:
        yield running


def delivery_to(port: int, folder: Path, **settings: Any) -> Delivery:
    return Delivery(Outbox(folder / "outbox"), [Mqtt("127.0.0.1", port, client_id="ours", **settings)])


def drained(delivery: Delivery) -> None:
    assert delivery.flush(60)
    wait_for(lambda: delivery.status[0].pending == 0)


def test_events_arrive_once_and_in_order(broker: Broker, tmp_path: Path) -> None:
    events = [event(i) for i in range(200)]
    with Subscriber(broker.port) as subscriber:
        with delivery_to(broker.port, tmp_path) as delivery:
            for one in events:
                delivery.publish(one)
            drained(delivery)
        wait_for(lambda: len(subscriber.of("yard/events")) == 200)
        wait_for(lambda: subscriber.of("availability") == ["online", "offline"])
    assert [Event.from_json(text) for text in subscriber.of("yard/events")] == events


def test_a_broker_that_is_not_there_at_the_start(
    stopped: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="perception")
    broker = stopped
    with delivery_to(broker.port, tmp_path) as delivery:
        delivery.publish(event())
        wait_for(lambda: delivery.status[0].problem == "the broker cannot be reached")
        broker.start()
        drained(delivery)
        wait_for(lambda: not delivery.status[0].problem)
    assert "cannot be reached; events wait in the outbox" in caplog.text and "takes events again" in caplog.text


def test_what_is_left_is_sent_at_the_next_start(tmp_path: Path) -> None:
    broker, events = Broker(tmp_path), [event(i) for i in range(3)]
    delivery = delivery_to(broker.port, tmp_path)
    for one in events:
        delivery.publish(one)
    assert list(delivery.close(timeout=0.5).values()) == [3]
    with broker, Subscriber(broker.port) as subscriber, delivery_to(broker.port, tmp_path):
        wait_for(lambda: len(subscriber.of("events")) == 3)
    assert [Event.from_json(text) for text in subscriber.of("events")] == events


def test_a_broker_that_hangs_for_a_while(broker: Broker, tmp_path: Path) -> None:
    with Subscriber(broker.port) as subscriber, delivery_to(broker.port, tmp_path) as delivery:
        delivery.publish(event(0))
        drained(delivery)
        broker.signal(signal.SIGSTOP)
        for i in range(1, 500):
            delivery.publish(event(i))
        assert delivery.flush(60)
        time.sleep(1)
        assert delivery.status[0].pending == 499
        broker.signal(signal.SIGCONT)
        drained(delivery)
        wait_for(lambda: len(subscriber.of("events")) == 500)
        assert len({Event.from_json(text).id for text in subscriber.of("events")}) == 500


def test_a_broker_that_hangs_holds_up_no_end(broker: Broker, tmp_path: Path) -> None:
    delivery = delivery_to(broker.port, tmp_path)
    delivery.publish(event(0))
    drained(delivery)
    broker.signal(signal.SIGSTOP)
    delivery.publish(event(1))
    assert list(delivery.close(timeout=0.5).values()) == [1]
    broker.signal(signal.SIGCONT)


def with_password(folder: Path, *more: str) -> Broker:
    subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "users", "me", "right"], check=True, capture_output=True)
    return Broker(folder, f"password_file {folder / 'users'}", *more, anonymous=False)


def test_credentials_that_are_refused_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with with_password(tmp_path) as broker:
        with delivery_to(broker.port, tmp_path, user="me", password="wrong-one") as delivery:
            delivery.publish(event())
            wait_for(lambda: "refuses the user or the password" in delivery.status[0].problem)
            assert delivery.status[0].pending == 1
            delivery.close(timeout=0.1)
        assert "wrong-one" not in caplog.text and caplog.text.count("refuses the user") == 1
        with delivery_to(broker.port, tmp_path, user="me", password="right") as delivery:
            drained(delivery)


def test_a_topic_that_is_forbidden_loses_nothing(tmp_path: Path) -> None:
    rights = tmp_path / "rights"
    rights.write_text("user me\ntopic readwrite #\n\nuser guest\ntopic readwrite perception/availability\n")
    with with_password(tmp_path, f"acl_file {rights}") as broker:
        subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", "guest", "guest"], check=True)
        broker.kill()
        broker.start()
        with delivery_to(broker.port, tmp_path, user="guest", password="guest", discovery=None) as delivery:
            delivery.publish(event())
            wait_for(lambda: "does not take it: not authorized" in delivery.status[0].problem)
            assert delivery.status[0].pending == 1
            delivery.close(timeout=0.1)


def test_tls_is_checked(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.pem", "-out", "cert.pem",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    cert = tmp_path / "cert.pem"
    with Broker(tmp_path, f"certfile {cert}", f"keyfile {tmp_path / 'own.pem'}") as broker:
        with delivery_to(broker.port, tmp_path, tls=True) as delivery:
            delivery.publish(event())
            wait_for(lambda: delivery.status[0].problem)
            assert delivery.status[0].pending == 1
            delivery.close(timeout=0.1)
        with delivery_to(broker.port, tmp_path, tls=True, ca_file=cert) as delivery:
            drained(delivery)
    with pytest.raises(UsageError, match="authorities of TLS cannot be read"):
        Mqtt("127.0.0.1", tls=True, ca_file=tmp_path / "none.pem")


def test_mqtt_3(broker: Broker, tmp_path: Path) -> None:
    with Subscriber(broker.port) as subscriber, delivery_to(broker.port, tmp_path, version="3.1.1") as delivery:
        delivery.publish(event())
        drained(delivery)
        wait_for(lambda: len(subscriber.of("events")) == 1)


def test_entities_and_states_appear(broker: Broker, tmp_path: Path) -> None:
    with delivery_to(broker.port, tmp_path) as delivery:
        for one in (
            event(3, direction="in"),
            event(2, direction="out"),
            event(4, direction="in"),
            event(1, kind="entered", rule="Hof 1", direction=None),
            event(0, kind="left", rule="Hof 1", direction=None, duration=3.5),
            event(0, kind="condition_started", rule="flood", count=None, value=0.25),
        ):
            delivery.publish(one)
        drained(delivery)
        with Subscriber(broker.port) as subscriber:  # later: what is retained
            wait_for(lambda: len(subscriber.of("/state")) == 3)
            wait_for(lambda: len(subscriber.of("/config")) == 7)
            first = {topic: payload for topic, payload, _ in subscriber.messages}
            check_entities(first)
            subscriber.messages.clear()
            subscriber.publish("homeassistant/status", "online")
            wait_for(lambda: len(subscriber.of("/state")) == 3 and len(subscriber.of("/config")) == 7)
            again = {topic: payload for topic, payload, _ in subscriber.messages if topic.endswith(("config", "state"))}
            assert again.items() <= first.items()


def test_entities_of_known_rules_are_there_before_their_first_events(broker: Broker, tmp_path: Path) -> None:
    rules = [
        RuleOutline("yard", "gate", "line", ("in", "out")),
        RuleOutline("yard", "Hof 1", "zone"),
        RuleOutline("yard", "flood", "condition"),
    ]
    with Subscriber(broker.port) as subscriber, delivery_to(broker.port, tmp_path, rules=rules) as delivery:
        wait_for(lambda: len(subscriber.of("/config")) == 7 and len(subscriber.of("/state")) == 3)
        before = {topic: payload for topic, payload, _ in subscriber.messages}
        states = [json.loads(before[topic]) for topic in sorted(before) if topic.endswith("/state")]
        assert {"crossed": {"in": 0, "out": 0}} in states
        assert {"inside": 0, "occupied": "OFF"} in states and {"holds": "OFF", "value": None} in states
        for one in (
            event(4, direction="in"),
            event(2, direction="out"),
            event(0, kind="left", rule="Hof 1", direction=None, duration=3.5),
            event(0, kind="condition_started", rule="flood", count=None, value=0.25),
        ):
            delivery.publish(one)
        drained(delivery)
        wait_for(lambda: len(subscriber.of("/state")) == 7)
        assert len(subscriber.of("/config")) == 7  # they are those that the events would have announced
        check_entities({topic: payload for topic, payload, _ in subscriber.messages})


def check_entities(messages: dict[str, str]) -> None:
    """As Home Assistant would read them: each entity's state by its own template."""
    found = {}
    for topic, payload in messages.items():
        if topic.endswith("/config"):
            entity = json.loads(payload)
            assert topic.split("/")[0] == "homeassistant" and topic.split("/")[1] in ("sensor", "binary_sensor")
            assert entity["availability_topic"] in messages
            assert entity["device"]["name"] == "yard"
            template = entity.get("value_template")
            if template is not None:
                state: Any = json.loads(messages[entity["state_topic"]])
                for part in template.removeprefix("{{ value_json.").removesuffix(" }}").split("."):
                    state = state[part]
                found[entity["name"]] = state
            else:
                assert entity["device_class"] == "motion" and entity["off_delay"] > 0
    assert found == {
        "gate in": 4,
        "gate out": 2,
        "Hof 1 inside": 0,
        "Hof 1": "OFF",
        "flood": "ON",
        "flood value": 0.25,
    }


def test_old_events_are_no_motion(broker: Broker, tmp_path: Path) -> None:
    with Subscriber(broker.port) as subscriber, delivery_to(broker.port, tmp_path) as delivery:
        delivery.publish(event(0, time=utc(time.time() - 3600)))
        delivery.publish(event(1, source="street"))
        drained(delivery)
        wait_for(lambda: subscriber.of("street/motion") == ["ON"])
    assert subscriber.of("yard/motion") == []


class BrokerProxy:
    """A way to the broker that can be shut: connections end, and there are no new ones."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        self._open.set()

    def shut(self) -> None:
        self._open.clear()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                assert self._open.is_set()
                there = socket.create_connection(("127.0.0.1", self._to), 5)
            except (AssertionError, OSError):
                client.close()
                continue
            self._sockets += [client, there]
            for pair in ((client, there), (there, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.shut()


@pytest.mark.parametrize("kills", [12, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_kills_of_the_broker_lose_and_double_nothing(stopped: Broker, tmp_path: Path, kills: int) -> None:
    """The subscriber is there before the publisher is let in: what the broker acknowledges, it has then passed on."""
    rng = random.Random(kills)
    broker = stopped
    broker.start()
    proxy = BrokerProxy(broker.port)
    sent: list[str] = []
    with Subscriber(broker.port) as subscriber, delivery_to(proxy.port, tmp_path) as delivery:
        for number in range(kills):
            proxy.open()
            wait_for(lambda n=number: len(subscriber.of("availability")) > n and delivery.status[0].pending == 0)
            for _ in range(rng.randint(1, 30)):
                one = event(len(sent))
                sent.append(one.id)
                delivery.publish(one)
            time.sleep(rng.uniform(0, 0.03))
            proxy._open.clear()  # nobody is let in while the subscriber is away
            broker.kill()
            wait_for(lambda: not subscriber.subscribed.is_set())
            for _ in range(rng.randint(0, 5)):
                one = event(len(sent))
                sent.append(one.id)
                delivery.publish(one)
            broker.start()
            assert subscriber.subscribed.wait(60)
            proxy.shut()
        proxy.open()
        drained(delivery)
        wait_for(lambda: {*sent} <= {Event.from_json(text).id for text in subscriber.of("yard/events")})
        wait_for(lambda: len(subscriber.of("availability")) >= kills + 1)
    received = [Event.from_json(text).id for text in subscriber.of("yard/events")]
    broker.kill()
    proxy.close()
    lost, unknown = {*sent} - {*received}, {*received} - {*sent}
    first_times = list(dict.fromkeys(received))
    print(
        f"{kills} kills, {len(sent)} events: {len(lost)} lost, {len(received) - len(first_times)} sent twice (same id)"
    )
    assert not lost and not unknown and len(first_times) == len(sent)
    assert subscriber.of("availability") == ["online"] * (kills + 1) + ["offline"]  # one for each time it came back


def test_short_breaks_do_not_flap_and_long_ones_are_told(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WILL_DELAY_S", 2)
    proxy = BrokerProxy(broker.port)
    proxy.open()
    with (
        Subscriber(broker.port, "perception/availability") as subscriber,
        delivery_to(proxy.port, tmp_path) as delivery,
    ):
        wait_for(lambda: subscriber.of("availability") == ["online"])
        for _ in range(5):  # each is shorter than the broker's patience
            proxy.shut()
            proxy.open()
            before = len(subscriber.of("availability"))
            wait_for(lambda n=before: len(subscriber.of("availability")) > n)
        assert {*subscriber.of("availability")} == {"online"}
        proxy.shut()
        wait_for(lambda: subscriber.of("availability")[-1] == "offline")
        proxy.open()
        wait_for(lambda: subscriber.of("availability")[-1] == "online")
        assert subscriber.of("availability").count("offline") == 1
        delivery.close()
    proxy.close()


def test_nobody_listens_and_the_name_has_no_secret(tmp_path: Path) -> None:
    target = Mqtt("127.0.0.1", free_port(), user="me", password="t0ps3cret")
    assert "t0ps3cret" not in target.name and "t0ps3cret" not in repr(vars(target))
    target.close()
