"""Building an engine, or finding it in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from perception.card import load_onnx, read_card
from perception.common.files import write_atomic
from perception.common.waits import say_wait
from perception.engines.quantised import require_quantised
from perception.engines.trt.cache import Cached, EngineCache
from perception.engines.trt.flavour import find_flavour, this_machine
from perception.engines.trt.graph import Tail, is_quantised
from perception.engines.trt.inspection import Inspection, check_precision, inspect_network
from perception.engines.trt.recipe import MAX_BATCH, Recipe, graph_precision, make_profile, make_recipe
from perception.engines.trt.reports import Progress, Spoken, build_logger, build_monitor, parser_fault
from perception.errors import EngineError

DEFAULT_TAIL = Tail()

_log = logging.getLogger("perception")


class GpuMemoryError(EngineError):
    """The GPU has not enough memory to build an engine."""


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
        GpuMemoryError: the GPU has not enough memory for it.
    """
    flavour = recipe.flavour
    trt = flavour.trt
    logger = build_logger(trt)
    if not recipe.capabilities:
        machine, known = this_machine(), flavour.known_capabilities()
        hint = f"; or name what to build for: `compute_capability={','.join(known)}`" if known else ""
        if machine is None:
            raise EngineError(f"{flavour.title} builds for an NVIDIA GPU, and this machine has none{hint}")
        if fault := flavour.driver_fault(machine.cuda):
            raise EngineError(f"{fault}{hint}")
    try:
        builder = trt.Builder(logger)
    except Exception as error:
        raise EngineError(f"{flavour.title} does not start: {logger.said() or error}") from error
    network = flavour.create_network(builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(recipe.graph):
        raise EngineError(parser_fault(parser, flavour))
    inspection = inspect_network(network, trt)
    check_precision(inspection, recipe.precision)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # f32 that was asked for is f32, with 24 bits and not 11
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flavour.set_capabilities(config, recipe.capabilities)
    flavour.use_timing_cache(config, timing_cache)
    config.add_optimization_profile(_make_profile(builder, network, recipe))
    monitor = None if progress is None else build_monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None and logger.lacks_memory():
        raise GpuMemoryError(
            f"not enough GPU memory to build {recipe.model} for {recipe.profile}; close other programs that "
            "use the GPU, or use a smaller input size"
        )
    if plan is None:
        raise EngineError(f"{flavour.title} cannot build {recipe.model}: {logger.said() or 'no reason was given'}")
    if timing_cache is not None and (data := flavour.timing_cache(config)):
        with contextlib.suppress(OSError):  # only the next build would be quicker
            write_atomic(timing_cache, data, private=True)
    return bytes(plan), inspection


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


def obtain(
    recipe: Recipe,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
    unusable: Cached | None = None,
) -> Built:
    """Return the engine of a recipe: from the cache, or built and cached.

    Args:
        recipe: what it is made from.
        engines: the cache; the user's if None.
        progress: told how far a build is; if None, a line says that there is one, and others how it goes on.
        unusable: what the cache gave before and does not work, see `EngineCache.obtain`.

    Raises:
        EngineError: it cannot be built; see `build`.
    """
    engines = engines or EngineCache()
    start = time.perf_counter()

    def make() -> tuple[bytes, dict[str, Any]]:
        machine = recipe.key_fields()["machine"]
        name = hashlib.sha256(f"{recipe.flavour.version} {machine}".encode()).hexdigest()[:16]
        timing = None if recipe.flavour.portable else engines.folder / f"timing-{name}"
        told = progress
        if told is None:
            say_wait(f"a {recipe.flavour.title} engine of {recipe.model} is built, which can take minutes")
            told = Spoken(recipe.model)
        plan, inspection = build(recipe, timing, told)
        return plan, asdict(inspection)

    got = engines.obtain(recipe.key_fields(), make, unusable)
    return Built(recipe, got, Inspection.from_data(got.summary), time.perf_counter() - start)


def kept_batch(recipe: Recipe, engines: EngineCache | None = None) -> int:
    """For how many frames a call an engine of this recipe is in the cache: the most of them, or 0."""
    engines = engines or EngineCache()
    fields = recipe.key_fields()
    for batch in range(MAX_BATCH, 0, -1):
        if engines.holds(fields | {"profile": str(replace(recipe.profile, batch=batch))}):
            return batch
    return 0


def build_model(
    path: Path,
    card: str | Path | None = None,
    *,
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
        path: the ``.onnx`` file.
        card: YAML card of a file without one.
        flavour: ``auto``, ``tensorrt`` or ``rtx``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; the last takes the model's quantised version, see
            `perception.engines.quantised`.
        batch: most frames a call, 1..8; half of it, again and again, where the GPU has no memory for that many.
        size: (width, height) or ``"640x360"`` of the input in pixels; ``dynamic``; None for the model's own.
        capabilities: compute capabilities to build for, such as ``("75", "89")``, with ``rtx`` only; where there are
            none, this machine's GPU, and without one all that `Flavour.common_capabilities` lists.
        tail: what is appended to the graph.
        progress: told how far a build is.

    Raises:
        UsageError: options that do not fit together or to the model, or no TensorRT.
        ModelError: it is unusable; no quantised version of it.
        EngineError: it cannot be built.
    """
    chosen = find_flavour(flavour)
    described = read_card(path, card)
    wanted = graph_precision(precision)
    if wanted == "int8" and not is_quantised(load_onnx(path)):
        path, described = require_quantised(path, described)
    if not capabilities and this_machine() is None:
        capabilities = chosen.common_capabilities()
    profile = make_profile(described, batch, size)
    recipe = make_recipe(path, described, chosen, wanted, profile, capabilities=capabilities, tail=tail)
    while True:
        try:
            return obtain(recipe, progress=progress)
        except GpuMemoryError as error:
            recipe = smaller(recipe, error)


def smaller(recipe: Recipe, error: GpuMemoryError) -> Recipe:
    """Return the recipe for half as many frames a call, with a line that says so.

    Raises:
        GpuMemoryError: ``error``, where it is for one already.
    """
    batch = recipe.profile.batch // 2
    if not batch:
        raise error
    _log.warning("%s; trying batch %d", error, batch)
    return recipe.with_batch(batch)
