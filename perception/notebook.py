"""Pictures shown where one works: in a notebook below the cell, elsewhere in the viewer of the desktop."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.drawing.annotator import Annotator
from perception.errors import UsageError
from perception.model import Model, load_model
from perception.picture.conversions import to_bgr
from perception.picture.sketch import to_png
from perception.pipeline import predict
from perception.sources import open_source
from perception.types import U8, Detections, Frame, Planes, Prediction
from perception.weights import DEFAULT_MODEL


def show(what: Any, model: Model | ModelCard | str | None = None, **drawing: Any) -> None:
    """Show a picture: of a prediction, of boxes, or of what a model sees in a photo or at the beginning of a video.

    In a notebook it appears below the cell; elsewhere in the viewer of the desktop, from a temporary file that stays.

        perception.show("street.jpg")
        perception.show(prediction, model, view="boxes", opacity=0.3)

    Args:
        what: a `Prediction` or `Detections`; a `Frame`, its planes, or uint8 ``[H, W, 3]`` BGR, shown as they are; or
            a name that `open_source` takes, of which the first frame is looked at.
        model: whose names and colours are drawn, or its card. Without it predictions that were rendered show that
            picture, and others the numbers of their classes. For a name: the model that looks, or its name.
        **drawing: arguments of `Annotator`, where it draws: for predictions with a model, and for names.

    Raises:
        UsageError: it cannot be shown; there is neither a notebook nor a screen; or arguments do not go together.
        PerceptionError: the source or the model cannot be opened.
    """
    png = _png(what, model, drawing)
    if _in_notebook():
        from IPython.display import Image, display

        display(Image(data=png))
        return
    if not (sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(
            "there is neither a notebook nor a screen to show it on; `perception.open_sink('photo.png')` writes it"
        )
    handle, name = tempfile.mkstemp(suffix=".png", prefix="perception-")
    with os.fdopen(handle, "wb") as file:
        file.write(png)
    webbrowser.open(Path(name).as_uri())


def _png(what: Any, model: Model | ModelCard | str | None, drawing: dict[str, Any]) -> bytes:
    """What `show` shows, as PNG."""
    if isinstance(what, (str, os.PathLike)):
        if isinstance(model, ModelCard):
            raise UsageError("to look at a file it takes a model, and not only its card", os.fspath(what))
        return to_png(_seen(os.fspath(what), model or DEFAULT_MODEL, drawing))
    if isinstance(model, str):
        raise UsageError("the name of a model is for files; give the model that made this, or its card")
    card = model.card if isinstance(model, Model) else model
    if isinstance(what, Prediction) and card is not None:
        return to_png(to_bgr(Annotator(card, **drawing)(what)))
    if drawing:
        raise UsageError(f"{', '.join(drawing)}: only for predictions with a model or its card, and for files")
    if isinstance(what, (Prediction, Detections)):
        png = what._repr_png_()
        if png is None:
            raise UsageError("there are no boxes to show")
        return png
    if isinstance(what, Frame):
        return to_png(what.image)
    if isinstance(what, Planes):
        return to_png(to_bgr(what))
    if isinstance(what, np.ndarray) and what.dtype == np.uint8 and what.ndim == 3 and what.shape[2] == 3 and what.size:
        return to_png(what)
    raise UsageError(
        f"cannot show {type(what).__name__}; give a prediction, detections, a picture, or the name of a file"
    )


def _seen(uri: str, model: Model | str, drawing: dict[str, Any]) -> U8:
    """The first frame of a source with what a model sees in it, BGR."""
    ours = load_model(model) if isinstance(model, str) else None
    looking = ours if isinstance(model, str) else model
    assert isinstance(looking, Model)
    try:
        annotate = Annotator(looking.card, **drawing)
        with open_source(uri, max_frames=1) as source:
            for prediction in predict(source, looking):
                return to_bgr(annotate(prediction))
        raise UsageError("there is no picture in it", uri)
    finally:
        if ours is not None:
            ours.close()


def _in_notebook() -> bool:
    """Whether this runs in a kernel of Jupyter, or what shows pictures as one does."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
