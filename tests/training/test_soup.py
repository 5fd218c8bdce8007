"""The average of several runs' weights: against NumPy, and what does not go together is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from perception.commands.main import app  # noqa: E402
from perception.errors import ModelError, PerceptionError, UsageError  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from perception.training.weights.soup import soup  # noqa: E402

RUN: dict[str, Any] = {"config": {"name": "a"}, "epoch": 3, "step": 30, "best": 0.5, "stale": 0, "average_steps": 30}


def checkpoint(path: Path, seed: int, **shapes: tuple[int, ...]) -> Path:
    draw = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    tensors["batches"] = torch.tensor(seed * 100)
    save_checkpoint(path, {**RUN, "config": {"name": path.stem}, "network": {}, "optimiser": {}, "average": tensors})
    return path


@pytest.mark.parametrize("shares", [None, (1.0, 1.0, 1.0), (0.2, 0.5, 0.3), (4.0, 0.0, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_every_tensor_is_the_weighted_mean(tmp_path: Path, seed: int, shares: tuple[float, ...] | None) -> None:
    paths = [checkpoint(tmp_path / f"{i}.pt", 10 * seed + i, a=(4, 3, 3, 3), b=(7,)) for i in range(3)]
    soup(paths, tmp_path / "soup.pt", shares)
    made = load_checkpoint(tmp_path / "soup.pt")
    assert made["config"] == {"name": "0"}
    assert "optimiser" not in made
    for name in ("a", "b"):
        theirs = np.stack([load_checkpoint(path)["average"][name].numpy() for path in paths])
        wanted = np.average(theirs.astype(np.float64), axis=0, weights=shares)
        assert made["average"][name].dtype == torch.float32
        np.testing.assert_allclose(made["average"][name].numpy(), wanted, rtol=1e-6, atol=1e-7)
    assert made["average"]["batches"].dtype == torch.int64


def test_it_may_replace_one_of_those_it_is_made_of(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a.pt", 1, w=(5,)), checkpoint(tmp_path / "b.pt", 2, w=(5,))
    before = load_checkpoint(a)["average"]["w"], load_checkpoint(b)["average"]["w"]
    arguments = ["weights", "soup", str(a), str(b), "-o", str(a), "--shares", "3,1"]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, PerceptionError) and "overwrite=True" in str(refused.exception)
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert torch.allclose(load_checkpoint(a)["average"]["w"], 0.75 * before[0] + 0.25 * before[1])


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a.pt", 1, stem=(4, 3), head=(2,))
    other = checkpoint(tmp_path / "other.pt", 2, stem=(4, 4), tail=(2,))
    with pytest.raises(ModelError, match=r"other\.pt.*another network.*head, stem, tail differ"):
        soup([a, other], tmp_path / "soup.pt")
    assert not (tmp_path / "soup.pt").exists()


@pytest.mark.parametrize("shares", [(1.0,), (1.0, -0.5), (0.0, 0.0), (float("nan"), 1.0)])
def test_shares_that_do_not_fit(tmp_path: Path, shares: tuple[float, ...]) -> None:
    paths = [checkpoint(tmp_path / f"{i}.pt", i, w=(5,)) for i in range(2)]
    with pytest.raises(UsageError, match="give one share for each"):
        soup(paths, tmp_path / "soup.pt", shares)


def test_one_is_not_enough_and_a_missing_one_is_named(tmp_path: Path) -> None:
    a = checkpoint(tmp_path / "a.pt", 1, w=(5,))
    with pytest.raises(UsageError, match="two checkpoints"):
        soup([a], tmp_path / "soup.pt")
    with pytest.raises(ModelError, match=r"no\.pt: no such checkpoint"):
        soup([a, tmp_path / "no.pt"], tmp_path / "soup.pt")
    wrong = CliRunner().invoke(
        app, ["weights", "soup", str(a), str(a), "-o", str(tmp_path / "s.pt"), "--shares", "1;2"]
    )
    assert isinstance(wrong.exception, UsageError) and "1;2" in str(wrong.exception)
