"""What `import perception` exports, for autodoc to fill from its docstrings."""

from __future__ import annotations

import inspect

import perception

GROUPS = {
    "Sources, models, and running them": ("open_source", "load_model", "predict", "run", "open_sink", "show", "to_bgr"),
    "What flows": ("Frame", "Prediction", "Detections", "ClassMap", "SourceInfo", "Report"),
    "Models, drawing, outputs": ("Model", "ModelCard", "DetectionOptions", "Annotator", "Sink", "Stage"),
    "Errors": ("PerceptionError", "UsageError", "SourceError", "SinkError", "ModelError", "EngineError"),
}


def python_api() -> str:
    """A section for each group of names.

    Raises:
        ValueError: a public name is in no group.
    """
    grouped = {name for names in GROUPS.values() for name in names}
    missing = set(perception.__all__) - grouped - {"__version__"}
    if missing:
        raise ValueError(f"docs/site/reference/python_api.py: no group has {', '.join(sorted(missing))}")
    parts = []
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            thing = getattr(perception, name)
            kind = "autoclass" if inspect.isclass(thing) else "autofunction" if callable(thing) else "autodata"
            if kind == "autoclass" and issubclass(thing, perception.PerceptionError):
                kind = "autoexception"
            members = "" if kind in ("autofunction", "autodata") else "   :members:\n"
            parts.append(f"```{{eval-rst}}\n.. {kind}:: perception.{name}\n{members}```\n")
    return "\n".join(parts)
