"""What every test starts from."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _library_logging() -> None:
    """The logger as the library leaves it: a command that an earlier test ran in this process sets it up for itself."""
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "perception":
            logger.setLevel(logging.NOTSET)
            logger.propagate, logger.disabled = True, False
            logger.handlers.clear()
    for handler in logging.getLogger().handlers:  # some libraries quieten every handler there is
        handler.setLevel(logging.NOTSET)
