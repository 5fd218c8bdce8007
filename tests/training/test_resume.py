"""Runs that go on after a stop, a kill, a changed recipe or a full disk."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import yaml  # noqa: E402

from perception.errors import PerceptionError, SinkError, UsageError  # noqa: E402
from perception.training.recipes.read import read_config  # noqa: E402
from perception.training.run.loop import Trainer, train  # noqa: E402
from perception.training.run.run_log import RunLog  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from tests.training.pictures import write_folder  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "smoke.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures"), train=8, val=2)


def recipe(folder: Path, data: Path, **changes: Any) -> Path:
    """A recipe of a second or two an epoch, with its output in ``folder``."""
    content = yaml.safe_load(SMOKE.read_text())
    content.update(output=str(folder / "run"), epochs=4, batch=4, evaluate_every=1)
    content["data"]["root"] = str(data)
    content["network"] = {"widths": {4: 8, 8: 8, 16: 8, 32: 8}, "pretrained": False}
    content["augment"]["crops"] = [{"start": 0, "size": [32, 32]}]
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = content
        for name in parents:
            part = part[name]
        part[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("begun")
    return train(recipe(folder, data), stop_after=1).last.parent


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(begun, tmp_path / "run"))


def epochs(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"optimiser__kind": "sgd"}, r"optimiser\.kind \(adamw, now sgd\)"),
        ({"optimiser__kind": "rmsprop"}, r"optimiser\.kind \(adamw, now rmsprop\)"),
        ({"network__frozen_stride": 4}, r"network\.frozen_stride \(0, now 4\)"),
    ],
)
def test_a_state_of_another_recipe_is_refused(
    run: Path, data: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=rf"last\.pt: this run was started with another recipe: {named}; start over"):
        train(recipe(tmp_path, data, **changes))
    assert epochs(run) == [1]


def test_channels_do_not_change_their_class(run: Path, data: Path, tmp_path: Path) -> None:
    classes = yaml.safe_load(SMOKE.read_text())["data"]["classes"]
    with pytest.raises(UsageError, match=r"data\.classes .*ground.*, now \[.*ball.*box.*ground"):
        train(recipe(tmp_path, data, data__classes=classes[::-1]))
    recolored = [{**c, "color": [i, 9, 9]} for i, c in enumerate(classes)]
    assert train(recipe(tmp_path, data, data__classes=recolored), stop_after=2).epochs == 2


def test_rates_are_those_of_the_recipe_as_it_is_now(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe(tmp_path, data, optimiser__learning_rate=1e-5, optimiser__weight_decay=0.5, batch=2)
    trainer = Trainer(read_config(path))
    with caplog.at_level(logging.WARNING):
        trainer.load(run / "last.pt")
    assert {group["peak"] for group in trainer.optimiser.param_groups} == {1e-5}
    assert {group["weight_decay"] for group in trainer.optimiser.param_groups} == {0.0, 0.5}
    assert trainer.optimiser.state_dict()["state"], "what the optimiser knew is kept"
    assert (trainer.epoch, trainer.step) == (1, 4)  # a batch of half the size has twice the steps
    (warning,) = [r.getMessage() for r in caplog.records]
    for said in ("batch (4, now 2)", "optimiser.learning_rate", "optimiser.weight_decay"):
        assert said in warning


def test_the_same_recipe_elsewhere_says_nothing(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = recipe(tmp_path, data, name="other", tensorboard=True, model__description="other")
    with caplog.at_level(logging.WARNING):
        Trainer(read_config(path)).load(run / "last.pt")
    assert caplog.records == []


def test_starting_over_leaves_nothing_of_the_earlier_run(run: Path, data: Path, tmp_path: Path) -> None:
    result = train(recipe(tmp_path, data, evaluate_every=2), resume=False, stop_after=1)
    assert epochs(run) == [1]
    assert result.best == result.last, "the best of the earlier run is not the best of this one"
    assert load_checkpoint(result.last)["best"] == -1


def test_a_row_that_a_kill_cut_short_is_left_out(run: Path, data: Path, tmp_path: Path) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write('{"epoch": 2, "loss": 0.5}\n{"epoch": 2, "lo')  # logged, and not saved; then cut
    train(recipe(tmp_path, data), stop_after=2)
    assert epochs(run) == [1, 2]
    assert (run / "curves.png").is_file()


def test_rows_of_a_damaged_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl")
    assert log.rows() == []
    log.begin(0)
    assert not log.path.exists()
    log.path.write_bytes(b'{"epoch": 1}\n\xff\xfe\n[2]\n\n{"epoch": 2, "x": NaN}\n{"ep')
    assert [row["epoch"] for row in log.rows()] == [1, 2]
    log.begin(1)
    log.add({"epoch": 2})
    assert log.path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_an_output_that_cannot_be_written_is_told_before_any_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(SinkError, match="run: "):
        train(recipe(tmp_path, data))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(PerceptionError, match=r"last\.pt: cannot write the checkpoint"):
            save_checkpoint(path, {"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
