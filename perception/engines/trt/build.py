"""Building an engine, and looking at what was built: types, shapes and layers, before anything is trusted."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perception.card import read_card
from perception.engines.trt.cache import Cached, EngineCache, write_private
from perception.engines.trt.flavour import Flavour, find_flavour, this_machine
from perception.engines.trt.graph import Tail
from perception.engines.trt.recipe import Recipe, graph_precision, make_profile, make_recipe
from perception.errors import EngineError

DEFAULT_TAIL = Tail()

Progress = Callable[[str, int, int], None]
"""Called with what the builder does, the steps done, and the steps there are."""

_log = logging.getLogger("perception")

_TYPES = {"f32": "FLOAT", "f16": "HALF", "bf16": "BF16", "int8": "INT8"}
_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")

_INSTEAD = {
    "MaxUnpool": "decode with bilinear Resize or ConvTranspose",
    "NonMaxSuppression": "leave suppression out of the graph: perception does it after the network",
    "Loop": "unroll it when exporting",
    "RoiAlign": "use a one-stage head",
}

_WITHOUT_GPU = ("CUDA driver version is insufficient", "no CUDA-capable device", "CUDA initialization failure")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: name, type as TensorRT calls it, shape with -1 for what is free."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.lower()} [{', '.join('?' if n < 0 else str(n) for n in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was built.

    Attributes:
        inputs, outputs: the tensors that cross the border.
        layers: number of layers of the network.
        products: number of convolutions and matrix products by the type that they compute in.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: int
    products: dict[str, int]

    @classmethod
    def from_data(cls, data: Any) -> Inspection:
        """From plain data, as `dataclasses.asdict` makes it and JSON gives it back.

        Raises:
            EngineError: the data are of something else.
        """
        try:
            sides = [
                tuple(Tensor(str(t["name"]), str(t["dtype"]), tuple(map(int, t["shape"]))) for t in data[side])
                for side in ("inputs", "outputs")
            ]
            return cls(sides[0], sides[1], int(data["layers"]), dict(data["products"]))
        except (KeyError, TypeError, ValueError):
            raise EngineError("a manifest in the cache of engines is damaged; `perception cache clear`") from None

    def __str__(self) -> str:
        products = ", ".join(f"{n} in {dtype.lower()}" for dtype, n in self.products.items())
        tensors = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"{tensors[0]} -> {tensors[1]}; {self.layers} layers, products: {products or 'none'}"


def build(
    recipe: Recipe, timing_cache: Path | None = None, progress: Progress | None = None
) -> tuple[bytes, Inspection]:
    """Parse, check and build.

    Args:
        recipe: what to build.
        timing_cache: file in which the builder's measurements are kept, for flavours that measure.
        progress: told how far the build is.

    Returns:
        The serialized engine, and what is in it. Since networks are strongly typed, the types of the network that
        was given to the builder are those of the engine.

    Raises:
        EngineError: an operator that TensorRT does not have (named with its node), no GPU where one is needed, a
            network that is not in the precision asked for, or a failure of the builder.
    """
    flavour = recipe.flavour
    trt = flavour.trt
    logger = build_logger(trt)
    if not recipe.capabilities and this_machine() is None:
        known = flavour.known_capabilities()
        hint = f"; or name what to build for: --compute-capability {','.join(known)}" if known else ""
        raise EngineError(f"{flavour.title} needs an NVIDIA GPU to build for, and there is none{hint}")
    try:
        builder = trt.Builder(logger)
    except Exception as error:
        raise EngineError(f"{flavour.title} does not start: {logger.said() or error}") from error
    network = flavour.create_network(builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(recipe.graph):
        raise EngineError(_parser_fault(parser, flavour))
    inspection = inspect_network(network, trt)
    check_precision(inspection, recipe.precision)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # f32 that was asked for is f32, with 24 bits and not 11
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flavour.set_capabilities(config, recipe.capabilities)
    flavour.use_timing_cache(config, timing_cache)
    config.add_optimization_profile(_make_profile(builder, network, recipe))
    monitor = None if progress is None else _make_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{flavour.title} cannot build {recipe.model}: {logger.said() or 'no reason was given'}")
    if timing_cache is not None and (data := flavour.timing_cache(config)):
        with contextlib.suppress(OSError):  # only the next build would be quicker
            write_private(timing_cache, data)
    return bytes(plan), inspection


def inspect_network(network: Any, trt: Any) -> Inspection:
    """Look at a network that was parsed."""
    products: Counter[str] = Counter()
    dequantised = set()
    for index in range(network.num_layers):  # in topological order
        layer = network.get_layer(index)
        if layer.type.name == "DEQUANTIZE":
            dequantised.add(layer.get_output(0).name)
        elif layer.type.name in _PRODUCTS:
            source = layer.get_input(0)
            # what reads the result of a Q/DQ pair computes in int8; the type between is a float on paper only
            products["INT8" if source.name in dequantised else source.dtype.name] += 1
    return Inspection(
        tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs)),
        network.num_layers,
        dict(products),
    )


def check_precision(inspection: Inspection, precision: str) -> None:
    """Refuse what does not compute in the precision that was asked for.

    Raises:
        EngineError: a product computes in another type.
    """
    wanted = _TYPES[precision]
    # layers that quantisation left out (the first and the last, often) are no fault of the build
    wrong = {} if precision == "int8" else {t: n for t, n in inspection.products.items() if t != wanted}
    if wrong or (inspection.products and wanted not in inspection.products):
        found = ", ".join(f"{n} in {dtype.lower()}" for dtype, n in inspection.products.items())
        raise EngineError(f"asked for {precision}, but the convolutions and matrix products are: {found}")


def _tensor(tensor: Any) -> Tensor:
    return Tensor(tensor.name, tensor.dtype.name, tuple(tensor.shape))


def _make_profile(builder: Any, network: Any, recipe: Recipe) -> Any:
    shapes = recipe.profile
    source = network.get_input(0)
    fixed = max(source.shape[0], 0)  # -1 where any number of frames is taken
    ranges = builder.create_optimization_profile()
    ranges.set_shape(
        recipe.input_name,
        (fixed or 1, shapes.least[1], shapes.least[0], 3),
        (fixed or shapes.batch, shapes.best[1], shapes.best[0], 3),
        (fixed or shapes.batch, shapes.most[1], shapes.most[0], 3),
    )
    return ranges


def _parser_fault(parser: Any, flavour: Flavour) -> str:
    error = parser.get_error(0)
    operator, node = error.node_operator(), error.node_name()
    description = error.desc()
    lines = [line.strip() for line in description.splitlines()]
    telling = [line for line in lines if line and not any(word in line for word in _WITHOUT_GPU)]
    said = re.sub(r" ?In \w+ at \S+:\d+\)?", "", telling[-1] if telling else "no reason was given")[:300]
    where = f"{operator} (node {node!r})" if operator else "the graph"
    instead = f"; {_INSTEAD[operator]}" if operator in _INSTEAD else ""
    return f"{flavour.title} does not take {where}: {said}{instead}"


def build_logger(trt: Any) -> Any:
    """A TensorRT logger that keeps errors for the message and sends the rest to the package's log."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR and not any(word in message for word in _WITHOUT_GPU):
                self.errors.append(message)
            if severity <= trt.ILogger.WARNING:
                _log.debug("%s: %s", severity.name, message)

        def said(self) -> str:
            """The last error, without its source positions."""
            text = self.errors[-1] if self.errors else ""
            return re.sub(r" ?In \w+ at \S+:\d+\)?", "", " ".join(text.split()))[:400]

    return Logger()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self.steps.get(phase, step + 1))
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that is ready: what it is, and whether it had to be built.

    Attributes:
        recipe: what it is made from.
        engine: the serialized engine and where it is kept.
        inspection: what is in it.
        seconds: how long it took to get it.
    """

    recipe: Recipe
    engine: Cached
    inspection: Inspection
    seconds: float


def obtain(recipe: Recipe, engines: EngineCache | None = None, progress: Progress | None = None) -> Built:
    """The engine of a recipe: from the cache, or built and kept there.

    Raises:
        EngineError: it cannot be built; see `build`.
    """
    engines = engines or EngineCache()
    start = time.perf_counter()

    def make() -> tuple[bytes, dict[str, Any]]:
        machine = recipe.key_fields()["machine"]
        name = hashlib.sha256(f"{recipe.flavour.version} {machine}".encode()).hexdigest()[:16]
        timing = None if recipe.flavour.portable else engines.folder / f"timing-{name}"
        plan, inspection = build(recipe, timing, progress)
        return plan, asdict(inspection)

    got = engines.obtain(recipe.key_fields(), make)
    return Built(recipe, got, Inspection.from_data(got.summary), time.perf_counter() - start)


def build_model(
    name_or_path: str | Path,
    *,
    card: Path | None = None,
    flavour: str = "auto",
    precision: str = "fp16",
    batch: int = 1,
    size: str | tuple[int, int] | None = None,
    capabilities: tuple[str, ...] = (),
    tail: Tail | None = DEFAULT_TAIL,
    progress: Progress | None = None,
) -> Built:
    """Build a model's engine, or find it in the cache.

    Args:
        name_or_path, card: see `perception.load_model`.
        flavour: ``auto``, ``tensorrt`` or ``rtx``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        batch: most frames a call, 1..8.
        size: (width, height) or ``"640x360"`` of the input in pixels; ``dynamic``; None for the model's own.
        capabilities: compute capabilities to build for without a GPU, such as ``("75", "89")``, with ``rtx`` only.
        tail: what is appended to the graph.
        progress: told how far a build is.

    Raises:
        UsageError: options that do not fit together or to the model, or no TensorRT.
        ModelError: no such model, or it is unusable.
        EngineError: it cannot be built.
    """
    from perception.model import find_model

    chosen = find_flavour(flavour)
    path = find_model(name_or_path)
    if card is not None:
        from perception.foreign import adapted

        rewritten = adapted(path, card)
        if rewritten is not None:
            path, card = rewritten, None  # the card is inside
    described = read_card(path, card)
    profile = make_profile(described, batch, size)
    recipe = make_recipe(
        path, described, chosen, graph_precision(precision), profile, capabilities=capabilities, tail=tail
    )
    return obtain(recipe, progress=progress)
