"""What batches are tested with."""

from __future__ import annotations

import pytest

from tests.models import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that finds colours, as boxes and masks."""
    return str(write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True))
