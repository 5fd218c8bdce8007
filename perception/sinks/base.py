"""The base class of all sinks, which receive predictions in frame order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, TypeVar

from perception.card import ModelCard
from perception.types import Prediction, SourceInfo

AnySink = TypeVar("AnySink", bound="Sink")


class Sink(ABC):
    """Takes the predictions of one source. One thread drives it, in frame order.

    ``open`` is called once before the first frame, then ``write`` for each frame, then either ``close`` or
    ``abort``. As a context manager, leaving without an error closes and leaving with one aborts. Both may be called
    twice, and without ``open``; the second call does nothing.

    Attributes:
        wants_picture: the sink needs ``prediction.picture``, the annotated picture.
        where: the file, folder or stream that is written, for messages.
    """

    wants_picture: ClassVar[bool] = False
    where: str = ""

    @property
    def name(self) -> str:
        """Word for it in timings: ``video`` of a ``VideoSink``."""
        return type(self).__name__.removesuffix("Sink").lower()

    @abstractmethod
    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        """Prepare for the frames of a source.

        Args:
            info: the source that the frames come from.
            card: the model that made the predictions; names and colours come from it.

        Raises:
            UsageError: the source or the model has not what this sink needs.
            SinkError: the output cannot be created.
        """

    @abstractmethod
    def write(self, prediction: Prediction) -> None:
        """Write one frame.

        Raises:
            SinkError: the output cannot be written; call ``abort`` then.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the output properly; also after a user's interrupt, with the frames that came.

        Raises:
            SinkError: the rest cannot be written.
        """

    def abort(self) -> None:  # noqa: B027 (many have nothing to undo)
        """Stop after an error. What was written stays valid, and does not look finished. Raises nothing."""

    def __enter__(self: AnySink) -> AnySink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
