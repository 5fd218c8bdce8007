"""One task of a batch: a source, and where its outputs are written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perception.sources.choice import Choice


@dataclass(frozen=True)
class Task:
    """One source, and where its outputs are written.

    Attributes:
        number: of the source in the plan.
        source: what is opened.
        pictures, chosen: see `perception.annotate.Result`.
        drafts: names by kind, with ``/``, none of which exists: of files, folders, or objects.
        outputs: what they become, for messages.
        lost: how many processes have ended while they did it.
    """

    number: int
    source: str
    pictures: bool
    chosen: Choice | None
    drafts: dict[str, str]
    outputs: dict[str, str]
    lost: int = 0

    def again(self) -> Task:
        """Return the task after its process was lost.

        Its drafts are others: of a machine that does not answer nobody knows whether it still writes.
        """
        lost = self.lost + 1
        drafts = {}
        for kind, path in self.drafts.items():
            folder, _, name = path.rpartition("/")
            drafts[kind] = f"{folder.rpartition('/')[0]}/{kind}.{lost}/{name}"
        return replace(self, drafts=drafts, lost=lost)
