"""Events published to an MQTT broker, with what Home Assistant needs to show them."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

from perception.common.distribution import require
from perception.errors import UsageError
from perception.events.event import Event
from perception.events.home_assistant import MOST_ENTITIES, HomeAssistant, Message, RuleOutline
from perception.events.outbox import Letter
from perception.events.target import DeliveryError, Target

log = logging.getLogger("perception")

WAIT_S = 1.0
"""Seconds that a delivery waits for an acknowledgement before it is looked at again."""

WILL_DELAY_S = 10
"""Seconds that a connection may be away before the broker says "offline": short ones make nothing flap."""

SESSION_S = 60

REFUSED_PAUSE_S = 30.0

BIRTH_S = 3.0
"""Entities are published again within this time after Home Assistant starts, at random: not all clients at once."""

RECONNECT_S = 1, 60
"""Seconds between attempts to connect; they double from the first to the second."""

MOST_QUEUED = 4 * MOST_ENTITIES
"""Messages that wait for their acknowledgement, entities and states included."""


class Mqtt(Target):
    """Publishes events with quality of service 1: each stays in the outbox until the broker has acknowledged it.

    Topics, below ``topic``: ``availability`` (``online`` or ``offline``, retained, also the last will),
    ``SOURCE/events`` (each event as JSON), ``SOURCE/RULE/state`` (retained), ``SOURCE/motion``.

    The connection is made in the background and again whenever it ends. MQTT 5 is spoken by default: there a broker
    can say that it may not take a message, and a short break of the connection is no "offline".

    Args:
        host, port: of the broker; port None is 8883 with TLS and 1883 without.
        user, password: where it wants them.
        tls: encrypt; the certificate is checked against the system's authorities, or those in ``ca_file``.
        ca_file: PEM file of authorities.
        topic: see above; one process at a time may use it.
        discovery: prefix of Home Assistant's discovery; None: no entities.
        client_id: must be unlike that of any other client of the broker.
        version: of MQTT.
        keepalive: seconds of silence after which either side asks whether the other is there.
        rules: whose entities are there from the first connection on; those of others appear with their first events.

    Raises:
        UsageError: paho-mqtt is not installed, or the authorities cannot be read.
    """

    batch: ClassVar[int] = 64
    longest_pause_s: ClassVar[float] = 1.0  # attempts to connect have pauses of their own

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        ca_file: Path | None = None,
        topic: str = "perception",
        discovery: str | None = "homeassistant",
        client_id: str | None = None,
        version: Literal["5", "3.1.1"] = "5",
        keepalive: int = 30,
        rules: Sequence[RuleOutline] = (),
    ) -> None:
        require("paho", "mqtt", "publishing events to MQTT")
        self._host, self._port = host, port or (8883 if tls else 1883)
        self.name = f"mqtt {host}:{self._port} {topic}"
        self._keepalive = keepalive
        self._five = version == "5"
        self._messages = HomeAssistant(topic, discovery or "homeassistant")
        self._messages.expect(rules)
        self._discovery = discovery
        self._changed = threading.Condition()
        self._connected = False
        self._problem = ""
        self._refused: list[str] = []
        self._problem_of_refusal = ""
        self._in_flight: dict[int, str] = {}
        self._early: dict[int, str] = {}
        self._acknowledged: list[str] = []
        self._told: set[str] = set()
        self._born_at = 0.0
        self._started = False
        self._client = self._make_client(client_id or f"{topic}-{socket.gethostname()}".replace("/", "-")[:60])
        if user is not None:
            self._client.username_pw_set(user, password)
        if tls:
            try:
                self._client.tls_set(ca_certs=None if ca_file is None else str(ca_file))
            except OSError as error:
                raise UsageError(f"the authorities of TLS cannot be read: {error.strerror or error}", ca_file) from None

    def _make_client(self, client_id: str) -> Any:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        version = MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=version)
        will = None
        if self._five:
            will = Properties(PacketTypes.WILLMESSAGE)
            will.WillDelayInterval = WILL_DELAY_S
        client.will_set(self._messages.availability, "offline", qos=1, retain=True, properties=will)
        least, most = (seconds * random.uniform(0.75, 1.0) for seconds in RECONNECT_S)
        client.reconnect_delay_set(least, most)  # type: ignore[arg-type]  # fractions work as well
        client.max_queued_messages_set(MOST_QUEUED)
        client.connect_timeout = 10.0
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _start(self) -> None:
        self._started = True
        more: dict[str, Any] = {}
        if self._five:
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties

            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_S
            more = {"clean_start": False, "properties": properties}
        self._client.connect_async(self._host, self._port, self._keepalive, **more)
        self._client.loop_start()

    def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
        if not self._started:
            self._start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._connected or self._acknowledged, WAIT_S):
                raise DeliveryError(self._problem or "no answer from the broker yet")
        self._look_after_entities()
        for letter in letters:
            self._publish_event(letter)
        with self._changed:
            self._changed.wait_for(lambda: self._acknowledged or self._refused or not self._connected, WAIT_S)
            done, self._acknowledged = self._acknowledged, []
            refused, self._refused = self._refused, []
        for one in done:
            accepted(one)
        self._told.difference_update(done, refused)
        if refused:
            raise DeliveryError(self._problem_of_refusal, retry_after=REFUSED_PAUSE_S)

    def rest(self, woken: threading.Event, seconds: float) -> None:
        if not self._started:
            self._start()
        woken.wait(seconds)
        self._look_after_entities()
        if not self._connected and self._problem:
            raise DeliveryError(self._problem)

    def close(self) -> None:
        if not self._started:
            return
        with suppress(Exception):
            if self._client.is_connected():
                told = self._client.publish(self._messages.availability, "offline", qos=1, retain=True)
                told.wait_for_publish(2.0)
            self._client.disconnect()
            self._client.loop_stop()

    def _publish_event(self, letter: Letter) -> None:
        """Publish an event that is not on its way already; paho itself repeats those over a new connection."""
        if letter.id in self._told:
            return
        event = Event.from_json(letter.body)
        with self._changed:
            self._early.clear()
        # Without the lock: paho has its own, which it holds while it tells of acknowledgements.
        sent = self._client.publish(self._messages.event_topic(event.source), letter.body, qos=1)
        if sent.rc not in (0, 4):  # sent, or kept until there is a connection
            return
        with self._changed:
            self._in_flight[sent.mid] = letter.id
            if sent.mid in self._early:
                self._settle(sent.mid, self._early[sent.mid])
        self._told.add(letter.id)
        if self._discovery is not None:
            for message in self._messages.of_event(event):
                self._publish(message)

    def _publish(self, message: Message) -> None:
        self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)

    def _look_after_entities(self) -> None:
        if self._born_at and time.monotonic() >= self._born_at and self._connected:
            self._born_at = 0.0
            for message in self._messages.everything():
                self._publish(message)

    # In the thread of paho.

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._lost(_refusal(str(reason)))
            return
        # Not acknowledged: what a break leaves unacknowledged is sent again, beside that of the next connection.
        client.publish(self._messages.availability, "online", qos=0, retain=True)
        if self._discovery is not None:
            client.subscribe(f"{self._messages.prefix}/status", qos=1)
            self._born_at = time.monotonic()  # a broker that was started again may have forgotten all
        with self._changed:
            self._connected, self._problem = True, ""
            self._changed.notify_all()

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._lost("the broker cannot be reached")

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        told = str(reason)
        self._lost(f"the connection to the broker ended: {told}" if self._connected else self._problem)

    def _lost(self, problem: str) -> None:
        with self._changed:
            self._connected, self._problem = False, problem
            self._changed.notify_all()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        failure = str(reason).lower() if reason.is_failure else ""
        with self._changed:
            if mid in self._in_flight:
                self._settle(mid, failure)
            else:  # of a state, or faster than `_publish_event`
                self._early[mid] = failure

    def _settle(self, mid: int, failure: str) -> None:
        """An event is acknowledged, or was refused. With the lock."""
        one = self._in_flight.pop(mid)
        if failure:
            self._refused.append(one)
            self._problem_of_refusal = f"the broker does not take it: {failure}"
        else:
            self._acknowledged.append(one)
        self._changed.notify_all()

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        if message.payload == b"online" and not message.retain:
            self._born_at = time.monotonic() + random.uniform(0, BIRTH_S)


def _refusal(reason: str) -> str:
    text = reason.lower()
    if "not authorized" in text or "bad user name" in text or "not authorised" in text:
        return f"the broker refuses the user or the password ({text})"
    return f"the broker refuses the connection ({text})"
