"""Where outputs of a batch are until they are whole: hidden folders beside the places that they go to."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from perception.annotate.outputs import FILES, Outputs
from perception.annotate.result import Result
from perception.batch.lock import WAIT_S, FolderLock
from perception.common.objects import ObjectPath, Place, files_below, is_object, place, publish, relative
from perception.errors import UsageError
from perception.sinks.files import make_folder, sink_errors

NAME = ".perception-batch"
"""The hidden folder; sources and outputs of such a name are passed over."""


class Drafts:
    """Hidden folders of one run, and the way from there to the names of the outputs.

    Args:
        outputs: the folders that are written into.

    Attributes:
        folder: one that workers hold locked while they run; None where there are only objects.

    Raises:
        UsageError: workers of another run do not end.
        SinkError: a folder cannot be written.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._roots = {kind: place(path) for kind, path in outputs.given().items()}
        run = secrets.token_hex(4)
        for root in self._hidden():
            self._remove(root)
        self._folders = {kind: root / NAME / run for kind, root in self._roots.items()}
        for folder in dict.fromkeys(self._folders.values()):
            if isinstance(folder, Path):
                make_folder(folder, str(folder.parent.parent))
        self.folder = next((folder.parent for folder in self._folders.values() if isinstance(folder, Path)), None)

    def _hidden(self) -> list[Path | ObjectPath]:
        return [root / NAME for root in dict.fromkeys(self._roots.values())]

    def _remove(self, hidden: Path | ObjectPath) -> None:
        """Remove what a killed run left, once its workers have ended, as far as that can be known."""
        if isinstance(hidden, ObjectPath):
            with sink_errors(str(hidden.parent)):
                hidden.remove_all()
        elif hidden.is_dir():
            lock = FolderLock(hidden, wait_s=WAIT_S)
            shutil.rmtree(hidden, ignore_errors=True)
            lock.release()

    def places(self, result: Result) -> dict[str, str]:
        """Return where the outputs of a source are written, by kind."""
        return {
            kind: _posix(self._of(kind) / str(result.number) / kind / Path(path).name)
            for kind, path in result.outputs.items()
        }

    def _of(self, kind: str) -> Path | ObjectPath:
        return self._folders.get(kind) or self._folders["video"]  # a picture, or pictures, in place of a video

    def forget(self, result: Result) -> None:
        """Remove what was written for a source and is not wanted; objects go at the end, all at once."""
        for folder in dict.fromkeys(self._folders.values()):
            if isinstance(folder, Path):
                shutil.rmtree(folder / str(result.number), ignore_errors=True)

    def _moves(self, result: Result, drafts: Mapping[str, str]) -> dict[str, list[tuple[Place, Place]]]:
        """Return what is to be moved where, by kind."""
        moves = {}
        for kind, name in drafts.items():
            draft, target = place(name), place(result.outputs[kind])
            with sink_errors(str(target)):
                if kind in FILES:
                    moves[kind] = [(draft, target)] if draft.exists() else []  # no video without frames
                else:
                    moves[kind] = [(path, target / relative(path, draft)) for path in files_below(draft)]
        return moves

    def check(self, result: Result, drafts: Mapping[str, str], own: set[str]) -> None:
        """Check that the outputs of a source can be given their names.

        Args:
            result: of the source.
            drafts: where its outputs are now, by kind.
            own: kinds of which files that are there may be replaced.

        Raises:
            UsageError: a file is there that may not; or the images that were read lie there.
        """
        moves = self._moves(result, drafts)
        if result.pictures and Path(result.source).is_dir():
            for kind in moves.keys() - set(FILES):
                target = place(result.outputs[kind])
                if isinstance(target, Path) and target.is_dir() and target.samefile(result.source):
                    raise UsageError("the source's images are in this folder; give another one", target)
        pairs = [pair for kind, pairs in moves.items() if kind not in own for pair in pairs]
        with sink_errors(next(iter(result.outputs.values()))):
            found = next((new for _, new in pairs if new.exists()), None)
        if found is not None:
            raise in_the_way(found)

    def publish(self, result: Result, drafts: Mapping[str, str], own: set[str]) -> dict[str, int]:
        """Give the outputs of a source their names.

        Args:
            result, drafts: of the source; see `check`.
            own: kinds that an earlier run has made: what this one did not make goes.

        Returns:
            By kind the size of what was published: bytes of a file, number of files of a folder.

        Raises:
            SinkError: a file cannot be given its name.
        """
        sizes = {}
        for kind, pairs in self._moves(result, drafts).items():
            target = place(result.outputs[kind])
            if kind in own and kind in FILES and not pairs:
                with sink_errors(str(target)):
                    target.unlink(missing_ok=True)
            # Folders without the source's name have outputs of other sources as well.
            if kind in own and kind not in FILES and target.name == Path(result.name).name:
                _clear(target, {new for _, new in pairs})
            for draft, new in pairs:
                with sink_errors(str(new)):
                    publish(draft, new)
            if pairs:
                sizes[kind] = size_of(kind, target) if kind in FILES else len(pairs)
        self.forget(result)
        return sizes

    def close(self) -> None:
        """Remove the hidden folders."""
        for root in self._hidden():
            if isinstance(root, Path):
                shutil.rmtree(root, ignore_errors=True)
            else:
                with suppress(OSError):
                    root.remove_all()


def _posix(path: Place) -> str:
    return path.as_posix() if isinstance(path, Path) else str(path)


def in_the_way(path: Place) -> UsageError:
    """Return the error of an output that no batch has made."""
    return UsageError(
        "exists, and no batch has made it; give another folder, or `overwrite=True` to replace it", str(path)
    )


def size_of(kind: str, path: Place) -> int:
    """Return the size of an output: bytes of a file, number of files of a folder; -1 where there is none."""
    try:
        if kind not in FILES:
            return len(files_below(path))
        if isinstance(path, ObjectPath):
            return next(iter(path.state()), -1)
        return path.stat().st_size
    except OSError:
        return -1


def _clear(folder: Place, keep: set[Place]) -> None:
    for path in files_below(folder):
        if path not in keep:
            with suppress(OSError):
                path.unlink()


def check_places(outputs: Outputs) -> None:
    """Check that all places of the outputs are, or can be, folders.

    Raises:
        UsageError: one is a file, standard output or an address.
    """
    if outputs.publish:
        raise UsageError("a batch writes into folders and publishes nothing; leave out what makes it a batch, or this")
    for kind, path in outputs.given().items():
        if is_object(path):
            continue
        if path == "-":
            raise UsageError(f"a batch writes into folders, and not {kind} to standard output; give --{kind} a folder")
        if Path(path).is_file() or (Path(path).suffix and not path.endswith("/") and not Path(path).is_dir()):
            what = "-o" if kind == "video" else f"--{kind}"
            raise UsageError(f"a batch writes into folders: give {what} a folder, for example out/", path)
