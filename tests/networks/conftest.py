"""Torch on one thread; without torch there is nothing to test here."""

import pytest

from tests.fixtures import one_thread  # noqa: F401

pytest.importorskip("torch")
