"""The pictures on which ranges of values are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perception.card import InputSpec
from perception.errors import SourceError, UsageError
from perception.evaluation.pictures import BadPicture, picture_paths, read_picture
from perception.picture.resize import to_input
from perception.types import U8


class CalibrationPictures(Sequence[U8]):
    """Pictures of one or more folders as a network takes them; each is read when asked for.

    Every folder gives the same number of them, as far as it has so many, spread evenly over its names in order: the
    neighbours in a folder tend to be neighbours in a video.

    Args:
        folders: where they are.
        spec: the network's input.
        count: how many in all.

    Attributes:
        sources: for each folder its name and how many of its pictures are taken.

    Raises:
        UsageError: no folder, or a count below one.
        SourceError: a folder is missing or has no pictures.
    """

    def __init__(self, folders: Sequence[str | Path], spec: InputSpec, count: int = 100) -> None:
        if not folders:
            raise UsageError("quantisation needs pictures to calibrate on: `images=FOLDER`")
        if count < 1:
            raise UsageError(f"quantisation needs at least one picture, not {count}")
        self._spec = spec
        self._paths: list[Path] = []
        self.sources: list[str] = []
        listed = sorted((picture_paths(Path(folder)) for folder in folders), key=len)
        for number, paths in enumerate(listed):  # what a small folder lacks, the larger ones make up for
            share = min(len(paths), -(-(count - len(self._paths)) // (len(listed) - number)))
            chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, share).round().astype(int)]
            self._paths += chosen
            self.sources.append(f"{_short(paths[0].parent)}: {share} pictures of {len(paths)}")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> U8:  # type: ignore[override]
        """Read a picture as uint8 ``[1, H, W, 3]`` BGR at the network's size.

        Raises:
            SourceError: the picture is damaged.
        """
        path = self._paths[index]
        try:
            picture = read_picture(path)
        except BadPicture as error:
            raise SourceError(str(error), path) from None
        resized, _ = to_input(picture, self._spec.width, self._spec.height, self._spec.resize)
        return resized[None]


def _short(folder: Path) -> str:
    """Return the end of a path, which names the data set; the whole path would tell where somebody's home is."""
    return "/".join(folder.resolve().parts[-3:])
