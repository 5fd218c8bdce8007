"""Where events go, as a file of settings says: ``events:`` in ``live.yaml``, and ``--event-targets``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from perception.common.private import read_secret, warn_if_others_read
from perception.common.settings import read_yaml
from perception.common.strict import Strict
from perception.errors import UsageError
from perception.events.delivery import Delivery
from perception.events.event_file import EventFile
from perception.events.home_assistant import RuleOutline
from perception.events.outbox import Outbox
from perception.events.target import Target


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


def _address(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _topic(value: str) -> str:
    if not re.fullmatch(r"[^+#\x00/]+(/[^+#\x00/]+)*", value):
        raise ValueError("a topic has no + and no #, and neither begins nor ends with /")
    return value


Topic = Annotated[str, AfterValidator(_topic)]


class _Part(Strict):
    """Names may be written with dashes, as flags are."""

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, values: Any) -> Any:
        return {str(k).replace("-", "_"): v for k, v in values.items()} if isinstance(values, dict) else values


class WebhookSettings(_Part):
    """A webhook; see `perception.events.webhook.Webhook`.

    Attributes:
        url: where events are posted; or ``url_env``, the environment variable that has it.
        secret_file, secret_env: the file or the environment variable that has the key of the signature.
        token_file, token_env: likewise for a bearer token.
        timeout_s: seconds to wait for an answer.
    """

    url: SecretStr | None = None
    url_env: str | None = None
    secret_file: Path | None = None
    secret_env: str | None = None
    token_file: Path | None = None
    token_env: str | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=600)

    @model_validator(mode="after")
    def _consistent(self) -> WebhookSettings:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give url or url_env")
        return self

    def target(self) -> Target:
        """Make the target.

        Raises:
            UsageError: the address or a secret cannot be used.
        """
        from perception.events.webhook import Webhook

        url = self.url.get_secret_value() if self.url is not None else _secret(None, self.url_env)
        return Webhook(
            url or "", secret=_secret(self.secret_file, self.secret_env),
            token=_secret(self.token_file, self.token_env), timeout=self.timeout_s,
        )  # fmt: skip


class MqttSettings(_Part):
    """An MQTT broker; see `perception.events.mqtt.Mqtt`.

    Attributes:
        host, port, user, tls, ca_file, topic, client_id, version, keepalive: see there.
        password_file, password_env: the file or the environment variable that has the password.
        discovery: prefix of Home Assistant's discovery; ``no``: no entities are announced.
    """

    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65535)
    user: str | None = None
    password_file: Path | None = None
    password_env: str | None = None
    tls: bool = False
    ca_file: Path | None = None
    topic: Topic = "perception"
    discovery: Topic | Literal[False] = "homeassistant"
    client_id: str | None = Field(default=None, min_length=1, max_length=64)
    version: Literal["5", "3.1.1"] = "5"
    keepalive: int = Field(default=30, ge=5, le=3600)

    @model_validator(mode="after")
    def _consistent(self) -> MqttSettings:
        if self.user is None and (self.password_file or self.password_env):
            raise ValueError("a password needs a user")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file is for TLS: set tls, too")
        return self

    def target(self, rules: Sequence[RuleOutline] = ()) -> Target:
        """Make the target.

        Args:
            rules: see there.

        Raises:
            UsageError: the password or the authorities cannot be read, or paho-mqtt is not installed.
        """
        from perception.events.mqtt import Mqtt

        return Mqtt(
            self.host, self.port, user=self.user, password=_secret(self.password_file, self.password_env),
            tls=self.tls, ca_file=self.ca_file, topic=self.topic, discovery=self.discovery or None,
            client_id=self.client_id, version=self.version, keepalive=self.keepalive,
            rules=rules,
        )  # fmt: skip


class EventSettings(_Part):
    """Where events go.

    Attributes:
        file: JSON Lines, appended to; changed for a new file at ``file_bytes``, of which ``file_keep`` old ones stay.
        webhooks: addresses, or `WebhookSettings`.
        mqtt: a broker.
        outbox: file in which events wait for their targets; None: in the folder of whoever delivers.
        outbox_bytes: most that waiting events take; beyond, the oldest are dropped and counted.
        drain_s: seconds at the end in which targets may take what is left. The rest is sent at the next start.
        drawn: events of rules that clients draw in the live page go there, too, with the names that clients gave them.
    """

    file: Path | None = None
    file_bytes: int = Field(default=100 << 20, ge=1 << 16)
    file_keep: int = Field(default=4, ge=0, le=1000)
    webhooks: Annotated[
        tuple[Annotated[WebhookSettings, BeforeValidator(_address)], ...], BeforeValidator(_one_or_more)
    ] = ()
    mqtt: MqttSettings | None = None
    outbox: Path | None = None
    outbox_bytes: int = Field(default=64 << 20, ge=1 << 16)
    drain_s: float = Field(default=10.0, ge=0, le=3600)
    drawn: bool = False

    def targets(self, rules: Sequence[RuleOutline] = ()) -> list[Target]:
        """Make all targets.

        Args:
            rules: whose events will come, as far as that is known.

        Raises:
            UsageError: one cannot be made.
        """
        made: list[Target] = [] if self.file is None else [EventFile(self.file, self.file_bytes, self.file_keep)]
        made += [webhook.target() for webhook in self.webhooks]
        made += [] if self.mqtt is None else [self.mqtt.target(rules)]
        return made

    def delivery(self, folder: Path | None = None, rules: Sequence[RuleOutline] = ()) -> Delivery:
        """Begin to deliver.

        Args:
            folder: of the outbox, where none is named; None: in the user's data folder.
            rules: whose events will come, as far as that is known.

        Raises:
            UsageError: a target or the outbox cannot be made.
        """
        targets = self.targets(rules)
        names = [target.name for target in targets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"events would go to the same place twice: {twice}")
        if self.outbox is None and folder is None:
            from platformdirs import user_data_path

            folder = user_data_path("perception") / "events"
        return Delivery(Outbox(self.outbox or (folder or Path()) / "outbox.sqlite", self.outbox_bytes), targets)


def read_event_settings(path: Path) -> EventSettings:
    """Read where events go from a YAML file with the fields of `EventSettings`.

    Raises:
        UsageError: the file cannot be read, or a field is unknown or wrong; values are never quoted.
    """
    data = read_yaml(path, "settings of events")
    if not isinstance(data, dict):
        raise UsageError("the settings of events must be a mapping (key: value)", path)
    if data.get("webhooks"):
        warn_if_others_read(path)  # addresses of webhooks often are secrets
    try:
        return EventSettings.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise UsageError(f"wrong settings: {'; '.join(map(_fault, faults))}", path) from None


def _fault(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}".replace("Value error, ", "").removeprefix(": ")


def _secret(file: Path | None, variable: str | None) -> str | None:
    if file is not None and variable is not None:
        raise UsageError("a secret is in a file or in an environment variable, not in both", file)
    if variable is not None:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise UsageError(f"the environment variable {variable} is not set")
        return value
    return read_secret(file)
