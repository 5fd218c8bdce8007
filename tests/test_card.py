"""Model cards: what is checked, what is said about faults, and how they travel in a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import ModelError
from perception.card import METADATA_KEY, ModelCard, load_onnx, read_card, validate_card, write_card
from perception.card.metadata import metadata_of
from perception.common.palette import class_colors
from perception.weights.library import model_paths
from tests.models import build_model, write_model

CARD: dict[str, Any] = {
    "name": "street",
    "licence": "MIT",
    "input": {"width": 480, "height": 360},
    "segmentation": {
        "classes": [{"name": "sky", "color": [70, 130, 180]}, {"name": "road", "color": [128, 64, 128]}],
        "ignored": [0],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The card with one field set, or removed where the value is ``...``."""
    card = copy.deepcopy(CARD)
    *parents, last = path.split(".")
    inner = card
    for key in parents:
        inner = inner.setdefault(key, {})
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return card


def classes(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "color": [i // 256, i % 256, 0]} for i, name in enumerate(names)]


def test_what_is_left_out_has_a_value() -> None:
    card = validate_card(CARD, "x")
    assert card.tasks == ["segmentation"]
    assert card.segmentation is not None
    assert (card.segmentation.output, card.segmentation.names) == ("class_logits", ["sky", "road"])
    assert (card.input.name, card.input.resize, card.input.multiple) == ("frames", "stretch", None)
    assert (card.version, card.metrics, card.format) == ("1", {}, 1)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("name", ..., "name: Field required"),
        ("name", "", "name:"),
        ("name", "../evil", "name:"),
        ("licence", ..., "licence: Field required"),
        ("licence", "", "licence:"),
        ("input", ..., "input: Field required"),
        ("input.width", 0, "input.width:"),
        ("input.height", 100_000, "input.height:"),
        ("input.resize", "crop", "input.resize:.*letterbox.*stretch"),
        ("input.multiple", 0, "input.multiple:"),
        ("input.widht", 5, "input.widht:.*not permitted"),
        ("segmentation", ..., "at least one of: segmentation, detection, classification"),
        ("segmentation.classes", [], "segmentation.classes:"),
        ("segmentation.classes", classes("a", "b", "a"), "must be unique; repeated: a"),
        ("segmentation.classes", classes(*(f"c{i}" for i in range(256))), "segmentation.classes:.*255"),
        ("segmentation.classes", [{"name": "a"}], "segmentation.classes.0.color: Field required"),
        ("segmentation.classes", [{"name": "a", "color": [0, 0, 256]}], "segmentation.classes.0.color.2:"),
        ("segmentation.classes", [{"name": "a", "color": [0, 0]}], "segmentation.classes.0.color"),
        (
            "segmentation.classes",
            [{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [1, 2, 3]}],
            r"colour \(1, 2, 3\) is used by both a and b",
        ),
        ("segmentation.ignored", [2], r"ignored ids \[2\]"),
        ("segmentation.ignored", [-1], r"ignored ids \[-1\]"),
        ("detection", {"classes": classes("a"), "score_threshold": 1.5}, "detection.score_threshold:"),
        ("detection", {"classes": classes("a"), "max_detections": 0}, "detection.max_detections:"),
        ("things", {"road": ["car"]}, "'things' needs both segmentation and detection"),
        ("metrics", {"miou": "good"}, "metrics.miou:"),
        ("metrics", {"miou": float("nan")}, "metrics.miou:"),
        ("format", 2, "format:"),
        ("colour", "blue", "colour:.*not permitted"),
    ],
)
def test_faults_are_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(ModelError, match=f"^street.yaml: the model card is not valid: .*{says}") as caught:
        validate_card(changed(path, value), "street.yaml")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_every_fault_is_named_at_once() -> None:
    card = changed("name", ...)
    del card["licence"]
    card["input"]["width"] = -1
    with pytest.raises(ModelError) as caught:
        validate_card(card, "x")
    assert all(part in str(caught.value) for part in ("name:", "licence:", "input.width:"))


@pytest.mark.parametrize("data", [None, 3, "text", [], {}])
def test_data_that_is_no_card(data: Any) -> None:
    with pytest.raises(ModelError, match="x: the model card is not valid"):
        validate_card(data, "x")


NAMES = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(
    names=NAMES,
    width=st.integers(1, 16384),
    resize=st.sampled_from(["letterbox", "stretch"]),
    multiple=st.none() | st.integers(1, 64),
    metrics=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    licence=st.text(min_size=1, max_size=30),
)
def test_a_card_comes_out_of_the_file_as_it_went_in(
    names: list[str], width: int, resize: str, multiple: int | None, metrics: dict[str, float], licence: str
) -> None:
    data = changed("segmentation.classes", classes(*names))
    data |= {"metrics": metrics, "licence": licence}
    data["input"] = {"width": width, "height": 7, "resize": resize, "multiple": multiple}
    card = validate_card(data, "x")
    model = onnx.ModelProto()
    write_card(model, card)
    (entry,) = model.metadata_props
    assert validate_card(json.loads(entry.value), "x") == card


def test_writing_replaces_the_card_and_nothing_else(tmp_path: Path) -> None:
    model = build_model()
    model.metadata_props.add(key="author", value="somebody")
    write_card(model, validate_card(CARD, "x"))
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    assert read_card(path).name == "street"
    assert sorted(p.key for p in onnx.load(str(path)).metadata_props) == ["author", METADATA_KEY]


