"""The base of settings that are read from YAML."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a file of settings: unknown fields are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)
