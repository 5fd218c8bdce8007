"""From a foreign file and its card to a file that keeps the contract."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from functools import cache
from pathlib import Path

import onnx

from perception.card import ModelCard, load_onnx, shipped_cards, write_card
from perception.common.files import draft_of
from perception.common.version import __version__
from perception.engines import open_engine
from perception.engines.cache import prepare_compiled_models_dir
from perception.engines.contract import check_graph, check_valid
from perception.errors import ModelError, PerceptionError, UsageError
from perception.foreign.adapter import ForeignCard, read_foreign_card
from perception.foreign.boxes import adapt_boxes
from perception.foreign.graph import Graph
from perception.foreign.pixels import adapt_input
from perception.foreign.segments import adapt_logits, adapt_probabilities

_log = logging.getLogger("perception")

LARGEST_BYTES = (1 << 31) - 1
"""The most that fits into one ONNX file."""


def adapt(
    model: str | Path,
    card: str | Path,
    output: str | Path,
    *,
    engine: str = "auto",
    device: str = "CPU",
    overwrite: bool = False,
) -> ModelCard:
    """Write a foreign model as one of ours: rewritten, with its card inside, and run once.

    Args:
        model: the foreign ``.onnx`` file.
        card: its card, a YAML file with an ``adapter`` section.
        output: the ``.onnx`` file to write; it appears whole or not at all.
        engine, device: what runs it for the check, see `perception.engines.open_engine`.
        overwrite: replace a file that exists.

    Returns:
        The card that the file carries.

    Raises:
        ModelError: a file cannot be read, the card is not valid, or the two do not belong together.
        UsageError: the output exists already or cannot be written.
        EngineError: the engine is not available or refuses the result.
    """
    model, output = Path(model), Path(output)
    described = read_foreign_card(card)
    if described is None:
        raise ModelError("the card has no adapter section, which says what the graph takes and gives", card)
    if output.exists() and not overwrite:
        raise UsageError("the file exists; give another name, or `overwrite=True` to replace it", output)
    loaded = _load(model)
    described = _of_its_size(described, card, loaded)
    adapted_model = adapt_model(loaded, described, model)
    native = described.native()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with draft_of(output) as draft:
            onnx.save(adapted_model, str(draft))
            try:
                open_engine(draft, native, engine=engine, device=device).close()
            except PerceptionError as error:
                raise type(error)(error.message, model) from error  # the draft's name says nothing to anybody
    except OSError as error:
        raise UsageError(f"cannot write the model: {error.strerror or error}", output) from None
    return native


def adapted(model: str | Path, card: str | Path) -> Path | None:
    """Return the adapted file of a foreign model, made if it is not in the user's cache yet.

    Args:
        model: the foreign ``.onnx`` file.
        card: its card. Without an ``adapter`` section nothing is to be done, and the result is None.

    Raises:
        ModelError: a file cannot be read, the card is not valid, or the two do not belong together.
    """
    described = read_foreign_card(card)
    if described is None:
        return None
    model = Path(model)
    loaded = _load(model)
    described = _of_its_size(described, card, loaded)
    key = hashlib.sha256(f"{__version__} {described.model_dump_json()}".encode())
    key.update(loaded.SerializeToString(deterministic=True))
    folder = prepare_compiled_models_dir("foreign") or _own_folder()
    target = folder / f"{model.stem}-{key.hexdigest()[:16]}.onnx"
    if target.is_file():
        target.touch()  # in use: the last to be dropped from a full cache
        return target
    rewritten = adapt_model(loaded, described, model)
    try:
        with draft_of(target) as draft:
            onnx.save(rewritten, str(draft))
    except OSError as error:
        raise ModelError(f"cannot write the adapted model: {error.strerror or error}", target) from None
    _log.info("%s, adapted with %s, is cached in %s", model, card, target)
    return target


def _of_its_size(described: ForeignCard, card: str | Path, model: onnx.ModelProto) -> ForeignCard:
    """Return a card that ships with the input size of the graph: it is of a kind of models, which have many sizes."""
    if str(card) not in shipped_cards():
        return described
    axes = (-2, -1) if described.adapter.input.layout == "NCHW" else (-3, -2)
    for value in model.graph.input:
        sides = value.type.tensor_type.shape.dim
        if len(sides) in (3, 4) and value.name == (described.adapter.input.name or value.name):
            height, width = (sides[axis].dim_value for axis in axes)
            if height > 0 and width > 0:
                size = described.input.model_copy(update={"width": width, "height": height})
                return described.model_copy(update={"input": size})
    return described


def adapt_model(model: onnx.ModelProto, card: ForeignCard, path: str | Path) -> onnx.ModelProto:
    """Rewrite a foreign graph so that it keeps the contract, with its card inside.

    Args:
        model: the foreign graph; it is changed.
        card: what it takes and gives.
        path: where it came from, for messages.

    Raises:
        ModelError: the card is not of this graph; says what the graph has.
    """
    native = card.native()
    names = [card.input.name]
    names += [card.segmentation.output] if card.segmentation is not None else []
    names += [card.detection.boxes, card.detection.scores] if card.detection is not None else []
    names += [card.classification.output] if card.classification is not None else []
    if len(set(names)) != len(names):
        raise ModelError(f"the card gives one name to several of its input and outputs: {', '.join(names)}", path)
    graph = Graph(model, Path(path), names)
    batch = adapt_input(graph, card)
    if card.segmentation is not None:
        adapt_logits(graph, card, batch)
    if card.detection is not None:
        adapt_boxes(graph, card, batch)
    if card.classification is not None:
        adapt_probabilities(graph, card, batch)
    finished = graph.finish()
    write_card(finished, native)
    check_graph(finished, native, (card.input.width, card.input.height), path)
    check_valid(finished, path)
    return finished


def _load(path: Path) -> onnx.ModelProto:
    """Load a model with its weights, also those in files beside it."""
    model: onnx.ModelProto = load_onnx(path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, RuntimeError, MemoryError, onnx.checker.ValidationError) as error:
        raise ModelError(f"its weights are in another file, which cannot be read: {str(error)[:300]}", path) from None
    if model.ByteSize() > LARGEST_BYTES:
        raise ModelError("it has more than 2 GB of weights, which one ONNX file cannot hold", path)
    return model


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="perception-")


def _own_folder() -> Path:
    """Create a folder for this process, removed at its end: where the user's cache cannot be written."""
    return Path(_scratch().name)
