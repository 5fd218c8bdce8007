"""Tasks of object stores: what they read is copied here first, and what they wrote there at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from perception.batch.task import Task
from perception.common.objects import ObjectPath, files_below, is_object, place
from perception.errors import SinkError, SourceError


@contextmanager
def with_files(task: Task) -> Iterator[tuple[Task, str | None]]:
    """Give a task the same of files of this machine, which are removed at the end; one of files stays as it is.

    Yields:
        the task, whose drafts are files; and a copy of the source, None where it is a file itself.

    Raises:
        SourceError: the source cannot be copied.
    """
    if not is_object(task.source) and not any(map(is_object, task.drafts.values())):
        yield task, None
        return
    with tempfile.TemporaryDirectory(prefix="perception-") as folder:
        drafts = {
            kind: str(Path(folder) / kind / Path(path).name) if is_object(path) else path
            for kind, path in task.drafts.items()
        }
        opened = None
        if is_object(task.source):
            source = ObjectPath(task.source)
            copy = Path(folder) / f"source{source.suffix}"
            try:
                source.download(copy)
            except FileNotFoundError:
                raise SourceError("no such object", task.source) from None
            except OSError as error:
                raise SourceError(f"cannot be read: {error.strerror or error}", task.source) from None
            opened = str(copy)
        yield replace(task, drafts=drafts), opened


def upload(files: Task, task: Task) -> None:
    """Copy what was written for a task into the stores that it is for, under the names of its drafts.

    Args:
        files: the task of `with_files`.
        task: as it was.

    Raises:
        SinkError: a store refuses.
    """
    for kind, path in task.drafts.items():
        draft, made = place(path), Path(files.drafts[kind])
        if not isinstance(draft, ObjectPath):
            continue
        try:
            if made.is_file():
                draft.upload(made)
            for file in files_below(made):
                assert isinstance(file, Path)
                (draft / file.relative_to(made)).upload(file)
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror or error}", task.outputs[kind]) from None
