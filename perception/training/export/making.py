"""How the models that ship are made: the steps of a YAML file, printed or done.

plan = read_plans("configs/models/shipped.yaml")
for step in steps_of(plan, "street-int8"):
    do(step)
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from perception.common.settings import nearest, read_yaml
from perception.common.strict import Strict, faults_in
from perception.errors import PerceptionError, UsageError


class Step(Strict):
    """A step on the way to a model: a command, or another model that comes first.

    Attributes:
        run: the command line.
        model: name of a model whose steps come here.
        makes: the file that is there once the step is done; None for what is quick or looks for itself.
        hours: on two cores with bfloat16.
    """

    run: str | None = None
    model: str | None = None
    makes: Path | None = None
    hours: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Step:
        if (self.run is None) == (self.model is None):
            raise ValueError("a step has either run or model")
        return self

    @property
    def done(self) -> bool:
        """True where the file that it makes is there."""
        return self.makes is not None and self.makes.is_file()


Plans = Mapping[str, list[Step]]
"""The steps of each model, by its name."""


def read_plans(path: str | Path) -> Plans:
    """Read how the models are made.

    Raises:
        UsageError: The file cannot be read or is faulty, or a model needs itself.
    """
    try:
        plans = TypeAdapter(dict[str, list[Step]]).validate_python(read_yaml(path, "list of models"))
    except ValidationError as error:
        raise UsageError(faults_in(error, "list of models", Step), path) from None
    for name in plans:
        list(_walk(plans, name, (), Path(path)))
    return plans


def steps_of(plans: Plans, name: str | None = None) -> list[tuple[str, Step]]:
    """Return the steps to a model, or to all of them, each once, with the model that each belongs to.

    Raises:
        UsageError: There is no such model.
    """
    if name is not None and name not in plans:
        raise UsageError(f"no model {name}{nearest(name, plans)}")
    found: dict[str, tuple[str, Step]] = {}
    for wanted in plans if name is None else (name,):
        for model, step in _walk(plans, wanted, ()):
            found.setdefault(f"{model} {step.run}", (model, step))
    return list(found.values())


def do(step: Step) -> None:
    """Run a step's command, with this Python where it is one of ours.

    Raises:
        PerceptionError: It failed.
    """
    assert step.run is not None
    command = shlex.split(step.run)
    if command[0] == "perception":
        command[:1] = [sys.executable, "-m", "perception"]
    if step.makes is not None:
        step.makes.parent.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise PerceptionError(f"exit status {status} of: {step.run}")
    if step.makes is not None and not step.makes.is_file():
        raise PerceptionError(f"{step.makes} was not made by: {step.run}")


def _walk(plans: Plans, name: str, above: tuple[str, ...], path: Path | None = None) -> Iterator[tuple[str, Step]]:
    if name in above:
        raise UsageError(f"{' needs '.join((*above, name))}", path)
    for step in plans[name]:
        if step.model is None:
            yield name, step
        elif step.model in plans:
            yield from _walk(plans, step.model, (*above, name), path)
        else:
            raise UsageError(f"{name}: no model {step.model}{nearest(step.model, plans)}", path)
