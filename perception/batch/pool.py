"""What a batch gives its tasks to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from perception.batch.annotating import Outcome
from perception.batch.task import Task


class Pool(ABC):
    """Does tasks, several at once, in an order of its own: processes of this machine, or a cluster's."""

    @abstractmethod
    def run(
        self, tasks: Sequence[Task], moved: Callable[[dict[int, float]], None] | None = None
    ) -> Iterator[tuple[Task, Outcome]]:
        """Begin the tasks in their order, and yield what becomes of each as it ends.

        Leaving the loop ends what is in work at once.

        Args:
            tasks: what is to be done.
            moved: called a few times a second with the parts (0..1) of the tasks in work, by number, as far as they
                are known.

        Yields:
            the task with the drafts that were written, and what became of it.

        Raises:
            PerceptionError: nothing can be begun, or no more.
        """

    @abstractmethod
    def begin_no_more(self) -> None:
        """Let the tasks that are in work be the last."""
