"""What the RTSP camera of `perception.bench.rtsp_camera` shows in tests."""

from __future__ import annotations

from pathlib import Path

from perception.bench.rtsp_camera import payloads, rtsp_camera, split_units
from tests.media import make_video

__all__ = ["access_units", "payloads", "rtsp_camera"]


def access_units(folder: Path, frames: int = 50, keyint: int = 10) -> list[list[bytes]]:
    """The NAL units of each frame of a video that shows the numbers of its frames."""
    path = make_video(
        folder / "camera.h264",
        frames=frames,
        keyint=keyint,
        size_wh=(160, 96),
        options={"bf": "0", "x264-params": "scenecut=0:repeat-headers=1:slices=1:sliced-threads=0", "threads": "1"},
    )
    units: list[list[bytes]] = []
    pending: list[bytes] = []
    for unit in split_units(path.read_bytes()):
        pending.append(unit)
        if unit[0] & 31 in (1, 5):
            units.append(pending)
            pending = []
    return units
