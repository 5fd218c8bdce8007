"""Where outputs of a batch are until they are whole: hidden folders beside the places that they go to."""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from perception.annotate.outputs import FILES, Outputs
from perception.annotate.result import Result
from perception.batch.lock import WAIT_S, FolderLock
from perception.errors import UsageError
from perception.sinks.files import make_folder, sink_errors

NAME = ".perception-batch"
"""The hidden folder; sources and outputs of such a name are passed over."""


class Drafts:
    """Hidden folders of one run, and the way from there to the names of the outputs.

    Args:
        outputs: the folders that are written into.

    Attributes:
        folder: one that workers hold locked while they run.

    Raises:
        UsageError: workers of another run do not end.
        SinkError: a folder cannot be written.
    """

    def __init__(self, outputs: Outputs) -> None:
        self._roots = {kind: Path(path) for kind, path in outputs.given().items()}
        run = secrets.token_hex(4)
        for root in self._hidden():
            self._remove(root)
        self._folders = {kind: root / NAME / run for kind, root in self._roots.items()}
        for folder in dict.fromkeys(self._folders.values()):
            make_folder(folder, str(folder.parent.parent))
        self.folder = next(iter(self._folders.values())).parent

    def _hidden(self) -> list[Path]:
        return [root / NAME for root in dict.fromkeys(self._roots.values())]

    def _remove(self, hidden: Path) -> None:
        """Remove what a killed run left, once its workers have ended."""
        if hidden.is_dir():
            lock = FolderLock(hidden, wait_s=WAIT_S)
            shutil.rmtree(hidden, ignore_errors=True)
            lock.release()

    def places(self, result: Result) -> dict[str, str]:
        """Return where the outputs of a source are written, by kind."""
        return {
            kind: str(self._of(kind) / str(result.number) / kind / Path(path).name)
            for kind, path in result.outputs.items()
        }

    def _of(self, kind: str) -> Path:
        return self._folders.get(kind) or self._folders["video"]  # a picture, or pictures, in place of a video

    def forget(self, result: Result) -> None:
        """Remove what was written for a source and is not wanted."""
        for folder in dict.fromkeys(self._folders.values()):
            shutil.rmtree(folder / str(result.number), ignore_errors=True)

    def _moves(self, result: Result) -> dict[str, list[tuple[Path, Path]]]:
        """Return what is to be moved where, by kind."""
        moves = {}
        for kind, place in self.places(result).items():
            draft, target = Path(place), Path(result.outputs[kind])
            if kind in FILES:
                moves[kind] = [(draft, target)] if draft.exists() else []  # no video without frames
            else:
                made = sorted(path for path in draft.rglob("*") if path.is_file())
                moves[kind] = [(path, target / path.relative_to(draft)) for path in made]
        return moves

    def check(self, result: Result, own: set[str]) -> None:
        """Check that the outputs of a source can be given their names.

        Args:
            result: of the source.
            own: kinds of which files that are there may be replaced.

        Raises:
            UsageError: a file is there that may not; or the images that were read lie there.
        """
        moves = self._moves(result)
        if result.pictures and Path(result.source).is_dir():
            for kind in moves.keys() - set(FILES):
                target = Path(result.outputs[kind])
                if target.is_dir() and target.samefile(result.source):
                    raise UsageError("the source's images are in this folder; give another one", target)
        pairs = [pair for kind, pairs in moves.items() if kind not in own for pair in pairs]
        found = next((new for _, new in pairs if new.exists()), None)
        if found is not None:
            raise in_the_way(found)

    def publish(self, result: Result, own: set[str]) -> dict[str, int]:
        """Give the outputs of a source their names.

        Args:
            result: of the source; see `check`.
            own: kinds that an earlier run has made: what this one did not make goes.

        Returns:
            By kind the size of what was published: bytes of a file, number of files of a folder.

        Raises:
            SinkError: a file cannot be given its name.
        """
        sizes = {}
        for kind, pairs in self._moves(result).items():
            target = Path(result.outputs[kind])
            if kind in own and kind in FILES and not pairs:
                target.unlink(missing_ok=True)
            # Folders without the source's name have outputs of other sources as well.
            if kind in own and kind not in FILES and target.name == Path(result.name).name:
                _clear(target, {new for _, new in pairs})
            for draft, new in pairs:
                make_folder(new.parent, str(new))
                with sink_errors(str(new)):
                    draft.replace(new)
            if pairs:
                sizes[kind] = size_of(kind, target) if kind in FILES else len(pairs)
        self.forget(result)
        return sizes

    def close(self) -> None:
        """Remove the hidden folders."""
        for root in self._hidden():
            shutil.rmtree(root, ignore_errors=True)


def in_the_way(path: Path) -> UsageError:
    """Return the error of an output that no batch has made."""
    return UsageError("exists, and no batch has made it; give another folder, or `overwrite=True` to replace it", path)


def size_of(kind: str, path: Path) -> int:
    """Return the size of an output: bytes of a file, number of files of a folder; -1 where there is none."""
    try:
        if kind in FILES:
            return path.stat().st_size
        return sum(1 for file in path.rglob("*") if file.is_file())
    except OSError:
        return -1


def _clear(folder: Path, keep: set[Path]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in keep:
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
        if path == "-":
            raise UsageError(f"a batch writes into folders, and not {kind} to standard output; give --{kind} a folder")
        if Path(path).is_file() or (Path(path).suffix and not path.endswith("/") and not Path(path).is_dir()):
            what = "-o" if kind == "video" else f"--{kind}"
            raise UsageError(f"a batch writes into folders: give {what} a folder, for example out/", path)
