"""Settings of a server, from the command line or from YAML."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from perception.common.precision import Precision, respell
from perception.common.private import read_secret, warn_if_others_read
from perception.common.strict import Strict, faults_in
from perception.errors import UsageError
from perception.events.settings import EventSettings
from perception.footage.settings import ClipSettings
from perception.publishing.address import PublishAddress
from perception.rules.settings import read_rules
from perception.stages.factories import find_stage
from perception.weights import CAMERA_MODEL, DEFAULT_MODEL


class Limits(Strict):
    """Limits on what a server does at once. Beyond a limit, a client is told to retry later, or to send less.

    Attributes:
        share: part of each of these, in 0..1, that one client may have, so that others find room. A client is an
            address; 1 where a proxy hides them.
        sockets: network connections, also of those who have not said yet who they are.
        connections: requests in progress.
        refusals_per_s: refused requests (4xx) of one client per second; twenty seconds' worth may come at once, and
            further answers are delayed. This and the next are without limit where ``share`` is 1.
        connections_per_s: new network connections of one client per second, likewise.
        long_lived: requests that last as long as somebody watches: viewers and webcams.
        uploads: pictures and videos that are being received.
        viewers: viewers of streams, of all streams together, and webcams.
        streams: server-side sources that are open at once; one that is closed counts until its threads have ended.
            None: as many as there are sources with a name, and 8 at least.
        stream_pixels: width times height of the frames of a server-side source, whatever kind it is.
        models: models that are loaded at once.
        waiting: frames that wait for one engine.
        image_bytes: size of an uploaded image.
        upload_bytes: size of an uploaded video.
        upload_seconds: duration of an uploaded video.
        video_pixels: width times height of the frames of an uploaded video, of which a job holds several at once.
        pixels: width times height of an uploaded image.
        pixels_in_progress: of all clients' pictures that are decoded, looked at and drawn at once; others wait.
        body_timeout_s: seconds without a byte after which an upload is given up.
        body_time_s: seconds in which a picture, or any body but a video, is received.
        upload_time_s: seconds in which a video is received.
        jobs_waiting: jobs that are received, wait or run.
        jobs_kept: jobs that are kept, finished ones included; as many recordings.
        job_ttl_s: seconds that a finished job and its files are kept.
    """

    share: float = Field(default=0.5, gt=0, le=1)
    sockets: int = Field(default=1024, ge=1)
    connections: int = Field(default=128, ge=1)
    refusals_per_s: float = Field(default=8, gt=0)
    connections_per_s: float = Field(default=50, gt=0)
    long_lived: int = Field(default=256, ge=1)
    uploads: int = Field(default=32, ge=1)
    viewers: int = Field(default=32, ge=1)
    streams: int | None = Field(default=None, ge=1)
    stream_pixels: int = Field(default=4096 * 3072, ge=1)
    models: int = Field(default=4, ge=1)
    waiting: int = Field(default=8, ge=1)
    image_bytes: int = Field(default=32 << 20, ge=1)
    upload_bytes: int = Field(default=1 << 30, ge=1)
    upload_seconds: float = Field(default=3600, gt=0)
    video_pixels: int = Field(default=4096 * 3072, ge=1)
    pixels: int = Field(default=50_000_000, ge=1)
    pixels_in_progress: int = Field(default=100_000_000, ge=1)
    body_timeout_s: float = Field(default=30, gt=0)
    body_time_s: float = Field(default=120, gt=0)
    upload_time_s: float = Field(default=3600, gt=0)
    jobs_waiting: int = Field(default=8, ge=1)
    jobs_kept: int = Field(default=1000, ge=1)
    job_ttl_s: float = Field(default=24 * 3600, gt=0)


def _texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _published(value: str) -> str:
    try:
        PublishAddress.read(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


def _rules(value: Path) -> Path:
    try:
        read_rules(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


Decoding = Literal["needed", "all"]
"""Which frames of a network stream are decoded: those that are needed for the ones that are looked at, or all."""


Every = Literal[1, "auto"]
"""What becomes of frames for which the network has no time: 1, they are dropped; ``auto``, they get its results of
earlier ones, moved with the picture."""


class NamedSource(Strict):
    """A source that the operator offers by name.

    Attributes:
        uri: what `perception.sources.open_source` takes.
        loop: start a file again at its end.
        start: seconds from the beginning at which a file starts.
        duration: seconds to read of a file; None: to its end.
        keep: opened with the server and kept open, watched or not; for rules and events.
        fps: frames a second that are looked at, of those that come; None: as many as the engine has time for.
        priority: where the engine has not time for all, this source gets so many turns for each one of a source of
            priority 1.
        paused: it is not connected to; what its rules have counted and its viewers stay.
        decode: which frames of a network stream are decoded: ``needed``, those before a frame that is looked at, back
            to its key frame, where fewer are looked at than come; or ``all``.
        every: of the frames that are looked at: ``auto``, those for which the engine has no time get its results of
            earlier ones, moved with the picture, see `perception.propagation`; 1, they are dropped.
        rules: YAML file of lines, zones and conditions that this source is watched with, see
            `perception.rules.settings`; None: without.
        publish: addresses that the annotated picture is published to, always, see
            `perception.publishing.address`.
    """

    uri: str = Field(min_length=1)
    keep: bool = False
    fps: float | None = Field(default=None, gt=0, le=1000)
    priority: float = Field(default=1.0, ge=0.1, le=10)
    paused: bool = False
    decode: Decoding = "needed"
    every: Every = 1
    loop: bool = True
    start: float = Field(default=0.0, ge=0)
    duration: float | None = Field(default=None, gt=0)
    rules: Annotated[Path, AfterValidator(_rules)] | None = None
    publish: Annotated[tuple[Annotated[str, AfterValidator(_published)], ...], BeforeValidator(_texts)] = ()

    @property
    def kept(self) -> bool:
        """True where it is open always."""
        return self.keep or bool(self.publish)


class AddedSource(NamedSource):
    """A source that was added while the server ran: opened only where the operator allows its address to clients.

    It has no rules file and is published nowhere: both are for the operator alone to say.
    """

    rules: None = None
    publish: tuple[()] = ()


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError("give an address or a network: 10.0.0.2, 10.0.0.0/24") from None
    return value


Network = Annotated[str, AfterValidator(_network)]
"""An IP address or a network."""


_OWN = (
    *("v1", "static", "assets", "docs", "login", "logout", "metrics", "healthz", "readyz"),
    *("openapi.json", "theme.css", "favicon.ico", "manifest.json"),
)


def _root_path(value: str) -> str:
    path = value.strip("/")
    parts = path.split("/") if path else []
    if any(not re.fullmatch(r"[A-Za-z0-9._~-]+", part) or part in (".", "..") for part in parts):
        raise ValueError("give the path of the reverse proxy, such as /perception: letters, digits, - . _ ~ between /")
    if parts and parts[0] in _OWN:
        raise ValueError(f"/{parts[0]} is an address of the server itself; choose another path")
    return f"/{path}" if path else ""


def _named(value: Any) -> Any:
    return {"uri": value} if isinstance(value, str) else value


def _switched(value: Any) -> Any:
    return None if value is False else value


def _stage(value: str) -> str:
    try:
        find_stage(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


Origin = Annotated[str, Field(pattern=r"^https?://[^/@\s]+$")]
"""Scheme, host and port of a page, as browsers write it."""


class ServerSettings(Strict):
    """All settings of a server.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        model: the default model, a name or a path; clients choose it or others by name.
        camera_model: name of the model that the page begins with before a camera; None: where ``model`` is left out,
            the one for cameras that ships, else ``model``.
        card: YAML card for a default model that has none.
        engine, precision, device: see `perception.engines.open_engine`.
        unknown: what the page's slider for unknown pixels begins with; see `perception.server.options.Options`.
        stages: steps on predictions before they are drawn, in order: ``panoptic`` or ``module:function``, see
            `perception.stages.factories.find_stage`. Each source has them with state of its own.
        user, password: credentials for people; both or neither.
        token: credential for programs.
        insecure: listen beyond this machine without credentials.
        origins: origins of pages that may use this server, besides its own: ``https://cameras.example.org``. A
            reverse proxy's address belongs here.
        proxies: addresses of reverse proxies, which are believed where a request comes from and over what
            (``X-Forwarded-For``, ``X-Forwarded-Proto``). Of nobody else is that believed.
        root_path: path of a reverse proxy under which browsers find the server, ``/perception``; empty: it has a host
            of its own. Whether the proxy takes it off before it passes a request on or not makes no difference.
        allow: patterns of stream URLs that clients may open, such as ``rtsp://cam1.local/*``; see
            `perception.server.edge.allowlist`.
        cameras: numbers of this machine's cameras that clients may open.
        sources: sources that are offered by name.
        edit_sources: clients may add sources whose addresses ``allow`` and ``cameras`` permit, change and remove these,
            and pause any; they are kept in ``data_dir``. None: where credentials are required.
        draw_rules: clients may draw lines and zones at the sources that they see, as they may close and record them.
            These are kept in ``data_dir``.
        events: where events of these streams go, see `perception.events.settings.EventSettings`.
        clips: what is kept of these events, see `perception.footage.settings.ClipSettings`; None: nothing.
        data_dir: folder for jobs and recordings; None: in the user's data folder.
        limits: how much at once.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=7860, ge=0, le=65535)
    model: str = DEFAULT_MODEL
    camera_model: str | None = None
    card: Path | None = None
    engine: Literal["auto", "openvino", "onnxruntime", "torch", "tensorrt"] = "auto"
    precision: Annotated[Precision, BeforeValidator(respell)] = "auto"
    device: str = "CPU"
    unknown: float = Field(default=0.0, ge=0, le=1)
    stages: Annotated[tuple[Annotated[str, AfterValidator(_stage)], ...], BeforeValidator(_texts)] = ()
    user: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = Field(default=None, min_length=1)
    token: SecretStr | None = Field(default=None, min_length=8)
    insecure: bool = False
    origins: Annotated[tuple[Origin, ...], BeforeValidator(_texts)] = ()
    proxies: Annotated[tuple[Network, ...], BeforeValidator(_texts)] = ()
    root_path: Annotated[str, AfterValidator(_root_path)] = ""
    allow: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    cameras: tuple[int, ...] = ()
    sources: dict[str, Annotated[NamedSource, BeforeValidator(_named)]] = Field(default={})
    edit_sources: bool | None = None
    draw_rules: bool = True
    events: EventSettings | None = None
    clips: Annotated[ClipSettings | None, BeforeValidator(_switched)] = None
    data_dir: Path | None = None
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _consistent(self) -> ServerSettings:
        published = [address for source in self.sources.values() for address in source.publish]
        if len(published) > len(set(published)):
            raise ValueError("publish: each address takes one source")
        if (self.user is None) != (self.password is None):
            raise ValueError("give both user and password, or neither")
        if not self.local and not self.guarded and not self.insecure:
            raise ValueError(
                f"listening on {self.host} lets others in: set a token, or a user and password, "
                "or allow everyone: `insecure=True`"
            )
        return self

    @property
    def before_cameras(self) -> str:
        """The model that the page begins with before a camera."""
        return self.camera_model or (CAMERA_MODEL if self.model == DEFAULT_MODEL else self.model)

    @property
    def local(self) -> bool:
        """True where only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def guarded(self) -> bool:
        """True where credentials are required."""
        return self.token is not None or self.password is not None

    @property
    def editable(self) -> bool:
        """True where clients may add, change, pause and remove sources."""
        return self.guarded if self.edit_sources is None else self.edit_sources

    @property
    def folder(self) -> Path:
        """The folder of jobs and recordings; it may not exist yet."""
        if self.data_dir is not None:
            return self.data_dir
        import platformdirs

        return Path(platformdirs.user_data_dir("perception")) / "live"


def make_settings(data: dict[str, Any], where: str | Path | None = None) -> ServerSettings:
    """Validate settings.

    Args:
        data: values by name.
        where: the file they came from, for messages.

    Raises:
        UsageError: naming every setting that is unknown or wrong.
    """
    try:
        return ServerSettings.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"wrong settings: {faults_in(error)}", where) from None


_FLAGS = {
    "stage": "stages",
    "camera": "cameras",
    "origin": "origins",
    "proxy": "proxies",
    "password_file": "password",
    "token_file": "token",
}
"""Flags of ``perception live`` whose names differ from the settings that they set."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read settings from a YAML file, for `make_settings`.

    Keys are spelled as the flags of ``perception live`` or as the fields of `ServerSettings`, with dashes or
    underscores.

    Raises:
        UsageError: the file cannot be read, is not a YAML mapping, or has an unknown key or one twice.
    """
    from perception.common.settings import load_config

    values: dict[str, Any] = {}
    given = load_config(path, [*ServerSettings.model_fields, *_FLAGS])
    if _holds_secret(given):
        warn_if_others_read(Path(path))
    for name, value in given.items():
        field = _FLAGS.get(name, name)
        if field in values:
            raise UsageError(f"{field} is set twice; {name.replace('_', '-')} sets it too", path)
        values[field] = read_secret(Path(str(value))) if name.endswith("_file") else value
    if isinstance(values.get("limits"), dict):
        values["limits"] = {str(name).replace("-", "_"): limit for name, limit in values["limits"].items()}
    return values


def _holds_secret(values: dict[str, Any]) -> bool:
    """Return whether settings contain a credential, also in the address of a camera or a webhook."""
    sources = str(values.get("sources"))
    if any(values.get(name) for name in ("password", "token")) or "@" in sources or "rtmp" in sources:
        return True  # the key of a stream is in the path of RTMP
    return isinstance(values.get("events"), dict) and bool(values["events"].get("webhooks"))
