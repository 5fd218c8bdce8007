"""TensorRT for RTX really parses and builds here, without a GPU; what it took is looked at."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from perception.card import load_onnx, read_card, write_card
from perception.engines.quantised import find_quantised
from perception.engines.trt import build as build_module
from perception.engines.trt import flavour as flavour_module
from perception.engines.trt.build import GpuMemoryError, build, build_model
from perception.engines.trt.cache import key_of
from perception.engines.trt.flavour import Flavour, find_flavour, installed
from perception.engines.trt.graph import Tail, is_quantised
from perception.engines.trt.inspection import Inspection, check_precision
from perception.engines.trt.recipe import make_profile, make_recipe
from perception.engines.trt.reports import build_logger
from perception.errors import EngineError, UsageError
from perception.quantize.graph import tidied
from perception.weights.library import model_paths
from tests.engines.trt_models import bytes_to_planes, card, detector, graph, mixed_network, node
from tests.engines.trt_names import RTX_ONLY, names_in_binary, names_in_module, used_names
from tests.models import write_model
from tests.noise import noise_frames

pytestmark = pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")

CAPABILITIES = ("75", "80", "86", "89", "120")
NAMES = Path(__file__).with_name("tensorrt_names.json")
TYPES = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return find_flavour("rtx")


def save(path: Path, model: onnx.ModelProto, described: object) -> Path:
    write_card(model, described)  # type: ignore[arg-type]
    onnx.save(model, str(path))
    return path


PLAIN = sorted(name for name, path in model_paths().items() if not is_quantised(load_onnx(path)))
"""The shipped models but for quantised versions of them."""

BUS = 1920 * 1080 * 3 // 2
"""Most bytes of results that a frame may send over the bus: those of a frame of 1080p, the other way."""


ALIKE = ("everyday", "street-open")
"""Of the network of ``street``, with other classes: most of their builds, which take a second each, are slow tests."""


def builds() -> Iterator[Any]:
    """A model, a precision and what is appended: each precision with the usual tail is quick, and one without."""
    for name, precision, tail in product(PLAIN, ("fp32", "fp16", "bf16"), (None, Tail())):
        left_out = (name in ALIKE) + (tail is None)  # one of them: fp16 alone; both: none
        quick = left_out == 0 or (left_out == 1 and precision == "fp16")
        yield pytest.param(name, precision, tail, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "precision", "tail"), list(builds()))
def test_every_shipped_model_is_built_in_its_precision(
    rtx: Flavour, name: str, precision: str, tail: Tail | None
) -> None:
    path = model_paths()[name]
    described = read_card(path)
    capabilities = CAPABILITIES[1:] if precision == "bf16" else CAPABILITIES
    recipe = make_recipe(
        path, described, rtx, precision, make_profile(described, 2), capabilities=capabilities, tail=tail  # type: ignore[arg-type]
    )  # fmt: skip
    plan, seen = build(recipe)
    products = sum(n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") for n in load_onnx(path).graph.node)
    assert seen.products == {TYPES[precision]: products}
    assert [(t.name, t.dtype) for t in seen.inputs] == [(described.input.name, "UINT8")]
    assert seen.inputs[0].shape == (-1, described.input.height, described.input.width, 3)
    outputs = {t.name: t for t in seen.outputs}
    assert set(outputs) == {o.name for o in load_onnx(path).graph.output}
    task = described.segmentation
    assert {t.dtype for t in seen.outputs} == {"FLOAT"}
    if task is not None:
        assert outputs[task.output].shape[1] == len(task.classes)
    if tail is not None:
        assert sum(4 * -np.prod(t.shape) for t in seen.outputs) <= BUS
    assert len(plan) > 100_000


def quantise(path: Path, output: Path, size: tuple[int, int]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.frames = [noise_frames(1, *size, rng) for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"frames": self.frames.pop()} if self.frames else None

    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        tidied(load_onnx(path)), str(output), Frames(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, op_types_to_quantize=["Conv"], extra_options=options,
    )  # fmt: skip
    return output


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in ("street-wide", *ALIKE) else n for n in PLAIN]
)
def test_every_shipped_model_is_built_in_int8(rtx: Flavour, name: str, tmp_path: Path) -> None:
    """The quantised version that ships, and where none does, one that is made here."""
    path = model_paths()[name]
    described = read_card(path)
    shipped = find_quantised(path, described)
    if shipped is not None:
        recipe = make_recipe(
            shipped[0], shipped[1], rtx, "int8", make_profile(described), capabilities=("75", "89"), tail=Tail()
        )
        _, seen = build(recipe)
        assert seen.products["INT8"] >= 0.8 * sum(seen.products.values())
        return
    step = described.input.multiple
    size = (16 * step, 16 * step) if step else (described.input.width, described.input.height)
    quantised = quantise(path, tmp_path / "int8.onnx", size)
    recipe = make_recipe(quantised, described, rtx, "int8", make_profile(described), capabilities=("89",), tail=Tail())
    _, seen = build(recipe)
    convolutions = sum(n.op_type == "Conv" for n in load_onnx(path).graph.node)
    assert seen.products["INT8"] == convolutions


def test_half_precision_halves_the_engine(rtx: Flavour, tmp_path: Path) -> None:
    """The engine itself, not the network that was given to the builder."""
    nodes = [
        *bytes_to_planes(),
        node("Conv", "planes w0", "more"),  # weights of 3 channels would be padded to 4
        node("Conv", "more w", "c"),
        node("Conv", "c w2", "class_logits"),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.standard_normal((8, 3, 1, 1)).astype(np.float32),
        "w": rng.standard_normal((1024, 8, 16, 16)).astype(np.float32),
        "w2": rng.standard_normal((3, 1024, 1, 1)).astype(np.float32),
    }
    described = card()
    path = save(tmp_path / "fat.onnx", graph(nodes, constants, {"class_logits": ["N", 3, 1, 1]}), described)
    sizes = {}
    for precision in ("fp32", "fp16", "bf16"):
        recipe = make_recipe(path, described, rtx, precision, make_profile(described), capabilities=("89",))  # type: ignore[arg-type]
        sizes[precision] = len(build(recipe)[0])
    weights = constants["w"].nbytes
    assert sizes["fp32"] > weights
    for precision in ("fp16", "bf16"):
        assert 0.45 * weights < sizes["fp32"] - sizes[precision] < 0.55 * weights


def test_sizes_and_batches_are_free_within_the_profile(rtx: Flavour, tmp_path: Path) -> None:
    described = card()
    path = save(tmp_path / "free.onnx", mixed_network(np.random.default_rng(0), side=None), described)
    profile = make_profile(described, 4, "dynamic")
    assert (profile.least, profile.best, profile.most) == ((8, 8), (16, 16), (32, 32))
    phases: list[tuple[str, int, int]] = []
    recipe = make_recipe(path, described, rtx, "fp16", profile, capabilities=("89",), tail=Tail())
    plan, seen = build(recipe, progress=lambda *step: phases.append(step))
    assert len(plan) > 1000
    assert seen.inputs[0].shape == (-1, -1, -1, 3) and seen.outputs[0].shape == (-1, 3, -1, -1)
    assert seen.products == {"HALF": 3}
    assert any(done == steps > 0 for _, done, steps in phases)
    assert str(profile) == "8x8..32x32, best at 16x16, batch 1..4"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_detector_with_its_candidates_on_the_gpu(rtx: Flavour, precision: str, tmp_path: Path) -> None:
    described = card(4, segmentation=False, detection=True)
    path = save(tmp_path / "boxes.onnx", detector(np.random.default_rng(0), rows=4096), described)
    tail = Tail(top_k=3840)
    recipe = make_recipe(path, described, rtx, precision, make_profile(described, 2), capabilities=("89",), tail=tail)  # type: ignore[arg-type]
    _, seen = build(recipe)
    shapes = {t.name: (t.dtype, t.shape) for t in seen.outputs}
    assert shapes == {"boxes": ("FLOAT", (-1, 3840, 4)), "scores": ("FLOAT", (-1, 3840, 4))}


def test_a_detector_of_free_size(rtx: Flavour, tmp_path: Path) -> None:
    described = card(4, segmentation=False, detection=True)
    path = save(tmp_path / "boxes.onnx", detector(np.random.default_rng(0), free=True), described)
    profile = make_profile(described, 2, "dynamic")
    _, seen = build(make_recipe(path, described, rtx, "fp16", profile, capabilities=("89",), tail=Tail(top_k=20)))
    assert {t.name: (t.dtype, t.shape[2]) for t in seen.outputs} == {"boxes": ("FLOAT", 4), "scores": ("FLOAT", 4)}


def test_the_cuda_of_a_package_is_in_the_key(rtx: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One version of TensorRT comes for CUDA 12 and for 13, and neither loads what the other has built."""
    path = write_model(tmp_path / "m.onnx", width=16, height=16)
    described = read_card(path)
    recipe = make_recipe(path, described, rtx, "fp16", make_profile(described), capabilities=("89",))
    keys = set()
    for cuda in (12, 13, None):
        monkeypatch.setattr(Flavour, "cuda", cuda)
        keys.add(key_of(recipe.key_fields()))
    assert len(keys) == 3