def test_a_card_of_yaml_takes_the_place_of_the_one_inside(tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(CARD), encoding="utf-8")
    assert read_card(path).name == "colors"
    assert read_card(path, card).name == "street"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid"),
        (b"name: [", "not YAML"),
        (b"\xff\xfe\x00name", "not text"),
        (b"name: \x07", "not YAML"),
        pytest.param(b"[" * 5000, "not YAML", id="deep"),
        (b"just text", "not valid"),
    ],
)
def test_cards_of_yaml_that_are_none(content: bytes, says: str, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_bytes(content)
    with pytest.raises(ModelError, match=f"card.yaml.*{says}") as caught:
        read_card("unused.onnx", card)
    assert "\n" not in str(caught.value)


def test_cards_of_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ModelError, match="cannot read the card"):
            read_card("unused.onnx", path)


@pytest.mark.parametrize("text", ["{name:", "[" * 100_000], ids=["cut", "deep"])
def test_a_card_that_is_not_json(text: str, tmp_path: Path) -> None:
    model = build_model(with_card=False)
    model.metadata_props.add(key=METADATA_KEY, value=text)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=r"model\.onnx: the model card is not JSON"):
        read_card(path)


def test_files_that_are_not_there_or_not_onnx(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        load_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="no such model file"):
        load_onnx(tmp_path)
    path = tmp_path / "video.onnx"
    path.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(4000))
    with pytest.raises(ModelError, match="not an ONNX file"):
        load_onnx(path)


@pytest.mark.parametrize("name", ["street-open", "street-int8", "imagenet"])
def test_metadata_is_what_onnx_reads_and_nothing_where_the_file_is_cut(name: str) -> None:
    data = model_paths()[name].read_bytes()
    expected = {prop.key: prop.value for prop in onnx.load_model_from_string(data).metadata_props}
    assert metadata_of(data) == expected and METADATA_KEY in expected
    rng = np.random.default_rng(0)
    cuts = [*range(64), *rng.integers(0, len(data), 100).tolist(), *range(len(data) - 64, len(data))]
    for cut in cuts:
        found = metadata_of(data[:cut])
        try:
            model = onnx.load_model_from_string(data[:cut])
        except DecodeError:
            assert found is None
        else:
            assert found == ({p.key: p.value for p in model.metadata_props} if model.HasField("graph") else None)
    small = onnx.load_model_from_string(data)
    small.graph.ClearField("initializer")
    small.graph.ClearField("node")
    bytes_of = bytearray(small.SerializeToString())
    for _ in range(2000):  # whatever is in it, it is read or not
        spoilt = bytearray(bytes_of)
        for at in rng.integers(0, len(spoilt), 3):
            spoilt[at] = rng.integers(0, 256)
        metadata_of(bytes(spoilt))


def test_numbers_and_dates_without_quotes(tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(yaml.safe_dump(CARD) + "version: 2\ndate: 2026-11-22\n", encoding="utf-8")
    read = read_card("unused.onnx", card)
    assert (read.version, read.date) == ("2", "2026-11-22")


def test_the_ending_of_a_file_means_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx").rename(tmp_path / "model.json")
    assert read_card(path).name == "colors"
    (tmp_path / "data.json").write_text("{}")
    with pytest.raises(ModelError, match="not an ONNX file"):
        load_onnx(tmp_path / "data.json")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(tmp_path / "model.onnx")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match=r"model\.onnx: cannot read the model: Permission denied"):
        load_onnx(path)


def test_cards_do_not_change() -> None:
    card = validate_card(CARD, "x")
    with pytest.raises(ValueError, match="frozen"):
        card.name = "other"  # type: ignore[misc]
    assert isinstance(card, ModelCard)


def test_classes_may_be_plain_names_and_then_get_colors_of_their_own() -> None:
    data = copy.deepcopy(CARD)
    data["segmentation"] = {"classes": ["a", {"name": "b", "color": [242, 36, 36]}, "c"]}
    card = validate_card(data, "x.yaml")
    assert card.segmentation is not None
    assert card.segmentation.names == ["a", "b", "c"]
    assert card.segmentation.classes[1].color == (242, 36, 36)
    assert len({c.color for c in card.segmentation.classes}) == 3
    again = validate_card(json.loads(card.model_dump_json()), "x.yaml")
    assert again == card
    for wrong in ([["a"]], [{"name": "a", "color": [[1], 2, 3]}, "b"], ["a", "a"], [""], [str(i) for i in range(1001)]):
        with pytest.raises(ModelError, match="classes"):
            validate_card(data | {"segmentation": {"classes": wrong}}, "x.yaml")


@pytest.mark.parametrize("count", [1, 91, 1000])
def test_class_colors_differ_and_begin_alike(count: int) -> None:
    colors = class_colors(count)
    assert len(set(colors)) == count
    assert colors[: count // 2] == class_colors(count // 2)
    assert not set(class_colors(count, colors)) & set(colors)


def test_things_are_names_of_both_tasks() -> None:
    both = CARD | {"detection": {"classes": classes("car", "bus")}}
    card = validate_card(both | {"things": {"road": ["car", "bus"]}}, "x")
    assert card.things == {"road": ["car", "bus"]}
    assert validate_card(both, "x").things is None
    assert "things" not in validate_card(both, "x").model_dump_json(exclude_none=True)
    for things, says in (
        ({"street": ["car"]}, r"pixels \['street'\]"),
        ({"road": ["cab"]}, r"boxes \['cab'\]"),
    ):
        with pytest.raises(ModelError, match=f"'things' names unknown classes: classes of {says}"):
            validate_card(both | {"things": things}, "x")
