"""What files hold: JSON Schemas, and the columns of docs/outputs.md, checked against files that were written."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema_rs
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from perception.annotate import Outputs
from perception.card import read_card
from perception.commands.main import app
from perception.events.event import Event
from perception.sinks import open_sink
from perception.sinks.summary import COLUMNS
from perception.types import Prediction, Reading
from tests.models import PALETTE, write_model
from tests.sinks.samples import card, class_map, detections, info, prediction

PAGE = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")
SINKS = Path(__file__).parents[1] / "perception" / "sinks"
SCHEMAS = {
    path.name.partition(".")[0]: json.loads(path.read_text(encoding="utf-8")) for path in SINKS.glob("*.schema.json")
}
CLASSES = ("red", "green", "blue")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def columns(title: str) -> list[list[str]]:
    rows = re.findall(r"^\| (.*) \|$", section(title), re.M)
    return [[cell.strip().strip("`") for cell in row.split(" | ")] for row in rows[1:]]


def faults(name: str, data: Any) -> list[str]:
    return [error.message for error in jsonschema_rs.validator_for(SCHEMAS[name]).iter_errors(data)]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All outputs of photos with red and blue squares, by a model of every task whose pixels are in another order."""
    folder = tmp_path_factory.mktemp("outputs")
    model = write_model(folder / "all.onnx", detection=True, classification=True)
    (folder / "in").mkdir()
    for index, colors in enumerate(([], ["red"], ["blue", "red", "blue"])):
        picture = np.full((48, 64, 3), 128, np.uint8)
        for i, color in enumerate(colors):
            picture[:16, 16 * i : 16 * i + 16] = PALETTE[color][::-1]
        cv2.imwrite(str(folder / "in" / f"{index}.png"), picture)
    flags = ["--rle", "--jsonl", "o.jsonl", "--csv", "o.csv", "--parquet", "o.parquet", "--counts", "n.csv"]
    flags += ["--coco", "o.json", "--panoptic", "panoptic/", "--masks", "masks/"]
    words = [word if word.startswith("--") else f"{folder}/{word}" for word in flags]
    done = CliRunner().invoke(app, ["annotate", f"{folder}/in", "-m", str(model), *words])
    assert done.exit_code == 0, done.output
    return folder


