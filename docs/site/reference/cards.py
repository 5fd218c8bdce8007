"""What the card of a model that ships says of its licence, its sources and its accuracy."""

from __future__ import annotations

from collections.abc import Iterator

from perception.card import ModelCard, read_card
from perception.weights.library import find_model
from reference.markdown import plain, table


def card(name: str) -> str:
    """The card of a model, as Markdown."""
    return "\n".join(_parts(read_card(find_model(name))))


def _parts(found: ModelCard) -> Iterator[str]:
    use = {True: "allowed", False: "not allowed", None: "not known"}[found.commercial_use]
    size = f"{found.input.width}x{found.input.height}"
    yield table(("version", "input", "licence", "commercial use"), [(found.version, size, plain(found.licence), use)])
    yield f"{plain(found.description)}\n"
    if found.trained_on:
        yield "Made of:\n\n" + "".join(f"- {plain(entry)}\n" for entry in found.trained_on)
    if found.suite is not None:
        for part in found.suite.sets:
            head = ", ".join(f"{_named(name)} {value:.3f}" for name, value in part.metrics.items())
            yield f"On *{plain(part.set)}*, {part.images} pictures: {head}.\n"
            if part.classes:
                yield table(list(part.classes), [[f"{value:.2f}" for value in part.classes.values()]])
    elif found.metrics:
        rows = [(f"`{name}`", f"{value:.4g}") for name, value in found.metrics.items()]
        yield table(("measured", ""), rows)


def _named(metric: str) -> str:
    return {"miou": "mean IoU", "map50": "mAP50", "map": "mAP", "pixel_accuracy": "pixel accuracy"}.get(metric, metric)
