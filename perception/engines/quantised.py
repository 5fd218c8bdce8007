"""The quantised version of a model: a file of its own, beside the one that it was made from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from perception.card import ModelCard, keep_in_card, read_card
from perception.common.files import sha256_of
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
    if found.quantization is None or found.quantization.source_sha256 != sha256_of(path):
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


def change_card(path: Path, output: Path | None = None, **changes: Any) -> ModelCard:
    """Change entries of the card in a model file; the quantised version beside it stays its quantised version.

    Args:
        path: the file.
        output: where to write it; None replaces the file.
        **changes: see `perception.card.keep_in_card`.

    Returns:
        The new card.

    Raises:
        ModelError: see `perception.card.keep_in_card`.
    """
    in_place = output is None or output.resolve() == path.resolve()
    beside = find_quantised(path, read_card(path)) if in_place else None
    card = keep_in_card(path, output, **changes)
    if beside is not None and beside[1].quantization is not None and beside[0] != path:
        facts = beside[1].quantization.model_copy(update={"source_sha256": sha256_of(path)})
        keep_in_card(beside[0], quantization=facts)
    return card
