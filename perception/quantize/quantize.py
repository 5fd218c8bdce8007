"""`quantize`: writes a model in eight bits, and measures its accuracy, time and size before and after."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import onnx

from perception.card import ModelCard, Quantization, load_onnx, read_card, write_card
from perception.common.files import sha256_of
from perception.engines import open_engine
from perception.engines.openvino import native_precisions
from perception.engines.quantised import SUFFIX
from perception.engines.timing import call_ms
from perception.errors import UsageError
from perception.quantize.accuracy import Progress, Validation
from perception.quantize.calibration import CalibrationPictures
from perception.quantize.graph import quantised_layers, tidied, with_float_layers
from perception.quantize.post_training import post_training_quantised, tool
from perception.quantize.sensitivity import rank_layers

PICTURES = 100
"""Pictures to calibrate on: ranges and biases hardly move with more."""

RANKING_PICTURES = 8

MEASURE_SECONDS = 6.0

_log = logging.getLogger("perception")


@dataclass(frozen=True)
class Variant:
    """A model in one precision.

    Attributes:
        precision: ``fp32``, ``bf16``, ... or ``int8``.
        metrics: accuracy, where it was measured.
        ms: median of one frame on all cores in OpenVINO, in milliseconds, all variants measured turn by turn.
        megabytes: size of the file.
    """

    precision: str
    metrics: dict[str, float]
    ms: float
    megabytes: float


@dataclass(frozen=True)
class Quantised:
    """The result of `quantize`.

    Attributes:
        card: of the new file.
        layers: how many layers compute in eight bits.
        variants: the model before, in each precision that this machine computes in, and the new one, which is last.
    """

    card: ModelCard
    layers: int
    variants: list[Variant]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of before and after: accuracy, time, size."""
        slowest = self.variants[0]
        return [
            {"precision": v.precision}
            | {name: f"{value:.4f}" for name, value in v.metrics.items()}
            | {"ms": round(v.ms, 2), "times faster": round(slowest.ms / v.ms, 2), "MB": round(v.megabytes, 2)}
            for v in self.variants
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data for JSON."""
        assert self.card.quantization is not None
        return {
            "name": self.card.name,
            "variants": [
                {"precision": v.precision, **v.metrics, "ms": v.ms, "megabytes": v.megabytes} for v in self.variants
            ],
            "quantised_layers": self.layers,
            "float_layers": self.card.quantization.float_layers,
            "calibrated_on": self.card.quantization.calibrated_on,
        }


def quantize(
    model: str | Path,
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    count: int = PICTURES,
    validation: Validation | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Quantised:
    """Write a model in eight bits.

    All convolutions and matrix products, and what is between them, are quantised first. Where accuracy then is lower
    than ``validation`` allows, layers go back to float, those that hurt the outputs most first, twice as many each
    time, until it is not.

    Args:
        model: name or file of a model in float.
        folders: pictures to measure ranges of values on, such as the network was trained on.
        output: the ``.onnx`` file to write; it appears whole or not at all.
        count: how many of the pictures to take.
        validation: what to measure accuracy on, before and after; without labels it is neither measured nor guarded.
        overwrite: replace a file that exists.
        progress: told how far it is.

    Returns:
        What was made, with accuracy and speed before and after.

    Raises:
        UsageError: the output exists or cannot be written, NNCF is not installed, options do not fit the model, or
            nothing is left in eight bits.
        ModelError: no such model, or one that cannot be quantised.
        SourceError: pictures or labels are missing or damaged.
        EngineError: OpenVINO refuses a result.
    """
    from perception.weights.library import find_model

    output, validation = Path(output), validation or Validation()
    path = find_model(model)
    card = read_card(path)
    validation.check(card)
    if output.exists() and not overwrite:
        raise UsageError("the file exists; give another name, or `overwrite=True` to replace it", output)
    if output.suffix != ".onnx":
        raise UsageError("the name of a model file must end in .onnx", output)
    pictures = CalibrationPictures(folders, card.input, count)
    original = tidied(load_onnx(path))
    whole = post_training_quantised(original, card.input.name, pictures, _part(progress, "calibrate"))
    before = validation.measure(path, "fp32", progress)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            draft = Path(folder) / output.name
            work = _Draft(draft, path, card, whole, original, pictures, validation, before)
            work.write([], {})
            after = validation.measure(draft, "auto", progress)
            if validation.too_much(before, after):
                after = work.restore_layers(after, progress)
            written = work.write(work.float_layers, after)
            metrics = {"fp32": before}
            for precision in native_precisions():
                if precision not in metrics:
                    metrics[precision] = validation.measure(path, precision, progress)
            variants = _compare(path, card, draft, written, {**metrics, "int8": after})
            draft.replace(output)
    except OSError as error:
        raise UsageError(f"cannot write the model: {error.strerror or error}", output) from None
    return Quantised(written, len(quantised_layers(work.model)), variants)


class _Draft:
    """The file in the making.

    Attributes:
        model: the graph as it was written last.
        float_layers: the layers that are in float there.
    """

    def __init__(
        self,
        path: Path,
        source: Path,
        card: ModelCard,
        whole: onnx.ModelProto,
        original: onnx.ModelProto,
        pictures: CalibrationPictures,
        validation: Validation,
        before: dict[str, float],
    ) -> None:
        self.path = path
        self.model = whole
        self.float_layers: list[str] = []
        self._source, self._card = source, card
        self._whole, self._original = whole, original
        self._pictures, self._validation, self._before = pictures, validation, before

    def write(self, float_layers: list[str], after: dict[str, float]) -> ModelCard:
        """Write the graph with these layers in float, and its card with this accuracy."""
        self.float_layers = float_layers
        self.model = with_float_layers(self._whole, self._original, float_layers)
        name = self._card.name
        card = self._card.model_copy(
            update={
                "name": name if name.endswith(SUFFIX) else name + SUFFIX,
                "metrics": _named(name, after),
                "suite": None,  # measured on the model before
                "date": date.today().isoformat(),
                "quantization": Quantization(
                    source_sha256=sha256_of(self._source),
                    calibrated_on=self._pictures.sources,
                    float_layers=float_layers,
                    before=_named(name, self._before),
                    tool=tool(),
                ),
            }
        )
        write_card(self.model, card)
        onnx.save(self.model, str(self.path))
        return card

    def restore_layers(self, after: dict[str, float], progress: Progress | None) -> dict[str, float]:
        """Put layers back to float until accuracy is as it must be; returns it.

        Raises:
            UsageError: no layer in eight bits is left.
        """
        few = [self._pictures[i] for i in range(0, len(self._pictures), -(-len(self._pictures) // RANKING_PICTURES))]
        ranked = rank_layers(self._whole, self._original, few, _part(progress, "rank layers"))
        number = 1
        while loss := self._validation.too_much(self._before, after):
            said = ", ".join(f"{name} {value:.4f}" for name, value in loss.items())
            if number >= len(ranked):
                raise UsageError(f"no layer of this model can be quantised at the accuracy requested: lost {said}")
            _log.info("lost %s: %d of %d layers go back to float", said, number, len(ranked))
            self.write([name for name, _ in ranked[:number]], {})
            after = self._validation.measure(self.path, "auto", progress)
            number *= 2
        return after


def _compare(
    source: Path, card: ModelCard, quantised: Path, new_card: ModelCard, metrics: dict[str, dict[str, float]]
) -> list[Variant]:
    """Compare the model in every precision of ``metrics``, of which ``int8`` is last, with times and sizes."""
    with ExitStack() as opened:
        engines = []
        for precision in metrics:
            file, card = (quantised, new_card) if precision == "int8" else (source, card)
            options: Any = {"engine": "openvino", "precision": precision}
            engines.append(opened.enter_context(open_engine(file, card, **options)))
        times = call_ms(engines, MEASURE_SECONDS)
    sizes = {p: (quantised if p == "int8" else source).stat().st_size / 1e6 for p in metrics}
    return [Variant(p, m, ms, sizes[p]) for (p, m), ms in zip(metrics.items(), times, strict=True)]


def _named(model: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{model}_val_{name}": round(value, 4) for name, value in metrics.items()}


def _part(progress: Progress | None, what: str) -> Any:
    return None if progress is None else lambda done, total: progress(what, done, total)
