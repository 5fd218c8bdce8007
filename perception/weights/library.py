"""Files of models: those that ship, those that the user has put beside them, and how they are called."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from perception.card import ModelCard, read_card
from perception.errors import ModelError
from perception.weights import DEFAULT_MODEL as DEFAULT_MODEL

_log = logging.getLogger("perception")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be loaded by name: its file, its card, the size of the file in bytes."""

    name: str
    path: Path
    card: ModelCard
    size_bytes: int


def find_model(name_or_path: str | Path) -> Path:
    """Find the file of a model: a path as it is, or the name of a shipped model or of one of the user's own.

    A name is that of the file, or else the one in its card.

    Raises:
        ModelError: no such file, or no model of that name, with the nearest names.
    """
    text = str(name_or_path)
    path = Path(text).expanduser()
    if isinstance(name_or_path, Path) or path.suffix == ".onnx" or len(path.parts) > 1:
        if not path.is_file():
            raise ModelError("no such model file; `perception models` lists all models", path)
        return path
    named = model_paths()
    if text in named:
        return named[text]
    called = [file for file in list_models() if file.card.name == text]
    if len(called) == 1:
        return called[0].path
    if called:
        raise ModelError(f"several models say that they are {text!r}: {', '.join(file.name for file in called)}")
    near = difflib.get_close_matches(text, named, n=3, cutoff=0.5) or sorted(named)
    known = f"did you mean {' or '.join(near)}?" if near else f"there are none in {user_models_dir()}"
    raise ModelError(f"no model is called {text!r}; {known} A path must end in .onnx")


def find_with_card(name_or_path: str | Path, card: str | Path | None) -> tuple[Path, str | Path | None]:
    """Find the file of a model, and the YAML card to be read with it: a foreign model is rewritten first.

    Args:
        name_or_path: see `find_model`.
        card: YAML card of a file without one. With an ``adapter`` section the model is rewritten, see
            `perception.foreign`, and kept in the user's cache: the card is inside what comes, and None comes with it.

    Raises:
        ModelError: as `find_model`, and as `perception.foreign.adapted`.
    """
    path = find_model(name_or_path)
    if card is None:
        return path, None
    from perception.foreign import adapted

    rewritten = adapted(path, card)
    return (path, card) if rewritten is None else (rewritten, None)


def list_models() -> list[ModelFile]:
    """List the models that can be loaded by name, those that ship first. Unusable files are logged and left out."""
    found = []
    for name, path in model_paths().items():
        try:
            found.append(ModelFile(name, path, read_card(path), path.stat().st_size))
        except ModelError as error:
            _log.warning("%s", error)
    return found


def user_models_dir() -> Path:
    """Return the folder for models of the user's own; it may not exist."""
    import platformdirs

    return Path(platformdirs.user_data_dir("perception")) / "models"


def model_paths() -> dict[str, Path]:
    """Files of the models by name, usable or not. A name that ships always means the file that ships."""
    shipped = sorted(Path(str(files("perception") / "weights")).glob("*.onnx"))
    own = sorted(user_models_dir().glob("*.onnx"))
    named: dict[str, Path] = {}
    for path in [*shipped, *own]:
        named.setdefault(path.stem, path)
    return named
