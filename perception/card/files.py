"""Cards in files: inside a model's ``.onnx``, under a key of its metadata, or in YAML for a foreign one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.card.draft import advice, template
from perception.card.metadata import metadata_of
from perception.card.model_card import ModelCard, validate_card
from perception.common.checksums import LIST, is_as_listed
from perception.common.files import write_atomic
from perception.common.settings import nearest, read_yaml
from perception.errors import ModelError

METADATA_KEY = "perception"


def card_file(card: str | Path) -> Path:
    """Find a YAML card: a path as it is, or the name of one of those that ship for foreign models, such as ``yolov8``.

    Raises:
        ModelError: there is neither; names the cards that ship.
    """
    path = Path(card)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    shipped = shipped_cards()
    if path.name not in shipped:
        raise ModelError(f"no card is called that{nearest(path.name, shipped)}; or give a YAML file", card)
    return shipped[path.name]


def shipped_cards() -> dict[str, Path]:
    """Return the YAML cards for foreign models that ship, by name."""
    return {file.stem: file for file in sorted((Path(__file__).parents[1] / "foreign" / "cards").glob("*.yaml"))}


def read_card(path: str | Path, card: str | Path | None = None) -> ModelCard:
    """Read the card of the model file ``path``, or ``card`` instead of it: a YAML file, or a name (see `card_file`).

    Raises:
        ModelError: the file is missing, is not ONNX, has no card, or its card is not valid.
    """
    if card is not None:
        return validate_card(read_yaml(card_file(card), "card", ModelError), card)
    import json

    found = metadata_of(_read(path))
    if found is not None and METADATA_KEY in found:
        try:
            data = json.loads(found[METADATA_KEY])
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the model card is not JSON: {error}", path) from None
        return validate_card(data, path)
    model = load_onnx(path)
    inputs = [i.name for i in model.graph.input]
    outputs = [o.name for o in model.graph.output]
    raise ModelError(
        f"no model card in this ONNX file; write one to a YAML file, such as {template(path, model)}, and give "
        f"`card=FILE.yaml`{advice(model)} (see docs/cards.md; `perception adapt --list-formats`); "
        f"the graph's inputs are {inputs}, its outputs {outputs}",
        path,
    )


def load_onnx(path: str | Path) -> Any:
    """Parse a file as ``onnx.ModelProto``.

    Raises:
        ModelError: the file is missing, cannot be read, is not ONNX, or is not the one in the list of checksums beside
            it (see `perception.common.checksums`), as the models that ship have one.
    """
    data = _read(path)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        raise ModelError("not an ONNX file (cannot be parsed); was the download cut short?", path) from None
    if not model.graph.output:
        raise ModelError("not an ONNX file (it has no graph outputs)", path)
    return model


def _read(path: str | Path) -> bytes:
    """Read a model file; errors as of `load_onnx`."""
    path = Path(path)
    if not path.is_file():
        raise ModelError("no such model file; `perception models` lists all models", path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model: {error.strerror or error}", path) from None
    if not is_as_listed(path, data):
        raise ModelError(
            f"the file is damaged: its SHA-256 is not the one in {LIST} beside it; install it again, or list it "
            f"again if it was changed on purpose (`sha256sum *.onnx > {LIST}`)",
            path,
        )
    return data


def write_card(model: Any, card: ModelCard) -> None:
    """Store ``card`` in an ``onnx.ModelProto``, replacing the one it has."""
    kept = [p for p in model.metadata_props if p.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key = METADATA_KEY
    entry.value = card.model_dump_json(exclude_none=True)


def keep_in_card(path: str | Path, output: str | Path | None = None, **changes: Any) -> ModelCard:
    """Change entries of the card in a model file; the graph and its weights stay as they are.

    Args:
        path: the file.
        output: where to write it; None replaces the file.
        **changes: the entries, by their names in `ModelCard`.

    Returns:
        The new card.

    Raises:
        ModelError: see `read_card`; or the file cannot be written.
    """
    card: ModelCard = validate_card({**read_card(path).model_dump(), **changes}, path)
    model = load_onnx(path)
    write_card(model, card)
    target = Path(path if output is None else output)
    try:
        write_atomic(target, model.SerializeToString())
    except OSError as error:
        raise ModelError(f"cannot write the model: {error.strerror or error}", target) from None
    return card
