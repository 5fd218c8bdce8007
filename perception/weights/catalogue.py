"""Models of others that can be fetched by name: where from, under which licence, with which card."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from perception.common.files import sha256_of
from perception.common.settings import read_yaml
from perception.common.strict import Strict, faults_in
from perception.errors import ModelError, PerceptionError, UsageError
from perception.weights.download import download
from perception.weights.library import user_models_dir

CATALOGUE = Path(__file__).with_name("catalogue.yaml")

REMEMBERED = "sha256.json"
"""Beside the user's models: SHA-256 by URL of files that the catalogue does not know the hash of."""


class Entry(Strict):
    """One model of a catalogue.

    Attributes:
        about: what it is for, one line.
        url: where its makers publish the file.
        sha256: of that file, in hexadecimal digits; None where it is not known.
        bytes: its size; None where it is not known.
        licence: of the weights.
        commercial_use: whether that licence allows commercial use; others have to be accepted by whoever fetches them.
        expected: accuracy, and who says so.
        card: the model card with its ``adapter`` section, as in a YAML file.
    """

    about: str = ""
    url: str = Field(pattern="^https?://")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    licence: str = Field(min_length=1)
    commercial_use: bool
    expected: str = ""
    card: dict[str, Any]


def read_catalogue(path: str | Path = CATALOGUE) -> dict[str, Entry]:
    """Read the models of a catalogue by name. Names that begin with ``_`` are only for references within the file.

    Raises:
        UsageError: the file cannot be read or is not a valid catalogue.
    """
    data = read_yaml(path, "catalogue")
    if not isinstance(data, dict):
        raise UsageError("a catalogue is a mapping of models by name", path)
    try:
        return {str(name): Entry.model_validate(entry) for name, entry in data.items() if not str(name).startswith("_")}
    except ValidationError as error:
        raise UsageError(f"not a valid catalogue: {faults_in(error, 'entry', Entry)}", path) from None


def get_model(
    name: str,
    *,
    catalogue: str | Path = CATALOGUE,
    accept_licence: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Fetch a model of the catalogue, adapt it, and keep it where it can be loaded by name.

    An interrupted download is resumed by the next call.

    Args:
        name: a name of the catalogue.
        catalogue: the YAML file.
        accept_licence: fetch it although its licence restricts what it may be used for.
        overwrite: fetch it again although a model of that name is there.
        progress: called with (bytes that are there, bytes in all or None).

    Returns:
        The model file, with its card inside.

    Raises:
        UsageError: no such model, one of that name is there already, or its licence has to be accepted first.
        ModelError: it cannot be fetched, is not the file that is expected, or does not fit its card.
    """
    from perception.foreign import adapt

    entries = read_catalogue(catalogue)
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(entries)}"
        raise UsageError(f"the catalogue has no model {name!r}; {hint}")
    entry, folder = entries[name], user_models_dir()
    target = folder / f"{name}.onnx"
    if target.exists() and not overwrite:
        raise UsageError("this model is already there; give `overwrite=True` to fetch it again", target)
    if not entry.commercial_use and not accept_licence:
        raise UsageError(
            f"the licence of {name} restricts its use ({entry.licence}); give `accept_licence=True` to fetch it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"cannot make the folder for models: {error.strerror or error}", folder) from None
    remembered = _remembered(folder)
    wanted = entry.sha256 or remembered.get(entry.url)
    part = folder / f".{name}.part"
    download(entry.url, part, sha256=wanted, size=entry.bytes, progress=progress)
    if wanted is None:
        remembered[entry.url] = sha256_of(part)
        _remember(folder, remembered)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as drafts:
            card = Path(drafts) / "card.yaml"
            card.write_text(yaml.safe_dump({"commercial_use": entry.commercial_use, **entry.card}), encoding="utf-8")
            model = Path(drafts) / f"{name}.onnx"
            part.replace(model)
            adapt(model, card, target, overwrite=True)
    except PerceptionError as error:
        raise ModelError(f"{name} was fetched, but does not work here: {error.message}", entry.url) from error
    except OSError as error:
        raise ModelError(f"cannot keep the model: {error.strerror or error}", target) from None
    return target


def _remembered(folder: Path) -> dict[str, str]:
    try:
        data = json.loads((folder / REMEMBERED).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(url): str(digest) for url, digest in data.items()} if isinstance(data, dict) else {}


def _remember(folder: Path, digests: dict[str, str]) -> None:
    handle, draft = tempfile.mkstemp(dir=folder, prefix=f".{REMEMBERED}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(digests, file, indent=1)
    Path(draft).replace(folder / REMEMBERED)
