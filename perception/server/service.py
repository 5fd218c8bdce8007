"""The parts of one running server: models, stages, streams, jobs, metrics."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from perception.errors import PerceptionError
from perception.events.home_assistant import RuleOutline
from perception.footage.store import FootageStore
from perception.rules.settings import Line, read_rules
from perception.server.edge.pictures import Pictures
from perception.server.edge.places import Places
from perception.server.inference.models import Models
from perception.server.jobs.store import JobStore
from perception.server.jobs.worker import Worker
from perception.server.metrics import Metrics
from perception.server.settings import ServerSettings
from perception.server.streams.hub import StreamHub
from perception.server.streams.keeper import Keeper
from perception.server.streams.roster import Roster
from perception.server.streams.source_book import SourceBook
from perception.stages.factories import find_stage

log = logging.getLogger("perception")


class Service:
    """Everything behind the routes. They find it as ``request.app.state.service``.

    Attributes:
        settings: what the operator set.
        metrics: counters.
        models: models by name.
        stages: of the operator; every source has them with state of its own.
        delivery: of their events, or None where the operator names no target.
        footage: of their events: clips and snapshots; None where the operator wants none.
        streams: server-side sources that are open.
        roster: those that have a name, as they change.
        jobs: uploaded videos and what becomes of them.
        uploads: places for what is being received.
        pictures: room for pictures that are decoded and looked at.
        webcams: places for clients' cameras.
        explanations: the one place for a picture that is explained.
        ready: set when the default model is loaded and warm.
        problem: why the default model could not be loaded, or None.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.stages = [find_stage(name) for name in settings.stages]
        self.delivery = (
            None if settings.events is None else settings.events.delivery(settings.folder, _outlines(settings))
        )
        clips = settings.clips
        self.footage = (
            None
            if clips is None
            else FootageStore(
                clips.folder or settings.folder / "clips", limit_bytes=clips.limit_bytes, keep_days=clips.keep_days
            )
        )
        book = SourceBook(settings, settings.folder / "sources.json")
        self.streams = StreamHub(
            settings, self.models, self.metrics, stages=self.stages, footage=self.footage, book=book,
            publish=None if self.delivery is None else self.delivery.publish,
        )  # fmt: skip
        self._keeper = Keeper(self.streams, book)
        self.roster = Roster(book, self.streams, self._keeper, self.models)
        self.metrics.watch_rules(self.streams.readings, self.delivery)
        self.jobs = JobStore(settings.folder / "jobs", settings.limits, self.metrics)
        self._worker = Worker(self.jobs, self.models, self.metrics, settings.limits, self.stages)
        limits = settings.limits
        self.uploads = Places(limits.uploads, limits.share, "uploads")
        self.pictures = Pictures(limits, self.metrics)
        self.webcams = Places(limits.viewers, limits.share, "webcams", 5.0)
        self.explanations = Places(1, 1.0, "explanations")
        self.ready = threading.Event()
        self.problem: str | None = None

    def check_stages(self) -> None:
        """Make each stage, and the rules of each source, once for the default model, before any source needs it.

        Raises:
            UsageError: a stage cannot be made, or not for this model.
        """
        if not self.stages and not self.streams.fixed_rules:
            return
        try:
            card = self.models.card()
        except PerceptionError:
            return  # the model itself is wrong, which is told when it is loaded
        for stage in self.stages:
            stage(card)
        for rules in self.streams.fixed_rules:
            rules.check(card)

    def start(self) -> None:
        """Begin to work: go on with the jobs that an earlier server left, and load the default model.

        Returns at once; ``ready`` is set when the default model is loaded and warm.
        """
        self._worker.start()
        threading.Thread(target=self._load, name="perception-load", daemon=True).start()

    def _load(self) -> None:
        try:
            card = self.models.scheduler().model.card  # what compiles kernels is imported: no viewer should wait for it
            if card.detection is not None:
                import perception.tracking.tracker
            if card.segmentation is not None:
                import perception.postprocess.smoothing  # noqa: F401
        except PerceptionError as error:
            self.problem = str(error)
        except Exception as error:
            log.exception("loading the default model")
            self.problem = f"{type(error).__name__}: {error}"
        else:
            self.ready.set()
        self._keeper.start()  # now that nothing is compiled in their way

    def close(self) -> None:
        """Stop everything: viewers, streams, the job in progress (which goes on with the next server), engines."""
        self._keeper.close()
        self.streams.close()
        if self.delivery is not None and self.settings.events is not None:
            self.delivery.close(self.settings.events.drain_s)
        self.pictures.close()
        self._worker.close()
        self.jobs.close()
        self.models.close()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _outlines(settings: ServerSettings) -> list[RuleOutline]:
    """What the rules of the sources will tell of."""
    found = []
    for name, source in settings.sources.items():
        rules = None if source.rules is None else read_rules(source.rules)
        for rule in rules or ():
            directions = rule.directions if isinstance(rule, Line) else ()
            found.append(RuleOutline(name, rule.name, rule.kind, directions))
    return found
