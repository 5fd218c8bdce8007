"""Class names of a model and of a data set, matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.common.settings import nearest, read_yaml
from perception.errors import UsageError


@dataclass(frozen=True)
class ClassMatch:
    """Classes that a model and a data set have in common.

    Attributes:
        names: the classes that are evaluated: the model's name, or the data set's where several of the model's
            stand for one of its own.
        of_model: index into ``names`` by model class id; classes that the data set lacks are not in it.
        of_data: index into ``names`` by data set class name; classes that the model lacks are not in it.
        left_out: names of the data set that the model lacks.
    """

    names: list[str]
    of_model: dict[int, int]
    of_data: dict[str, int]
    left_out: list[str]


def match_classes(
    model_names: Sequence[str], data_names: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> ClassMatch:
    """Match by name: equal names, or equal but for case, ``_`` and ``-``; ``synonyms`` come first.

    Args:
        model_names: the model's classes, by id.
        data_names: names in the data set.
        synonyms: for names in the data set the model's name, or several, if any of them is right. Names in the data
            set with equal synonyms are one class. No name at all leaves the class out.

    Raises:
        UsageError: a synonym is not a class, the synonyms contradict each other, or nothing matches.
    """
    synonyms = dict(synonyms or {})
    ids = {name: i for i, name in enumerate(model_names)}
    plain = {_plain(name): i for i, name in reversed(list(enumerate(model_names)))}
    for data_name, wanted in synonyms.items():
        if data_name not in data_names:
            raise UsageError(f"the data set has no class {data_name!r}{nearest(data_name, data_names)}")
        for name in wanted:
            if name not in ids:
                raise UsageError(f"the model has no class {name!r}{nearest(name, model_names)}")
    groups: dict[frozenset[int], list[str]] = {}
    left_out = []
    for data_name in dict.fromkeys(data_names):
        if data_name in synonyms:
            members = frozenset(ids[name] for name in synonyms[data_name])
        else:
            found = ids.get(data_name, plain.get(_plain(data_name)))
            members = frozenset(() if found is None else (found,))
        if members:
            groups.setdefault(members, []).append(data_name)
        else:
            left_out.append(data_name)
    if not groups:
        raise UsageError(
            f"model and data set have no class in common: {', '.join(model_names[:20])} against "
            f"{', '.join(list(data_names)[:20])}; say which are the same: `names=FILE`"
        )
    of_model: dict[int, int] = {}
    for number, members in enumerate(groups):
        for member in members:
            if member in of_model:
                raise UsageError(
                    f"the model's {model_names[member]!r} cannot stand for two classes of the data set: "
                    f"{', '.join(list(groups.values())[of_model[member]])} and {', '.join(groups[members])}"
                )
            of_model[member] = number
    names = [
        model_names[next(iter(members))] if len(members) == 1 else "/".join(same) for members, same in groups.items()
    ]
    of_data = {name: number for number, same in enumerate(groups.values()) for name in same}
    return ClassMatch(names, of_model, of_data, left_out)


def read_synonyms(path: str | Path | None) -> dict[str, list[str]]:
    """Synonyms from a YAML file: ``name in the data set: name in the model``, or a list of the model's names.

    None at all without a file.

    Raises:
        UsageError: the file cannot be read or holds something else.
    """
    if path is None:
        return {}
    data = read_yaml(path, "list of names")
    if not isinstance(data, dict):
        raise UsageError("the file must map names in the data set to names in the model", path)
    synonyms = {}
    for key, value in data.items():
        names = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(name, (str, int)) for name in [key, *names]):
            raise UsageError(f"{key}: must be a name of the model or a list of such, not {value!r}", path)
        synonyms[str(key)] = [str(name) for name in names]
    return synonyms


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
