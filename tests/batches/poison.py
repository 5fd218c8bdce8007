"""Stages of batches: one ends the process it runs in, as a library that crashes does; one says what it is given."""

import os
import secrets
import signal
import time
from pathlib import Path

from perception.types import Prediction


def poison(prediction: Prediction) -> Prediction:
    """Let pass what is not of a file with that name."""
    if "poison" in prediction.frame.source:
        os.kill(os.getpid(), signal.SIGKILL)
    return prediction


def noted(prediction: Prediction) -> Prediction:
    """Leave a note, beside the file, of each time that it is begun; take a while for each frame.

    Where there is a file ``hold`` in the folder above, wait until it is gone.
    """
    source = Path(prediction.frame.source)
    if prediction.frame.index == 0:
        (source.parent / f"{source.name}.{secrets.token_hex(8)}.begun").touch()
    time.sleep(0.05)
    while (source.parent.parent / "hold").exists():
        time.sleep(0.05)
    return prediction


def slowly(prediction: Prediction) -> Prediction:
    """Take a while for each frame."""
    time.sleep(0.1)
    return prediction
