"""Settings of clips and snapshots: ``clips:`` in ``live.yaml``, and options of ``perception annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from perception.common.strict import Strict


class ClipSettings(Strict):
    """What is kept of an event. Names may be written with dashes, as flags are.

    Attributes:
        before_s: a clip begins with a key frame at least so many seconds before the event, where there is one.
        after_s: it ends so many seconds after the event.
        longest_s: events during a clip prolong it, until it lasts so long; the next one begins another one.
        sound: keep the source's sound, too. What is heard is protected by law in many places.
        snapshots: keep a picture of the annotated frame, too.
        folder: where files are kept; None: in the folder of the service.
        limit_bytes: most that all files take; beyond, the oldest are deleted. None: no limit.
        keep_days: files are deleted when they are older; None: never.
        memory_bytes: most that the latest packets of a source take, from which clips are begun.
        base_url: address of the service as those know it who get its events, before the links in them, such as
            ``https://cameras.example.org``; None: links begin with the path.
    """

    before_s: float = Field(default=5.0, ge=0, le=120)
    after_s: float = Field(default=5.0, ge=0, le=600)
    longest_s: float = Field(default=120.0, gt=0, le=3600)
    sound: bool = False
    snapshots: bool = True
    folder: Path | None = None
    limit_bytes: int | None = Field(default=10 << 30, ge=1 << 20)
    keep_days: float | None = Field(default=30.0, gt=0)
    memory_bytes: int = Field(default=64 << 20, ge=1 << 20)
    base_url: str | None = Field(default=None, pattern=r"^https?://[^/@\s?#]+(/[^\s?#]*)?$")

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, values: Any) -> Any:
        if values is True:  # `clips: true`
            return {}
        return {str(k).replace("-", "_"): v for k, v in values.items()} if isinstance(values, dict) else values

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return None if value is None else value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> ClipSettings:
        if self.longest_s < self.before_s + self.after_s:
            raise ValueError("longest_s must not be less than before_s and after_s together")
        return self
