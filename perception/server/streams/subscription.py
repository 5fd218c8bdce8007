"""What viewers of a stream get: its newest result, under their options, drawn once for all who have the same."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from perception.model import Inference, Model
from perception.pipeline import StageChain
from perception.server.options import Options
from perception.types import Prediction

if TYPE_CHECKING:
    from perception.server.streams.stream import Stream


class Shot:
    """One result: a number that counts results, and what the network said."""

    __slots__ = ("inference", "number")

    def __init__(self, number: int, inference: Inference) -> None:
        self.number = number
        self.inference = inference


class Look:
    """What becomes of results under one set of options, made once however many ask."""

    def __init__(self, options: Options, model: Model) -> None:
        self.users = 0
        self._model = options.applied_to(model)
        self._chain = StageChain(model.card, annotator=options.annotator(model.card))
        self._lock = threading.Lock()
        self._number = -1
        self._prediction: Prediction | None = None

    def see(self, shot: Shot, picture: bool) -> tuple[int, Prediction]:
        """What becomes of a result, or of a newer one that somebody else has asked for meanwhile; and its number."""
        with self._lock:
            if self._prediction is None or self._number < shot.number:
                self._prediction = self._chain.apply(self._model.interpret(shot.inference))
                self._number = shot.number
            if picture and self._prediction.picture is None:
                self._prediction = self._chain.render(self._prediction)
            return self._number, self._prediction


class Subscription:
    """One viewer's place at a stream. It holds no frames: ``next`` gives the newest one, and what came between is lost.

    Attributes:
        options: what it is drawn with.
        missed: results that came and went between two calls of ``next``.
    """

    def __init__(self, stream: Stream, options: Options, look: Look) -> None:
        self.options = options
        self.missed = 0
        self._stream = stream
        self.look = look
        self._seen = -1
        self._closed = False

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._closed or self._stream.over

    def next(self, timeout: float | None = None, picture: bool = True) -> Prediction | None:
        """The newest result that was not given yet.

        Args:
            timeout: seconds to wait for one; None: as long as it takes.
            picture: with its annotated picture, which is drawn for the first one who asks.

        Returns:
            a prediction, shared by all who have the same options: never write into it. None where nothing came in
            time, or nothing will come any more (``over``).
        """
        shot = self._stream.newer_than(self._seen, timeout, lambda: self._closed)
        if shot is None:
            return None
        number, prediction = self.look.see(shot, picture)
        if self._seen >= 0:
            self.missed += number - self._seen - 1
        self._seen = number
        return prediction

    def close(self) -> None:
        """Leave. Wakes who waits in ``next``."""
        if not self._closed:
            self._closed = True
            self._stream.leave(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