def documents(written: Path, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Real data by the name of their schema, with and without everything that may be left out."""
    for line in lines(written / "o.jsonl"):
        yield "jsonl", line
    yield "coco", json.loads((written / "o.json").read_text())
    yield "panoptic", json.loads((written / "panoptic" / "panoptic.json").read_text())
    mask = np.zeros((48, 64), np.uint8)
    mask[:20, 10:] = 2
    cards = {"all": card(classification=True), "masks": card(detection=False), "none": None}
    for name, described in cards.items():
        for kind, options in (("jsonl", {"masks": True}), ("coco", {})):
            path = tmp_path / f"{name}.{kind}"
            with open_sink(path, kind=kind, **options) as sink:
                sink.open(info(), described)
                for index in range(3):
                    found = None if name == "masks" else detections(index, tracks=index == 2)
                    shown = None if name == "none" else class_map(mask, ignored=(index,))
                    sink.write(prediction(index, detections=found, class_map=shown, labels=[(1, 0.5)]))
            for data in lines(path) if kind == "jsonl" else [json.loads(path.read_text())]:
                yield kind, data
    path = tmp_path / "rules.jsonl"
    with open_sink(path) as sink:
        sink.open(info(), cards["all"])
        for index in range(2):
            sink.write(with_rules(prediction(index, detections=detections(index, tracks=True))))
    for data in lines(path):
        yield "jsonl", data


def with_rules(made: Prediction) -> Prediction:
    """A prediction with what each kind of rule says, and with events."""
    told = {"line": {"crossed": {"in": {"car": 2}, "out": {}}}, "condition": {"value": 0.25, "holds": True}}
    told["zone"] = {"inside": 1, "entered": {"car": 2}, "left": {"car": 1}, "staying": {"7": 1.5}}
    readings = [Reading(kind, kind, np.zeros((0, 2), np.float32), told[kind]) for kind in told]  # type: ignore[arg-type]
    events = (
        Event(kind="crossed", source="s", source_time=1, rule="line", box=(0, 0, 1, 1), count=2, direction="in"),
        Event(kind="condition_started", source="s", source_time=1.5, rule="condition", value=0.25),
    )
    return replace(made, readings=readings, events=events)


def test_the_schemas_hold_for_what_is_written(written: Path, tmp_path: Path) -> None:
    seen = [(name, faults(name, data)) for name, data in documents(written, tmp_path)]
    assert {name for name, _ in seen} == set(SCHEMAS)
    assert not [entry for entry in seen if entry[1]]


def variants(data: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """The same data with one fault: a key more, a key less, a value of another kind; at every depth."""
    if schema.get("type") == "object":
        if "properties" in schema:
            yield {**data, "unheard_of": 1}
        for key, value in data.items():
            if key in schema.get("required", ()):
                yield {k: v for k, v in data.items() if k != key}
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            for other in variants(value, inner):
                yield {**data, key: other}
    elif schema.get("type") == "array" and "items" in schema:
        for other in variants(data[0], schema["items"]) if data else ():
            yield [other, *data[1:]]
        yield {"not": "a list"}
    elif schema.get("type"):
        yield {"not": schema["type"]}


def test_each_schema_is_linked_and_valid_itself() -> None:
    assert set(SCHEMAS) == set(re.findall(r"\(\.\./perception/sinks/(\w+)\.schema\.json\)", PAGE)) and SCHEMAS
    for schema in SCHEMAS.values():
        jsonschema_rs.meta.validate(schema)
        assert schema["title"] and schema["description"]


def test_the_schemas_refuse_everything_else(written: Path, tmp_path: Path) -> None:
    tried = 0
    for name, data in documents(written, tmp_path):
        for wrong in variants(copy.deepcopy(data), SCHEMAS[name]):
            assert faults(name, wrong), (name, wrong)
            tried += 1
    assert tried > 200


def test_every_field_of_the_schemas_is_explained() -> None:
    titles = {"jsonl": "JSON Lines", "coco": "COCO JSON", "panoptic": "COCO panoptic"}
    events = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")

    def keys(schema: dict[str, Any]) -> Iterator[str]:
        for key, inner in schema.get("properties", {}).items():
            yield key
            yield from keys(inner)
        for inner in (schema.get("items"), schema.get("additionalProperties")):
            if isinstance(inner, dict):
                yield from keys(inner)

    shared = {"licenses", "size", "counts"}
    for name, schema in SCHEMAS.items():
        table = "\n".join(re.findall(r"^\|.*", section(titles[name]) + section("COCO JSON"), re.M))
        if name == "jsonl":  # of rules the page says it in words, and fields of events are on their own page
            table += section(titles[name]).split("\nThe JSON Schema is")[0] + "\n".join(
                re.findall(r"^\|.*", events, re.M)
            )
        missing = {key for key in set(keys(schema)) - shared if not re.search(rf"\b{key}\b", table)}
        assert not missing, name


def test_the_columns_are_those_of_the_tables(written: Path, tmp_path: Path) -> None:
    page = columns("CSV and Parquet")
    for task, of in (("detection", "boxes"), ("segmentation", "pixels"), ("classification", "labels")):
        wanted = {name: kind for name, kind, task_of, _ in page if task_of in ("all", of)}
        tasks = dict.fromkeys(("detection", "segmentation", "classification"), False) | {task: True}
        for suffix in ("csv", "parquet"):
            with open_sink(tmp_path / f"{task}.{suffix}") as sink:
                sink.open(info(), card(**tasks))
        with (tmp_path / f"{task}.csv").open() as file:
            header = next(csv.reader(file))
        schema = pq.read_schema(tmp_path / f"{task}.parquet")
        assert sorted(header) == sorted(wanted)
        assert header == schema.names
        arrow = {"double": "float64", "float": "float32"}
        for field in schema:
            kind = "string" if "string" in str(field.type) else arrow.get(str(field.type), str(field.type))
            assert kind == wanted[field.name], field.name
    with (written / "n.csv").open() as file:
        header = next(csv.reader(file))
    assert header == [row[0] for row in columns("Counts")[:-1]] + list(CLASSES)


def test_the_columns_of_a_summary_are_those_of_its_table() -> None:
    assert [(row[0], row[1]) for row in columns("Summary")] == list(COLUMNS.items())


def test_class_ids_agree_or_the_page_says_why_not(written: Path) -> None:
    described = read_card(written / "all.onnx")
    assert described.detection is not None and described.segmentation is not None
    boxes, pixels = described.detection.names, described.segmentation.names
    records = lines(written / "o.jsonl")
    named = {(d["class_id"], d["class"]) for record in records for d in record["detections"]}
    assert named == {(boxes.index(name), name) for name in ("red", "blue")}
    with (written / "o.csv").open() as file:
        assert {(int(row["class_id"]), row["class"]) for row in csv.DictReader(file)} == named
    rows = pq.read_table(written / "o.parquet").to_pylist()
    assert {(row["class_id"], row["class"]) for row in rows} == named
    coco = json.loads((written / "o.json").read_text())
    categories = {c["id"]: c["name"] for c in coco["categories"]}
    assert {(a["category_id"] - 1, categories[a["category_id"]]) for a in coco["annotations"]} == named
    panoptic = json.loads((written / "panoptic" / "panoptic.json").read_text())
    assert [c["name"] for c in panoptic["categories"]] == pixels
    for record, annotation in zip(records, panoptic["annotations"], strict=True):
        ids = {s["category_id"] for s in annotation["segments_info"]}
        assert {pixels[i - 1] for i in ids} <= set(record["shares"]) and set(record["masks"]) == set(record["shares"])
    with (written / "n.csv").open() as file:
        for record, row in zip(records, csv.DictReader(file), strict=True):
            assert int(row["total"]) == len(record["detections"])
            assert {name: int(row[name]) for name in CLASSES} == {
                name: sum(d["class"] == name for d in record["detections"]) for name in CLASSES
            }


def test_a_pixel_of_a_mask_is_a_class_id(written: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for record, path in zip(lines(written / "o.jsonl"), sorted((written / "masks").glob("*.png")), strict=True):
        ids = np.asarray(image.open(path))
        assert ids.shape == (48, 64)
        shares = np.bincount(ids.reshape(-1), minlength=len(CLASSES)) / ids.size
        np.testing.assert_allclose(shares, [record["shares"].get(name, 0) for name in CLASSES], atol=1e-5)
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 3  # as the page warns


def test_every_output_is_on_the_page() -> None:
    table = PAGE.split("\n## Units")[0]
    for kind in Outputs.__dataclass_fields__:
        spelled = {"video": "`-o`", "subtitles": "`-o FILE.mkv --overlay subtitles`", "publish": "`-o ADDRESS`"}
        assert spelled.get(kind, f"`--{kind} ") in table, kind
