"""The one spelling of precisions: ``fp32``, ``fp16``, ``bf16``, ``int8``."""

from __future__ import annotations

import logging
from typing import Literal, TypeVar, get_args

from perception.errors import UsageError

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_OLD = {
    "f32": "fp32", "float32": "fp32", "float": "fp32", "single": "fp32", "f16": "fp16", "float16": "fp16",
    "half": "fp16", "bfloat16": "bf16", "i8": "int8",
}  # fmt: skip

_log = logging.getLogger("perception")

T = TypeVar("T")


def parse_precision(text: str) -> Precision:
    """Parse the name of a precision, wherever it was written: command line, YAML, settings or Python.

    Args:
        text: one of `PRECISIONS`, or another usual spelling, such as ``float16``; that one is accepted with a warning.

    Raises:
        UsageError: an unknown name.
    """
    name = str(text).strip().lower()
    if name in _OLD:
        _log.warning("precision %s is now spelled %s", text, _OLD[name])
        name = _OLD[name]
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}; choose one of: {', '.join(PRECISIONS)}")
    return name


def respell(value: T) -> T | Precision:
    """Replace another spelling of a precision by ours; leave everything else to whoever validates it (pydantic)."""
    return parse_precision(value) if isinstance(value, str) and value.strip().lower() in _OLD else value
