"""The models of one server, each loaded once, when somebody first asks for it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from perception.card import ModelCard, read_card
from perception.errors import PerceptionError
from perception.model import load_model
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.problems import Busy, NotFound
from perception.server.settings import ServerSettings
from perception.weights.library import ModelFile, find_model, find_with_card, list_models, model_paths

log = logging.getLogger("perception")

FAILURE_KEPT_S = 10.0
"""Seconds until a model that failed to load is tried again: loading takes all cores for a second or more."""

WARM_SIZE_WH = (1280, 720)
"""Number of frames that a model is warmed up with."""


class Models:
    """Models by name. Clients name them; only the operator's default model may be a path.

    Attributes:
        default: name of the default model.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._loaded: dict[str, Scheduler] = {}
        self._failed: dict[str, tuple[float, PerceptionError]] = {}
        self._closed = False
        self.default = settings.model if settings.model in model_paths() else Path(settings.model).stem

    def names(self) -> list[str]:
        """Return the names that clients may give, the default one first."""
        return [self.default, *(name for name in model_paths() if name != self.default)]

    def files(self) -> list[ModelFile]:
        """Return the models that can be loaded, the default one first; unusable ones are left out, and logged.

        Raises:
            ModelError: the default one is not usable.
        """
        path = find_model(self._settings.model)
        own = ModelFile(self.default, path, read_card(path, self._settings.card), path.stat().st_size)
        return [own, *(file for file in list_models() if file.name != self.default)]

    def card(self, name: str | None = None) -> ModelCard:
        """Read the card of a model, without loading it.

        Raises:
            NotFound: there is no model of that name.
            ModelError: it is not usable.
        """
        name = name or self.default
        loaded = self.loaded().get(name)
        if loaded is not None:
            return loaded.model.card
        self._check(name)
        own = name == self.default
        return read_card(find_model(self._settings.model if own else name), self._settings.card if own else None)

    def source(self, name: str | None = None) -> tuple[Path, str | Path | None]:
        """Find the file of a model, and the YAML card that it needs beside it, or None.

        Raises:
            NotFound: there is no model of that name.
            ModelError: it is not usable.
        """
        name = name or self.default
        self._check(name)
        if name != self.default:
            return find_model(name), None
        return find_with_card(self._settings.model, self._settings.card)

    def loaded(self) -> dict[str, Scheduler]:
        """Return the models that are loaded now, by name."""
        with self._lock:
            return dict(self._loaded)

    def scheduler(self, name: str | None = None) -> Scheduler:
        """Return the scheduler that runs a model; load the model if need be, which takes seconds.

        Raises:
            NotFound: there is no model of that name.
            Busy: as many models as may be are loaded.
            PerceptionError: the model cannot be loaded; the server goes on without it.
        """
        name = name or self.default
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            self._check(name)
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:
            with self._lock:
                if self._closed:
                    raise Busy("the server is stopping")
                if name in self._loaded:
                    return self._loaded[name]
                at, error = self._failed.get(name, (0.0, None))
                if error is not None and time.monotonic() - at < FAILURE_KEPT_S:
                    raise error
                if len(self._loaded) >= self._settings.limits.models:
                    raise Busy(f"as many models as may be are loaded: {', '.join(self._loaded)}")
            try:
                scheduler = self._load(name)
            except PerceptionError as failure:
                with self._lock:
                    self._failed[name] = (time.monotonic(), failure)
                log.warning("%s", failure)
                raise
            with self._lock:
                if not self._closed:
                    self._loaded[name] = scheduler
                    return scheduler
            scheduler.close()
            scheduler.model.close()
            raise Busy("the server is stopping")

    def _check(self, name: str) -> None:
        known = self.names()
        if name not in known:
            raise NotFound(f"no model is called {name[:80]!r}; there are: {', '.join(known)}"[:1000])

    def _load(self, name: str) -> Scheduler:
        own = name == self.default
        settings = self._settings
        model = load_model(
            settings.model if own else name,
            card=settings.card if own else None,
            engine=settings.engine,
            precision=settings.precision,
            device=settings.device,
        )
        try:
            model.warmup(*WARM_SIZE_WH)
            scheduler = Scheduler(model, waiting=settings.limits.waiting, share=settings.limits.share, name=name)
        except BaseException:
            model.close()
            raise
        self._metrics.engine(name, lambda: model.engine.description, lambda: scheduler.waiting)
        return scheduler

    def close(self) -> None:
        """Release all engines; requests that wait for them fail."""
        with self._lock:
            self._closed = True
            schedulers, self._loaded = list(self._loaded.values()), {}
        for scheduler in schedulers:
            scheduler.close()
            scheduler.model.close()
