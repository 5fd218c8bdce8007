"""Models fetched by name, from a real server on loopback: adapted, resumed, checked, refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from perception import ModelError, UsageError, load_model
from perception.card import validate_card
from perception.foreign.adapter import ForeignCard
from perception.weights.catalogue import CATALOGUE, get_model, read_catalogue
from perception.weights.library import list_models
from tests.foreign.test_adapt import CARD, check_scene, color_detector
from tests.weights.web_server import Served, serve


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return color_detector().write(tmp_path / "theirs.onnx").read_bytes()


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "perception" / "models"


def catalogue(folder: Path, served: Served, **change: Any) -> Path:
    entry = {"url": served.url, "licence": "MIT", "commercial_use": True, "card": CARD | {"name": "colors"}}
    entry |= {"sha256": hashlib.sha256(served.data).hexdigest()}
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"colors": {k: v for k, v in (entry | change).items() if v is not None}}))
    return path


def test_a_model_is_fetched_adapted_and_listed(tmp_path: Path, models: Path, data: bytes) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve(data) as served:
        path = get_model("colors", catalogue=catalogue(tmp_path, served), progress=lambda *told: seen.append(told))
    assert path == models / "colors.onnx"
    assert seen[-1] == (len(data), len(data))
    assert "colors" in [model.name for model in list_models()]
    with load_model("colors") as model:
        check_scene(model)
    assert [p.name for p in models.iterdir()] == ["colors.onnx"]


def test_a_broken_download_is_resumed(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data) as served:
        served.break_after = len(data) // 3
        with pytest.raises(ModelError, match="the next call resumes it"):
            get_model("colors", catalogue=catalogue(tmp_path, served))
        served.break_after = None
        get_model("colors", catalogue=catalogue(tmp_path, served))
    assert served.asked == [None, f"bytes={len(data) // 3}-"]
    with load_model("colors") as model:
        check_scene(model)


def test_a_server_without_ranges_sends_it_anew(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data, ranges=False) as served:
        served.break_after = len(data) // 2
        with pytest.raises(ModelError, match="resumes"):
            get_model("colors", catalogue=catalogue(tmp_path, served))
        served.break_after = None
        get_model("colors", catalogue=catalogue(tmp_path, served))
    with load_model("colors") as model:
        check_scene(model)


def test_another_file_than_expected_is_thrown_away(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data) as served:
        listed = catalogue(tmp_path, served)
        served.data = data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(ModelError, match="SHA-256 differs"):
            get_model("colors", catalogue=listed)
    assert list(models.iterdir()) == []


def test_an_unknown_hash_is_remembered_at_first_use(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data) as served:
        listed = catalogue(tmp_path, served, sha256=None)
        get_model("colors", catalogue=listed)
        get_model("colors", catalogue=listed, overwrite=True)
        served.data = data + b"\x00"
        with pytest.raises(ModelError, match="SHA-256 differs"):
            get_model("colors", catalogue=listed, overwrite=True)
    with load_model("colors") as model:  # the one that was there stays
        check_scene(model)


def test_a_longer_file_left_behind_is_begun_anew(tmp_path: Path, models: Path, data: bytes) -> None:
    models.mkdir(parents=True)
    (models / ".colors.part").write_bytes(data + b"more")
    with serve(data) as served:
        get_model("colors", catalogue=catalogue(tmp_path, served))
    with load_model("colors") as model:
        check_scene(model)


def test_restricted_licences_have_to_be_accepted(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data) as served:
        listed = catalogue(tmp_path, served, commercial_use=False, licence="research only")
        with pytest.raises(UsageError, match=r"research only.*accept_licence=True"):
            get_model("colors", catalogue=listed)
        assert served.asked == []
        get_model("colors", catalogue=listed, accept_licence=True)


def test_what_is_there_is_not_replaced_by_itself(tmp_path: Path, models: Path, data: bytes) -> None:
    with serve(data) as served:
        listed = catalogue(tmp_path, served)
        get_model("colors", catalogue=listed)
        with pytest.raises(UsageError, match="overwrite=True"):
            get_model("colors", catalogue=listed)
    assert len(served.asked) == 1


def test_unknown_names_and_missing_files_say_so(tmp_path: Path, models: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="did you mean yolox-tiny"):
        get_model("yolox-tinny")
    with serve(data) as served:
        listed = catalogue(tmp_path, served, url=served.url + "x")
        with pytest.raises(ModelError, match="the server answers 404"):
            get_model("colors", catalogue=listed)
    with pytest.raises(ModelError, match="cannot be downloaded"):  # nobody listens there any more
        get_model("colors", catalogue=catalogue(tmp_path, served))


def test_a_file_that_does_not_fit_its_card_is_not_kept(tmp_path: Path, models: Path, data: bytes) -> None:
    card = CARD | {"input": {"width": 96, "height": 48}}
    with serve(data) as served, pytest.raises(ModelError, match="does not work here"):
        get_model("colors", catalogue=catalogue(tmp_path, served, card=card))
    assert not (models / "colors.onnx").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "a mapping of models by name"),
        ("a: {url: ftp://x, licence: MIT, commercial_use: true, card: {}}", r"a\.?.*url"),
        ("a: [", "not YAML"),
        ("a: {url: https://x, commercial_use: true, card: {}}", "licence"),
    ],
)
def test_faulty_catalogues_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_catalogue(path)


def test_the_catalogue_that_ships_has_valid_cards_and_no_copyleft() -> None:
    entries = read_catalogue(CATALOGUE)
    assert "yolox-tiny" in entries
    for name, entry in entries.items():
        card = validate_card(entry.card, name, ForeignCard)
        assert (card.name, card.licence) == (name, entry.licence)
        assert "GPL" not in entry.licence
        assert entry.url.startswith("https://")