def test_all_three_heads(rtx: Flavour, tmp_path: Path) -> None:
    path = write_model(tmp_path / "all.onnx", detection=True, classification=True)
    described = read_card(path)
    recipe = make_recipe(path, described, rtx, "fp16", make_profile(described), capabilities=("75",), tail=Tail())
    _, seen = build(recipe)
    assert {t.name: t.dtype for t in seen.outputs} == {
        "class_logits": "FLOAT", "boxes": "FLOAT", "scores": "FLOAT", "probabilities": "FLOAT",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["pooling", "unpooling"])
def test_an_operator_that_is_not_there_is_named_with_what_to_do(rtx: Flavour, place: str, tmp_path: Path) -> None:
    """The indices of a pooling, which has no name, and what takes them: the first that the parser comes to is named."""
    where = np.zeros((1, 3, 8, 8), np.int64)
    unpooling = node("MaxUnpool", "small where", "class_logits", kernel_shape=[2, 2], strides=[2, 2])
    unpooling.name = "decoder"
    pooling = node("MaxPool", "planes", "small where" if place == "pooling" else "small", kernel_shape=[2, 2])
    pooling.attribute.append(onnx.helper.make_attribute("strides", [2, 2]))
    described = card()
    made = graph(
        [*bytes_to_planes(), pooling, unpooling],
        {} if place == "pooling" else {"where": where},
        {"class_logits": ["N", 3, 16, 16]},
    )
    path = save(tmp_path / "unpool.onnx", made, described)
    recipe = make_recipe(path, described, rtx, "fp32", make_profile(described), capabilities=("89",))
    named = r"MaxPool \(node 'small'\)" if place == "pooling" else r"MaxUnpool \(node 'decoder'\)"
    with pytest.raises(EngineError, match=rf"does not support {named}: .*; .*decode with bilinear") as caught:
        build(recipe)
    assert "\n" not in str(caught.value) and "checkMacros" not in str(caught.value)


