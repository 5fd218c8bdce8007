"""A batch: many files, annotated by several processes; what is done stays done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from perception.annotate.outputs import FILES, Outputs
from perception.annotate.planning import plan
from perception.annotate.result import Result
from perception.annotate.settings import Annotation
from perception.annotate.summary import RunSummary
from perception.batch.annotating import Outcome, is_full
from perception.batch.cluster import check_cluster
from perception.batch.cluster_pool import THREADS, ClusterPool
from perception.batch.drafts import Drafts, check_places, in_the_way, size_of
from perception.batch.lock import FolderLock
from perception.batch.made_by import decided, differences, fixed, identity, made_by
from perception.batch.manifest import Entry, Manifest
from perception.batch.pool import Pool
from perception.batch.processes import ProcessPool
from perception.batch.progress import Meter, Progress
from perception.batch.report import write_report
from perception.batch.sources import check_recorded, state_of
from perception.batch.task import Task
from perception.common.hardware import usable_cores
from perception.common.objects import is_object, listed, place, remember
from perception.common.text import counted
from perception.common.waits import say_progress
from perception.errors import PerceptionError, SinkError, UsageError
from perception.sinks.files import make_folder, sink_errors
from perception.sources.choice import Choice

log = logging.getLogger("perception")


class Batch:
    """Annotates files into folders; see `run`.

    Args:
        sources: files and objects; folders, globs and beginnings of names stand for the videos and images that they
            hold.
        annotation: model, options, drawing.
        outputs: folders, or what names in an object store begin with (``s3://bucket/out/``).
        jobs: how many processes work at once, among which the cores are divided; on a cluster, how many files are in
            work at most. None: one process, and as many files as a cluster has room for.
        cluster: does the work in place of this machine, see `perception.batch.cluster.connected`.
        resume: go on with what an earlier batch has begun there; what is done and has not changed is skipped.
        overwrite: replace files that no batch has made, and, without ``resume``, what an earlier one has.
        recursive: look into subfolders too; their structure is kept.
        choice, root: see `perception.annotate.plan`.

    Attributes:
        summary: what became of the sources; complete once `run` has ended.

    Raises:
        UsageError: ``jobs`` is less than 1, an output is no folder, or ``cluster`` no address.
    """

    def __init__(
        self,
        sources: Sequence[str],
        annotation: Annotation,
        outputs: Outputs,
        *,
        jobs: int | None = None,
        cluster: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        recursive: bool = False,
        choice: Choice | None = None,
        root: Path | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs must be at least 1, not {jobs}")
        if cluster is not None:
            check_cluster(cluster)
        given: dict[str, Any] = {
            kind: remember(path) if is_object(path) else path for kind, path in outputs.given().items()
        }
        check_places(replace(outputs, **given))
        folders: dict[str, Any] = {kind: f"{path.rstrip('/') or '/'}/" for kind, path in given.items()}
        self._outputs = Outputs(**folders)
        self._sources = [remember(source) if is_object(source) else source for source in sources]
        threads = THREADS if cluster is not None else max(1, usable_cores() // (jobs or 1))
        self._annotation = fixed(annotation, threads)
        self._jobs = jobs
        self._cluster = cluster
        self._resume = resume
        self._overwrite = overwrite
        self._recursive = recursive
        self._choice = choice
        self._root = root
        self._folder = place(next(iter(self._outputs.given().values()), "."))
        self._results: list[Result] = []
        self._ended: list[Result] = []
        self._interrupted = False
        self._stopped = ""

    @property
    def summary(self) -> RunSummary:
        """What became of the sources so far."""
        return RunSummary(self._ended, len(self._results), self._interrupted, self._stopped, "`resume=True`")

    def run(
        self, watch: Callable[[int], Callable[[Progress], None] | None] | None = None
    ) -> Generator[Result, None, None]:
        """Annotate what is not done yet.

        Outputs are written beside their places and moved there when all of a source are whole; then the manifest says
        so. Ctrl-C ends the run; what was in work is begun again by the next one. One bad file does not stop the rest;
        a full disk does.

        Args:
            watch: called with the number of sources once it is known; may return what is told how far it is.

        Yields:
            one result for each source, as they end.

        Raises:
            UsageError: the outputs do not fit the sources; the folder has an earlier batch, and neither ``resume`` nor
                ``overwrite`` is given; another batch is writing there.
            PerceptionError: the model cannot be used; the processes cannot begin.
        """
        with ExitStack() as ending:
            if isinstance(self._folder, Path):
                make_folder(self._folder, str(self._folder))
                ending.callback(FolderLock(self._folder).release)
            manifest = Manifest(self._folder)
            if manifest.entries and not (self._resume or self._overwrite):
                why = "is of an earlier batch; `resume=True` goes on with it, `overwrite=True` makes all of it again"
                raise UsageError(why, str(manifest.path))
            self._plan(manifest)
            with self._annotation.opened() as (model, _, _):
                annotation = decided(self._annotation, model)
                made = made_by(annotation, model, self._outputs)
            try:
                yield from self._work(manifest, annotation, made, watch)
            except KeyboardInterrupt:
                self._interrupted = True
            finally:
                self._finish(manifest, made)

    def _plan(self, manifest: Manifest) -> None:
        names = {}
        for entry in manifest.entries.values():
            at = manifest.source(entry)
            if at.exists() or ":" in entry.source:
                names[entry.source if ":" in entry.source else str(at)] = entry.name
        self._results = plan(
            self._sources, self._outputs, recursive=self._recursive, choice=self._choice, root=self._root, names=names
        )  # fmt: skip
        check_recorded(self._results)

    def _work(
        self,
        manifest: Manifest,
        annotation: Annotation,
        made: dict[str, Any],
        watch: Callable[[int], Callable[[Progress], None] | None] | None,
    ) -> Iterator[Result]:
        """Annotate what is to be done, and yield the results, those of sources that are done already first."""
        key = identity(made)
        todo, changed = [], 0
        with ExitStack() as looking:
            with sink_errors(str(self._folder)):
                looking.enter_context(listed([*self._sources, *self._outputs.given().values()]))
            states = {result.number: state_of(result) for result in self._results}
            for result in self._results:
                entry = manifest.entries.get(manifest.key(result.source))
                if self._resume and entry is not None and entry.state == "done":
                    same = entry.read == states[result.number][0]
                    if same and entry.settings == key and _is_there(manifest, entry, result):
                        result.skipped, result.unreadable = True, manifest.unreadable(entry)
                        yield self._end(result)
                        continue
                    changed += not same
                foreign = self._in_the_way(result, _own(manifest, result))
                if foreign is not None:
                    result.error = foreign
                    yield self._end(result)
                    continue
                todo.append(result)
        self._say_changes(manifest, made, key, todo, changed)
        manifest.put_settings(key, made)
        moved = None if watch is None else watch(len(self._results))
        if not todo:
            return
        meter = Meter({result.number: states[result.number][1] for result in todo}, len(self._results))
        drafts = Drafts(self._outputs)
        try:
            pool = self._pool(annotation, len(todo), drafts.folder)
            todo.sort(key=lambda result: -states[result.number][1])  # or a long one would be alone at the end
            tasks = [
                Task(r.number, r.source, r.pictures, r.chosen, drafts.places(r), dict(r.outputs)) for r in todo
            ]  # fmt: skip
            for task, outcome in pool.run(tasks, moved and (lambda parts: moved(meter.measure(parts)))):
                result = self._results[task.number - 1]
                entry = Entry(
                    manifest.key(result.source), result.name, "done", states[task.number][0], {}, key,
                )  # fmt: skip
                self._take(result, task, outcome, entry, manifest, drafts)
                if outcome.full or is_full(result.error):
                    pool.begin_no_more()
                    self._stopped = "the disk is full"
                meter.ended(task.number)
                yield self._end(result)
        finally:
            drafts.close()

    def _pool(self, annotation: Annotation, count: int, folder: Path | None) -> Pool:
        """Return what does so many tasks."""
        if self._cluster is not None:
            return ClusterPool(self._cluster, annotation, self._jobs, folder)
        return ProcessPool(annotation, min(self._jobs or 1, count), folder)

    def _end(self, result: Result) -> Result:
        self._ended.append(result)
        return result

    def _in_the_way(self, result: Result, own: set[str]) -> PerceptionError | None:
        """Return the error of a source one of whose outputs would replace what no batch has made."""
        files = [place(path) for kind, path in result.outputs.items() if kind in FILES and kind not in own]
        try:
            found = None if self._overwrite else next((path for path in files if path.exists()), None)
        except OSError as error:
            return SinkError(f"cannot be looked for: {error.strerror or error}", str(files[0]))
        return None if found is None else in_the_way(found)

    def _take(
        self, result: Result, task: Task, outcome: Outcome, entry: Entry, manifest: Manifest, drafts: Drafts
    ) -> None:
        """Publish what a worker has made, and put it into the manifest, which is the last that happens."""
        result.report, result.error, result.unreadable = outcome.report, outcome.error, outcome.unreadable
        if outcome.report is None:
            drafts.forget(result)
            return
        own = _own(manifest, result)
        places = {kind: manifest.place(path) for kind, path in result.outputs.items()}
        facts: dict[str, Any] = {"frames": outcome.report.frames, "boxes": outcome.boxes}
        facts["unreadable"] = [manifest.place(path) for path in outcome.unreadable]
        try:
            drafts.check(result, task.drafts, set(places) if self._overwrite else own)
            manifest.put(replace(entry, state="publishing", outputs=places))
            sizes = drafts.publish(result, task.drafts, own)
            outputs = {kind: place for kind, place in places.items() if kind in sizes}
            manifest.put(replace(entry, outputs=outputs, sizes=sizes, **facts))
        except PerceptionError as error:
            result.report, result.error = None, error
            drafts.forget(result)

    def _say_changes(
        self, manifest: Manifest, made: dict[str, Any], key: str, todo: Sequence[Result], changed: int
    ) -> None:
        """Say in one line why what was done is done again."""
        if not self._resume or not todo:
            return
        others = [
            entry.settings
            for entry in (manifest.entries.get(manifest.key(result.source)) for result in todo)
            if entry is not None and entry.state == "done" and entry.settings != key
        ]
        if others:
            what = differences(manifest.settings.get(others[-1], {}), made)
            say_progress(f"annotated again, since other settings were used before ({', '.join(what)}): {len(others)}")
        if changed:
            say_progress(f"annotated again, since they have changed: {counted(changed, 'source')}")

    def _finish(self, manifest: Manifest, made: dict[str, Any]) -> None:
        """Put the manifest in order and write the report, as far as the disk allows."""
        order = [manifest.key(result.source) for result in self._results]
        try:
            if manifest.entries:
                manifest.write(order)
            write_report(manifest, self._results, self.summary, made)
        except SinkError as error:
            log.warning("%s", error)
        finally:
            manifest.close()


def _own(manifest: Manifest, result: Result) -> set[str]:
    """Return the kinds of outputs of a source that an earlier run has made, or begun to publish, at the same places."""
    entry = manifest.entries.get(manifest.key(result.source))
    made = {} if entry is None else entry.outputs
    return {kind for kind, path in result.outputs.items() if made.get(kind) == manifest.place(path)}


def _is_there(manifest: Manifest, entry: Entry, result: Result) -> bool:
    """Return whether the outputs of an entry are there, where they are wanted, and as large as they were."""
    if not entry.outputs.keys() <= _own(manifest, result):
        return False
    for kind, path in manifest.paths(entry).items():
        size, wanted = size_of(kind, path), entry.sizes.get(kind)
        if size != wanted if kind in FILES else size < (wanted or 0):
            return False
    return True
