"""What is done once, at the first use, and takes so long that people would wonder: it is said before it begins."""

from __future__ import annotations

import logging

WAITS = "perception.waits"
"""The logger that says so, at level INFO; the command line prints it as a plain line."""


def say_wait(what: str) -> None:
    """Say what is made for this machine now and kept from then on."""
    logging.getLogger(WAITS).info("preparing for this machine, once: %s", what)


def say_progress(what: str) -> None:
    """Say how far it is."""
    logging.getLogger(WAITS).info("%s", what)
