"""Files of models: those that ship, those of other distributions, the user's own, and how they are called.

A distribution brings models by an entry point of the group ``perception.weights``: its value is a package, in whose
folder the ``.onnx`` files are. ``research/`` of this repository is one.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from perception.card import ModelCard, read_card
from perception.common.distribution import DISTRIBUTION
from perception.errors import ModelError
from perception.weights import DEFAULT_MODEL as DEFAULT_MODEL
from perception.weights import RESEARCH, RESEARCH_MODELS

ENTRY_POINTS = "perception.weights"
"""Group of the entry points by which other distributions bring models."""

OWN = "own"
"""Where a model in the user's folder comes from."""

_log = logging.getLogger("perception")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that can be loaded by name.

    Attributes:
        name: that of the file.
        path: the file.
        card: its card.
        size_bytes: size of the file.
        origin: the distribution that brought it, or `OWN`: the user.
    """

    name: str
    path: Path
    card: ModelCard
    size_bytes: int
    origin: str = OWN


def find_model(name_or_path: str | Path) -> Path:
    """Find the file of a model: a path as it is, or the name of a model that is installed or one of the user's own.

    A name is that of the file, or else the one in its card.

    Raises:
        ModelError: no such file, or no model of that name, with the nearest names, or with what to install.
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
    if text in RESEARCH_MODELS:
        raise ModelError(
            f"the model {text!r} is for research only and not installed: pip install ./research in a checkout, "
            f"elsewhere pip install {RESEARCH}"
        )
    near = difflib.get_close_matches(text, {*named, *RESEARCH_MODELS}, n=3, cutoff=0.5) or sorted(named)
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
    for name, (path, origin) in _named().items():
        try:
            found.append(ModelFile(name, path, read_card(path), path.stat().st_size, origin))
        except ModelError as error:
            _log.warning("%s", error)
    return found


def user_models_dir() -> Path:
    """Return the folder for models of the user's own; it may not exist."""
    import platformdirs

    return Path(platformdirs.user_data_dir("perception")) / "models"


def model_paths() -> dict[str, Path]:
    """Files of the models by name, usable or not. A name that ships always means the file that ships."""
    return {name: path for name, (path, _) in _named().items()}


def _named() -> dict[str, tuple[Path, str]]:
    """File and origin of each model by name; the first folder that has a name keeps it."""
    named: dict[str, tuple[Path, str]] = {}
    for origin, folder in (*_installed(), (OWN, user_models_dir())):
        for path in sorted(folder.glob("*.onnx")):
            named.setdefault(path.stem, (path, origin))
    return named


@cache
def _installed() -> tuple[tuple[str, Path], ...]:
    """Distributions with models and their folders: this one, then others by name. They are looked up once."""
    return (DISTRIBUTION, Path(str(files("perception") / "weights"))), *sorted(_others())


def _others() -> Iterator[tuple[str, Path]]:
    for entry in entry_points(group=ENTRY_POINTS):
        origin = entry.name if entry.dist is None else entry.dist.name
        try:
            yield origin, Path(str(files(entry.module)))
        except Exception as error:  # another's package may fail in any way; the models that ship are there all the same
            _log.warning("%s: its models cannot be found: %s", origin, error)