def test_without_a_gpu_the_target_must_be_named(rtx: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "this_machine", lambda: None)
    path = write_model(tmp_path / "m.onnx")
    described = read_card(path)
    recipe = make_recipe(path, described, rtx, "fp32", make_profile(described))
    with pytest.raises(EngineError, match=r"builds for an NVIDIA GPU.*compute_capability=75,80"):
        build(recipe)


def test_less_memory_means_a_smaller_batch_and_then_an_error(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The real builder, but for its refusal of batches that are too large for this GPU."""
    path = write_model(tmp_path / "m.onnx")
    room = 2
    real = build_module.build

    def build_within(recipe: Any, *rest: Any) -> Any:
        if recipe.profile.batch > room:
            raise GpuMemoryError("the GPU has not enough memory")
        return real(recipe, *rest)

    monkeypatch.setattr(build_module, "build", build_within)
    built = build_model(path, flavour="rtx", batch=8, capabilities=("89",))
    assert built.recipe.profile.batch == 2 and str(built.recipe.profile).endswith("batch 1..2")
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [line.rpartition("; ")[2] for line in warned] == ["trying batch 4", "trying batch 2"]
    room = 0
    with pytest.raises(GpuMemoryError):
        build_model(path, flavour="rtx", precision="fp32", capabilities=("89",))


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ("[resizingAllocator.cpp::allocate::74] Error Code 1: Cuda Runtime (out of memory)", True),
        ("[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)", True),
        ("Requested amount of GPU memory (8589934592 bytes) could not be allocated.", True),
        ("Skipping tactic 0x0 due to insufficient memory on requested size of 2147483648", True),
        ("Could not find any implementation for node conv_1", False),
    ],
)
def test_what_the_builder_says_about_memory(rtx: Flavour, message: str, lacks: bool) -> None:
    logger = build_logger(rtx.trt)
    logger.log(rtx.trt.ILogger.ERROR, message)
    logger.log(rtx.trt.ILogger.INFO, "out of memory is what this is not")
    assert logger.lacks_memory() == lacks


def test_targets_that_do_not_exist(rtx: Flavour, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    described = read_card(path)
    profile = make_profile(described)
    with pytest.raises(UsageError, match=r"compute capability 90; it supports: 75, 80"):
        build(make_recipe(path, described, rtx, "fp32", profile, capabilities=("89", "90")))
    with pytest.raises(UsageError, match=r"75 have no bf16"):
        make_recipe(path, described, rtx, "bf16", profile, capabilities=("75", "80"))


def test_a_precision_that_was_not_asked_for_is_an_error() -> None:
    made = Inspection((), (), 9, {"FLOAT": 3, "HALF": 60})
    with pytest.raises(EngineError, match=r"asked for fp16, but .* 3 in float, 60 in half"):
        check_precision(made, "fp16")
    with pytest.raises(EngineError, match="asked for int8"):
        check_precision(made, "int8")
    check_precision(Inspection((), (), 9, {"FLOAT": 1, "INT8": 60}), "int8")
    check_precision(Inspection((), (), 9, {}), "fp16")


@pytest.mark.parametrize(
    ("batch", "size", "fault"),
    [
        (0, None, "batch must be in 1..8"),
        (9, None, "batch must be in 1..8"),
        (1, "640", "WIDTHxHEIGHT or dynamic"),
        (1, "18x16", "multiples of 4, not 18x16"),
        (1, "0x16", "multiples of 4"),
    ],
)
def test_profiles_that_do_not_fit(batch: int, size: str | None, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        make_profile(card(), batch, size)


def test_a_model_of_one_size_takes_no_other(tmp_path: Path) -> None:
    described = read_card(write_model(tmp_path / "m.onnx"))
    assert make_profile(described, 1, "64x48").best == (64, 48)
    for size in ("dynamic", "128x96"):
        with pytest.raises(UsageError, match="64x48 only"):
            make_profile(described, 1, size)


def test_flavours_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown flavour"):
        find_flavour("trt")
    monkeypatch.setattr(flavour_module, "installed", list)
    with pytest.raises(
        UsageError, match=r"TensorRT is not installed; `pip install '.* for desktop GPUs, `pip install '.* for servers"
    ):
        find_flavour("auto")
    with pytest.raises(UsageError, match=r"tensorrt is not installed; `pip install '"):
        find_flavour("tensorrt")


@pytest.mark.parametrize("version", ["1.6.1", "2.0.0"])
def test_versions_that_are_not_supported(rtx: Flavour, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx.trt, "__version__", version)
    with pytest.raises(EngineError, match=f"{version} is not supported: use 1.7 or later, below 2"):
        find_flavour("rtx")


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.post1", "12.0.0"])
def test_versions_of_tensorrt_that_are_not_supported(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=f"tensorrt {version} is not supported: use 10.3 or later, below 12"):
        find_flavour("tensorrt")


def test_broken_libraries_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=r"tensorrt is installed but cannot be loaded: libnvinfer"):
        find_flavour("tensorrt")


def test_rtx_has_every_name_that_is_used(rtx: Flavour) -> None:
    used = used_names()
    assert {"OnnxParser", "STRONGLY_TYPED", "set_compute_capability"} <= used  # the reading works
    assert used <= names_in_module(rtx.trt)


def test_every_name_that_is_used_is_in_tensorrt_10_and_11() -> None:
    wanted = used_names() - RTX_ONLY
    for version, names in json.loads(NAMES.read_text()).items():
        assert wanted <= set(names), f"{version} lacks {sorted(wanted - set(names))}"


@pytest.mark.slow
def test_the_list_of_names_is_what_the_bindings_hold(tmp_path: Path) -> None:
    for version, names in json.loads(NAMES.read_text()).items():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / version)]
        subprocess.run([*command, f"tensorrt-cu12-bindings=={version}"], check=True, timeout=300)
        (wheel,) = (tmp_path / version).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (module,) = [n for n in archive.namelist() if n.endswith(("tensorrt.so", "tensorrt.pyd"))]
            binary = archive.read(module)
        assert names_in_binary(binary, used_names()) == set(names), version
