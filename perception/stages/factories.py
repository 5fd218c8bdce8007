"""Stages by name: one of the package's own, or any that can be imported, made for each source."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.card import ModelCard
from perception.common.settings import nearest
from perception.errors import PerceptionError, UsageError
from perception.types import Stage

NAMED = {
    "panoptic": "perception.stages.panoptic:PanopticStage",
    "smooth": "perception.stages.smooth:SmoothStage",
    "track": "perception.stages.track:TrackStage",
}
"""Stages of the package by the names that configurations use."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class StageFactory:
    """Makes a stage for each source that it is applied to, so that each has state of its own.

    Attributes:
        name: for messages.
        make: is given the model's card.
        still: makes the stage for a single picture; None: the same.
    """

    name: str
    make: Callable[[ModelCard], Stage]
    still: Callable[[ModelCard], Stage] | None = None

    def __call__(self, card: ModelCard) -> Stage:
        """Make a stage.

        Raises:
            UsageError: it cannot be made for this model, or what is made is no stage.
        """
        try:
            stage = self.make(card)
        except PerceptionError:
            raise
        except Exception as error:
            raise UsageError(f"the stage {self.name} cannot be made: {type(error).__name__}: {error}") from error
        if not callable(stage):
            raise UsageError(f"{self.name} must make a stage, which is called with predictions, not {stage!r:.100}")
        return stage


def find_stage(text: str) -> StageFactory:
    """Find the stage of that name, or of ``module:function``.

    A class, a function without arguments and one whose argument is called ``card`` are factories: they are called once
    for each source, with the model's card where they take an argument. Any other function of one argument is the stage
    itself. Modules are looked for in the current folder, too.

    Args:
        text: ``panoptic``, ``smooth``, ``track``, or such as ``my_stages:CountCars``.

    Raises:
        UsageError: there is no such name, module or function, or it does not take what a stage takes.
    """
    module_name, colon, path = NAMED.get(text, text).partition(":")
    if not colon or not module_name or not path:
        raise UsageError(f"no stage is called {text!r}{nearest(text, NAMED)}; others are given as module:function")
    found: Any = _imported(module_name, text)
    for name in path.split("."):
        if not hasattr(found, name):
            public = [n for n in dir(found) if not n.startswith("_")]
            raise UsageError(f"{module_name} has no {path}{nearest(name, public)}", f"stage {text}")
        found = getattr(found, name)
    return StageFactory(text, _factory(found, text))


def name_of_stage(stage: Stage) -> str:
    """Return the name of a stage for messages: of a function, or of an object's class."""
    return getattr(stage, "__name__", type(stage).__name__)


def _imported(name: str, text: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:  # as for `python -m`; last, so that nothing there hides what is installed
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            why = f"there is no module {error.name}; install it, or start in the folder that it is in"
            raise UsageError(why, f"stage {text}") from None
        raise UsageError(f"its module cannot be imported: {error}", f"stage {text}") from error
    except Exception as error:
        raise UsageError(f"its module cannot be imported: {type(error).__name__}: {error}", f"stage {text}") from error


def _factory(found: Any, text: str) -> Callable[[ModelCard], Stage]:
    if not callable(found):
        raise UsageError(f"must be a function or a class, not {found!r:.100}", f"stage {text}")
    parameters = list(inspect.signature(found).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]
    must_name = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if len(needed) > 1 or must_name:
        takes = ", ".join([*(p.name for p in needed), *must_name])
        why = f"takes ({takes}): a stage takes a prediction, and what makes one takes the model's card or nothing"
        raise UsageError(why, f"stage {text}")
    if not needed:
        return lambda card: found()
    if isinstance(found, type) or needed[0].name == "card":
        return lambda card: found(card)
    return lambda card: found
