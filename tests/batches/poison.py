"""A stage that ends the process it runs in, as a library that crashes does."""

import os
import signal

from perception.types import Prediction


def poison(prediction: Prediction) -> Prediction:
    """Let pass what is not of a file with that name."""
    if "poison" in prediction.frame.source:
        os.kill(os.getpid(), signal.SIGKILL)
    return prediction
