"""The quantised version of a model: a file of its own, beside the one that it was made from."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from perception.card import ModelCard, read_card
from perception.errors import ModelError

SUFFIX = "-int8"
"""``street-int8.onnx`` is the quantised version of ``street.onnx``."""

_log = logging.getLogger("perception")


def find_quantised(path: Path, card: ModelCard) -> tuple[Path, ModelCard] | None:
    """Find the quantised version of a model and its card; None if there is none, a quantised model itself.

    A file beside the model counts only if its card says that it was made from this very file.
    """
    if card.quantization is not None:
        return path, card
    beside = path.with_name(f"{path.stem}{SUFFIX}.onnx")
    if not beside.is_file():
        return None
    try:
        found = read_card(beside)
    except ModelError as error:
        _log.debug("%s", error)
        return None
    if found.quantization is None or found.quantization.source_sha256 != file_sha256(path):
        _log.debug("%s was not made from %s", beside, path)
        return None
    return beside, found


def require_quantised(path: Path, card: ModelCard) -> tuple[Path, ModelCard]:
    """Find the quantised version of a model and its card; raise an error if there is none.

    Raises:
        ModelError: there is none; says how to make it.
    """
    found = find_quantised(path, card)
    if found is None:
        beside = path.with_name(f"{path.stem}{SUFFIX}.onnx")
        raise ModelError(
            f"this model has no int8 version; make one with: perception quantize {path} --images FOLDER -o {beside}",
            path,
        )
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
